//! A lab in which nothing happens costs next to nothing: no wake-ups, little memory.

use crate::{
    lab::{Lab, access},
    process::{alone, status},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    time::{ClockId, clock_gettime},
};
use vhost_net_backend::driver::{Config, Driver};
use vswitchd::control::protocol::PortState;

/// How long the idle lab is watched, in seconds.
const WATCHED: i64 = 2;

/// Waits for what cannot happen, for as long as the lab is watched.
fn nothing_happens() {
    let never = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let mut waited = [PollFd::new(&never, PollFlags::IN)];
    let timeout = Timespec { tv_sec: WATCHED, tv_nsec: 0 };
    assert_eq!(poll(&mut waited, Some(&timeout)).unwrap(), 0);
}

/// Voluntary context switches of every thread of this process but the calling one: each is a wake-up.
fn wakeups() -> u64 {
    let own = rustix::thread::gettid().as_raw_nonzero().get().to_string();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap());
    let others = threads.filter(|thread| thread.file_name().to_string_lossy() != own);
    others
        .map(|thread| status(&thread.path().join("status").to_string_lossy(), "voluntary_ctxt_switches"))
        .sum()
}

/// CPU time of this process so far, in microseconds.
fn cpu_micros() -> u64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000 + spent.tv_nsec as u64 / 1000
}

#[test]
fn a_hundred_idle_ports_wake_nobody() {
    alone("idle::a_hundred_idle_ports_wake_nobody", || {
        let lab = Lab::new(&vec![access(10); 100]);
        let _guests: Vec<Driver> = (0..100).map(|place| lab.attach(place, &Config::default())).collect();
        // A look wakes the worker, which goes to sleep again: the look after it finds one sleep more.
        let before = lab.datapath.snapshot().unwrap().workers[0].sleeps;
        let settled = lab.wait(|seen| seen.workers[0].sleeps > before).workers[0].sleeps;
        let (woken, spent) = (wakeups(), cpu_micros());
        nothing_happens();
        // First the CPU: counting wake-ups takes some.
        let spent = cpu_micros() - spent;
        let woken = wakeups() - woken;
        assert!(spent < WATCHED as u64 * 1000, "{spent} µs of CPU in {WATCHED} s, a thousandth or more");
        assert!(woken < 2 * WATCHED as u64, "{woken} wake-ups in {WATCHED} s, of all threads together");
        let seen = lab.lawful();
        assert!(seen.workers[0].sleeps <= settled + 2, "the worker slept since {settled} times: {seen:#?}");
        assert!(seen.ports.iter().all(|port| port.state == PortState::Up));
    });
}

#[test]
fn a_further_port_costs_at_most_200_kb() {
    const FURTHER: usize = 100;
    alone("idle::a_further_port_costs_at_most_200_kb", || {
        let lab = Lab::new(&vec![access(10); 10 + FURTHER]);
        // The drivers live in this process too and count with the ports; the guests' memory is a file's, and does not.
        let config = Config::default();
        let attach = |places: std::ops::Range<usize>| -> Vec<Driver> {
            places.map(|place| lab.attach(place, &config)).collect()
        };
        let resident = || status("/proc/self/status", "RssAnon");
        let _first = attach(0..10);
        let before = resident();
        let _further = attach(10..10 + FURTHER);
        let each = resident().saturating_sub(before) / FURTHER as u64;
        assert!(each <= 200, "{each} KiB for each further port");
        lab.lawful();
    });
}
