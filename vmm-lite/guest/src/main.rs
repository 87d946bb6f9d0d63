//! The bundled guest: what a virtual machine runs that was given nothing to run.
//!
//! [`boot`] brings it to ring 3, [`machine`] is what is below it, [`console`] whom it talks to, [`asked`] who asks it to
//! reach others. [`registers`] and [`ring`] make a [`nic`]; [`movers`] are what moves frames without being a host. It
//! polls, and waits at a port of the VMM when it has nothing to do, for ring 3 cannot halt the CPU.
//! Told so, it does things at [`random`] before.

#![no_std]
#![no_main]

extern crate alloc;

mod asked;
mod boot;
mod buffers;
mod clock;
mod console;
mod freestanding;
mod heap;
mod machine;
mod movers;
#[expect(dead_code, reason = "a device and a driver need more names than either")]
#[path = "../../src/virtio/names.rs"]
mod names;
mod nic;
mod pinging;
#[expect(dead_code, reason = "the VMM serves more ports than this guest uses")]
#[path = "../../src/ports.rs"]
mod ports;
mod random;
mod registers;
mod ring;
mod transfer;
mod wanted;

use alloc::{boxed::Box, format, string::String, vec::Vec};
use asked::Line;
use boot::StartInfo;
use clock::Clock;
use console::{Typed, say};
use core::{net::IpAddr, ops::Range, panic::PanicInfo, time::Duration};
use end_station::{Asker, Host, Interface};
use ipnet::IpNet;
use machine::{CONSOLE, PROBE};
use movers::Mover;
use nic::Nic;
use pinging::Pinging;
use probe::{Answer, Ask, AskId, FromGuest, Mac, Request};
use registers::Registers;
use smoltcp::time::Instant;
use wanted::Wanted;

/// How long it waits at most before it looks around anyway.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long it does not look at its links, which costs an exit each, whatever calls it.
const LINK_INTERVAL: Duration = Duration::from_millis(20);
/// How often in a row it turns to its interfaces before it looks at its serial ports, which costs exits.
const MOST_TURNS: u32 = 64;

/// Where the VMM may have virtio devices, each with a page of its own.
const DEVICES: Range<usize> = 0xd000_0000..0xd001_2000;
/// How long movers look for frames in vain before the guest waits.
const SPIN: Duration = Duration::from_micros(50);
/// How long they work before the others have their turn.
const STINT: Duration = Duration::from_millis(2);

/// Who asked: somebody at the console, or at the probe's line.
const TYPIST: Asker = Asker(0);
const PROBER: Asker = Asker(1);
/// Whoever has something sent, from the console or from the start.
const SENDER: Asker = Asker(2);

/// The first Rust that runs, in ring 3.
#[expect(unsafe_code, reason = "the way in: this is where promises about the machine begin")]
extern "C" fn start(info: *const StartInfo) -> ! {
    let began = machine::cycles();
    // SAFETY: this is the entry's own call, the only one, and nothing ran before it.
    let found = unsafe { boot::find(info) };
    let memory = found.free.end >> 20;
    // SAFETY: nobody uses what is behind the image, and this is the only call.
    unsafe { heap::give(found.free) };
    let line = found.command_line;
    let khz = values(line, "tsc_early_khz=").find_map(|khz| khz.parse().ok()).unwrap_or_default();
    let clock = Clock::new(khz, began).expect("tsc_early_khz= on the command line: the TSC's rate");
    let version = env!("CARGO_PKG_VERSION");
    say!("vnet guest {version}: {memory} MiB, TSC {khz} kHz, up {} us", clock.micros());
    if let Some((seconds, seed)) = values(line, "vnet.random=").find_map(|words| words.split_once(',')) {
        let devices = values(line, "virtio_mmio.device=").filter_map(registers::place);
        let [seconds, seed] = [seconds, seed].map(|word| word.parse().expect("vnet.random=SECONDS,SEED"));
        random::run(seconds, seed, devices.map(|base| base as u64).collect(), clock);
    }
    let mut guest = Guest::new(line, clock);
    values(line, "vnet.ping=").for_each(|to| guest.ping(to));
    values(line, "vnet.serve=").for_each(|port| guest.serve(port));
    values(line, "vnet.send=").for_each(|what| guest.send(what));
    CONSOLE.listen();
    PROBE.listen();
    guest.line.tell(&FromGuest::Ready(guest.host.ready()));
    guest.run()
}

/// What the command line says behind each `key`.
fn values<'a>(line: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    line.split_ascii_whitespace().filter_map(move |word| word.strip_prefix(key))
}

/// An interface as the machine has it, and as it is to be.
struct Found {
    nic: Nic,
    name: String,
    mtu: u16,
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
}

impl Found {
    /// As a host has it.
    fn interface(self) -> Interface<Nic> {
        let Self { nic, name, mtu, addresses, gateways } = self;
        Interface { name, mac: Mac::new(nic.mac()), mtu, addresses, gateways, wire: nic }
    }
}

