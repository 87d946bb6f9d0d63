//! Feature bits (virtio 1.2 §5.1.3 and §6; vhost-user: "Protocol features"), as masks.

/// The device completes checksums (virtio 1.2 §5.1.3: VIRTIO_NET_F_CSUM).
pub const NET_CSUM: u64 = 1 << 0;
/// The driver takes frames whose checksum is to be completed (VIRTIO_NET_F_GUEST_CSUM).
pub const NET_GUEST_CSUM: u64 = 1 << 1;
/// The device gives its largest MTU (virtio 1.2 §5.1.3: VIRTIO_NET_F_MTU).
pub const NET_MTU: u64 = 1 << 3;
/// The driver takes large TCP segments over IPv4 (VIRTIO_NET_F_GUEST_TSO4).
pub const NET_GUEST_TSO4: u64 = 1 << 7;
/// And over IPv6 (VIRTIO_NET_F_GUEST_TSO6).
pub const NET_GUEST_TSO6: u64 = 1 << 8;
/// Either of them with ECN (VIRTIO_NET_F_GUEST_ECN).
pub const NET_GUEST_ECN: u64 = 1 << 9;
/// The device takes large TCP segments over IPv4 (VIRTIO_NET_F_HOST_TSO4).
pub const NET_HOST_TSO4: u64 = 1 << 11;
/// And over IPv6 (VIRTIO_NET_F_HOST_TSO6).
pub const NET_HOST_TSO6: u64 = 1 << 12;
/// Either of them with ECN (VIRTIO_NET_F_HOST_ECN).
pub const NET_HOST_ECN: u64 = 1 << 13;
/// The driver can merge receive buffers (VIRTIO_NET_F_MRG_RXBUF).
pub const NET_MRG_RXBUF: u64 = 1 << 15;
/// The driver can send gratuitous frames when asked (VIRTIO_NET_F_GUEST_ANNOUNCE; needs STATUS and CTRL_VQ in the VMM).
pub const NET_GUEST_ANNOUNCE: u64 = 1 << 21;
/// Several queue pairs (VIRTIO_NET_F_MQ).
pub const NET_MQ: u64 = 1 << 22;
/// A descriptor may refer to a table of descriptors (VIRTIO_F_INDIRECT_DESC).
pub const INDIRECT_DESC: u64 = 1 << 28;
/// `used_event` and `avail_event` (VIRTIO_F_EVENT_IDX).
pub const EVENT_IDX: u64 = 1 << 29;
/// vhost-user: protocol features can be negotiated (VHOST_USER_F_PROTOCOL_FEATURES).
pub const VHOST_USER_PROTOCOL: u64 = 1 << 30;
/// virtio 1.x (VIRTIO_F_VERSION_1): little endian, 12-byte net header.
pub const VERSION_1: u64 = 1 << 32;
/// Buffers are used in the order in which they were made available (VIRTIO_F_IN_ORDER).
pub const IN_ORDER: u64 = 1 << 35;
/// The driver takes large UDP datagrams over IPv4 that are to be cut into datagrams (VIRTIO_NET_F_GUEST_USO4).
pub const NET_GUEST_USO4: u64 = 1 << 54;
/// And over IPv6 (VIRTIO_NET_F_GUEST_USO6).
pub const NET_GUEST_USO6: u64 = 1 << 55;
/// The device takes large UDP datagrams, over either (VIRTIO_NET_F_HOST_USO).
pub const NET_HOST_USO: u64 = 1 << 56;

/// What a driver may leave to the device: checksums, segmentation.
pub const NET_HOST_OFFLOADS: u64 = NET_CSUM | NET_HOST_TSO4 | NET_HOST_TSO6 | NET_HOST_ECN | NET_HOST_USO;
/// What a device may leave to the driver.
pub const NET_GUEST_OFFLOADS: u64 =
    NET_GUEST_CSUM | NET_GUEST_TSO4 | NET_GUEST_TSO6 | NET_GUEST_ECN | NET_GUEST_USO4 | NET_GUEST_USO6;

/// What the device side offers.
pub const OFFERED: u64 = NET_HOST_OFFLOADS
    | NET_GUEST_OFFLOADS
    | NET_MTU
    | NET_MRG_RXBUF
    | NET_GUEST_ANNOUNCE
    | NET_MQ
    | INDIRECT_DESC
    | EVENT_IDX
    | VHOST_USER_PROTOCOL
    | VERSION_1
    | IN_ORDER;
