//! The ACPI tables (ACPI 6.5), by which Linux learns of CPUs, interrupts, devices and how to power off. Pure: bytes for
//! an address.
//!
//! The hardware-reduced profile: there is no fixed hardware but the sleep and reset registers, no PIC to fall back to,
//! and each device is said in the DSDT.

use crate::{
    config::CpuCount,
    layout::{self, VirtioPlace},
    ports,
};
use acpi_tables::{
    Aml,
    aml::{
        Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, ONE, Package, Path,
        ResourceTemplate, Scope, ZERO,
    },
    fadt::{FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace, GAS},
    madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic},
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};

/// Whose tables these are.
const OEM: [u8; 6] = *b"VNET  ";
const OEM_TABLE: [u8; 8] = *b"VMMLITE ";
const OEM_REVISION: u32 = 1;
/// A DSDT's revision from which its integers have 64 bits.
const DSDT_REVISION: u8 = 2;
/// The length of a table's header, which an empty DSDT has.
const HEADER: u32 = 36;
/// IAPC_BOOT_ARCH (§5.2.9.3): no VGA, no message signalled interrupts, no CMOS clock. Nor is there a keyboard controller
/// (bit 1): of one there is the reset line, and a kernel that looks for the rest waits for it in thousands of exits.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 3 | 1 << 5;

/// All tables, to be put at `at`; the RSDP, which leads to the others, is the first.
pub(super) fn tables(at: u64, cpus: CpuCount, virtio: &[VirtioPlace]) -> Vec<u8> {
    let mut image = vec![0; Rsdp::len()];
    let mut put = |table: &dyn Aml| {
        // Nothing asks for an alignment, but a table that begins a line is easier on who reads a dump.
        image.resize(image.len().next_multiple_of(16), 0);
        let address = at + image.len() as u64;
        table.to_aml_bytes(&mut image);
        address
    };
    let dsdt = put(&Raw(dsdt(virtio)));
    let (fadt, madt) = (put(&fadt(dsdt)), put(&madt(cpus)));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = put(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    image[..rsdp.len()].copy_from_slice(&rsdp);
    image
}

/// Bytes that are a table already.
struct Raw(Sdt);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(self.0.as_slice());
    }
}

/// A port of eight bits.
fn port(address: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, address.into())
}

/// Fixed ACPI Description Table (§5.2.9).
fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // Neither button is fixed hardware: the power button is a device of the DSDT, and there is none for sleep.
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = port(ports::I8042_COMMAND);
    fadt.reset_value = ports::I8042_RESET;
    fadt.sleep_control_reg = port(ports::SLEEP_CONTROL);
    fadt.sleep_status_reg = port(ports::SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"vmm-lite").into();
    fadt.finalize()
}

/// Multiple APIC Description Table (§5.2.12): what starts which vCPU, and what takes which interrupt.
fn madt(cpus: CpuCount) -> MADT {
    let local = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for cpu in 0..cpus.get() {
        // As CPUID says: an APIC's id is its vCPU's number.
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    madt
}

/// An interrupt that a device rings: edges, as irqfd makes them, and nobody else's.
fn edge(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// Differentiated System Description Table (§5.2.11.1): the devices, and the sleep type that powers off.
fn dsdt(virtio: &[VirtioPlace]) -> Sdt {
    let mut dsdt = Sdt::new(*b"DSDT", HEADER, DSDT_REVISION, OEM, OEM_TABLE, OEM_REVISION);
    let mut append = |object: &dyn Aml| {
        let mut bytes = Vec::new();
        object.to_aml_bytes(&mut bytes);
        dsdt.append_slice(&bytes);
    };
    append(&Name::new("_S5_".into(), &Package::new(vec![&ports::SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO])));
    append(&Serial { number: 0, port: ports::COM1, gsi: layout::COM1_GSI });
    append(&Serial { number: 1, port: ports::COM2, gsi: layout::COM2_GSI });
    append(&Button);
    for (number, place) in (0u8..).zip(virtio) {
        append(&Virtio { number, place: *place });
    }
    dsdt
}

/// A serial port: a 16550 (PNP0501).
struct Serial {
    number: u8,
    port: u16,
    gsi: u32,
}

impl Aml for Serial {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let (registers, interrupt) = (IO::new(self.port, self.port, 0, 8), edge(self.gsi));
        let id = Name::new("_HID".into(), &EISAName::new("PNP0501"));
        let number = Name::new("_UID".into(), &self.number);
        let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers, &interrupt]));
        let name = format!("COM{}", self.number + 1);
        let device = Device::new(name.as_str().into(), vec![&id, &number, &resources]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(sink);
    }
}

