//! The one walker of descriptor chains (virtio 1.2 §2.7.5): each descriptor is read once and judged as a copy.

use super::{
    LONGEST,
    raw::{Descriptors, RawRing, Table},
};
use crate::{
    device::memory::{Segment, Window},
    layout::{DESC_INDIRECT, DESC_NEXT, DESC_WRITE},
};

/// The longest chain that is walked, in descriptors; a frame of 64 KiB in pages of 4 KiB needs 17.
pub const MAX_CHAIN: u16 = 1024;

/// Behind this many bytes a chain's segments are not kept: no frame reaches them, and a chain could have very many.
const KEPT_BYTES: u64 = LONGEST as u64;

/// Who is to write a chain's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The driver wrote them, the device reads: a transmit chain.
    DeviceReads,
    /// The device writes them: a receive chain.
    DeviceWrites,
}

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    /// Bytes of all buffers; `u32::MAX` if there are more.
    pub(super) bytes: u32,
    /// Descriptors that were read, the indirect one included.
    pub(super) descriptors: u16,
    /// Whether every buffer has the wanted direction.
    pub(super) direction_ok: bool,
}

/// The only buffer of the chain at `head`, if the chain is one descriptor of this direction whose buffer has at least `least` bytes
/// and lies in one piece in the `window`. Nearly every chain is; any other is to be walked.
#[inline(always)]
pub(super) fn direct(
    descriptors: Descriptors<'_>,
    head: u16,
    direction: Direction,
    window: Window<'_>,
    least: u32,
) -> Option<Segment> {
    let only = descriptors.at(head);
    let wanted = if direction == Direction::DeviceWrites { DESC_WRITE } else { 0 };
    if only.flags & (DESC_NEXT | DESC_INDIRECT | DESC_WRITE) != wanted {
        return None;
    }
    window.resolve(only.addr, only.len, least)
}

/// Walks the chain whose first descriptor is `head`, pushing its buffers' segments in order, at least those of the
/// longest frame's bytes.
///
/// An error names what no driver may do; the segments pushed until then are not to be used.
pub(super) fn walk(
    ring: &RawRing,
    head: u16,
    direction: Direction,
    hint: &mut usize,
    segments: &mut Vec<Segment>,
) -> Result<Walked, &'static str> {
    let first = ring.table().get(head).ok_or("the head of a chain is outside of the descriptor table")?;
    let mut table: Table = ring.table();
    // A chain is no longer than the table it lies in, or it bites its own tail (virtio 1.2 §2.7.5.3.1).
    let mut left = table.entries();
    let mut inside_indirect = false;
    let mut descriptor = first;
    let mut bytes = 0u64;
    let mut walked = Walked { bytes: 0, descriptors: 0, direction_ok: true };
    loop {
        walked.descriptors += 1;
        left = left.checked_sub(1).ok_or("a chain loops")?;
        if walked.descriptors > MAX_CHAIN {
            return Err("a chain has more than 1024 descriptors");
        }
        if descriptor.flags & DESC_INDIRECT != 0 {
            if inside_indirect {
                return Err("an indirect table refers to another indirect table");
            }
            if descriptor.flags & DESC_NEXT != 0 {
                return Err("an indirect descriptor has a next descriptor");
            }
            table = ring
                .indirect(descriptor.addr, descriptor.len)
                .ok_or("an indirect table has a bad length or lies outside of guest memory")?;
            left = table.entries();
            inside_indirect = true;
            descriptor = table.get(0).ok_or("an indirect table is empty")?;
            continue;
        }
        let writable = descriptor.flags & DESC_WRITE != 0;
        walked.direction_ok &= writable == (direction == Direction::DeviceWrites);
        let keep = |segment| {
            if bytes < KEPT_BYTES {
                segments.push(segment);
            }
        };
        if !ring.memory().resolve(descriptor.addr, descriptor.len, hint, keep) {
            return Err("a buffer lies outside of guest memory");
        }
        // No overflow: at most MAX_CHAIN times a u32.
        bytes += u64::from(descriptor.len);
        if descriptor.flags & DESC_NEXT == 0 {
            walked.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            return Ok(walked);
        }
        descriptor = table.get(descriptor.next).ok_or("a chain leaves its descriptor table")?;
    }
}
