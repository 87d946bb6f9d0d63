//! A disk whose driver puts anything into its ring, beside a disk that is nothing but a row of bytes.

use super::file;
use crate::{
    confine::Role,
    memory::Ram,
    virtio::{
        block::{Block, MOST},
        image::{DiskConfig, Image, SECTOR},
        mmio::{Offer, Queue as Described},
        served::{Broken, Chain, Service, queue, serve_one},
    },
};
use std::{io::Read, ops::Range, os::unix::fs::FileExt, sync::OnceLock};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

/// Two regions that touch, a gap, and a third.
const REGIONS: [(GuestAddress, usize); 3] =
    [(GuestAddress(0), 0x6000), (GuestAddress(0x6000), 0x2000), (GuestAddress(0xc000), 0x2000)];
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x100;
const USED: u64 = 0x140;
/// Two of an overlay's clusters, and the beginning of a third.
const SECTORS: u64 = 2 * 128 + 3;
/// What is on the image: made once, for it takes longer than most inputs.
static BELOW: OnceLock<Vec<u8>> = OnceLock::new();
/// More requests than one input has room for.
const MOST_REQUESTS: usize = 64;

/// What of the guest's memory is where.
fn memory(ram: &Ram) -> Vec<(u64, Vec<u8>)> {
    let region = |(start, len): (GuestAddress, usize)| {
        let mut bytes = vec![0; len];
        ram.read_slice(&mut bytes, start).expect("a region is memory");
        (start.0, bytes)
    };
    REGIONS.map(region).into()
}

/// What a request must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Its status, and how much of the disk, from which byte on, is what was read.
    Done(u32, Range64),
    /// It breaks the ring.
    Broken,
}

/// A range that can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range64(u64, u64);

const NOTHING: Range64 = Range64(0, 0);

/// A disk, and what must be on it.
struct Watched {
    disk: Block,
    content: Vec<u8>,
}

impl Watched {
    /// What a request must come to, on a disk that is a row of bytes; what it writes is written to that.
    fn expect(&mut self, request: &Chain<'_>) -> Outcome {
        let ram = request.memory();
        let (Ok(mut input), Ok(output)) = (request.clone().reader(ram), request.clone().writer(ram)) else {
            return Outcome::Broken;
        };
        let mut header = [0; 16];
        let whole = input.read_exact(&mut header).is_ok();
        let Some(room) = output.available_bytes().checked_sub(1).filter(|_| whole) else {
            return Outcome::Broken;
        };
        let sent = input.available_bytes() as u64;
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let (_, sector) = header.split_at(8);
        let sector = u64::from_le_bytes(sector.try_into().expect("eight bytes"));
        let place = |bytes: u64| {
            let offset = sector.checked_mul(SECTOR)?;
            let end = offset.checked_add(bytes)?;
            let good = bytes.is_multiple_of(SECTOR) && bytes <= MOST && end <= SECTORS * SECTOR;
            good.then_some(offset)
        };
        match kind {
            VIRTIO_BLK_T_IN => match place(room as u64) {
                Some(offset) => Outcome::Done(VIRTIO_BLK_S_OK, Range64(offset, room as u64)),
                None => Outcome::Done(VIRTIO_BLK_S_IOERR, NOTHING),
            },
            VIRTIO_BLK_T_OUT => match place(sent) {
                Some(offset) => {
                    let place = &mut self.content[offset as usize..][..sent as usize];
                    input.read_exact(place).expect("all of it is memory");
                    Outcome::Done(VIRTIO_BLK_S_OK, NOTHING)
                }
                None => Outcome::Done(VIRTIO_BLK_S_IOERR, NOTHING),
            },
            VIRTIO_BLK_T_FLUSH => Outcome::Done(VIRTIO_BLK_S_OK, NOTHING),
            VIRTIO_BLK_T_GET_ID if room < VIRTIO_BLK_ID_BYTES as usize => {
                Outcome::Done(VIRTIO_BLK_S_IOERR, NOTHING)
            }
            VIRTIO_BLK_T_GET_ID => Outcome::Done(VIRTIO_BLK_S_OK, NOTHING),
            _ => Outcome::Done(VIRTIO_BLK_S_UNSUPP, NOTHING),
        }
    }
}

/// What a request lets the device write to, in order.
fn writable(request: &Chain<'_>) -> Vec<Range<u64>> {
    let ranges = request.clone().writable().map(|descriptor| {
        let start = descriptor.addr().0;
        start..start.saturating_add(descriptor.len().into())
    });
    ranges.filter(|range| !range.is_empty()).collect()
}

fn overlap(ranges: &[Range<u64>]) -> bool {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    sorted.windows(2).any(|pair| pair[0].end > pair[1].start)
}

impl Service for Watched {
    const ROLE: Role = Role::Disk;

    fn offer(&self) -> Offer {
        self.disk.offer()
    }

    fn start(&mut self, features: u64) {
        self.disk.start(features);
    }

