//! One split virtqueue (virtio 1.2 §2.7), from the driver's side: buffers are put, shown to the device, and taken back.
//!
//! The device reads and writes the same memory, so all of it is atomics. The available ring doubles as the list of free
//! descriptors: whoever comes back is put where the next round of the ring begins. With a device that completes in order
//! (VIRTIO_F_IN_ORDER) it so stays as it was made, and a descriptor whose buffer stays the same is not written either:
//! these lines stay in the device's cache.

use crate::buffers::Buffers;
use alloc::boxed::Box;
use core::{
    mem::offset_of,
    sync::atomic::{
        AtomicU16, AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
};

/// Entries.
pub(crate) const SIZE: u16 = 256;
const ENTRIES: usize = SIZE as usize;

/// Flags of a descriptor: the device writes to the buffer.
const WRITE: u64 = 2;
/// Flag of the available ring: do not call.
const NO_INTERRUPT: u16 = 1;
/// Flag of the used ring: do not kick.
const NO_NOTIFY: u16 = 1;

/// Length (32 bits), flags and next (16 bits each) are one word: it is written at once, and seldom.
#[repr(C)]
struct Descriptor {
    address: AtomicU64,
    rest: AtomicU64,
}

#[repr(C, align(64))]
struct Available {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [AtomicU16; ENTRIES],
}

#[repr(C)]
struct UsedElement {
    id: AtomicU32,
    length: AtomicU32,
}

#[repr(C, align(64))]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    ring: [UsedElement; ENTRIES],
}

#[repr(C, align(4096))]
struct Parts {
    descriptors: [Descriptor; ENTRIES],
    available: Available,
    used: Used,
}

// What the device finds there is where §2.7 has it.
const _: () = {
    assert!(offset_of!(Descriptor, rest) == 8 && size_of::<Descriptor>() == 16);
    assert!(offset_of!(UsedElement, length) == 4 && size_of::<UsedElement>() == 8);
    assert!(offset_of!(Available, ring) == 4 && offset_of!(Used, ring) == 4);
};

/// Which way buffers go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToDevice,
    FromDevice,
}

/// A ring.
pub(crate) struct Ring {
    parts: &'static Parts,
    direction: Direction,
    in_order: bool,
    /// Put so far, and shown of these.
    put: u16,
    shown: u16,
    /// Taken back so far, and known to be used.
    taken: u16,
    used: u16,
    /// In order, of a batch that is told by its last buffer only: which that is, and what was written to it.
    batch: Option<(u16, u32)>,
}

impl Ring {
    /// An empty one. It is never given back: a device may hold it to the end.
    pub(crate) fn new(direction: Direction, in_order: bool) -> Self {
        let descriptor = || Descriptor { address: AtomicU64::new(0), rest: AtomicU64::new(0) };
        let element = || UsedElement { id: AtomicU32::new(0), length: AtomicU32::new(0) };
        let none = || AtomicU16::new(0);
        let parts = Box::leak(Box::new(Parts {
            descriptors: core::array::from_fn(|_| descriptor()),
            available: Available {
                flags: AtomicU16::new(NO_INTERRUPT),
                index: none(),
                ring: core::array::from_fn(|id| AtomicU16::new(id as u16)),
            },
            used: Used { flags: none(), index: none(), ring: core::array::from_fn(|_| element()) },
        }));
        Self { parts, direction, in_order, put: 0, shown: 0, taken: 0, used: 0, batch: None }
    }

    /// Where its descriptors, its available ring and its used ring are: memory is mapped onto itself.
    pub(crate) fn places(&self) -> [u64; 3] {
        let Parts { descriptors, available, used } = self.parts;
        let places =
            [(&raw const *descriptors).addr(), (&raw const *available).addr(), (&raw const *used).addr()];
        places.map(|place| place as u64)
    }

