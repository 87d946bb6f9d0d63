//! The driver's queues against virtio-queue's `Queue` as the device, over the same memory.

use super::plan::plan;
use super::transmit::PLAIN;
use super::*;
use crate::features::{EVENT_IDX, IN_ORDER, INDIRECT_DESC, NET_MRG_RXBUF, VERSION_1};
use crate::layout::USED_ELEM_SIZE;
use proptest::prelude::*;
use std::fs::File;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// A pair without a session, and the device side of both its rings.
struct Bench {
    memory: Arc<Arena>,
    pair: QueuePair,
    guest: GuestMemoryMmap,
    receive: Queue,
    transmit: Queue,
}

fn bench(config: &Config) -> Bench {
    let (arena, plans) = plan(config).expect("a valid configuration");
    let memory = Arc::new(arena);
    let mut pair = QueuePair::new(&memory, &plans[0], config.features).expect("eventfds");
    let file = Arc::new(File::from(memory.as_fd().try_clone_to_owned().expect("dup")));
    let ranges = memory.regions().iter().map(|region| {
        let file = FileOffset::from_arc(file.clone(), region.offset as u64);
        (GuestAddress(region.guest_address), region.len, Some(file))
    });
    let guest = GuestMemoryMmap::from_ranges_with_files(ranges).expect("regions map");
    let queue = |places: &RingPlaces| {
        let mut queue = Queue::new(places.size.entries()).expect("size");
        queue.set_size(places.size.entries());
        let address = |offset| GuestAddress(memory.guest_address(offset));
        queue.try_set_desc_table_address(address(places.desc)).expect("aligned");
        queue.try_set_avail_ring_address(address(places.avail)).expect("aligned");
        queue.try_set_used_ring_address(address(places.used)).expect("aligned");
        queue.set_event_idx(config.features & EVENT_IDX != 0);
        queue.set_ready(true);
        assert!(queue.is_valid(&guest));
        queue
    };
    let (receive, transmit) = (queue(&plans[0].receive), queue(&plans[0].transmit));
    pair.flush();
    Bench { memory, pair, guest, receive, transmit }
}

impl Bench {
    /// All chains that the driver transmitted: head, and what the readable buffers hold.
    fn transmitted(&mut self) -> Vec<(u16, Vec<u8>)> {
        let mut chains = Vec::new();
        while let Some(chain) = self.transmit.pop_descriptor_chain(&self.guest) {
            let head = chain.head_index();
            let mut bytes = Vec::new();
            for descriptor in chain.readable() {
                let start = bytes.len();
                bytes.resize(start + descriptor.len() as usize, 0);
                self.guest.read_slice(&mut bytes[start..], descriptor.addr()).expect("in guest memory");
            }
            chains.push((head, bytes));
        }
        chains
    }

    fn complete(&mut self, head: u16) {
        self.transmit.add_used(&self.guest, head, 0).expect("a head of the ring");
    }

    /// Delivers one frame as a device with mergeable buffers does: heads and lengths, for whoever publishes them.
    fn deliver(&mut self, frame: &[u8], buffer: usize) -> Vec<(u16, u32)> {
        let num_buffers = (frame.len() + net_header::LEN).div_ceil(buffer) as u16;
        let bytes = [&NetHeader::plain(num_buffers).to_bytes(), frame].concat();
        let mut used = Vec::new();
        for mut part in bytes.chunks(buffer) {
            let chain = self.receive.pop_descriptor_chain(&self.guest).expect("a posted buffer");
            used.push((chain.head_index(), part.len() as u32));
            for descriptor in chain.writable() {
                let (now, rest) = part.split_at(part.len().min(descriptor.len() as usize));
                self.guest.write_slice(now, descriptor.addr()).expect("in guest memory");
                part = rest;
            }
            assert!(part.is_empty(), "the chain holds a whole buffer");
        }
        used
    }

