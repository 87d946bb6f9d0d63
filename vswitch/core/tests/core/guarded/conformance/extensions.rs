//! IPv6 extension headers (K13): what stands behind them is judged as if they were not there, or not at all.

use super::{
    super::{H1, PC1, PC2, UDP, open_office},
    Packet, Row, datagram, hold, services, verdict,
};
use vswitch_core::drop_reason::DropReason::{PolicyIngress, UnparsedEgress, UnparsedIngress};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
const OPTIONS: u8 = 60;

/// One header of that kind, of so many bytes; of a routing header, of that type, with no segments left.
fn header(kind: u8, len: usize, routing: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; len];
    bytes[1] = if kind == AUTHENTICATION { (len / 4 - 2) as u8 } else { (len / 8 - 1) as u8 };
    match kind {
        ROUTING => bytes[2] = routing,
        AUTHENTICATION => {}
        // PadN over the rest.
        _ => (bytes[2], bytes[3]) = (1, (len - 4) as u8),
    }
    (kind, bytes)
}

/// A routing header of that type with so many segments left.
fn leading_on(routing: u8, segments_left: u8) -> (u8, Vec<u8>) {
    let (kind, mut bytes) = header(ROUTING, 24, routing);
    bytes[3] = segments_left;
    (kind, bytes)
}

/// The packet with these headers in front of a datagram to that port.
fn chain(from: u8, to: u8, headers: &[(u8, Vec<u8>)], port: u16) -> Vec<u8> {
    let mut payload = vec![];
    for (place, (_, bytes)) in headers.iter().enumerate() {
        let next = headers.get(place + 1).map_or(UDP, |(kind, _)| *kind);
        payload.push(next);
        payload.extend(&bytes[1..]);
    }
    payload.extend(datagram((9, port)));
    Packet::v6(from, to, headers.first().map_or(UDP, |(kind, _)| *kind)).of(&payload)
}

#[test]
fn a_chain_is_walked_to_its_eighth_header_and_no_further() {
    for count in 0..=64 {
        let options = vec![header(OPTIONS, 8, 0); count];
        let is_read = count <= 8;
        let expected = if is_read { [Ok(()), Err(PolicyIngress)] } else { [Err(UnparsedIngress); 2] };
        let got = [53, 54].map(|port| verdict(&mut services(), (H1, PC2), &chain(3, 4, &options, port)));
        assert_eq!(got, expected, "{count} headers");
    }
    // However few headers there are: what lies behind the 192 bytes that are copied is not read.
    for len in (8..=256).step_by(8) {
        let options = [header(OPTIONS, len, 0)];
        let is_read = 14 + 40 + len + 8 <= 192;
        let expected = if is_read { Ok(()) } else { Err(UnparsedIngress) };
        assert_eq!(verdict(&mut services(), (H1, PC2), &chain(3, 4, &options, 53)), expected, "{len} bytes");
    }
}

#[test]
fn every_chain_is_transparent_or_refused() {
    let option = || header(OPTIONS, 8, 0);
    let all = |headers: &[(u8, Vec<u8>)]| headers.to_vec();
    let honest = [
        all(&[header(HOP_BY_HOP, 8, 0), option()]),
        all(&[option(), option()]),
        // Where no segments are left the packet is where its route ends (RFC 8200 §4.4).
        all(&[header(ROUTING, 24, 2)]),
        all(&[header(ROUTING, 24, 4)]),
        all(&[header(AUTHENTICATION, 24, 0)]),
    ];
    let jumbo = {
        let mut frame = chain(3, 4, &[(HOP_BY_HOP, vec![0, 0, 0xc2, 4, 0, 1, 0, 0])], 53);
        frame[18..20].copy_from_slice(&[0, 0]);
        frame
    };
    let short = |kind, units| {
        let mut headers = header(kind, 8, 2);
        headers.1[1] = units;
        chain(3, 4, &[headers], 53)
    };
    let refused = [
        ("hop-by-hop options that are not the first", chain(3, 4, &[option(), header(HOP_BY_HOP, 8, 0)], 53)),
        ("hop-by-hop options twice", chain(3, 4, &[header(HOP_BY_HOP, 8, 0), header(HOP_BY_HOP, 8, 0)], 53)),
        ("a routing header of type 0 (RFC 5095)", chain(3, 4, &[leading_on(0, 1)], 53)),
        ("one behind options", chain(3, 4, &[option(), leading_on(0, 1)], 53)),
        ("one behind another", chain(3, 4, &[header(ROUTING, 24, 2), leading_on(0, 1)], 53)),
        ("one with nothing left to do", chain(3, 4, &[header(ROUTING, 24, 0)], 53)),
        ("options past the end", short(OPTIONS, 30)),
        ("a routing header past the end", short(ROUTING, 30)),
        ("an authentication header without length", short(AUTHENTICATION, 0)),
        ("one past the end", short(AUTHENTICATION, 200)),
        ("a jumbogram (RFC 2675)", jumbo),
        ("a chain that ends in itself", Packet::v6(3, 4, OPTIONS).of(&[OPTIONS, 0, 1, 4, 0, 0, 0, 0])),
        ("nothing behind its fixed header", Packet::v6(3, 4, OPTIONS).of(&[])),
    ];
    let rows = refused.into_iter().zip(honest.iter().cycle()).map(|((what, refused), honest)| {
        Row::new(what, (H1, PC2), (refused, UnparsedIngress), chain(3, 4, honest, 53))
    });
    hold(services, rows);
    // What is transparent shows what is behind it.
    let denied = honest.iter().map(|headers| {
        Row::new(
            "a port that no rule names",
            (H1, PC2),
            (chain(3, 4, headers, 54), PolicyIngress),
            chain(3, 4, headers, 53),
        )
    });
    hold(services, denied);
    let from_guest = [Row::new(
        "from a guest",
        (PC1, H1),
        (chain(2, 3, &[leading_on(0, 1)], 53), UnparsedEgress),
        chain(2, 3, &[header(ROUTING, 24, 2)], 53),
    )];
    hold(open_office, from_guest);
}

