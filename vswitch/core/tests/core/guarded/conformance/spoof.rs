//! The spoof matrix (K10, K12, K20): every field that names a sender, with every name that is another's, in every carrier.

use super::{
    super::{H1, PC1, TCP, UDP, pieces, v4, v6},
    Packet, Row, anything, datagram, hold, link_local, pc1_with,
};
use crate::support::lab::mac;
use std::net::{IpAddr, Ipv6Addr};
use vswitch_core::{
    build::{self, Ethernet},
    drop_reason::DropReason::{AntiSpoof, NdGuard},
    firewall::policy::Direction,
    mac::MacAddr,
    vlan::Tci,
};

/// From station 2 to station 3 but for the sender's MAC address.
fn from(src: MacAddr) -> Ethernet {
    Ethernet { src, dst: mac(3), tag: None }
}

/// The frame as it is, and behind a priority tag.
fn carriers(frame: &[u8]) -> [Vec<u8>; 2] {
    let mut tagged = frame.to_vec();
    let [t0, t1] = Tci::from_bits(0xa000).bits().to_be_bytes();
    tagged.splice(12..12, [0x81, 0, t0, t1]);
    [frame.to_vec(), tagged]
}

/// Rows of a lie and the truth, each in all carriers, from `pc1`, which may send anything.
fn never(rows: impl IntoIterator<Item = (String, Vec<u8>, Vec<u8>)>) {
    let rows = rows.into_iter().flat_map(|(what, lie, truth)| {
        let pairs = carriers(&lie).into_iter().zip(carriers(&truth));
        pairs
            .map(move |(lie, truth)| Row::new(what.clone(), (PC1, H1), (lie, AntiSpoof), truth))
            .collect::<Vec<_>>()
    });
    hold(|| pc1_with(&[anything(Direction::Egress), anything(Direction::Ingress)]), rows);
}

fn macs() -> [MacAddr; 4] {
    [mac(1), mac(3), mac(9), MacAddr::new([2, 0, 0, 0, 1, 2])]
}

#[test]
fn no_frame_is_from_another_mac_address() {
    let frames = |src| {
        let packet = |protocol| Packet { link: from(src), ..Packet::v4(2, 3, protocol) };
        let six = Packet { link: from(src), ..Packet::v6(2, 3, UDP) };
        [
            build::raw(from(src), 0x88b5, &[0; 46]),
            build::arp_request(from(src), v4(2), v4(3)),
            packet(UDP).of(&datagram((9, 53))),
            packet(TCP).of(&pieces::tcp_start((9, 80), 2, (1, 0), 20)),
            six.of(&datagram((9, 53))),
        ]
    };
    never(macs().into_iter().flat_map(|src| {
        frames(src).into_iter().zip(frames(mac(2))).map(move |(lie, truth)| (src.to_string(), lie, truth))
    }));
}

/// Whole, with options, in extension headers, as any fragment, of any protocol, and where a connection of the honest sender is known.
#[test]
fn no_packet_is_from_another_ip_address() {
    let sources = [v4(1), v4(3), v4(4), [10, 0, 0, 254].into(), [192, 0, 2, 1].into()];
    let four = |src: IpAddr| {
        let packet = |protocol| Packet { src, ..Packet::v4(2, 3, protocol) };
        let piece = |flags: [u8; 2], data: &[u8]| {
            let mut frame = packet(UDP).of(data);
            frame[20..22].copy_from_slice(&flags);
            frame
        };
        [
            packet(UDP).of(&datagram((9, 53))),
            packet(TCP).of(&pieces::tcp_start((9, 80), 2, (1, 0), 20)),
            packet(1).of(&[8, 0, 0, 0, 0, 1, 0, 1]),
            packet(47).of(&[0; 8]),
            packet(UDP).options(&[148, 4, 0, 0]).of(&datagram((9, 53))),
            piece([0x20, 0], &datagram((9, 53))),
            piece([0, 4], &[0; 8]),
        ]
    };
    never(sources.into_iter().flat_map(|src| {
        four(src.into())
            .into_iter()
            .zip(four(v4(2).into()))
            .map(move |(lie, truth)| (src.to_string(), lie, truth))
    }));
    let sources = [v6(1), v6(3), v6(0xfe), "2001:db8::1".parse().expect("an address")];
    let six = |src: Ipv6Addr| {
        let packet = |protocol| Packet { src: src.into(), ..Packet::v6(2, 3, protocol) };
        [
            packet(UDP).of(&datagram((9, 53))),
            packet(58).of(&[128, 0, 0, 0, 0, 1, 0, 1]),
            packet(60).of(&[&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &datagram((9, 53))].concat()),
            packet(44).of(&[&[UDP, 0, 0, 1, 0, 0, 0, 9][..], &datagram((9, 53))].concat()),
            packet(44).of(&[UDP, 0, 0, 64, 0, 0, 0, 8, 1, 1, 1, 1, 1, 1, 1, 1]),
        ]
    };
    never(sources.into_iter().flat_map(|src| {
        six(src).into_iter().zip(six(v6(2))).map(move |(lie, truth)| (src.to_string(), lie, truth))
    }));
}

