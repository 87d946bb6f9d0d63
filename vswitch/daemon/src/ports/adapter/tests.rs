//! A tap's adapter at a real port; a pair of packet sockets stands in for the tap.

use super::{super::carrier::Outside, Adapter, AdapterEnd, AdapterState, Shared, run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};
use vhost_net_backend::{
    device::{
        Connection, PortHost,
        port::{Port, PortConfig},
        ring::{FromGuest, Payload, Rooms, RunningRing, ToGuest},
    },
    driver::{Moved, QueuePair},
    net_header,
};

pub(in super::super) const PATIENCE: Duration = Duration::from_secs(20);

/// Who has the port's rings: the test itself.
#[derive(Default)]
pub(in super::super) struct Host {
    rings: Mutex<Vec<RunningRing>>,
    changed: Condvar,
}

impl PortHost for Host {
    fn attach(&self, _: u16, ring: RunningRing) {
        self.rings.lock().expect("no test panics with it").push(ring);
        self.changed.notify_all();
    }

    fn detach(&self, index: u16) -> Option<RunningRing> {
        let mut rings = self.rings.lock().expect("no test panics with it");
        let at = rings.iter().position(|ring| ring.index() == index)?;
        Some(rings.remove(at))
    }

    fn connection(&self, _: Connection) {}
}

impl Host {
    /// Runs `work` on the transmitq once it is there.
    fn with_sent<R>(&self, work: impl FnOnce(&mut FromGuest) -> R) -> R {
        let rings = self.rings.lock().expect("no test panics with it");
        let sent = |ring: &RunningRing| matches!(ring, RunningRing::From(_));
        let (mut rings, timeout) = self
            .changed
            .wait_timeout_while(rings, PATIENCE, |rings| !rings.iter().any(sent))
            .expect("no test panics with it");
        assert!(!timeout.timed_out(), "the ring never ran");
        let from = rings.iter_mut().find_map(|ring| match ring {
            RunningRing::From(from) => Some(from),
            RunningRing::To(_) => None,
        });
        work(from.expect("it is there"))
    }

    /// Whether there is a receiveq.
    fn takes_frames(&self) -> bool {
        let rings = self.rings.lock().expect("no test panics with it");
        rings.iter().any(|ring| matches!(ring, RunningRing::To(_)))
    }

    /// Runs `work` on both rings once they are there.
    pub(in super::super) fn with<R>(&self, work: impl FnOnce(&mut FromGuest, &ToGuest) -> R) -> R {
        let rings = self.rings.lock().expect("no test panics with it");
        let (mut rings, timeout) = self
            .changed
            .wait_timeout_while(rings, PATIENCE, |rings| rings.len() < 2)
            .expect("no test panics with it");
        assert!(!timeout.timed_out(), "the rings never ran");
        rings.sort_by_key(RunningRing::index);
        let [RunningRing::To(to), RunningRing::From(from)] = rings.as_mut_slice() else {
            panic!("one receiveq, one transmitq");
        };
        work(from, to)
    }
}

struct Bench {
    adapter: Adapter,
    port: Port,
    host: Arc<Host>,
    /// The host's end of the tap.
    peer: OwnedFd,
}

fn bench() -> Bench {
    let (tap, peer) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
    rustix::io::ioctl_fionbio(&peer, true).expect("a socket");
    let (driver, device) = UnixStream::pair().expect("sockets");
    let host = Arc::new(Host::default());
    let port = Port::adopt(device, PortConfig::new("tap0"), host.clone()).expect("threads");
    let adapter = Adapter::tap("tap0", vec![tap], true, driver).expect("a thread");
    Bench { adapter, port, host, peer }
}

pub(in super::super) fn wait_for(fd: impl AsFd, what: PollFlags) {
    let mut fds = [PollFd::new(&fd, what)];
    let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1), "nothing happened in time");
}

/// Waits until frames go both ways.
pub(in super::super) fn carries(adapter: &Adapter) {
    let deadline = Instant::now() + PATIENCE;
    while adapter.state() != AdapterState::Carrying {
        assert!(Instant::now() < deadline, "it never carried: {:?}", adapter.state());
        std::thread::yield_now();
    }
}

/// Waits for the adapter's thread to end.
pub(in super::super) fn end_of(adapter: &Adapter) -> AdapterEnd {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let AdapterState::Ended(end) = adapter.state() {
            return end;
        }
        std::thread::yield_now();
    }
    panic!("the adapter never ended: {:?}", adapter.state());
}

/// A frame as a tap gives and takes it: the net header of 10 bytes, which asks for nothing, and the frame.
fn on_tap(number: usize) -> Vec<u8> {
    [&[0; net_header::SHORT_LEN], frame(number).as_slice()].concat()
}

/// Every 50th is a large one, up to the longest that there is.
pub(in super::super) fn frame(number: usize) -> Vec<u8> {
    let len = if number % 50 == 49 { 65_550 - number % 1440 } else { 60 + number % 1440 };
    (0..len).map(|at| (at * 7 + number) as u8).collect()
}

/// Takes frames from the adapter, as a switch does, until `count` came.
pub(in super::super) fn take(host: &Host, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let kick = host.with_sent(|from| {
            if from.arm() {
                let taken = from.harvest(64).expect("an honest driver");
                for place in 0..taken {
                    let frame = from.frame(place);
                    let mut bytes = vec![0; frame.len() as usize];
                    bytes[..frame.head().len()].copy_from_slice(frame.head());
                    frames.push(bytes);
                }
                from.finish(taken);
                from.notify().expect("nothing blocks");
                return None;
            }
            Some(from.kick_fd().expect("a driver kicks").try_clone_to_owned().expect("dup"))
        });
        if let Some(kick) = kick {
            wait_for(&kick, PollFlags::IN);
            // This test alone waits on the descriptor, level-triggered.
            let _ = rustix::io::read(&kick, &mut [0; 8]);
        }
    }
    frames
}

