//! ICMP errors (K19): related to a frame that went the other way, or refused (RFC 792, RFC 4443, RFC 5927).

use super::{
    super::{ACK, H1, PC1, SYN_ACK, UDP, WEB1, open_office, segment, syn},
    Packet, Row, datagram, hold, v4, v6, verdict,
};
use crate::support::lab::Bench;
use vswitch_core::drop_reason::DropReason::{self, InvalidEgress, InvalidIngress, PolicyIngress};

/// The IP packet within a frame.
fn packet(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// An error of that type from station 3 to station 2, about the packet in `about`.
fn error(is_v6: bool, kind: u8, about: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], packet(about)].concat();
    Packet::families(3, 2, if is_v6 { 58 } else { 1 })[usize::from(is_v6)].of(&message)
}

/// What the guest at `pc1` has sent: a datagram to station 3, and a SYN; both families.
fn sent(is_v6: bool) -> [Vec<u8>; 2] {
    let udp = Packet::families(2, 3, UDP)[usize::from(is_v6)].of(&datagram((4000, 53)));
    let tcp = Packet::families(2, 3, 6)[usize::from(is_v6)].of(&super::super::pieces::tcp_start(
        (4001, 80),
        2,
        (7000, 0),
        20,
    ));
    [udp, tcp]
}

fn bench(is_v6: bool) -> Bench {
    let mut bench = open_office();
    for frame in sent(is_v6) {
        assert_eq!(verdict(&mut bench, (PC1, H1), &frame), Ok(()));
    }
    bench
}

/// Types that are errors, of each family.
fn kinds(is_v6: bool) -> Vec<u8> {
    if is_v6 { vec![1, 2, 3, 4] } else { vec![3, 11, 12] }
}

#[test]
fn an_error_about_what_was_not_sent_is_refused() {
    for is_v6 in [false, true] {
        let [udp, tcp] = sent(is_v6);
        let ip = if is_v6 { 40 } else { 20 };
        let changed = |frame: &[u8], at: usize, bytes: &[u8]| {
            let mut frame = frame.to_vec();
            frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
            frame
        };
        let other =
            |from, to, ports| Packet::families(from, to, UDP)[usize::from(is_v6)].of(&datagram(ports));
        let (src, dst) = if is_v6 { (8 + 15, 24 + 15) } else { (12 + 3, 16 + 3) };
        let protocol = if is_v6 { 6 } else { 9 };
        let quoted_error = error(is_v6, kinds(is_v6)[0], &udp);
        let mut about = vec![
            ("another source port", other(2, 3, (4002, 53))),
            ("another destination port", other(2, 3, (4000, 54))),
            ("another peer", changed(&udp, dst, &[4])),
            ("another tenant's frame", changed(&udp, src, &[4])),
            ("a frame that went this way", other(3, 2, (53, 4000))),
            ("another protocol", changed(&udp, protocol, &[33])),
            ("no version of IP", changed(&udp, 0, &[0])),
            ("the other version of IP", changed(&udp, 0, &[if is_v6 { 0x45 } else { 0x60 }])),
            ("an error", quoted_error),
            ("a number that was not sent", changed(&tcp, ip + 4, &(7002u32 + 0x4000_0000).to_be_bytes())),
            ("the next number", changed(&tcp, ip + 4, &7002u32.to_be_bytes())),
            ("nothing", udp[..14].to_vec()),
        ];
        // RFC 792 and RFC 4443 §2.4 (c): less than ports and a sequence number is about nothing.
        about.extend((1..ip + 8).map(|len| ("a part of it", udp[..14 + len].to_vec())));
        if is_v6 {
            let fragment = [[UDP, 0, 0, 8, 0, 0, 0, 9].to_vec(), datagram((4000, 53))].concat();
            about.push(("a later fragment", Packet::v6(2, 3, 44).of(&fragment)));
        } else {
            about.push(("a later fragment", changed(&udp, 6, &[0, 1])));
            about.push(("a header without its options", changed(&udp, 0, &[0x4f])));
            about.push(("a header that is too short", changed(&udp, 0, &[0x44])));
        }
        let rows = about.iter().flat_map(|(what, about)| {
            let honest = [&udp, &tcp];
            kinds(is_v6).into_iter().zip(honest.into_iter().cycle()).map(move |(kind, honest)| {
                Row::new(
                    format!("type {kind} about {what}"),
                    (H1, PC1),
                    (error(is_v6, kind, about), InvalidIngress),
                    error(is_v6, kind, honest),
                )
            })
        });
        hold(|| bench(is_v6), rows);
    }
}

