//! The receiveq: buffers posted, frames copied out (merged buffers joined), buffers posted again.

use super::arena::{Arena, MAX_PIECES, SENDS, Window};
use super::error::DeviceFault;
use super::plan::{CACHE_LINE, ReceiveBuffers, Slots};
use super::ring::{Descriptor, Ring, Used};
use super::transmit::{MAX_CHAIN, MAX_SLOTS, Moved};
use crate::layout::{DESC_INDIRECT, DESC_NEXT, DESC_SIZE, DESC_WRITE};
use crate::net_header::{self, NetHeader};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How many chains ahead a buffer is fetched into the cache.
const PREFETCH_AHEAD: u16 = 6;

/// Where `num_buffers` stands in the net header (virtio 1.2 §5.1.6).
const NUM_BUFFERS: usize = 10;

/// A received frame where it lies, until its buffer is published again. The device could still write to it, so what is
/// decided on is read once.
#[derive(Debug)]
pub struct ReceivedFrame<'a> {
    bytes: Bytes<'a>,
    len: usize,
}

#[derive(Debug)]
enum Bytes<'a> {
    /// In the arena.
    Shared(Window<'a>),
    /// Joined from several buffers.
    Joined(&'a [u8]),
}

impl ReceivedFrame<'_> {
    /// Bytes of the frame, without its net header.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the bytes from `at` on; false if the frame ends before `into` is full.
    #[inline(always)]
    pub fn read(&self, at: usize, into: &mut [u8]) -> bool {
        match &self.bytes {
            Bytes::Shared(window) => window.read(at, into),
            Bytes::Joined(bytes) => {
                let from = bytes.get(at..).and_then(|rest| rest.get(..into.len()));
                from.is_some_and(|from| {
                    into.copy_from_slice(from);
                    true
                })
            }
        }
    }
}

/// The driver's side of a receiveq. Chain `n` starts at descriptor `n * chain` and lies in slot `n`, whole.
#[derive(Debug)]
pub(super) struct ReceiveQueue {
    pub(super) ring: Ring,
    memory: Arc<Arena>,
    slots: Slots,
    /// Ring descriptors of each chain.
    chain: u16,
    mergeable: bool,
    /// The chains of frames that are being written to a descriptor, and the bytes in each.
    gathered: Vec<(u16, usize)>,
    /// Of how many chains each of these frames is.
    frames: Vec<usize>,
    /// The frame that is being handed over: copied, since the device could still write to the shared one.
    scratch: Box<[u8]>,
}

impl ReceiveQueue {
    /// Posts all buffers, unpublished.
    pub(super) fn new(
        memory: Arc<Arena>,
        mut ring: Ring,
        slots: Slots,
        buffers: &ReceiveBuffers,
        mergeable: bool,
    ) -> Self {
        let entries = ring.places().size.entries();
        let chain = buffers.ring_descriptors();
        for number in 0..entries / chain {
            let pieces = buffers.pieces(slots.len).into_iter().map(|(start, len)| Descriptor {
                addr: memory.guest_address(slots.offset(number) + start),
                len,
                flags: DESC_WRITE,
                next: 0,
            });
            match buffers.table(number) {
                None => ring.add(&pieces.collect::<Vec<_>>()),
                Some((table, count)) => {
                    for (index, mut piece) in (0..count).zip(pieces) {
                        if index + 1 < count {
                            piece.flags |= DESC_NEXT;
                            piece.next = index + 1;
                        }
                        memory.write(table + usize::from(index) * DESC_SIZE, &piece.to_bytes());
                    }
                    let len = u32::from(count) * DESC_SIZE as u32;
                    let addr = memory.guest_address(table);
                    ring.add(&[Descriptor { addr, len, flags: DESC_INDIRECT, next: 0 }])
                }
            };
        }
        let scratch = vec![0; MAX_CHAIN].into_boxed_slice();
        let (gathered, frames) = (Vec::with_capacity(MAX_SLOTS), Vec::with_capacity(SENDS));
        Self { ring, memory, slots, chain, mergeable, gathered, frames, scratch }
    }

    pub(super) fn slots(&self) -> Slots {
        self.slots
    }

    #[inline(always)]
    fn slot(&self, head: u16) -> usize {
        self.slots.offset(head / self.chain)
    }

