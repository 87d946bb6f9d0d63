//! Connections for people, and for the switch that comes after a restart.

use super::{
    Connections, Direction, Ends, Hosts, Key, Refusal, Scope, State, facts,
    track::{Control, Side, Stamp, Track},
};
use crate::{
    clock::Instant,
    id::{Epoch, PortId},
    vlan::VlanId,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// One connection, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The port whose firewall tracks it.
    pub port: PortId,
    /// The VLAN.
    pub vlan: VlanId,
    /// The hosts, inside and outside.
    pub hosts: Hosts,
    /// Protocol number.
    pub protocol: u8,
    /// What tells it from others between these hosts.
    pub ends: Ends,
    /// Which way its first frame went.
    pub opener: Direction,
    /// Where it stands.
    pub state: State,
    /// Seconds since it was opened.
    pub age_secs: u32,
    /// Seconds since its last frame.
    pub idle_secs: u32,
    /// Seconds after which it is forgotten, if no frame comes.
    pub left_secs: u32,
    /// The low half of the epoch of the policy that it was last judged under.
    pub epoch: u32,
    /// What it is beyond the router that translates it; none if nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inverse: Option<Inverse>,
}

/// The frames of a responder, as a router that translates gets them: their sender is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inverse {
    /// The VLAN that they come from.
    pub vlan: VlanId,
    /// The hosts: who sends them, and to whom.
    pub hosts: Hosts,
    /// What tells them from others between these hosts.
    pub ends: Ends,
}

/// One connection, for a switch that takes over: what [`Connections::import`] needs to go on as if nothing had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    row: Row,
    control: u64,
    sides: [[u64; 2]; 2],
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Connections that have an entry, those included whose time is over but that were not swept.
    pub held: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections ended, for whatever reason.
    pub ended: u64,
    /// Those that made room for others of their port.
    pub evicted: u64,
    /// Times that a connection was not opened for want of room.
    pub refused: u64,
    /// Times that a connection was not opened because another worker was at it.
    pub busy: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.held += other.held;
        self.opened += other.opened;
        self.ended += other.ended;
        self.evicted += other.evicted;
        self.refused += other.refused;
        self.busy += other.busy;
    }
}

impl Connections {
    /// How many connections there can be.
    pub const fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// What was counted of the port in this place, and of those before it.
    pub fn counts_of(&self, place: u16) -> Counts {
        let Some(share) = self.shares.get(usize::from(place)) else { return Counts::default() };
        Counts {
            held: share.held().into(),
            opened: share.opened.load(Ordering::Relaxed),
            ended: share.ended.load(Ordering::Relaxed),
            evicted: share.evicted.load(Ordering::Relaxed),
            refused: share.refused.load(Ordering::Relaxed),
            busy: share.busy.load(Ordering::Relaxed),
        }
    }

    /// The same of all ports.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        (0..self.shares.len() as u16).for_each(|place| sum += self.counts_of(place));
        sum
    }

    /// Hands `each` the connections among the next `budget` entries from `start` on; where to go on, none at the end. What opens or
    /// ends meanwhile may be in it or not.
    pub fn list(
        &self,
        start: usize,
        budget: usize,
        now: Instant,
        mut each: impl FnMut(Row),
    ) -> Option<usize> {
        self.export(start, budget, now, |saved| each(saved.row))
    }

    /// As [`Self::list`], with all that a switch needs which takes over.
    pub fn export(
        &self,
        start: usize,
        budget: usize,
        now: Instant,
        each: impl FnMut(Saved),
    ) -> Option<usize> {
        let reached = self.table.reached();
        let end = start.saturating_add(budget).min(reached);
        (start..end).filter_map(|number| self.saved(number as u32, super::second(now))).for_each(each);
        (end < reached).then_some(end)
    }

    fn saved(&self, number: u32, now: u32) -> Option<Saved> {
        let hot = self.table.hot(number);
        let digest = hot.is_used().then(|| hot.digest())?;
        let (seen, (key, since)) = (hot.seen(), self.table.cold(number).key());
        let track = hot.track(seen.control);
        // Keys are written before their digests, and found by them: what does not belong together is a connection that has just come or gone.
        if !hot.is(digest) || self.digest(&key) != digest || self.is_over(seen, now) {
            return None;
        }
        let inverse = match self.table.twin(number) {
            Some(twin) if twin.of_inverse => return None,
            Some(twin) => {
                let (key, _) = self.table.cold(twin.number).key();
                Some(Inverse { vlan: key.scope()?.vlan, hosts: key.hosts(), ends: key.ends() })
            }
            None => None,
        };
        let Scope { port, vlan } = key.scope()?;
        let idle_secs = now.saturating_sub(seen.stamp.seen);
        let state = track.control.state();
        let row = Row {
            port,
            vlan,
            hosts: key.hosts(),
            protocol: key.protocol(),
            ends: key.ends(),
            opener: track.control.opener(),
            state,
            age_secs: now.saturating_sub(since),
            idle_secs,
            left_secs: self.timeouts.of(state).saturating_sub(idle_secs),
            epoch: seen.stamp.epoch,
            inverse,
        };
        Some(Saved { row, control: track.control.0, sides: track.sides.map(Side::words) })
    }

    /// Takes over a connection that another table [exported](Self::export). It counts as judged under `epoch`; with one that no policy has,
    /// it is judged anew at its next frame, as it has to be if the policy may have changed meanwhile. What was before this
    /// table's time began counts as if it had been then. Not by a worker.
    ///
    /// # Errors
    /// Why there is no room for it.
    pub fn import(&self, saved: &Saved, epoch: Epoch, now: Instant) -> Result<(), Refusal> {
        let row = &saved.row;
        // What a router translates is opened anew: whether its address is the same is for the router to say.
        if row.state.is_tcp() != (row.protocol == facts::TCP) || row.inverse.is_some() {
            return Err(Refusal::NoBeginning);
        }
        let scope = Scope { port: row.port, vlan: row.vlan };
        let key = Key::new(scope, row.hosts, row.protocol, row.ends);
        let digest = self.digest(&key);
        let share = self.shares.get(usize::from(row.port.index())).ok_or(Refusal::NoPort)?;
        let guard = share.lock();
        if !guard.is_of(row.port) {
            return Err(Refusal::NoPort);
        }
        if self.table.find(digest).is_some() {
            return Ok(());
        }
        if guard.is_full() {
            return Err(Refusal::PortLimit);
        }
        let number = self.table.take().ok_or(Refusal::TableFull)?;
        let now = super::second(now);
        let control = Control::new(row.port, row.state, row.opener).seen_by(Control(saved.control));
        let track = Track { control, sides: saved.sides.map(Side::from_words) };
        let stamp = Stamp { seen: now.saturating_sub(row.idle_secs), epoch: super::low(epoch) };
        let since = now.saturating_sub(row.age_secs);
        let put = self.put(&guard, number, (&key, digest), &track, (stamp, since));
        put.then_some(()).ok_or(Refusal::TableFull)
    }
}
