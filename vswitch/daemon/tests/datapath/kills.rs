//! Guests that are killed, stopped or lose their memory under traffic: their ports say so, and nobody else notices.

use crate::{
    description::description,
    lab::{DEADLINE, Lab, access, frame, mac, send},
    left_out::left_out,
    process::{Guest, Holdings, alone, guest_socket, heap, status},
    traffic::{Pair, Running},
};
use rustix::process::Signal;
use std::{os::unix::net::UnixStream, path::Path, time::Instant};
use vhost_net_backend::driver::{Config, Driver, MemoryConfig};
use vswitch_core::{description::Link, drop_reason::DropReason, mac::MacAddr};
use vswitchd::control::protocol::{PortState, Snapshot};

/// The neighbours' ports, and that of the guest whom the victims send to.
const NEIGHBOURS: [usize; 2] = [0, 1];
const PARTNER: usize = 2;

/// The victims' ports: several, since a port pauses between connections that end soon.
const VICTIMS: std::ops::Range<usize> = 3..19;

const KILLS: usize = 200;

/// Bytes of heap that they may leave: words of why a port's last guest went, room in lists. One ring is 25 KiB.
const KEPT: usize = 24 << 10;

const LOSSES_OF_MEMORY: usize = 100;

fn links() -> Vec<Link> {
    vec![access(10); VICTIMS.end]
}

/// The station address of the guest in this process.
fn station(process: u32) -> MacAddr {
    let [_, a, b, c] = process.to_be_bytes();
    MacAddr::new([2, 0, 1, a, b, c])
}

/// A guest that sends to the partner and takes what comes, until the switch goes away (or someone kills it).
fn be_a_guest(socket: &Path) {
    let mut driver = Driver::connect(UnixStream::connect(socket).unwrap(), &Config::default()).unwrap();
    let sent = frame(mac(PARTNER), station(std::process::id()), 200, 1);
    while driver.is_connected() {
        let pair = driver.pair();
        while pair.transmit(&sent) {}
        pair.flush();
        pair.receive(|_, _| {});
        std::thread::yield_now();
    }
}

/// The lab, with neighbours who exchange frames and a partner who takes what it gets.
struct Scene {
    lab: Lab,
    neighbours: Running,
    partner: Driver,
}

impl Scene {
    fn new(workers: u16) -> Self {
        let lab = Lab::with_workers(&description(&links()), workers);
        let neighbours = Pair::new(&lab, NEIGHBOURS);
        let mut partner = lab.attach(PARTNER, &Config::default());
        send(&mut partner, &frame(MacAddr::BROADCAST, mac(PARTNER), 60, 0));
        lab.wait(|seen| seen.ports[PARTNER].counters.from_port.frames == 1);
        Self { lab, neighbours: neighbours.start(), partner }
    }

    /// Waits until the lab is so, while the partner takes its frames.
    fn wait(&mut self, so: impl Fn(&Snapshot) -> bool) -> Snapshot {
        self.lab.wait(|seen| {
            self.partner.pair().receive(|_, _| {});
            so(seen)
        })
    }

    /// Waits until `frames` more came from each of these ports.
    fn frames_come(&mut self, ports: &[usize], frames: u64) {
        let now = self.lab.datapath.snapshot().unwrap();
        let came = |seen: &Snapshot, port: usize| seen.ports[port].counters.from_port.frames;
        self.wait(|seen| ports.iter().all(|port| came(seen, *port) >= came(&now, *port) + frames));
    }

    /// The neighbours go on and lost nothing; the law holds; no panic.
    fn end(self) -> Snapshot {
        self.neighbours.flows();
        let neighbours = self.neighbours.stop();
        let end = self.lab.lawful();
        neighbours.lost_nothing(&end);
        assert!(end.workers.iter().all(|worker| worker.panics == 0), "{:#?}", end.workers);
        end
    }
}