/// Who is named next would get what no rule was asked about: mobile hosts (type 2, RFC 6275), RPL (3, RFC 6554), segment routing (4, RFC 8754),
/// compact routing (5 and 6, RFC 9631), and whatever comes.
#[test]
fn no_routing_header_leads_on_to_where_rules_were_not_asked() {
    for kind in 1..=255 {
        let honest = || chain(3, 4, &[header(ROUTING, 24, kind)], 53);
        let rows = [1, 2, 255].map(|left| {
            let what = format!("type {kind}, {left} segments left");
            Row::new(what, (H1, PC2), (chain(3, 4, &[leading_on(kind, left)], 53), UnparsedIngress), honest())
        });
        // The table of tests in all orders is for the types that are in use.
        let count = if (2..=6).contains(&kind) { 3 } else { 1 };
        hold(services, rows.into_iter().take(count));
    }
    let behind = [
        ("behind options", vec![header(OPTIONS, 8, 0), leading_on(4, 1)]),
        ("behind one that ends", vec![header(ROUTING, 24, 4), leading_on(4, 1)]),
        ("before one that ends", vec![leading_on(4, 1), header(ROUTING, 24, 4)]),
    ];
    let rows = behind.map(|(what, headers)| {
        let honest = [header(OPTIONS, 8, 0), header(ROUTING, 24, 4)];
        Row::new(what, (H1, PC2), (chain(3, 4, &headers, 53), UnparsedIngress), chain(3, 4, &honest, 53))
    });
    hold(services, rows);
    // A first fragment, whose rest would follow it.
    let fragment = |left| {
        let (_, mut routing) = leading_on(4, left);
        routing[0] = 44;
        let mut payload = [&routing[..], &[UDP, 0, 0, 1, 0, 0, 0, 9]].concat();
        payload.extend(datagram((9, 53)));
        Packet::v6(3, 4, ROUTING).of(&payload)
    };
    let of_first = |left| verdict(&mut services(), (H1, PC2), &fragment(left));
    assert_eq!([0, 1].map(of_first), [Ok(()), Err(UnparsedIngress)]);
    let from_guest = [2, 3, 4].map(|kind| {
        let frame = |left| chain(2, 3, &[leading_on(kind, left)], 53);
        Row::new(format!("from a guest, type {kind}"), (PC1, H1), (frame(1), UnparsedEgress), frame(0))
    });
    hold(open_office, from_guest);
}

/// A header that nobody knows ends the chain: what is behind it is no port that a rule could name.
#[test]
fn behind_an_unknown_header_there_are_no_ports() {
    // No next header, ESP, mobility, HIP, Shim6, and those for experiments (RFC 3692).
    let rows = [59, 50, 135, 139, 140, 253, 254, 99].map(|kind| {
        let payload = [&[UDP, 0, 0, 0, 0, 0, 0, 0][..], &datagram((9, 53))].concat();
        let hidden = Packet::v6(3, 4, kind).of(&payload);
        let honest =
            Packet::v6(3, 4, OPTIONS).of(&[&[UDP, 0, 1, 4, 0, 0, 0, 0][..], &datagram((9, 53))].concat());
        Row::new(format!("{kind}"), (H1, PC2), (hidden, PolicyIngress), honest)
    });
    hold(services, rows);
}
