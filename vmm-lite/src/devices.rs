//! What is behind the ports and registers: which device an access belongs to, and what becomes of it.
//!
//! Nothing that a guest does here is an error: what nobody answers reads as ones, and writes to it go nowhere, as on a
//! bus without a device.

use crate::{console::Com, ended::Ended, layout, lines::Lines, ports, virtio::Device};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a vCPU does after an access.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next instruction.
    Resume,
    /// Nothing, until a device calls or this time has passed.
    Wait(Duration),
    /// Nothing more, and neither does any other.
    End(Ended),
}

/// All devices of a machine.
pub(crate) struct Devices {
    pub(crate) com1: Mutex<Com>,
    pub(crate) com2: Mutex<Com>,
    pub(crate) virtio: Vec<Mutex<Device>>,
    pub(crate) lines: Lines,
}

/// The device, also after a thread has panicked while it worked on it: then the machine is about to end.
pub(crate) fn lock<T>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which register of the serial port at `base` a port is.
fn register_of(base: u16, port: u16) -> Option<u8> {
    u8::try_from(port.checked_sub(base)?).ok().filter(|register| *register < 8)
}

impl Devices {
    /// The serial port that a port belongs to, and which of its registers it is.
    fn com(&self, port: u16) -> Option<(&Mutex<Com>, u8)> {
        let coms = [(ports::COM1, &self.com1), (ports::COM2, &self.com2)];
        coms.into_iter().find_map(|(base, com)| Some((com, register_of(base, port)?)))
    }

    /// `out`; a string instruction is several writes to one port.
    pub(crate) fn port_out(&self, port: u16, data: &[u8]) -> Next {
        if let Some((com, register)) = self.com(port) {
            let mut com = lock(com);
            for byte in data {
                // Output that nobody takes is lost, as on a line that is not plugged in.
                let _ = com.write(register, *byte);
            }
            return Next::Resume;
        }
        match (port, data) {
            (ports::I8042_COMMAND, [.., ports::I8042_RESET]) => Next::End(Ended::Reset),
            (ports::SLEEP_CONTROL, [.., value]) if *value & ports::POWER_OFF == ports::POWER_OFF => {
                Next::End(Ended::PowerOff)
            }
            (ports::PVPANIC, [.., value]) if value & ports::PVPANIC_PANICKED != 0 => {
                Next::End(Ended::Panicked)
            }
            (ports::WAIT, [a, b, c, d]) => {
                Next::Wait(Duration::from_micros(u32::from_le_bytes([*a, *b, *c, *d]).into()))
            }
            _ => Next::Resume,
        }
    }

    /// `in`.
    pub(crate) fn port_in(&self, port: u16, data: &mut [u8]) {
        if let Some((com, register)) = self.com(port) {
            let mut com = lock(com);
            data.fill_with(|| com.read(register));
            return;
        }
        data.fill(match port {
            // An empty buffer: the keyboard controller is ready for a command.
            ports::I8042_COMMAND | ports::SLEEP_STATUS => 0,
            ports::PVPANIC => ports::PVPANIC_PANICKED,
            _ => 0xff,
        });
    }

    /// A read from an address without memory.
    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, register)) = self.virtio(address) {
            lock(device).read(register, data);
        }
    }

    /// A write to an address without memory.
    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((device, register)) = self.virtio(address) {
            lock(device).write(register, data);
        }
    }

    /// Lets the driver of the interface of this number see its link up or down; false if there is no such interface.
    pub(crate) fn set_link(&self, interface: usize, up: bool) -> bool {
        match self.virtio.get(interface).map(lock).as_deref() {
            Some(Device::Net(net)) => {
                net.set_link(up);
                true
            }
            _ => false,
        }
    }

    fn virtio(&self, address: u64) -> Option<(&Mutex<Device>, u64)> {
        let (index, register) = layout::virtio_register(address)?;
        Some((self.virtio.get(index)?, register))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{console, event::Event};
    use std::{io, sync::Arc};

    /// What was written to COM1.
    #[derive(Clone, Default)]
    struct Line(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Line {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn devices(line: Line) -> Devices {
        devices_with(line, Line::default())
    }

    fn devices_with(first: Line, second: Line) -> Devices {
        let event = || Event::new().unwrap();
        let com = |line| Mutex::new(console::com(event(), event(), Box::new(line)));
        Devices { com1: com(first), com2: com(second), virtio: Vec::new(), lines: Lines::new() }
    }

    #[test]
    fn each_port_has_one_outcome() {
        let devices = devices(Line::default());
        let out = |port, data: &[u8]| devices.port_out(port, data);
        assert_eq!(out(ports::SLEEP_CONTROL, &[ports::POWER_OFF]), Next::End(Ended::PowerOff));
        assert_eq!(out(ports::SLEEP_CONTROL, &[ports::SLEEP_ENABLE]), Next::Resume, "another sleep type");
        assert_eq!(out(ports::I8042_COMMAND, &[ports::I8042_RESET]), Next::End(Ended::Reset));
        assert_eq!(out(ports::I8042_COMMAND, &[0xaa]), Next::Resume);
        assert_eq!(out(ports::PVPANIC, &[ports::PVPANIC_PANICKED]), Next::End(Ended::Panicked));
        assert_eq!(out(ports::WAIT, &[0x10, 0x27, 0, 0]), Next::Wait(Duration::from_millis(10)));
        assert_eq!(out(ports::WAIT, &[1]), Next::Resume, "too narrow");
        assert_eq!(out(ports::COM1, &[]), Next::Resume);
    }

    #[test]
    fn what_nobody_answers_reads_as_ones() {
        let devices = devices(Line::default());
        let mut data = [0; 4];
        devices.port_in(0x70, &mut data);
        assert_eq!(data, [0xff; 4]);
        for address in [layout::VIRTIO_MMIO, 0, u64::MAX] {
            let mut data = [0; 8];
            devices.mmio_write(address, &data);
            devices.mmio_read(address, &mut data);
            assert_eq!(data, [0xff; 8]);
        }
    }

    #[test]
    fn every_port_can_be_read_and_written_at_every_width() {
        let devices = devices(Line::default());
        for port in 0..=u16::MAX {
            for width in [1, 2, 4, 3, 64] {
                devices.port_in(port, &mut vec![0; width]);
                devices.port_out(port, &vec![0xff; width]);
            }
        }
    }

    #[test]
    fn each_serial_port_has_a_line_of_its_own() {
        let lines = [Line::default(), Line::default()];
        let devices = devices_with(lines[0].clone(), lines[1].clone());
        devices.port_out(ports::COM2, b"probe");
        devices.port_out(ports::COM1, b"console");
        assert_eq!(lines.map(|line| lock(&line.0).clone()), [b"console".to_vec(), b"probe".to_vec()]);
    }

    #[test]
    fn a_string_of_writes_is_a_line_of_text() {
        let line = Line::default();
        devices(line.clone()).port_out(ports::COM1, b"hello");
        assert_eq!(*lock(&line.0), b"hello");
    }
}