/// Kills a guest on every victim's port at once, under traffic.
fn a_round_of_kills(scene: &mut Scene, name: &str) {
    let ports: Vec<usize> = VICTIMS.collect();
    let guests: Vec<_> = ports.iter().map(|port| Guest::start(name, &scene.lab.socket(*port))).collect();
    scene.wait(|seen| ports.iter().all(|port| seen.ports[*port].state == PortState::Up));
    scene.frames_come(&ports, 100);
    guests.iter().for_each(|guest| guest.signal(Signal::KILL));
    drop(guests);
    let says_why = |seen: &Snapshot, port: usize| seen.ports[port].detail == "the VMM closed its socket";
    let gone = scene.wait(|seen| ports.iter().all(|port| says_why(seen, *port)));
    assert!(ports.iter().all(|port| gone.ports[*port].counters.faults == 0), "a kill is no fault");
}

#[test]
fn two_hundred_killed_guests_leave_nothing_behind() {
    const NAME: &str = "kills::two_hundred_killed_guests_leave_nothing_behind";
    if let Some(socket) = guest_socket() {
        return be_a_guest(&socket);
    }
    alone(NAME, || {
        let mut scene = Scene::new(1);
        let before = Holdings::settled();
        // The first round warms up what is kept on purpose: the allocator's and the threads' caches.
        a_round_of_kills(&mut scene, NAME);
        before.regained(DEADLINE);
        let memory = heap();
        for _ in 0..KILLS.div_ceil(VICTIMS.len()) {
            a_round_of_kills(&mut scene, NAME);
            before.regained(DEADLINE);
        }
        let grown = heap().saturating_sub(memory);
        assert!(grown < KEPT, "{grown} bytes more on the heap than before {KILLS} kills");
        scene.end();
    });
}

/// How a victim's memory goes away.
#[derive(Clone, Copy)]
enum Loss {
    /// The file keeps so many bytes. The rings lie in the first 64 KiB, and what is behind them is buffers.
    Truncated(u64),
    Punched,
}

impl Loss {
    /// Takes it away, and says what the port must say then.
    fn strike(self, victim: &Driver) -> &'static str {
        let memory = victim.memory();
        match self {
            Self::Truncated(kept) => {
                memory.truncate(kept).unwrap();
                "guest memory vanished while in use"
            }
            // Zeros stand where the rings were: whichever is read first is wrong.
            Self::Punched => {
                memory.punch(0..memory.len()).unwrap();
                "ring "
            }
        }
    }
}

/// One victim after the other loses its memory under traffic, `rounds` in all. Whoever of the workers finds out, it is one fault.
fn lose_memory(workers: u16, memory: MemoryConfig, losses: &[Loss], rounds: usize) {
    let mut scene = Scene::new(workers);
    let config = Config { memory, ..Config::default() };
    for round in 0..rounds {
        let port = VICTIMS.start + round % VICTIMS.len();
        let faults = |seen: &Snapshot| seen.ports[port].counters.faults;
        let before = faults(&scene.lab.datapath.snapshot().unwrap());
        let mut victim = scene.lab.attach(port, &config);
        let sent = frame(mac(PARTNER), mac(port), 1000, round as u64);
        let end = Instant::now() + DEADLINE;
        for _ in 0..300 {
            while !victim.pair().transmit(&sent) {
                victim.pair().flush();
                scene.partner.pair().receive(|_, _| {});
                assert!(Instant::now() < end, "round {round}: nothing moves");
                std::thread::yield_now();
            }
        }
        victim.pair().flush();
        // From here on nobody touches it in this process but the switch.
        let words = losses[round % losses.len()].strike(&victim);
        let to_victim = frame(mac(port), mac(PARTNER), 1000, round as u64);
        let seen = scene.lab.wait(|seen| {
            let pair = scene.partner.pair();
            pair.transmit(&to_victim);
            pair.flush();
            pair.receive(|_, _| {});
            faults(seen) == before + 1
        });
        let view = &seen.ports[port];
        assert!(view.state == PortState::Faulted && view.detail.contains(words), "round {round}: {view:#?}");
    }
    let end = scene.end();
    let faults: u64 = end.ports.iter().map(|port| port.counters.faults).sum();
    assert_eq!(faults, rounds as u64, "no other port was stopped");
}

#[test]
fn memory_that_vanishes_under_traffic_stops_that_port_only() {
    let losses = [Loss::Truncated(0), Loss::Truncated(4096), Loss::Truncated(64 << 10), Loss::Punched];
    let memory = MemoryConfig { sealed: false, ..MemoryConfig::default() };
    lose_memory(1, memory.clone(), &losses, LOSSES_OF_MEMORY);
    lose_memory(2, memory, &losses, LOSSES_OF_MEMORY);
}

