//! What a VLAN with a gateway may have of the routers.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroU64,
    time::Duration,
};
use vswitch_core::{clock::Instant, limits::Bucket, mac::MacAddr};

/// Answers and ICMP errors a second, each, for one share of a VLAN's stations.
const PER_SECOND: NonZeroU64 = NonZeroU64::new(1000).expect("it is not zero");

/// Messages of DHCP clients a second that are heard, for one share: each costs more than other answers, and a client that is not heard asks again.
const DHCP_PER_SECOND: NonZeroU64 = NonZeroU64::new(64).expect("it is not zero");

/// Fragments a second that are cut, for one share.
const CUTS_PER_SECOND: NonZeroU64 = NonZeroU64::new(20_000).expect("it is not zero");

/// Shares that a VLAN has: its stations are spread over them, so that one who asks too often takes nothing from most others.
const SHARES: usize = 32;

/// Questions a second: more than may be under way, so that each is asked at last.
const ASKS_PER_SECOND: NonZeroU64 = NonZeroU64::new(200).expect("it is not zero");

/// In what time as many come as may go at once: 100 answers, 100 errors, 2000 fragments, 64 messages of DHCP clients, 100 questions.
const AT_ONCE: Duration = Duration::from_millis(100);
const DHCP_AT_ONCE: Duration = Duration::from_secs(1);
const ASKS_AT_ONCE: Duration = Duration::from_millis(500);

/// Neighbours of one VLAN that are learned unasked, at most: of the table an eighth.
const NEIGHBOURS: u32 = vswitch_core::route::CAPACITY as u32 / 8;

/// How long a conflict is not answered again (RFC 5227 §1.1, DEFEND_INTERVAL).
const DEFEND_EVERY: Duration = Duration::from_secs(10);

/// What the stations of a VLAN are told, each its share of it. Which share is whose nobody can guess.
#[derive(Debug)]
pub(super) struct Shares {
    buckets: [Bucket; SHARES],
    whose: RandomState,
}

impl Shares {
    fn new(rate: NonZeroU64, at_once: Duration) -> Self {
        let bucket = |_| Bucket::of_pieces(rate, at_once);
        Self { buckets: std::array::from_fn(bucket), whose: RandomState::new() }
    }

    /// Whether one more may be said to this station; then it is.
    pub(super) fn take(&self, station: MacAddr, now: Instant) -> bool {
        self.take_many(1, station, now)
    }

    /// The same of so many.
    pub(super) fn take_many(&self, count: u64, station: MacAddr, now: Instant) -> bool {
        self.bucket(station).take(count, now)
    }

    /// Whether one more may be said to this station: before an answer is looked for that costs much.
    pub(super) fn has(&self, station: MacAddr, now: Instant) -> bool {
        self.bucket(station).has(1, now)
    }

    fn bucket(&self, station: MacAddr) -> &Bucket {
        let share = self.whose.hash_one(station.to_u64()) % SHARES as u64;
        &self.buckets[share as usize]
    }
}

/// A VLAN with a gateway.
#[derive(Debug)]
pub(super) struct Segment {
    /// Who has the router's addresses: without that nothing reaches it.
    pub(super) addresses: Shares,
    /// What DHCP clients may say.
    pub(super) dhcp: Shares,
    /// All other answers.
    pub(super) answers: Shares,
    pub(super) errors: Shares,
    pub(super) asks: Bucket,
    /// Fragments that packets from here are cut into.
    pub(super) cuts: Shares,
    /// Bytes that a packet may have which goes on into this VLAN; none: as many as a frame carries.
    pub(super) mtu: Option<u16>,
    /// How many neighbours it had when they were counted, and those that came since.
    neighbours: u32,
    /// Those counted so far, this time.
    counted: u32,
    /// When each of the router's own addresses was defended; no more than it has.
    defended: BTreeMap<IpAddr, Instant>,
}

impl Segment {
    pub(super) fn new() -> Self {
        Self {
            addresses: Shares::new(PER_SECOND, AT_ONCE),
            dhcp: Shares::new(DHCP_PER_SECOND, DHCP_AT_ONCE),
            answers: Shares::new(PER_SECOND, AT_ONCE),
            errors: Shares::new(PER_SECOND, AT_ONCE),
            asks: Bucket::of_pieces(ASKS_PER_SECOND, ASKS_AT_ONCE),
            cuts: Shares::new(CUTS_PER_SECOND, AT_ONCE),
            mtu: None,
            neighbours: 0,
            counted: 0,
            defended: BTreeMap::new(),
        }
    }

    /// Whether one of the router's own addresses may be defended now; then it is.
    pub(super) fn may_defend(&mut self, own: IpAddr, now: Instant) -> bool {
        let may = self.defended.get(&own).is_none_or(|last| now.since(*last) >= DEFEND_EVERY);
        if may {
            self.defended.insert(own, now);
        }
        may
    }

    /// Whether one more neighbour may be learned unasked; then there is one more.
    pub(super) const fn may_have_another(&mut self) -> bool {
        let may = self.neighbours < NEIGHBOURS;
        self.neighbours += may as u32;
        may
    }

    /// Counts a neighbour.
    pub(super) const fn count(&mut self) {
        self.counted += 1;
    }

    /// All were counted.
    pub(super) const fn counted(&mut self) {
        self.neighbours = self.counted;
        self.counted = 0;
    }
}