/// The interfaces: all that the machine has, named and addressed as the command line wants it.
fn interfaces(line: &str, clock: Clock) -> Vec<Found> {
    let wanted: Vec<Wanted<'_>> = values(line, "vnet.if=").filter_map(Wanted::read).collect();
    let wanted = |mac| wanted.iter().find(|wanted| wanted.mac == mac);
    let (mut interfaces, mut taken) = (Vec::new(), Vec::new());
    for word in values(line, "virtio_mmio.device=") {
        // The user's words come before the VMM's, and may say anything.
        let place = registers::place(word)
            .filter(|base| DEVICES.contains(base) && base.is_multiple_of(0x1000) && !taken.contains(base));
        taken.extend(place);
        #[expect(unsafe_code, reason = "the command line says where devices are")]
        // SAFETY: no memory is there but registers of a device, or nothing; and nobody else has been given the place.
        let found = place.and_then(|base| unsafe { Registers::find(base) });
        // Another kind of device, or none.
        let Some(registers) = found else { continue };
        let mtu = |mac| wanted(mac).and_then(|wanted| wanted.mtu).unwrap_or(wanted::DEFAULT_MTU);
        let nic = match Nic::new(registers, mtu) {
            Ok(nic) => nic,
            Err(why) => {
                say!("{word}: {why}");
                continue;
            }
        };
        let (mac, wanted) = (nic.mac(), wanted(nic.mac()));
        let name = wanted.map_or_else(|| format!("eth{}", interfaces.len()), |wanted| wanted.name.into());
        let addresses = wanted.map_or_else(Vec::new, |wanted| wanted.addresses.clone());
        let gateways = wanted.map_or_else(Vec::new, |wanted| wanted.gateways.clone());
        say!("{name}: {mac:02x?}, {addresses:?}, up {} us", clock.micros());
        interfaces.push(Found { nic, name, mtu: mtu(mac), addresses, gateways });
    }
    interfaces
}

/// All that runs here.
struct Guest {
    clock: Clock,
    host: Host<Nic>,
    /// What has interfaces that the host has not.
    movers: Vec<Box<dyn Mover>>,
    line: Line,
    pinging: Option<Pinging>,
    links: Links,
}

/// When the links of the host's interfaces were looked at.
#[derive(Default)]
struct Links {
    /// Not since they began.
    last: Duration,
    /// A device may have called since, because a link has changed.
    stale: bool,
}

