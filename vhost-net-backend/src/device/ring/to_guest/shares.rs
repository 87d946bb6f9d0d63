//! Who may have which part of a receiveq's buffers, once there were too few for all that was sent to it: each sender the same.
//!
//! Without that, whoever is served first takes every buffer that the guest gives back, and a sender that floods is always there
//! first. While nobody is short of buffers nothing is kept here, and whoever comes may have them all.
//!
//! A buffer that the guest makes available is promised to one sender, to each in turn. What a sender does not use stays promised to
//! it, so that a burst of it finds room behind a flood, up to an equal part of half the ring (or as many as a long frame takes, if that
//! is more); what is beyond that is common. So a sender that uses less than its part gets all that it asks for, and the others get
//! what it leaves.

/// Senders that are told apart. Further ones share the parts of these.
const SENDERS: usize = 16;

/// Buffers that one frame may need: 64 KiB in buffers of 1.5 KiB take 44 (MRG_RXBUF), and its segments at an MTU of 576 take 123.
const LONG_FRAME: u16 = 128;

/// Buffers that are promised to a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    sender: u16,
    promised: u16,
}

/// The parts of one ring's available buffers. Every method is told how many are available: those promised and those common.
#[derive(Debug)]
pub(super) struct Shares {
    /// Entries of the ring.
    entries: u16,
    /// Who asked since buffers ran out; nobody: there are enough.
    all: Vec<Share>,
    /// Whose turn it is to be promised one.
    next: usize,
    /// Available buffers that are promised to nobody.
    common: u16,
}

impl Shares {
    /// Those of a ring of `entries` entries, in which there are enough.
    pub(super) fn new(entries: u16) -> Self {
        Self { entries, all: Vec::with_capacity(SENDERS), next: 0, common: 0 }
    }

    /// How many of the `available` buffers `sender` may have.
    #[inline(always)]
    pub(super) fn of(&mut self, sender: u16, available: u16) -> u16 {
        if self.all.is_empty() { available } else { self.part(sender, available) }
    }

    /// `sender` took `taken` of the `available` buffers; `short` if it wanted more.
    #[inline(always)]
    pub(super) fn took(&mut self, sender: u16, available: u16, taken: u16, short: bool) {
        if short || !self.all.is_empty() {
            self.note(sender, available, taken);
        }
    }

    #[cold]
    fn part(&mut self, sender: u16, available: u16) -> u16 {
        if available > self.entries - self.entries / 4 {
            self.all.clear();
            return available;
        }
        self.promise(available);
        let at = self.place(sender);
        self.common + self.all[at].promised
    }

    #[cold]
    fn note(&mut self, sender: u16, available: u16, taken: u16) {
        if self.all.is_empty() {
            (self.next, self.common) = (0, available);
        }
        let at = self.place(sender);
        // What is common goes first: what is promised may be needed for a burst.
        let common = taken.min(self.common);
        self.common -= common;
        let share = &mut self.all[at];
        share.promised = share.promised.saturating_sub(taken - common);
    }

    /// The most that is kept for one sender.
    fn most(&self) -> u16 {
        let half = self.entries / 2;
        // There are at most `SENDERS`.
        (half / (self.all.len() as u16).max(1)).max(LONG_FRAME.min(half))
    }

    /// Promises the buffers that came since the last time to each sender in turn that may have one more.
    fn promise(&mut self, available: u16) {
        let promised: u16 = self.all.iter().map(|share| share.promised).sum();
        let Some(mut come) = available.checked_sub(promised).and_then(|rest| rest.checked_sub(self.common))
        else {
            // The guest took back what it had made available: whoever was promised something has nothing now.
            self.all.iter_mut().for_each(|share| share.promised = 0);
            self.common = available;
            return;
        };
        let (most, mut full) = (self.most(), 0);
        while come > 0 && full < self.all.len() {
            let share = &mut self.all[self.next];
            if share.promised < most {
                share.promised += 1;
                (come, full) = (come - 1, 0);
            } else {
                full += 1;
            }
            self.next = if self.next + 1 < self.all.len() { self.next + 1 } else { 0 };
        }
        self.common += come;
    }

