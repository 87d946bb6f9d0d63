//! Gateways and what they pass on from VLAN to VLAN.

mod errors;
mod forwarding;
mod lookups;
mod nat;
mod neighbours;
mod refusals;
mod rows;
mod standards;
mod suppressed;
mod tables;

use crate::support::lab::{Bench, Lab, access, mac, router, trunk, vlan};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    decide::{Edit, Fate, TagEdit},
    description::Firewall,
    drop_reason::DropReason,
    firewall::policy::GroupId,
    head::{FrameView, HEAD_BYTES, LinkHeader, TAG_LEN},
    trace::NoTrace,
};

/// Places of the ports of [`office`].
const PC1: u16 = 0;
const WEB1: u16 = 1;
const BOX: u16 = 2;
const ROUTERS: u16 = 3;

/// The routers' station.
const GATEWAY: u8 = 99;

/// `pc1` (10.0.10.1, fd10::1) in VLAN 10 and `web1` (10.0.20.2, fd20::2) in VLAN 20, `box` on a trunk of both; gateways 10.0.10.254, fd10::fe
/// and so on; 192.0.2.0/24 is behind 10.0.20.2 and a default route behind 10.0.10.3.
fn office() -> Lab {
    let gateways: &[(u16, &[&str])] =
        &[(10, &["10.0.10.254/24", "fd10::fe/64"]), (20, &["10.0.20.254/24", "fd20::fe/64"])];
    let routes = ["192.0.2.0/24 via 10.0.20.2", "0.0.0.0/0 via 10.0.10.3", "198.51.100.0/24 via blackhole"];
    Lab::new()
        .switch("sw1")
        .port("pc1", 0, access(10))
        .port("web1", 0, access(20))
        .port("box", 0, trunk(&[10, 20], None))
        .routed(|routing| routing.routers.push(router("default", gateways, &routes)))
}

/// The same, where nothing is let in at that port.
fn closed(port: u16) -> Lab {
    let mut lab = office().group("none", &[]);
    let port = lab.description.ports[usize::from(port)].as_mut().expect("a port");
    port.firewall = Some(Firewall {
        groups: vec![GroupId::new(0)],
        addresses: vec![],
        identity: None,
        dhcp_server: false,
        router: false,
        origin: port.origin,
    });
    lab
}

/// Both stations are known, to the switch and to the router.
fn open_office() -> Bench {
    opened(&office())
}

/// The same of a lab that has more than the office.
fn opened(lab: &Lab) -> Bench {
    let mut bench = lab.bench();
    for (port, n, vlan_id) in [(PC1, 1, 10), (WEB1, 2, 20)] {
        let hello = build::arp_request(link(n, GATEWAY), v4(vlan_id, n), v4(vlan_id, 254));
        assert_eq!(bench.send(port, &hello).0, Fate::Unicast, "{}", bench.story());
        bench.neighbours.set(vlan(vlan_id), v4(vlan_id, n).into(), mac(n), bench.now);
        bench.neighbours.set(vlan(vlan_id), v6(vlan_id, n).into(), mac(n), bench.now);
    }
    bench
}

fn v4(vlan: u16, n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, vlan as u8, n)
}

/// fd10::n in VLAN 10.
fn v6(vlan: u16, n: u8) -> Ipv6Addr {
    let first = if vlan == 10 { 0xfd10 } else { 0xfd20 };
    Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, n.into())
}

fn link(from: u8, to: u8) -> Ethernet {
    Ethernet { src: mac(from), dst: mac(to), tag: None }
}

/// A datagram from station `n` by the gateway.
fn datagram(n: u8, src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Vec<u8> {
    let addresses = match (src.into(), dst.into()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4(src, dst),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6(src, dst),
        _ => panic!("of one version"),
    };
    build::udp(link(n, GATEWAY), addresses, (4000, 53), b"hello")
}

/// What leaves of a frame that comes in there, by port.
fn out(bench: &mut Bench, port: u16, frame: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, DropReason> {
    let (fate, _) = bench.send(port, frame);
    if let Fate::Dropped(reason) = fate {
        return Err(reason);
    }
    let bytes = &frame[..frame.len().min(HEAD_BYTES)];
    let link = LinkHeader::parse(bytes, frame.len() as u32).expect("a frame");
    let (len, mut copies) = (frame.len() as u32, vec![]);
    let view = FrameView { link: &link, bytes, len, wire_len: len };
    let decision = bench.switch().judge(port, &view, &mut copies, &mut NoTrace);
    let leaves = |tag: TagEdit| {
        let mut head = [0; HEAD_BYTES + TAG_LEN];
        let edit = Edit { tag, rewrite: decision.rewrite };
        let len = edit.apply(bytes, &mut head);
        [&head[..len], &frame[bytes.len()..]].concat()
    };
    let mut left = vec![];
    for copy in copies {
        left.push((copy.to, leaves(copy.outcome?)));
    }
    Ok(left)
}

/// To one port.
fn only(bench: &mut Bench, port: u16, frame: &[u8]) -> (u16, Vec<u8>) {
    let mut left = out(bench, port, frame).unwrap_or_else(|why| panic!("{why:?}: {}", bench.story()));
    assert_eq!(left.len(), 1, "{}", bench.story());
    left.remove(0)
}