/// Gives the adapter a frame, as a switch does; whether there was room.
pub(in super::super) fn give(to: &ToGuest, bytes: &[u8]) -> bool {
    let mut rooms = Rooms::default();
    let mut lease = to
        .reserve(0, &mut rooms, 1, |room| room.frames(std::iter::once(bytes.len() as u32)))
        .expect("an honest driver");
    let _ = lease.write(0, bytes, Payload::Ours(&[]));
    lease.room(0).is_ok()
}

/// Takes the first `count` frames from the adapter: each whole, and as it was sent as far as it is judged.
pub(in super::super) fn take_in_order(host: &Host, count: usize) {
    for (number, taken) in take(host, count).iter().enumerate() {
        let sent = frame(number);
        assert_eq!(taken.len(), sent.len(), "frame {number}");
        let head = sent.len().min(192);
        assert_eq!(taken[..head], sent[..head], "frame {number}");
    }
}

/// Gives frames to the adapter until there is no room, and at least 300; how many.
pub(in super::super) fn fill(host: &Host) -> usize {
    let mut sent = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let room = host.with(|_, to| give(to, &frame(sent)));
        sent += usize::from(room);
        if !room && sent >= 300 {
            return sent;
        }
        assert!(Instant::now() < deadline, "it never filled: {sent} frames");
    }
}

#[test]
fn frames_go_both_ways_in_order_and_more_than_either_side_holds() {
    let bench = bench();
    // More than a ring of 512 and a socket buffer hold: the writer waits, nothing is lost.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2000 {
                while rustix::io::write(&bench.peer, &on_tap(number)) == Err(rustix::io::Errno::AGAIN) {
                    wait_for(&bench.peer, PollFlags::OUT);
                }
            }
        });
        take_in_order(&bench.host, 2000);
    });
    // Nobody reads the tap at first: it fills, then the ring, then the switch is told that there is no room.
    let sent = fill(&bench.host);
    let mut into = vec![0; 1 << 17];
    for number in 0..sent {
        wait_for(&bench.peer, PollFlags::IN);
        let len = rustix::io::read(&bench.peer, &mut into[..]).expect("a frame");
        assert!(into[..len] == on_tap(number), "frame {number} of {sent}");
    }
    assert_eq!((bench.adapter.state(), bench.adapter.refused()), (AdapterState::Carrying, 0));
}

#[test]
fn the_first_frame_finds_a_buffer_as_soon_as_the_rings_run() {
    let bench = bench();
    assert!(bench.host.with(|_, to| give(to, &frame(0))));
}

#[test]
fn a_tap_that_goes_away_ends_the_adapter_by_name() {
    let Bench { adapter, host, peer, port: _port } = bench();
    host.with(|_, _| ());
    rustix::io::write(&peer, &on_tap(0)).expect("there is room");
    drop(peer);
    assert_eq!(end_of(&adapter), AdapterEnd::Gone { what: "tap", why: "it was closed".into() });
    // What came last still arrives; what would go there finds no ring.
    take_in_order(&host, 1);
    assert!(!host.takes_frames(), "frames would vanish in it");
}

#[test]
fn a_port_that_is_closed_ends_the_adapter_by_name() {
    let Bench { adapter, host, port, peer: _peer } = bench();
    host.with(|_, _| ());
    port.close();
    // Closed in the middle of the handshake it is an error of the handshake.
    assert!(
        matches!(end_of(&adapter), AdapterEnd::PortClosed | AdapterEnd::Port(_)),
        "{:?}",
        adapter.state()
    );
}

/// Something outside whose thread panics over the first frame from the switch.
struct Panicking(OwnedFd);

impl Outside for Panicking {
    const WHAT: &str = "panicking";

    fn features(&self) -> u64 {
        0
    }

    fn bring(&mut self, _: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        Ok(Moved::Nothing)
    }

    fn take(&mut self, pair: &mut QueuePair, _: &Shared) -> Result<Moved, AdapterEnd> {
        pair.receive_up_to(1, |_, _| panic!("over a frame"));
        Ok(Moved::Nothing)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[test]
fn a_panic_ends_its_own_adapter_by_name_and_no_other() {
    let healthy = bench();
    let (outside, _other) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
    let (driver, device) = UnixStream::pair().expect("sockets");
    let host = Arc::new(Host::default());
    let _port = Port::adopt(device, PortConfig::new("p0"), host.clone()).expect("threads");
    let outside = vec![Panicking(outside)];
    let work = |shared: &Shared, stream| run(shared, outside, stream);
    let adapter = Adapter::start("p0", Panicking::WHAT, driver, work).expect("a thread");
    assert!(host.with(|_, to| give(to, &frame(0))));
    assert_eq!(end_of(&adapter), AdapterEnd::Port("one of its threads panicked".into()));
    for number in 0..10 {
        rustix::io::write(&healthy.peer, &on_tap(number)).expect("there is room");
    }
    take_in_order(&healthy.host, 10);
    assert_eq!(healthy.adapter.state(), AdapterState::Carrying);
}

#[test]
fn dropping_the_adapter_ends_it_also_when_nobody_answers_its_handshake() {
    let (tap, _peer) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
    let (driver, _silent) = UnixStream::pair().expect("sockets");
    let adapter = Adapter::tap("tap0", vec![tap], true, driver).expect("a thread");
    assert_eq!(adapter.state(), AdapterState::Connecting);
    let started = Instant::now();
    drop(adapter);
    assert!(started.elapsed() < Duration::from_secs(4), "it waited for the handshake's deadline");
    drop(bench());
}
