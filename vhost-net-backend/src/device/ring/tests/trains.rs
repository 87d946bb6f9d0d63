//! A frame that is cut has room for all of its parts or for none, and a guest gets all of them with true headers.

use super::{ALL, Wired, config, publish};
use crate::{
    device::ring::{MakeHead, NoRoom, Payload, Rooms, Stream},
    driver::Config,
    features::NET_MRG_RXBUF,
    net_header::{self, NetHeader},
};
use checksum::Sum;
use std::iter;

/// Parts of three bytes behind a head of two: the part's number, and the sum of what follows.
struct Threes;

impl MakeHead for Threes {
    fn payload(&self, _: u16) -> (u32, bool) {
        (3, true)
    }

    fn head(&self, number: u16, sum: Sum, head: &mut [u8]) -> NetHeader {
        head.copy_from_slice(&[number as u8, sum.fold() as u8]);
        NetHeader { gso_size: number, ..NetHeader::default() }
    }
}

#[test]
fn all_parts_find_room_or_none_and_what_was_claimed_for_some_is_there_for_others() {
    let mut wired = Wired::new(&config(ALL, 8));
    let mut rooms = Rooms::default();
    let mut lease = wired
        .to
        .reserve(0, &mut rooms, 4, |room| {
            room.frames(iter::once(1));
            room.train(8, iter::repeat_n(5, 8));
            room.train(7, iter::repeat_n(5, 7));
            room.frames(iter::once(1));
        })
        .expect("honest");
    let fates: Vec<_> = (0..4).map(|place| lease.room(place)).collect();
    assert_eq!(fates, [Ok(()), Err(NoRoom::Empty), Ok(()), Err(NoRoom::Empty)]);
    assert_eq!((lease.granted().frames, lease.granted().bytes), (2, 1 + 7 * 5));
    let _ = lease.write(0, &[9], Payload::Ours(&[]));
    // What is left of a frame: some of it in the head, the rest elsewhere, cut at odd places.
    let bytes: Vec<u8> = (0..21).collect();
    let frame = Stream::new(&bytes[..4], Payload::Ours(&bytes[4..]));
    assert_eq!(lease.write_made(2, &mut [0; net_header::LEN + 2], frame, &Threes), Ok(()));
    publish(&wired.to, lease);
    let mut arrived = Vec::new();
    wired.driver.pair.receive(|header, frame| arrived.push((*header, frame.to_vec())));
    let part = |number: u16| {
        let payload = [0, 1, 2].map(|n| number as u8 * 3 + n);
        let sum = Sum::ZERO.add_bytes(&payload).fold() as u8;
        let header = NetHeader { gso_size: number, num_buffers: 1, ..NetHeader::default() };
        (header, [&[number as u8, sum], payload.as_slice()].concat())
    };
    let expected: Vec<_> = iter::once((NetHeader::plain(1), vec![9])).chain((0..7).map(part)).collect();
    assert_eq!(arrived, expected);
    assert_eq!(wired.driver.pair.fault(), None);
}

#[test]
fn parts_that_nobody_wrote_have_true_headers_too() {
    let features = ALL | NET_MRG_RXBUF;
    let mut wired = Wired::new(&Config { buffer_size: 1024, ..config(features, 8) });
    let mut rooms = Rooms::default();
    drop(wired.to.reserve(0, &mut rooms, 1, |room| room.train(2, [100, 2000].into_iter())).expect("honest"));
    let mut arrived = Vec::new();
    wired.driver.pair.receive(|header, frame| arrived.push((header.num_buffers, frame.len())));
    assert_eq!(arrived, [(1, 100), (2, 2000)]);
    assert_eq!(wired.driver.pair.fault(), None);
}

#[test]
fn a_part_that_fits_no_buffer_gives_back_those_before_it() {
    let features = ALL & !NET_MRG_RXBUF;
    let wired = Wired::new(&Config { buffer_size: 1024, ..config(features, 8) });
    let mut rooms = Rooms::default();
    let lease =
        wired.to.reserve(0, &mut rooms, 1, |room| room.train(2, [100, 2000].into_iter())).expect("honest");
    assert_eq!(lease.room(0), Err(NoRoom::TooSmall));
    publish(&wired.to, lease);
    assert_eq!((wired.to.next_avail(), wired.to.next_used()), (0, 0));
}

#[test]
fn a_train_that_is_longer_than_the_ring_makes_nobody_short_of_buffers() {
    let wired = Wired::new(&config(ALL, 8));
    let mut rooms = Rooms::default();
    let lease =
        wired.to.reserve(0, &mut rooms, 1, |room| room.train(9, iter::repeat_n(5, 9))).expect("honest");
    assert_eq!(lease.room(0), Err(NoRoom::TooSmall));
    publish(&wired.to, lease);
    let lease = wired.to.reserve(1, &mut rooms, 8, |room| room.frames(iter::repeat_n(1, 8))).expect("honest");
    assert_eq!(lease.granted().frames, 8, "another sender may have all");
    drop(lease);
}
