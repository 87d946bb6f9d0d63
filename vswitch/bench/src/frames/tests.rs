//! Frames as a second parser sees them, and what the sink makes of frames that are not as they were sent.

use super::*;
use crate::path::Path;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

fn sizes() -> impl Strategy<Value = FrameSize> {
    prop_oneof![Just(FrameSize::Fixed(64)), (64u16..=65535).prop_map(FrameSize::Fixed), Just(FrameSize::Imix)]
}

fn varieties() -> impl Strategy<Value = Variety> {
    (1u32..=MOST).prop_flat_map(|flows| {
        let vlans = 0..=flows.min(4094) as u16;
        (1..=flows, vlans).prop_map(move |(macs, vlans)| Variety { flows, macs, vlans })
    })
}

/// Frames that are switched.
fn stream(from: u16, to: u16, size: FrameSize) -> Stream {
    Stream::sent(from, to, size, Variety::default(), Route::default())
}

fn whole(stream: &Stream, place: usize, flow: Flow, stamp: Stamp) -> Vec<u8> {
    let kind = stream.kind(place);
    let mut bytes = vec![0; net_header::LEN + stream.kinds[usize::from(kind)].len];
    stream.whole(kind, flow, stamp, &mut bytes);
    assert_eq!(bytes[..net_header::LEN], [0; net_header::LEN], "no offload is asked for");
    bytes.split_off(net_header::LEN)
}

fn read(stream: &Stream, frame: &[u8]) -> Seen {
    let mut head = [0; HEAD_SHOWN];
    let shown = stream.head_len() - net_header::LEN;
    head[..shown].copy_from_slice(&frame[..shown]);
    if stream.is_tagged() {
        stream.read::<TAG>(&head, frame.len())
    } else {
        stream.read::<0>(&head, frame.len())
    }
}

proptest! {
    #[test]
    fn a_frame_is_valid_to_another_parser_and_reads_back(
        size in sizes(), variety in varieties(), ports in (0u16..512, 0u16..512),
        pick: u32, number: u32, time in 0..=TIME_MASK, path in prop::sample::select(&Path::ALL[..]), arrives: bool,
    ) {
        let route = Route { path, gateway: [6, 5, 4, 3, 2, 1] };
        let single = Variety { macs: 1, vlans: 0, ..variety };
        let variety = if path == Path::Switched { variety } else { single };
        let (from, to) = ports;
        let end = if arrives { Stream::arriving } else { Stream::sent };
        let stream = end(from, to, size, variety, route);
        let (flow, stamp) = (Flow::nth(pick % variety.flows, variety), Stamp { number, time });
        for (place, len) in size.on_ring().into_iter().enumerate() {
            let frame = whole(&stream, place, flow, stamp);
            prop_assert_eq!(frame.len(), len);
            prop_assert_eq!(read(&stream, &frame), Seen::Ours(stamp));
            prop_assert!(stream.is_exactly(&frame, stamp));
            let parsed = SlicedPacket::from_ethernet(&frame).expect("a frame");
            let tag = parsed.vlan_ids().first().map(|id| id.value());
            prop_assert_eq!(tag, (variety.vlans > 0).then_some(flow.vlan + 1));
            let Some(NetSlice::Ipv4(ip)) = parsed.net else { panic!("no IPv4") };
            prop_assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            let Some(TransportSlice::Udp(udp)) = parsed.transport else { panic!("no UDP") };
            let (source, destination) = (ip.header().source(), ip.header().destination());
            let sum = udp.to_header().calc_checksum_ipv4_raw(source, destination, udp.payload());
            prop_assert_eq!(sum.expect("short enough"), udp.checksum());
            prop_assert_eq!(ip.header().ttl(), if arrives && path != Path::Switched { 63 } else { 64 });
            let [high, low] = (from + 1).to_be_bytes();
            let gateways = arrives && path == Path::Nat;
            prop_assert_eq!(source, if gateways { [198, 19, 255, 254] } else { [198, 18, high, low] });
            prop_assert_eq!(flow_number(frame[34 + stream.tag..38 + stream.tag].try_into().unwrap()), flow.number);
        }
    }

    /// Any one byte that differs is found: in the stamp, flow and tail by the checksum or the comparison, elsewhere
    /// by the comparison.
    #[test]
    fn a_byte_that_differs_is_found(
        size in sizes(), vlans in 0u16..2, at: prop::sample::Index, change in 1u8..,
        path in prop::sample::select(&Path::ALL[..]),
    ) {
        let route = Route { path, gateway: [6, 5, 4, 3, 2, 1] };
        let vlans = if path == Path::Switched { vlans } else { 0 };
        let stream = Stream::arriving(3, 4, size, Variety { vlans, ..Variety::default() }, route);
        let stamp = Stamp { number: 7, time: 12345 };
        let mut frame = whole(&stream, 0, Flow::default(), stamp);
        let at = at.index(frame.len());
        frame[at] ^= change;
        let tag = stream.tag;
        match read(&stream, &frame) {
            Seen::Ours(seen) => {
                prop_assert!(seen == stamp && !stream.is_exactly(&frame, stamp));
                prop_assert!(path == Path::Switched || at >= 34, "byte {at}");
            }
            Seen::Corrupt => prop_assert!(path != Path::Switched || (34 + tag..52 + tag).contains(&at), "byte {at}"),
            Seen::Strayed => prop_assert!((if path == Path::Switched { 28..30 } else { 32..34 }).contains(&(at - tag)), "byte {at}"),
            Seen::Foreign => prop_assert!((12 + tag..34 + tag).contains(&at), "byte {at}"),
            Seen::Arp => prop_assert!(path != Path::Switched && at == 13),
        }
    }

    #[test]
    fn counting_on_meets_every_flow_in_turn(variety in varieties(), start: u32) {
        let start = start % variety.flows;
        let mut flow = Flow::nth(start, variety);
        for step in 1..50 {
            flow.advance(variety);
            prop_assert_eq!(flow, Flow::nth((start + step) % variety.flows, variety));
        }
    }
}

