//! The driver's handshake against `vhost-user-backend`'s daemon, with a device that sends every frame back.

use super::*;
use crate::features::{EVENT_IDX, VERSION_1, VHOST_USER_PROTOCOL};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::thread::JoinHandle;
use vhost::vhost_user::{Listener, VhostUserProtocolFeatures};
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringMutex, VringT};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

struct Echo {
    memory: Memory,
}

impl VhostUserBackendMut for Echo {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        VERSION_1 | VHOST_USER_PROTOCOL | EVENT_IDX
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    /// Without one the daemon's ring thread would never end.
    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn update_memory(&mut self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    fn handle_event(
        &mut self,
        _ring: u16,
        _events: EventSet,
        rings: &[Self::Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let memory = self.memory.memory();
        let (mut receive, mut transmit) = (rings[0].get_mut(), rings[1].get_mut());
        if !transmit.get_queue().ready() || !receive.get_queue().ready() {
            return Ok(());
        }
        while let Some(chain) = transmit.get_queue_mut().pop_descriptor_chain(memory.clone()) {
            let head = chain.head_index();
            let mut frame = Vec::new();
            for descriptor in chain.readable() {
                let start = frame.len();
                frame.resize(start + descriptor.len() as usize, 0);
                memory.read_slice(&mut frame[start..], descriptor.addr()).map_err(io::Error::other)?;
            }
            let Some(room) = receive.get_queue_mut().pop_descriptor_chain(memory.clone()) else { break };
            let into = room.head_index();
            let buffer = room.writable().next().ok_or(io::ErrorKind::InvalidData)?;
            memory.write_slice(&frame, buffer.addr()).map_err(io::Error::other)?;
            receive.add_used(into, frame.len() as u32).map_err(io::Error::other)?;
            transmit.add_used(head, 0).map_err(io::Error::other)?;
        }
        transmit.get_queue_mut().enable_notification(&*memory).map_err(io::Error::other)?;
        receive.signal_used_queue()
    }
}

/// Serves one connection at `path`; ends when the driver hangs up.
fn echo(path: &Path) -> JoinHandle<()> {
    let mut listener = Listener::new(path, true).expect("a socket");
    std::thread::spawn(move || {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let backend = Arc::new(Mutex::new(Echo { memory: memory.clone() }));
        let mut daemon = VhostUserDaemon::new("echo".into(), backend, memory).expect("a daemon");
        daemon.start(&mut listener).expect("a connection");
        // Both a hang-up and a stop in order end it; which one does not matter here.
        let _ = daemon.wait();
    })
}

/// Sends `count` frames and takes them back, asleep on the call descriptor in between.
fn round_trips(driver: &mut Driver, count: u8) {
    let pair = driver.pair();
    for number in 0..count {
        let sent = [number; 60];
        assert!(pair.transmit(&sent));
        pair.flush();
        let mut back = Vec::new();
        while back.is_empty() {
            if !pair.arm() {
                let mut fds = [PollFd::new(&pair.call, PollFlags::IN)];
                let ready = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).expect("poll");
                assert_eq!(ready, 1, "no interrupt within 10 s for frame {number}");
            }
            pair.drain_call();
            pair.receive(|_, frame| back.push(frame.to_vec()));
        }
        assert_eq!(back, [sent.to_vec()]);
        assert_eq!(pair.fault(), None);
    }
    pair.reap();
}

#[test]
fn frames_go_round_and_a_device_started_anew_goes_on_where_the_old_one_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo.sock");
    let first = echo(&path);
    let config = Config { queue_pairs: 1, ..Config::default() };
    let mut driver =
        Driver::connect(UnixStream::connect(&path).expect("listening"), &config).expect("a handshake");
    assert_eq!(driver.features(), VERSION_1 | VHOST_USER_PROTOCOL | EVENT_IDX);
    round_trips(&mut driver, 20);
    assert!(driver.is_connected());

    let again = folder.path().join("again.sock");
    let second = echo(&again);
    driver.reconnect(UnixStream::connect(&again).expect("listening")).expect("a second handshake");
    first.join().expect("the first device ends when its driver is gone");
    round_trips(&mut driver, 20);
    assert_eq!(driver.stop().expect("GET_VRING_BASE"), [40, 40]);
    second.join().expect("the second device ends");
}

#[test]
fn a_device_that_stays_silent_ends_the_handshake_in_time() {
    let connect = |config: &Config| {
        let (ours, _silent) = UnixStream::pair().expect("a pair");
        let begin = std::time::Instant::now();
        let error = Driver::connect(ours, config).err().expect("nobody answers");
        (error, begin.elapsed())
    };
    let timeout = Duration::from_millis(50);
    let (late, after) = connect(&Config { timeout, ..Config::default() });
    assert!(matches!(late, DriverError::Late { step: "GET_FEATURES", .. }), "{late}");
    assert!(late.to_string().contains("GET_FEATURES within 0.05 s") && after >= timeout, "{late}, {after:?}");
    let asked = Some(Arc::new(AtomicBool::new(true)));
    let (ended, after) = connect(&Config { cancel: asked, ..Config::default() });
    assert!(matches!(ended, DriverError::Cancelled { step: "SET_OWNER" | "GET_FEATURES" }), "{ended}");
    assert!(after < Config::default().timeout, "{after:?}");
}
