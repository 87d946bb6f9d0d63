//! Routers at their port of a running switch: they answer, find neighbours, follow another lab, and tell what they know.

use crate::{
    description::{access, description, vlan},
    lab::{DEADLINE, Lab, mac, receive, send},
};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    description::{Description, Gateway, Link, Origin, Route, Router, Routing, Via},
    id::{Epoch, PortId},
    mac::MacAddr,
};
use vswitchd::control::protocol::{
    Attachment, AttachmentKind, DatapathSettings, NeighbourRow, NeighbourState, PortState, RouteKind,
    RouteRow,
};

const ROUTER: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 0xfe]);

/// Line `line` of the file.
fn line(line: u32) -> Origin {
    Origin { line, column: 1 }
}

/// A lab with routers at port 0 and stations in VLANs 10 and 20; `addresses` are the gateways' there.
fn routed(epoch: u64, addresses: [&str; 2]) -> Description {
    let mut lab = description(&[Link::Routers, access(10), access(20)]);
    lab.epoch = Epoch::new(epoch);
    let port = PortId::new(0, 0);
    lab.ports[0].as_mut().unwrap().mac = Some(ROUTER);
    let gateways = [10, 20].into_iter().zip(addresses).map(|(number, own)| Gateway {
        vlan: vlan(number),
        addresses: vec![own.parse().unwrap()],
        dhcp: None,
        ra: false,
        neigh_suppress: false,
        origin: line(number.into()),
    });
    let router = Router {
        name: "default".into(),
        gateways: gateways.collect(),
        routes: vec![
            Route {
                to: "0.0.0.0/0".parse().unwrap(),
                via: Via::Routers(vec!["10.0.20.9".parse().unwrap()]),
                origin: line(30),
            },
            Route { to: "192.0.2.0/24".parse().unwrap(), via: Via::Blackhole, origin: line(31) },
        ],
        nat: Vec::new(),
        nameservers: Vec::new(),
    };
    lab.routing = Some(Routing { port, routers: vec![router], hosts: Vec::new(), ssh_keys: vec![] });
    lab
}

/// From the station at port `place`, untagged.
fn from(place: usize, dst: MacAddr) -> Ethernet {
    Ethernet { src: mac(place), dst, tag: None }
}

fn host(net: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, net, host)
}

/// The next frame for a guest that is this; the routers say other things, too.
fn next(guest: &mut Driver, is_it: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if let Some(frame) = receive(guest, 1).into_iter().find(|frame| is_it(frame)) {
            return frame;
        }
    }
    panic!("the frame never came");
}

fn lab() -> (Lab, Driver, Driver) {
    let lab = Lab::of(&routed(1, ["10.0.10.1/24", "10.0.20.1/24"]));
    lab.wait(|seen| seen.ports[0].state == PortState::Up);
    let (one, other) = (lab.attach(1, &Config::default()), lab.attach(2, &Config::default()));
    (lab, one, other)
}

#[test]
fn a_station_finds_its_gateway_and_pings_it() {
    let (lab, mut station, _) = lab();
    send(&mut station, &build::arp_request(from(1, MacAddr::BROADCAST), host(10, 7), host(10, 1)));
    let reply = next(&mut station, |frame| frame[..6] == mac(1).octets());
    assert_eq!(
        reply,
        build::arp_reply(Ethernet { src: ROUTER, dst: mac(1), tag: None }, host(10, 1), host(10, 7))
    );
    // Also the gateway of another VLAN: it is the same router.
    for own in [host(10, 1), host(20, 1)] {
        let ends = Addresses::V4(host(10, 7), own);
        send(&mut station, &build::echo(from(1, ROUTER), ends, Echo::Request, 1, 2, b"are you there?"));
        let answer = next(&mut station, |frame| frame[..6] == mac(1).octets());
        let back = Ethernet { src: ROUTER, dst: mac(1), tag: None };
        let expected =
            build::echo(back, Addresses::V4(own, host(10, 7)), Echo::Reply, 1, 2, b"are you there?");
        assert_eq!(answer, expected);
    }
    lab.lawful();
}