    /// Publishes used chains of the receiveq at once, as the specification wants it for one frame.
    fn use_at_once(&mut self, used: &[(u16, u32)]) {
        let places = *self.pair.receive.ring.places();
        let index = self.memory.load_u16(places.used_idx(), Ordering::Relaxed);
        for (place, (head, len)) in (0u16..).zip(used) {
            write_used(&self.memory, &places, index.wrapping_add(place), u32::from(*head), *len);
        }
        self.memory.store_u16(places.used_idx(), index.wrapping_add(used.len() as u16), Ordering::Release);
    }

    fn received(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.pair.receive(|_, frame| frames.push(frame.to_vec()));
        frames
    }
}

fn write_used(memory: &Arena, places: &RingPlaces, index: u16, id: u32, len: u32) {
    let mut element = [0; USED_ELEM_SIZE];
    element[..4].copy_from_slice(&id.to_le_bytes());
    element[4..].copy_from_slice(&len.to_le_bytes());
    memory.write(places.used_entry(index), &element);
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed).wrapping_add((at >> 8) as u8)).collect()
}

fn frame_len() -> impl Strategy<Value = usize> {
    prop_oneof![14usize..200, 1000usize..3000, 14usize..=65535]
}

fn memory_config() -> impl Strategy<Value = MemoryConfig> {
    (1u16..6, prop_oneof![Just(0u64), Just(4 << 20)]).prop_map(|(regions, gap)| MemoryConfig {
        regions,
        gap,
        ..MemoryConfig::default()
    })
}