    #[inline(always)]
    fn available(&self, position: u16) -> &'static AtomicU16 {
        &self.parts.available.ring[usize::from(position % SIZE)]
    }

    /// How many buffers can be put.
    #[inline(always)]
    pub(crate) fn room(&self) -> u16 {
        SIZE - self.put.wrapping_sub(self.taken)
    }

    /// The number that the next buffer put will have. There is room for it.
    #[inline(always)]
    pub(crate) fn next(&self) -> u16 {
        self.available(self.put).load(Relaxed) % SIZE
    }

    /// Puts so many bytes of the buffer `of` of `buffers`, which are the device's until the number that this says is
    /// taken back. There is room for it.
    #[inline(always)]
    pub(crate) fn put(&mut self, buffers: &Buffers, of: u16, length: usize) -> u16 {
        debug_assert!(self.room() > 0, "there is room");
        let (number, address) = (self.next(), buffers.address(of));
        let length = length.min(buffers.size());
        let descriptor = &self.parts.descriptors[usize::from(number)];
        let flags = if self.direction == Direction::FromDevice { WRITE } else { 0 };
        let rest = length as u64 | flags << 32;
        if descriptor.address.load(Relaxed) != address {
            descriptor.address.store(address, Relaxed);
        }
        if descriptor.rest.load(Relaxed) != rest {
            descriptor.rest.store(rest, Relaxed);
        }
        self.put = self.put.wrapping_add(1);
        number
    }

    /// Shows the device all that was put; whether it wants a kick for that.
    #[inline(always)]
    pub(crate) fn show(&mut self) -> bool {
        if self.put == self.shown {
            return false;
        }
        self.shown = self.put;
        self.parts.available.index.store(self.put, Release);
        // What the device says of kicks must not have been read before it could see what was put.
        fence(SeqCst);
        self.parts.used.flags.load(Relaxed) & NO_NOTIFY == 0
    }

    /// How many buffers the device is done with that were not taken back.
    #[inline(always)]
    pub(crate) fn ready(&mut self) -> u16 {
        if self.used == self.taken {
            let used = self.parts.used.index.load(Acquire);
            // A device that claims more than it was given gets what it was given.
            self.used = if used.wrapping_sub(self.taken) <= self.shown.wrapping_sub(self.taken) {
                used
            } else {
                self.shown
            };
        }
        self.used.wrapping_sub(self.taken)
    }

    /// Takes the next buffer back: its number, and how many bytes the device wrote to it.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<(u16, usize)> {
        if self.ready() == 0 {
            return None;
        }
        let element = &self.parts.used.ring[usize::from(self.taken % SIZE)];
        let number = if self.in_order {
            self.available(self.taken).load(Relaxed) % SIZE
        } else {
            let number = element.id.load(Relaxed) as u16 % SIZE;
            self.available(self.taken).store(number, Relaxed);
            number
        };
        let length = match self.direction {
            Direction::FromDevice => self.written(number, element),
            Direction::ToDevice => 0,
        };
        self.taken = self.taken.wrapping_add(1);
        Some((number, length as usize))
    }

    /// What the device wrote to the buffer of this number, whose turn it is in the used ring. In order it may tell of a
    /// batch by its last buffer alone, at the place of the first, and those before it are full (§2.7.9).
    #[inline(always)]
    fn written(&mut self, number: u16, element: &UsedElement) -> u32 {
        if !self.in_order {
            return element.length.load(Relaxed);
        }
        let told = || (element.id.load(Relaxed) as u16 % SIZE, element.length.load(Relaxed));
        let (last, length) = self.batch.take().unwrap_or_else(told);
        if last == number {
            return length;
        }
        self.batch = Some((last, length));
        self.parts.descriptors[usize::from(number)].rest.load(Relaxed) as u32
    }

    /// The number of the buffer that will be taken `behind` others. It is ready.
    #[inline(always)]
    pub(crate) fn upcoming(&self, behind: u16) -> u16 {
        let position = self.taken.wrapping_add(behind);
        if self.in_order {
            self.available(position).load(Relaxed) % SIZE
        } else {
            self.parts.used.ring[usize::from(position % SIZE)].id.load(Relaxed) as u16 % SIZE
        }
    }

    /// Whether the device is to call when it is done with a buffer.
    pub(crate) fn call(&self, wanted: bool) {
        self.parts.available.flags.store(if wanted { 0 } else { NO_INTERRUPT }, Relaxed);
    }

    /// Whether a buffer is ready, for whoever has just asked to be called and is about to wait: what comes later is
    /// called for.
    pub(crate) fn is_ready(&self) -> bool {
        fence(SeqCst);
        // Nothing that was not shown is ready, whatever the device claims.
        let more = || self.shown != self.taken && self.parts.used.index.load(Acquire) != self.taken;
        self.used != self.taken || more()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 128;

    /// A receiveq whose buffers are all lent, and a device that has seen them.
    fn lent(in_order: bool) -> (Ring, Buffers) {
        let (mut ring, buffers) = (Ring::new(Direction::FromDevice, in_order), Buffers::new(SIZE, LENGTH));
        for _ in 0..SIZE {
            put(&mut ring, &buffers);
        }
        ring.show();
        (ring, buffers)
    }

    fn put(ring: &mut Ring, buffers: &Buffers) {
        let number = ring.next();
        assert_eq!(ring.put(buffers, number, LENGTH), number);
    }

    /// The device says that it is done: an id and a length at each place from `at` on, and its index.
    fn done(ring: &Ring, at: u16, elements: &[(u32, u32)], index: u16) {
        for (place, (id, length)) in (0..).zip(elements) {
            let element = &ring.parts.used.ring[usize::from(at.wrapping_add(place) % SIZE)];
            element.id.store(*id, Relaxed);
            element.length.store(*length, Relaxed);
        }
        ring.parts.used.index.store(index, Release);
    }

    /// What the device sees at a place of the available ring: the id, address and length.
    fn seen(ring: &Ring, place: u16) -> (u16, u64, u64) {
        let id = ring.available(place).load(Relaxed);
        let descriptor = &ring.parts.descriptors[usize::from(id)];
        (id, descriptor.address.load(Relaxed), descriptor.rest.load(Relaxed))
    }

    #[test]
    fn rounds_without_end_keep_each_buffer_under_its_number() {
        for in_order in [true, false] {
            let (mut ring, buffers) = lent(in_order);
            // Past the wrap of the index at 65536.
            for at in (0..70_000u32).map(|at| at as u16) {
                let (id, address, rest) = seen(&ring, at);
                assert_eq!((address, rest), (buffers.address(id), LENGTH as u64 | WRITE << 32));
                done(&ring, at, &[(id.into(), u32::from(at) % 100)], at.wrapping_add(1));
                assert!(ring.is_ready());
                assert_eq!(ring.take(), Some((id, usize::from(at) % 100)));
                assert_eq!((ring.room(), ring.is_ready(), ring.take()), (1, false, None));
                put(&mut ring, &buffers);
                assert!(ring.show(), "a kick is wanted until the device says otherwise");
                assert_eq!(ring.parts.available.index.load(Acquire), at.wrapping_add(SIZE).wrapping_add(1));
            }
        }
    }

    #[test]
    fn what_comes_back_out_of_order_is_put_where_it_fits() {
        let (mut ring, buffers) = lent(false);
        done(&ring, 0, &[(7, 1), (3, 2), (255, 3)], 3);
        assert_eq!((ring.ready(), ring.upcoming(1)), (3, 3));
        assert_eq!([0; 3].map(|_| ring.take().unwrap()), [(7, 1), (3, 2), (255, 3)]);
        for id in [7, 3, 255] {
            assert_eq!(ring.next(), id);
            put(&mut ring, &buffers);
        }
        assert_eq!(ring.room(), 0);
    }

    #[test]
    fn a_batch_in_order_is_told_by_its_last_buffer() {
        let (mut ring, _buffers) = lent(true);
        done(&ring, 0, &[(2, 60), (99, 99), (98, 98), (3, 61)], 4);
        let taken = [0; 4].map(|_| ring.take().unwrap());
        assert_eq!(taken, [(0, LENGTH), (1, LENGTH), (2, 60), (3, 61)]);
    }

    #[test]
    fn a_device_that_claims_more_than_it_has_gets_what_it_has() {
        let (mut ring, _buffers) = lent(false);
        done(&ring, 0, &[(u32::MAX, u32::MAX), (0, 5), (0, 5)], SIZE + 1);
        assert_eq!((ring.ready(), ring.take()), (SIZE, Some((255, u32::MAX as usize))));
        while ring.take().is_some() {}
        assert_eq!((ring.room(), ring.ready(), ring.is_ready()), (SIZE, 0, false));
    }

    #[test]
    fn kicks_and_calls_are_left_out_when_nobody_wants_them() {
        let (mut ring, buffers) = lent(true);
        assert_eq!(ring.parts.available.flags.load(Relaxed), NO_INTERRUPT);
        ring.call(true);
        assert_eq!(ring.parts.available.flags.load(Relaxed), 0);
        done(&ring, 0, &[(0, 60)], 1);
        ring.take();
        ring.parts.used.flags.store(NO_NOTIFY, Relaxed);
        put(&mut ring, &buffers);
        assert!(!ring.show() && !ring.show());
    }
}
