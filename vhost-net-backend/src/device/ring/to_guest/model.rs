//! Two workers deliver into one receiveq while its driver looks, in every order that threads can take (loom). The flag and the leases
//! are the real ones; what stands in guest memory is loom's, weakly ordered as it would be there.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --lib model`

use super::leases::{Leases, Oldest};
use crate::device::ring::flag::Flagged;
use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread,
};

/// Places that are delivered into.
const PLACES: usize = 4;

/// How often a thread may be taken off its CPU where it would not have given it up.
const PREEMPTIONS: usize = 4;

struct Receiveq {
    /// The next place to give away, and the leases.
    state: Flagged<(u16, Leases)>,
    oldest: Oldest,
    /// Whether the frame in each place is written.
    written: [AtomicBool; PLACES],
    used_index: AtomicU16,
    /// How often the driver was told of each place.
    told: [AtomicU16; PLACES],
}

impl Receiveq {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Flagged::new((0, Leases::new(0))),
            oldest: Oldest::new(),
            written: std::array::from_fn(|_| AtomicBool::new(false)),
            used_index: AtomicU16::new(0),
            told: std::array::from_fn(|_| AtomicU16::new(0)),
        })
    }

    /// Reserve, write, publish.
    fn deliver(&self, places: u16) {
        let (first, number) = self.state.with(|(next, leases)| {
            *next += places;
            (*next - places, leases.open(places))
        });
        for place in first..first + places {
            self.written[usize::from(place)].store(true, Ordering::Relaxed);
        }
        let store = |index| self.used_index.store(index, Ordering::Release);
        let lease = (number, Some(first + places));
        let (old, new) = self.oldest.end(&self.state, |(_, leases)| leases, lease, store);
        for place in old..new {
            self.told[usize::from(place)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the driver sees: every place below the used index holds a frame.
    fn look(&self) -> u16 {
        let index = self.used_index.load(Ordering::Acquire);
        for place in 0..index {
            assert!(self.written[usize::from(place)].load(Ordering::Relaxed), "place {place} is not written");
        }
        index
    }
}

#[test]
fn the_used_index_passes_no_unwritten_place_and_all_is_published_once() {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(|| {
        let ring = Receiveq::new();
        let workers = [1, 3].map(|places| {
            let ring = ring.clone();
            thread::spawn(move || ring.deliver(places))
        });
        let early = ring.look();
        assert!(ring.look() >= early, "the used index goes back");
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(usize::from(ring.look()), PLACES, "all is published");
        assert!(
            ring.told.iter().all(|told| told.load(Ordering::Relaxed) == 1),
            "the driver is told once of each"
        );
    });
}
