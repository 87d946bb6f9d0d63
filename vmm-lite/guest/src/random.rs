//! A guest that harms whom it can: for a given time it reads and writes every I/O port, every register of every virtio
//! device and what lies between them, at any width, with values that nobody chose, and starts devices on rings full of
//! them. What would end the machine it leaves out, and devices are only given memory that it can spare. Then
//! it resets them, and goes on as any other guest.
#![expect(unsafe_code, reason = "registers and rings are used as no driver would")]

use crate::{
    clock::Clock,
    console::say,
    machine::{self, Width},
    names::register,
    ports,
};
use alloc::{vec, vec::Vec};
use core::{ptr, time::Duration};
use probe::bulk::Pattern;

/// The registers of the devices, and as much behind them: there is no memory.
const REGISTERS: u64 = 0xd000_0000;
const REGISTERS_END: u64 = 0xd040_0000;
/// Memory that devices may do with as they like: in its first part begins all that they are pointed at, and no ring or
/// buffer is longer than the rest.
const SCRATCH: usize = 96 << 10;
const BEGINNINGS: u64 = 64 << 10;
/// More than any machine of this guest's has memory: an address with this bit is in none.
const NO_MEMORY: u64 = 1 << 30;
/// The longest wait that it asks for, in microseconds: else it would do nothing else.
const LONGEST_WAIT: u32 = 500;
/// Accesses between two looks at the clock.
const AT_ONCE: u32 = 64;
/// Ports that are used in turn before something else is done.
const IN_TURN: usize = 8;
/// Of so many steps one starts a device.
const STARTS: u64 = 128;

/// Where a device is told of the parts of a ring; the upper halves follow.
const QUEUE_ADDRESSES: [u64; 3] =
    [register::QUEUE_DESC_LOW, register::QUEUE_DRIVER_LOW, register::QUEUE_DEVICE_LOW];

/// What is done at random, and what was done so far.
struct Random {
    chance: Pattern,
    /// The next port of those that are all used in turn.
    next_port: u16,
    /// The registers of each device.
    devices: Vec<u64>,
    scratch: Vec<u64>,
    ports: u64,
    registers: u64,
    starts: u64,
    rounds: u64,
}

/// Goes on for `seconds`, as `seed` says, against the devices whose registers are at `devices`.
pub(crate) fn run(seconds: u64, seed: u64, devices: Vec<u64>, clock: Clock) {
    say!("random: begun, seed {seed}, {seconds} s, {} devices", devices.len());
    let mut random = Random {
        chance: Pattern::new(seed),
        next_port: 0,
        devices,
        scratch: vec![0; SCRATCH / 8],
        ports: 0,
        registers: 0,
        starts: 0,
        rounds: 0,
    };
    let end = clock.now() + Duration::from_secs(seconds);
    while clock.now() < end {
        (0..AT_ONCE).for_each(|_| random.step());
    }
    // What it does next is not theirs to disturb.
    for base in random.devices.clone() {
        random.write(base, register::STATUS, 0);
    }
    machine::CONSOLE.restore();
    machine::PROBE.restore();
    let Random { ports, registers, starts, rounds, .. } = random;
    say!(
        "random: over, seed {seed}: {ports} accesses to ports ({rounds} times to all of them), {registers} to registers, {starts} starts"
    );
}

