//! Deciding allocates nothing once the caller's vector has grown (DESIGN: no allocation per frame).
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
    fdb::Fdb,
    head::{FrameView, LinkHeader},
    mac::MacAddr,
    trace::NoTrace,
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

/// Two switches with two ports each, all in the default VLAN.
const LAB: &str = r#"{
    "lab": "count", "file": "count.vnet.yaml", "epoch": 1,
    "vlans": [{ "id": 1, "name": "default", "origin": null }],
    "switches": [
        { "id": 0, "name": "a", "mac_aging_secs": 300, "origin": { "line": 1, "column": 1 } },
        { "id": 1, "name": "b", "mac_aging_secs": 300, "origin": { "line": 2, "column": 1 } }
    ],
    "ports": [PORT0, PORT1, PORT2, PORT3],
    "trunks": [{ "ends": [0, 1], "vlans": { "access": 1 }, "origin": { "line": 3, "column": 1 } }]
}"#;

fn description() -> Description {
    let port = |index: u16| {
        format!(
            r#"{{ "id": {{ "index": {index}, "generation": 0 }}, "node": "n{index}", "interface": "eth0", "mac": null,
                "mtu": null, "queues": 1, "mac_limit": 1000, "sealed_memory": false, "up": true,
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
    let mac = |n| MacAddr::new([2, 0, 0, 0, 0, n]);
    let frames: Vec<(Vec<u8>, LinkHeader)> = (0..16u8)
        .map(|n| {
            let dst = if n % 4 == 0 { MacAddr::BROADCAST } else { mac(n % 5 + 1) };
            let frame = build::raw(Ethernet { src: mac(n % 4 + 1), dst, tag: None }, 0x88b5, &[0; 46]);
            let link = LinkHeader::parse(&frame, 60).expect("a frame of 60 bytes");
            (frame, link)
        })
        .collect();
    let mut copies = Vec::with_capacity(64);
    let before = ALLOCATIONS.with(Cell::get);
    for round in 0..1000u64 {
        let now = Instant::from_nanos(round * 1_000_000_000);
        let switch = Switch { world: &world, fdb: &fdb, now, learning: true };
        copies.clear();
        for (n, (bytes, link)) in frames.iter().enumerate() {
            let frame = FrameView { link, bytes, len: 60, wire_len: 60 };
            switch.decide((n % 4) as u16, &frame, &mut copies, &mut NoTrace);
        }
        assert!(!copies.is_empty());
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
}
