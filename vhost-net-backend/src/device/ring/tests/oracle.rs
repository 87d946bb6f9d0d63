//! The same ring, byte for byte, taken by virtio-queue's `Queue`: heads, bytes, used ring, indices, calls.
//!
//! Where the two differ by intent, a class says so: see [`Class`].

use super::{Wired, config};
use crate::{
    device::ring::{Defect, MAX_BATCH, make_visible},
    driver::Descriptor,
    features::{EVENT_IDX, INDIRECT_DESC, VERSION_1},
    layout::{AVAIL_NO_INTERRUPT, DESC_INDIRECT, DESC_NEXT, DESC_WRITE},
};
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT, desc::split};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// What a chain is to virtio-queue, whose iterator ends alike at the end of a chain and at what no driver may do.
#[derive(Debug, PartialEq)]
enum Class {
    /// Readable to its end, all in memory: the bytes.
    Frame(Vec<u8>),
    /// It has a writable buffer: a defect to us, nothing to virtio-queue.
    Writable,
    /// It ends in silence, or in bytes outside of memory: a fault to us.
    Broken,
}

fn judge(chain: virtio_queue::DescriptorChain<&GuestMemoryMmap>, map: &GuestMemoryMmap) -> Class {
    let all: Vec<_> = chain.collect();
    // Only a last descriptor that has a next one tells that the iterator gave up.
    if all.last().is_none_or(split::Descriptor::has_next) {
        return Class::Broken;
    }
    let mut bytes = Vec::new();
    for descriptor in &all {
        let start = bytes.len();
        bytes.resize(start + descriptor.len() as usize, 0);
        if descriptor.len() > 0 && map.read_slice(&mut bytes[start..], descriptor.addr()).is_err() {
            return Class::Broken;
        }
    }
    if all.iter().any(split::Descriptor::is_write_only) { Class::Writable } else { Class::Frame(bytes) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn chains_legal_and_illegal_are_what_virtio_queue_takes_them_for(
        log in 0u32..=8,
        base: u16,
        event: Option<u16>,
        no_call: bool,
        chains in proptest::collection::vec((any::<u16>(), 0u8..24, 0u32..200, 0u16..6), 1..20),
    ) {
        let entries = 1u16 << log;
        let features = VERSION_1 | INDIRECT_DESC | if event.is_some() { EVENT_IDX } else { 0 };
        let driver = Wired::new(&config(features, entries.max(2))).driver;
        let ring = driver.raw_ring(1).expect("a descriptor");
        let size = crate::layout::RingSize::new(entries).expect("a power of two");
        // A table in which every descriptor is of some kind; chains run into one another.
        for index in 0..entries {
            let (next, kind, len, _) = chains[usize::from(index) % chains.len()];
            let addr = ring.fill(index, &[index as u8; 200]);
            let inner = [
                Descriptor { addr, len, flags: if kind == 13 { DESC_WRITE } else { DESC_NEXT }, next: 1 },
                Descriptor { addr, len: 7, flags: 0, next: 0 },
            ];
            let descriptor = match kind {
                0..=5 => Descriptor { addr, len, flags: 0, next: 0 },
                6..=11 => Descriptor { addr, len, flags: DESC_NEXT, next: next % entries },
                12..=14 => Descriptor { addr: ring.fill_table(index, &inner) , len: 32, flags: DESC_INDIRECT, next: 0 },
                15 => Descriptor { addr, len, flags: DESC_WRITE, next: 0 },
                16 => Descriptor { addr, len, flags: DESC_NEXT, next: entries },
                17 => Descriptor { addr: 1 << 50, len: len + 1, flags: 0, next: 0 },
                _ => Descriptor { addr, len, flags: DESC_NEXT, next: next.wrapping_mul(7) % entries },
            };
            ring.set_descriptor(index, descriptor);
        }
        let count = (chains.len() as u16).min(entries);
        let start = chains[0].0 % entries;
        for place in 0..count {
            let at = size.wrap(base.wrapping_add(place));
            driver.memory.store_u16(ring.places().avail + 4 + usize::from(at) * 2, size.wrap(start.wrapping_add(place)), std::sync::atomic::Ordering::Relaxed);
        }
        ring.set_avail_index(base.wrapping_add(count));
        let used_event = ring.places().avail + 4 + usize::from(entries) * 2;
        let wish = base.wrapping_add(event.unwrap_or(0) % 32).wrapping_sub(4);
        driver.memory.store_u16(used_event, wish, std::sync::atomic::Ordering::Relaxed);
        ring.set_avail_flags(if no_call { AVAIL_NO_INTERRUPT } else { 0 });

        let mut parts = driver.parts(1).expect("descriptors");
        (parts.size, parts.next_avail, parts.next_used) = (size, base, base);
        let (desc, avail, used) = (parts.desc, parts.avail, parts.used);
        let memory = driver.guest_memory().expect("room for the guard");
        let Ok(super::RunningRing::From(mut ours)) = super::RunningRing::start(parts, memory) else {
            panic!("an honest ring");
        };
        let mut queue = Queue::new(entries).expect("a size");
        queue.try_set_desc_table_address(GuestAddress(desc)).expect("aligned");
        queue.try_set_avail_ring_address(GuestAddress(avail)).expect("aligned");
        queue.try_set_used_ring_address(GuestAddress(used)).expect("aligned");
        queue.set_event_idx(event.is_some());
        queue.set_next_avail(base);
        queue.set_next_used(base);
        queue.set_ready(true);

        let map = driver.map();
        let mut oracle = Vec::new();
        while let Some(chain) = queue.pop_descriptor_chain(map) {
            oracle.push((chain.head_index(), judge(chain, map)));
        }
        let harvested = ours.harvest(MAX_BATCH);
        if oracle.iter().any(|(_, class)| *class == Class::Broken) {
            prop_assert!(harvested.is_err(), "{oracle:?}");
            prop_assert_eq!(ours.next_avail(), base);
            return Ok(());
        }
        prop_assert_eq!(harvested, Ok(oracle.len()));
        for (place, (_, class)) in oracle.iter().enumerate() {
            let frame = ours.frame(place);
            match class {
                Class::Writable => prop_assert_eq!(frame.defect(), Some(Defect::BadDirection)),
                Class::Frame(bytes) => {
                    prop_assert_eq!(frame.len() as usize, bytes.len().saturating_sub(12));
                    let head = bytes.get(12..).unwrap_or(&[]);
                    prop_assert_eq!(frame.head(), &head[..head.len().min(192)]);
                }
                Class::Broken => unreachable!("looked for above"),
            }
        }
        prop_assert_eq!(ours.next_avail(), base, "undecided chains are not taken");
        let used_index = || {
            let mut index = [0; 2];
            driver.memory.read(ring.places().used + 2, &mut index);
            u16::from_le_bytes(index)
        };
        let before = used_index();
        ours.finish(oracle.len());
        // From a driver that polls, and from no other, the last few are held back (decision 0017).
        let polls = event.is_none() && no_call;
        let kept = if polls { oracle.len().min(usize::from(entries / 8).min(32)) } else { 0 };
        let shown = if oracle.len() > kept { ours.next_used().wrapping_sub(kept as u16) } else { before };
        prop_assert_eq!(used_index(), shown, "of {} chains {} are held back", oracle.len(), kept);
        prop_assert_eq!(ours.release(), kept > 0);
        make_visible();
        ours.notify().expect("nothing blocks");
        prop_assert_eq!(ours.next_avail(), queue.next_avail());
        let called = rustix::io::read(driver.pair.call_fd(), &mut [0; 8]).is_ok();
        let snapshot = || {
            let mut bytes = vec![0; 4 + usize::from(entries) * 8];
            driver.memory.read(ring.places().used, &mut bytes);
            bytes[2..].to_vec()
        };
        let by_us = snapshot();
        for (head, _) in &oracle {
            queue.add_used(map, *head, 0).expect("a head of the ring");
        }
        prop_assert_eq!(by_us, snapshot(), "used elements and index");
        prop_assert_eq!(ours.next_used(), queue.next_used());
        // virtio-queue knows no NO_INTERRUPT: without EVENT_IDX the reference is the flag itself.
        let wanted = queue.needs_notification(map).expect("in memory");
        prop_assert_eq!(called, if event.is_some() { wanted } else { !no_call });
    }
}
