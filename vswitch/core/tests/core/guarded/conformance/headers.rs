//! IPv4, IPv6 and UDP headers that lie (K11, K12, K13, K18), against references that are as slow as they are simple.

use super::{
    super::{H1, PC1, PC2, TCP, UDP, allow, open_office, syn, to_port},
    Packet, Row, datagram, hold, link_local, pc2_with, services, verdict,
};
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    drop_reason::DropReason::{self, AntiSpoof, PolicyIngress, UnparsedEgress, UnparsedIngress},
    firewall::policy::{Direction, Match, Remote},
};

const TO_PC2: (u16, u16) = (H1, PC2);

/// Passes, or cannot be read.
fn passes_if(passes: bool) -> super::Verdict {
    if passes { Ok(()) } else { Err(UnparsedIngress) }
}

/// CVE-2016-10377 and its kind: every header length with every total length, with and without a connection that it might ride on.
#[test]
fn ipv4_lengths_pass_if_they_hold_together() {
    for known in [false, true] {
        let mut bench = services();
        if known {
            assert_eq!(verdict(&mut bench, TO_PC2, &Packet::v4(3, 4, UDP).of(&datagram((9, 53)))), Ok(()));
        }
        bench.learning = false;
        let mut passed = 0;
        for words in 0..16usize {
            let whole = Packet::v4(3, 4, UDP).options(&vec![1; words.saturating_sub(5) * 4]);
            let mut frame = whole.of(&datagram((9, 53)));
            let there = frame.len() - 14;
            frame[14] = 0x40 | words as u8;
            for total in 0..=there + 2 {
                frame[16..18].copy_from_slice(&(total as u16).to_be_bytes());
                // The datagram says that it has 16 bytes.
                let fits = words >= 5 && words * 4 + 16 <= total && total <= there;
                let got = verdict(&mut bench, TO_PC2, &frame);
                assert_eq!(got, passes_if(fits), "{words} words, {total} of {there}: {}", bench.story());
                passed += usize::from(fits);
            }
        }
        assert_eq!(passed, 11, "one of each header length");
        let mut frame = Packet::v4(3, 4, UDP).of(&datagram((9, 53)));
        for version in 0..16 {
            frame[14] = version << 4 | 5;
            assert_eq!(verdict(&mut bench, TO_PC2, &frame), passes_if(version == 4), "version {version}");
        }
    }
}

#[test]
fn ipv6_lengths_pass_if_they_hold_together() {
    for known in [false, true] {
        let mut bench = services();
        let honest = Packet::v6(3, 4, UDP).of(&datagram((9, 53)));
        if known {
            assert_eq!(verdict(&mut bench, TO_PC2, &honest), Ok(()));
        }
        bench.learning = false;
        let padded = [&honest[..], &[0; 30]].concat();
        for len in 0..=60u16 {
            let mut frame = padded.clone();
            frame[18..20].copy_from_slice(&len.to_be_bytes());
            let there = padded.len() - 54;
            let fits = (16..=there).contains(&usize::from(len));
            assert_eq!(verdict(&mut bench, TO_PC2, &frame), passes_if(fits), "{len} bytes of {there}");
        }
        for version in 0..16 {
            let mut frame = honest.clone();
            frame[14] = version << 4;
            assert_eq!(verdict(&mut bench, TO_PC2, &frame), passes_if(version == 6), "version {version}");
        }
    }
}

#[test]
fn transport_lengths_pass_if_they_hold_together() {
    for (udp, tcp) in Packet::families(3, 4, UDP).into_iter().zip(Packet::families(3, 4, TCP)) {
        let mut bench = services();
        bench.learning = false;
        for len in 0..=18u16 {
            let mut message = datagram((9, 53));
            message[4..6].copy_from_slice(&len.to_be_bytes());
            let got = verdict(&mut bench, TO_PC2, &udp.of(&message));
            assert_eq!(got, passes_if((8..=16).contains(&len)), "UDP length {len}");
        }
        for words in 0..16u8 {
            let mut segment = super::super::pieces::tcp_start((9, 80), 2, (1, 0), 32);
            segment[12] = words << 4;
            let got = verdict(&mut bench, TO_PC2, &tcp.of(&segment));
            assert_eq!(got, passes_if((5..=8).contains(&words)), "data offset {words}");
        }
        for len in 0..20 {
            let cut = &super::super::pieces::tcp_start((9, 80), 2, (1, 0), 20)[..len];
            assert_eq!(verdict(&mut bench, TO_PC2, &tcp.of(cut)), Err(UnparsedIngress), "{len} bytes of TCP");
        }
    }
}

