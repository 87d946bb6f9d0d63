//! Leases of several workers at once: the guest sees buffers in the order in which they were claimed, without a gap.

use super::{ALL, Wired, config, publish};
use crate::device::ring::{Payload, Rooms};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

const EMPTY: Payload<'static> = Payload::Ours(&[]);

#[test]
fn a_gap_holds_back_what_lies_behind_it_and_whoever_closes_it_publishes_all() {
    let mut wired = Wired::new(&config(ALL, 16));
    let mut rooms: [Rooms; 3] = Default::default();
    let [one, two, three] = &mut rooms;
    let mut first = wired.to.reserve(0, one, 1, |room| room.frames(std::iter::once(20))).expect("room");
    let mut second = wired.to.reserve(0, two, 2, |room| room.frames([30, 40].into_iter())).expect("room");
    let third = wired.to.reserve(0, three, 1, |room| room.frames(std::iter::once(50))).expect("room");
    let _ = second.write(0, &[2; 30], EMPTY);
    let _ = second.write(1, &[3; 40], EMPTY);
    publish(&wired.to, second);
    drop(third);
    assert_eq!(wired.to.next_used(), 0, "the oldest is not written yet");
    let _ = first.write(0, &[1; 20], EMPTY);
    publish(&wired.to, first);
    assert_eq!(wired.to.next_used(), 4);
    let mut lengths = Vec::new();
    wired.driver.pair.receive(|_, frame| lengths.push(frame.len()));
    assert_eq!(lengths, [20, 30, 40, 50], "in the order of claims; one that was dropped leaves no gap");
}

#[test]
fn workers_that_deliver_at_once_lose_and_double_nothing() {
    const WORKERS: usize = 4;
    const FRAMES: u32 = 3000;
    const BATCH: u32 = 5;
    // The same in a batch; some take two buffers.
    let len_of = |number: u32| (number / BATCH * 37) as usize % 3000;
    let mut wired = Wired::new(&config(ALL, 64));
    let (to, done) = (&wired.to, AtomicUsize::new(0));
    let mut next = [0u32; WORKERS];
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let done = &done;
            scope.spawn(move || {
                let mut sent = 0;
                while sent < FRAMES {
                    let batch = (FRAMES - sent).min(BATCH - sent % BATCH);
                    let frames: Vec<Vec<u8>> = (sent..sent + batch)
                        .map(|n| {
                            [&[worker as u8], n.to_le_bytes().as_slice(), &vec![n as u8; len_of(n)]].concat()
                        })
                        .collect();
                    let mut rooms = Rooms::default();
                    let mut lease = to
                        .reserve(0, &mut rooms, frames.len(), |room| {
                            room.frames(frames.iter().map(|frame| frame.len() as u32));
                        })
                        .expect("honest");
                    for (place, frame) in frames.iter().enumerate() {
                        let _ = lease.write(place, &frame[..5], Payload::Ours(&frame[5..]));
                    }
                    let fates: Vec<_> = (0..frames.len()).map(|place| lease.room(place)).collect();
                    publish(to, lease);
                    // Frames of one batch are of one length: behind one that found no room, none finds any.
                    sent += fates.iter().take_while(|fate| fate.is_ok()).count() as u32;
                }
                done.fetch_add(1, Ordering::Release);
            });
        }
        let pair = &mut wired.driver.pair;
        loop {
            let over = done.load(Ordering::Acquire) == WORKERS;
            let taken = pair.receive(|_, frame| {
                let (worker, number) =
                    (usize::from(frame[0]), u32::from_le_bytes([frame[1], frame[2], frame[3], frame[4]]));
                assert_eq!(number, next[worker], "worker {worker}: in order, each once");
                assert_eq!(frame.len(), 5 + len_of(number));
                assert!(frame[5..].iter().all(|byte| *byte == number as u8), "its own bytes");
                next[worker] += 1;
            });
            assert_eq!(pair.fault(), None);
            if over && taken == 0 {
                break;
            }
        }
    });
    assert_eq!(next, [FRAMES; WORKERS]);
}
