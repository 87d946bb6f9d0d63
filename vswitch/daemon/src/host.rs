//! What a port's control thread sees of us: it hands rings to the workers and fetches them back.

use crate::{control::protocol::PortState, worker::health::Health, workers::Workers};
use std::sync::{Arc, Mutex, PoisonError};
use vhost_net_backend::device::{Connection, PortHost, ring::RunningRing};
use vswitch_core::id::PortId;

/// The host of one port.
pub(crate) struct Host {
    port: PortId,
    name: String,
    health: Arc<Health>,
    workers: Arc<Workers>,
    connection: Mutex<Connection>,
}

impl Host {
    pub(crate) fn new(port: PortId, name: String, health: Arc<Health>, workers: Arc<Workers>) -> Arc<Self> {
        Arc::new(Self { port, name, health, workers, connection: Mutex::new(Connection::Listening) })
    }

    /// Whether the port may run.
    pub(crate) fn health(&self) -> &Health {
        &self.health
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
        self.workers.attach(self.port, ring);
    }

    fn detach(&self, index: u16) -> Option<RunningRing> {
        self.workers.detach(self.port, index)
    }

    fn connection(&self, state: Connection) {
        let mut now = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != state {
            tracing::info!(port = %self.name, "{state:?}");
            if state == (Connection::Connected { features: 0 }) {
                self.health.renew();
            }
            *now = state;
        }
    }
}
