//! How entries come back without a timer: a few at a time, and all of a port when it goes.

use super::{Connections, share::Guard};
use crate::{clock::Instant, id::PortId};
use std::sync::atomic::Ordering;

/// How many connections of a port are forgotten before its workers may have its lock again.
const AT_A_TIME: usize = 64;

impl Connections {
    /// Looks through the next `budget` entries, of those that were ever taken, and gives back those whose time is over; how many. What a worker
    /// is changing is left for the next round.
    pub fn sweep(&self, now: Instant, budget: usize) -> usize {
        let (now, reached) = (super::second(now), self.table.reached());
        let budget = budget.min(reached);
        let start = self.swept.fetch_add(budget, Ordering::Relaxed);
        let numbers = (0..budget).map(|n| (start.wrapping_add(n) % reached) as u32);
        numbers.filter(|number| self.give_back_if_over(*number, now)).count()
    }

    fn give_back_if_over(&self, number: u32, now: u32) -> bool {
        let hot = self.table.hot(number);
        // An inverse goes with its connection.
        let is_inverse = || self.table.twin(number).is_some_and(|twin| twin.of_inverse);
        let is_over = || hot.is_used() && self.is_over(hot.seen(), now) && !is_inverse();
        if !is_over() {
            return false;
        }
        let owner = hot.seen().control.owner();
        let Some(guard) = self.shares[usize::from(owner)].try_lock() else { return false };
        // Looked at anew: under its share's lock an entry keeps its connection.
        let stays = hot.seen().control.owner() == owner && is_over();
        if stays {
            self.remove(&guard, number);
        }
        stays
    }

    /// Empties the share in this place, and closes it, unless it is that of `port` already.
    pub(super) fn forget_unless(&self, place: u16, port: Option<PortId>) {
        let Some(share) = self.shares.get(usize::from(place)) else { return };
        let guard = share.lock();
        if port.is_some_and(|port| guard.is_of(port)) {
            return;
        }
        guard.assign(None);
        drop(guard);
        while !self.forget_some(&share.lock()) {}
    }

    /// Whether nothing is left.
    fn forget_some(&self, guard: &Guard<'_>) -> bool {
        for _ in 0..AT_A_TIME {
            let Some(number) = (0..3).find_map(|queue| guard.head(queue)) else { return true };
            self.remove(guard, number);
        }
        false
    }
}