/// RFC 7126 §4.3 and §4.4: options are read for routes, which none may name, and for lengths, behind which nothing may hide.
#[test]
fn options_that_name_a_route_or_hide_one_pass_nowhere() {
    let loose = [131, 7, 4, 10, 0, 0, 9];
    let refused: &[(&str, &[u8])] = &[
        ("loose source route", &[131, 7, 4, 10, 0, 0, 9, 0]),
        ("strict source route", &[137, 7, 4, 10, 0, 0, 9, 0]),
        ("one that was followed to its end", &[131, 7, 8, 10, 0, 0, 9, 0]),
        ("one behind no-operations", &[1, 1, 1, 131, 3, 4, 0, 0]),
        ("one behind another option", &[148, 4, 0, 0, 137, 3, 4, 0]),
        ("no length at all", &[1, 1, 1, 148]),
        ("a length of 0", &[7, 0, 4, 0]),
        ("a length of 1", &[7, 1, 131, 3]),
        ("a length past the end", &[68, 5, 5, 0]),
    ];
    let honest: &[&[u8]] = &[
        &[1, 1, 1, 0],
        &[148, 4, 0, 0],
        &[7, 7, 4, 0, 0, 0, 0, 0],
        &[68, 8, 5, 0, 0, 0, 0, 0],
        // Behind the end of the list there are none.
        &[0, loose[0], loose[1], loose[2]],
    ];
    let rows = |from, to, ports: (u16, u16), because: DropReason| {
        refused.iter().zip(honest.iter().cycle()).map(move |((what, options), honest)| {
            let of = |options| Packet::v4(from, to, UDP).options(options).of(&datagram((9, 53)));
            Row::new(*what, ports, (of(options), because), of(honest))
        })
    };
    hold(services, rows(3, 4, TO_PC2, UnparsedIngress));
    hold(open_office, rows(2, 3, (PC1, H1), UnparsedEgress));
}

/// Addresses that no host has as its own (RFC 1122 §3.2.1.3, RFC 6890), and that of who it is sent to (LAND).
#[test]
fn no_guest_sends_from_an_address_that_is_nobodys() {
    let four = [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [10, 0, 0, 0],
        [10, 0, 0, 1],
        [10, 0, 0, 3],
        [10, 0, 0, 255],
        [127, 0, 0, 1],
        [169, 254, 1, 1],
        [224, 0, 0, 1],
        [239, 255, 255, 250],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
    ];
    let six = [
        "::",
        "::1",
        "fd00::1",
        "fd00::3",
        "ff02::1",
        "ff0e::1",
        "::ffff:10.0.0.2",
        "::10.0.0.2",
        "2002:a00:2::1",
    ];
    let rows_4 = four.map(|src| {
        let frame =
            Packet { src: Ipv4Addr::from(src).into(), ..Packet::v4(2, 3, UDP) }.of(&datagram((9, 53)));
        let honest = Packet::v4(2, 3, UDP).of(&datagram((9, 53)));
        Row::new(format!("{src:?}"), (PC1, H1), (frame, AntiSpoof), honest)
    });
    let rows_6 = six.map(|src| {
        let address = src.parse::<Ipv6Addr>().expect("an address");
        let frame = Packet { src: address.into(), ..Packet::v6(2, 3, UDP) }.of(&datagram((9, 53)));
        let honest = Packet { src: link_local(2).into(), ..Packet::v6(2, 3, UDP) }.of(&datagram((9, 53)));
        Row::new(src, (PC1, H1), (frame, AntiSpoof), honest)
    });
    hold(open_office, rows_4.into_iter().chain(rows_6));
}

/// Who has no firewall calls itself what it likes, also the receiver's own name: the receiver's rules say from whom they let in.
#[test]
fn from_an_open_interface_rules_for_addresses_refuse_strangers() {
    let from = Match {
        remote: Remote::Networks(vec!["10.0.0.3/32".parse().expect("a network")]),
        ..to_port(UDP, 53)
    };
    let strangers = [[240, 0, 0, 1], [127, 0, 0, 1], [10, 0, 0, 4], [224, 0, 0, 1]];
    let frame =
        |src| Packet { src: Ipv4Addr::from(src).into(), ..Packet::v4(3, 4, UDP) }.of(&datagram((9, 53)));
    let rows = strangers
        .map(|src| Row::new(format!("{src:?}"), TO_PC2, (frame(src), PolicyIngress), frame([10, 0, 0, 3])));
    hold(|| pc2_with(&[allow(Direction::Ingress, from.clone())]), rows);
    // Rules that name nobody let in all of them.
    let mut bench = services();
    for src in strangers {
        assert_eq!(verdict(&mut bench, TO_PC2, &frame(src)), Ok(()), "{src:?}");
    }
}

