//! Where translation ends, and what stands on both sides of it: ports that run out, hosts of IPv6, firewalls at both ends, and what is shown.

use super::*;
use vswitch_core::{
    description::Firewall,
    firewall::{
        connections::Ends,
        policy::{Action, Direction, Family, GroupId, Match, PortRange, Protocol, Remote, Rule},
    },
};

const TCP: u8 = 6;

/// A rule that allows TCP to this port, with the other end in that network.
fn allows(direction: Direction, port: u16, other: &str) -> Rule {
    Rule {
        direction,
        action: Action::Allow,
        stateful: true,
        log: false,
        matches: Match {
            family: Family::Ipv4,
            protocol: Protocol::Number(TCP),
            ports: vec![PortRange { first: port, last: port }],
            remote: Remote::Networks(vec![other.parse().unwrap()]),
            ..Match::default()
        },
        origin: Origin { line: 1, column: 1 },
    }
}

/// The usual lab, where two ports have a firewall with one rule each.
fn guarded(rules: [(u16, Rule); 2]) -> Bench {
    let mut lab = usual();
    for (number, (port, rule)) in rules.into_iter().enumerate() {
        lab = lab.group(&format!("g{number}"), &[rule]);
        let port = lab.description.ports[usize::from(port)].as_mut().expect("a port");
        port.firewall = Some(Firewall {
            groups: vec![GroupId::new(number as u16)],
            addresses: vec![],
            identity: None,
            dhcp_server: false,
            router: false,
            origin: port.origin,
        });
    }
    open(&lab)
}

#[test]
fn firewalls_on_both_sides_see_a_packet_as_it_is_on_theirs() {
    let (pc1, web1) = (socket(v4(10, 1), 4000), socket(v4(20, 3), 80));
    let (shared, far) = (socket(WAN, 8080), socket(FAR, 443));
    let syn = |src, dst| tcp(PC1, src, dst, (SYN, 100, 0));
    let answer = |port, src, dst| tcp(port, src, dst, (SYN | ACK, 700, 101));
    let leaves = |port, to| (PC1, allows(Direction::Egress, port, to));

    // A forwarded port: the sender's rules know the router's address and port, the receiver's its own.
    let comes = |port| (WEB1, allows(Direction::Ingress, port, "10.0.10.1/32"));
    let mut bench = guarded([leaves(8080, "192.0.2.2/32"), comes(80)]);
    let (to, left) = only(&mut bench, PC1, &syn(pc1, shared));
    assert_eq!((to, ends(&left)), (WEB1, (pc1, web1)), "{}", bench.story());
    let (to, left) = only(&mut bench, WEB1, &answer(WEB1, web1, pc1));
    assert_eq!((to, ends(&left)), (PC1, (shared, pc1)), "both know the connection: {}", bench.story());
    let mut bench = guarded([leaves(80, "10.0.20.3/32"), comes(80)]);
    assert_eq!(pass(&mut bench, PC1, &syn(pc1, shared)), Err(DropReason::PolicyEgress), "{}", bench.story());
    let mut bench = guarded([leaves(8080, "192.0.2.2/32"), comes(8080)]);
    assert_eq!(pass(&mut bench, PC1, &syn(pc1, shared)), Err(DropReason::PolicyIngress), "{}", bench.story());

    // And the way out: who is outside sees the router's address.
    let hears = |from| (NET, allows(Direction::Ingress, 443, from));
    let mut bench = guarded([leaves(443, "203.0.113.0/24"), hears("192.0.2.2/32")]);
    let (to, left) = only(&mut bench, PC1, &syn(pc1, far));
    assert_eq!((to, ends(&left)), (NET, (socket(WAN, 4000), far)), "{}", bench.story());
    let (to, left) = only(&mut bench, NET, &answer(NET, far, socket(WAN, 4000)));
    assert_eq!((to, ends(&left)), (PC1, (far, pc1)), "{}", bench.story());
    let mut bench = guarded([leaves(443, "203.0.113.0/24"), hears("10.0.10.0/24")]);
    assert_eq!(pass(&mut bench, PC1, &syn(pc1, far)), Err(DropReason::PolicyIngress), "{}", bench.story());
}

