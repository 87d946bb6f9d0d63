//! Offloads that are asked for, taken back and asked for otherwise while the switch completes checksums and cuts frames: net header, head
//! and payload change all the time.

use super::{
    ATTACKER,
    heads::{message, race},
};
use crate::{
    lab::{access, description, mac, vlan},
    offloads::{Message, Protocol, Version, is_right},
    rig::Rig,
};
use vhost_net_backend::{driver::Config, features, net_header::NetHeader};
use vswitch_core::drop_reason::DropReason;

#[test]
fn what_changes_while_it_is_completed_or_cut_leaves_right_or_not_at_all() {
    let config =
        Config { features: Config::default().features | features::NET_HOST_OFFLOADS, ..Config::default() };
    for (version, protocol, size) in [
        (Version::V4, Protocol::Tcp, None),
        (Version::V4, Protocol::Tcp, Some(300)),
        (Version::V6, Protocol::Tcp, Some(299)),
        (Version::V6, Protocol::Udp, None),
        (Version::V4, Protocol::Udp, Some(300)),
    ] {
        let mut rig = Rig::new(&description(&[access(10), access(10)]), &config);
        rig.teach(1, vlan(10), mac(1));
        let fair = Message { version, protocol, len: 1200, size, unchecked: true, ecn: false };
        let (header, bytes) = fair.sent(None);
        let (start, _, len) = fair.places(false);
        // The sum of the pseudo-header, where the checksum is to come, is the same for both.
        let mut other = bytes.clone();
        other[start + len..].iter_mut().for_each(|byte| *byte = !*byte);
        let unfair = NetHeader { gso_type: 1, gso_size: 0, csum_start: u16::MAX, ..header };
        race(
            rig,
            &[bytes.len()],
            &[message(header.to_bytes(), bytes), message(unfair.to_bytes(), other)],
            |place, _, frame| place == 1 && is_right(frame),
            |ports| {
                let dropped = &ports[ATTACKER].from_port.dropped;
                assert!(dropped.keys().all(|reason| *reason == DropReason::BadNetHeader), "{dropped:?}");
                [ports[1].to_port.delivered, dropped.values().sum()]
            },
        );
    }
}