fn shape() -> impl Strategy<Value = Shape> {
    let place = prop_oneof![Just(Place::Near), Just(Place::AcrossPage), Just(Place::AcrossRegion)];
    let piece = (prop_oneof![0u32..13, 1u32..2000], place).prop_map(|(len, place)| Piece { len, place });
    (proptest::collection::vec(piece, 1..=16), proptest::option::of(0usize..16))
        .prop_map(|(pieces, indirect_from)| Shape { pieces, indirect_from })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever lengths, shapes, regions and order of completion: the device reads every frame bit for bit, and the
    /// driver gets every descriptor back.
    #[test]
    fn frames_transmitted_arrive_bit_for_bit(
        memory in memory_config(),
        in_order: bool,
        frames in proptest::collection::vec((frame_len(), proptest::option::of(shape()), any::<u8>(), any::<u32>()), 1..40),
    ) {
        let order = if in_order { IN_ORDER } else { 0 };
        let config = Config { features: VERSION_1 | INDIRECT_DESC | order, memory, ..Config::default() };
        let mut bench = bench(&config);
        let mut held: Vec<u16> = Vec::new();
        for (len, shape, seed, pick) in frames {
            let frame = frame(len, seed);
            let mut sent = false;
            while !sent {
                sent = match &shape {
                    None => bench.pair.transmit(&frame),
                    Some(shape) => bench.pair.transmit_shaped(&PLAIN, &frame, shape),
                };
                if !sent {
                    prop_assert!(!held.is_empty(), "a frame does not fit an empty ring");
                    let which = if in_order { 0 } else { pick as usize % held.len() };
                    let head = held.remove(which);
                    bench.complete(head);
                }
            }
            bench.pair.flush();
            let chains = bench.transmitted();
            prop_assert_eq!(chains.len(), 1);
            prop_assert_eq!(&chains[0].1[..12], &PLAIN[..]);
            prop_assert!(chains[0].1[12..] == frame[..], "the bytes differ");
            held.push(chains[0].0);
            prop_assert_eq!(usize::from(bench.pair.in_flight()) >= held.len(), true);
        }
        if !in_order {
            held.reverse();
        }
        for head in held {
            bench.complete(head);
        }
        bench.pair.reap();
        prop_assert_eq!(bench.pair.fault(), None);
        prop_assert_eq!(bench.pair.in_flight(), 0);
        prop_assert_eq!(bench.pair.transmit.ring.free(), config.ring_size.entries());
    }

    /// Whatever lengths, buffer layouts, regions and order of use: frames come out whole, merged buffers joined, and
    /// every buffer is posted again.
    #[test]
    fn frames_received_arrive_bit_for_bit(
        memory in memory_config(),
        in_order: bool,
        layout in prop_oneof![
            Just(ReceiveLayout::Single),
            Just(ReceiveLayout::Chained(vec![5, 12, 100])),
            Just(ReceiveLayout::Indirect(vec![12, 1000])),
        ],
        batches in proptest::collection::vec(proptest::collection::vec(frame_len(), 1..4), 1..12),
    ) {
        let order = if in_order { IN_ORDER } else { 0 };
        let features = VERSION_1 | INDIRECT_DESC | NET_MRG_RXBUF | order;
        let size = RingSize::new(1024).expect("a power of two");
        let config = Config { features, memory, ring_size: size, receive: layout, ..Config::default() };
        let mut bench = bench(&config);
        let posted = bench.pair.receive.ring.chains_in_flight();
        for batch in batches {
            let frames: Vec<_> = batch.iter().map(|len| frame(*len, *len as u8)).collect();
            let mut chains: Vec<_> = frames.iter().map(|frame| bench.deliver(frame, 2048)).collect();
            let mut expected = frames;
            if !in_order {
                chains.reverse();
                expected.reverse();
            }
            bench.use_at_once(&chains.concat());
            prop_assert!(bench.received() == expected, "the frames differ");
            prop_assert_eq!(bench.pair.fault(), None);
            prop_assert_eq!(bench.pair.receive.ring.chains_in_flight(), posted);
        }
    }

    /// The driver kicks exactly when virtio-queue asked for it, and virtio-queue interrupts exactly when the driver did.
    #[test]
    fn notifications_are_what_the_other_side_asked_for(event_idx: bool, steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 1usize..20), 1..60)) {
        let features = VERSION_1 | if event_idx { EVENT_IDX } else { 0 };
        let mut bench = bench(&Config { features, ..Config::default() });
        // A fresh ring has avail_event 0, whoever wrote it: the first frame is always kicked for.
        prop_assert!(bench.pair.transmit(&[0; 60]) && bench.pair.transmit.ring.publish());
        let (head, _) = bench.transmitted()[0];
        bench.complete(head);
        let _ = bench.transmit.needs_notification(&bench.guest);
        prop_assert_eq!(bench.pair.reap(), 1);
        for (device_sleeps, driver_sleeps, count) in steps {
            if device_sleeps {
                bench.transmit.enable_notification(&bench.guest).expect("ring");
            } else {
                bench.transmit.disable_notification(&bench.guest).expect("ring");
            }
            if driver_sleeps {
                prop_assert!(!bench.pair.transmit.ring.arm(1), "nothing is used yet");
            } else {
                bench.pair.disarm();
            }
            for _ in 0..count {
                prop_assert!(bench.pair.transmit(&[0; 60]));
            }
            let kicked = bench.pair.transmit.ring.publish();
            prop_assert!(kicked == device_sleeps, "a sleeping device is kicked, a polling one is not");
            prop_assert!(!bench.pair.transmit.ring.publish(), "nothing new, no kick");
            for (head, _) in bench.transmitted() {
                bench.complete(head);
            }
            if event_idx {
                let wants = bench.transmit.needs_notification(&bench.guest).expect("ring");
                prop_assert_eq!(wants, driver_sleeps);
            }
            prop_assert_eq!(bench.pair.reap(), count);
        }
    }
}

#[test]
fn a_batch_in_order_is_reaped_from_its_last_element_alone() {
    let mut bench = bench(&Config { features: VERSION_1 | IN_ORDER, ..Config::default() });
    let places = *bench.pair.transmit.ring.places();
    // Three rounds of 200 cross the end of the ring of 256, with frames of one and of three descriptors.
    let mut index = 0u16;
    for round in 0..3 {
        for number in 0..100 {
            assert!(bench.pair.transmit(&frame(60, number)), "round {round}");
        }
        assert!(bench.pair.transmit(&frame(5000, round)));
        bench.pair.flush();
        let chains = bench.transmitted();
        assert_eq!(chains.len(), 101);
        let last = chains.last().expect("101 chains").0;
        write_used(&bench.memory, &places, index, u32::from(last), 0);
        index += 101;
        bench.memory.store_u16(places.used_idx(), index, Ordering::Release);
        assert_eq!(bench.pair.reap(), 101);
        assert_eq!(bench.pair.in_flight(), 0);
    }
    assert_eq!(bench.pair.fault(), None);
}

