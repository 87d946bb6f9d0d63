//! Stream peers of all sorts at a real port.

use super::{
    super::adapter::{
        Adapter, AdapterState,
        tests::{Host, PATIENCE, fill, frame, give, take, take_in_order, wait_for},
    },
    Meeting,
};
use rustix::event::PollFlags;
use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use vhost_net_backend::device::port::{Port, PortConfig};

struct Bench {
    adapter: Adapter,
    _port: Port,
    host: Arc<Host>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn with(meeting: impl FnOnce(PathBuf) -> Meeting) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (driver, device) = UnixStream::pair().expect("sockets");
        let host = Arc::new(Host::default());
        let port = Port::adopt(device, PortConfig::new("ext1"), host.clone()).expect("threads");
        let adapter = Adapter::peers("ext1", meeting(folder.path().join("s")), driver).expect("a thread");
        Self { adapter, _port: port, host, folder }
    }

    fn listening() -> Self {
        Self::with(|path| Meeting::Listen(UnixListener::bind(path).expect("a socket")))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// A peer that connected, and has the port to itself.
    fn peer(&self) -> UnixStream {
        let peer = UnixStream::connect(self.path()).expect("somebody listens");
        self.carries();
        peer
    }

    fn becomes(&self, what: &str, so: impl Fn(&AdapterState) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(&self.adapter.state()) {
            assert!(Instant::now() < deadline, "never {what}: {:?}", self.adapter.state());
            std::thread::yield_now();
        }
    }

    fn carries(&self) {
        self.becomes("carrying", |state| *state == AdapterState::Carrying);
    }

    /// Waits until there is no peer, and says so in these words.
    fn waits(&self, words: &str) {
        self.becomes(words, |state| *state == AdapterState::Waiting(words.into()));
    }
}

