//! Frames whose tag comes, goes or changes on the way are otherwise the same, bit for bit, however they lie in memory.

use crate::{
    lab::{Lab, access, frame, mac, receive, send, trunk},
    shapes::{Shaped, lengths, queue, shapes},
};
use proptest::{collection::vec, prelude::*, sample::select};
use vhost_net_backend::driver::{Config, Driver, MemoryConfig};
use vswitch_core::{mac::MacAddr, vlan::Tci};

/// One way through the lab below: from port to port, with which tag in and which tag out.
#[derive(Debug, Clone, Copy)]
struct Way {
    from: usize,
    to: usize,
    enters: Option<u16>,
    leaves: Option<u16>,
}

/// Priority 5 (IEEE 802.1Q-2018 §9.6: the upper three bits of the TCI).
const PRIORITY: u16 = 5 << 13;

/// An access port of VLAN 10, a trunk of VLANs 10 and 20, and one of the same with the native VLAN 10.
const ACCESS: usize = 0;
const TAGGED: usize = 1;
const NATIVE: usize = 2;

const WAYS: &[Way] = &[
    // Pushed.
    Way { from: ACCESS, to: TAGGED, enters: None, leaves: Some(10) },
    Way { from: NATIVE, to: TAGGED, enters: None, leaves: Some(10) },
    // Rewritten: a priority tag gets its VLAN, the priority stays.
    Way { from: ACCESS, to: TAGGED, enters: Some(PRIORITY), leaves: Some(PRIORITY | 10) },
    Way { from: NATIVE, to: TAGGED, enters: Some(PRIORITY), leaves: Some(PRIORITY | 10) },
    // Popped.
    Way { from: TAGGED, to: ACCESS, enters: Some(PRIORITY | 10), leaves: None },
    Way { from: TAGGED, to: NATIVE, enters: Some(10), leaves: None },
    Way { from: NATIVE, to: ACCESS, enters: Some(10), leaves: None },
    Way { from: ACCESS, to: NATIVE, enters: Some(PRIORITY), leaves: None },
    // Kept.
    Way { from: NATIVE, to: TAGGED, enters: Some(PRIORITY | 20), leaves: Some(PRIORITY | 20) },
    Way { from: TAGGED, to: NATIVE, enters: Some(20), leaves: Some(20) },
    Way { from: ACCESS, to: NATIVE, enters: None, leaves: None },
];

/// `untagged` with a C-tag behind its addresses.
pub(crate) fn tagged(mut untagged: Vec<u8>, tci: Option<u16>) -> Vec<u8> {
    if let Some(tci) = tci {
        let [high, low] = Tci::from_bits(tci).bits().to_be_bytes();
        untagged.splice(12..12, [0x81, 0x00, high, low]);
    }
    untagged
}

/// The lab, in which every port has been heard in each of its VLANs.
fn three() -> (Lab, Vec<Driver>) {
    let lab = Lab::new(&[access(10), trunk(None), trunk(Some(10))]);
    let memory = MemoryConfig { regions: 3, shaped_bytes: 1 << 20, ..MemoryConfig::default() };
    let config = Config { memory, ..Config::default() };
    let mut guests: Vec<_> = (0..3).map(|place| lab.attach(place, &config)).collect();
    let hellos = [
        (ACCESS, None, 2),
        (TAGGED, Some(10), 2),
        (NATIVE, None, 2),
        (TAGGED, Some(20), 1),
        (NATIVE, Some(20), 1),
    ];
    for (from, tci, heard_by) in hellos {
        send(&mut guests[from], &tagged(frame(MacAddr::BROADCAST, mac(from), 60, 0), tci));
        let others = (0..3).filter(|to| *to != from && (heard_by == 2 || *to != ACCESS));
        others.for_each(|to| assert_eq!(receive(&mut guests[to], 1).len(), 1));
    }
    (lab, guests)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tag_that_is_pushed_popped_or_rewritten_changes_nothing_else(
        frames in vec((select(WAYS), (lengths(14), any::<u64>(), shapes(true))), 1..=24),
    ) {
        let (lab, mut guests) = three();
        for (way, (len, seed, shape)) in &frames as &[(Way, Shaped)] {
            let plain = frame(mac(way.to), mac(way.from), *len, *seed);
            queue(&mut guests[way.from], &tagged(plain.clone(), way.enters), shape);
            guests[way.from].pair().flush();
            let arrived = receive(&mut guests[way.to], 1);
            assert_eq!(arrived.len(), 1, "{way:?}, {len} bytes");
            assert!(arrived[0] == tagged(plain, way.leaves), "{way:?}, {len} bytes arrived otherwise");
        }
        let end = lab.lawful();
        assert!(end.ports.iter().all(|port| port.counters.to_port.dropped.is_empty()), "{end:#?}");
        assert_eq!(end.workers[0].panics, 0);
    }
}