/// What the device writes into used rings, and what the driver must say of it.
#[test]
fn a_device_that_breaks_the_used_ring_is_named_and_the_pair_stops() {
    let config = Config { features: VERSION_1 | NET_MRG_RXBUF | IN_ORDER, ..Config::default() };
    let receive = |used: &[(u32, u32)], index: u16, num_buffers: u16| {
        let mut bench = bench(&config);
        let places = *bench.pair.receive.ring.places();
        for number in 0..256 {
            let slot = bench.pair.receive.slots().offset(number);
            bench.memory.write(slot, &NetHeader::plain(num_buffers).to_bytes());
        }
        for (place, (id, len)) in (0..).zip(used) {
            write_used(&bench.memory, &places, place, *id, *len);
        }
        bench.memory.store_u16(places.used_idx(), index, Ordering::Release);
        bench.received();
        assert!(!bench.pair.transmit(&[0; 60]), "a pair that stopped sends nothing");
        bench.pair.fault().cloned()
    };
    assert_eq!(receive(&[], 257, 1), Some(DeviceFault::UsedIndex { index: 257, expected: 0, given: 256 }));
    assert_eq!(receive(&[(256, 60)], 1, 1), Some(DeviceFault::UnknownHead { id: 256 }));
    assert_eq!(receive(&[(u32::MAX, 60)], 1, 1), Some(DeviceFault::UnknownHead { id: u32::MAX }));
    assert_eq!(receive(&[(3, 60)], 2, 1), Some(DeviceFault::OutOfOrder { head: 3 }));
    assert_eq!(receive(&[(0, 2049)], 1, 1), Some(DeviceFault::Overrun { written: 2049, capacity: 2048 }));
    assert_eq!(receive(&[(0, 11)], 1, 1), Some(DeviceFault::Runt { written: 11 }));
    assert_eq!(receive(&[(0, 60)], 1, 0), Some(DeviceFault::NumBuffers { num_buffers: 0, used: 1 }));
    assert_eq!(receive(&[(0, 60)], 1, 2), Some(DeviceFault::NumBuffers { num_buffers: 2, used: 1 }));
    let full: Vec<_> = (0..40).map(|id| (id, 2048)).collect();
    assert_eq!(receive(&full, 40, 40), Some(DeviceFault::Oversize { limit: transmit::MAX_CHAIN }));
}

#[test]
fn a_used_chain_cannot_be_used_twice() {
    let mut bench = bench(&Config { features: VERSION_1, ..Config::default() });
    assert!(bench.pair.transmit(&[1; 60]) && bench.pair.transmit(&[2; 60]));
    bench.pair.flush();
    let head = bench.transmitted()[0].0;
    bench.complete(head);
    bench.complete(head);
    bench.pair.reap();
    assert_eq!(bench.pair.fault(), Some(&DeviceFault::UnknownHead { id: u32::from(head) }));
}

#[test]
fn a_full_ring_refuses_and_wakes_the_sender_when_half_of_it_is_sent() {
    let mut bench = bench(&Config { features: VERSION_1 | EVENT_IDX, ..Config::default() });
    let sent = (0..300).filter(|_| bench.pair.transmit(&[0; 60])).count();
    assert_eq!(sent, 256);
    bench.pair.flush();
    assert!(!bench.pair.arm());
    let chains = bench.transmitted();
    let mut woken_after = None;
    for (number, (head, _)) in chains.iter().enumerate() {
        bench.complete(*head);
        if bench.transmit.needs_notification(&bench.guest).expect("ring") {
            woken_after = woken_after.or(Some(number + 1));
        }
    }
    assert_eq!(woken_after, Some(128));
    assert_eq!(bench.pair.reap(), 256);
}