/// The power button (§4.8.2.2.1.2), and the Generic Event Device (§5.6.9) that says when it is pressed, for there is no
/// fixed hardware that could.
struct Button;

impl Aml for Button {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        /// A notification: it was pressed (§5.6.6).
        const PRESSED: u8 = 0x80;
        let id = Name::new("_HID".into(), &EISAName::new("PNP0C0C"));
        let button = Device::new("PWRB".into(), vec![&id]);
        let hid = Name::new("_HID".into(), &"ACPI0013");
        let interrupt = edge(layout::BUTTON_GSI);
        let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&interrupt]));
        let target: Path = "\\_SB_.PWRB".into();
        let notify = Notify::new(&target, &PRESSED);
        let event = Method::new("_EVT".into(), 1, true, vec![&notify]);
        let events = Device::new("GED_".into(), vec![&hid, &resources, &event]);
        Scope::new("_SB_".into(), vec![&button, &events]).to_aml_bytes(sink);
    }
}

/// One virtio device over MMIO: the id is Linux' (Documentation, "LNRO0005").
struct Virtio {
    number: u8,
    place: VirtioPlace,
}

impl Aml for Virtio {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let base = u32::try_from(self.place.base).expect("devices are below 4 GiB");
        let length = u32::try_from(layout::VIRTIO_MMIO_STRIDE).expect("a page");
        let (registers, interrupt) = (Memory32Fixed::new(true, base, length), edge(self.place.gsi));
        let id = Name::new("_HID".into(), &"LNRO0005");
        let number = Name::new("_UID".into(), &self.number);
        // What a device writes is seen by all CPUs (§6.2.17).
        let coherent = Name::new("_CCA".into(), &ONE);
        let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers, &interrupt]));
        let name = format!("V{:03}", self.number);
        let device = Device::new(name.as_str().into(), vec![&id, &number, &coherent, &resources]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = layout::ACPI;

    fn machine(cpus: u8, devices: usize) -> Vec<u8> {
        let virtio: Vec<_> = (0..devices).map(|index| layout::virtio_place(index).unwrap()).collect();
        tables(AT, CpuCount::new(cpus).unwrap(), &virtio)
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    /// The table at this physical address, its checksum seen to be right.
    fn table(image: &[u8], address: u64) -> &[u8] {
        let from = &image[usize::try_from(address - AT).unwrap()..];
        let table = &from[..u32_at(from, 4) as usize];
        assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0, "{:?}", &table[..4]);
        table
    }

    /// As a kernel finds them: RSDP, XSDT, FADT and MADT by signature, DSDT by the FADT.
    fn found(image: &[u8]) -> (&[u8], &[u8], &[u8]) {
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!(image[..36].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let xsdt = table(image, u64_at(image, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let named = |name: &[u8; 4]| {
            let mut tables = xsdt[36..].chunks(8).map(|entry| table(image, u64_at(entry, 0)));
            tables.find(|table| &table[..4] == name).unwrap()
        };
        let fadt = named(b"FACP");
        (fadt, named(b"APIC"), table(image, u64_at(fadt, 140)))
    }

    fn count(table: &[u8], what: &[u8]) -> usize {
        table.windows(what.len()).filter(|window| *window == what).count()
    }

    #[test]
    fn the_fadt_powers_off_and_resets_by_the_ports_that_devices_know() {
        let image = machine(1, 0);
        let (fadt, _, dsdt) = found(&image);
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(u32_at(fadt, 112) & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10, "reduced, and can reset");
        // No VGA, MSI or CMOS clock, and above all no keyboard controller (bit 1).
        assert_eq!(u16::from_le_bytes([fadt[109], fadt[110]]), 0b10_1100);
        // A GAS of system I/O, 8 bits, read by bytes.
        let register = |at: usize| (fadt[at..at + 4] == [1, 8, 0, 1]).then(|| u64_at(fadt, at + 4));
        assert_eq!((register(116), fadt[128]), (Some(0x64), 0xfe));
        assert_eq!((register(244), register(256)), (Some(0x600), Some(0x601)));
        // Name (_S5_, Package { 5, 0, 0, 0 }).
        assert_eq!(count(dsdt, b"\x08_S5_\x12\x07\x04\x0a\x05\0\0\0"), 1);
    }

    #[test]
    fn each_vcpu_has_a_local_apic_and_all_have_one_ioapic() {
        for cpus in [1, 2, 16] {
            let image = machine(cpus, 0);
            let (_, madt, _) = found(&image);
            assert_eq!(u32_at(madt, 36), 0xfee0_0000);
            let (locals, io) = madt[44..].split_at(8 * usize::from(cpus));
            for (cpu, local) in (0..).zip(locals.chunks(8)) {
                assert_eq!(local, [0, 8, cpu, cpu, 1, 0, 0, 0]);
            }
            assert_eq!(io, [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        }
    }

    #[test]
    fn each_virtio_device_is_where_the_bus_has_it() {
        let image = machine(2, layout::MAX_VIRTIO);
        let (_, _, dsdt) = found(&image);
        assert_eq!(count(dsdt, b"LNRO0005\0"), layout::MAX_VIRTIO);
        for index in 0..layout::MAX_VIRTIO {
            let place = layout::virtio_place(index).unwrap();
            // Memory32Fixed, writable; then an extended interrupt: a consumer's, by edges, active high, not shared.
            let mut resources = vec![0x86, 9, 0, 1];
            resources.extend(u32::try_from(place.base).unwrap().to_le_bytes());
            resources.extend([0, 0x10, 0, 0, 0x89, 6, 0, 0b0011, 1]);
            resources.extend(place.gsi.to_le_bytes());
            assert_eq!(count(dsdt, &resources), 1, "{place:?}");
            assert_eq!(count(dsdt, format!("V{index:03}\x08_HID").as_bytes()), 1);
        }
    }

    #[test]
    fn each_serial_port_is_a_device_for_there_is_no_pic_that_would_know_its_interrupt() {
        let image = machine(1, 0);
        let (_, _, dsdt) = found(&image);
        // PNP0501, compressed.
        assert_eq!(count(dsdt, &[0x41, 0xd0, 0x05, 0x01]), 2);
        for (name, port, gsi) in [(b"COM1", 0x3f8_u16, 4), (b"COM2", 0x2f8, 3)] {
            assert_eq!(count(dsdt, &[name.as_slice(), b"\x08_HID"].concat()), 1);
            let [low, high] = port.to_le_bytes();
            let resources = [0x47, 1, low, high, low, high, 0, 8, 0x89, 6, 0, 3, 1, gsi, 0, 0, 0];
            assert_eq!(count(dsdt, &resources), 1, "{port:#x}");
        }
    }

    #[test]
    fn the_power_button_is_pressed_by_its_interrupt() {
        let image = machine(1, 0);
        let (_, _, dsdt) = found(&image);
        assert_eq!(count(dsdt, &[0x89, 6, 0, 3, 1, 23, 0, 0, 0]), 1);
        // Notify (\_SB_.PWRB, 0x80).
        assert_eq!(count(dsdt, b"\x86\\\x2e_SB_PWRB\x0a\x80"), 1);
    }

    #[test]
    fn the_largest_machines_tables_fit_below_the_kernel() {
        let end = AT + machine(CpuCount::MOST, layout::MAX_VIRTIO).len() as u64;
        assert!(AT >= layout::LOW_END && end <= layout::HIGH_START, "{end:#x}");
    }
}
