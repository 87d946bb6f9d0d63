//! The registers of a virtio device over MMIO (virtio 1.2 §4.2.2), as far as a network interface needs them.
#![expect(unsafe_code, reason = "registers are where the command line says")]

use crate::{
    names::{
        register,
        status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK},
    },
    ring::{Ring, SIZE},
};
use core::fmt;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// Not the legacy interface.
const CURRENT: u32 = 2;
/// §5.1.
const NETWORK: u32 = 1;

/// Why a device cannot be used.
pub(crate) enum Unusable {
    /// It wants features that we lack.
    Features,
    /// Its rings are shorter than ours.
    Rings,
}

impl fmt::Display for Unusable {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Features => "the device takes none of our features",
            Self::Rings => "the device's rings are too short",
        })
    }
}

/// The registers of a network interface.
pub(crate) struct Registers(usize);

/// Where a device is, as a word of the command line has it: `virtio_mmio.device=SIZE@BASE:GSI` (Linux' parameter).
pub(crate) fn place(word: &str) -> Option<usize> {
    let (_, place) = word.split_once('@')?;
    let (base, _) = place.split_once(':')?;
    usize::from_str_radix(base.strip_prefix("0x")?, 16).ok()
}

impl Registers {
    /// Those at `base`, if they are a network interface's.
    ///
    /// # Safety
    ///
    /// A virtio device is there that nobody else drives.
    pub(crate) unsafe fn find(base: usize) -> Option<Self> {
        let found = Self(base);
        let is = [register::MAGIC_VALUE, register::VERSION, register::DEVICE_ID]
            .map(|register| found.read(register));
        (is == [MAGIC, CURRENT, NETWORK]).then_some(found)
    }

    fn read(&self, register: u64) -> u32 {
        // SAFETY: `find` was promised a device there; the devices' GiB is mapped.
        unsafe { core::ptr::with_exposed_provenance::<u32>(self.0 + register as usize).read_volatile() }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: as above; what the device does to memory by it, it does to rings that were made for that.
        unsafe {
            core::ptr::with_exposed_provenance_mut::<u32>(self.0 + register as usize).write_volatile(value);
        }
    }

    fn write_address(&self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }

    /// Resets the device and takes those of `wanted` features that it offers: which.
    pub(crate) fn begin(&self, wanted: u64) -> Result<u64, Unusable> {
        self.write(register::STATUS, 0);
        self.write(register::STATUS, ACKNOWLEDGE | DRIVER);
        let mut taken = 0;
        for half in 0..2 {
            self.write(register::DEVICE_FEATURES_SEL, half);
            let offered = u64::from(self.read(register::DEVICE_FEATURES)) << (32 * half);
            taken |= offered & wanted;
            self.write(register::DRIVER_FEATURES_SEL, half);
            self.write(register::DRIVER_FEATURES, (taken >> (32 * half)) as u32);
        }
        self.write(register::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        if self.read(register::STATUS) & FEATURES_OK == 0 {
            return Err(self.give_up(Unusable::Features));
        }
        Ok(taken)
    }

    /// Tells the device that there will be no driver (§3.1.1).
    fn give_up(&self, why: Unusable) -> Unusable {
        self.write(register::STATUS, FAILED);
        why
    }

    /// The address of the interface (§5.1.4), a byte an access.
    pub(crate) fn mac(&self) -> [u8; 6] {
        core::array::from_fn(|at| {
            // SAFETY: as in `read`.
            unsafe {
                core::ptr::with_exposed_provenance::<u8>(self.0 + register::CONFIG as usize + at)
                    .read_volatile()
            }
        })
    }

    /// Whether the link is up (§5.1.4): bit 0 of the status behind the address, of a device that has one.
    pub(crate) fn link_is_up(&self) -> bool {
        // SAFETY: as in `read`.
        let status = unsafe {
            let place = self.0 + register::CONFIG as usize + 6;
            core::ptr::with_exposed_provenance::<u16>(place).read_volatile()
        };
        status & 1 != 0
    }

    /// Gives the device a ring.
    pub(crate) fn set_queue(&self, queue: u32, ring: &Ring) -> Result<(), Unusable> {
        self.write(register::QUEUE_SEL, queue);
        if self.read(register::QUEUE_NUM_MAX) < u32::from(SIZE) {
            return Err(self.give_up(Unusable::Rings));
        }
        self.write(register::QUEUE_NUM, u32::from(SIZE));
        let [descriptors, available, used] = ring.places();
        self.write_address(register::QUEUE_DESC_LOW, descriptors);
        self.write_address(register::QUEUE_DRIVER_LOW, available);
        self.write_address(register::QUEUE_DEVICE_LOW, used);
        self.write(register::QUEUE_READY, 1);
        Ok(())
    }

    /// From now on the device works.
    pub(crate) fn finish(&self) {
        self.write(register::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Tells the device to look at a ring.
    pub(crate) fn kick(&self, queue: u32) {
        self.write(register::QUEUE_NOTIFY, queue);
    }
}
