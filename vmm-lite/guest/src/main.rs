//! The bundled guest: what a virtual machine runs that was given nothing to run.
//!
//! [`boot`] brings it to ring 3, [`machine`] is what is below it, [`console`] whom it talks to. It polls, and waits at a
//! port of the VMM when it has nothing to do, for ring 3 cannot halt the CPU.

#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod clock;
mod console;
mod freestanding;
mod heap;
mod host;
mod machine;
mod nic;
#[expect(dead_code, reason = "the VMM serves more ports than this guest uses")]
#[path = "../../src/ports.rs"]
mod ports;

use alloc::vec::Vec;
use boot::StartInfo;
use clock::Clock;
use console::{Typed, say};
use core::{net::IpAddr, panic::PanicInfo, time::Duration};
use host::{Host, Wanted};
use nic::Nic;

/// How long it waits at most before it looks around anyway.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

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
    say!("vnet guest {version}: {memory} MiB, TSC {khz} kHz, up {} us", clock.now().as_micros());
    let mut guest = Guest { clock, hosts: hosts(line, clock) };
    values(line, "vnet.ping=").for_each(|to| guest.ping(to));
    machine::listen();
    let mut typed = Typed::default();
    loop {
        while let Some(line) = typed.next_line() {
            guest.obey(&line);
        }
        let now = clock.now();
        let limit = guest.hosts.iter_mut().filter_map(|host| host.work(now)).min();
        if limit != Some(Duration::ZERO) {
            machine::wait(limit.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
        }
    }
}

/// What the command line says behind each `key`.
fn values<'a>(line: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    line.split_ascii_whitespace().filter_map(move |word| word.strip_prefix(key))
}

/// The interfaces: all that the machine has, named and addressed as the command line wants it.
fn hosts(line: &str, clock: Clock) -> Vec<Host> {
    let wanted: Vec<Wanted<'_>> = values(line, "vnet.if=").filter_map(Wanted::read).collect();
    let mut hosts = Vec::new();
    for word in values(line, "virtio_mmio.device=") {
        #[expect(unsafe_code, reason = "the command line says where devices are")]
        // SAFETY: the VMM wrote the command line, and each device stands on it once.
        let found = nic::place(word).map(|base| unsafe { Nic::new(base) });
        let nic = match found {
            Some(Ok(Some(nic))) => nic,
            Some(Err(why)) => {
                say!("{word}: {why}");
                continue;
            }
            // Another kind of device, or none.
            Some(Ok(None)) | None => continue,
        };
        let mac = nic.mac();
        let (name, addresses) = wanted
            .iter()
            .find(|wanted| wanted.mac == mac)
            .map_or(("eth", &[][..]), |wanted| (wanted.name, &wanted.addresses[..]));
        say!("{name}: {mac:02x?}, {addresses:?}, up {} us", clock.now().as_micros());
        hosts.push(Host::new(nic, name, addresses, clock.now()));
    }
    hosts
}

/// All that runs here.
struct Guest {
    clock: Clock,
    hosts: Vec<Host>,
}

impl Guest {
    /// Does what was typed.
    fn obey(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("poweroff", "") => machine::power_off(),
            ("reset", "") => machine::reset(),
            ("panic", "") => panic!("as asked"),
            ("uptime", "") => say!("up {} us", self.clock.now().as_micros()),
            ("ping", to) => self.ping(to),
            _ => say!("ping ADDRESS, uptime, poweroff, reset, panic"),
        }
    }

    /// Pings an address from the interface that reaches it, until it answers.
    fn ping(&mut self, to: &str) {
        let Ok(to) = to.trim().parse::<IpAddr>() else { return say!("{to}: no address") };
        let now = self.clock.now();
        match self.hosts.iter_mut().find(|host| host.reaches(to)) {
            Some(host) => host.ping(to, now),
            None => say!("{to}: no interface has a way there"),
        }
    }
}

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    say!("guest panic: {info}");
    machine::panicked()
}
