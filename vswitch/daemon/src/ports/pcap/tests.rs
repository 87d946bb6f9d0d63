//! Capture files at a real port that comes to an end.

use super::{
    super::adapter::{
        Adapter, AdapterEnd,
        tests::{Host, carries, end_of, frame, give},
    },
    Replay,
};
use crate::capture::reader::Reader;
use rustix::event::{EventfdFlags, eventfd};
use std::{
    fs::File,
    io::{Seek, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
};
use vhost_net_backend::device::port::{Port, PortConfig};

/// Frames that are given to the recorder: fewer than its ring has buffers, and more than it writes at once.
const FRAMES: usize = 400;

struct Bench {
    adapter: Adapter,
    port: Port,
    host: Arc<Host>,
    recording: File,
    /// What the replay begins at.
    begin: OwnedFd,
}

impl Bench {
    /// A port that records, and replays a file of these bytes.
    fn new(replayed: &[u8]) -> Self {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(replayed).expect("there is room");
        file.rewind().expect("a file");
        let recording = tempfile::tempfile().expect("a file");
        let record = recording.try_clone().expect("a descriptor");
        let begin = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("a descriptor");
        let replay =
            Replay { file: file.into(), begin: begin.try_clone().expect("a descriptor"), paced: false };
        let (driver, device) = UnixStream::pair().expect("sockets");
        let host = Arc::new(Host::default());
        let port = Port::adopt(device, PortConfig::new("p0"), host.clone()).expect("threads");
        let adapter = Adapter::pcap("p0", Some(replay), Some(record.into()), driver).expect("a thread");
        Self { adapter, port, host, recording, begin }
    }

    /// Gives the recorder its frames.
    fn give(&self) {
        carries(&self.adapter);
        for number in 0..FRAMES {
            assert!(self.host.with(|_, to| give(to, &frame(number))), "no room for frame {number}");
        }
    }
}

/// Every frame was recorded, whole and in order, and nothing else.
fn assert_whole(mut recording: File) {
    recording.rewind().expect("a file");
    let mut reader = Reader::new(recording).expect("a capture");
    let mut recorded = Vec::new();
    for number in 0..FRAMES {
        assert!(reader.next(&mut recorded).expect("it is whole").is_some(), "frame {number} is missing");
        assert!(recorded == frame(number), "frame {number}");
    }
    assert!(reader.next(&mut recorded).expect("it is whole").is_none());
}

#[test]
fn a_recording_is_whole_when_what_is_replayed_ends_the_port_by_an_error() {
    let bench = Bench::new(b"no capture file");
    bench.give();
    rustix::io::write(&bench.begin, &1_u64.to_ne_bytes()).expect("an eventfd");
    let end = AdapterEnd::File("what is replayed: it is neither a pcap nor a pcapng file".into());
    assert_eq!(end_of(&bench.adapter), end);
    assert_whole(bench.recording);
}

#[test]
fn a_recording_is_whole_when_the_switch_closes_the_port() {
    let bench = Bench::new(b"");
    bench.give();
    bench.port.close();
    assert_eq!(end_of(&bench.adapter), AdapterEnd::PortClosed);
    assert_whole(bench.recording);
}
