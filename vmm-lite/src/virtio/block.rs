//! virtio-blk (virtio 1.2 §5.2) over an [`Image`]. A request's header is copied before it is judged, and its data goes
//! through a buffer of ours.

use super::{
    image::{Image, SECTOR},
    mmio::{Offer, VERSION_1},
    served::{Broken, Chain, Service},
};
use crate::confine::Role;
use std::io::{Read, Write};
use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_ID_BYTES,
        VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
        VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
    virtio_ring::VIRTIO_RING_F_INDIRECT_DESC,
};

const QUEUE_SIZE: u16 = 128;
/// The most buffers of a request's data, beside header and status; and the most bytes of each.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
const SIZE_MAX: u32 = 64 << 10;
/// So the most of a request; what is more is refused, that no request takes for ever.
pub(crate) const MOST: u64 = SEG_MAX as u64 * SIZE_MAX as u64;
/// type, reserved, sector (§5.2.6).
const HEADER: usize = 16;

/// A disk.
pub(crate) struct Block {
    image: Image,
    /// What GET_ID says.
    id: [u8; VIRTIO_BLK_ID_BYTES as usize],
    /// The driver flushes where it must; else each write is to last when it is done (§5.2.6.2).
    flushes: bool,
    buffer: Vec<u8>,
}