/// What only its receiver can judge, a switch carries: the hops that are left, checksums, which an offload may still have to write, and port 0.
#[test]
fn what_is_for_the_receiver_to_judge_is_judged_by_rules_alone() {
    let rule = |port| allow(Direction::Ingress, to_port(UDP, port));
    for packet in [Packet::v4, Packet::v6] {
        let with = |hops, ports, checksum: u16| {
            let mut message = datagram(ports);
            message[6..8].copy_from_slice(&checksum.to_be_bytes());
            packet(3, 4, UDP).hops(hops).of(&message)
        };
        let cases = [
            ("no hop left", with(0, (9, 53), 7)),
            ("one hop left", with(1, (9, 53), 7)),
            ("no checksum", with(64, (9, 53), 0)),
            ("a wrong checksum", with(64, (9, 53), 0xdead)),
            ("from port 0", with(64, (0, 53), 7)),
            ("to port 0", with(64, (9, 0), 7)),
        ];
        for (what, frame) in cases {
            let mut bench = pc2_with(&[rule(53), rule(0)]);
            assert_eq!(verdict(&mut bench, TO_PC2, &frame), Ok(()), "{what}");
            let mut bench = pc2_with(&[rule(54)]);
            assert_eq!(verdict(&mut bench, TO_PC2, &frame), Err(PolicyIngress), "{what}");
        }
    }
}

/// CVE-2020-35498: what stands behind the datagram in its frame changes nothing.
#[test]
fn a_padded_frame_is_judged_as_its_datagram() {
    let frames = Packet::families(3, 4, UDP).into_iter().flat_map(|packet| {
        [(packet.of(&datagram((9, 53))), Ok(())), (packet.of(&datagram((9, 54))), Err(PolicyIngress))]
    });
    let frames = frames.chain([(syn(3, 4, (9, 80)), Ok(())), (syn(3, 4, (9, 81)), Err(PolicyIngress))]);
    for (frame, expected) in frames {
        for padding in [1, 2, 6, 18, 46, 200, 1400] {
            // As another datagram, too, that would be let in.
            for pad in [vec![0; padding], datagram((9, 53)).into_iter().cycle().take(padding).collect()] {
                let mut bench = services();
                let padded = [&frame[..], &pad].concat();
                assert_eq!(
                    verdict(&mut bench, TO_PC2, &padded),
                    expected,
                    "{padding} bytes behind {frame:x?}"
                );
            }
        }
    }
}

/// CVE-2023-1668: of 256 protocols the one that a rule names passes, also where a connection of that one is open.
#[test]
fn of_all_protocols_the_one_that_is_allowed_passes() {
    for packet in [Packet::v4, Packet::v6] {
        for known in [false, true] {
            let mut bench = pc2_with(&[allow(Direction::Ingress, to_port(UDP, 53))]);
            let frame = |protocol| packet(3, 4, protocol).of(&datagram((9, 53)));
            if known {
                assert_eq!(verdict(&mut bench, TO_PC2, &frame(UDP)), Ok(()));
            }
            for protocol in 0..=255 {
                let got = verdict(&mut bench, TO_PC2, &frame(protocol));
                assert_eq!(got.is_ok(), protocol == UDP, "{protocol}: {}", bench.story());
            }
        }
    }
}

/// No verdict is kept that is wider than what was judged (CVE-2018-17205, CVE-2019-25076): of an answer that passes, every bit is flipped.
#[test]
fn what_one_connection_opened_is_open_for_it_alone() {
    let mut bench = open_office();
    let asked = Packet::v4(2, 3, UDP).of(&datagram((9, 53)));
    let answer = Packet::v4(3, 2, UDP).of(&datagram((53, 9)));
    assert_eq!(verdict(&mut bench, (H1, PC1), &answer), Err(PolicyIngress));
    assert_eq!(verdict(&mut bench, (PC1, H1), &asked), Ok(()));
    bench.learning = false;
    for bit in 14 * 8..answer.len() * 8 {
        let (byte, place) = (bit / 8, bit % 8);
        let mut frame = answer.clone();
        frame[byte] ^= 1 << place;
        // Type of service, identification, three flags, hops left, both checksums, data.
        let is_free = matches!(byte, 15 | 18 | 19 | 22 | 24 | 25 | 40..) || (byte == 20 && place >= 5);
        let got = verdict(&mut bench, (H1, PC1), &frame);
        assert_eq!(got.is_ok(), is_free, "bit {place} of byte {byte}: {got:?}");
    }
}
