//! The I/O ports of the machine: what the bundled guest and the VMM must agree on, so both compile this very file.

/// COM1: the console (a 16550A, eight registers).
pub(crate) const COM1: u16 = 0x3f8;
/// COM2: where a guest answers the probe protocol (another 16550A).
pub(crate) const COM2: u16 = 0x2f8;

/// The keyboard controller's command port: it is here for its one command that matters, [`I8042_RESET`].
pub(crate) const I8042_COMMAND: u16 = 0x64;
/// Pulses the reset line.
pub(crate) const I8042_RESET: u8 = 0xfe;

/// ACPI's sleep control register (ACPI 6.5 §4.8.3.7), by which a guest powers the machine off.
pub(crate) const SLEEP_CONTROL: u16 = 0x600;
/// ACPI's sleep status register: nothing ever woke this machine, so it reads 0.
pub(crate) const SLEEP_STATUS: u16 = 0x601;
/// What to write to [`SLEEP_CONTROL`] to power off: SLP_EN, and [`SLEEP_TYPE_S5`] as SLP_TYP.
pub(crate) const POWER_OFF: u8 = SLEEP_ENABLE | SLEEP_TYPE_S5 << 2;
/// SLP_EN.
pub(crate) const SLEEP_ENABLE: u8 = 1 << 5;
/// The sleep type that means S5, as the DSDT's `_S5` has it.
pub(crate) const SLEEP_TYPE_S5: u8 = 5;

/// The pvpanic device, by which a guest says that it has panicked.
pub(crate) const PVPANIC: u16 = 0x505;
/// The guest has panicked and will do no more.
pub(crate) const PVPANIC_PANICKED: u8 = 1;

/// Our own: a guest that cannot `hlt`, being in ring 3, writes here for how many microseconds (32 bits) it has nothing
/// to do. The write returns after that time, or as soon as a device calls. The first such write returns at once and
/// takes all interrupts off: from then on calls end waits, and nothing else.
pub(crate) const WAIT: u16 = 0x610;