#[test]
fn the_first_frame_for_a_neighbour_waits_until_it_is_found_and_then_it_is_shown() {
    let (lab, mut station, mut neighbour) = lab();
    let ends = Addresses::V4(host(10, 7), host(20, 8));
    send(&mut station, &build::udp(from(1, ROUTER), ends, (1, 2), b"first"));
    let asked = next(&mut neighbour, |frame| frame[12..14] == [8, 6] && frame[38..42] == [10, 0, 20, 8]);
    assert_eq!(asked[28..32], [10, 0, 20, 1]);
    let end = Instant::now() + DEADLINE;
    let is_sought = |row: &NeighbourRow| row.state == NeighbourState::Incomplete && row.mac.is_none();
    while !lab.datapath.neighbours().unwrap().rows.iter().any(is_sought) {
        assert!(Instant::now() < end, "{:?}", lab.datapath.neighbours());
        std::thread::yield_now();
    }
    send(&mut neighbour, &build::arp_reply(from(2, ROUTER), host(20, 8), host(20, 1)));
    let came = next(&mut neighbour, |frame| frame[..6] == mac(2).octets());
    assert_eq!((&came[6..12], came[22], &came[42..]), (&ROUTER.octets()[..], 63, &b"first"[..]));
    // From then on the worker does it.
    send(&mut station, &build::udp(from(1, ROUTER), ends, (1, 2), b"second"));
    let came = next(&mut neighbour, |frame| frame[..6] == mac(2).octets());
    assert_eq!((&came[6..12], came[22], &came[42..]), (&ROUTER.octets()[..], 63, &b"second"[..]));
    let table = lab.datapath.neighbours().unwrap();
    let [NeighbourRow { vlan: its, address, mac: known, state, .. }] = table.rows[..] else {
        panic!("one neighbour: {table:?}");
    };
    assert_eq!((its, address, known), (vlan(20), IpAddr::from(host(20, 8)), Some(mac(2))));
    assert_eq!(state, NeighbourState::Reachable);
    // What is counted is told when the routers have nothing to do.
    let end = Instant::now() + DEADLINE;
    while lab.datapath.neighbours().unwrap().counts.forwarded == 0 {
        assert!(Instant::now() < end, "{:?}", lab.datapath.neighbours());
        std::thread::yield_now();
    }
    assert_eq!(lab.datapath.neighbours().unwrap().counts.forwarded, 1, "the first one only");
    lab.lawful();
}

#[test]
fn another_lab_has_other_gateways_and_neighbours_that_are_gone_are_not_known() {
    let (mut lab, mut station, mut neighbour) = lab();
    for (guest, place, net) in [(&mut station, 1, 10), (&mut neighbour, 2, 20)] {
        send(guest, &build::arp_request(from(place, MacAddr::BROADCAST), host(net, 7), host(net, 1)));
        next(guest, |frame| frame[..6] == mac(place).octets());
    }
    assert_eq!(lab.datapath.neighbours().unwrap().rows.len(), 2);
    let after = routed(2, ["10.0.10.1/24", "10.0.20.2/28"]);
    let attachments = after.ports.iter().flatten().map(|port| {
        let kind = match port.link {
            Link::Routers => AttachmentKind::Routers,
            _ => AttachmentKind::VhostUserListen,
        };
        Attachment::new(port.id, kind)
    });
    let sockets = (0..2).map(|_| std::fs::File::open("/dev/null").unwrap().into());
    let settings = DatapathSettings::default();
    lab.datapath.apply(&after, attachments.collect(), sockets.collect(), settings).unwrap();
    // Unasked: the address is new.
    next(&mut neighbour, |frame| frame[12..14] == [8, 6] && frame[28..32] == [10, 0, 20, 2]);
    send(&mut neighbour, &build::arp_request(from(2, MacAddr::BROADCAST), host(20, 7), host(20, 1)));
    send(&mut neighbour, &build::arp_request(from(2, MacAddr::BROADCAST), host(20, 7), host(20, 2)));
    let reply = next(&mut neighbour, |frame| frame[..6] == mac(2).octets());
    assert_eq!(reply[28..32], [10, 0, 20, 2], "for the old address nobody answers");
    let known: Vec<_> = lab.datapath.neighbours().unwrap().rows.iter().map(|row| row.address).collect();
    assert_eq!(known, [IpAddr::from(host(10, 7)), host(20, 7).into()]);
    // A lab without routers.
    let without = Description { epoch: Epoch::new(3), ..description(&[access(1), access(10), access(20)]) };
    let attachments = without.ports.iter().flatten().skip(1);
    let attachments = attachments.map(|port| Attachment::new(port.id, AttachmentKind::VhostUserListen));
    let sockets = (0..2).map(|_| std::fs::File::open("/dev/null").unwrap().into());
    let settings = DatapathSettings::default();
    lab.datapath.apply(&without, attachments.collect(), sockets.collect(), settings).unwrap();
    assert!(lab.datapath.neighbours().unwrap().rows.is_empty());
    assert!(lab.datapath.routes().unwrap().is_empty());
}

#[test]
fn routes_are_shown_with_what_said_so() {
    let (lab, _, _) = lab();
    let row = |to: &str, kind, via: Option<&str>, number: Option<u16>, line| RouteRow {
        router: "default".into(),
        to: to.parse().unwrap(),
        kind,
        via: via.map(|via| via.parse().unwrap()),
        vlan: number.map(vlan),
        line,
    };
    let expected = [
        row("10.0.10.0/24", RouteKind::Connected, None, Some(10), 10),
        row("10.0.10.1/32", RouteKind::Own, None, Some(10), 10),
        row("10.0.20.0/24", RouteKind::Connected, None, Some(20), 20),
        row("10.0.20.1/32", RouteKind::Own, None, Some(20), 20),
        row("0.0.0.0/0", RouteKind::Static, Some("10.0.20.9"), Some(20), 30),
        row("192.0.2.0/24", RouteKind::Blackhole, None, None, 31),
    ];
    assert_eq!(lab.datapath.routes().unwrap(), expected);
}
