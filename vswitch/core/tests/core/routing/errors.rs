//! What a router tells the sender of a frame that it does not pass on (RFC 792, RFC 1191, RFC 4443).

use super::*;
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use vswitch_core::{decide::Copy, firewall::answer::Answer};

/// What the sender on that port is told.
fn told(bench: &mut Bench, port: u16, frame: &[u8]) -> Option<Answer> {
    let (fate, copies) = bench.send(port, frame);
    let bytes = &frame[..frame.len().min(HEAD_BYTES)];
    let link = LinkHeader::parse(bytes, frame.len() as u32).expect("a frame");
    let len = frame.len() as u32;
    let view = FrameView { link: &link, bytes, len, wire_len: len };
    bench.switch().answer(port, &view, fate, &copies)
}

/// Who says it to whom, type and code, the word behind the checksum; it is checked to be whole, and to quote the frame.
fn read(answer: &Answer, frame: &[u8]) -> (IpAddr, IpAddr, u8, u8, u32) {
    let headers = PacketHeaders::from_ethernet_slice(answer.bytes()).expect("a whole packet");
    let link = headers.link.clone().and_then(etherparse::LinkHeader::ethernet2).expect("Ethernet");
    assert_eq!(
        (link.source, link.destination),
        (mac(GATEWAY).octets(), frame[6..12].try_into().expect("six"))
    );
    let (from, to): (IpAddr, IpAddr) = match headers.net.clone().expect("IP") {
        NetHeaders::Ipv4(ip, _) => (ip.source.into(), ip.destination.into()),
        NetHeaders::Ipv6(ip, _) => (ip.source.into(), ip.destination.into()),
        NetHeaders::Arp(_) => panic!("ARP"),
    };
    let at = answer.bytes().len() - headers.payload.slice().len();
    match headers.transport.expect("ICMP") {
        TransportHeader::Icmpv4(icmp) => {
            assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(headers.payload.slice()));
        }
        TransportHeader::Icmpv6(icmp) => {
            let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { panic!("two versions") };
            let sum = icmp.icmp_type.calc_checksum(from.octets(), to.octets(), headers.payload.slice());
            assert_eq!(Ok(icmp.checksum), sum);
        }
        other => panic!("{other:?}"),
    }
    let icmp = &answer.bytes()[at - 8..];
    let quoted = &icmp[8..];
    assert!(quoted.len() >= 28 && frame[14..].starts_with(quoted), "what it is about");
    (from, to, icmp[0], icmp[1], u32::from_be_bytes(icmp[4..8].try_into().expect("four")))
}

/// The IPv4 frame with this byte in its header, whose checksum is made right.
fn with_byte(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[14 + at] = byte;
    frame[24..26].fill(0);
    let checksum = vswitch_core::checksum::Sum::ZERO.add_bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum);
    frame
}

#[test]
fn traceroute_sees_the_gateway_of_its_own_vlan() {
    let mut bench = open_office();
    let frame = with_byte(datagram(1, v4(10, 1), v4(20, 2)), 8, 1);
    let answer = told(&mut bench, PC1, &frame).expect("it is told");
    assert_eq!(read(&answer, &frame), (v4(10, 254).into(), v4(10, 1).into(), 11, 0, 0));
    let mut six = datagram(2, v6(20, 2), v6(10, 1));
    six[14 + 7] = 1;
    let answer = told(&mut bench, WEB1, &six).expect("it is told");
    assert_eq!(read(&answer, &six), (v6(20, 254).into(), v6(20, 2).into(), 3, 0, 0));
}

#[test]
fn who_sends_where_no_route_leads_is_told() {
    let mut bench = open_office();
    let six = datagram(1, v6(10, 1), "2001:db8::1".parse::<Ipv6Addr>().expect("one"));
    let answer = told(&mut bench, PC1, &six).expect("it is told");
    assert_eq!(read(&answer, &six), (v6(10, 254).into(), v6(10, 1).into(), 1, 0, 0));
    // Of what is lost for another reason nobody is told: a martian, a blackhole.
    for dst in [[127, 0, 0, 1], [198, 51, 100, 9], [10, 0, 20, 255]] {
        assert_eq!(told(&mut bench, PC1, &datagram(1, v4(10, 1), Ipv4Addr::from(dst))), None, "{dst:?}");
    }
}

