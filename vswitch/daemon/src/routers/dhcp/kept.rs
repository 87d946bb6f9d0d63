//! What outlives the server: the leases that it has given, as whoever keeps them for it is told, and as it is told of them by whoever kept them.

use super::{Dhcp, Server, message};
use crate::control::protocol::{KEPT_LEASES, Kept, KeptLease, LeaseState};
use std::{collections::BTreeSet, time::Duration};
use vswitch_core::clock::Instant;

impl Dhcp {
    /// What is to be remembered: what clients have, or had last.
    pub fn kept(&self, now: Instant) -> Kept {
        let of = |(vlan, server): (&_, &Server)| {
            let vlan = *vlan;
            let kept = server.pool.kept().map(move |(address, lease)| KeptLease {
                vlan,
                address,
                mac: lease.mac,
                name: lease.host_name.clone(),
                left_secs: lease.until.since(now).as_secs(),
            });
            kept.collect::<Vec<_>>()
        };
        let mut leases: Vec<_> = self.servers.iter().flat_map(of).collect();
        if leases.len() > KEPT_LEASES {
            leases.sort_by_key(|lease| std::cmp::Reverse(lease.left_secs));
            leases.truncate(KEPT_LEASES);
            leases.sort_by_key(|lease| (lease.vlan, lease.address));
        }
        Kept { leases, forgotten: self.forgotten }
    }

    /// A server before this one has given these addresses. Whoever kept that is not believed: what does not fit what the gateways give now is forgotten, and
    /// so is what a client cannot be called. Nobody that this server has given an address itself loses it.
    pub fn remember(&mut self, mut leases: Vec<KeptLease>, now: Instant) {
        if leases.is_empty() {
            return;
        }
        self.counts.changes += 1;
        // Of two that say the same, that holds which ends later.
        leases.sort_by_key(|lease| std::cmp::Reverse(lease.left_secs));
        let mut named: BTreeSet<(String, String)> = self
            .servers
            .values()
            .flat_map(|server| {
                let bound = server.pool.leases(now).filter(|(_, lease)| lease.state == LeaseState::Bound);
                let names = bound.filter_map(|(_, lease)| server.name_of(lease));
                names.map(|name| (server.router.clone(), name.clone())).collect::<Vec<_>>()
            })
            .collect();
        for KeptLease { vlan, address, mac, name, left_secs } in leases {
            let server = self
                .servers
                .get_mut(&vlan)
                .filter(|server| !mac.is_group() && !mac.is_zero() && server.pool.may_remember(mac, address));
            let Some(server) = server else {
                self.forgotten += 1;
                continue;
            };
            let name = name.filter(|name| message::host_name(name.as_bytes()).as_ref() == Some(name));
            // It was one client's at a time.
            let name =
                name.filter(|name| left_secs == 0 || named.insert((server.router.clone(), name.clone())));
            server.pool.bind(mac, address, name, now + Duration::from_secs(left_secs));
        }
    }
}
