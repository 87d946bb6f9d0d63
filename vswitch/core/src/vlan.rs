//! VLAN identifiers, tags and sets (IEEE 802.1Q-2018 §9.6).

use serde::{Deserialize, Serialize};
use std::fmt;

/// A VLAN identifier that can be used: 1 to 4094 (IEEE 802.1Q-2018 table 9-2 reserves 0 and 4095).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// VLAN 1, the default PVID (IEEE 802.1Q-2018 table 9-2).
    pub const DEFAULT: Self = Self(1);

    /// The VLAN with this number, if it is one of 1 to 4094.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= 1 && number <= 4094 { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<VlanId> for u16 {
    fn from(id: VlanId) -> Self {
        id.0
    }
}

impl TryFrom<u16> for VlanId {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("VLAN {number} is not one of 1 to 4094"))
    }
}

/// Tag control information: priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tci(u16);

impl Tci {
    /// The TCI with these bits, as they stand behind the TPID.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits, as they stand behind the TPID.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The VLAN identifier field: 0 (priority-tagged) to 4095.
    pub const fn vid(self) -> u16 {
        self.0 & 0xfff
    }

    /// Priority code point, 0 to 7.
    pub const fn priority(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// The same priority and drop eligibility in VLAN `id`.
    #[must_use]
    pub const fn with_vlan(self, id: VlanId) -> Self {
        Self(self.0 & 0xf000 | id.0)
    }
}

/// A set of VLANs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<VlanId>", from = "Vec<VlanId>")]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// No VLAN at all.
    pub fn empty() -> Self {
        Self(Box::new([0; 64]))
    }

    /// Every VLAN, 1 to 4094.
    pub fn all() -> Self {
        (1..=4094).filter_map(VlanId::new).collect()
    }

    /// Adds `id`.
    pub fn insert(&mut self, id: VlanId) {
        self.0[usize::from(id.0) / 64] |= 1 << (id.0 % 64);
    }

    /// Whether `id` is in the set.
    pub fn contains(&self, id: VlanId) -> bool {
        self.0[usize::from(id.0) / 64] >> (id.0 % 64) & 1 != 0
    }

    /// The members, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = VlanId> + '_ {
        (1..=4094).filter_map(VlanId::new).filter(|id| self.contains(*id))
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<VlanId> for VlanSet {
    fn from_iter<I: IntoIterator<Item = VlanId>>(ids: I) -> Self {
        let mut set = Self::empty();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

impl From<Vec<VlanId>> for VlanSet {
    fn from(ids: Vec<VlanId>) -> Self {
        ids.into_iter().collect()
    }
}

impl From<VlanSet> for Vec<VlanId> {
    fn from(set: VlanSet) -> Self {
        set.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_0_and_4095_are_reserved() {
        assert_eq!(VlanId::new(0), None);
        assert_eq!(VlanId::new(4095), None);
        assert_eq!(VlanSet::all().iter().count(), 4094);
    }

    #[test]
    fn a_tci_keeps_its_priority_in_another_vlan() {
        let tci = Tci::from_bits(0b1011_0000_0000_0000);
        let moved = tci.with_vlan(VlanId::new(20).unwrap());
        assert_eq!((moved.priority(), moved.vid(), moved.bits() >> 12 & 1), (5, 20, 1));
    }
}
