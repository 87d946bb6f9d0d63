//! Q1 to Q9: heads, chains, indirect tables and buffers that virtio does not allow.

use super::{Beside, indirect, message, readable, stopped_by, then, writable};
use vhost_net_backend::{
    driver::{Config, MemoryConfig},
    layout::{DESC_SIZE, RingSize},
};
use vswitch_core::drop_reason::DropReason;

#[test]
fn q01_the_head_of_a_chain_outside_of_the_table_stops_the_port() {
    let words = "ring 1: the head of a chain is outside of the descriptor table";
    stopped_by(words, |ring| ring.offer(256));
    stopped_by(words, |ring| ring.offer(u16::MAX));
}

#[test]
fn q01_the_head_of_a_receive_buffer_too() {
    let mut beside = Beside::new(&Config::default());
    let ring = beside.receiveq();
    (0..256).for_each(|place| ring.set_avail(place, 300));
    beside.send_to_hostile(60);
    beside.ends_stopped("ring 0: the head of a chain is outside of the descriptor table");
}

#[test]
fn q02_a_chain_that_leaves_its_table_stops_the_port() {
    for next in [256, u16::MAX] {
        stopped_by("ring 1: a chain leaves its descriptor table", |ring| {
            ring.set_descriptor(0, then(readable(ring.buffer(0), 12), next));
            ring.offer(0);
        });
    }
}

#[test]
fn q03_a_chain_that_bites_its_tail_stops_the_port() {
    for members in [1, 2, 255, 256] {
        stopped_by("ring 1: a chain loops", |ring| {
            for index in 0..members {
                ring.set_descriptor(index, then(readable(ring.buffer(0), 1), (index + 1) % members));
            }
            ring.offer(0);
        });
    }
}

#[test]
fn q03_a_chain_longer_than_any_frame_needs_stops_the_port() {
    let beside = Beside::new(&Config { ring_size: RingSize::new(2048).unwrap(), ..Config::default() });
    let ring = beside.transmitq();
    for index in 0..1025 {
        ring.set_descriptor(index, then(readable(ring.buffer(0), 1), index + 1));
    }
    ring.offer(0);
    beside.ends_stopped("ring 1: a chain has more than 1024 descriptors");
}

#[test]
fn q04_an_indirect_table_of_no_whole_descriptors_or_outside_of_memory_stops_the_port() {
    let words = "ring 1: an indirect table has a bad length or lies outside of guest memory";
    for len in [0, 1, 15, 17, 16 * 65_536, u32::MAX] {
        stopped_by(words, |ring| {
            ring.set_descriptor(0, indirect(ring.buffer(0), len));
            ring.offer(0);
        });
    }
    for addr in [0, u64::MAX - 15, 1 << 50] {
        stopped_by(words, |ring| {
            ring.set_descriptor(0, indirect(addr, 16));
            ring.offer(0);
        });
    }
}

#[test]
fn q04_an_indirect_table_within_another_or_with_a_next_one_stops_the_port() {
    stopped_by("ring 1: an indirect table refers to another indirect table", |ring| {
        let inner = ring.fill_table(1, &[readable(ring.buffer(2), 74)]);
        let outer = ring.fill_table(0, &[indirect(inner, 16)]);
        ring.set_descriptor(0, indirect(outer, 16));
        ring.offer(0);
    });
    stopped_by("ring 1: an indirect descriptor has a next descriptor", |ring| {
        let table = ring.fill_table(0, &[readable(ring.buffer(1), 74)]);
        ring.set_descriptor(0, then(indirect(table, 16), 1));
        ring.set_descriptor(1, readable(ring.buffer(1), 74));
        ring.offer(0);
    });
}

#[test]
fn q04_a_chain_in_an_indirect_table_that_loops_or_leaves_it_stops_the_port() {
    stopped_by("ring 1: a chain loops", |ring| {
        let table = ring.fill_table(0, &[then(readable(ring.buffer(1), 74), 0)]);
        ring.set_descriptor(0, indirect(table, 16));
        ring.offer(0);
    });
    stopped_by("ring 1: a chain leaves its descriptor table", |ring| {
        let table = ring.fill_table(0, &[then(readable(ring.buffer(1), 74), 1)]);
        ring.set_descriptor(0, indirect(table, 16));
        ring.offer(0);
    });
}

#[test]
fn q04_an_indirect_table_behind_direct_descriptors_or_inside_of_the_ring_is_legal() {
    let mut beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    let bytes = message(90);
    let buffer = ring.fill(0, &bytes);
    let rest = bytes.len() as u32 - 20;
    let table = ring.fill_table(1, &[readable(buffer + 20, rest)]);
    ring.set_descriptor(10, then(readable(buffer, 20), 11));
    ring.set_descriptor(11, indirect(table, 16));
    ring.offer(10);
    beside.arrives(90);

    let eighth = beside.hostile.memory().guest_address(ring.places().desc + 8 * DESC_SIZE);
    ring.set_descriptor(8, readable(buffer, bytes.len() as u32));
    ring.set_descriptor(12, indirect(eighth, 16));
    ring.offer(12);
    beside.arrives(90);
    beside.end();
}

