//! A port's share of the table: how many connections it has and may have, and in which order it would give them up.
//!
//! What changes a share holds its lock, which a worker only tries. Three queues hold its entries by what they are worth, oldest first. A
//! connection whose worth changes is moved, at the latest when it is met at a queue's head: the entry itself says what it is, and the
//! queues only say where to look.

use super::entry::{Cold, Links, NONE};
use crate::id::PortId;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// How often a worker tries a lock: its holder needs some hundred nanoseconds, unless it lost its CPU.
const TRIES: usize = 32;

/// One port's.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Share {
    locked: AtomicBool,
    /// Generation of the port that has it, and whether there is one.
    port: AtomicU32,
    most: AtomicU32,
    held: AtomicU32,
    /// `63 head 32 | 31 tail 0`, by worth.
    queues: [AtomicU64; 3],
    pub(super) opened: AtomicU64,
    pub(super) ended: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) busy: AtomicU64,
}

const EMPTY: u64 = (NONE as u64) << 32 | NONE as u64;

impl Default for Share {
    fn default() -> Self {
        Self {
            locked: AtomicBool::new(false),
            port: AtomicU32::new(0),
            most: AtomicU32::new(0),
            held: AtomicU32::new(0),
            queues: [EMPTY; 3].map(AtomicU64::new),
            opened: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }
}

/// Holds a share's lock until it is dropped.
pub(super) struct Guard<'a>(&'a Share);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Release);
    }
}

impl Share {
    /// The lock, if it can be had at once or nearly so.
    pub(super) fn try_lock(&self) -> Option<Guard<'_>> {
        for _ in 0..TRIES {
            // Lazily: a guard that is made for nothing gives back, when it is dropped, what somebody else holds.
            if !self.locked.swap(true, Ordering::Acquire) {
                return Some(Guard(self));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Entries that it has.
    pub(super) fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// The lock. Only for the control thread.
    pub(super) fn lock(&self) -> Guard<'_> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            std::thread::yield_now();
        }
    }
}

/// What may be done under the lock.
impl Guard<'_> {
    /// Whether it is this port's, not that of one which had its place before.
    pub(super) fn is_of(&self, port: PortId) -> bool {
        self.0.port.load(Ordering::Relaxed) == 1 << 16 | u32::from(port.generation())
    }

    /// Gives it to a port that may have so many connections; none closes it.
    pub(super) fn assign(&self, port: Option<(PortId, u32)>) {
        let owner = port.map_or(0, |(port, _)| 1 << 16 | u32::from(port.generation()));
        self.0.port.store(owner, Ordering::Relaxed);
        self.0.most.store(port.map_or(0, |(_, most)| most), Ordering::Relaxed);
    }

    /// Whether it may not have one more.
    pub(super) fn is_full(&self) -> bool {
        self.0.held.load(Ordering::Relaxed) >= self.0.most.load(Ordering::Relaxed)
    }

    /// The oldest entry of a queue.
    pub(super) fn head(&self, queue: usize) -> Option<u32> {
        let (head, _) = self.ends(queue);
        (head != NONE).then_some(head)
    }

    /// Puts an entry at the end of a queue.
    pub(super) fn push(&self, pool: &[Cold], number: u32, queue: usize) {
        let (head, tail) = self.ends(queue);
        pool[number as usize].set_links(Links { queue, before: tail, behind: NONE });
        match pool.get(tail as usize) {
            Some(last) => last.set_links(Links { behind: number, ..last.links() }),
            None => return self.set_ends(queue, number, number),
        }
        self.set_ends(queue, head, number);
    }

    /// Takes an entry out of its queue.
    pub(super) fn unlink(&self, pool: &[Cold], number: u32) {
        let Links { queue, before, behind } = pool[number as usize].links();
        let (mut head, mut tail) = self.ends(queue);
        match pool.get(before as usize) {
            Some(cold) => cold.set_links(Links { behind, ..cold.links() }),
            None => head = behind,
        }
        match pool.get(behind as usize) {
            Some(cold) => cold.set_links(Links { before, ..cold.links() }),
            None => tail = before,
        }
        self.set_ends(queue, head, tail);
    }

    /// Counts an entry in.
    pub(super) fn count_in(&self) {
        add(&self.0.held, 1);
        bump(&self.0.opened);
    }

    /// Counts an entry out.
    pub(super) fn count_out(&self) {
        add(&self.0.held, u32::MAX);
        bump(&self.0.ended);
    }

    /// Notes that one made room for another.
    pub(super) fn count_evicted(&self) {
        bump(&self.0.evicted);
    }

    fn ends(&self, queue: usize) -> (u32, u32) {
        let word = self.0.queues[queue].load(Ordering::Relaxed);
        ((word >> 32) as u32, word as u32)
    }

    fn set_ends(&self, queue: usize, head: u32, tail: u32) {
        self.0.queues[queue].store(u64::from(head) << 32 | u64::from(tail), Ordering::Relaxed);
    }
}

/// Under a lock nobody else adds.
fn add(count: &AtomicU32, n: u32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

pub(super) fn bump(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(share: &Share, pool: &[Cold], queue: usize) -> Vec<u32> {
        let head = Guard(share).head(queue);
        std::iter::successors(head, |number| {
            let behind = pool[*number as usize].links().behind;
            (behind != NONE).then_some(behind)
        })
        .collect()
    }

    #[test]
    fn queues_keep_their_order_whoever_leaves() {
        let pool: Vec<Cold> = (0..5).map(|_| Cold::default()).collect();
        let share = Share::default();
        let guard = share.try_lock().unwrap();
        assert!(share.try_lock().is_none(), "one holder at a time");
        (0..5).for_each(|number| guard.push(&pool, number, 1));
        drop(guard);
        for (leaves, left) in
            [(2, vec![0, 1, 3, 4]), (0, vec![1, 3, 4]), (4, vec![1, 3]), (3, vec![1]), (1, vec![])]
        {
            Guard(&share).unlink(&pool, leaves);
            assert_eq!(order(&share, &pool, 1), left);
        }
    }
}