/// CVE-2023-5366: what neighbour discovery says is judged each time, whatever passed before. RFC 4861 §4.3, §4.4, §4.6.1.
#[test]
fn no_neighbour_discovery_is_about_another() {
    let message = |kind: u8, target: Ipv6Addr, option: u8, of: MacAddr| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(target.octets());
        message.extend([option, 1]);
        message.extend(of.octets());
        message
    };
    let (solicitation, advertisement, nonce) = (135, 136, 14);
    let packet = |src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]| {
        Packet::new(from(mac(2)), src.into(), dst.into(), 58).hops(255).of(message)
    };
    let say = |message: &[u8]| packet(v6(2), super::ALL_NODES, message);
    let probe = |message: &[u8]| packet(Ipv6Addr::UNSPECIFIED, super::ALL_NODES, message);
    let own = say(&message(advertisement, v6(2), 2, mac(2)));
    let asks = say(&message(solicitation, v6(3), 1, mac(2)));
    let mut rows = vec![
        (
            "DAD".into(),
            probe(&message(solicitation, v6(1), nonce, mac(9))),
            probe(&message(solicitation, v6(2), nonce, mac(9))),
        ),
        (
            "an option behind another".into(),
            {
                let mut two = message(advertisement, v6(2), nonce, mac(2));
                two.extend([2, 1]);
                two.extend(mac(1).octets());
                say(&two)
            },
            own.clone(),
        ),
    ];
    for other in macs() {
        rows.push((
            format!("{other} as its own in an answer"),
            say(&message(advertisement, v6(2), 2, other)),
            own.clone(),
        ));
        rows.push((
            format!("{other} as its own in a question"),
            say(&message(solicitation, v6(3), 1, other)),
            asks.clone(),
        ));
    }
    for target in [v6(1), v6(3), "2001:db8::1".parse().expect("an address"), super::ALL_NODES] {
        rows.push((
            format!("{target} as its own"),
            say(&message(advertisement, target, 2, mac(2))),
            own.clone(),
        ));
        let unicast = |target| packet(link_local(2), v6(3), &message(advertisement, target, 2, mac(2)));
        rows.push((format!("{target}, told to one"), unicast(target), unicast(v6(2))));
    }
    never(rows);
    // Lengths and hops (RFC 4861 §7.1), and fragments, atomic ones too (RFC 6980 §5).
    let cut = |len| say(&message(advertisement, v6(2), 2, mac(2))[..len]);
    let with_option_of = |units| {
        let mut message = message(advertisement, v6(2), 2, mac(2));
        message[25] = units;
        say(&message)
    };
    let whole = message(advertisement, v6(2), 2, mac(2));
    let in_fragment = |word: [u8; 2]| {
        let mut payload = vec![58, 0, word[0], word[1], 0, 0, 0, 1];
        payload.extend(&whole);
        Packet::new(from(mac(2)), v6(2).into(), super::ALL_NODES.into(), 44).hops(255).of(&payload)
    };
    let refused = [
        (
            "from afar",
            Packet::new(from(mac(2)), v6(2).into(), super::ALL_NODES.into(), 58).hops(254).of(&whole),
        ),
        ("without its target", cut(8)),
        ("with half a target", cut(16)),
        ("with half an option", cut(28)),
        ("an option of no length", with_option_of(0)),
        ("an option past the end", with_option_of(2)),
        ("a code", {
            let mut coded = whole.clone();
            coded[1] = 1;
            say(&coded)
        }),
        ("an atomic fragment", in_fragment([0, 0])),
        ("a first fragment", in_fragment([0, 1])),
    ];
    let rows = refused.map(|(what, frame)| Row::new(what, (PC1, H1), (frame, NdGuard), own.clone()));
    hold(|| pc1_with(&[anything(Direction::Egress)]), rows);
}
