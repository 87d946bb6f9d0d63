//! A lab in one process: a datapath and drivers at its sockets.
#![expect(unreachable_pub, reason = "each test file compiles this module for itself")]

use std::{
    collections::BTreeMap,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    time::{Duration, Instant},
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    description::{Description, Link, Membership, Origin, Port, Switch, Trunk, Vlan},
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
    vlan::VlanId,
};
use vswitchd::{
    control::protocol::{Attachment, AttachmentKind, DatapathSettings, PollMode, PortState, Snapshot},
    counters::check_law,
    datapath::Datapath,
};

/// How long a test waits for an event that must come.
pub const DEADLINE: Duration = Duration::from_secs(10);

const HERE: Origin = Origin { line: 1, column: 1 };

/// VLAN `number`.
pub fn vlan(number: u16) -> VlanId {
    VlanId::new(number).unwrap()
}

/// A lab of one switch with these ports.
pub fn description(ports: &[Link]) -> Description {
    let port = |place: usize, link: &Link| Port {
        id: PortId::new(place as u16, 0),
        node: format!("n{place}"),
        interface: "eth0".into(),
        mac: None,
        mtu: None,
        queues: 1,
        mac_limit: 1024,
        sealed_memory: false,
        up: true,
        link: link.clone(),
        origin: HERE,
        link_origin: Some(HERE),
    };
    let vlans = [1, 10, 20].map(|id| Vlan { id: vlan(id), name: format!("v{id}"), origin: None });
    Description {
        lab: "test".into(),
        file: "test.vnet.yaml".into(),
        epoch: Epoch::new(1),
        vlans: vlans.into(),
        switches: vec![Switch {
            id: SwitchId::new(0),
            name: "sw1".into(),
            mac_aging_secs: 300,
            origin: HERE,
        }],
        ports: ports.iter().enumerate().map(|(place, link)| Some(port(place, link))).collect(),
        trunks: Vec::<Trunk>::new(),
    }
}

/// An access port of VLAN `number`.
pub fn access(number: u16) -> Link {
    Link::Switch { switch: SwitchId::new(0), vlans: Membership::Access(vlan(number)) }
}

/// The station address of port `place`.
pub fn mac(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, place as u8 + 1])
}

/// A frame of `len` bytes from `src` to `dst`; what follows the addresses counts up from `seed`.
pub fn frame(dst: MacAddr, src: MacAddr, len: usize, seed: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len);
    frame.extend(dst.octets());
    frame.extend(src.octets());
    frame.extend([0x88, 0xb5]);
    frame.extend((0..len.saturating_sub(14)).map(|i| (i as u8).wrapping_add(seed)));
    frame.truncate(len);
    frame
}

/// A running lab.
pub struct Lab {
    pub datapath: Datapath,
    sockets: BTreeMap<usize, PathBuf>,
    _dir: tempfile::TempDir,
}

impl Lab {
    pub fn new(ports: &[Link]) -> Self {
        Self::of(&description(ports))
    }

    pub fn of(description: &Description) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut datapath = Datapath::new();
        let (mut attachments, mut descriptors, mut sockets) =
            (Vec::new(), Vec::<OwnedFd>::new(), BTreeMap::new());
        for (place, port) in description.ports.iter().enumerate() {
            let path = dir.path().join(format!("p{place}.sock"));
            descriptors.push(UnixListener::bind(&path).unwrap().into());
            sockets.insert(place, path);
            let port = port.as_ref().unwrap().id;
            attachments.push(Attachment { port, kind: AttachmentKind::VhostUserListen });
        }
        let settings = DatapathSettings { workers: 1, cpus: vec![], poll: PollMode::Adaptive };
        datapath.apply(description, attachments, descriptors, settings).unwrap();
        Self { datapath, sockets, _dir: dir }
    }

    /// Connects a driver to port `place` and waits until the switch says that it is up.
    pub fn attach(&self, place: usize, config: &Config) -> Driver {
        let stream = UnixStream::connect(&self.sockets[&place]).unwrap();
        let driver = Driver::connect(stream, config).unwrap();
        self.wait(|snapshot| snapshot.ports[place].state == PortState::Up);
        driver
    }

    /// Waits until the datapath's snapshot says so; panics with the snapshot if it does not in time.
    pub fn wait(&self, mut so: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let end = Instant::now() + DEADLINE;
        loop {
            let snapshot = self.datapath.snapshot().unwrap();
            if so(&snapshot) {
                return snapshot;
            }
            assert!(Instant::now() < end, "it did not come to pass: {snapshot:#?}");
            std::thread::yield_now();
        }
    }

    /// The snapshot, in which the accounting law must hold.
    pub fn lawful(&self) -> Snapshot {
        let snapshot = self.datapath.snapshot().unwrap();
        check_law(snapshot.ports.iter().map(|port| &port.counters)).unwrap();
        snapshot
    }
}

/// Sends one frame and waits until it was taken by the switch.
pub fn send(driver: &mut Driver, frame: &[u8]) {
    let pair = driver.pair();
    assert!(pair.transmit(frame), "the ring is full");
    pair.flush();
}

/// Receives until `count` frames came or the deadline passed.
pub fn receive(driver: &mut Driver, count: usize) -> Vec<Vec<u8>> {
    let end = Instant::now() + DEADLINE;
    let mut frames = Vec::new();
    while frames.len() < count && Instant::now() < end {
        driver.pair().receive(|_, bytes| frames.push(bytes.to_vec()));
        std::thread::yield_now();
    }
    frames
}
