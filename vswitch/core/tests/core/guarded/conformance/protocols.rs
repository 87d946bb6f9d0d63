//! Every IP protocol has connections: what it answers comes back, and an error about it, however little of it there was to quote (K19).

use super::{
    super::{H1, PC1, open_office},
    Packet, verdict,
};
use vswitch_core::drop_reason::DropReason;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Whose first bytes are two ports: UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 4] = [17, 33, 132, 136];

/// Those that are judged otherwise: a state machine of their own, queries and errors; IGMP, which routers send to all; and over IPv6
/// its extension headers, which are no protocols, and "no next header".
fn is_like_others(protocol: u8, is_v6: bool) -> bool {
    let extensions = [0, 43, 44, 51, 59, 60, 135, 139, 140, 253, 254];
    !(matches!(protocol, TCP | ICMP | 2 | ICMPV6) || is_v6 && extensions.contains(&protocol))
}

/// Something that says `ports` where the protocol has them, of as many bytes as its header has.
fn payload(protocol: u8, ports: [u8; 4]) -> Vec<u8> {
    match protocol {
        17 | 136 => [&ports[..], &[0, 8, 0, 0]].concat(),
        33 | 132 => [&ports[..], &[0; 8]].concat(),
        // Two bytes: less than an error quotes of UDP.
        _ => vec![7; 2],
    }
}

#[test]
fn every_protocol_has_connections_and_errors_about_them() {
    for (is_v6, protocol) in [false, true].into_iter().flat_map(|is_v6| (0..=255).map(move |n| (is_v6, n))) {
        if !is_like_others(protocol, is_v6) {
            continue;
        }
        let packet = |from, to, protocol, payload: &[u8]| {
            let [four, six] = Packet::families(from, to, protocol);
            if is_v6 { six.of(payload) } else { four.of(payload) }
        };
        let there = packet(2, 3, protocol, &payload(protocol, [0x0f, 0xa0, 0, 9]));
        let back = packet(3, 2, protocol, &payload(protocol, [0, 9, 0x0f, 0xa0]));
        let header = if is_v6 { 40 } else { 20 };
        let seen = if WITH_PORTS.contains(&protocol) { header + 8 } else { header };
        let error = |seen: usize| {
            let about = [&[if is_v6 { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0], &there[14..14 + seen]].concat();
            packet(3, 2, if is_v6 { ICMPV6 } else { ICMP }, &about)
        };
        let mut bench = open_office();
        let mut send = |ports, frame: &[u8]| {
            let got = verdict(&mut bench, ports, frame);
            (got, format!("protocol {protocol}, IPv6: {is_v6}: {}", bench.story()))
        };
        for (ports, frame, wanted) in [
            ((H1, PC1), &back, Err(DropReason::PolicyIngress)),
            ((H1, PC1), &error(seen), Err(DropReason::InvalidIngress)),
            ((PC1, H1), &there, Ok(())),
            ((H1, PC1), &error(seen), Ok(())),
            ((H1, PC1), &back, Ok(())),
        ] {
            let (got, story) = send(ports, frame);
            assert_eq!(got, wanted, "{story}");
        }
        if WITH_PORTS.contains(&protocol) {
            let (got, story) = send((H1, PC1), &error(header));
            assert_eq!(
                got,
                Err(DropReason::InvalidIngress),
                "without its ports nobody knows whose it was: {story}"
            );
        }
    }
}
