//! The routers of all VLANs as a port: what the switch gives them is heard, and what they say is brought to it.

#[cfg(test)]
mod tests;

use super::{
    adapter::{AdapterEnd, Shared},
    carrier::Outside,
};
use crate::{
    control::protocol::{Kept, KeptLease, LeaseRow, LeaseTable, NeighbourRow, NeighbourState, PoolRow},
    recorder::{Event, journal::Journal},
    routers::{Counts, Lost, Speaker, Unanswered, failed::FAILED_FOR},
};
use rustix::{
    event::{EventfdFlags, Timespec, eventfd},
    net::{SendFlags, send},
};
use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use vhost_net_backend::driver::{Moved, QueuePair};
use vswitch_core::{clock, firewall::connections::Connections, route::Neighbours, world::World};

/// For how long what is to be remembered of leases is not told again, for each of them: a small part of the thread's time is for that.
const TOLD_APART: Duration = Duration::from_micros(2);

/// What the datapath and the routers' thread have in common.
pub(crate) struct Voice {
    letters: Mutex<Letters>,
    /// Where it is recorded what waited for who does not answer.
    journal: Arc<Journal>,
    /// Readable while there is a World to be adopted.
    wake: OwnedFd,
    /// The socket in which it is said that something else is to be remembered of leases.
    bell: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Letters {
    /// The World that the routers are to speak for, the latest, and the connections that they translate.
    world: Option<(Arc<World>, Arc<Connections>)>,
    /// What was given before they were there, until they know of it.
    remembered: Vec<KeptLease>,
    /// What they counted when they last had nothing to do.
    counts: Counts,
    /// When that was, and of that moment: the addresses that they had given, and the neighbours that they asked for.
    then: clock::Instant,
    /// How often the addresses that they had given had changed.
    changes: u64,
    leases: LeaseTable,
    /// What is to be remembered of these, and of what moment that is; none until they speak for a World.
    kept: Option<(clock::Instant, Kept)>,
    sought: Vec<NeighbourRow>,
}

impl Voice {
    /// `remembered` was given before these routers were there; into `bell` a byte is sent whenever something else is to be remembered.
    ///
    /// # Errors
    /// Descriptors ran out.
    pub(crate) fn new(
        journal: Arc<Journal>,
        remembered: Vec<KeptLease>,
        bell: Option<OwnedFd>,
    ) -> io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let letters = Mutex::new(Letters { remembered, ..Letters::default() });
        Ok(Arc::new(Self { letters, journal, wake, bell }))
    }