#[test]
fn configurations_that_contradict_themselves_are_refused() {
    let refused = |config: Config| matches!(plan(&config), Err(DriverError::Config(_)));
    assert!(refused(Config { queue_pairs: 0, ..Config::default() }));
    assert!(refused(Config { buffer_size: 100, ..Config::default() }));
    assert!(
        refused(Config { receive: ReceiveLayout::Chained(vec![12, 100]), ..Config::default() }),
        "3 of 256"
    );
    assert!(refused(Config { receive: ReceiveLayout::Indirect(vec![100, 12]), ..Config::default() }));
    let memory = MemoryConfig { regions: 0, ..MemoryConfig::default() };
    assert!(refused(Config { memory, ..Config::default() }));
}

#[test]
fn sealed_memory_cannot_shrink_and_unsealed_can() {
    let sealed = plan(&Config::default()).expect("memory").0;
    assert!(sealed.truncate(4096).is_err());
    let memory = MemoryConfig { sealed: false, ..MemoryConfig::default() };
    let unsealed = plan(&Config { memory, ..Config::default() }).expect("memory").0;
    let len = unsealed.len() as u64;
    unsealed.truncate(len - 4096).expect("no seal forbids it");
    unsealed.write(0, &[7]);
    unsealed.punch(0..4096).expect("a hole");
    let mut byte = [1];
    unsealed.read(0, &mut byte);
    assert_eq!(byte, [0], "what was there is gone");
}

/// Frames filled where they lie: what was written in an earlier round stays, in and out of order.
#[test]
fn frames_filled_in_place_keep_what_was_written_before() {
    for order in [0, IN_ORDER] {
        let mut bench = bench(&Config { features: VERSION_1 | order, ..Config::default() });
        for round in 0u8..3 {
            let sent = bench.pair.transmit_in_place(300, 72, |buffer| {
                if round == 0 {
                    buffer.write(0, &PLAIN);
                    buffer.write(13, &buffer.number().to_le_bytes());
                }
                buffer.write(12, &[round]);
                buffer.set_end(12 + 60);
            });
            assert_eq!(sent, 256, "as many as there are buffers");
            bench.pair.flush();
            let mut chains = bench.transmitted();
            if order == 0 {
                chains.reverse();
            }
            for (head, bytes) in chains {
                assert_eq!(bytes.len(), 72);
                assert_eq!(bytes[..15], [&PLAIN[..], &[round], &head.to_le_bytes()].concat());
                bench.complete(head);
            }
        }
        assert_eq!((bench.pair.reap(), bench.pair.fault()), (256, None));
    }
}

/// What is read where it lies is what would have been copied out, merged frames too; reads end with the frame.
#[test]
fn frames_read_in_place_are_whole_and_their_buffers_are_posted_again() {
    let features = VERSION_1 | NET_MRG_RXBUF | IN_ORDER;
    let mut bench = bench(&Config { features, ..Config::default() });
    for round in 0..200 {
        let frames: Vec<_> = [60, 1514, 5000].iter().map(|len| frame(*len, round)).collect();
        let used: Vec<_> = frames.iter().flat_map(|frame| bench.deliver(frame, 2048)).collect();
        bench.use_at_once(&used);
        let mut received = Vec::new();
        let count = bench.pair.receive_in_place(64, 128, |frame| {
            let mut bytes = vec![0; frame.len()];
            assert!(frame.read(0, &mut bytes) && !frame.read(1, &mut bytes));
            received.push(bytes);
        });
        assert_eq!((count, bench.pair.fault()), (3, None));
        assert!(received == frames, "round {round}");
        bench.pair.flush();
    }
}

