//! Questions for neighbours in VLANs whose gateway answers them.

use super::*;
use vswitch_core::{mac::MacAddr, vlan::Tci};

/// The office, `pc2` besides in VLAN 10, and whether its gateway answers for neighbours.
fn lab(neigh_suppress: bool) -> Bench {
    let mut lab = office().port("pc2", 0, access(10));
    let routing = lab.description.routing.as_mut().expect("routers");
    routing.routers[0].gateways[0].neigh_suppress = neigh_suppress;
    opened(&lab)
}

/// The ports where a frame of PC1's comes out.
fn ports(bench: &mut Bench, frame: &[u8]) -> Vec<u16> {
    out(bench, PC1, frame).expect("it goes on").into_iter().map(|(port, _)| port).collect()
}

fn to_all(n: u8) -> Ethernet {
    Ethernet { dst: MacAddr::BROADCAST, ..link(n, 0) }
}

#[test]
fn who_asks_for_a_known_neighbour_or_the_gateway_is_heard_by_routers_only() {
    let (all, router_only) = ([BOX, ROUTERS, 4], [ROUTERS]);
    let arp = |target| build::arp_request(to_all(1), v4(10, 1), v4(10, target));
    let nd = |target| build::neighbour_solicitation(link(1, 0), v6(10, 1), v6(10, target));
    let mut bench = lab(true);
    for frame in [arp(7), nd(7)] {
        assert_eq!(ports(&mut bench, &frame), all, "nobody knows who has that");
    }
    bench.neighbours.set(vlan(10), v4(10, 7).into(), mac(7), bench.now);
    bench.neighbours.set(vlan(10), v6(10, 7).into(), mac(7), bench.now);
    for frame in [arp(7), nd(7), arp(254), nd(254)] {
        assert_eq!(ports(&mut bench, &frame), router_only, "{}", bench.story());
    }
    assert!(bench.story().contains("answers; nobody else hears it"), "{}", bench.story());
    // A probe, by whom has no address yet, too.
    let probe = build::arp_request(to_all(1), [0, 0, 0, 0].into(), v4(10, 7));
    assert_eq!(ports(&mut bench, &probe), router_only);
    // What tells others something, what is the asker's own, and what is no question is for all.
    let told = [
        build::arp_request(to_all(1), v4(10, 7), v4(10, 7)),
        build::arp_request(to_all(1), v4(10, 3), v4(10, 1)),
        build::arp_reply(to_all(1), v4(10, 1), v4(10, 7)),
        build::udp(to_all(1), Addresses::V4(v4(10, 1), v4(10, 255)), (1, 2), b"x"),
    ];
    for frame in told {
        assert_eq!(ports(&mut bench, &frame), all, "{frame:x?}");
    }
    // Who asks in another's name is heard by all, and so by that one.
    let forged = Ethernet { src: mac(6), dst: MacAddr::BROADCAST, tag: None };
    bench.neighbours.set(vlan(10), v4(10, 8).into(), mac(8), bench.now);
    assert_eq!(ports(&mut bench, &build::arp_request(forged, v4(10, 8), v4(10, 7))), all);
    assert_eq!(ports(&mut bench, &build::arp_request(forged, v4(10, 9), v4(10, 7))), router_only);
    // Routers themselves ask all.
    let asks = Ethernet { src: mac(GATEWAY), dst: MacAddr::BROADCAST, tag: Some(Tci::from_bits(10)) };
    let frame = build::arp_request(asks, v4(10, 254), v4(10, 7));
    let left = out(&mut bench, ROUTERS, &frame).expect("flooded");
    assert_eq!(left.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [PC1, BOX, 4]);
    // Where nothing is said all is flooded.
    let mut bench = lab(false);
    bench.neighbours.set(vlan(10), v4(10, 7).into(), mac(7), bench.now);
    assert_eq!(ports(&mut bench, &arp(7)), all);
}