    /// The routers are to speak for this World from now on.
    pub(crate) fn adopt(&self, world: Arc<World>, connections: Arc<Connections>) {
        let mut letters = self.letters();
        letters.world = Some((world, connections));
        // Before anybody can take the World. A counter that is full is as good as signalled.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// What the routers counted.
    pub(crate) fn counts(&self) -> Counts {
        self.letters().counts.clone()
    }

    /// What the routers lost for this reason.
    pub(crate) fn lost(&self, why: Lost) -> u64 {
        self.letters().counts.lost.get(&why).copied().unwrap_or(0)
    }

    /// The addresses that the routers have given.
    pub(crate) fn leases(&self, now: clock::Instant) -> LeaseTable {
        let letters = self.letters();
        let passed = now.since(letters.then).as_secs();
        let left = |row: &LeaseRow| row.left_secs.checked_sub(passed).filter(|left| *left > 0);
        let row = |row: &LeaseRow| Some(LeaseRow { left_secs: left(row)?, ..row.clone() });
        let rows = letters.leases.rows.iter().filter_map(row).collect();
        LeaseTable { rows, pools: letters.leases.pools.clone() }
    }

    /// What is to be remembered of these; none: they speak for no World yet.
    pub(crate) fn kept(&self, now: clock::Instant) -> Option<Kept> {
        let (then, mut kept) = self.letters().kept.clone()?;
        let passed = now.since(then).as_secs();
        for lease in &mut kept.leases {
            lease.left_secs = lease.left_secs.saturating_sub(passed);
        }
        Some(kept)
    }

    /// The neighbours that the routers ask for, or asked for in vain some seconds ago.
    pub(crate) fn sought(&self, now: clock::Instant) -> Vec<NeighbourRow> {
        let letters = self.letters();
        let passed = now.since(letters.then);
        let later = |row: &NeighbourRow| NeighbourRow {
            age_secs: row.age_secs.saturating_add(passed.as_secs() as u32),
            ..row.clone()
        };
        // Nobody wakes the routers to forget.
        let is_one = |row: &NeighbourRow| {
            row.state != NeighbourState::Failed || u64::from(row.age_secs) < FAILED_FOR.as_secs()
        };
        letters.sought.iter().map(later).filter(is_one).collect()
    }

    /// The World that is to be adopted, if there is one, and what is to be remembered in it.
    fn take(&self) -> Option<(Arc<World>, Arc<Connections>, Vec<KeptLease>)> {
        let mut letters = self.letters();
        let (world, connections) = letters.world.take()?;
        // There was a signal for it.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        Some((world, connections, mem::take(&mut letters.remembered)))
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routers.
pub(super) struct Routers {
    speaker: Speaker,
    voice: Arc<Voice>,
    /// Where the datapath's time begins.
    origin: Instant,
    /// When there is something to do though nothing comes.
    due: Option<clock::Instant>,
    /// How often what is to be remembered of leases had changed when that was told last, and when it may be told again.
    told: (u64, clock::Instant),
}

impl Routers {
    pub(super) fn new(neighbours: Arc<Neighbours>, voice: Arc<Voice>, origin: Instant) -> Self {
        let told = (0, clock::Instant::ZERO);
        Self { speaker: Speaker::new(neighbours), voice, origin, due: None, told }
    }

    /// Tells what is to be remembered of leases, if that has changed. The more it is the less often, also while frames come without end.
    fn tell_kept(&mut self, now: clock::Instant) {
        let changes = self.speaker.lease_changes();
        let (told, again) = self.told;
        if told == changes {
            return;
        }
        if now < again {
            self.due = Some(self.due.map_or(again, |due| due.min(again)));
            return;
        }
        let kept = self.speaker.kept(now);
        self.told = (changes, now + TOLD_APART * u32::try_from(kept.leases.len()).unwrap_or(u32::MAX));
        self.voice.letters().kept = Some((now, kept));
        if let Some(bell) = &self.voice.bell {
            // No room is as good: there is something to be heard. Who does not listen any more ends this process soon.
            let _ = send(bell, &[0], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
    }

    fn now(&self) -> clock::Instant {
        clock::Instant::ZERO + self.origin.elapsed()
    }
}

impl Outside for Routers {
    const WHAT: &str = "routers";

    const TAKEN: usize = 16;

    /// What they read is whole: the switch completes checksums and cuts what is large before it comes.
    fn features(&self) -> u64 {
        0
    }

    fn bring(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        let Some(frame) = self.speaker.next_frame() else { return Ok(Moved::Nothing) };
        if !pair.transmit(frame) {
            return Ok(Moved::NoRoom);
        }
        self.speaker.sent();
        Ok(Moved::Frame)
    }

    /// They never have no room: what they cannot answer they drop, and count.
    fn take(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        let now = self.now();
        let world = self.voice.take();
        let is_new = world.is_some();
        if let Some((world, connections, remembered)) = world {
            self.speaker.translate_by(connections);
            self.speaker.adopt(world);
            self.speaker.remember(remembered, now);
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due || is_new {
            self.speaker.tick(now);
        }
        let taken = pair.receive_up_to(Self::TAKEN, |_, frame| self.speaker.receive(frame, now));
        if taken > 0 || is_due || is_new {
            self.due = self.speaker.next_due();
        }
        self.tell_kept(now);
        for Unanswered { port, vlan, crowded, head, len } in self.speaker.unanswered() {
            self.voice.journal.frame(Event::Unanswered { port, vlan, crowded }, (&head, len));
        }
        Ok(if taken > 0 { Moved::Frame } else { Moved::Nothing })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.voice.wake.as_fd()
    }

    fn idle(&mut self) -> Result<(), AdapterEnd> {
        // What was sent made room for what waits for it.
        self.due = self.speaker.next_due();
        let now = self.now();
        self.tell_kept(now);
        let mut letters = self.voice.letters();
        // Whoever is given an address was heard, and whoever is asked for, too; what was remembered was given before.
        let changes = self.speaker.lease_changes();
        if letters.changes != changes || letters.counts != *self.speaker.counts() {
            letters.changes = changes;
            letters.counts.clone_from(self.speaker.counts());
            let leases = self.speaker.leases(now);
            leases.pools.iter().for_each(|pool| warn_of_exhausted(pool, &letters.leases.pools));
            (letters.leases, letters.sought, letters.then) = (leases, self.speaker.sought(now), now);
        }
        Ok(())
    }

    fn look_again(&self) -> Option<Timespec> {
        let early = self.due?.since(self.now());
        let far = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        Some(Timespec::try_from(early).unwrap_or(far))
    }
}

/// Says in the log that a gateway has no address left: at first, and whenever that was so twice as often.
fn warn_of_exhausted(pool: &PoolRow, before: &[PoolRow]) {
    let before = before.iter().find(|before| before.vlan == pool.vlan).map_or(0, |before| before.exhausted);
    if pool.exhausted.checked_ilog2() > before.checked_ilog2() {
        let PoolRow { vlan, first, last, exhausted, .. } = pool;
        tracing::warn!(
            "DHCP in VLAN {vlan}: no address of {first}-{last} was free for a client, {exhausted} times by now"
        );
    }
}