#[test]
fn a_receiver_asks_for_its_gateway_so_that_it_is_known_there() {
    let route = Route { path: Path::Nat, gateway: [6, 5, 4, 3, 2, 1] };
    let frame = route.announcement(3).expect("there is a gateway");
    let parsed = etherparse::SlicedPacket::from_ethernet(&frame).expect("a frame");
    let Some(NetSlice::Arp(arp)) = parsed.net else { panic!("no ARP: {parsed:?}") };
    assert_eq!((arp.operation(), arp.sender_hw_addr()), (etherparse::ArpOperation::REQUEST, &frame[6..12]));
    assert_eq!(
        (arp.sender_protocol_addr(), arp.target_protocol_addr()),
        (&[198, 19, 0, 4][..], &[198, 19, 255, 254][..])
    );
    assert_eq!((&frame[..6], &frame[6..12]), (&[6, 5, 4, 3, 2, 1][..], &[2, 0, 3, 0, 0, 0][..]));
    assert_eq!(Route::default().announcement(3), None);
    let stream = Stream::arriving(1, 3, FrameSize::Fixed(64), Variety::default(), route);
    let mut answer = frame;
    answer[6..12].copy_from_slice(&route.gateway);
    assert_eq!(
        (read(&stream, &answer), read(&stream, &frame)),
        (Seen::Arp, Seen::Foreign),
        "not from others"
    );
}

#[test]
fn a_frame_that_no_gateway_passed_on_or_translated_is_not_as_it_should_be() {
    let end = |path, arrives: bool| {
        let end = if arrives { Stream::arriving } else { Stream::sent };
        let route = Route { path, gateway: [6, 5, 4, 3, 2, 1] };
        end(1, 2, FrameSize::Fixed(64), Variety::default(), route)
    };
    let seen = |sent: &Stream, at: &Stream| read(at, &whole(sent, 0, Flow::default(), Stamp::default()));
    for path in [Path::Routed, Path::Nat] {
        let arriving = end(path, true);
        assert_eq!(seen(&end(path, false), &arriving), Seen::Corrupt, "{path}: as it was sent");
        assert_eq!(seen(&end(Path::Switched, false), &arriving), Seen::Corrupt, "{path}: switched");
        assert_eq!(seen(&arriving, &arriving), Seen::Ours(Stamp::default()));
    }
    assert_eq!(seen(&end(Path::Routed, true), &end(Path::Nat, true)), Seen::Corrupt, "not translated");
}

#[test]
fn sizes_count_the_fcs_as_rfc_2544_does_and_no_further() {
    let on_ring = |text: &str| text.parse::<FrameSize>().map(FrameSize::longest_on_ring);
    assert_eq!([on_ring("64"), on_ring("1518")], [Ok(60), Ok(1514)]);
    assert_eq!([on_ring("9000"), on_ring("65535"), on_ring("imix")], [Ok(9000), Ok(65535), Ok(1514)]);
    for wrong in ["63", "65536", "0", "-1", "big", ""] {
        assert!(wrong.parse::<FrameSize>().unwrap_err().contains("frame size"), "{wrong}");
    }
    let mut mix = FrameSize::Imix.on_ring();
    mix.sort_unstable();
    assert_eq!(mix, [[60; 7].as_slice(), &[566; 4], &[1514]].concat());
}

#[test]
fn a_frame_of_another_port_has_strayed_and_other_protocols_are_foreign() {
    let size = FrameSize::Fixed(64);
    let (ours, theirs) = (stream(1, 2, size), stream(9, 2, size));
    let frame = whole(&theirs, 0, Flow::default(), Stamp::default());
    assert_eq!(read(&ours, &frame), Seen::Strayed);
    assert_eq!(read(&ours, &[0xff; 60]), Seen::Foreign);
}