impl Guest {
    fn new(line: &str, clock: Clock) -> Self {
        let mut found = interfaces(line, clock);
        // Of ports and sequence numbers: guests differ by their MAC addresses, boots by their time.
        let [a, b, c, d, e, f] = found.first().map_or([0; 6], |first| first.nic.mac());
        let seed = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) ^ machine::cycles();
        let (reflected, blasted) = (values(line, "vnet.reflect="), values(line, "vnet.blast="));
        let movers = movers::of(reflected, blasted, values(line, "vnet.sink="), &mut found);
        let interfaces = found.into_iter().map(Found::interface).collect();
        let name = values(line, "vnet.hostname=").next().unwrap_or("guest");
        let host = Host::new(name.into(), interfaces, seed, instant(clock));
        let (line, pinging, links) = (Line::default(), None, Links::default());
        Self { clock, host, movers, line, pinging, links }
    }

    /// For ever.
    fn run(mut self) -> ! {
        let (mut typed, mut turns) = (Typed::default(), 0);
        loop {
            let moves = self.move_frames();
            for (asker, message) in self.host.step(instant(self.clock)) {
                self.answered(asker, message);
            }
            turns += 1;
            let now = instant(self.clock);
            let due = self.host.poll_at(now);
            let goes_on = moves || due.is_some_and(|due| due <= now) || self.host.wires().any(Nic::has_work);
            if goes_on && turns < MOST_TURNS {
                continue;
            }
            turns = 0;
            let mut heard = false;
            while let Some(line) = typed.next_line() {
                heard = true;
                self.obey(&line);
            }
            for ask in self.line.asks() {
                heard = true;
                self.ask(ask);
            }
            self.links.stale |= goes_on;
            let look = self.look_at_links();
            if !goes_on && !heard {
                let limit = due.map_or(LONGEST_WAIT, |due| Duration::from(due - now));
                self.wait(limit.min(look));
                self.links.stale = true;
            }
        }
    }

    /// Lets the movers work until there is nothing to move for a while, or others must have their turn: then true.
    fn move_frames(&mut self) -> bool {
        if self.movers.is_empty() {
            return false;
        }
        let began = machine::cycles();
        let (spin, stint) = (self.clock.cycles(SPIN), self.clock.cycles(STINT));
        let mut last = began;
        loop {
            let moved = self.movers.iter_mut().fold(false, |moved, mover| mover.turn() | moved);
            let now = machine::cycles();
            if moved {
                last = now;
            }
            if now.saturating_sub(last) > spin {
                return false;
            }
            if now.saturating_sub(began) > stint {
                return true;
            }
            if !moved {
                core::hint::spin_loop();
            }
        }
    }

    /// Looks at the links if one may have changed, but not too often: how long it may wait until then.
    fn look_at_links(&mut self) -> Duration {
        if !self.links.stale {
            return LONGEST_WAIT;
        }
        let now = self.clock.now();
        let next = self.links.last + LINK_INTERVAL;
        if now < next {
            return next - now;
        }
        self.host.wires_mut().for_each(Nic::look_at_link);
        self.links = Links { last: now, stale: false };
        LONGEST_WAIT
    }

    /// Does nothing until a device calls, or this time has passed. Interfaces call meanwhile, and else never.
    fn wait(&mut self, limit: Duration) {
        self.each_nic(&mut |nic| nic.call(true));
        // Looked at only now: what comes later is called for.
        let mut idle = !self.movers.iter().any(|mover| mover.has_work());
        self.host.wires().for_each(|nic| idle &= !nic.has_work());
        if idle {
            machine::wait(limit);
        }
        self.each_nic(&mut |nic| nic.call(false));
    }

    fn each_nic(&mut self, each: &mut dyn FnMut(&Nic)) {
        self.host.wires().for_each(&mut *each);
        let movers = self.movers.iter_mut().flat_map(|mover| mover.nics());
        movers.for_each(|(_, nic)| each(nic));
    }

    /// Takes a question from the probe's line.
    fn ask(&mut self, ask: Ask) {
        let id = ask.id;
        let over = matches!(ask.request, Request::Shutdown);
        let answer = match &ask.request {
            Request::Shutdown => Some(Answer::Done),
            // Whoever greets begins anew: what was asked before is nobody's any more.
            Request::Hello(_) => {
                self.host.forget(PROBER);
                self.host.ask(PROBER, ask, instant(self.clock))
            }
            _ => self.host.ask(PROBER, ask, instant(self.clock)),
        };
        if let Some(answer) = answer {
            self.line.tell(&FromGuest::Answer { id, answer });
        }
        if over {
            machine::power_off();
        }
    }

    /// Gives an answer that took its time to whoever asked.
    fn answered(&mut self, asker: Asker, message: FromGuest) {
        match message {
            FromGuest::Answer { answer, .. } if asker == TYPIST => self.pinged(&answer),
            FromGuest::Answer { answer, .. } if asker == SENDER => transfer::say_end(&answer),
            message => self.line.tell(&message),
        }
    }

    /// Does what was typed.
    fn obey(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("poweroff", "") => machine::power_off(),
            ("reset", "") => machine::reset(),
            ("panic", "") => panic!("as asked"),
            ("uptime", "") => say!("up {} us", self.clock.micros()),
            ("ping", to) => self.ping(to),
            ("send", what) => self.send(what),
            ("serve", port) => self.serve(port),
            ("served", port) => self.served(port),
            ("begin", "") => self.movers.iter_mut().for_each(|mover| mover.begin()),
            ("frames", "") => self.movers.iter().for_each(|mover| mover.report()),
            _ => {
                say!(
                    "ping ADDRESS, send ADDRESS PORT BYTES, serve PORT, served PORT, begin, frames, uptime, poweroff, reset, panic"
                );
            }
        }
    }

    /// Pings an address until it answers, and nothing that was pinged before.
    fn ping(&mut self, to: &str) {
        let Some(pinging) = Pinging::new(to) else { return say!("{to}: no address") };
        self.host.forget(TYPIST);
        let ask = pinging.ask();
        self.pinging = Some(pinging);
        self.request(ask);
    }

    /// Goes on with what is pinged, or says how it ended.
    fn pinged(&mut self, answer: &Answer) {
        let Some(mut pinging) = self.pinging.take() else { return };
        if let Some(ask) = pinging.goes_on(answer, self.clock.now()) {
            self.pinging = Some(pinging);
            self.request(ask);
        }
    }

    /// Sends bytes to a sink.
    fn send(&mut self, what: &str) {
        let Some(request) = transfer::send(what) else { return say!("{what}: no ADDRESS PORT BYTES") };
        self.have_done(request);
    }

    /// Opens a sink.
    fn serve(&mut self, port: &str) {
        let Ok(port) = port.parse() else { return say!("{port}: no port") };
        self.have_done(Request::Serve { port });
    }

    /// Says what a sink got last.
    fn served(&mut self, port: &str) {
        let Ok(port) = port.parse() else { return say!("{port}: no port") };
        self.have_done(Request::Served { port });
    }

    fn have_done(&mut self, request: Request) {
        let ask = Ask { id: AskId::new(0), request };
        if let Some(answer) = self.host.ask(SENDER, ask, instant(self.clock)) {
            transfer::say_end(&answer);
        }
    }

    fn request(&mut self, ask: Ask) {
        if let Some(answer) = self.host.ask(TYPIST, ask, instant(self.clock)) {
            self.pinged(&answer);
        }
    }
}

/// Now, as smoltcp has it.
fn instant(clock: Clock) -> Instant {
    Instant::from_micros(clock.micros() as i64)
}

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    say!("guest panic: {info}");
    machine::panicked()
}
