//! The addresses of one VLAN: who has which, and until when.

use crate::control::protocol::LeaseState;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};
use vswitch_core::{clock::Instant, mac::MacAddr};

/// How long an address is kept for whom it was offered to.
const OFFERED: Duration = Duration::from_secs(60);

/// How long nobody gets an address that was found in use.
const DECLINED: Duration = Duration::from_secs(600);

/// Addresses that are looked at for one client, each time from where they would come first: more than clients wait for.
const LOOKED_AT: usize = 2 * super::probes::WAITING;

/// An address that is, or was, somebody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) mac: MacAddr,
    pub(super) host_name: Option<String>,
    pub(super) state: LeaseState,
    pub(super) until: Instant,
}

/// The addresses that are given.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The first and the last.
    range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// What the topology file states: of these addresses only these clients get them.
    reserved: BTreeMap<Ipv4Addr, Option<MacAddr>>,
    /// The clients among them.
    reserved_of: BTreeMap<MacAddr, Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, Lease>,
    by_client: BTreeMap<MacAddr, Ipv4Addr>,
    /// The names that clients gave themselves: of two the one that has its address for longer.
    by_name: BTreeMap<String, Ipv4Addr>,
    /// All of `by_address`, those first that are free first.
    by_end: BTreeSet<(Instant, Ipv4Addr)>,
    /// Those of the range that are neither stated nor in `by_address`.
    unused: BTreeSet<Ipv4Addr>,
}

impl Pool {
    /// Other addresses are given from now on; who has one that is still among them keeps it.
    pub(super) fn change(
        &mut self,
        range: Option<(Ipv4Addr, Ipv4Addr)>,
        reserved: BTreeMap<Ipv4Addr, Option<MacAddr>>,
    ) {
        self.unused = range
            .into_iter()
            .flat_map(|(first, last)| first.to_bits()..=last.to_bits())
            .map(Ipv4Addr::from_bits)
            .collect();
        self.unused.retain(|address| !reserved.contains_key(address));
        self.reserved_of.clear();
        for (address, mac) in &reserved {
            if let Some(mac) = mac {
                self.reserved_of.entry(*mac).or_insert(*address);
            }
        }
        (self.range, self.reserved) = (range, reserved);
        let leases = std::mem::take(&mut self.by_address);
        self.by_client.clear();
        self.by_name.clear();
        self.by_end.clear();
        // Of several that a client had the one that it has for longest is put last, and holds.
        let mut leases: Vec<_> = leases.into_iter().collect();
        leases.sort_by_key(|(_, lease)| lease.until);
        for (address, lease) in leases {
            if !self.may_have(lease.mac, address) {
                continue;
            }
            match lease.state {
                LeaseState::Offered | LeaseState::Bound => self.put(address, lease),
                LeaseState::Declined | LeaseState::InUse => self.note(address, lease),
            }
        }
        for (address, lease) in &self.by_address {
            if lease.state == LeaseState::InUse {
                self.by_client.entry(lease.mac).or_insert(*address);
            }
        }
    }

    /// Whether this client may have that address: it is stated as its own, or in the range and nobody's.
    pub(super) fn may_have(&self, mac: MacAddr, address: Ipv4Addr) -> bool {
        match self.reserved.get(&address) {
            Some(owner) => *owner == Some(mac),
            None => {
                !self.reserved_of.contains_key(&mac)
                    && self.range.is_some_and(|(first, last)| first <= address && address <= last)
            }
        }
    }

    /// Whether nobody else has it now.
    fn is_free(&self, mac: MacAddr, address: Ipv4Addr, now: Instant) -> bool {
        self.by_address.get(&address).is_none_or(|lease| {
            (lease.mac == mac && lease.state != LeaseState::Declined) || lease.until <= now
        })
    }

    /// Whether nobody need be asked who has it: it is stated as the client's own, or was promised to it and is still.
    pub(super) fn is_promised(&self, mac: MacAddr, address: Ipv4Addr, now: Instant) -> bool {
        let is_its =
            |lease: &Lease| lease.mac == mac && lease.state != LeaseState::Declined && lease.until > now;
        self.reserved.get(&address).is_some_and(|owner| *owner == Some(mac))
            || self.by_address.get(&address).is_some_and(is_its)
    }

    /// Whether a client that asks for an address is given one of which nobody need be asked.
    pub(super) fn is_sure_of_one(&self, mac: MacAddr, now: Instant) -> bool {
        self.reserved_of.contains_key(&mac)
            || self.by_client.get(&mac).is_some_and(|address| self.is_promised(mac, *address, now))
    }

