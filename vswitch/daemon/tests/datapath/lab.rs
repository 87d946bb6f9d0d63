//! A lab in one process: a datapath and drivers at its sockets.

use std::{
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    build::{self, Ethernet},
    description::{Description, Link, Membership},
    id::SwitchId,
    mac::MacAddr,
    vlan::VlanSet,
};
use vswitchd::{
    control::protocol::{Attachment, AttachmentKind, DatapathSettings, PortState, Snapshot},
    counters::check_law,
    datapath::Datapath,
};

pub(crate) use crate::description::{access, description, vlan};

/// How long a test waits for an event that must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A trunk port of VLANs 10 and 20, with this native VLAN or none.
pub(crate) fn trunk(native: Option<u16>) -> Link {
    let mut vlans = VlanSet::empty();
    [10, 20].into_iter().for_each(|number| vlans.insert(vlan(number)));
    Link::Switch { switch: SwitchId::new(0), vlans: Membership::Trunk { vlans, native: native.map(vlan) } }
}

/// The station address of port `place`.
pub(crate) fn mac(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, place as u8 + 1])
}

/// A frame of `len` bytes (14 or more) from `src` to `dst`; what follows the EtherType is noise that `seed` decides, so
/// that no two stretches of it are alike.
pub(crate) fn frame(dst: MacAddr, src: MacAddr, len: usize, seed: u64) -> Vec<u8> {
    // xorshift64* (Vigna 2016).
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    let link = Ethernet { src, dst, tag: None };
    let payload: Vec<u8> = (14..len).map(|_| noise()).collect();
    build::raw(link, 0x88b5, &payload)
}

/// The socket of port `place` of the lab whose sockets are in `folder`.
pub(crate) fn socket(folder: &Path, place: usize) -> PathBuf {
    folder.join(format!("p{place}.sock"))
}

/// A running lab.
pub(crate) struct Lab {
    pub(crate) datapath: Datapath,
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new(ports: &[Link]) -> Self {
        Self::of(&description(ports))
    }

    pub(crate) fn of(description: &Description) -> Self {
        Self::with_workers(description, 1)
    }

    /// A lab whose ports are spread over so many workers.
    pub(crate) fn with_workers(description: &Description, workers: u16) -> Self {
        Self::with_settings(description, DatapathSettings { workers, ..DatapathSettings::default() })
    }

    pub(crate) fn with_settings(description: &Description, settings: DatapathSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut datapath = Datapath::new();
        let (mut attachments, mut descriptors) = (Vec::new(), Vec::<OwnedFd>::new());
        for (place, port) in description.ports.iter().enumerate() {
            let port = port.as_ref().unwrap();
            let kind = if port.link == Link::Routers {
                AttachmentKind::Routers
            } else {
                let path = socket(dir.path(), place);
                descriptors.push(UnixListener::bind(&path).unwrap().into());
                AttachmentKind::VhostUserListen
            };
            attachments.push(Attachment::new(port.id, kind));
        }
        datapath.apply(description, attachments, descriptors, settings).unwrap();
        Self { datapath, dir }
    }

    /// The socket of port `place`.
    pub(crate) fn socket(&self, place: usize) -> PathBuf {
        socket(self.folder(), place)
    }

    /// The folder of the sockets.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Connects a driver to port `place` and waits until the switch says that it is up.
    pub(crate) fn attach(&self, place: usize, config: &Config) -> Driver {
        let stream = UnixStream::connect(self.socket(place)).unwrap();
        let driver = Driver::connect(stream, config).unwrap();
        self.wait(|snapshot| snapshot.ports[place].state == PortState::Up);
        driver
    }

    /// Waits until the datapath's snapshot says so; panics with the snapshot if it does not in time.
    pub(crate) fn wait(&self, so: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        self.wait_for(DEADLINE, so)
    }

    /// The same, for as long as `patience`.
    pub(crate) fn wait_for(&self, patience: Duration, mut so: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        let end = Instant::now() + patience;
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
    pub(crate) fn lawful(&self) -> Snapshot {
        let snapshot = self.datapath.snapshot().unwrap();
        check_law(snapshot.ports.iter().map(|port| &port.counters)).unwrap();
        snapshot
    }
}

/// Sends one frame and waits until it was taken by the switch.
pub(crate) fn send(driver: &mut Driver, frame: &[u8]) {
    let pair = driver.pair();
    assert!(pair.transmit(frame), "the ring is full");
    pair.flush();
}

/// Receives until `count` frames came or the deadline passed.
pub(crate) fn receive(driver: &mut Driver, count: usize) -> Vec<Vec<u8>> {
    let end = Instant::now() + DEADLINE;
    let mut frames = Vec::new();
    while frames.len() < count && Instant::now() < end {
        driver.pair().receive(|_, bytes| frames.push(bytes.to_vec()));
        std::thread::yield_now();
    }
    frames
}
