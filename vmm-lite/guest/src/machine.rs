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

/// COM1's registers (16550A), from the first on.
const DATA: u16 = ports::COM1;
const INTERRUPT_ENABLE: u16 = ports::COM1 + 1;
const LINE_STATUS: u16 = ports::COM1 + 5;
/// Received data interrupts: they end a wait.
const RECEIVED_DATA: u8 = 1;
/// There is a received byte.
const DATA_READY: u8 = 1;

/// Sends to the console, a byte an exit: a string instruction would be one exit for all, but faults in ring 3 where KVM
/// is paravirtual.
pub(crate) fn send(bytes: &[u8]) {
    bytes.iter().for_each(|byte| out8(DATA, *byte));
}

/// Lets what is typed end waits.
pub(crate) fn listen() {
    out8(INTERRUPT_ENABLE, RECEIVED_DATA);
}

/// The next byte that was typed.
pub(crate) fn receive() -> Option<u8> {
    (in8(LINE_STATUS) & DATA_READY != 0).then(|| in8(DATA))
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