#[test]
fn q05_empty_buffers_are_passed_over_and_nothing_but_such_is_a_runt() {
    let mut beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    let bytes = message(90);
    let buffer = ring.fill(0, &bytes);
    ring.set_descriptor(10, then(readable(0, 0), 11));
    ring.set_descriptor(11, then(readable(buffer, bytes.len() as u32), 12));
    ring.set_descriptor(12, readable(u64::MAX, 0));
    ring.offer(10);
    beside.arrives(90);

    ring.set_descriptor(13, then(readable(0, 0), 14));
    ring.set_descriptor(14, readable(0, 0));
    ring.offer(13);
    beside.drops(DropReason::Runt, 1);
    beside.end();
}

#[test]
fn q06_a_chain_of_more_bytes_than_any_frame_is_dropped_and_given_back() {
    let beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    let used = ring.used_index();
    ring.set_descriptor(10, readable(ring.buffer(0), 65_563));
    ring.set_descriptor(11, then(readable(ring.buffer(0), 65_562), 12));
    ring.set_descriptor(12, readable(ring.buffer(0), 1));
    ring.offer(10);
    ring.offer(11);
    beside.drops(DropReason::Oversize, 2);
    assert_eq!(ring.used_index(), used.wrapping_add(2));
    beside.end();
}

#[test]
fn q06_lengths_whose_sum_runs_away_are_too() {
    let memory = MemoryConfig { shaped_bytes: 64 << 20, ..MemoryConfig::default() };
    let beside = Beside::new(&Config { memory, ..Config::default() });
    let ring = beside.transmitq();
    for index in 0..200 {
        ring.set_descriptor(index, then(readable(ring.buffer(0), 64 << 20), index + 1));
    }
    ring.offer(0);
    beside.drops(DropReason::Oversize, 1);
    beside.end();
}

#[test]
fn q07_a_buffer_outside_of_memory_stops_the_port() {
    let words = "ring 1: a buffer lies outside of guest memory";
    for (addr, len) in [(0, 60), (0xf_ffff, 2), (1 << 50, 60), (u64::MAX - 3, 60), (u64::MAX, u32::MAX)] {
        stopped_by(words, |ring| {
            ring.set_descriptor(0, readable(addr, len));
            ring.offer(0);
        });
    }
    stopped_by(words, |ring| {
        ring.set_descriptor(0, readable(ring.buffer(0), u32::MAX));
        ring.offer(0);
    });
}

#[test]
fn q07_a_buffer_that_runs_into_a_gap_between_regions_stops_the_port() {
    let memory = MemoryConfig { gap: 2 << 20, ..MemoryConfig::default() };
    let beside = Beside::new(&Config { memory, ..Config::default() });
    let ring = beside.transmitq();
    let before = beside.hostile.memory().regions()[0];
    ring.set_descriptor(0, readable(before.guest_address + before.len as u64 - 40, 60));
    ring.offer(0);
    beside.ends_stopped("ring 1: a buffer lies outside of guest memory");
}

#[test]
fn q08_an_avail_index_that_jumps_or_goes_back_stops_the_port() {
    for by in [257, u16::MAX, 0x8000] {
        stopped_by("ring 1: avail.idx jumped by more than the ring's size", |ring| {
            ring.set_avail_index(ring.avail_index().wrapping_add(by));
            ring.kick();
        });
    }
}

#[test]
fn q08_a_chain_that_is_given_twice_stops_the_port() {
    stopped_by("ring 1: a chain was made available twice", |ring| {
        ring.set_descriptor(0, readable(ring.buffer(0), 74));
        let index = ring.avail_index();
        ring.set_avail(index, 0);
        ring.set_avail(index.wrapping_add(1), 0);
        ring.set_avail_index(index.wrapping_add(2));
        ring.kick();
    });
}

#[test]
fn q09_a_transmit_buffer_for_the_device_to_write_is_dropped() {
    let beside = Beside::new(&Config::default());
    let ring = beside.transmitq();
    let buffer = ring.buffer(0);
    ring.set_descriptor(10, writable(buffer, 74));
    ring.set_descriptor(11, then(readable(buffer, 74), 12));
    ring.set_descriptor(12, writable(buffer, 74));
    ring.set_descriptor(13, then(writable(buffer, 74), 14));
    ring.set_descriptor(14, readable(buffer, 74));
    [10, 11, 13].into_iter().for_each(|head| ring.offer(head));
    beside.drops(DropReason::BadDirection, 3);
    beside.end();
}

#[test]
fn q09_a_receive_buffer_for_the_device_to_read_stops_the_port() {
    let mut beside = Beside::new(&Config::default());
    let ring = beside.receiveq();
    (0..256).for_each(|head| ring.set_descriptor(head, readable(ring.buffer(head), 2048)));
    beside.send_to_hostile(60);
    beside.ends_stopped("ring 0: a receive buffer is not writable for the device");
}