#[test]
fn rfc_1191_what_is_too_big_for_the_next_vlan_is_told_with_its_mtu() {
    let lab = |mtu, way_out| {
        let mut lab = office();
        let port = lab.description.ports[usize::from(WEB1)].as_mut().expect("a port");
        (port.mtu, port.way_out) = (Some(mtu), way_out);
        let mut bench = lab.bench();
        bench.send(WEB1, &build::arp_request(link(2, GATEWAY), v4(20, 2), v4(20, 254)));
        bench.neighbours.set(vlan(20), v4(20, 2).into(), mac(2), bench.now);
        bench.neighbours.set(vlan(20), v6(20, 2).into(), mac(2), bench.now);
        bench
    };
    let frame = |src: IpAddr, dst: IpAddr, len: usize| {
        let addresses = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6(src, dst),
            _ => panic!("of one version"),
        };
        build::udp(link(1, GATEWAY), addresses, (4000, 53), &vec![7; len])
    };
    let mut bench = lab(1300, false);
    let (one, other): (IpAddr, IpAddr) = (v4(10, 1).into(), v4(20, 2).into());
    let whole = with_byte(frame(one, other, 1273), 6, 0x40);
    let answer = told(&mut bench, PC1, &whole).expect("it is told");
    assert_eq!(read(&answer, &whole), (v4(10, 254).into(), one, 3, 4, 1300));
    assert_eq!(told(&mut bench, PC1, &with_byte(frame(one, other, 1272), 6, 0x40)), None, "it fits");
    // RFC 792: of one that may be cut the sender is told nothing; it comes to the routers as it is, who cut it.
    let may_be_cut = with_byte(whole.clone(), 6, 0);
    assert_eq!(told(&mut bench, PC1, &may_be_cut), None);
    let tagged = [&may_be_cut[..12], &[0x81, 0, 0, 10], &may_be_cut[12..]].concat();
    assert_eq!(only(&mut bench, PC1, &may_be_cut), (ROUTERS, tagged.clone()), "{}", bench.story());
    assert!(bench.story().contains("packets of at most 1300 bytes"), "{}", bench.story());
    assert_eq!(out(&mut bench, ROUTERS, &tagged), Err(DropReason::MtuExceeded), "what they say is cut");
    assert_eq!(
        out(&mut lab(1300, true), PC1, &may_be_cut),
        Err(DropReason::MtuExceeded),
        "it takes no fragments"
    );
    let six = frame(v6(10, 1).into(), v6(20, 2).into(), 1253);
    let answer = told(&mut bench, PC1, &six).expect("it is told");
    assert_eq!(read(&answer, &six), (v6(10, 254).into(), v6(10, 1).into(), 2, 0, 1300));
    // A frame that is merely switched is a bridge's affair.
    let copies = [Copy { to: WEB1, outcome: Err(DropReason::MtuExceeded) }];
    let bytes = &whole[..HEAD_BYTES];
    let switched = LinkHeader { dst: mac(2), ..LinkHeader::parse(bytes, 1315).expect("a frame") };
    let view = FrameView { link: &switched, bytes, len: 1315, wire_len: 1315 };
    assert_eq!(bench.switch().answer(PC1, &view, Fate::Unicast, &copies), None);
}

#[test]
fn rfc_1122_3_2_2_no_error_is_answered_by_one() {
    let mut bench = open_office();
    // An ICMP error whose time to live ends: type 3 in the place of an echo request.
    let echo =
        build::echo(link(1, GATEWAY), Addresses::V4(v4(10, 1), v4(20, 2)), build::Echo::Request, 1, 1, b"x");
    let asked = with_byte(echo, 8, 1);
    assert!(told(&mut bench, PC1, &asked).is_some());
    let mut error = asked.clone();
    error[34] = 3;
    assert_eq!(told(&mut bench, PC1, &error), None);
    // A fragment that is not the first.
    let fragment = with_byte(asked, 7, 5);
    assert_eq!(told(&mut bench, PC1, &fragment), None);
}

/// RFC 1812 §5.2.7.2 and RFC 4861 §8.2 say that a router should tell of a better first hop: here none is told, and the packet goes on.
#[test]
fn a_packet_that_goes_back_into_its_vlan_is_passed_on_and_no_redirect_is_sent() {
    let mut bench = open_office();
    bench.neighbours.set(vlan(10), v4(10, 3).into(), mac(3), bench.now);
    bench.send(
        BOX,
        &build::arp_request(
            Ethernet { tag: Some(vswitch_core::vlan::Tci::from_bits(10)), ..link(3, GATEWAY) },
            v4(10, 3),
            v4(10, 254),
        ),
    );
    let frame = datagram(1, v4(10, 1), Ipv4Addr::new(8, 8, 8, 8));
    assert_eq!(only(&mut bench, PC1, &frame).0, BOX, "{}", bench.story());
    assert_eq!(told(&mut bench, PC1, &frame), None);
}