impl Random {
    fn next(&mut self) -> u64 {
        let mut word = [0; 8];
        self.chance.fill(&mut word);
        u64::from_le_bytes(word)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// A number that means something to somebody, more often than chance has it.
    fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next(),
            1 => self.below(16),
            2 => 1 << self.below(64),
            _ => (1 << self.below(64)) - 1,
        }
    }

    fn step(&mut self) {
        if self.below(STARTS) == 0 && !self.devices.is_empty() {
            return self.start();
        }
        if self.below(2) == 0 { self.port() } else { self.register() }
    }

    /// A port of those that mean something, any port, or the next of all in turn.
    fn port(&mut self) {
        match self.below(4) {
            0 => {
                let known = [0x20, 0x40, 0x60, 0xa0, 0x4d0, 0xcf8, ports::COM1, ports::COM2, ports::PVPANIC];
                let known = [&known[..], &[ports::SLEEP_CONTROL, ports::WAIT, ports::I8042_COMMAND]].concat();
                let port = known[self.below(known.len() as u64) as usize] + self.below(8) as u16;
                self.at_port(port);
            }
            1 => {
                let port = self.next() as u16;
                self.at_port(port);
            }
            _ => {
                for _ in 0..IN_TURN {
                    self.next_port = self.next_port.wrapping_add(1);
                    self.rounds += u64::from(self.next_port == 0);
                    self.at_port(self.next_port);
                }
            }
        }
    }

    fn at_port(&mut self, port: u16) {
        let width = [Width::One, Width::Two, Width::Four][self.below(3) as usize];
        // None goes beyond the last port: the CPU would not let it.
        let port = port.min(u16::MAX - (width as u16 - 1));
        let value = self.value() as u32;
        machine::write_port(port, width, harmless(port, width, value));
        self.ports += 1;
        if self.below(3) == 0 {
            machine::read_port(port, width);
            self.ports += 1;
        }
    }

    fn register(&mut self) {
        let device = self.below(self.devices.len() as u64 + 1) as usize;
        let base = self.devices.get(device).copied();
        let address = match (base, self.below(4)) {
            (Some(base), 0) => base + self.below(0xff8),
            (Some(base), _) => base + 4 * self.below(0x48),
            (None, _) => REGISTERS + self.below(REGISTERS_END - REGISTERS - 8),
        };
        let width = [Width::Four, Width::Four, Width::One, Width::Two, Width::Eight][self.below(5) as usize];
        self.registers += 1;
        if self.below(3) == 0 {
            machine::read_register(address, width);
        } else {
            let value = self.value();
            // A ring that lies in memory lies where it does no harm; `start` sees to that.
            let low = QUEUE_ADDRESSES.contains(&(address & 0xfff));
            machine::write_register(address, width, if low { value | NO_MEMORY } else { value });
        }
    }

    fn write(&mut self, base: u64, register: u64, value: u64) {
        self.registers += 1;
        machine::write_register(base + register, Width::Four, value);
    }

    /// Somewhere in the scratch, or nowhere in memory.
    fn place(&mut self) -> u64 {
        let offset = self.below(BEGINNINGS) & !0xf;
        match self.below(16) {
            0 => self.next() | NO_MEMORY,
            _ => self.scratch.as_ptr().expose_provenance() as u64 + offset,
        }
    }

    fn store(&mut self, word: usize, value: u64) {
        let place = &raw mut self.scratch[word];
        // SAFETY: it is a word of ours, which devices may read and write at any time.
        unsafe { ptr::write_volatile(place, value) }
    }

    /// Fills the scratch with what could be descriptors, and headers of requests.
    fn fill(&mut self) {
        for pair in 0..self.scratch.len() / 2 {
            let (first, second) = if self.below(4) == 0 {
                (self.below(16), self.below(300))
            } else {
                let address = self.place();
                let in_memory = address & NO_MEMORY == 0;
                let length = match self.below(4) {
                    0 => 16,
                    1 => 512 * self.below(8),
                    2 if !in_memory => self.below(1 << 32),
                    _ => self.below(4096),
                };
                (address, length | self.below(8) << 32 | self.below(64) << 48)
            };
            self.store(2 * pair, first);
            self.store(2 * pair + 1, second);
        }
    }

    /// Starts a device as a driver does, on rings that no driver has.
    fn start(&mut self) {
        let device = self.below(self.devices.len() as u64) as usize;
        let base = self.devices[device];
        self.starts += 1;
        if self.starts % 16 == 1 {
            self.fill();
        }
        for (register, value) in [
            (register::STATUS, 0),
            (register::STATUS, 3),
            (register::DRIVER_FEATURES_SEL, 0),
            (register::DRIVER_FEATURES, if self.below(2) == 0 { 0 } else { 1 << self.below(32) }),
            (register::DRIVER_FEATURES_SEL, 1),
            (register::DRIVER_FEATURES, 1),
            (register::STATUS, 11),
        ] {
            self.write(base, register, value);
        }
        for queue in 0..2 {
            self.write(base, register::QUEUE_SEL, queue);
            let size = 1 << self.below(9);
            self.write(base, register::QUEUE_NUM, size);
            for (which, register) in QUEUE_ADDRESSES.into_iter().enumerate() {
                let place = self.place();
                self.write(base, register, place & 0xffff_ffff);
                self.write(base, register + 4, place >> 32);
                if which == 1 && place & NO_MEMORY == 0 {
                    self.offer(place, size);
                }
            }
            self.write(base, register::QUEUE_READY, 1);
        }
        self.write(base, register::STATUS, 15);
        for _ in 0..self.below(4) {
            let queue = self.below(3);
            self.write(base, register::QUEUE_NOTIFY, queue);
        }
    }

    /// Makes some requests available in a ring of this size, mostly as many as there can be.
    fn offer(&mut self, ring: u64, size: u64) {
        let first = (ring as usize - self.scratch.as_ptr().addr()) / 8;
        let index = if self.below(8) == 0 { self.next() } else { self.below(size + 1) };
        let heads = self.below(size) << 32 | self.below(size) << 48;
        self.store(first, (index & 0xffff) << 16 | heads);
        for word in 1..=(size as usize / 4) {
            let heads = (0..4).fold(0, |heads, _| heads << 16 | self.below(size + 1));
            self.store(first + word, heads);
        }
    }
}

/// The same, less what would end the machine or wait for long.
fn harmless(port: u16, width: Width, value: u32) -> u32 {
    // The byte that counts is the last.
    let last = 8 * (width as u32 - 1);
    match (port, width) {
        (ports::I8042_COMMAND, _) => value & !(0x80 << last),
        (ports::SLEEP_CONTROL, _) => value & !(u32::from(ports::SLEEP_ENABLE) << last),
        (ports::PVPANIC, _) => value & !(u32::from(ports::PVPANIC_PANICKED) << last),
        (ports::WAIT, Width::Four) => value % LONGEST_WAIT,
        _ => value,
    }
}
