//! Where everything lies in the arena: rings, slots for frames, and room for frames of any shape.
//!
//! ```text
//! rings of all pairs | indirect tables | transmit slots | receive slots || room for shaped frames of all pairs
//! ```
//! Further memory regions begin in the room for shaped frames and amid the receive slots; the hole is at `||`.

use super::arena::{Arena, ArenaLayout};
use super::error::DriverError;
use super::ring::RingPlaces;
use super::{Config, ReceiveLayout};
use crate::layout::{DESC_SIZE, RingSize};
use std::ops::Range;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a cache line.
pub(super) const CACHE_LINE: usize = 64;

/// Equal buffers, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slots {
    pub(super) base: usize,
    /// Bytes of each.
    pub(super) len: usize,
    stride: usize,
}

impl Slots {
    /// An odd number of cache lines from one to the next spreads the frames' heads over all sets of the cache.
    fn stride(len: usize) -> usize {
        (len.div_ceil(CACHE_LINE) | 1) * CACHE_LINE
    }

    #[inline]
    pub(super) fn offset(&self, number: u16) -> usize {
        self.base + usize::from(number) * self.stride
    }
}

/// How receive buffers are cut into descriptors, and where their indirect tables lie.
#[derive(Debug, Clone)]
pub(super) struct ReceiveBuffers {
    layout: ReceiveLayout,
    tables: usize,
}

impl ReceiveBuffers {
    /// Descriptors of the ring that each buffer takes.
    pub(super) fn ring_descriptors(&self) -> u16 {
        match &self.layout {
            ReceiveLayout::Single | ReceiveLayout::Indirect(_) => 1,
            ReceiveLayout::Chained(cuts) => cuts.len() as u16 + 1,
        }
    }

    /// Start and length of each descriptor's part of a buffer of `len` bytes.
    pub(super) fn pieces(&self, len: usize) -> Vec<(usize, u32)> {
        let cuts = self.layout.cuts().iter().map(|cut| *cut as usize);
        let ends = cuts.clone().chain([len]);
        std::iter::once(0).chain(cuts).zip(ends).map(|(start, end)| (start, (end - start) as u32)).collect()
    }

    /// Where the indirect table of buffer `number` lies, and how many descriptors it has; None without.
    pub(super) fn table(&self, number: u16) -> Option<(usize, u16)> {
        let ReceiveLayout::Indirect(cuts) = &self.layout else { return None };
        let count = cuts.len() as u16 + 1;
        Some((self.tables + usize::from(number) * usize::from(count) * DESC_SIZE, count))
    }
}

/// One queue pair's share of the arena.
#[derive(Debug, Clone)]
pub(super) struct PairPlan {
    pub(super) receive: RingPlaces,
    pub(super) transmit: RingPlaces,
    pub(super) receive_slots: Slots,
    pub(super) receive_buffers: ReceiveBuffers,
    pub(super) transmit_slots: Slots,
    pub(super) shaped: Range<usize>,
}

/// Makes the arena that `config` asks for.
pub(super) fn plan(config: &Config) -> Result<(Arena, Vec<PairPlan>), DriverError> {
    config.check()?;
    let unit = if config.memory.huge_pages { HUGE_PAGE } else { PAGE };
    let entries = usize::from(config.ring_size.entries());
    let len = config.buffer_size as usize;
    let mut room = Room(0);
    let rings: Vec<_> =
        (0..config.queue_pairs).map(|_| (room.ring(config.ring_size), room.ring(config.ring_size))).collect();
    let table_bytes = entries * (config.receive.cuts().len() + 1) * DESC_SIZE;
    let tables: Vec<_> = rings.iter().map(|_| room.take(table_bytes, CACHE_LINE)).collect();
    let mut slots = || Slots {
        base: room.take(entries * Slots::stride(len), CACHE_LINE),
        len,
        stride: Slots::stride(len),
    };
    let transmit_slots: Vec<_> = rings.iter().map(|_| slots()).collect();
    let receive_slots: Vec<_> = rings.iter().map(|_| slots()).collect();
    let receive_start = receive_slots.first().map_or(0, |slots| slots.base);
    let receive_middle = (receive_start + room.0) / 2 / unit * unit;

    // Each further region begins in the middle of a share of its own, so that buffers on both sides find room.
    let shaped_start = room.take(0, unit);
    let further = usize::from(config.memory.regions - 1);
    let amid_receive = further >= 2 && receive_middle > 0;
    let in_shaped = further - usize::from(amid_receive);
    let share = config.memory.shaped_bytes.max(2 * unit * (in_shaped + 1)).next_multiple_of(unit);
    let shaped: Vec<_> =
        rings.iter().map(|_| room.take(share, unit)).map(|start| start..start + share).collect();
    let total = room.0 - shaped_start;
    let mut boundaries = Vec::new();
    boundaries.extend(amid_receive.then_some(receive_middle));
    boundaries.extend((config.memory.gap > 0).then_some(shaped_start));
    boundaries.extend((1..=in_shaped).map(|k| shaped_start + total * k / (in_shaped + 1) / unit * unit));

    let arena = Arena::new(ArenaLayout {
        len: room.0,
        sealed: config.memory.sealed,
        huge_pages: config.memory.huge_pages,
        boundaries: &boundaries,
        hole: (shaped_start, config.memory.gap),
    });
    let huge_pages = config.memory.huge_pages;
    let arena = arena.map_err(|source| DriverError::Memory { bytes: room.0, huge_pages, source })?;
    let pairs = rings.into_iter().zip(tables).zip(transmit_slots).zip(receive_slots).zip(shaped);
    let pairs =
        pairs.map(|(((((receive, transmit), tables), transmit_slots), receive_slots), shaped)| PairPlan {
            receive,
            transmit,
            receive_slots,
            receive_buffers: ReceiveBuffers { layout: config.receive.clone(), tables },
            transmit_slots,
            shaped,
        });
    Ok((arena, pairs.collect()))
}

/// How much of the arena is given away.
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize, align: usize) -> usize {
        let start = self.0.next_multiple_of(align);
        self.0 = start + bytes;
        start
    }

    /// The parts of a ring; each side's own on pages of its own.
    fn ring(&mut self, size: RingSize) -> RingPlaces {
        RingPlaces {
            size,
            desc: self.take(size.desc_bytes(), PAGE),
            avail: self.take(size.avail_bytes(), CACHE_LINE),
            used: self.take(size.used_bytes(), PAGE),
        }
    }
}