/// A frame as the socket has it.
fn framed(number: usize) -> Vec<u8> {
    let frame = frame(number);
    [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
}

fn reads(peer: &mut UnixStream, number: usize) {
    let expected = framed(number);
    let mut into = vec![0; expected.len()];
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    peer.read_exact(&mut into).expect("a frame");
    assert!(into == expected, "frame {number}");
}

#[test]
fn frames_go_both_ways_in_order_and_more_than_either_side_holds() {
    let bench = Bench::listening();
    bench.waits("waiting for a peer to connect");
    let mut peer = bench.peer();
    std::thread::scope(|scope| {
        let mut writer = peer.try_clone().expect("dup");
        scope
            .spawn(move || (0..2000).for_each(|number| writer.write_all(&framed(number)).expect("it reads")));
        take_in_order(&bench.host, 2000);
    });
    // A peer that does not read: its socket fills, then the ring, then the switch is told that there is no room.
    let sent = fill(&bench.host);
    (0..sent).for_each(|number| reads(&mut peer, number));
    assert_eq!(bench.adapter.state(), AdapterState::Carrying);
}

#[test]
fn a_frame_may_come_in_crumbs_and_the_largest_frame_at_once() {
    let bench = Bench::listening();
    let mut peer = bench.peer();
    for byte in framed(3) {
        peer.write_all(&[byte]).expect("it reads");
    }
    assert_eq!(take(&bench.host, 1)[0].len(), frame(3).len());
    let largest = [&65_550u32.to_be_bytes()[..], &[7; 65_550]].concat();
    peer.write_all(&largest).expect("it reads");
    assert_eq!(take(&bench.host, 1)[0].len(), 65_550);
}

#[test]
fn what_no_frame_is_ends_the_connection_by_name_and_the_next_peer_is_served() {
    let bench = Bench::listening();
    for (said, why) in [
        (&0u32.to_be_bytes()[..], "a frame of 0 bytes was announced, and frames have 14 to 65550"),
        (&13u32.to_be_bytes(), "a frame of 13 bytes was announced, and frames have 14 to 65550"),
        (&65_551u32.to_be_bytes(), "a frame of 65551 bytes was announced, and frames have 14 to 65550"),
        (b"GET / HTTP/1.1\r\n", "a frame of 1195725856 bytes was announced, and frames have 14 to 65550"),
    ] {
        let mut peer = bench.peer();
        peer.write_all(&[&framed(1), said].concat()).expect("it reads");
        // What came before it is a frame all the same.
        assert_eq!(take(&bench.host, 1)[0].len(), frame(1).len());
        bench.waits(&format!("waiting for a peer to connect; the last one: {why}"));
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert!(matches!(peer.read(&mut [0; 1]), Ok(0) | Err(_)), "it was not hung up on");
    }
    let mut peer = bench.peer();
    peer.write_all(&framed(5)).expect("it reads");
    assert_eq!(take(&bench.host, 1)[0].len(), frame(5).len());
}

#[test]
fn a_listening_port_serves_one_peer_after_another_and_none_gets_what_was_for_the_last() {
    let bench = Bench::listening();
    let mut first = bench.peer();
    // What it says last, and half of what it would have said next.
    first.write_all(&[framed(1), framed(2), framed(3)[..40].to_vec()].concat()).expect("it reads");
    drop(first);
    bench.waits("waiting for a peer to connect; the last one: it closed the connection amid a frame");
    let lens: Vec<_> = take(&bench.host, 2).iter().map(Vec::len).collect();
    assert_eq!(lens, [frame(1).len(), frame(2).len()]);
    // This one leaves a full socket and a full ring behind.
    let second = bench.peer();
    let mut sent = 0;
    while bench.host.with(|_, to| give(to, &frame(sent))) || sent < 300 {
        sent += 1;
    }
    drop(second);
    bench.becomes("waiting", |state| matches!(state, AdapterState::Waiting(_)));
    let mut third = bench.peer();
    assert!(bench.host.with(|_, to| give(to, &frame(77))));
    reads(&mut third, 77);
    third.set_nonblocking(true).expect("a socket");
    assert_eq!(third.read(&mut [0; 1]).map_err(|why| why.kind()), Err(ErrorKind::WouldBlock));
    drop(third);
    bench.waits("waiting for a peer to connect; the last one: it closed the connection");
}

/// What a port says whose peer has no socket at `path`.
fn absent(path: &Path) -> String {
    format!("connecting: the peer has not made {} yet", path.display())
}

#[test]
fn a_connecting_port_tries_again_and_again_and_comes_back_to_a_peer_that_was_gone() {
    let bench = Bench::with(Meeting::Connect);
    bench.waits(&absent(&bench.path()));
    for round in 0..2 {
        let listener = UnixListener::bind(bench.path()).expect("a socket");
        listener.set_nonblocking(true).expect("a socket");
        wait_for(&listener, PollFlags::IN);
        let (mut peer, _) = listener.accept().expect("it connects");
        peer.set_nonblocking(false).expect("a socket");
        bench.carries();
        peer.write_all(&framed(round)).expect("it reads");
        assert_eq!(take(&bench.host, 1)[0].len(), frame(round).len());
        assert!(bench.host.with(|_, to| give(to, &frame(round))));
        reads(&mut peer, round);
        std::fs::remove_file(bench.path()).expect("it is there");
        drop((peer, listener));
        bench.waits(&format!("{}; the last one: it closed the connection", absent(&bench.path())));
    }
}

#[test]
fn datagrams_go_both_ways_and_a_peer_that_was_started_again_is_heard_and_told() {
    let bench = Bench::with(|path| Meeting::Datagrams {
        local: UnixDatagram::bind(&path).expect("a socket"),
        remote: path.with_extension("peer"),
    });
    let remote = bench.path().with_extension("peer");
    bench.waits(&absent(&remote));
    for round in 0..3 {
        let peer = UnixDatagram::bind(&remote).expect("a socket");
        peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
        if round == 0 {
            bench.carries();
        }
        // More than its socket holds, and what is no frame.
        std::thread::scope(|scope| {
            let peer = &peer;
            let path = bench.path();
            scope.spawn(move || {
                for junk in [&[][..], &[1; 13], &[2; 65_551]] {
                    peer.send_to(junk, &path).expect("it reads");
                }
                for number in 0..400 {
                    peer.send_to(&frame(number), &path).expect("it reads");
                }
            });
            let lens: Vec<_> = take(&bench.host, 400).iter().map(Vec::len).collect();
            assert_eq!(lens, (0..400).map(|number| frame(number).len()).collect::<Vec<_>>());
        });
        // What is sent first finds that the last socket has gone.
        let mut into = vec![0; 65_550];
        let mut told = 1;
        while peer.set_nonblocking(true).is_ok() && peer.recv(&mut into).is_err() {
            bench.host.with(|_, to| give(to, &frame(5)));
            std::thread::yield_now();
        }
        peer.set_nonblocking(false).expect("a socket");
        assert_eq!(into[..frame(5).len()], frame(5));
        while bench.host.with(|_, to| give(to, &vec![9; 65_550])) || told < 300 {
            told += 1;
        }
        // It did not read, so it was not sent more; now it reads.
        while peer.recv(&mut into).expect("a frame") != 65_550 {}
        assert!(into.iter().all(|byte| *byte == 9));
        drop(peer);
        std::fs::remove_file(&remote).expect("it is there");
    }
    assert!(bench.adapter.refused() >= 9, "what is no frame is counted: {}", bench.adapter.refused());
}

#[test]
fn dropping_the_adapter_ends_it_whether_a_peer_is_there_or_not() {
    for with_peer in [false, true] {
        let bench = Bench::listening();
        let peer = with_peer.then(|| bench.peer());
        let started = Instant::now();
        drop(bench);
        assert!(started.elapsed() < Duration::from_secs(4), "with a peer: {with_peer}");
        drop(peer);
    }
    let bench = Bench::with(Meeting::Connect);
    bench.waits(&absent(&bench.path()));
    drop(bench);
}
