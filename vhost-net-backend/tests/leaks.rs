//! Hostile connections leave nothing behind: descriptors, mappings and threads of the process return to their baseline.
//!
//! A process of its own, so that no other test's descriptors are counted.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vhost_net_backend::device::port::{Port, PortConfig};
use vhost_net_backend::device::ring::RunningRing;
use vhost_net_backend::device::{Connection, PortHost};
use vhost_net_backend::driver::misbehave::RawFrontend;
use vhost_net_backend::driver::{Config, Driver};

/// Lets rings go: nobody uses them here.
struct Nobody;

impl PortHost for Nobody {
    fn attach(&self, _: u16, _: RunningRing) {}

    fn detach(&self, _: u16) -> Option<RunningRing> {
        None
    }

    fn connection(&self, _: Connection) {}
}

fn port() -> (UnixStream, Port) {
    let (ours, theirs) = UnixStream::pair().expect("a socketpair");
    (ours, Port::adopt(theirs, PortConfig::new("leaks"), Arc::new(Nobody)).expect("a port"))
}

/// Open descriptors, mappings, threads.
fn held() -> [usize; 3] {
    let entries = |path: &str| std::fs::read_dir(path).expect("procfs").count();
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    // Stacks and heaps are the allocator's to keep; what guests share is named.
    let shared = maps.lines().filter(|line| line.contains("memfd:")).count();
    [entries("/proc/self/fd"), shared, entries("/proc/self/task")]
}

/// Every request with every number of descriptors, each on a connection of its own; then a whole driver.
fn one_round() {
    let file = std::fs::File::open("/dev/null").expect("a descriptor");
    for request in 0..46 {
        for count in [0, 1, 2, 8, 9, 32] {
            let (socket, port) = port();
            let frontend = RawFrontend::new(socket.try_clone().expect("a dup"));
            frontend.send(request, &[0; 8], &vec![file.as_fd(); count]).expect("sent");
            // What was sent is still read and judged before the end is seen.
            socket.shutdown(std::net::Shutdown::Write).expect("an end");
            assert!(frontend.closed_within(Duration::from_secs(10)));
            port.close();
        }
    }
    let (socket, port) = port();
    drop(Driver::connect(socket, &Config::default()).expect("a handshake"));
    port.close();
}

#[test]
fn every_message_with_every_number_of_descriptors_leaves_nothing_behind() {
    one_round();
    let baseline = held();
    (0..10).for_each(|_| one_round());
    // A joined thread's entry goes a moment after its join.
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while held() != baseline && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(held(), baseline, "descriptors, shared mappings, threads");
}
