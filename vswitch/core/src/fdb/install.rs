//! What a new World means for the FDB: static entries, ageing times, and what is to be forgotten.

use super::{
    Fdb, Key, Target,
    entry::{Entry, Stamp},
    resolve,
};
use crate::{
    id::SwitchId,
    mac::MacAddr,
    route::{Interface, Routing},
    vlan::VlanId,
    world::{self, Role, World},
};
use std::sync::{PoisonError, atomic::Ordering};

impl Fdb {
    /// Makes the FDB that of `world`: on the control thread, at each swap.
    ///
    /// The addresses that the topology file states become static entries on every switch that their VLAN reaches, so
    /// that nobody can claim them anywhere. They are put in before the old ones go: at no moment could one be learned
    /// elsewhere. Then all that is not true any more is forgotten: ports that are gone, down or moved, trunks that no
    /// longer carry the VLAN.
    pub fn install(&self, world: &World) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for (aging, switch) in self.aging.iter().zip(world.switches()) {
            aging.store(switch.mac_aging_secs, Ordering::Relaxed);
        }
        let install = self.installs.fetch_add(1, Ordering::Relaxed) + 1;
        // A table cannot hold more than this, however many ports, VLANs and switches a lab multiplies.
        let mut room = self.tables.most_slots();
        // First: nobody else has the address of a gateway.
        for interface in world.routing().into_iter().flat_map(Routing::interfaces) {
            self.install_gateway(world, interface, install, &mut room);
        }
        for port in world.ports() {
            let (Some(mac), Role::Switched { switch, .. }) = (port.mac, &port.role) else { continue };
            let switch = *switch;
            let domains = world.switch(switch).into_iter().flat_map(world::Switch::domains);
            for (vlan, _) in domains.filter(|(vlan, _)| port.egress(switch, *vlan).is_some()) {
                self.install_static(world, (switch, vlan, mac), Target::Port(port.id), install, &mut room);
            }
        }
        self.forget_untrue(world, install);
    }

    /// Forgets what was learned by the World before while workers changed over to `world`, which is [installed](Self::install), and is not true in
    /// it: addresses that were learned again where they stay from now on, or on ports that moved. On the control thread, once every worker decides
    /// by it.
    pub fn settle(&self, world: &World) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_untrue(world, self.installs.load(Ordering::Relaxed));
    }

    /// While nobody else changes the table as a whole.
    fn forget_untrue(&self, world: &World, install: u64) {
        let table = self.tables.current();
        for number in 0..table.len() {
            let _lock = self.locks.lock(number);
            for slot in &table.bucket(number).0 {
                if slot.read().is_some_and(|entry| !is_true(world, entry, install)) {
                    self.remove(slot);
                }
            }
        }
    }

    /// The address of routers in the VLAN of a gateway: they are wherever a frame meets them first.
    fn install_gateway(&self, world: &World, interface: &Interface, install: u64, room: &mut usize) {
        let Some(Routing { port, mac, .. }) = world.routing() else { return };
        let vlan = interface.said.vlan;
        for (place, switch) in (0..).zip(world.switches()) {
            let Some(left) = room.checked_sub(1) else { return };
            if switch.domains().any(|(reached, _)| reached == vlan) {
                *room = left;
                self.put_static(Key::new(SwitchId::new(place), vlan, *mac), Target::Port(*port), install);
                self.grow_if_crowded();
            }
        }
    }

    /// The address at its own switch, and towards it at every other that the VLAN reaches.
    fn install_static(
        &self,
        world: &World,
        (switch, vlan, mac): (SwitchId, VlanId, MacAddr),
        target: Target,
        install: u64,
        room: &mut usize,
    ) {
        let mut reached = vec![(switch, target)];
        while let Some((at, target)) = reached.pop() {
            let Some(left) = room.checked_sub(1) else { return };
            *room = left;
            self.put_static(Key::new(at, vlan, mac), target, install);
            self.grow_if_crowded();
            let hops = world.domain(at, vlan).into_iter().flat_map(|domain| &domain.hops);
            let onward = hops.map(|hop| world.hop(*hop).to).filter(|to| target != Target::Trunk(*to));
            reached.extend(onward.map(|to| (to, Target::Trunk(at))));
        }
    }

    /// Puts a static entry over the same key, a free slot or a learned entry, in this order. Of two ports with one
    /// address the first has it.
    fn put_static(&self, key: Key, target: Target, install: u64) {
        let hash = self.hash(key);
        let _lock = self.locks.lock(hash.first());
        let table = self.tables.current();
        let same = table.find(hash, key);
        let is_current = |entry: Entry| entry.second.stamp() == Stamp::Static(install);
        if same.is_some_and(|(_, entry)| is_current(entry)) {
            return;
        }
        let held = |may_go: &dyn Fn(Entry) -> bool| {
            table.candidates(hash).find(|slot| slot.read().is_some_and(may_go))
        };
        let slot = same
            .map(|(slot, _)| slot)
            .or_else(|| table.room(hash, |slot| slot.read().is_none()))
            .or_else(|| held(&|entry| !entry.is_fixed()))
            .or_else(|| held(&|entry| !is_current(entry)));
        match slot {
            Some(slot) => self.replace(slot, key, target, Stamp::Static(install)),
            None => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Whether the entry is one of this install, or was learned where addresses can still be.
fn is_true(world: &World, entry: Entry, install: u64) -> bool {
    match entry.second.stamp() {
        Stamp::Static(number) => number == install,
        Stamp::Sticky => learned_at(world, entry).is_some_and(world::Port::keeps_macs),
        // A port that goes down loses what was learned on it (IEEE 802.1Q-2018 §8.8.3 needs it to be reachable there).
        Stamp::Seen(_) => match resolve(world, entry) {
            // Where addresses stay from now on they are learned anew, as such.
            Some(Target::Port(_)) => learned_at(world, entry).is_some_and(|port| !port.keeps_macs()),
            Some(Target::Trunk(_)) => true,
            None => false,
        },
    }
}

/// The port on which the entry says that its address is, if it is up.
fn learned_at(world: &World, entry: Entry) -> Option<&world::Port> {
    let Some(Target::Port(id)) = resolve(world, entry) else { return None };
    world.port(id.index()).filter(|port| port.up)
}