/// A ring that is turned over sends the same frames again and again, whatever part of it was done; afterwards it goes on as ever.
#[test]
fn a_full_ring_that_is_turned_over_repeats_its_frames_and_stays_whole() {
    for features in [VERSION_1, VERSION_1 | IN_ORDER] {
        let mut bench = bench(&Config { features, ..Config::default() });
        let frames: Vec<_> = (0..=255).map(|number| frame(60, number)).collect();
        assert!(frames.iter().all(|frame| bench.pair.transmit(frame)));
        bench.pair.flush();
        let whole = |frame: &Vec<u8>| [&PLAIN[..], frame].concat();
        let mut sent = frames.iter().cycle();
        let mut waiting = std::collections::VecDeque::new();
        for done in [1, 100, 255, 0, 256, 31].into_iter().cycle().take(40) {
            waiting.extend(bench.transmitted());
            for (head, bytes) in waiting.drain(..done) {
                assert_eq!(Some(bytes), sent.next().map(whole));
                bench.complete(head);
            }
            assert_eq!((bench.pair.transmit_again(), bench.pair.in_flight()), (done, 256));
            bench.pair.flush();
        }
        waiting.extend(bench.transmitted());
        waiting.drain(..).for_each(|(head, _)| bench.complete(head));
        assert_eq!((bench.pair.reap(), bench.pair.in_flight()), (256, 0));
        // And received frames that nobody looked at leave the others alone.
        for count in [3, 200, 256] {
            let used: Vec<_> =
                (0..count).flat_map(|number| bench.deliver(&frame(60, number as u8), 2048)).collect();
            bench.use_at_once(&used);
            assert_eq!(bench.pair.discard(), count);
            bench.pair.flush();
        }
        let used = bench.deliver(&frame(60, 7), 2048);
        bench.use_at_once(&used);
        assert_eq!((bench.received(), bench.pair.fault()), (vec![frame(60, 7)], None));
    }
}

#[test]
fn frames_are_sent_many_at_a_time_in_order_and_what_has_no_room_stays_next() {
    let mut bench = bench(&Config { features: VERSION_1 | NET_MRG_RXBUF, ..Config::default() });
    let (ours, peer) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .expect("sockets");
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 64 << 10).expect("a socket");
    // More than one call sends; among small ones large ones, of which fewer than SENDS fit into a call.
    let frames: Vec<_> = (0..3 * SENDS)
        .map(|number| frame(if number % 4 == 3 { 20_000 + number } else { 60 + number }, number as u8))
        .collect();
    let (mut given, mut calls, mut no_room) = (0, 0, 0);
    let mut heard = Vec::new();
    let mut into = vec![0; 1 << 17];
    while heard.len() < frames.len() {
        while given < frames.len() && given - heard.len() < 2 * SENDS {
            for (head, len) in bench.deliver(&frames[given], bench.pair.receive.slots().len) {
                bench.receive.add_used(&bench.guest, head, len).expect("a head of the ring");
            }
            given += 1;
        }
        loop {
            match bench.pair.send_to(ours.as_fd()).expect("a socket") {
                Moved::Frame => calls += 1,
                Moved::NoRoom => {
                    no_room += 1;
                    break;
                }
                Moved::Nothing => break,
            }
        }
        bench.pair.flush();
        while let Ok(len) = rustix::io::read(&peer, &mut into[..]) {
            let (header, bytes) = into[..len].split_at(net_header::SHORT_LEN);
            assert_eq!((header, bytes), (&[0; net_header::SHORT_LEN][..], &frames[heard.len()][..]));
            heard.push(len);
        }
    }
    assert_eq!(bench.pair.fault(), None);
    assert!(no_room > 0, "the socket was never full");
    assert!(calls < frames.len(), "{calls} calls for {} frames", frames.len());
    // The error of the next frame is told, and it alone is gone.
    drop(peer);
    for frame in frames.iter().take(3) {
        for (head, len) in bench.deliver(frame, bench.pair.receive.slots().len) {
            bench.receive.add_used(&bench.guest, head, len).expect("a head of the ring");
        }
    }
    for _ in 0..3 {
        assert_eq!(
            bench.pair.send_to(ours.as_fd()).map_err(|why| why.kind()),
            Err(std::io::ErrorKind::BrokenPipe)
        );
    }
    assert_eq!(bench.pair.send_to(ours.as_fd()).expect("nothing is sent"), Moved::Nothing);
}
