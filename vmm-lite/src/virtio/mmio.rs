//! The register file of a virtio device over MMIO (virtio 1.2 §4.2). Pure: what a driver writes becomes an [`Effect`],
//! and whoever owns the device carries it out.

pub(crate) use super::names::{register, status};

/// Feature bit: virtio 1.x (VIRTIO_F_VERSION_1). A driver that does not take it is refused.
pub(crate) const VERSION_1: u64 = 1 << 32;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// Not legacy.
const VERSION: u32 = 2;
/// Nobody's: a vendor id is for drivers that know better, and ours need not.
const VENDOR: u32 = 0;
/// A used buffer was announced. Rings call past us (irqfd), so which did is not known here: always, for a driver looks
/// at its rings when it is called.
const USED_BUFFER: u32 = 1;
/// The configuration space or the status has changed; set until the driver takes note.
const CONFIGURATION_CHANGE: u32 = 2;

/// What a device is, to its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    /// What kind of device (§5).
    pub(crate) device: u32,
    /// What it can do.
    pub(crate) features: u64,
    /// How many rings it has.
    pub(crate) queues: usize,
    /// The most entries of each; a power of two.
    pub(crate) queue_size: u16,
    /// Its configuration space.
    pub(crate) config: Vec<u8>,
}

/// One ring, as its driver sets it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Queue {
    /// Entries; none while the driver has given no valid number.
    pub(crate) size: Option<u16>,
    /// It can be used.
    pub(crate) ready: bool,
    /// The descriptor table.
    pub(crate) descriptors: u64,
    /// The available ring.
    pub(crate) driver: u64,
    /// The used ring.
    pub(crate) device: u64,
}

/// What the device has to do after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Nothing,
    /// Begin: features are settled, and rings are set up (DRIVER_OK).
    Start,
    /// Leave the rings alone from now on (a reset).
    Stop,
}

/// The register file of one device.
#[derive(Debug)]
pub(crate) struct Registers {
    offer: Offer,
    status: u32,
    features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
    queues: Vec<Queue>,
    /// A driver is yet to take note of a change.
    changed: bool,
    /// Counts changes of the configuration space, so that a driver knows what it has read in pieces to be one whole.
    generation: u32,
}

impl Registers {
    /// After a reset.
    pub(crate) fn new(offer: Offer) -> Self {
        let queues = vec![Queue::default(); offer.queues];
        Self {
            offer,
            status: 0,
            features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
            queues,
            changed: false,
            generation: 0,
        }
    }

    /// The features that the driver has taken.
    pub(crate) fn features(&self) -> u64 {
        self.features
    }

    /// The rings.
    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The device is of no use until it is reset. A driver that has started is to be called (§2.1.2).
    pub(crate) fn needs_reset(&mut self) {
        self.status |= status::DEVICE_NEEDS_RESET;
        self.changed |= self.started();
    }

    /// The driver has started the device, and not reset it since.
    pub(crate) fn started(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    /// Changes what is at `offset` of the configuration space; false if it was so already. A driver that has started is
    /// to be called (§2.3).
    pub(crate) fn set_config(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let there = offset.checked_add(bytes.len()).and_then(|end| self.offer.config.get_mut(offset..end));
        let Some(there) = there.filter(|there| *there != bytes) else { return false };
        there.copy_from_slice(bytes);
        self.generation = self.generation.wrapping_add(1);
        self.changed |= self.started();
        true
    }

    /// A read by the driver. Registers are read as 32 aligned bits (§4.2.2.2), and other reads of them say nothing; the
    /// configuration space is read as the driver likes.
    pub(crate) fn read(&self, register: u64, data: &mut [u8]) {
        if let Some(offset) = register.checked_sub(register::CONFIG) {
            let config = usize::try_from(offset).ok().and_then(|offset| self.offer.config.get(offset..));
            let config = config.unwrap_or_default();
            let there = config.len().min(data.len());
            data.fill(0);
            data[..there].copy_from_slice(&config[..there]);
        } else if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = self.read_register(register).to_le_bytes();
        }
    }

