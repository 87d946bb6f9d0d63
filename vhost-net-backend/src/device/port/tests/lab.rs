//! Two polite drivers whose frames a hub moves, and room for a hostile connection beside them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use super::super::{Port, PortConfig};
use super::rig::{DEADLINE, Host, Hub, adopt};
use crate::driver::misbehave::RawFrontend;
use crate::driver::{Config, Driver};

/// Frames that go each way in one exchange.
const FRAMES: u8 = 32;

/// The polite ones, and the hub.
pub(super) struct Lab {
    pub(super) hub: Hub,
    drivers: [Driver; 2],
    ports: Vec<Port>,
    exchanges: u8,
}

/// A connection to a port of its own beside the polite ones.
pub(super) struct Guest {
    pub(super) socket: UnixStream,
    pub(super) port: Port,
    pub(super) host: Arc<Host>,
}

impl Guest {
    /// The socket, to say anything on.
    pub(super) fn raw(&self) -> RawFrontend {
        RawFrontend::new(self.socket.try_clone().expect("a dup"))
    }
}

impl Lab {
    pub(super) fn new() -> Self {
        let mut hub = Hub::default();
        let mut ports = Vec::new();
        let drivers = ["one", "two"].map(|name| {
            let host = Arc::<Host>::default();
            let (socket, port) = adopt(&host, PortConfig::new(name));
            let driver = Driver::connect(socket, &Config::default()).expect("a polite driver is served");
            hub.join(&host, &port);
            ports.push(port);
            driver
        });
        Self { hub, drivers, ports, exchanges: 0 }
    }

    /// One more port on the hub, with a connection that may do what it likes.
    pub(super) fn guest(&mut self, config: PortConfig) -> Guest {
        let host = Arc::<Host>::default();
        let (socket, port) = adopt(&host, config);
        self.hub.keep(2);
        self.hub.join(&host, &port);
        Guest { socket, port, host }
    }

    /// Frames go both ways between the polite ones, and every one arrives in order and whole.
    #[track_caller]
    pub(super) fn exchange(&mut self) {
        self.exchanges = self.exchanges.wrapping_add(1);
        let kind = self.exchanges;
        // What a guest of the hub may have sent to all meanwhile.
        for driver in &mut self.drivers {
            driver.pair().receive(|_, _| {});
        }
        for (from, to) in [(0, 1), (1, 0)] {
            for number in 0..FRAMES {
                assert!(self.drivers[from].pair().transmit(&frame(kind, from as u8, number)));
            }
            self.drivers[from].pair().flush();
            let (mut next, until) = (0, Instant::now() + DEADLINE);
            while next < FRAMES {
                assert!(
                    Instant::now() < until,
                    "{} of {FRAMES} frames of a neighbour are lost",
                    FRAMES - next
                );
                self.hub.turn();
                self.drivers[to].pair().receive(|_, got| {
                    if got.first() == Some(&0x02) {
                        assert_eq!(got, frame(kind, from as u8, next));
                        next += 1;
                    }
                });
            }
        }
        for driver in &mut self.drivers {
            driver.pair().reap();
            assert_eq!(driver.pair().in_flight(), 0, "every chain comes back");
            assert_eq!(driver.pair().fault(), None);
            assert!(driver.is_connected());
        }
        assert!(self.ports.iter().all(|port| port.refusals().is_empty()));
    }
}

/// A frame that no other is: a locally administered destination, then who sent it when.
fn frame(kind: u8, from: u8, number: u8) -> [u8; 300] {
    let mut frame = [number; 300];
    frame[..4].copy_from_slice(&[0x02, kind, from, number]);
    frame
}
