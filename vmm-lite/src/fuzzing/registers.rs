//! Any sequence of accesses to the register file of a virtio device (virtio 1.2 §4.2.2).

use crate::virtio::mmio::{Effect, Offer, Queue, Registers, VERSION_1, register, status};

/// The rest of what a driver may set, and what only the device sets.
const KNOWN_STATUS: u32 = status::ACKNOWLEDGE
    | status::DRIVER
    | status::DRIVER_OK
    | status::FEATURES_OK
    | status::FAILED
    | status::DEVICE_NEEDS_RESET;

/// A device like an interface, a disk, or a source of random bytes.
fn offer(kind: u8) -> Offer {
    let (queues, queue_size, config) = match kind % 3 {
        0 => (2, 1024, vec![2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 220, 5]),
        1 => (1, 128, (0..16).collect()),
        _ => (1, 16, Vec::new()),
    };
    let features = VERSION_1 | 1 << 5 | 1 << 16 | 1 << 28;
    Offer { device: 1 + u32::from(kind % 3), features, queues, queue_size, config }
}

/// All that a driver can see of a device, and what the device itself goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    status: u32,
    features: u64,
    queues: Vec<Queue>,
    config: Vec<u8>,
    generation: u32,
    interrupt: u32,
}

fn word(device: &Registers, register: u64) -> u32 {
    let mut data = [0xee; 4];
    device.read(register, &mut data);
    u32::from_le_bytes(data)
}

fn seen(device: &Registers) -> Seen {
    let mut config = vec![0xee; 64];
    device.read(register::CONFIG, &mut config);
    Seen {
        status: word(device, register::STATUS),
        features: device.features(),
        queues: device.queues().to_vec(),
        config,
        generation: word(device, register::CONFIG_GENERATION),
        interrupt: word(device, register::INTERRUPT_STATUS),
    }
}

impl Seen {
    fn has(&self, bit: u32) -> bool {
        self.status & bit != 0
    }
}

/// What holds at any moment.
fn check(device: &Registers, offer: &Offer, now: &Seen) {
    assert_eq!(word(device, register::MAGIC_VALUE), u32::from_le_bytes(*b"virt"));
    assert_eq!((word(device, register::VERSION), word(device, register::DEVICE_ID)), (2, offer.device));
    assert_eq!(now.status & !KNOWN_STATUS, 0, "{now:x?}");
    assert!(!now.has(status::DRIVER_OK) || now.has(status::FEATURES_OK), "started unsettled: {now:x?}");
    if now.has(status::FEATURES_OK) {
        assert_eq!((now.features & !offer.features, now.features & VERSION_1), (0, VERSION_1));
    }
    assert_eq!(device.started(), now.has(status::DRIVER_OK));
    assert!(if device.started() { [1, 3].contains(&now.interrupt) } else { now.interrupt == 0 }, "{now:x?}");
    assert_eq!(now.queues.len(), offer.queues);
    for queue in &now.queues {
        assert!(queue.size.is_none_or(|size| size.is_power_of_two() && size <= offer.queue_size));
        assert!(!queue.ready || queue.size.is_some(), "ready without a size");
    }
}

/// What a write may change.
fn wrote(register: u64, data: &[u8], effect: Effect, select: u32, before: &Seen, now: &Seen) {
    let value = <[u8; 4]>::try_from(data).map(u32::from_le_bytes);
    let Ok(value) = value else { return assert_eq!((before, effect), (now, Effect::Nothing), "half a word") };
    assert_eq!((&before.config, before.generation), (&now.config, now.generation), "it is the device's");
    let running = before.has(status::DRIVER_OK);
    if register == register::STATUS && value == 0 {
        assert_eq!((now.status, now.features, now.interrupt), (0, 0, 0));
        assert!(now.queues.iter().all(|queue| *queue == Queue::default()));
        assert_eq!(effect, if running { Effect::Stop } else { Effect::Nothing });
        return;
    }
    assert_eq!(now.status & before.status, before.status, "only a reset takes a bit back");
    let starts = !running && now.has(status::DRIVER_OK);
    assert_eq!(effect, if starts { Effect::Start } else { Effect::Nothing });
    assert!(!before.has(status::FEATURES_OK) || now.features == before.features, "features are settled");
    for (number, (was, is)) in (0..).zip(before.queues.iter().zip(&now.queues)) {
        assert!(was == is || number == select, "another ring than the selected one changed");
        assert!(!(was.ready && is.ready) || was == is, "a ring changed while it was ready");
    }
}

/// Any accesses to a register file: what is settled stays, what was not offered is not taken, and what the device is told
/// to do follows the driver's status.
///
/// ```text
/// input: kind of device u8 | step*       step: what u8 | register u16 | value u32
/// what: bits 0-3 the width of the access; bits 4-7: to 9 a write, to 13 a read, 14 the device fails, 15 it changes
/// ```
pub fn mmio_registers(input: &[u8]) {
    let Some((kind, steps)) = input.split_first() else { return };
    let offer = offer(*kind);
    let mut device = Registers::new(offer.clone());
    let (mut select, mut before) = (0, seen(&device));
    check(&device, &offer, &before);
    for step in steps.chunks_exact(7) {
        let (what, register) = (step[0], u64::from(u16::from_le_bytes([step[1], step[2]])));
        let data: Vec<u8> = step[3..].iter().copied().cycle().take(usize::from(what & 0xf)).collect();
        match what >> 4 {
            0..=9 => {
                let effect = device.write(register, &data);
                let now = seen(&device);
                wrote(register, &data, effect, select, &before, &now);
                if register == register::QUEUE_SEL
                    && let Ok(value) = <[u8; 4]>::try_from(&data[..])
                {
                    select = u32::from_le_bytes(value);
                }
                if register == register::STATUS && data == [0; 4] {
                    select = 0;
                }
            }
            10..=13 => {
                let mut read = vec![0xee; data.len()];
                device.read(register, &mut read);
                let offset = register.checked_sub(register::CONFIG).map(|offset| offset as usize);
                if let Some(offset) = offset {
                    let byte = |at: usize| offer_byte(&before.config, offset + at);
                    assert!((0..read.len()).all(|at| read[at] == byte(at)), "{register:#x}: {read:x?}");
                } else if read.len() != 4 {
                    assert!(read.iter().all(|byte| *byte == 0xee), "{register:#x}: {read:x?}");
                }
                assert_eq!(seen(&device), before, "a read changes nothing");
            }
            14 => {
                device.needs_reset();
                let now = seen(&device);
                assert_eq!(now.status, before.status | status::DEVICE_NEEDS_RESET);
                assert!(!device.started() || now.interrupt == 3, "nobody is told");
            }
            _ => {
                let changed = device.set_config(usize::from(step[1]), &data);
                let now = seen(&device);
                assert_eq!(changed, now.config != before.config);
                assert_eq!(now.generation, before.generation.wrapping_add(changed.into()));
                assert!(now.config[offer.config.len()..].iter().all(|byte| *byte == 0), "it grew");
            }
        }
        before = seen(&device);
        check(&device, &offer, &before);
    }
}

/// A byte of a configuration space, behind whose end there are zeros.
fn offer_byte(config: &[u8], at: usize) -> u8 {
    config.get(at).copied().unwrap_or(0)
}