    fn read_register(&self, register: u64) -> u32 {
        let queue = self.selected();
        match register {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => VERSION,
            register::DEVICE_ID => self.offer.device,
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.offer.features, self.device_features_sel),
            register::QUEUE_NUM_MAX if queue.is_some() => self.offer.queue_size.into(),
            register::QUEUE_READY => queue.is_some_and(|queue| queue.ready).into(),
            register::INTERRUPT_STATUS if self.started() => {
                USED_BUFFER | if self.changed { CONFIGURATION_CHANGE } else { 0 }
            }
            register::STATUS => self.status,
            // There is no shared memory region: its length and base are -1 (§4.2.2).
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => self.generation,
            _ => 0,
        }
    }

    /// A write by the driver, and what follows from it. What a driver must not write has no effect.
    pub(crate) fn write(&mut self, register: u64, data: &[u8]) -> Effect {
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return Effect::Nothing };
        match register {
            register::DEVICE_FEATURES_SEL => self.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            register::DRIVER_FEATURES if self.status & status::FEATURES_OK == 0 => {
                set_half(&mut self.features, self.driver_features_sel, value);
            }
            register::QUEUE_SEL => self.queue_sel = value,
            register::INTERRUPT_ACK if value & CONFIGURATION_CHANGE != 0 => self.changed = false,
            register::STATUS => return self.write_status(value),
            register::QUEUE_READY => self.write_ready(value),
            _ => self.write_queue(register, value),
        }
        Effect::Nothing
    }

    /// §3.1.1: features are settled before rings work, and only a reset takes a status bit back.
    fn write_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            let running = self.started();
            *self = Self { generation: self.generation, ..Self::new(self.offer.clone()) };
            return if running { Effect::Stop } else { Effect::Nothing };
        }
        let mut new = value & status::OF_DRIVER & !self.status;
        let acceptable = self.features & !self.offer.features == 0 && self.features & VERSION_1 != 0;
        if new & status::FEATURES_OK != 0 && !acceptable {
            new &= !status::FEATURES_OK;
        }
        if (self.status | new) & status::FEATURES_OK == 0 {
            new &= !status::DRIVER_OK;
        }
        self.status |= new;
        if new & status::DRIVER_OK != 0 { Effect::Start } else { Effect::Nothing }
    }

    /// A device that runs has taken over the rings as they were, and serves them until it is reset: what it went by
    /// stays to be read.
    fn write_ready(&mut self, value: u32) {
        if self.started() {
            return;
        }
        if let Some(queue) = self.selected_mut() {
            queue.ready = value == 1 && queue.size.is_some();
        }
    }

    /// What describes a ring, which a driver must not change while the ring is ready (§4.2.2.2).
    fn write_queue(&mut self, register: u64, value: u32) {
        let most = self.offer.queue_size;
        let Some(queue) = self.selected_mut().filter(|queue| !queue.ready) else { return };
        match register {
            register::QUEUE_NUM => {
                let size = u16::try_from(value).ok();
                queue.size = size.filter(|size| size.is_power_of_two() && *size <= most);
            }
            register::QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
            register::QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
            register::QUEUE_DRIVER_LOW => set_half(&mut queue.driver, 0, value),
            register::QUEUE_DRIVER_HIGH => set_half(&mut queue.driver, 1, value),
            register::QUEUE_DEVICE_LOW => set_half(&mut queue.device, 0, value),
            register::QUEUE_DEVICE_HIGH => set_half(&mut queue.device, 1, value),
            // Kicks go past the registers (most by an ioeventfd); the rest is read-only.
            _ => {}
        }
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::try_from(self.queue_sel).ok()?)
    }

    fn selected_mut(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }
}

/// 32 bits of 64: those that a selector register chooses.
fn half(whole: u64, select: u32) -> u32 {
    match select {
        0 => whole as u32,
        1 => (whole >> 32) as u32,
        _ => 0,
    }
}

