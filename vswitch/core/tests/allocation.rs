//! Deciding allocates nothing once the caller's vector has grown, nor does tracking connections (DESIGN: no allocation per frame).
#![expect(unsafe_code, reason = "counting allocations needs a global allocator, and that trait is unsafe")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use vswitch_core::{
    build::{self, Ethernet},
    clock::Instant,
    decide::Switch,
    description::Description,
    drop_reason::DropReason,
    fdb::Fdb,
    firewall::{
        connections::{Answer, Config, Connections, Facts, Opened, Opening, Scope, Secret, Timeouts},
        policy::Direction,
    },
    head::{FrameView, LinkHeader},
    id::{Epoch, PortId},
    mac::MacAddr,
    route::Neighbours,
    trace::NoTrace,
    vlan::VlanId,
    world::World,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count of calls by thread.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory that it hands out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two switches with two ports each, all in the default VLAN; those of the second have a firewall that lets in anything over UDP.
const LAB: &str = r#"{
    "lab": "count", "file": "count.vnet.yaml", "epoch": 1,
    "vlans": [{ "id": 1, "name": "default", "origin": null }],
    "switches": [
        { "id": 0, "name": "a", "mac_aging_secs": 300, "origin": { "line": 1, "column": 1 } },
        { "id": 1, "name": "b", "mac_aging_secs": 300, "origin": { "line": 2, "column": 1 } }
    ],
    "groups": [{ "name": "all", "origin": { "line": 5, "column": 1 }, "rules": [{
        "direction": "ingress", "action": "allow", "stateful": true, "origin": { "line": 6, "column": 1 },
        "matches": { "family": "any", "protocol": { "number": 17 }, "ports": [], "icmp": null, "remote": "any" } }] }],
    "ports": [PORT0, PORT1, PORT2, PORT3],
    "trunks": [{ "ends": [0, 1], "vlans": { "access": 1 }, "origin": { "line": 3, "column": 1 } }]
}"#;

fn description() -> Description {
    let firewall = r#"{ "groups": [0], "addresses": ["10.0.0.9"], "identity": null, "dhcp_server": false, "router": false,
        "origin": { "line": 4, "column": 1 } }"#;
    let port = |index: u16| {
        let firewall = if index < 2 { "null" } else { firewall };
        format!(
            r#"{{ "id": {{ "index": {index}, "generation": 0 }}, "node": "n{index}", "interface": "eth0", "mac": null,
                "mtu": null, "queues": 1, "firewall": {firewall}, "mac_limit": 1000, "sealed_memory": false, "up": true,
                "link": {{ "switch": {{ "switch": {}, "vlans": {{ "access": 1 }} }} }},
                "origin": {{ "line": 4, "column": 1 }}, "link_origin": null }}"#,
            index / 2
        )
    };
    let text = (0..4).fold(LAB.to_string(), |text, n| text.replace(&format!("PORT{n}"), &port(n)));
    serde_json::from_str(&text).expect("the description is JSON")
}

#[test]
fn deciding_allocates_nothing() {
    let world = World::compile(&description()).expect("the lab is sound");
    let fdb = Fdb::new(1, 64);
    fdb.install(&world);
    let config = Config { capacity: 512, ports: 4, timeouts: Timeouts::DEFAULT };
    let connections = Connections::new(config, Secret::new([3; 16]));
    world.ports().for_each(|port| connections.admit(port.id, 4));
    connections.fragments().share(&[PortId::new(2, 0), PortId::new(3, 0)]);
    let mac = |n| MacAddr::new([2, 0, 0, 0, 0, n]);
    let frames: Vec<(Vec<u8>, LinkHeader)> = (0..24u8)
        .map(|n| {
            let dst = if n % 4 == 0 { MacAddr::BROADCAST } else { mac(n % 5 + 1) };
            let link = Ethernet { src: mac(n % 4 + 1), dst, tag: None };
            let addresses = build::Addresses::V4([10, 0, 0, n % 4 + 1].into(), [10, 0, 0, n % 5 + 1].into());
            let mut frame = match n / 4 {
                0 => build::raw(link, 0x88b5, &[0; 46]),
                _ => build::udp(link, addresses, (n.into(), 53), &[0; 16]),
            };
            // The first fragment of a broadcast datagram, and its second.
            match n {
                16 => frame[20] = 0x20,
                20 => (frame[20], frame[21], frame[33]) = (0x20, 3, 2),
                _ => {}
            }
            let link = LinkHeader::parse(&frame, frame.len() as u32).expect("a frame");
            (frame, link)
        })
        .collect();
    let neighbours = Neighbours::new([1, 2]);
    let mut copies = Vec::with_capacity(64);
    let before = ALLOCATIONS.with(Cell::get);
    for round in 0..1000u64 {
        let now = Instant::from_nanos(round * 1_000_000_000);
        let switch = Switch {
            world: &world,
            fdb: &fdb,
            connections: &connections,
            neighbours: &neighbours,
            now,
            learning: true,
        };
        copies.clear();
        for (n, (bytes, link)) in frames.iter().enumerate() {
            let len = bytes.len() as u32;
            let frame = FrameView { link, bytes, len, wire_len: len };
            switch.decide((n % 4) as u16, &frame, &mut copies, &mut NoTrace);
        }
        assert!(!copies.is_empty());
    }
    let lost = copies.iter().filter(|copy| copy.outcome.is_err()).count();
    assert!(lost > 0 && lost < copies.len(), "some are let in: {copies:?}");
    let doubled = copies.iter().any(|copy| copy.outcome == Err(DropReason::FragmentOverlapIngress));
    assert!(doubled, "the fragments of a round before are remembered: {copies:?}");
    assert!(connections.counts().opened > 100);
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}

/// Ten thousand connections with room for a hundred are looked up, opened, used, evicted, swept and forgotten.
#[test]
fn tracking_connections_allocates_nothing() {
    let config = Config { capacity: 128, ports: 4, timeouts: Timeouts::DEFAULT };
    let table = Connections::new(config, Secret::new([3; 16]));
    let (port, epoch, from) = (PortId::new(1, 0), Epoch::new(1), Direction::Egress);
    table.admit(port, 100);
    let scope = Scope { port, vlan: VlanId::new(10).expect("a VLAN") };
    let link =
        Ethernet { src: MacAddr::new([2, 0, 0, 0, 0, 1]), dst: MacAddr::new([2, 0, 0, 0, 0, 2]), tag: None };
    let addresses = build::Addresses::V4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let frames: Vec<Vec<u8>> = (0..10_000u16)
        .map(|n| match n % 2 {
            0 => build::tcp_syn(link, addresses, (n, 80), 5),
            _ => build::udp(link, addresses, (n, 53), b"question"),
        })
        .collect();
    let before = ALLOCATIONS.with(Cell::get);
    let mut opened = 0;
    for (n, bytes) in frames.iter().enumerate() {
        let now = Instant::from_nanos(n as u64 * 1_000_000);
        let len = bytes.len() as u32;
        let link = LinkHeader::parse(bytes, len).expect("a frame");
        let Facts::Of(key, event) = Facts::of(&link, bytes, len, scope, from) else { continue };
        let digest = table.digest(&key);
        assert_eq!(table.look_up(digest, from, &event, epoch, now), Answer::New);
        let opening = Opening { key: &key, digest, from, event: &event, opener: from, epoch };
        opened += usize::from(table.open(&opening, now) == Opened::New);
        table.look_up(digest, from, &event, epoch, now);
        table.sweep(now, 2);
    }
    table.forget(port.index());
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
    assert_eq!(opened, frames.len());
}
