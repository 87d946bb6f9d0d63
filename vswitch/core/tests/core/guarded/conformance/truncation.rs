//! K26: of every frame of a corpus every part that begins as it does. None passes where the whole is refused, nor where only a part of it is there.

use super::{
    super::{
        ACK, H1, PC1, PC2, SYN_ACK, TCP, UDP, allow, link, open_office,
        pieces::{Sender, tcp_start, udp_start},
        segment, syn, to_all, to_port, v4, v6,
    },
    ALL_NODES, NOBODY, Packet, anything, datagram, link_local, pc1_with, pc2_with, services, verdict,
};
use crate::support::lab::Bench;
use std::net::Ipv4Addr;
use vswitch_core::{
    build::{self, Addresses, Echo},
    drop_reason::DropReason,
    firewall::policy::{Direction, Rule},
};

/// A frame, how much of it has to be there (what is behind that is padding), and its name.
struct Sample {
    what: &'static str,
    frame: Vec<u8>,
    needed: usize,
}

impl Sample {
    fn new(what: &'static str, frame: Vec<u8>) -> Self {
        Self { what, needed: frame.len(), frame }
    }
}

/// All kinds of frames from station `from` to station `to`, each also behind a priority tag and padded.
fn corpus(from: u8, to: u8) -> Vec<Sample> {
    let (four, six) = (|protocol| Packet::v4(from, to, protocol), |protocol| Packet::v6(from, to, protocol));
    let echo = |half| {
        let addresses = Addresses::V4(v4(from), v4(to));
        build::echo(link(from, to), addresses, half, 7, 1, b"hello")
    };
    let discovery = |message: &[u8]| {
        let (src, dst) = (link_local(from.into()).into(), ALL_NODES.into());
        Packet::new(to_all(from), src, dst, 58).hops(255).of(message)
    };
    let neighbour = |kind: u8, target: u8| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(v6(target).octets());
        message.extend([if kind == 135 { 1 } else { 2 }, 1]);
        message.extend(link(from, to).src.octets());
        discovery(&message)
    };
    let dhcp = Addresses::V4(NOBODY, Ipv4Addr::BROADCAST);
    let dhcp6 = Addresses::V6(link_local(from.into()), ALL_NODES);
    let quoted = Packet::v4(to, from, UDP).of(&datagram((9, 53)));
    let option = [UDP, 0, 1, 4, 0, 0, 0, 0];
    let piece = |sender: Sender, offset, more| match offset {
        0 => sender.piece(0, more, &udp_start((9, 53), 112, 48)),
        _ => sender.piece(offset, more, &[5; 16]),
    };
    let [s4, s6] = Sender::families(from, to, UDP);
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 6][..], &[0; 28]].concat();
    let mut corpus = vec![
        Sample::new("ARP request", build::arp_request(to_all(from), v4(from), v4(to))),
        Sample::new("ARP reply", build::arp_reply(link(from, to), v4(from), v4(to))),
        Sample::new("UDP", four(UDP).of(&datagram((9, 53)))),
        Sample::new("UDP to another port", four(UDP).of(&datagram((9, 54)))),
        Sample::new("UDP over IPv6", six(UDP).of(&datagram((9, 53)))),
        Sample::new("the same to another port", six(UDP).of(&datagram((9, 54)))),
        Sample::new("SYN", syn(from, to, (9, 80))),
        Sample::new("SYN to another port", syn(from, to, (9, 81))),
        Sample::new("SYN over IPv6", six(TCP).of(&tcp_start((9, 80), 2, (1, 0), 40))),
        Sample::new("an answer to no SYN", segment(syn(from, to, (80, 9)), SYN_ACK, 5, 6)),
        Sample::new("a segment of nothing", segment(syn(from, to, (80, 9)), ACK, 5, 6)),
        Sample::new("SCTP", four(132).of(&[0; 24])),
        Sample::new("UDP-Lite", four(136).of(&datagram((9, 53)))),
        Sample::new("GRE", four(47).of(&[0; 24])),
        Sample::new("ESP over IPv6", six(50).of(&[9; 24])),
        Sample::new("echo request", echo(Echo::Request)),
        Sample::new("echo reply", echo(Echo::Reply)),
        Sample::new("ICMP error", four(1).of(&[&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[14..]].concat())),
        Sample::new("redirect", four(1).of(&[&[5, 1, 0, 0, 10, 0, 0, 1], &quoted[14..]].concat())),
        Sample::new("neighbour solicitation", neighbour(135, to)),
        Sample::new("neighbour advertisement", neighbour(136, from)),
        Sample::new("a lie of a neighbour", neighbour(136, 9)),
        Sample::new("router solicitation", discovery(&[133, 0, 0, 0, 0, 0, 0, 0])),
        Sample::new("router advertisement", discovery(&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0])),
        Sample::new("DHCP question", build::udp(to_all(from), dhcp, (68, 67), b"discover")),
        Sample::new(
            "DHCP answer",
            build::udp(to_all(from), Addresses::V4(v4(from), v4(to)), (67, 68), b"offer"),
        ),
        Sample::new("DHCPv6 question", build::udp(to_all(from), dhcp6, (546, 547), b"solicit")),
        Sample::new("DHCPv6 answer", build::udp(to_all(from), dhcp6, (547, 546), b"advertise")),
        Sample::new("IGMP report", four(2).hops(1).of(&[0x16, 0, 0, 0, 239, 1, 1, 1])),
        Sample::new("IGMP query", four(2).hops(1).of(&[0x11, 0, 0, 0, 0, 0, 0, 0])),
        Sample::new("options", four(UDP).options(&[148, 4, 0, 0]).of(&datagram((9, 53)))),
        Sample::new("source route", four(UDP).options(&[131, 7, 4, 10, 0, 0, 9, 0]).of(&datagram((9, 53)))),
        Sample::new("destination options", six(60).of(&[&option[..], &datagram((9, 53))].concat())),
        Sample::new("options, another port", six(60).of(&[&option[..], &datagram((9, 54))].concat())),
        Sample::new("first fragment", piece(s4, 0, true)),
        Sample::new("first fragment of IPv6", piece(s6, 0, true)),
        Sample::new("later fragment", piece(s4, 96, true)),
        Sample::new("later fragment of IPv6", piece(s6, 96, true)),
        Sample::new("atomic fragment", s6.piece(0, false, &udp_start((9, 53), 48, 48))),
        Sample::new("SNAP", build::raw(link(from, to), 36, &snap)),
        Sample::new("MPLS", build::raw(link(from, to), 0x8847, &[0; 46])),
    ];
    // Of what is no IP nothing behind the EtherType is judged.
    corpus.last_mut().expect("it is the last").needed = 14;
    let mut all = vec![];
    for Sample { what, frame, needed } in corpus {
        let tagged = [&frame[..12], &[0x81, 0, 0xa0, 0], &frame[12..]].concat();
        let padded = [&frame[..], &[0; 9]].concat();
        all.push(Sample { what, frame: tagged, needed: needed + 4 });
        all.push(Sample { what, frame: padded, needed });
        all.push(Sample { what, frame, needed });
    }
    all
}

