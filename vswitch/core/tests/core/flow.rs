//! Flows: what belongs together, and how it is spread.

use crate::support::frames::{Random, random_frame};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    flow::Flow,
    head::{HEAD_BYTES, LinkHeader, TAG_LEN},
    mac::MacAddr,
};

const LINK: Ethernet =
    Ethernet { src: MacAddr::new([2, 0, 0, 0, 0, 1]), dst: MacAddr::new([2, 0, 0, 0, 0, 2]), tag: None };
const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn flow(frame: &[u8]) -> Flow {
    Flow::of(&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32)
}

fn back(link: Ethernet) -> Ethernet {
    Ethernet { src: link.dst, dst: link.src, ..link }
}

/// How many of these flows each of so many queues gets.
fn spread(flows: impl Iterator<Item = Flow>, queues: u16) -> Vec<usize> {
    let mut counts = vec![0; usize::from(queues)];
    flows.for_each(|flow| counts[flow.choose(0..queues).expect("there are queues")] += 1);
    counts
}

/// An IPv4 datagram of this protocol and fragment field, with the same bytes wherever it stands.
fn datagram(fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [t0, t1] = (20 + payload.len() as u16).to_be_bytes();
    let [f0, f1] = fragment.to_be_bytes();
    let header = [0x45, 0, t0, t1, 0, 7, f0, f1, 64, protocol, 0, 0];
    let packet = [&header, &A.octets()[..], &B.octets(), payload].concat();
    build::raw(LINK, 0x0800, &packet)
}

#[test]
fn the_ends_of_a_connection_are_in_one_flow_and_other_connections_in_others() {
    let v6 = |n: u16| format!("2001:db8::{n:x}").parse().expect("an address");
    for (there, here) in [
        (Addresses::V4(A, B), Addresses::V4(B, A)),
        (Addresses::V6(v6(1), v6(2)), Addresses::V6(v6(2), v6(1))),
    ] {
        let tcp = flow(&build::tcp_syn(LINK, there, (40_000, 80), 7));
        assert_eq!(flow(&build::tcp_syn(back(LINK), here, (80, 40_000), 99)), tcp);
        for other in [(40_001, 80), (40_000, 81), (80, 40_000)] {
            assert_ne!(flow(&build::tcp_syn(LINK, there, other, 7)), tcp);
        }
        assert_ne!(flow(&build::udp(LINK, there, (40_000, 80), b"same ports")), tcp);
    }
}

#[test]
fn fragments_stay_together_and_so_does_what_has_no_ports() {
    // The first one has ports, the others have not.
    let first = datagram(0x2000, 17, &[0x9c, 0x40, 0, 80, 0, 200, 0, 0, 1, 2, 3, 4]);
    let later = datagram(0x0001, 17, &[0xff; 12]);
    assert_eq!(flow(&first), flow(&later));
    assert_eq!(flow(&datagram(0, 47, &[1; 8])), flow(&datagram(0, 47, &[2; 40])));
    // Not IP: the stations.
    let llc = |fill| build::raw(LINK, 0x88b5, &[fill; 60]);
    assert_eq!(flow(&llc(1)), flow(&llc(2)));
    assert_eq!(flow(&llc(1)), flow(&build::raw(back(LINK), 0x88b5, &[3; 80])));
    let another = Ethernet { src: MacAddr::new([2, 0, 0, 0, 0, 3]), ..LINK };
    assert_ne!(flow(&llc(1)), flow(&build::raw(another, 0x88b5, &[1; 60])));
}

#[test]
fn flows_are_spread_evenly_and_as_they_were_yesterday() {
    let flows =
        |count: u16| (0..count).map(|n| flow(&build::udp(LINK, Addresses::V4(A, B), (40_000 + n, 9), b"")));
    for queues in [2, 3, 4, 8, 16] {
        let fair = 16_000 / usize::from(queues);
        for count in spread(flows(16_000), queues) {
            assert!(count.abs_diff(fair) < fair / 8, "{count} of 16000 on one of {queues} queues");
        }
    }
    // Whoever changes this moves every flow of every lab: not by accident.
    let queues: Vec<_> = flows(8).map(|flow| flow.choose(0..4)).collect();
    assert_eq!(queues, [3, 1, 3, 1, 0, 1, 2, 0].map(Some));
}

proptest! {
    #[test]
    fn a_flow_is_known_by_what_is_copied_of_it_whatever_tags_it_has(seed in any::<u64>(), tci in any::<u16>()) {
        let frame = random_frame(&mut Random::new(seed));
        let known = Flow::of(&frame, frame.len() as u32);
        prop_assert_eq!(flow(&frame), known);
        let head = &frame[..frame.len().min(HEAD_BYTES)];
        // One more tag, unless it is one too many to see what is behind, or pushes that out of what is copied.
        if let Ok(link) = LinkHeader::parse(head, frame.len() as u32)
            && link.inner.is_none() && link.ethertype != 0x8100 && link.ethertype != 0x88a8
            && frame.len() + TAG_LEN <= HEAD_BYTES
        {
            let mut tagged = frame.clone();
            tagged.splice(12..12, [0x81, 0, (tci >> 8) as u8, tci as u8]);
            prop_assert_eq!(flow(&tagged), known);
        }
    }

    #[test]
    fn a_queue_that_goes_moves_no_flow_but_its_own(port in any::<u16>(), queues in 1u16..17, gone in 0u16..16) {
        let flow = flow(&build::udp(LINK, Addresses::V4(A, B), (port, 9), b""));
        let before = flow.choose(0..queues).map(|place| place as u16);
        let left: Vec<u16> = (0..queues).filter(|queue| *queue != gone).collect();
        let after = flow.choose(left.iter().copied()).map(|place| left[place]);
        if before != Some(gone) {
            prop_assert_eq!(after, before);
        } else {
            prop_assert_ne!(after, before);
        }
    }
}