#[test]
fn huge_pages_that_vanish_under_traffic_stop_that_port_only() {
    let free = status("/proc/meminfo", "HugePages_Free");
    if free < 8 {
        return left_out("guest memory of huge pages: 8 of 2 MiB must be free (sysctl vm.nr_hugepages=16)");
    }
    let memory = MemoryConfig { sealed: false, huge_pages: true, ..MemoryConfig::default() };
    lose_memory(1, memory, &[Loss::Truncated(0)], LOSSES_OF_MEMORY / 4);
}

#[test]
fn a_stopped_guest_costs_the_others_nothing() {
    const NAME: &str = "kills::a_stopped_guest_costs_the_others_nothing";
    if let Some(socket) = guest_socket() {
        return be_a_guest(&socket);
    }
    let mut scene = Scene::new(1);
    let port = VICTIMS.start;
    let guest = Guest::start(NAME, &scene.lab.socket(port));
    scene.frames_come(&[port], 100);
    guest.signal(Signal::STOP);
    // It has 256 buffers; whatever more is sent to it finds none, and holds up nobody.
    for number in 0..600 {
        let end = Instant::now() + DEADLINE;
        while !scene.partner.pair().transmit(&frame(station(guest.id()), mac(PARTNER), 60, number)) {
            assert!(Instant::now() < end, "the sender is held up");
            std::thread::yield_now();
        }
        scene.partner.pair().flush();
        if number % 32 == 0 {
            scene.neighbours.flows();
        }
    }
    let full =
        |seen: &Snapshot| seen.ports[port].counters.to_port.dropped.get(&DropReason::NoBuffer).copied();
    let seen = scene.wait(|seen| full(seen) > Some(0));
    assert_eq!(seen.ports[port].state, PortState::Up, "it may go on whenever it likes");
    guest.signal(Signal::CONT);
    scene.frames_come(&[port], 100);
    scene.end();
}

#[test]
fn a_guest_that_is_killed_while_two_workers_deliver_to_it_costs_the_others_nothing() {
    const NAME: &str =
        "kills::a_guest_that_is_killed_while_two_workers_deliver_to_it_costs_the_others_nothing";
    if let Some(socket) = guest_socket() {
        return be_a_guest(&socket);
    }
    // Rings are given out in turn: the two who send have a worker each.
    const OTHER: usize = 3;
    let mut scene = Scene::new(2);
    let mut other = scene.lab.attach(OTHER, &Config::default());
    for port in (4..VICTIMS.end).chain(4..VICTIMS.end) {
        let guest = Guest::start(NAME, &scene.lab.socket(port));
        scene.frames_come(&[port], 1);
        let victim = station(guest.id());
        let mut send_on = |scene: &mut Scene, so: &dyn Fn(&Snapshot) -> bool| {
            scene.lab.wait(|seen| {
                for (place, sender) in [(PARTNER, &mut scene.partner), (OTHER, &mut other)] {
                    let pair = sender.pair();
                    let sent = frame(victim, mac(place), 300, 0);
                    (0..32).take_while(|_| pair.transmit(&sent)).for_each(drop);
                    pair.flush();
                    pair.receive(|_, _| {});
                }
                so(seen)
            })
        };
        let sent = |seen: &Snapshot, place: usize| seen.ports[place].counters.from_port.unicast;
        let before = scene.lab.lawful();
        let enough = |seen: &Snapshot| {
            [PARTNER, OTHER].iter().all(|place| sent(seen, *place) >= sent(&before, *place) + 100)
        };
        let under_way = send_on(&mut scene, &enough);
        let delivered = |seen: &Snapshot| seen.ports[port].counters.to_port.delivered;
        assert!(delivered(&under_way) > delivered(&before), "{:#?}", under_way.ports[port]);
        guest.signal(Signal::KILL);
        send_on(&mut scene, &|seen| seen.ports[port].detail == "the VMM closed its socket");
        scene.lab.lawful();
    }
    let end = scene.end();
    assert!(end.ports.iter().all(|port| port.counters.faults == 0), "a kill is no fault");
}