/// Path MTU discovery and its like (RFC 1191, RFC 8201) work through a firewall, from any router on the way; to no one but the sender.
#[test]
fn an_error_comes_from_anywhere_and_goes_to_the_sender() {
    for is_v6 in [false, true] {
        let message = |kind: u8| [&[kind, 0, 0, 0, 0, 0, 5, 0], packet(&sent(is_v6)[0])].concat();
        let protocol = if is_v6 { 58 } else { 1 };
        let from = |router: u8| {
            let packet =
                Packet::families(3, 2, protocol).into_iter().nth(is_v6.into()).expect("of that family");
            let src = if is_v6 { v6(router).into() } else { v4(router).into() };
            Packet { src, ..packet }
        };
        let to_other = Packet { dst: if is_v6 { v6(4).into() } else { v4(4).into() }, ..from(3) };
        let rows = kinds(is_v6).into_iter().map(|kind| {
            Row::new(
                format!("type {kind} to another host"),
                (H1, PC1),
                (to_other.of(&message(kind)), InvalidIngress),
                from(254).of(&message(kind)),
            )
        });
        hold(|| bench(is_v6), rows);
    }
}

/// Redirects (RFC 792, RFC 4861 §8), source quench (RFC 6633), router advertisements (RFC 1256) and all else that is no error quotes in vain.
#[test]
fn what_is_no_error_needs_a_rule() {
    for is_v6 in [false, true] {
        let errors = kinds(is_v6);
        let queries: &[u8] = if is_v6 { &[128, 129] } else { &[8, 0, 13, 14] };
        // Of ICMPv6, what a link needs: neighbour discovery with 255 hops, multicast listeners with one. These have 64.
        let rows = (0..=255).filter(|kind| !errors.contains(kind) && !queries.contains(kind)).map(|kind| {
            Row::new(
                format!("type {kind}"),
                (H1, PC1),
                (error(is_v6, kind, &sent(is_v6)[0]), PolicyIngress),
                error(is_v6, errors[0], &sent(is_v6)[0]),
            )
        });
        hold(|| bench(is_v6), rows);
    }
}

#[test]
fn an_answer_needs_its_question() {
    for is_v6 in [false, true] {
        let (protocol, ask, answer) = if is_v6 { (58, 128, 129) } else { (1, 8, 0) };
        let of = |from, to, kind, id: u8| {
            Packet::families(from, to, protocol)[usize::from(is_v6)].of(&[kind, 0, 0, 0, 0, id, 0, 1])
        };
        let asked = || {
            let mut bench = open_office();
            assert_eq!(verdict(&mut bench, (PC1, H1), &of(2, 3, ask, 7)), Ok(()));
            bench
        };
        let refused: [(&str, Vec<u8>, DropReason); 3] = [
            ("with another identifier", of(3, 2, answer, 8), InvalidIngress),
            (
                "from another host",
                {
                    let mut frame = of(4, 2, answer, 7);
                    frame[6..12].copy_from_slice(&crate::support::lab::mac(3).octets());
                    frame
                },
                InvalidIngress,
            ),
            ("a question", of(3, 2, ask, 7), PolicyIngress),
        ];
        let rows =
            refused.map(|(what, frame, why)| Row::new(what, (H1, PC1), (frame, why), of(3, 2, answer, 7)));
        hold(asked, rows);
    }
}

/// A guest cannot end others' connections by errors either: it sends them about what it was sent, and RFC 5927 §4.1 holds for its peer.
#[test]
fn a_guest_reports_only_what_it_was_sent() {
    let syn_in = syn(3, 1, (4000, 80));
    let bench = || {
        let mut bench = open_office();
        for (ports, frame) in [
            ((H1, WEB1), syn_in.clone()),
            ((WEB1, H1), segment(syn(1, 3, (80, 4000)), SYN_ACK, 5000, 1001)),
            ((H1, WEB1), segment(syn(3, 1, (4000, 80)), ACK, 1001, 5001)),
        ] {
            assert_eq!(verdict(&mut bench, ports, &frame), Ok(()));
        }
        bench
    };
    let error = |about: &[u8]| Packet::v4(1, 3, 1).of(&[&[3, 3, 0, 0, 0, 0, 0, 0], packet(about)].concat());
    let rows = [
        ("of another port", error(&syn(3, 1, (4001, 80)))),
        ("of a number out of the window", error(&segment(syn_in.clone(), ACK, 0x4000_0000, 5001))),
        ("of what it sent itself", error(&segment(syn(1, 3, (80, 4000)), ACK, 5001, 1001))),
        ("of what was sent to another", error(&syn(3, 2, (4000, 80)))),
    ];
    let rows = rows.map(|(what, frame)| Row::new(what, (WEB1, H1), (frame, InvalidEgress), error(&syn_in)));
    hold(bench, rows);
}