impl Block {
    /// The disk of this number in its machine.
    pub(crate) fn new(image: Image, number: usize) -> Self {
        let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
        let name = format!("vnet-disk{number}");
        let length = name.len().min(id.len());
        id[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self { image, id, flushes: false, buffer: vec![0; SIZE_MAX as usize] }
    }

    /// What is on it.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Carries a request out whose header was `header`: its status.
    fn answer(
        &mut self,
        header: [u8; HEADER],
        input: &mut impl Read,
        input_bytes: u64,
        output: &mut impl Write,
        output_bytes: u64,
    ) -> u32 {
        let [kind, sector] = [&header[..4], &header[8..]]
            .map(|field| field.iter().rev().fold(0, |value: u64, byte| value << 8 | u64::from(*byte)));
        let done = match u32::try_from(kind) {
            Ok(VIRTIO_BLK_T_IN) => self.read(sector, output, output_bytes),
            Ok(VIRTIO_BLK_T_OUT) => self.write(sector, input, input_bytes),
            Ok(VIRTIO_BLK_T_FLUSH) => self.image.flush().map_err(|_| Refused),
            Ok(VIRTIO_BLK_T_GET_ID) if output_bytes >= self.id.len() as u64 => {
                output.write_all(&self.id).map_err(|_| Refused)
            }
            Ok(VIRTIO_BLK_T_GET_ID) => Err(Refused),
            _ => return VIRTIO_BLK_S_UNSUPP,
        };
        if done.is_ok() { VIRTIO_BLK_S_OK } else { VIRTIO_BLK_S_IOERR }
    }

    /// Where a request's data is on the disk.
    fn place(&self, sector: u64, bytes: u64) -> Result<u64, Refused> {
        if !bytes.is_multiple_of(SECTOR) || bytes > MOST {
            return Err(Refused);
        }
        self.image.place(sector, bytes).ok_or(Refused)
    }

    fn read(&mut self, sector: u64, output: &mut impl Write, bytes: u64) -> Result<(), Refused> {
        let (mut offset, mut left) = (self.place(sector, bytes)?, bytes);
        while left > 0 {
            let part = &mut self.buffer[..left.min(SIZE_MAX.into()) as usize];
            self.image.read(offset, part).map_err(|_| Refused)?;
            output.write_all(part).map_err(|_| Refused)?;
            (offset, left) = (offset + part.len() as u64, left - part.len() as u64);
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, input: &mut impl Read, bytes: u64) -> Result<(), Refused> {
        let (mut offset, mut left) = (self.place(sector, bytes)?, bytes);
        while left > 0 {
            let part = &mut self.buffer[..left.min(SIZE_MAX.into()) as usize];
            input.read_exact(part).map_err(|_| Refused)?;
            self.image.write(offset, part).map_err(|_| Refused)?;
            (offset, left) = (offset + part.len() as u64, left - part.len() as u64);
        }
        if self.flushes { Ok(()) } else { self.image.flush().map_err(|_| Refused) }
    }
}

/// A request that was not, or not wholly, carried out.
struct Refused;

impl Service for Block {
    const ROLE: Role = Role::Disk;

    fn offer(&self) -> Offer {
        let mut features = VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC;
        features |= 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_SIZE_MAX;
        // capacity, size_max, seg_max (§5.2.4).
        let mut config = self.image.sectors().to_le_bytes().to_vec();
        config.extend(SIZE_MAX.to_le_bytes());
        config.extend(SEG_MAX.to_le_bytes());
        Offer { device: VIRTIO_ID_BLOCK, features, queues: 1, queue_size: QUEUE_SIZE, config }
    }

    fn start(&mut self, features: u64) {
        self.flushes = features & 1 << VIRTIO_BLK_F_FLUSH != 0;
    }

    fn serve(&mut self, request: Chain<'_>) -> Result<u32, Broken> {
        let ram = request.memory();
        let broken = |_| Broken::Request;
        let mut input = request.clone().reader(ram).map_err(broken)?;
        let mut output = request.clone().writer(ram).map_err(broken)?;
        let mut header = [0; HEADER];
        input.read_exact(&mut header).map_err(|_| Broken::Request)?;
        // The status is the last byte that can be written.
        let room = output.available_bytes().checked_sub(1).ok_or(Broken::Request)?;
        let mut status = output.split_at(room).map_err(broken)?;
        let sent = input.available_bytes() as u64;
        let code = self.answer(header, &mut input, sent, &mut output, room as u64);
        status.write_all(&[code as u8]).map_err(|_| Broken::Request)?;
        // The length says how much was written from the first byte on (§2.7.8.2): a request that was cut short has a gap
        // between its data and its status, which so cannot be counted.
        let written = output.bytes_written();
        let counted = if written == room { written + 1 } else { written };
        u32::try_from(counted).map_err(|_| Broken::Request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::{
        image::DiskConfig,
        served::tests::{Buffer, Driver, damage, survive},
    };
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    const AT_HEADER: u64 = 0x8000;
    const AT_STATUS: u64 = 0x9000;
    const AT_DATA: u64 = 0x1_0000;
    const SECTORS: u64 = 256;

    fn disk(write: bool) -> (tempfile::NamedTempFile, Block) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..SECTORS * SECTOR).map(|at| (at / SECTOR) as u8).collect();
        file.write_all(&bytes).unwrap();
        let image = Image::open(&DiskConfig { path: file.path().into(), write }).unwrap();
        (file, Block::new(image, 0))
    }

    /// A request as a driver makes it: the status, and the length that was told.
    fn request(
        driver: &mut Driver,
        block: &mut Block,
        kind: u32,
        sector: u64,
        data: &[Buffer],
    ) -> Result<(u32, u32), Broken> {
        driver.ram.write_obj(kind, GuestAddress(AT_HEADER)).unwrap();
        driver.ram.write_obj(sector, GuestAddress(AT_HEADER + 8)).unwrap();
        driver.ram.write_obj(0xffu8, GuestAddress(AT_STATUS)).unwrap();
        let mut buffers = vec![Buffer { address: AT_HEADER, length: HEADER as u32, writable: false }];
        buffers.extend(data);
        buffers.push(Buffer { address: AT_STATUS, length: 1, writable: true });
        let length = driver.request(block, &buffers)?;
        Ok((driver.ram.read_obj::<u8>(GuestAddress(AT_STATUS)).unwrap().into(), length))
    }

    fn buffer(length: u32, writable: bool) -> Buffer {
        Buffer { address: AT_DATA, length, writable }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for write in [true, false] {
            let (file, mut block) = disk(write);
            let mut driver = Driver::new();
            block.start(1 << VIRTIO_BLK_F_FLUSH);
            let data: Vec<u8> = (0..1536u32).map(|at| (at * 31) as u8).collect();
            driver.ram.write_slice(&data, GuestAddress(AT_DATA)).unwrap();
            // In parts that are no sectors, as a driver likes.
            let [first, second] =
                [buffer(1000, false), Buffer { address: AT_DATA + 1000, ..buffer(536, false) }];
            let mut ask =
                |kind, sector, data: &[Buffer]| request(&mut driver, &mut block, kind, sector, data);
            assert_eq!(ask(VIRTIO_BLK_T_OUT, 7, &[first, second]), Ok((VIRTIO_BLK_S_OK, 1)));
            assert_eq!(ask(VIRTIO_BLK_T_FLUSH, 0, &[]), Ok((VIRTIO_BLK_S_OK, 1)));
            assert_eq!(ask(VIRTIO_BLK_T_IN, 6, &[buffer(2048, true)]), Ok((VIRTIO_BLK_S_OK, 2049)));
            let mut read = vec![0; 2048];
            driver.ram.read_slice(&mut read, GuestAddress(AT_DATA)).unwrap();
            assert_eq!((&read[..512], &read[512..]), (&[6; 512][..], &data[..]));
            let below = std::fs::read(file.path()).unwrap();
            assert_eq!(below[7 * 512..][..1536] == data[..], write);
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_the_ring_goes_on() {
        let (_file, mut block) = disk(true);
        let mut driver = Driver::new();
        let mut ask = |kind, sector, data: &[Buffer]| request(&mut driver, &mut block, kind, sector, data);
        let whole = SECTORS * SECTOR;
        for (kind, sector, data) in [
            (VIRTIO_BLK_T_IN, SECTORS, buffer(512, true)),
            (VIRTIO_BLK_T_IN, u64::MAX, buffer(512, true)),
            (VIRTIO_BLK_T_OUT, SECTORS - 1, buffer(1024, false)),
            (VIRTIO_BLK_T_IN, 0, buffer(whole as u32 + 512, true)),
            (VIRTIO_BLK_T_IN, 0, buffer(100, true)),
            (VIRTIO_BLK_T_OUT, 0, buffer(513, false)),
            (VIRTIO_BLK_T_GET_ID, 0, buffer(19, true)),
        ] {
            assert_eq!(
                ask(kind, sector, &[data]).map(|(status, _)| status),
                Ok(VIRTIO_BLK_S_IOERR),
                "{data:?}"
            );
        }
        for kind in [2, 11, 13, 24, 0x8000_0000, u32::MAX] {
            assert_eq!(ask(kind, 0, &[]), Ok((VIRTIO_BLK_S_UNSUPP, 1)), "{kind}");
        }
        assert_eq!(ask(VIRTIO_BLK_T_GET_ID, 0, &[buffer(20, true)]), Ok((VIRTIO_BLK_S_OK, 21)));
        let mut id = [0; 20];
        driver.ram.read_slice(&mut id, GuestAddress(AT_DATA)).unwrap();
        assert_eq!(&id, b"vnet-disk0\0\0\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_request_without_header_or_status_breaks_the_ring() {
        let (_file, mut block) = disk(true);
        let header = Buffer { address: AT_HEADER, length: 16, writable: false };
        let status = Buffer { address: AT_STATUS, length: 1, writable: true };
        let outside = Buffer { address: u64::MAX - 4, length: 512, writable: true };
        for bad in [
            &[status][..],
            &[header],
            &[Buffer { length: 15, ..header }, status],
            &[header, Buffer { length: 0, ..status }],
            &[header, outside, status],
            &[Buffer { address: AT_HEADER, length: 16, writable: true }, status],
        ] {
            assert_eq!(Driver::new().request(&mut block, bad), Err(Broken::Request), "{bad:?}");
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_of_the_disk() {
        let (file, mut block) = disk(true);
        file.as_file().set_len(512).unwrap();
        let mut driver = Driver::new();
        let read = request(&mut driver, &mut block, VIRTIO_BLK_T_IN, 9, &[buffer(512, true)]);
        assert_eq!(read, Ok((VIRTIO_BLK_S_IOERR, 0)));
    }

    #[test]
    fn the_length_of_a_request_that_was_cut_short_is_what_was_written() {
        let (file, mut block) = disk(true);
        file.as_file().set_len(u64::from(SIZE_MAX) + SECTOR).unwrap();
        let mut driver = Driver::new();
        let mut ask = |kind, sector, data: &[Buffer]| request(&mut driver, &mut block, kind, sector, data);
        let whole = buffer((SECTORS * SECTOR) as u32, true);
        assert_eq!(ask(VIRTIO_BLK_T_IN, 0, &[whole]), Ok((VIRTIO_BLK_S_IOERR, SIZE_MAX)));
        // Without data to be written the status is the first byte.
        let out = ask(VIRTIO_BLK_T_OUT, SECTORS, &[buffer(512, false)]);
        assert_eq!(out, Ok((VIRTIO_BLK_S_IOERR, 1)));
    }

    proptest! {
        #[test]
        fn a_damaged_ring_ends(damage in damage()) {
            let (file, mut block) = disk(true);
            survive(&mut block, &damage);
            prop_assert_eq!(file.as_file().metadata().unwrap().len(), SECTORS * SECTOR);
        }
    }
}
