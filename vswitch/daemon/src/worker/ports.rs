//! The rings and counters of each port, as one worker holds them.

use super::{batch::Errors, health::Health, mailbox::PortTally, sources::Sources};
use crate::counters::Counters;
use mio::{Interest, Registry, Token, unix::SourceFd};
use std::{collections::BTreeMap, os::fd::AsRawFd, sync::Arc};
use vhost_net_backend::device::{
    fault::PortFault,
    ring::{FromGuest, RunningRing, ToGuest},
};
use vswitch_core::id::PortId;

/// What a kick wakes the worker with.
pub(super) const KICK: Token = Token(1);

/// The ports that there are, each with its health.
pub(crate) type Healths = BTreeMap<PortId, Arc<Health>>;

/// Every ring that this worker serves: its share of the sources, and all destinations, which it shares with the other workers.
/// The two stand apart, so that frames of one ring can be written into others while the batch borrows it.
pub(super) struct Ports {
    /// Where the kick descriptors of sources are waited for: as long as a ring is served and no longer, since closing
    /// our descriptor does not end the wait for one that the frontend holds too.
    registry: Registry,
    pub(super) sources: Sources,
    /// By place of the port; a port's receiveqs in the order in which they came.
    pub(super) destinations: Vec<Vec<Arc<ToGuest>>>,
    pub(super) lives: Vec<Option<Life>>,
}

/// One port's life, as this worker sees it: what outlasts its rings.
pub(super) struct Life {
    pub(super) id: PortId,
    /// What this worker counted.
    pub(super) counters: Counters,
    pub(super) health: Arc<Health>,
    /// What it may still be told of frames that were rejected.
    pub(super) errors: Errors,
    /// Rings that the worker no longer serves and that were not fetched yet.
    pub(super) parked: Vec<RunningRing>,
    /// Fail inside at the next frame (a test's wish).
    #[cfg(feature = "injection")]
    pub(super) panic: bool,
}

impl Life {
    fn new(id: PortId, health: Arc<Health>) -> Self {
        Self {
            id,
            counters: Counters::default(),
            health,
            errors: Errors::default(),
            parked: Vec::new(),
            #[cfg(feature = "injection")]
            panic: false,
        }
    }
}

impl Ports {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, sources: Sources::default(), destinations: Vec::new(), lives: Vec::new() }
    }

    /// Makes room for these ports; others end, and with them what was counted of them.
    pub(super) fn adopt(&mut self, healths: Healths) {
        let mut kept: Vec<Option<Life>> = Vec::new();
        for (id, health) in healths {
            let place = usize::from(id.index());
            kept.resize_with(kept.len().max(place + 1), || None);
            let old = self.lives.get_mut(place).and_then(Option::take).filter(|life| life.id == id);
            kept[place] = Some(old.unwrap_or_else(|| Life::new(id, health)));
        }
        self.destinations.resize_with(kept.len().max(self.destinations.len()), Vec::new);
        self.lives = kept;
    }

    /// The port in place `index`, if there is one.
    pub(super) fn life(&mut self, index: u16) -> Option<&mut Life> {
        self.lives.get_mut(usize::from(index)).and_then(Option::as_mut)
    }

    /// Starts to serve a ring. A ring of a port that is not there stays parked nowhere: it is dropped with its memory. One that
    /// was on its way when its port was stopped waits with the others.
    pub(super) fn attach(&mut self, port: PortId, ring: RunningRing) {
        let place = port.index();
        let Some(life) = self.life(place).filter(|life| life.id == port) else { return };
        life.counters.know(ring.index());
        if life.health.fault().is_some() {
            return life.parked.push(ring);
        }
        match ring {
            RunningRing::From(ring) => {
                self.wait_for_kicks(&ring);
                self.sources.push(place, ring);
            }
            RunningRing::To(ring) => self.destinations[usize::from(place)].push(ring),
        }
    }

    /// Stops serving ring `index` of `port` and hands it out.
    pub(super) fn detach(&mut self, port: PortId, index: u16) -> Option<RunningRing> {
        let place = port.index();
        let life = self.life(place).filter(|life| life.id == port)?;
        if let Some(at) = life.parked.iter().position(|ring| ring.index() == index) {
            let ring = life.parked.swap_remove(at);
            // A port is seldom stopped: until it is again there is nothing to keep room for.
            life.parked.shrink_to_fit();
            return Some(ring);
        }
        let source = self.sources.remove(|source| source.port == place && source.ring.index() == index);
        if let Some(ring) = source.into_iter().next() {
            self.forget_kicks(&ring);
            return Some(RunningRing::From(ring));
        }
        let rings = self.destinations.get_mut(usize::from(place))?;
        let at = rings.iter().position(|ring| ring.index() == index)?;
        Some(RunningRing::To(rings.remove(at)))
    }

    /// Stops serving the port in place `index` because of `why`, and says so. Its rings wait to be fetched.
    pub(super) fn stop(&mut self, index: u16, why: PortFault) {
        let place = usize::from(index);
        let mut parked: Vec<RunningRing> = Vec::new();
        let stopped = self.sources.remove(|source| source.port == index);
        stopped.iter().for_each(|ring| self.forget_kicks(ring));
        parked.extend(stopped.into_iter().map(RunningRing::From));
        if let Some(rings) = self.destinations.get_mut(place) {
            parked.extend(rings.drain(..).map(RunningRing::To));
        }
        let Some(life) = self.life(index) else { return };
        life.parked.append(&mut parked);
        life.counters.faults += u64::from(life.health.fail(why));
    }

    /// Edge-triggered: the descriptor is never read, so that its frontend cannot make us wait for it.
    fn wait_for_kicks(&self, ring: &FromGuest) {
        let Some(kick) = ring.kick_fd() else { return };
        if let Err(why) = self.registry.register(&mut SourceFd(&kick.as_raw_fd()), KICK, Interest::READABLE) {
            tracing::error!("a ring's kick cannot be waited for: {why}");
        }
    }

    fn forget_kicks(&self, ring: &FromGuest) {
        let Some(kick) = ring.kick_fd() else { return };
        if let Err(why) = self.registry.deregister(&mut SourceFd(&kick.as_raw_fd())) {
            tracing::error!("a ring's kick is still waited for: {why}");
        }
    }

    /// What was counted, port by port.
    pub(super) fn tally(&self) -> BTreeMap<PortId, PortTally> {
        let one = |life: &Life| {
            let place = life.id.index();
            let from = self.sources.iter().filter(|source| source.port == place);
            let to = self.destinations.get(usize::from(place)).into_iter().flatten();
            let tally = PortTally {
                counters: life.counters.clone(),
                sources: from.map(|source| (source.ring.index(), source.ring.size())).collect(),
                destinations: to.map(|ring| (ring.index(), ring.size())).collect(),
            };
            (life.id, tally)
        };
        self.lives.iter().flatten().map(one).collect()
    }
}
