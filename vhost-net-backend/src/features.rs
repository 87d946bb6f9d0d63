//! Feature bits (virtio 1.2 §5.1.3 and §6; vhost-user: "Protocol features"), as masks.

/// The device gives its largest MTU (virtio 1.2 §5.1.3: VIRTIO_NET_F_MTU).
pub const NET_MTU: u64 = 1 << 3;
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

/// What the device side offers.
pub const OFFERED: u64 = NET_MTU
    | NET_MRG_RXBUF
    | NET_GUEST_ANNOUNCE
    | NET_MQ
    | INDIRECT_DESC
    | EVENT_IDX
    | VHOST_USER_PROTOCOL
    | VERSION_1
    | IN_ORDER;
