//! Whether somebody has an address already that a client may get (RFC 2131 §3.1): it is asked for, and half a second of silence means that nobody does.

use super::{Asked, Dhcp, Next};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};
use vswitch_core::{clock::Instant, mac::MacAddr, vlan::VlanId};

/// How long an answer is waited for.
pub(super) const WAIT: Duration = Duration::from_millis(500);

/// Clients of one VLAN that wait.
pub(super) const WAITING: usize = 128;

/// Addresses that are asked for in turn for one message: more are asked for when the client asks again.
const TRIES: u8 = 4;

/// A client that waits.
#[derive(Debug)]
pub(super) struct Probe {
    asked: Asked,
    pub(super) address: Ipv4Addr,
    /// When nobody has it.
    due: Instant,
    /// How many addresses were asked for.
    tries: u8,
}

/// The addresses that clients of a VLAN wait for.
pub(super) fn waited_for(probes: &BTreeMap<(VlanId, MacAddr), Probe>, vlan: VlanId) -> BTreeSet<Ipv4Addr> {
    of_vlan(probes, vlan).map(|(_, probe)| probe.address).collect()
}

fn of_vlan(
    probes: &BTreeMap<(VlanId, MacAddr), Probe>,
    vlan: VlanId,
) -> impl Iterator<Item = (MacAddr, &Probe)> {
    let (first, last) = ((vlan, MacAddr::new([0; 6])), (vlan, MacAddr::new([0xff; 6])));
    probes.range(first..=last).map(|((_, mac), probe)| (*mac, probe))
}

impl Dhcp {
    /// Whether no more clients of a VLAN can wait.
    pub(super) fn is_full(&self, vlan: VlanId) -> bool {
        of_vlan(&self.probes, vlan).count() >= WAITING
    }

    /// A client has to wait for that address. `before`: what it waited for until now.
    pub(super) fn probe(
        &mut self,
        vlan: VlanId,
        asked: Asked,
        address: Ipv4Addr,
        before: Option<Probe>,
        now: Instant,
    ) -> Option<Next> {
        let (key, tries) = ((vlan, asked.mac), before.as_ref().map_or(0, |before| before.tries));
        if let Some(before) = before.filter(|before| before.address == address) {
            self.probes.insert(key, Probe { asked, ..before });
            return Some(Next::Wait);
        }
        if self.is_full(vlan) || tries >= TRIES {
            self.counts.ignored += 1;
            return None;
        }
        self.probes.insert(key, Probe { asked, address, due: now + WAIT, tries: tries + 1 });
        Some(Next::Ask(address))
    }

    /// A station said that it has that address. What comes of it for a client that waits for this; none: nothing.
    pub fn heard(
        &mut self,
        (vlan, address): (VlanId, Ipv4Addr),
        mac: MacAddr,
        now: Instant,
        owner: impl Fn(Ipv4Addr) -> Option<MacAddr>,
    ) -> Option<Next> {
        let waits = |(client, probe): &(MacAddr, &Probe)| probe.address == address && *client != mac;
        let (client, _) = of_vlan(&self.probes, vlan).find(waits)?;
        let probe = self.probes.remove(&(vlan, client))?;
        self.counts.conflicts += 1;
        self.counts.changes += 1;
        let pool = &mut self.servers.get_mut(&vlan)?.pool;
        // Another client may have renewed it meanwhile: then it is that one's, whoever else speaks for it.
        if pool.bound(address, now).is_none() {
            pool.in_use(mac, address, now);
        }
        // It gets another, or is told that it cannot have that.
        self.judge(vlan, probe.asked.clone(), Some(probe), now, owner)
    }

    /// When the next wait is over.
    pub fn next_due(&self) -> Option<Instant> {
        self.probes.values().map(|probe| probe.due).min()
    }

    /// What comes of waits that are over.
    pub fn tick(
        &mut self,
        now: Instant,
        owner: impl Fn(VlanId, Ipv4Addr) -> Option<MacAddr>,
    ) -> Vec<(VlanId, Next)> {
        let over: Vec<_> = self.probes.extract_if(.., |_, probe| probe.due <= now).collect();
        let next = over.into_iter().filter_map(|((vlan, mac), probe)| {
            // Another may have been given its name meanwhile.
            let asked = self.without_name_of_others(vlan, probe.asked.clone(), now);
            let server = self.servers.get_mut(&vlan)?;
            if server.pool.can_have(mac, probe.address, now) {
                let reply = server.grant(&asked, probe.address, now, &mut self.counts);
                return Some((vlan, Next::Say(reply)));
            }
            // Somebody else was given it meanwhile.
            let owner = |address| owner(vlan, address);
            Some((vlan, self.judge(vlan, probe.asked.clone(), Some(probe), now, owner)?))
        });
        next.collect()
    }
}