/// Judges every part of every frame, where the whole was not seen and where it was.
fn every_part(
    what_rules: &str,
    bench: impl Fn() -> Bench,
    ports: (u16, u16),
    samples: &[Sample],
) -> [usize; 2] {
    let mut wholes = [0; 2];
    for Sample { what, frame, needed } in samples {
        for seen in [false, true] {
            let mut bench = bench();
            bench.learning = seen;
            let whole = verdict(&mut bench, ports, frame);
            wholes[usize::from(whole.is_ok())] += 1;
            bench.learning = false;
            // A fragment that was seen is not let through twice.
            let again = verdict(&mut bench, ports, frame);
            for len in 0..frame.len() {
                let part = verdict(&mut bench, ports, &frame[..len]);
                let said = format!("{len} of {} bytes of {what}, {what_rules}", frame.len());
                assert!(whole.is_ok() || part.is_err(), "{said}: refused as a whole, and this passes");
                assert_eq!(
                    part.is_ok(),
                    again.is_ok() && len >= *needed,
                    "{said}: {part:?}, {}",
                    bench.story()
                );
                if len < 14 {
                    assert_eq!(part, Err(DropReason::Runt), "{said}");
                }
            }
        }
    }
    wholes
}

#[test]
fn no_part_of_a_frame_passes_where_the_whole_is_refused() {
    let to_guest = corpus(3, 4);
    let from_guest = corpus(2, 3);
    let one = |direction, protocol, port| allow(direction, to_port(protocol, port));
    let of = |rules: &'static str, wholes: [usize; 2]| {
        assert!(wholes[0] > 20 && wholes[1] > 20, "{rules}: both refuse and let pass: {wholes:?}");
    };
    of("two services", every_part("two services", services, (H1, PC2), &to_guest));
    let all_in: &[Rule] = &[anything(Direction::Ingress)];
    of("all enter", every_part("all enter", || pc2_with(all_in), (H1, PC2), &to_guest));
    of("default", every_part("default", open_office, (PC1, H1), &from_guest));
    let few_out: &[Rule] = &[one(Direction::Egress, UDP, 53), one(Direction::Egress, TCP, 80)];
    of("two leave", every_part("two leave", || pc1_with(few_out), (PC1, H1), &from_guest));
    let all_out: &[Rule] = &[anything(Direction::Egress)];
    of("all leave", every_part("all leave", || pc1_with(all_out), (PC1, H1), &from_guest));
}

/// The same of what passes by a connection alone: an answer, a segment, an error.
#[test]
fn no_part_of_an_answer_passes() {
    let asked = || {
        let mut bench = open_office();
        for frame in [
            Packet::v4(2, 3, UDP).of(&datagram((9, 53))),
            Packet::v6(2, 3, UDP).of(&datagram((9, 53))),
            syn(2, 3, (9, 80)),
            build::echo(link(2, 3), Addresses::V4(v4(2), v4(3)), Echo::Request, 7, 1, b"hello"),
        ] {
            assert_eq!(verdict(&mut bench, (PC1, H1), &frame), Ok(()));
        }
        bench
    };
    let quoted = Packet::v4(2, 3, UDP).of(&datagram((9, 53)));
    let answers = [
        ("UDP", Packet::v4(3, 2, UDP).of(&datagram((53, 9)))),
        ("UDP over IPv6", Packet::v6(3, 2, UDP).of(&datagram((53, 9)))),
        ("SYN with ACK", segment(syn(3, 2, (80, 9)), SYN_ACK, 5000, 1001)),
        ("echo reply", build::echo(link(3, 2), Addresses::V4(v4(3), v4(2)), Echo::Reply, 7, 1, b"hello")),
        ("error", Packet::v4(3, 2, 1).of(&[&[3, 3, 0, 0, 0, 0, 0, 0], &quoted[14..]].concat())),
    ];
    let answers = answers.map(|(what, frame)| Sample::new(what, frame));
    assert_eq!(every_part("asked for", asked, (H1, PC1), &answers), [0, 10]);
    assert_eq!(every_part("not asked for", open_office, (H1, PC1), &answers), [10, 0]);
}