    /// Hands over at most `limit` frames and posts their buffers again, unpublished.
    pub(super) fn receive(
        &mut self,
        limit: usize,
        mut each: impl FnMut(&NetHeader, &[u8]),
    ) -> Result<usize, DeviceFault> {
        let mut frames = 0;
        while frames < limit {
            let Some(used) = self.ring.take_used()? else { break };
            if let Some(head) = self.ring.likely_used(PREFETCH_AHEAD) {
                self.memory.prefetch(self.slot(head));
            }
            let (header, len) = self.join(used)?;
            each(&header, &self.scratch[..len]);
            frames += 1;
        }
        Ok(frames)
    }

    /// Writes the next frame to `fd`, a [short](net_header::SHORT_LEN) net header before it, right from its buffers, and posts them
    /// again, unpublished. If the descriptor has no room the frame stays the next one; with any other error of its it is gone.
    pub(super) fn receive_to(&mut self, fd: BorrowedFd<'_>) -> Result<io::Result<Moved>, DeviceFault> {
        self.give(1, |memory, pieces, _| memory.write_to(fd, pieces).map(|_| 1))
    }

    /// Sends the next frames to the socket `fd` in the same form, as many as one call takes.
    pub(super) fn send_to(&mut self, fd: BorrowedFd<'_>) -> Result<io::Result<Moved>, DeviceFault> {
        self.give(SENDS, |memory, pieces, counts| memory.send_to(fd, pieces, counts))
    }