#[test]
fn who_finds_no_port_free_is_told_apart_from_all_else_and_finds_one_later() {
    let mut bench = open(&usual());
    let routers = bench.world.routing().expect("a router").port;
    bench.connections.admit(routers, 4096);
    let dns = socket(FAR, 53);
    // Ports of a system stay among themselves: there are 1023 of them.
    for port in 1..1024 {
        let (_, left) = only(&mut bench, PC1, &udp(PC1, socket(v4(10, 1), port), dns));
        assert_eq!(ends(&left).0, socket(WAN, port), "its own");
    }
    let other = |port| udp(PC1, socket(v4(10, 9), port), dns);
    for port in [1, 500, 1023] {
        assert_eq!(pass(&mut bench, PC1, &other(port)), Err(DropReason::NatExhausted), "{}", bench.story());
    }
    // To another host, and of other ports, there is room.
    let (_, left) = only(&mut bench, PC1, &udp(PC1, socket(v4(10, 9), 500), socket(FAR, 54)));
    assert_eq!(ends(&left).0, socket(WAN, 500));
    let (_, left) = only(&mut bench, PC1, &other(5000));
    assert_eq!(ends(&left).0, socket(WAN, 5000));
    // When the first are over their ports are free.
    bench.now = Instant::from_nanos(3_600_000_000_000);
    let next = (vlan(30), Ipv4Addr::new(192, 0, 2, 1).into());
    bench.neighbours.set(next.0, next.1, mac(station(NET)), bench.now);
    let (_, left) = only(&mut bench, PC1, &other(500));
    assert_eq!(ends(&left).0, socket(WAN, 500), "{}", bench.story());
}

#[test]
fn a_host_of_ipv6_with_an_address_outside_has_it_both_ways() {
    let outside: Ipv6Addr = "2001:db8::10".parse().unwrap();
    let is_its = NatRule::Static { outside: outside.into(), vlan: vlan(10), host: v6(10, 2).into() };
    let mut bench = open(&lab(["192.0.2.2/24", "2001:db8::2/64"], [vec![is_its], rules()].concat()));
    let (pc2, seen, far) = (socket(v6(10, 2), 5000), socket(outside, 5000), socket(FAR6, 443));
    // Who is inside begins,
    let (to, left) = only(&mut bench, PC2, &udp(PC2, pc2, far));
    assert_eq!((to, ends(&left)), (NET, (seen, far)), "{}", bench.story());
    let (to, left) = only(&mut bench, NET, &udp(NET, far, seen));
    assert_eq!((to, ends(&left)), (PC2, (far, pc2)), "{}", bench.story());
    // or who is outside, at any port; and what it hears back is of that address.
    let (asks, web) = (socket(FAR6, 6000), socket(outside, 80));
    let (to, left) = only(&mut bench, NET, &tcp(NET, asks, web, (SYN, 100, 0)));
    assert_eq!((to, ends(&left)), (PC2, (asks, socket(v6(10, 2), 80))), "{}", bench.story());
    let (to, left) = only(&mut bench, PC2, &tcp(PC2, socket(v6(10, 2), 80), asks, (SYN | ACK, 7, 101)));
    assert_eq!((to, ends(&left)), (NET, (web, asks)), "{}", bench.story());
    let (id, ping_of) = (socket(FAR6, 77), socket(outside, 77));
    let (to, left) = only(&mut bench, NET, &ping(NET, id, ping_of, Echo::Request));
    assert_eq!((to, ends(&left)), (PC2, (id, socket(v6(10, 2), 77))), "{}", bench.story());
    // An error about what was forwarded is told to the host by its own address.
    let (_, sent) = only(&mut bench, PC2, &udp(PC2, pc2, far));
    let hop: IpAddr = "2001:db8:1::9".parse().unwrap();
    let (to, left) = only(&mut bench, NET, &error(NET, hop, &sent, [3, 0]));
    let headers = PacketHeaders::from_ethernet_slice(&left).expect("a whole packet");
    let Some(NetHeaders::Ipv6(ip, _)) = headers.net else { panic!("IPv6") };
    assert_eq!((to, Ipv6Addr::from(ip.destination)), (PC2, v6(10, 2)), "{}", bench.story());
}

#[test]
fn what_is_translated_is_listed_once_with_its_other_half_in_both_versions() {
    let mut bench = open(&usual());
    let hosts: [(IpAddr, IpAddr, IpAddr); 2] =
        [(v4(10, 1).into(), FAR.into(), WAN.into()), (v6(10, 1).into(), FAR6.into(), WAN6.into())];
    for (pc1, far, _) in hosts {
        only(&mut bench, PC1, &udp(PC1, socket(pc1, 4000), socket(far, 53)));
    }
    let mut rows = Vec::new();
    bench.connections.list(0, usize::MAX, bench.now, |row| rows.push(row));
    assert_eq!(rows.len(), 2, "{rows:?}");
    for (pc1, far, wan) in hosts {
        let row = rows.iter().find(|row| row.hosts.pair() == (pc1, far)).expect("it is listed");
        let inverse = row.inverse.expect("it is translated");
        assert_eq!((row.vlan, inverse.vlan, inverse.hosts.pair()), (vlan(10), vlan(30), (far, wan)));
        assert_eq!(row.ends, Ends::Ports { inside: 4000, outside: 53 });
        assert_eq!(inverse.ends, Ends::Ports { inside: 53, outside: 4000 });
    }
}