    /// Whether it can be given to the client now.
    pub(super) fn can_have(&self, mac: MacAddr, address: Ipv4Addr, now: Instant) -> bool {
        self.may_have(mac, address) && self.is_free(mac, address, now)
    }

    /// What the client has or had last.
    pub(super) fn of(&self, mac: MacAddr) -> Option<(Ipv4Addr, &Lease)> {
        let address = self.by_client.get(&mac)?;
        Some((*address, self.by_address.get(address)?))
    }

    /// The address for a client that asks for one, and would like to have `wished`: its own; the one that it had; the one that it wishes; one that follows from
    /// its MAC address, so that it gets the same also from a server that forgot all; any that nobody ever had; the one that was free longest. None that another
    /// client waits for. What somebody else is known to have (`is_known`) comes last: that may be long ago, and it is asked for anyway.
    pub(super) fn choose(
        &self,
        mac: MacAddr,
        wished: Option<Ipv4Addr>,
        now: Instant,
        waited_for: &BTreeSet<Ipv4Addr>,
        is_known: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        if let Some(address) = self.reserved_of.get(&mac) {
            return Some(*address);
        }
        let (first, last) = self.range.map(|(first, last)| (first.to_bits(), last.to_bits()))?;
        let before = self.by_client.get(&mac).copied().filter(|address| self.can_have(mac, *address, now));
        if before.is_some_and(|address| self.is_promised(mac, address, now)) {
            return before;
        }
        let count = u64::from(last - first) + 1;
        let start = (mac.to_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16) % count;
        let start = Ipv4Addr::from_bits(first + start as u32);
        let best = |also_known: bool| {
            let may = |address: &Ipv4Addr| {
                let is_free = self.can_have(mac, *address, now) && !waited_for.contains(address);
                is_free && (also_known || !is_known(*address))
            };
            let never_had = || {
                let all = self.unused.range(start..).chain(self.unused.range(..start));
                all.take(LOOKED_AT).copied().find(may)
            };
            let longest = || {
                let over = self.by_end.iter().take_while(|(until, _)| *until <= now);
                over.map(|(_, address)| *address)
                    .filter(|address| !self.reserved.contains_key(address))
                    .take(LOOKED_AT)
                    .find(may)
            };
            before.filter(may).or(wished.filter(may)).or_else(never_had).or_else(longest)
        };
        best(false).or_else(|| best(true))
    }

    /// It is kept for the client until it asks for it.
    pub(super) fn offer(&mut self, mac: MacAddr, address: Ipv4Addr, host_name: Option<String>, now: Instant) {
        match self.by_address.get(&address) {
            // Who has it already keeps it for as long as it has it.
            Some(lease) if lease.mac == mac && lease.state == LeaseState::Bound && lease.until > now => {}
            _ => {
                self.put(address, Lease { mac, host_name, state: LeaseState::Offered, until: now + OFFERED });
            }
        }
    }

    /// The client has it.
    pub(super) fn bind(
        &mut self,
        mac: MacAddr,
        address: Ipv4Addr,
        host_name: Option<String>,
        until: Instant,
    ) {
        self.put(address, Lease { mac, host_name, state: LeaseState::Bound, until });
    }

    /// The client found somebody else there.
    pub(super) fn decline(&mut self, mac: MacAddr, address: Ipv4Addr, now: Instant) {
        let lease = Lease { mac, host_name: None, state: LeaseState::Declined, until: now + DECLINED };
        self.put(address, lease);
        self.by_client.remove(&mac);
    }

    /// That station has it, which was not given it.
    pub(super) fn in_use(&mut self, mac: MacAddr, address: Ipv4Addr, now: Instant) {
        // Whatever else is that station's stays so.
        self.take_from_client(address);
        self.by_client.entry(mac).or_insert(address);
        self.note(address, Lease { mac, host_name: None, state: LeaseState::InUse, until: now + DECLINED });
    }

    /// The client gives it back; it is remembered as its last. Whether it had it.
    pub(super) fn release(&mut self, mac: MacAddr, address: Ipv4Addr, now: Instant) -> bool {
        let lease = self.by_address.get_mut(&address);
        let lease = lease
            .filter(|lease| lease.mac == mac && lease.state != LeaseState::Declined && lease.until > now);
        let Some(lease) = lease else { return false };
        self.by_end.remove(&(lease.until, address));
        lease.until = now;
        self.by_end.insert((now, address));
        lease.state == LeaseState::Bound
    }

    /// Whether this client may have had that address, and neither is anything to the pool yet.
    pub(super) fn may_remember(&self, mac: MacAddr, address: Ipv4Addr) -> bool {
        let is_new = !self.by_address.contains_key(&address) && !self.by_client.contains_key(&mac);
        is_new && self.may_have(mac, address)
    }

