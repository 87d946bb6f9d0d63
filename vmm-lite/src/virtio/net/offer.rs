//! What a driver is offered: what the switch can, and what is done here (virtio 1.2 §5.1.3, §5.1.4).

use super::{
    super::mmio::{Offer, VERSION_1},
    NetConfig,
};
use virtio_bindings::{
    virtio_config::VIRTIO_F_IN_ORDER,
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN,
        VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
        VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO,
        VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
        VIRTIO_NET_F_SPEED_DUPLEX, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

/// The most entries of a ring.
pub(super) const QUEUE_SIZE: u16 = 1024;
/// Where `mac` is in the configuration space (§5.1.4).
pub(super) const MAC_OFFSET: usize = 0;
/// Where `status` is.
pub(super) const STATUS_OFFSET: usize = 6;
/// The link's speed in Mbit/s and its duplex, as the configuration space says them: LACP aggregates links whose speed is known.
const LINK_MBIT: u32 = 10_000;
const FULL_DUPLEX: u8 = 1;

/// Feature bits as a mask.
pub(super) const fn mask(bits: &[u32]) -> u64 {
    let mut mask = 0;
    let mut at = 0;
    while at < bits.len() {
        mask |= 1 << bits[at];
        at += 1;
    }
    mask
}

/// What is for the process that serves the rings to offer.
pub(super) const OF_BACKEND: u64 = VERSION_1
    | mask(&[
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_GUEST_USO4,
        VIRTIO_NET_F_GUEST_USO6,
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_HOST_USO,
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_MQ,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_F_IN_ORDER,
    ]);

/// What is done here, whoever serves the rings: the configuration space and the control queue.
const OWN: u64 = mask(&[
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_STATUS,
    VIRTIO_NET_F_SPEED_DUPLEX,
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_MAC_ADDR,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
]);

/// The control queue of a driver that knows of one queue pair. For one that knows of more it is the second pair's receiveq.
pub(super) const FIRST_CONTROL: usize = 2;

/// How many rings carry frames, the first ones; the control queue is behind them (§5.1.2). A driver that has not taken MQ knows of one pair.
pub(super) fn carriers(features: u64, pairs: u16) -> usize {
    if features & mask(&[VIRTIO_NET_F_MQ]) == 0 { FIRST_CONTROL } else { 2 * usize::from(pairs) }
}

/// What a driver is offered, of what the backend offers.
pub(super) fn offer(config: &NetConfig, of_backend: u64) -> Offer {
    let mut features = of_backend & OF_BACKEND | OWN;
    if config.queues == 1 {
        features &= !mask(&[VIRTIO_NET_F_MQ]);
    }
    if config.mtu.is_some() {
        features |= mask(&[VIRTIO_NET_F_MTU]);
    }
    // mac, status, max_virtqueue_pairs, mtu, speed, duplex.
    let mut space = config.mac.to_vec();
    let status = if config.link_up { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
    space.extend(status.to_le_bytes());
    space.extend(config.queues.to_le_bytes());
    space.extend(config.mtu.unwrap_or_default().to_le_bytes());
    space.extend(LINK_MBIT.to_le_bytes());
    space.push(FULL_DUPLEX);
    Offer {
        device: VIRTIO_ID_NET,
        features,
        queues: 2 * usize::from(config.queues) + 1,
        queue_size: QUEUE_SIZE,
        config: space,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn config(mtu: Option<u16>, queues: u16) -> NetConfig {
        NetConfig { socket: PathBuf::new(), mac: [2, 0, 0, 0, 0, 7], mtu, queues, link_up: true }
    }

    #[test]
    fn a_driver_is_offered_what_both_of_us_can() {
        let all = offer(&config(None, 1), u64::MAX);
        assert_eq!(all.features & VERSION_1, VERSION_1);
        for missing in [VIRTIO_NET_F_MTU, VIRTIO_NET_F_MQ, 2, 33, 34] {
            assert_eq!(all.features & 1 << missing, 0, "{missing}");
        }
        let least = offer(&config(Some(9000), 1), VERSION_1);
        assert_eq!(least.features, VERSION_1 | OWN | mask(&[VIRTIO_NET_F_MTU]));
        assert_eq!(least.config, [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0x28, 0x23, 0x10, 0x27, 0, 0, 1]);
        assert_eq!(least.queues, 3);
    }

    #[test]
    fn the_control_queue_is_behind_the_rings_that_the_driver_knows_of() {
        let four = offer(&config(None, 4), u64::MAX);
        assert_ne!(four.features & mask(&[VIRTIO_NET_F_MQ]), 0);
        assert_eq!((four.queues, &four.config[8..10]), (9, &[4, 0][..]));
        assert_eq!((carriers(four.features, 4), carriers(VERSION_1, 4)), (8, 2));
    }
}