    /// The place of `sender`, which is new, or is known, or shares another one's.
    fn place(&mut self, sender: u16) -> usize {
        if let Some(at) = self.all.iter().position(|share| share.sender == sender) {
            return at;
        }
        if self.all.len() < SENDERS {
            self.all.push(Share { sender, promised: 0 });
            let most = self.most();
            for share in &mut self.all {
                let beyond = share.promised.saturating_sub(most);
                share.promised -= beyond;
                self.common += beyond;
            }
            return self.all.len() - 1;
        }
        let most = self.most();
        let Some(at) = self.all.iter().position(|share| share.promised >= most) else {
            return usize::from(sender) % SENDERS;
        };
        // Who uses nothing of its part leaves.
        self.common += self.all[at].promised;
        self.all[at] = Share { sender, promised: 0 };
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ring, and what each sender got.
    struct Ring {
        shares: Shares,
        available: u16,
        got: [u32; 20],
    }

    impl Ring {
        /// One whose buffers have run out, and `senders` found it so.
        fn empty(entries: u16, senders: u16) -> Self {
            let mut ring = Self { shares: Shares::new(entries), available: 0, got: [0; 20] };
            (0..senders).for_each(|sender| assert_eq!(ring.ask(sender, 1), 0));
            ring
        }

        fn ask(&mut self, sender: u16, wanted: u16) -> u16 {
            let part = self.shares.of(sender, self.available);
            assert!(part <= self.available, "{part} of {}", self.available);
            let taken = part.min(wanted);
            self.shares.took(sender, self.available, taken, taken < wanted);
            self.available -= taken;
            self.got[usize::from(sender)] += u32::from(taken);
            taken
        }

        fn come(&mut self, buffers: u16) {
            self.available = (self.available + buffers).min(self.shares.entries);
        }
    }

    #[test]
    fn while_there_are_enough_whoever_comes_may_have_them_all() {
        let mut ring = Ring { shares: Shares::new(256), available: 256, got: [0; 20] };
        assert_eq!((ring.ask(0, 200), ring.ask(1, 56)), (200, 56));
        ring.come(10);
        assert_eq!(ring.ask(2, 10), 10, "nobody was short of one yet");
    }

    #[test]
    fn of_two_that_flood_each_gets_half_whoever_is_first() {
        let mut ring = Ring::empty(256, 2);
        for _ in 0..1000 {
            ring.come(33);
            ring.ask(0, 64);
            ring.ask(1, 64);
        }
        assert!(ring.got[0].abs_diff(ring.got[1]) <= 1, "{:?}", ring.got);
        assert_eq!(ring.got[0] + ring.got[1] + u32::from(ring.available), 33_000, "nothing is kept back");
    }

    #[test]
    fn a_sender_that_uses_less_than_its_part_gets_all_of_it_also_in_bursts() {
        let mut ring = Ring::empty(256, 2);
        for turn in 0..1000 {
            ring.come(20);
            ring.ask(0, 64);
            // Nine of twenty, a burst of 45 every fifth turn.
            if turn % 5 == 4 && turn > 20 {
                assert_eq!(ring.ask(1, 45), 45, "in turn {turn}");
            }
        }
    }

    #[test]
    fn who_goes_leaves_its_part_to_the_others_and_who_comes_has_one() {
        let mut ring = Ring::empty(256, 17);
        for _ in 0..200 {
            ring.come(32);
            ring.ask(18, 64);
        }
        assert!(ring.got[18] > 200 * 32 - 256, "the others ask no more: {:?}", ring.got);
        for _ in 0..200 {
            ring.come(32);
            ring.ask(18, 64);
            ring.ask(19, 64);
        }
        assert!(ring.got[19] > 100 * 30, "{:?}", ring.got);
    }

    #[test]
    fn once_most_of_the_ring_is_free_nothing_is_kept_for_anybody() {
        let mut ring = Ring::empty(256, 2);
        ring.come(256);
        assert_eq!(ring.ask(0, 250), 250);
        assert!(ring.shares.all.is_empty());
    }

    #[test]
    fn a_guest_that_takes_buffers_back_upsets_nothing() {
        let mut ring = Ring::empty(256, 2);
        ring.come(100);
        assert_eq!(ring.ask(0, 10), 10);
        ring.available = 3;
        assert_eq!((ring.ask(1, 64), ring.ask(0, 64)), (3, 0));
    }

    proptest! {
        #[test]
        fn every_sender_gets_its_part_whatever_the_others_do(
            senders in 2u16..16,
            turns in proptest::collection::vec((0u16..200, proptest::collection::vec((0u16..16, 0u16..100), 0..20)), 1..100),
        ) {
            let entries = 1024;
            let mut ring = Ring::empty(entries, senders);
            let mut came = 0;
            for (come, others) in turns {
                let before = ring.available;
                ring.come(come);
                came += u32::from(ring.available - before);
                // Once most of the ring is free nobody has a part of it, and whoever is next may take all.
                if ring.available > entries - entries / 4 {
                    return Ok(());
                }
                for (sender, wanted) in others {
                    // Who was known from the beginning.
                    ring.ask(1 + sender % (senders - 1), wanted);
                }
                // This one takes whatever it may have.
                ring.ask(0, u16::MAX);
                let part = came / u32::from(senders);
                prop_assert!(ring.got[0] + 1 >= part, "{} of {came}, of which {part} is its part", ring.got[0]);
                let promised: u16 = ring.shares.all.iter().map(|share| share.promised).sum();
                prop_assert_eq!(promised + ring.shares.common, ring.available, "each buffer is somebody's, or common");
            }
        }
    }
}
