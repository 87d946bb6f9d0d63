//! virtio-rng (virtio 1.2 §5.4): the kernel's random bytes, as many as a request has room for, up to a bound.

use super::{
    mmio::{Offer, VERSION_1},
    served::{Broken, Chain, Service},
};
use crate::confine::Role;
use std::io::Write;
use virtio_bindings::{virtio_ids::VIRTIO_ID_RNG, virtio_ring::VIRTIO_RING_F_INDIRECT_DESC};

/// The most that one request is given; a driver that wants more asks again.
const MOST: usize = 4096;
const QUEUE_SIZE: u16 = 16;

/// The device.
pub(crate) struct Rng;

impl Service for Rng {
    const ROLE: Role = Role::Rng;

    fn offer(&self) -> Offer {
        let features = VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC;
        Offer { device: VIRTIO_ID_RNG, features, queues: 1, queue_size: QUEUE_SIZE, config: Vec::new() }
    }

    fn start(&mut self, _: u64) {}

    fn serve(&mut self, request: Chain<'_>) -> Result<u32, Broken> {
        let ram = request.memory();
        let mut writer = request.clone().writer(ram).map_err(|_| Broken::Request)?;
        let mut bytes = [0; MOST];
        let bytes = &mut bytes[..writer.available_bytes().min(MOST)];
        // Of so few bytes the kernel gives all, but for a signal that comes in between.
        let got = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
        writer.write_all(&bytes[..got]).map_err(|_| Broken::Request)?;
        Ok(got as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::served::tests::{Buffer, Driver, damage, survive};
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn buffers_are_filled_up_to_a_bound() {
        let mut driver = Driver::new();
        let first = Buffer { address: 0x8000, length: 64, writable: true };
        let second = Buffer { address: 0x9000, length: 8192, ..first };
        assert_eq!(driver.request(&mut Rng, &[first]), Ok(64));
        let mut bytes = [0; 64];
        driver.ram.read_slice(&mut bytes, GuestAddress(0x8000)).unwrap();
        assert_ne!(bytes, [0; 64]);
        assert_eq!(driver.request(&mut Rng, &[first, second]), Ok(4096));
        assert_eq!(driver.request(&mut Rng, &[Buffer { writable: false, ..first }]), Ok(0));
        let outside = Buffer { address: u64::MAX, ..first };
        assert_eq!(driver.request(&mut Rng, &[outside]), Err(Broken::Request));
    }

    proptest! {
        #[test]
        fn a_damaged_ring_ends(damage in damage()) {
            survive(&mut Rng, &damage);
        }
    }
}