    /// All that clients have or had last, rising.
    pub(super) fn kept(&self) -> impl Iterator<Item = (Ipv4Addr, &Lease)> {
        let kept = self.by_address.iter().filter(|(_, lease)| lease.state == LeaseState::Bound);
        kept.map(|(address, lease)| (*address, lease))
    }

    /// All that are somebody's now, rising.
    pub(super) fn leases(&self, now: Instant) -> impl Iterator<Item = (Ipv4Addr, &Lease)> + Clone {
        self.by_address
            .iter()
            .filter(move |(_, lease)| lease.until > now)
            .map(|(address, lease)| (*address, lease))
    }

    /// How many addresses of the range a client who comes now may get: none that is somebody's, or that another client waits for.
    pub(super) fn free(&self, now: Instant, waited_for: &BTreeSet<Ipv4Addr>) -> u64 {
        let Some((first, last)) = self.range else { return 0 };
        let is_given = |address: &Ipv4Addr| !self.reserved.contains_key(address);
        let is_leased =
            |address: &Ipv4Addr| self.by_address.get(address).is_some_and(|lease| lease.until > now);
        let leased = self.leases(now).filter(|(address, _)| is_given(address)).count();
        let waited_for = waited_for.iter().filter(|address| is_given(address) && !is_leased(address)).count();
        let reserved = self.reserved.range(first..=last).count();
        u64::from(last.to_bits() - first.to_bits()) + 1 - (leased + waited_for + reserved) as u64
    }

    /// How many addresses are remembered: never more than are given. All that is found by is of what is remembered.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let by_end = self.by_address.iter().map(|(address, lease)| (lease.until, *address));
        assert_eq!(by_end.collect::<BTreeSet<_>>(), self.by_end);
        for (name, address) in &self.by_name {
            assert_eq!(self.by_address[address].host_name.as_ref(), Some(name));
        }
        let bits = self.range.map_or(0..=0, |(first, last)| first.to_bits()..=last.to_bits());
        let is_unused = |address: &Ipv4Addr| {
            !self.reserved.contains_key(address) && !self.by_address.contains_key(address)
        };
        assert_eq!(bits.map(Ipv4Addr::from_bits).filter(is_unused).collect::<BTreeSet<_>>(), self.unused);
        self.by_address.len().max(self.by_client.len())
    }

    /// The address of the client that gave itself this name, if it has it now.
    pub(super) fn named(&self, name: &str, now: Instant) -> Option<(Ipv4Addr, &Lease)> {
        let address = self.by_name.get(name)?;
        self.bound(*address, now).map(|lease| (*address, lease))
    }

    /// Who has that address now.
    pub(super) fn bound(&self, address: Ipv4Addr, now: Instant) -> Option<&Lease> {
        self.by_address.get(&address).filter(|lease| lease.state == LeaseState::Bound && lease.until > now)
    }

    fn put(&mut self, address: Ipv4Addr, lease: Lease) {
        self.take_from_client(address);
        if let Some(other) = self.by_client.insert(lease.mac, address).filter(|other| *other != address)
            && self
                .by_address
                .get(&other)
                .is_some_and(|other| matches!(other.state, LeaseState::Offered | LeaseState::Bound))
        {
            self.forget(other);
            if self.range.is_some_and(|(first, last)| first <= other && other <= last)
                && !self.reserved.contains_key(&other)
            {
                self.unused.insert(other);
            }
        }
        self.note(address, lease);
    }

    /// No client is known by this address.
    fn take_from_client(&mut self, address: Ipv4Addr) {
        if let Some(before) = self.by_address.get(&address)
            && self.by_client.get(&before.mac) == Some(&address)
        {
            self.by_client.remove(&before.mac);
        }
    }

    /// Whose address it is from now on.
    fn note(&mut self, address: Ipv4Addr, lease: Lease) {
        self.forget(address);
        self.unused.remove(&address);
        self.by_end.insert((lease.until, address));
        if let Some(name) = lease.host_name.as_ref().filter(|_| lease.state == LeaseState::Bound) {
            let other = self.by_name.get(name).and_then(|other| self.by_address.get(other));
            if other.is_none_or(|other| other.until <= lease.until) {
                self.by_name.insert(name.clone(), address);
            }
        }
        self.by_address.insert(address, lease);
    }

    /// It is nobody's, and nothing is remembered of whose it was.
    fn forget(&mut self, address: Ipv4Addr) {
        let Some(lease) = self.by_address.remove(&address) else { return };
        self.by_end.remove(&(lease.until, address));
        if let Some(name) = &lease.host_name
            && self.by_name.get(name) == Some(&address)
        {
            self.by_name.remove(name);
        }
    }
}
