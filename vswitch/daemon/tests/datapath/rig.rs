//! A worker without a thread before guests without a session: whoever holds it takes the turns, so that turns can be counted, and what
//! happens between two of them is known.

use std::sync::Arc;
use vhost_net_backend::driver::{Config, unwired::Unwired};
use vswitch_core::{
    clock::Instant,
    description::Description,
    fdb::{Fdb, Key, Target},
    firewall::connections::DEFAULT_CAPACITY,
    id::PortId,
    mac::MacAddr,
    vlan::VlanId,
    world::{Role, World},
};
use vswitchd::worker::{Turn, Worker};

/// A worker, and a guest at each of its ports.
pub(crate) struct Rig {
    pub(crate) worker: Worker,
    pub(crate) guests: Vec<Unwired>,
    pub(crate) world: Arc<World>,
    pub(crate) fdb: Arc<Fdb>,
    nanos: u64,
}

impl Rig {
    /// Serves the ports of `description`, to each of which such a guest is attached.
    pub(crate) fn new(description: &Description, config: &Config) -> Self {
        Self::tracking(DEFAULT_CAPACITY, description, config)
    }

    /// The same, whose firewalls track so many connections together.
    pub(crate) fn tracking(connections: u32, description: &Description, config: &Config) -> Self {
        let world = Arc::new(World::compile(description).expect("a lab"));
        let fdb = Arc::new(Fdb::new(1, 1 << 14));
        fdb.install(&world);
        let ports: Vec<PortId> = world.ports().map(|port| port.id).collect();
        Self::over(world, fdb, &ports, config, connections)
    }

    /// A worker that serves these ports of a world, and tracks so many connections; of its other ports others may.
    pub(crate) fn over(
        world: Arc<World>,
        fdb: Arc<Fdb>,
        ports: &[PortId],
        config: &Config,
        connections: u32,
    ) -> Self {
        let worker = Worker::alone(world.clone(), fdb.clone(), connections).expect("a worker");
        let mut rig = Self { worker, guests: Vec::new(), world, fdb, nanos: 0 };
        for port in ports {
            let guest = Unwired::new(config).expect("memory");
            rig.plug(*port, &guest);
            rig.guests.push(guest);
        }
        rig
    }

    /// Serves the rings of `guest` at `port` from the next turn on.
    pub(crate) fn plug(&mut self, port: PortId, guest: &Unwired) {
        for ring in guest.rings().expect("honest rings") {
            self.worker.attach(port, ring);
        }
    }

    /// Has the switch know that `station` is behind port `place`, in a table as large as it becomes for so many.
    pub(crate) fn teach(&mut self, place: u16, vlan: VlanId, station: MacAddr) {
        let port = self.world.port(place).expect("it is there");
        let Role::Switched { switch, .. } = &port.role else { panic!("port {place} is no switch's") };
        let key = Key::new(*switch, vlan, station);
        self.fdb.learn(key, Target::Port(port.id), port, Instant::ZERO);
        self.fdb.grow();
    }

    /// The next turn, a microsecond after the last one.
    pub(crate) fn turn(&mut self) -> Turn {
        self.turn_after(1000)
    }

    /// The next turn, so many nanoseconds after the last one.
    pub(crate) fn turn_after(&mut self, nanos: u64) -> Turn {
        self.nanos += nanos;
        self.worker.turn(Instant::from_nanos(self.nanos))
    }

    /// Turns from the next moment on, until nothing is left to move; how many frames they moved.
    pub(crate) fn turns(&mut self) -> usize {
        self.turns_after(1000)
    }

    /// The same so many nanoseconds after the last turn. All of them are at that moment.
    pub(crate) fn turns_after(&mut self, nanos: u64) -> usize {
        let (mut moved, mut turn) = (0, self.turn_after(nanos));
        while let Turn::Busy(frames) = turn {
            moved += frames;
            turn = self.turn_after(0);
        }
        moved
    }
}
