//! The thread's loop: who has something to do gets a turn; then it sleeps.

use super::StationSpec;
use super::control::Control;
use super::port::Port;
use anyhow::Context;
use end_station::{Asker, Host, Interface};
use probe::answer::Refusal;
use probe::{Answer, Ask, AskId, FromGuest, Request, VERSION};
use rustix::event::{PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};
use smoltcp::time::Instant;

/// A station, and when it is its turn without a signal.
struct Seat {
    host: Host<Port>,
    due: Option<Instant>,
}

/// All that the thread serves.
pub(super) struct Turns {
    seats: Vec<Seat>,
    control: Control,
    start: std::time::Instant,
}

/// What a descriptor that became ready belongs to.
#[derive(Debug, Clone, Copy)]
enum Ready {
    Listener,
    Asker(Asker),
    Station(usize),
}

impl Turns {
    pub(super) fn new(stations: Vec<StationSpec>, control: Control) -> anyhow::Result<Self> {
        let now = Instant::ZERO;
        let mut seats = Vec::with_capacity(stations.len());
        for StationSpec { name, interfaces } in stations {
            let interfaces = interfaces.into_iter().map(|spec| {
                let (mac, mtu) = (spec.mac(), spec.mtu());
                let wire = Port::new(format!("{name}:{}", spec.name), spec.socket, mtu, now);
                Interface {
                    name: spec.name,
                    mac,
                    mtu,
                    addresses: spec.addresses,
                    gateways: spec.gateways,
                    wire,
                }
            });
            let interfaces = interfaces.collect();
            seats.push(Seat { host: Host::new(name, interfaces, seed()?, now), due: Some(now) });
        }
        Ok(Self { seats, control, start: std::time::Instant::now() })
    }

    pub(super) fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.turn();
            for ready in self.sleep().context("waiting for the stations' descriptors")? {
                self.wake(ready);
            }
            for (asker, station) in self.control.reap() {
                if let Some(station) = station {
                    self.seats[station].host.forget(asker);
                }
            }
        }
    }

    fn now(&self) -> Instant {
        let micros = i64::try_from(self.start.elapsed().as_micros());
        Instant::from_micros(micros.expect("292,000 years of uptime are not reached"))
    }

    /// One round of each station that is due.
    fn turn(&mut self) {
        let now = self.now();
        for seat in &mut self.seats {
            if seat.due.is_none_or(|due| due > now) {
                continue;
            }
            for port in seat.host.wires_mut() {
                port.disarm();
                port.keep(now);
            }
            for (asker, message) in seat.host.step(now) {
                self.control.send(asker, &message);
            }
            let again = seat.host.poll_at(now);
            let mut armed = again;
            for port in seat.host.wires_mut() {
                let wanted = if port.arm() { Some(now) } else { port.poll_at() };
                armed = [armed, wanted].into_iter().flatten().min();
            }
            seat.due = armed;
        }
    }

    /// Until a descriptor is ready or a station is due.
    fn sleep(&mut self) -> rustix::io::Result<Vec<Ready>> {
        let due = self.seats.iter().filter_map(|seat| seat.due).min();
        let now = self.now();
        let timeout = due.map(|due| {
            let left = if due > now { (due - now).total_micros() } else { 0 };
            Timespec { tv_sec: (left / 1_000_000) as i64, tv_nsec: (left % 1_000_000 * 1_000) as i64 }
        });
        let askers = self.control.askers();
        let mut owners: Vec<_> =
            std::iter::once(Ready::Listener).chain(askers.into_iter().map(Ready::Asker)).collect();
        let mut fds: Vec<_> = self.control.poll_fds().collect();
        for (station, seat) in self.seats.iter().enumerate() {
            fds.extend(seat.host.wires().flat_map(Port::poll_fds));
            owners.resize(fds.len(), Ready::Station(station));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let ready = fds.iter().zip(owners).filter(|(fd, _)| fd.revents() != PollFlags::empty());
        Ok(ready.map(|(_, owner)| owner).collect())
    }

    fn wake(&mut self, ready: Ready) {
        match ready {
            Ready::Listener => self.control.accept(),
            Ready::Station(station) => self.seats[station].due = Some(Instant::ZERO),
            Ready::Asker(asker) => {
                self.control.flush(asker);
                for ask in self.control.read(asker) {
                    self.ask(asker, ask);
                }
            }
        }
    }

    fn ask(&mut self, asker: Asker, ask: Ask) {
        let (id, now) = (ask.id, self.now());
        if let Request::Hello(hello) = &ask.request {
            let answer = self.hello(asker, hello.version, &hello.name);
            return self.answer(asker, id, answer);
        }
        let Some(station) = self.control.station(asker) else {
            return self.answer(asker, id, Answer::Refused(Refusal::UnknownGuest));
        };
        let seat = &mut self.seats[station];
        let answer = seat.host.ask(asker, ask, now);
        seat.due = Some(now);
        if let Some(answer) = answer {
            self.answer(asker, id, answer);
        }
    }

    fn hello(&mut self, asker: Asker, version: u16, name: &str) -> Answer {
        if version != VERSION {
            return Answer::Refused(Refusal::OtherVersion(VERSION));
        }
        let Some(station) = self.seats.iter().position(|seat| seat.host.name() == name) else {
            return Answer::Refused(Refusal::UnknownGuest);
        };
        if let Some(before) = self.control.station(asker) {
            self.seats[before].host.forget(asker);
        }
        self.control.choose(asker, station);
        Answer::Ready(self.seats[station].host.ready())
    }

    fn answer(&mut self, asker: Asker, id: AskId, answer: Answer) {
        self.control.send(asker, &FromGuest::Answer { id, answer });
    }
}

/// For sequence numbers and ports.
fn seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty()).context("the kernel gives no random numbers")?;
    Ok(u64::from_ne_bytes(bytes))
}