    /// Gives at most `limit` frames to `out`: their pieces, and of how many each is; it says how many went.
    fn give(
        &mut self,
        limit: usize,
        out: impl FnOnce(&Arena, &[(usize, usize)], &[usize]) -> io::Result<usize>,
    ) -> Result<io::Result<Moved>, DeviceFault> {
        while self.frames.len() < limit && self.gather()? {}
        if self.frames.is_empty() {
            return Ok(Ok(Moved::Nothing));
        }
        let mut pieces = [(0, 0); MAX_PIECES];
        let mut counts = [0; SENDS];
        let (mut used, mut frames, mut chains) = (0, 0, self.gathered.iter());
        for buffers in self.frames.iter().take(limit) {
            if used + buffers + 1 > MAX_PIECES {
                break;
            }
            for (piece, (head, written)) in pieces[used + 1..].iter_mut().zip(chains.by_ref().take(*buffers))
            {
                *piece = (self.slot(*head), *written);
            }
            let (slot, written) = pieces[used + 1];
            pieces[used] = (slot, net_header::SHORT_LEN);
            pieces[used + 1] = (slot + net_header::LEN, written - net_header::LEN);
            counts[frames] = buffers + 1;
            used += buffers + 1;
            frames += 1;
        }
        let (gone, moved) = match out(&self.memory, &pieces[..used], &counts[..frames]) {
            Ok(sent) => (sent, Ok(Moved::Frame)),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(Moved::NoRoom)),
            Err(why) => (1, Err(why)),
        };
        let chains = self.frames.drain(..gone).sum();
        for place in 0..chains {
            self.post_again(self.gathered[place].0);
        }
        self.gathered.drain(..chains);
        Ok(moved)
    }

    /// Takes the chains of one more frame; false if there is none. The device uses all of them at once.
    fn gather(&mut self) -> Result<bool, DeviceFault> {
        let Some(first) = self.ring.take_used()? else { return Ok(false) };
        let written = self.written(first)?;
        if written < net_header::LEN {
            return Err(DeviceFault::Runt { written: written as u32 });
        }
        self.gathered.push((first.head, written));
        let num_buffers = match self.mergeable {
            true => self.memory.load_u16(self.slot(first.head) + NUM_BUFFERS, Ordering::Relaxed),
            false => 1,
        };
        if num_buffers == 0 {
            return Err(DeviceFault::NumBuffers { num_buffers, used: 1 });
        }
        for used in 1..num_buffers {
            if usize::from(used) == MAX_SLOTS {
                return Err(DeviceFault::Oversize { limit: self.scratch.len() });
            }
            let chain = self.ring.take_used()?.ok_or(DeviceFault::NumBuffers { num_buffers, used })?;
            let written = self.written(chain)?;
            self.gathered.push((chain.head, written));
        }
        self.frames.push(num_buffers.into());
        Ok(true)
    }

    /// Hands over at most `limit` frames where they lie, and posts their buffers again, unpublished. The first `touched`
    /// bytes of each are fetched into the cache before, for the whole batch.
    #[inline]
    pub(super) fn receive_in_place(
        &mut self,
        limit: usize,
        touched: usize,
        mut each: impl FnMut(&ReceivedFrame<'_>),
    ) -> Result<usize, DeviceFault> {
        let known = self.ring.used_ahead()?.min(u16::try_from(limit).unwrap_or(u16::MAX));
        for ahead in 0..known {
            if let Some(head) = self.ring.likely_used(ahead) {
                let slot = self.slot(head);
                for line in (0..touched.min(self.slots.len)).step_by(CACHE_LINE) {
                    self.memory.prefetch(slot + line);
                }
            }
        }
        let mut frames = 0;
        while frames < usize::from(known) {
            let Some(used) = self.ring.take_used()? else { break };
            let written = self.written(used)?;
            let Some(len) = written.checked_sub(net_header::LEN) else {
                return Err(DeviceFault::Runt { written: written as u32 });
            };
            let slot = self.slot(used.head);
            let merged = self.mergeable && self.memory.load_u16(slot + NUM_BUFFERS, Ordering::Relaxed) != 1;
            let frame = if merged {
                let (_, len) = self.join(used)?;
                ReceivedFrame { bytes: Bytes::Joined(&self.scratch[..len]), len }
            } else {
                self.post_again(used.head);
                ReceivedFrame { bytes: Bytes::Shared(self.memory.window(slot + net_header::LEN, len)), len }
            };
            each(&frame);
            frames += 1;
        }
        Ok(frames)
    }

    /// Copies the frame that begins in this chain into the scratch; its header and length.
    #[inline]
    fn join(&mut self, first: Used) -> Result<(NetHeader, usize), DeviceFault> {
        let written = self.written(first)?;
        let Some(mut len) = written.checked_sub(net_header::LEN) else {
            return Err(DeviceFault::Runt { written: written as u32 });
        };
        let slot = self.slot(first.head);
        let mut header = [0; net_header::LEN];
        self.memory.read(slot, &mut header);
        let header = NetHeader::from_bytes(header);
        self.copy_to_scratch(slot + net_header::LEN, 0, len)?;
        self.post_again(first.head);
        if self.mergeable && header.num_buffers != 1 {
            len = self.join_rest(header.num_buffers, len)?;
        }
        Ok((header, len))
    }

    /// The further chains of a merged frame (virtio 1.2 §5.1.6.4); the device uses them with the first at once.
    #[cold]
    fn join_rest(&mut self, num_buffers: u16, mut len: usize) -> Result<usize, DeviceFault> {
        if num_buffers == 0 {
            return Err(DeviceFault::NumBuffers { num_buffers, used: 1 });
        }
        for used in 1..num_buffers {
            let chain = self.ring.take_used()?.ok_or(DeviceFault::NumBuffers { num_buffers, used })?;
            let part = self.written(chain)?;
            self.copy_to_scratch(self.slot(chain.head), len, part)?;
            self.post_again(chain.head);
            len += part;
        }
        Ok(len)
    }

    #[inline]
    fn copy_to_scratch(&mut self, from: usize, to: usize, len: usize) -> Result<(), DeviceFault> {
        let limit = self.scratch.len();
        let into = self.scratch.get_mut(to..).and_then(|rest| rest.get_mut(..len));
        self.memory.read(from, into.ok_or(DeviceFault::Oversize { limit })?);
        Ok(())
    }

    /// Bytes that the device wrote into this chain.
    #[inline(always)]
    fn written(&self, used: Used) -> Result<usize, DeviceFault> {
        let Some(written) = used.written else { return Ok(self.slots.len) };
        if written as usize > self.slots.len {
            return Err(DeviceFault::Overrun { written, capacity: self.slots.len as u32 });
        }
        Ok(written as usize)
    }

    #[inline(always)]
    fn post_again(&mut self, head: u16) {
        let count = self.ring.land(head);
        self.ring.offer(head, count);
    }
}
