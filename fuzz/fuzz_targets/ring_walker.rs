//! Rings in memory that holds anything: both directions take only what lies in it, and give back all that they took.
//!
//! ```text
//! input: which ring | log2 of its size | features | base u16 | steps u8 | steps | guest memory
//! ```
//! The descriptor table begins the memory, the avail ring follows it, the used ring has a page of its own. Each step
//! is a batch or a jump of `avail.idx`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use vhost_net_backend::{
    device::{
        memory::GuestMemory,
        ring::{
            FromGuest, HEAD_BYTES, MAX_BATCH, MAX_FRAME, Payload, RingParts, Rooms, RunningRing, ToGuest,
            make_visible,
        },
    },
    features,
    layout::RingSize,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Two regions that touch, a gap, and a third.
const REGIONS: [(GuestAddress, usize); 3] =
    [(GuestAddress(0), 0x3000), (GuestAddress(0x3000), 0x1000), (GuestAddress(0x8000), 0x1000)];
const USED: u64 = 0x2000;

struct Lab {
    map: Arc<GuestMemoryMmap<()>>,
    avail: GuestAddress,
    ring: RunningRing,
}

impl Lab {
    /// The lab that `input` begins with, and its steps. None: no ring can be started there.
    fn new(input: &[u8]) -> Option<(Self, &[u8])> {
        let [index, size, taken, low, high, steps, rest @ ..] = input else { return None };
        let (steps, mut content) = rest.split_at_checked(usize::from(*steps))?;
        let map = Arc::new(GuestMemoryMmap::<()>::from_ranges(&REGIONS).expect("three small regions"));
        for (start, len) in REGIONS {
            let (now, later) = content.split_at(content.len().min(len));
            map.write_slice(now, start).expect("inside of the region");
            content = later;
        }
        let size = RingSize::new(1 << (size % 8))?;
        let avail = GuestAddress(size.desc_bytes() as u64);
        let base = u16::from_le_bytes([*low, *high]);
        let optional =
            [features::NET_MRG_RXBUF, features::EVENT_IDX, features::IN_ORDER, features::INDIRECT_DESC];
        let features =
            (0..).zip(optional).filter(|(bit, _)| taken >> bit & 1 == 1).map(|(_, feature)| feature);
        let parts = RingParts {
            index: u16::from(index & 1),
            size,
            desc: 0,
            avail: avail.0,
            used: USED,
            next_avail: base,
            next_used: base,
            features: features.fold(features::VERSION_1, |all, one| all | one),
            kick: None,
            call: None,
        };
        let memory = GuestMemory::new(map.clone()).ok()?;
        let ring = RunningRing::start(parts, memory).ok()?;
        Some((Self { map, avail, ring }, steps))
    }

    /// The guest moves `avail.idx`.
    fn advance(&self, by: u8) {
        let at = GuestAddress(self.avail.0 + 2);
        let index: u16 = self.map.read_obj(at).expect("inside of the region");
        self.map.write_obj(index.wrapping_add(u16::from(by)), at).expect("inside of the region");
    }

    fn used_index(&self) -> u16 {
        self.map.read_obj(GuestAddress(USED + 2)).expect("inside of the region")
    }
}

/// One batch from the guest; false if the ring is broken.
fn harvest(ring: &mut FromGuest, step: u8) -> bool {
    let Ok(taken) = ring.harvest(usize::from(step)) else {
        assert_eq!(ring.batch_len(), 0, "what is refused is not taken");
        return false;
    };
    assert!(taken == ring.batch_len() && taken <= MAX_BATCH.min(usize::from(ring.size())));
    for place in 0..taken {
        let frame = ring.frame(place);
        assert_eq!(frame.head().len(), (frame.len() as usize).min(HEAD_BYTES));
        let (segments, skip) = match frame.payload() {
            Payload::Guest { segments, skip } => (segments, skip),
            Payload::Ours(bytes) => {
                assert!(bytes.is_empty(), "a guest's frame lies in its memory");
                (&[][..], 0)
            }
        };
        if frame.defect().is_none() {
            assert!(frame.len() <= MAX_FRAME);
            let behind: u64 = segments.iter().map(|segment| u64::from(segment.len())).sum();
            let payload = u64::from(frame.len()) - frame.head().len() as u64;
            assert_eq!(behind.saturating_sub(u64::from(skip)), payload, "head and payload are the frame");
        }
    }
    ring.finish(usize::from(step) / 2);
    make_visible();
    let _ = ring.notify();
    let _ = ring.arm();
    ring.disarm();
    true
}

/// Frames for the guest; false if the ring is broken.
fn deliver(ring: &ToGuest, step: u8) -> bool {
    let lengths = (0..u32::from(step % 8)).map(|place| (u32::from(step) << (place + 1)) % (MAX_FRAME + 2));
    let mut rooms = Rooms::default();
    let Ok(mut lease) = ring.reserve(0, &mut rooms, lengths.len(), |room| room.frames(lengths.clone()))
    else {
        return false;
    };
    for (place, len) in lengths.enumerate() {
        let bytes = vec![0xa5; len as usize];
        let (head, payload) = bytes.split_at(bytes.len().min(HEAD_BYTES));
        if lease.write(place, head, Payload::Ours(payload)).is_ok() {
            assert!(len <= MAX_FRAME);
        }
    }
    let Ok(published) = lease.publish() else { return false };
    make_visible();
    ring.notify(published).is_ok()
}

fuzz_target!(|input: &[u8]| {
    let Some((mut lab, steps)) = Lab::new(input) else { return };
    for step in steps {
        if step & 0x80 != 0 {
            lab.advance(step & 0x7f);
            continue;
        }
        let before = lab.ring.next_avail();
        let goes_on = match &mut lab.ring {
            RunningRing::From(ring) => harvest(ring, *step),
            RunningRing::To(ring) => deliver(ring, *step),
        };
        let (avail, used) = (lab.ring.next_avail(), lab.ring.next_used());
        if !goes_on {
            assert_eq!(avail, before, "a refused batch moves no index");
            return;
        }
        assert!(avail.wrapping_sub(before) <= lab.ring.size());
        assert_eq!(avail, used, "all that was taken was given back");
        let _ = lab.used_index();
    }
});
