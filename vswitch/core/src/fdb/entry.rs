//! The layout of an FDB entry in two words, and of a bucket in one cache line.
//!
//! ```text
//! first   63              16 15             0
//!         |   MAC address   |    target     |    0: the slot is free
//! second  63    52 51  40 39       32 31 30             0
//!         | switch | VLAN | generation |S| last seen, s |    S: it does not age; then "last seen" is the number of the install that
//!                                                               put it there, or 0: it was learned to stay
//! ```
//!
//! **Why a torn pair cannot lead a frame astray.** An address and where it is stand in *one* word, so no reader ever
//! combines one address with another's port. The second word is only trusted if the first was the same before and
//! after it was read, and a writer empties the first word before it touches the second: a reader that saw any of the
//! new second word sees the first one emptied or already new. What is left is a slot that went through a whole other
//! entry and back to the very same address and port in between: then that address *is* on that port, and the caller
//! admits the port only if it is a member of the VLAN that was asked for.

use super::Refusal;
use crate::{
    id::{PortId, SwitchId},
    mac::MacAddr,
    vlan::VlanId,
    world::{MAX_PORTS, World},
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// On this port.
    Port(PortId),
    /// Behind the trunk to this neighbour.
    Trunk(SwitchId),
}

impl Target {
    /// Ports keep their number; switches have those from [`MAX_PORTS`] on.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Port(id) => id.index(),
            Self::Trunk(neighbour) => MAX_PORTS as u16 | neighbour.index(),
        }
    }

    /// The low bits of a port's generation. They only need to tell it from what a worker that is one World behind
    /// may still write: each install forgets the ports that are gone.
    pub(super) const fn generation(self) -> u8 {
        match self {
            Self::Port(id) => id.generation() as u8,
            Self::Trunk(_) => 0,
        }
    }
}

/// Where an address was until it moved, as its entry has it: it is to be read with the World of that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Former(u16);

impl Former {
    /// What that is in `world`; none if there is no such port.
    pub fn target(self, world: &World) -> Option<Target> {
        match port_place(self.0) {
            Some(index) => world.port(index).map(|port| Target::Port(port.id)),
            None => Some(Target::Trunk(switch_behind(self.0))),
        }
    }

    /// Whether it is the port in place `index`.
    pub fn is_port(self, index: u16) -> bool {
        port_place(self.0) == Some(index)
    }
}

impl From<Target> for Former {
    fn from(target: Target) -> Self {
        Self(target.number())
    }
}

/// The place of the port that a target's number stands for, if it is one.
const fn port_place(number: u16) -> Option<u16> {
    if (number as usize) < MAX_PORTS { Some(number) } else { None }
}

/// The switch that any other number stands for.
const fn switch_behind(number: u16) -> SwitchId {
    SwitchId::new(number & 0xfff)
}

/// What an address is looked up by: each switch has its own table, and learns per VLAN (IEEE 802.1Q-2018 §8.8,
/// independent VLAN learning).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub(super) mac: MacAddr,
    pub(super) place: Place,
}

/// A VLAN of a switch, as the high 24 bits of a second word have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    pub(crate) const fn new(switch: SwitchId, vlan: VlanId) -> Self {
        Self((switch.index() as u32 & 0xfff) << 12 | vlan.number() as u32)
    }

    pub(super) fn switch(self) -> SwitchId {
        SwitchId::new((self.0 >> 12) as u16)
    }

    pub(crate) fn vlan(self) -> Option<VlanId> {
        VlanId::new((self.0 & 0xfff) as u16)
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// As a second word has it.
    pub(super) const fn high(self) -> u64 {
        (self.0 as u64) << 40
    }
}

impl Key {
    /// `mac` in `vlan` on `switch`.
    pub const fn new(switch: SwitchId, vlan: VlanId, mac: MacAddr) -> Self {
        Self { mac, place: Place::new(switch, vlan) }
    }

    /// The first word of its entry, were it at `target`.
    pub(super) const fn first(self, target: Target) -> First {
        First(self.mac.to_u64() << 16 | target.number() as u64)
    }

    /// The second word of its entry.
    pub(super) const fn second(self, target: Target, stamp: Stamp) -> Second {
        Second::new(self.place, target, stamp)
    }
}

/// Since when, or why, an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Learned, and last seen in this second.
    Seen(u64),
    /// Put there by the install with this number, which is 1 at least.
    Static(u64),
    /// Learned to stay.
    Sticky,
}

/// The word that binds an address to where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First(pub(super) u64);

impl First {
    pub(super) const FREE: Self = Self(0);

    pub(super) const fn mac(self) -> MacAddr {
        MacAddr::from_u64(self.0 >> 16)
    }

    pub(super) const fn number(self) -> u16 {
        self.0 as u16
    }

    /// The port whose place it names, if it names one.
    pub(super) const fn port_index(self) -> Option<u16> {
        port_place(self.number())
    }

    /// The neighbour behind a trunk, if it names no port's place.
    pub(super) const fn switch(self) -> SwitchId {
        switch_behind(self.number())
    }

    pub(super) const fn is(self, mac: MacAddr) -> bool {
        self.0 >> 16 == mac.to_u64()
    }
}

/// The word that says where the address is valid, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Second(pub(super) u64);

impl Second {
    const FIXED: u64 = 1 << 31;
    const SECONDS: u64 = Self::FIXED - 1;

    /// An entry's in `place`, were its address at `target`.
    #[inline]
    pub(super) const fn new(place: Place, target: Target, stamp: Stamp) -> Self {
        let (fixed, seconds) = match stamp {
            Stamp::Seen(second) => (0, second),
            Stamp::Static(install) => (Self::FIXED, install),
            Stamp::Sticky => (Self::FIXED, 0),
        };
        let low = fixed | Self::clamped(seconds) as u64;
        Self(place.high() | (target.generation() as u64) << 32 | low)
    }

