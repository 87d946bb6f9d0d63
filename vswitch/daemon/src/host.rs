//! What a port's control thread sees of us: it hands rings to the workers and fetches them back.

use crate::{
    control::protocol::PortState,
    recorder::{Event, journal::Journal},
    worker::health::Health,
    workers::Workers,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use vhost_net_backend::device::{Connection, PortHost, ring::RunningRing};
use vswitch_core::id::PortId;

/// The host of one port.
pub(crate) struct Host {
    port: PortId,
    name: String,
    health: Arc<Health>,
    workers: Arc<Workers>,
    connection: Mutex<Connection>,
    /// The rings that run, by index.
    rings: Mutex<BTreeSet<u16>>,
    journal: Arc<Journal>,
}

impl Host {
    pub(crate) fn new(
        port: PortId,
        name: String,
        health: Arc<Health>,
        workers: Arc<Workers>,
        journal: Arc<Journal>,
    ) -> Arc<Self> {
        let (connection, rings) = (Mutex::new(Connection::Listening), Mutex::default());
        Arc::new(Self { port, name, health, workers, connection, rings, journal })
    }

    /// Whether the port may run.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// The rings that run change; the journal is told if that begins or ends a way for frames in both directions.
    fn change_rings(&self, change: impl FnOnce(&mut BTreeSet<u16>)) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let before = is_whole(&rings);
        change(&mut rings);
        match (before, is_whole(&rings)) {
            (false, true) => self.journal.note(Event::Up { port: self.port }),
            (true, false) => self.journal.note(Event::Down { port: self.port }),
            _ => {}
        }
    }

    /// The port's state and why, given whether rings run.
    pub(crate) fn state(&self, running: bool) -> (PortState, String, u64) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match connection {
            Connection::Connected { features } if running => {
                (PortState::Up, "a driver runs".into(), features)
            }
            Connection::Connected { features } => {
                (PortState::Waiting, "attached; the guest's driver has not started".into(), features)
            }
            Connection::Listening => (PortState::Waiting, "waiting for a VMM to connect".into(), 0),
            Connection::Disconnected => (PortState::Waiting, "the VMM closed its socket".into(), 0),
            Connection::Connecting(why) => (PortState::Waiting, format!("connecting: {why}"), 0),
            Connection::Faulted(why) => (PortState::Faulted, why.to_string(), 0),
        }
    }
}

impl PortHost for Host {
    fn attach(&self, _index: u16, ring: RunningRing) {
        let index = ring.index();
        self.workers.attach(self.port, ring);
        self.change_rings(|rings| {
            rings.insert(index);
        });
    }

    fn detach(&self, index: u16) -> Option<RunningRing> {
        let ring = self.workers.detach(self.port, index);
        self.change_rings(|rings| {
            rings.remove(&index);
        });
        ring
    }

    fn connection(&self, state: Connection) {
        let mut now = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != state {
            tracing::info!(port = %self.name, "{state:?}");
            if let Connection::Faulted(why) = &state {
                self.journal.note(Event::Faulted { port: self.port, why: why.into() });
            }
            if state == (Connection::Connected { features: 0 }) {
                self.health.renew();
            }
            *now = state;
        }
    }
}

/// Whether frames can flow both ways: even rings are receiveqs, odd ones transmitqs (virtio 1.2 §5.1.2).
fn is_whole(rings: &BTreeSet<u16>) -> bool {
    rings.iter().any(|index| index % 2 == 0) && rings.iter().any(|index| index % 2 == 1)
}