fn set_half(whole: &mut u64, select: u32, value: u32) {
    match select {
        0 => *whole = *whole & !0xffff_ffff | u64::from(value),
        1 => *whole = *whole & 0xffff_ffff | u64::from(value) << 32,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: u64 = 1 << 5;

    fn device() -> Registers {
        Registers::new(Offer {
            device: 1,
            features: VERSION_1 | MAC,
            queues: 2,
            queue_size: 256,
            config: vec![2, 0, 0, 0, 0, 7, 1, 0],
        })
    }

    fn write(device: &mut Registers, register: u64, value: u32) -> Effect {
        device.write(register, &value.to_le_bytes())
    }

    fn read(device: &Registers, register: u64) -> u32 {
        let mut data = [0xff; 4];
        device.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    /// §3.1.1, up to FEATURES_OK.
    fn negotiate(device: &mut Registers, features: u64) {
        write(device, register::STATUS, status::ACKNOWLEDGE);
        write(device, register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for select in [0, 1] {
            write(device, register::DRIVER_FEATURES_SEL, select);
            write(device, register::DRIVER_FEATURES, half(features, select));
        }
        let wanted = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        write(device, register::STATUS, wanted);
    }

    fn set_up(device: &mut Registers, queue: u32) {
        write(device, register::QUEUE_SEL, queue);
        write(device, register::QUEUE_NUM, 64);
        for (register, value) in [
            (register::QUEUE_DESC_LOW, 0x1000),
            (register::QUEUE_DESC_HIGH, 1),
            (register::QUEUE_DRIVER_LOW, 0x2000),
            (register::QUEUE_DEVICE_LOW, 0x3000),
            (register::QUEUE_READY, 1),
        ] {
            write(device, register, value);
        }
    }

    #[test]
    fn a_driver_starts_and_resets_it() {
        let mut device = device();
        assert_eq!(read(&device, register::MAGIC_VALUE).to_le_bytes(), *b"virt");
        assert_eq!((read(&device, register::VERSION), read(&device, register::DEVICE_ID)), (2, 1));
        negotiate(&mut device, VERSION_1 | MAC);
        assert_ne!(read(&device, register::STATUS) & status::FEATURES_OK, 0);
        set_up(&mut device, 0);
        assert_eq!(read(&device, register::INTERRUPT_STATUS), 0);
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        assert_eq!(write(&mut device, register::STATUS, all), Effect::Start);
        assert_eq!(write(&mut device, register::STATUS, all), Effect::Nothing, "it runs already");
        let queue =
            Queue { size: Some(64), ready: true, descriptors: 0x1_0000_1000, driver: 0x2000, device: 0x3000 };
        assert_eq!(device.queues(), [queue, Queue::default()]);
        assert_eq!((device.features(), read(&device, register::INTERRUPT_STATUS)), (VERSION_1 | MAC, 1));
        write(&mut device, register::QUEUE_READY, 0);
        set_up(&mut device, 1);
        assert_eq!(device.queues(), [queue, Queue { ready: false, ..queue }], "it serves what it began with");

        assert_eq!(write(&mut device, register::STATUS, 0), Effect::Stop);
        assert_eq!(write(&mut device, register::STATUS, 0), Effect::Nothing, "nothing runs any more");
        assert_eq!((device.queues(), device.features()), (&[Queue::default(); 2][..], 0));
    }

    #[test]
    fn features_that_were_not_offered_and_legacy_drivers_are_refused() {
        for features in [VERSION_1 | MAC | 1 << 40, MAC, 0] {
            let mut device = device();
            negotiate(&mut device, features);
            assert_eq!(read(&device, register::STATUS), status::ACKNOWLEDGE | status::DRIVER);
            let effect = write(&mut device, register::STATUS, status::DRIVER_OK);
            assert_eq!((effect, read(&device, register::STATUS) & status::DRIVER_OK), (Effect::Nothing, 0));
        }
        let mut device = device();
        negotiate(&mut device, VERSION_1);
        write(&mut device, register::DRIVER_FEATURES_SEL, 0);
        write(&mut device, register::DRIVER_FEATURES, u32::MAX);
        assert_eq!(device.features(), VERSION_1, "features are settled");
    }

    #[test]
    fn a_ring_has_a_valid_size_and_stays_as_it_is_while_it_is_ready() {
        let mut device = device();
        for bad in [0, 3, 512, 1 << 16, u32::MAX] {
            write(&mut device, register::QUEUE_NUM, bad);
            write(&mut device, register::QUEUE_READY, 1);
            assert_eq!(read(&device, register::QUEUE_READY), 0, "{bad}");
        }
        set_up(&mut device, 1);
        write(&mut device, register::QUEUE_DESC_LOW, 0xdead);
        write(&mut device, register::QUEUE_NUM, 8);
        assert_eq!((device.queues()[1].descriptors, device.queues()[1].size), (0x1_0000_1000, Some(64)));
        write(&mut device, register::QUEUE_READY, 0);
        assert!(!device.queues()[1].ready);
    }

    #[test]
    fn a_ring_that_is_not_there_has_no_size() {
        let mut device = device();
        assert_eq!(read(&device, register::QUEUE_NUM_MAX), 256);
        for queue in [2, u32::MAX] {
            set_up(&mut device, queue);
            assert_eq!(
                (read(&device, register::QUEUE_NUM_MAX), read(&device, register::QUEUE_READY)),
                (0, 0)
            );
        }
        assert_eq!(device.queues(), [Queue::default(); 2]);
    }

    #[test]
    fn the_configuration_space_is_read_at_any_width_and_never_beyond_its_end() {
        let device = device();
        let mut mac = [0xff; 6];
        device.read(register::CONFIG, &mut mac);
        assert_eq!(mac, [2, 0, 0, 0, 0, 7]);
        let mut end = [0xff; 4];
        device.read(register::CONFIG + 6, &mut end);
        assert_eq!(end, [1, 0, 0, 0]);
        device.read(u64::MAX, &mut end);
        assert_eq!(end, [0; 4]);
    }

    #[test]
    fn a_change_of_the_configuration_is_told_until_the_driver_takes_note() {
        let mut device = device();
        assert!(device.set_config(6, &[0, 0]));
        assert_eq!(read(&device, register::CONFIG_GENERATION), 1);
        negotiate(&mut device, VERSION_1 | MAC);
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        write(&mut device, register::STATUS, all);
        assert_eq!(read(&device, register::INTERRUPT_STATUS), USED_BUFFER, "no driver was there to be told");

        assert!(!device.set_config(6, &[0, 0]), "it is so already");
        assert!(!device.set_config(7, &[1, 1]), "beyond the end");
        assert!(device.set_config(6, &[1, 0]));
        assert_eq!(read(&device, register::INTERRUPT_STATUS), USED_BUFFER | CONFIGURATION_CHANGE);
        write(&mut device, register::INTERRUPT_ACK, USED_BUFFER);
        assert_eq!(read(&device, register::INTERRUPT_STATUS), USED_BUFFER | CONFIGURATION_CHANGE);
        write(&mut device, register::INTERRUPT_ACK, USED_BUFFER | CONFIGURATION_CHANGE);
        assert_eq!(read(&device, register::INTERRUPT_STATUS), USED_BUFFER);

        write(&mut device, register::STATUS, 0);
        assert_eq!(read(&device, register::CONFIG_GENERATION), 2, "a reset takes no change back");
        let mut config = [0; 2];
        device.read(register::CONFIG + 6, &mut config);
        assert_eq!(config, [1, 0]);
    }

    #[test]
    fn a_running_device_that_needs_a_reset_says_so() {
        let mut device = device();
        device.needs_reset();
        assert_eq!(read(&device, register::INTERRUPT_STATUS), 0, "it does not run");
        write(&mut device, register::STATUS, 0);
        negotiate(&mut device, VERSION_1);
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        write(&mut device, register::STATUS, all);
        device.needs_reset();
        assert_eq!(read(&device, register::STATUS) & status::DEVICE_NEEDS_RESET, status::DEVICE_NEEDS_RESET);
        assert_eq!(read(&device, register::INTERRUPT_STATUS), USED_BUFFER | CONFIGURATION_CHANGE);
    }

    #[test]
    fn any_access_at_any_width_is_harmless() {
        let mut device = device();
        for register in 0..0x1000 {
            for width in [0, 1, 2, 4, 8] {
                device.write(register, &vec![0xa5; width]);
                device.read(register, &mut vec![0; width]);
            }
        }
        assert_eq!(read(&device, register::STATUS) & status::DRIVER_OK, 0);
    }
}