    /// A second as it is noted: time stands still at the last one that can be.
    pub(super) const fn clamped(second: u64) -> u32 {
        (if second > Self::SECONDS { Self::SECONDS } else { second }) as u32
    }

    pub(super) const fn place(self) -> Place {
        Place((self.0 >> 40) as u32)
    }

    pub(super) const fn generation(self) -> u8 {
        (self.0 >> 32) as u8
    }

    pub(super) const fn stamp(self) -> Stamp {
        let seconds = self.0 & Self::SECONDS;
        match (self.is_fixed(), seconds) {
            (false, _) => Stamp::Seen(seconds),
            (true, 0) => Stamp::Sticky,
            (true, _) => Stamp::Static(seconds),
        }
    }

    /// Whether it says the same as `other`, but for when and why it stands.
    pub(super) const fn is_like(self, other: Self) -> bool {
        (self.0 ^ other.0) >> 32 == 0
    }

    /// Whether it was last seen before this [noted](Self::clamped) second; never what does not age.
    #[inline]
    pub(super) const fn is_before(self, second: u32) -> bool {
        // What does not age has the highest bit on top.
        (self.0 as u32) < second
    }

    /// Whether it does not age.
    pub(super) const fn is_fixed(self) -> bool {
        self.0 & Self::FIXED != 0
    }

    /// Seconds since it was seen; zero for what does not age.
    pub(super) const fn age(self, now: u64) -> u64 {
        match self.stamp() {
            Stamp::Seen(second) => now.saturating_sub(second),
            Stamp::Static(_) | Stamp::Sticky => 0,
        }
    }
}

/// An entry as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) first: First,
    pub(super) second: Second,
}

impl Entry {
    /// None at all: it is in no VLAN.
    pub(crate) const FREE: Self = Self { first: First::FREE, second: Second(0) };

    /// What it is looked up by.
    pub(super) const fn key(self) -> Key {
        Key { mac: self.first.mac(), place: self.second.place() }
    }

    /// Whether it says that its address is at `target`.
    pub(super) const fn is_at(self, target: Target) -> bool {
        self.first.number() == target.number() && self.second.generation() == target.generation()
    }

    /// Where it says that its address is, to be told once it moved.
    pub(super) const fn former(self) -> Former {
        Former(self.first.number())
    }

    /// Whether it neither ages nor moves to another node.
    pub(super) const fn is_fixed(self) -> bool {
        self.second.is_fixed()
    }

    /// Whether the topology file says it.
    pub(super) const fn is_stated(self) -> bool {
        matches!(self.second.stamp(), Stamp::Static(_))
    }

    /// Whether it was learned to stay.
    pub(super) const fn is_sticky(self) -> bool {
        matches!(self.second.stamp(), Stamp::Sticky)
    }

    /// Why its address, which is fixed, is not learned elsewhere.
    pub(super) const fn why_fixed(self) -> Refusal {
        if self.is_sticky() { Refusal::Sticky } else { Refusal::Static }
    }
}

/// One place for an entry.
#[derive(Debug, Default)]
pub(super) struct Slot {
    first: AtomicU64,
    second: AtomicU64,
}

impl Slot {
    /// The first word alone.
    pub(super) fn first(&self) -> First {
        First(self.first.load(Ordering::Acquire))
    }

    /// The second word alone: what it says holds only of what the first said before.
    pub(super) fn second(&self) -> Second {
        Second(self.second.load(Ordering::Acquire))
    }

    /// The whole entry; none if the slot is free or was changed meanwhile.
    pub(super) fn read(&self) -> Option<Entry> {
        let first = self.first();
        if first == First::FREE {
            return None;
        }
        let second = self.second();
        (self.first() == first).then_some(Entry { first, second })
    }

    /// Notes that the entry was seen in second `now`, unless it was changed since it was `read`.
    pub(super) fn refresh(&self, read: Entry, now: u64) {
        let seen = Second(read.second.0 & !Second::SECONDS | u64::from(Second::clamped(now)));
        // Losing means that somebody else refreshed or replaced it: then there is nothing to note.
        let _ = self.second.compare_exchange(read.second.0, seen.0, Ordering::Release, Ordering::Relaxed);
    }

    /// Replaces what is there. Only under the bucket's lock.
    pub(super) fn write(&self, first: First, second: Second) {
        self.first.store(First::FREE.0, Ordering::Release);
        self.second.store(second.0, Ordering::Release);
        self.first.store(first.0, Ordering::Release);
    }

    /// Frees the slot. Only under the bucket's lock.
    pub(super) fn clear(&self) {
        self.first.store(First::FREE.0, Ordering::Release);
    }
}

/// Four entries in one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bucket(pub(super) [Slot; Self::SLOTS]);

impl Bucket {
    pub(super) const SLOTS: usize = 4;

    /// The first slot whose first word `is_it`: all are compared, for which it is cannot be foretold.
    #[inline(always)]
    pub(super) fn slot(&self, is_it: impl Fn(First) -> bool) -> Option<&Slot> {
        let mut at = Self::SLOTS;
        for (n, slot) in self.0.iter().enumerate().rev() {
            at = if is_it(slot.first()) { n } else { at };
        }
        self.0.get(at)
    }

    /// The entry of a key, aged or not.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<(&Slot, Entry)> {
        for slot in &self.0 {
            if slot.first().is(key.mac)
                && let Some(entry) = slot.read()
                && entry.first.is(key.mac)
                && entry.second.place() == key.place
            {
                return Some((slot, entry));
            }
        }
        None
    }
}