    fn serve(&mut self, request: Chain<'_>) -> Result<u32, Broken> {
        let ram = request.memory();
        let (before, writable) = (memory(ram), writable(&request));
        let expected = self.expect(&request);
        let written = self.disk.serve(request.clone());
        let regions = before.iter().zip(memory(ram));
        for ((start, before), (_, now)) in regions.filter(|((_, before), (_, now))| before != now) {
            for (address, _) in (*start..).zip(before.iter().zip(&now)).filter(|(_, (was, is))| was != is) {
                assert!(writable.iter().any(|range| range.contains(&address)), "wrote to {address:#x}");
            }
        }
        let Outcome::Done(status, Range64(offset, length)) = expected else {
            assert_eq!(written, Err(Broken::Request));
            return written;
        };
        let room: u64 = writable.iter().map(|range| range.end - range.start).sum();
        let written = written.expect("a whole request is answered");
        assert!(u64::from(written) <= room, "{written} bytes written to {room}");
        if !overlap(&writable) {
            let mut answer = Vec::new();
            for range in &writable {
                let at = answer.len();
                answer.resize(at + (range.end - range.start) as usize, 0);
                ram.read_slice(&mut answer[at..], GuestAddress(range.start)).expect("it was written to");
            }
            assert_eq!(answer.pop().map(u32::from), Some(status));
            assert!(
                answer.starts_with(&self.content[offset as usize..][..length as usize]),
                "another content"
            );
        }
        Ok(written)
    }
}

/// Any ring in any memory before a disk: only what may be written to is written to, each request comes to what it must,
/// the used ring says so, an image below an overlay stays as it is, and none grows.
///
/// ```text
/// input: how u8 | rounds u8 | by how much the available index moves in each u8* | guest memory
/// how: bits 0-2 log2 of the ring's size (16 at most); 6: the image itself is written; 7: the driver flushes
/// ```
pub fn block_requests(input: &[u8]) {
    let [how, rounds, rest @ ..] = input else { return };
    let Some((moves, mut fill)) = rest.split_at_checked(usize::from(*rounds)) else { return };
    let ram = Ram::from_ranges(&REGIONS).expect("three small regions");
    for (start, len) in REGIONS {
        let (now, later) = fill.split_at(fill.len().min(len));
        ram.write_slice(now, start).expect("a region is memory");
        fill = later;
    }
    let size = 1 << (how & 7).min(4);
    let (descriptors, driver, device) = (DESCRIPTORS, AVAILABLE, USED);
    let described = Described { size: Some(size), ready: true, descriptors, driver, device };
    let mut ring = queue(&ram, described).expect("all of it is in memory");

    let below = BELOW.get_or_init(|| (0..SECTORS * SECTOR).map(|at| (at / 64) as u8).collect());
    let (image, path) = file(below).expect("memory for an image");
    let write = how & 0x40 != 0;
    let disk = Image::open(&DiskConfig { path, write }).expect("a whole number of sectors");
    let mut disk = Watched { disk: Block::new(disk, 0), content: below.clone() };
    disk.start(u64::from(how >> 7) << VIRTIO_BLK_F_FLUSH);

    let mut moves = moves.iter();
    for _ in 0..MOST_REQUESTS {
        let (next, used) = (ring.next_avail(), ring.next_used());
        let slot = AVAILABLE + 4 + 2 * u64::from(next % size);
        let head: u16 = ram.read_obj(GuestAddress(slot)).expect("the ring is memory");
        match serve_one(&ram, &mut disk, &mut ring) {
            Ok(true) => {
                assert_eq!(
                    (ring.next_avail(), ring.next_used()),
                    (next.wrapping_add(1), used.wrapping_add(1))
                );
                let index: u16 = ram.read_obj(GuestAddress(USED + 2)).expect("the ring is memory");
                assert_eq!(index, ring.next_used(), "the driver is not told");
                let element = USED + 4 + 8 * u64::from(used % size);
                let told: u32 = ram.read_obj(GuestAddress(element)).expect("the ring is memory");
                assert_eq!(told, u32::from(head), "another request than the one that was next");
            }
            Ok(false) => {
                let Some(by) = moves.next() else { break };
                let index: u16 = ram.read_obj(GuestAddress(AVAILABLE + 2)).expect("the ring is memory");
                let index = index.wrapping_add(u16::from(*by));
                ram.write_obj(index, GuestAddress(AVAILABLE + 2)).expect("the ring is memory");
            }
            Err(_) => break,
        }
    }
    let mut there = vec![0; below.len()];
    disk.disk.image().read(0, &mut there).expect("all of it is on the disk");
    assert!(there == disk.content, "a disk with another content than was written");
    assert_eq!(image.metadata().expect("an open file").len(), below.len() as u64, "the image grew");
    image.read_exact_at(&mut there, 0).expect("an open file");
    assert!(there == *if write { &disk.content } else { below }, "the image is another");
}
