//! The machine below: ports, the time stamp counter, and its end.
#![expect(unsafe_code, reason = "port instructions")]

use crate::ports;
use core::{arch::asm, time::Duration};

fn out8(port: u16, value: u8) {
    // SAFETY: a port of this machine has no effect on memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

fn out32(port: u16, value: u32) {
    // SAFETY: as above; devices may write to their rings meanwhile, so memory is not assumed to stay.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) }
}

fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// How many bytes an access has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
}

/// Writes the last bytes of `value` to a port; no port is wider than four.
pub(crate) fn write_port(port: u16, width: Width, value: u32) {
    match width {
        Width::One => out8(port, value as u8),
        Width::Two => {
            // SAFETY: as in `out32`.
            unsafe {
                asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nostack, preserves_flags));
            }
        }
        Width::Four | Width::Eight => out32(port, value),
    }
}

/// Reads a port, whatever it says.
pub(crate) fn read_port(port: u16, width: Width) {
    match width {
        Width::One => {
            in8(port);
        }
        Width::Two => {
            // SAFETY: as in `out32`.
            unsafe { asm!("in ax, dx", in("dx") port, out("ax") _, options(nostack, preserves_flags)) }
        }
        Width::Four | Width::Eight => {
            // SAFETY: as in `out32`.
            unsafe { asm!("in eax, dx", in("dx") port, out("eax") _, options(nostack, preserves_flags)) }
        }
    }
}

/// Writes the last bytes of `value` to a physical address between 3 and 4 GiB, where no memory is.
pub(crate) fn write_register(address: u64, width: Width, value: u64) {
    let address = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: the devices' GiB is mapped, and what is there is no memory of anybody's; devices write to memory that they
    // are given only. The instructions are those of every width that KVM takes for an access to a register.
    unsafe {
        match width {
            Width::One => asm!("mov [{0}], {1}", in(reg) address, in(reg_byte) value as u8),
            Width::Two => asm!("mov [{0}], {1:x}", in(reg) address, in(reg) value),
            Width::Four => asm!("mov [{0}], {1:e}", in(reg) address, in(reg) value),
            Width::Eight => asm!("mov [{0}], {1}", in(reg) address, in(reg) value),
        }
    }
}

/// Reads such an address, whatever it says.
pub(crate) fn read_register(address: u64, width: Width) {
    let address = core::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: as in `write_register`.
    unsafe {
        match width {
            Width::One => asm!("mov {1}, [{0}]", in(reg) address, out(reg_byte) _),
            Width::Two => asm!("mov {1:x}, [{0}]", in(reg) address, out(reg) _),
            Width::Four => asm!("mov {1:e}, [{0}]", in(reg) address, out(reg) _),
            Width::Eight => asm!("mov {1}, [{0}]", in(reg) address, out(reg) _),
        }
    }
}

/// A serial port (16550A), by its first register.
#[derive(Clone, Copy)]
pub(crate) struct Serial(u16);

/// Where people read and type.
pub(crate) const CONSOLE: Serial = Serial(ports::COM1);
/// Where the probe protocol is spoken.
pub(crate) const PROBE: Serial = Serial(ports::COM2);

/// Registers behind the first, which is for data.
const INTERRUPT_ENABLE: u16 = 1;
const LINE_STATUS: u16 = 5;
/// Received data interrupts: they end a wait.
const RECEIVED_DATA: u8 = 1;
/// Eight bits a character, and data behind the first register.
const LINE_CONTROL: u16 = 3;
const EIGHT_BITS: u8 = 3;
/// No loop back to itself.
const MODEM_CONTROL: u16 = 4;
/// There is a received byte.
const DATA_READY: u8 = 1;

impl Serial {
    /// Sends, a byte an exit: a string instruction would be one exit for all, but faults in ring 3 where KVM is
    /// paravirtual.
    pub(crate) fn send(self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| out8(self.0, *byte));
    }

    /// Lets what comes end waits.
    pub(crate) fn listen(self) {
        out8(self.0 + INTERRUPT_ENABLE, RECEIVED_DATA);
    }

    /// Makes it what it was at the start, whatever was written to its registers.
    pub(crate) fn restore(self) {
        out8(self.0 + LINE_CONTROL, EIGHT_BITS);
        out8(self.0 + MODEM_CONTROL, 0);
        out8(self.0 + INTERRUPT_ENABLE, 0);
        // What it sent itself while it looped back is no line of anybody's.
        while self.receive().is_some() {}
    }

    /// The next byte that came.
    pub(crate) fn receive(self) -> Option<u8> {
        (in8(self.0 + LINE_STATUS) & DATA_READY != 0).then(|| in8(self.0))
    }
}

/// Does nothing until a device calls, or this time has passed.
pub(crate) fn wait(limit: Duration) {
    out32(ports::WAIT, u32::try_from(limit.as_micros()).unwrap_or(u32::MAX));
}

/// The time stamp counter.
pub(crate) fn cycles() -> u64 {
    // SAFETY: every x86-64 has it, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Powers the machine off.
pub(crate) fn power_off() -> ! {
    out8(ports::SLEEP_CONTROL, ports::POWER_OFF);
    forever()
}

/// Resets the machine.
pub(crate) fn reset() -> ! {
    out8(ports::I8042_COMMAND, ports::I8042_RESET);
    forever()
}

/// Tells the machine that this guest has panicked.
pub(crate) fn panicked() -> ! {
    out8(ports::PVPANIC, ports::PVPANIC_PANICKED);
    forever()
}

/// In case that nobody listens at the port.
fn forever() -> ! {
    loop {
        wait(Duration::MAX);
    }
}
