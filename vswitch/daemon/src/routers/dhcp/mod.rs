//! The DHCP server of gateways (RFC 2131, RFC 2132): addresses, and how to get out.
//!
//! A client is known by its MAC address: on a virtual switch every interface has its own, a clone of a disk would bring the same identifier, and firmware and the
//! system that it starts call themselves differently. The server is the only one of its VLAN and says so: who asks for an address that it may not have is
//! told to ask anew, also if nobody remembers it.
//!
//! An address of the range that was not promised to a client yet is asked for in its VLAN before it is (RFC 2131 §3.1): somebody may have it whom nobody told
//! us of, or who had it from us before we were started anew.

mod kept;
mod message;
mod pool;
mod probes;
#[cfg(test)]
pub(crate) mod tests;

use super::dns::Leased;
use crate::control::protocol::{LeaseRow, LeaseState, PoolRow};
use ipnet::Ipv4Net;
use message::{Asked, Boots, HTTP_CLIENT, Said, option};
use pool::{Lease, Pool};
use probes::Probe;
use smoltcp::wire::DhcpMessageType;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use vswitch_core::{
    clock::Instant,
    description::{Dhcp as Said4, Host},
    mac::MacAddr,
    route::Routing,
    vlan::VlanId,
};

/// The UDP port of servers, and that of clients (RFC 2131 §4.1).
pub const SERVER_PORT: u16 = 67;
/// See [`SERVER_PORT`].
pub const CLIENT_PORT: u16 = 68;

/// All pools of a lab.
#[derive(Debug, Default)]
pub struct Dhcp {
    servers: BTreeMap<VlanId, Server>,
    /// Clients that wait until it is known whether somebody has the address which they may get.
    probes: BTreeMap<(VlanId, MacAddr), Probe>,
    counts: Counts,
    /// Leases that were to be remembered and fitted no gateway.
    forgotten: u64,
}

/// What comes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is answered.
    Say(Reply),
    /// It is to be asked in the VLAN who has this address; who says so is told to [`Dhcp::heard`].
    Ask(Ipv4Addr),
    /// That was asked already.
    Wait,
}

/// The server of one VLAN.
#[derive(Debug)]
struct Server {
    own: Ipv4Net,
    said: Said4,
    domain: String,
    /// The names of clients that the topology file has, and whose they are.
    names: BTreeMap<MacAddr, String>,
    macs: BTreeMap<String, Vec<MacAddr>>,
    /// All names that the topology file has, of nodes, of VLANs and its own: no client has one by calling itself so.
    taken: BTreeSet<String>,
    /// The router whose gateway it is: in its VLANs a name is one client's.
    router: String,
    pool: Pool,
    /// Clients for whom there was no address.
    exhausted: u64,
}

/// What is to be sent, from the gateway's address and [`SERVER_PORT`] to [`CLIENT_PORT`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The gateway's address.
    pub src: Ipv4Addr,
    /// To this station.
    pub mac: MacAddr,
    /// And this address.
    pub dst: Ipv4Addr,
    /// The message.
    pub payload: Vec<u8>,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Addresses that were offered.
    pub offers: u64,
    /// Requests that were granted.
    pub acks: u64,
    /// Requests that were refused.
    pub naks: u64,
    /// Addresses that a client found in use.
    pub declines: u64,
    /// Addresses that somebody had who was not given them.
    pub conflicts: u64,
    /// How often what is to be remembered of leases has changed.
    pub changes: u64,
    /// What was no message of a client, or not for us, or of one client too many at a time.
    pub ignored: u64,
}

impl Dhcp {
    /// Serves the gateways of a World of this lab from now on, in which these are names: of nodes, each with a MAC address if it is known, and of VLANs. Who has
    /// an address that is still given keeps it.
    pub fn adopt<'n>(
        &mut self,
        lab: &str,
        routing: Option<&Routing>,
        hosts: &[Host],
        named: &(impl Iterator<Item = (&'n str, Option<MacAddr>)> + Clone),
    ) {
        let mut before = std::mem::take(&mut self.servers);
        for interface in routing.into_iter().flat_map(Routing::interfaces) {
            let (Some(said), vlan) = (&interface.said.dhcp, interface.said.vlan) else { continue };
            let own = interface.said.addresses.iter().find_map(|own| match own {
                ipnet::IpNet::V4(own) if own.contains(&said.first) => Some(*own),
                _ => None,
            });
            let Some(own) = own else { continue };
            let hosts = || hosts.iter().filter(|host| host.vlan == vlan);
            // Also without a MAC address: somebody may come with that address by itself.
            let mut reserved: BTreeMap<_, _> = hosts()
                .flat_map(|host| host.addresses.iter().map(|address| (address.addr(), host.mac)))
                .filter_map(|(address, mac)| match address {
                    IpAddr::V4(address) if own.contains(&address) => Some((address, mac)),
                    _ => None,
                })
                .collect();
            reserved.insert(own.addr(), None);
            // What the router answers for is nobody's here.
            reserved.extend(interface.outside().iter().filter_map(|address| match address {
                IpAddr::V4(address) => Some((*address, None)),
                IpAddr::V6(_) => None,
            }));
            let names: BTreeMap<_, _> =
                named.clone().filter_map(|(name, mac)| Some((mac?, name.to_owned()))).collect();
            let mut macs: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for (mac, name) in &names {
                macs.entry(name.clone()).or_default().push(*mac);
            }
            let taken = named.clone().map(|(name, _)| name).chain([lab]).map(str::to_owned).collect();
            let router = routing.map(|routing| routing.router(interface).name.clone()).unwrap_or_default();
            let (mut pool, exhausted) =
                before.remove(&vlan).map(|server| (server.pool, server.exhausted)).unwrap_or_default();
            pool.change(Some((said.first, said.last)), reserved);
            // That of the names that the gateway knows, unless another is said.
            let domain = said.domain.clone().unwrap_or_else(|| super::dns::domain(lab));
            let said = said.clone();
            self.servers
                .insert(vlan, Server { own, said, domain, names, macs, taken, router, pool, exhausted });
        }
        self.counts.changes += 1;
        self.probes.retain(|(vlan, mac), probe| {
            self.servers.get(vlan).is_some_and(|server| server.pool.may_have(*mac, probe.address))
        });
    }

    /// What comes of a message that came from this station in the VLAN; none: nothing. `owner` tells who has an address
    /// as far as is known, maybe from long ago: another is preferred to that, and nobody is refused for it.
    pub fn receive(
        &mut self,
        (vlan, from): (VlanId, MacAddr),
        payload: &[u8],
        now: Instant,
        owner: impl Fn(Ipv4Addr) -> Option<MacAddr>,
    ) -> Option<Next> {
        let asked = Asked::read(payload).filter(|asked| asked.mac == from && asked.relay.is_unspecified());
        let Some(asked) = asked.filter(|_| self.servers.contains_key(&vlan)) else {
            self.counts.ignored += 1;
            return None;
        };
        // Whatever it says now takes the place of what it said before.
        let before = self.probes.remove(&(vlan, from));
        // A stranger who would have to wait is not looked at any further: many come where somebody makes them up.
        let is_sure = |server: &Server| server.pool.is_sure_of_one(from, now);
        let is_stranger = before.is_none() && asked.kind == DhcpMessageType::Discover;
        if is_stranger && self.is_full(vlan) && !self.servers.get(&vlan).is_some_and(is_sure) {
            self.counts.ignored += 1;
            return None;
        }
        self.judge(vlan, asked, before, now, owner)
    }

    /// What comes of what a client asked.
    fn judge(
        &mut self,
        vlan: VlanId,
        asked: Asked,
        before: Option<Probe>,
        now: Instant,
        owner: impl Fn(Ipv4Addr) -> Option<MacAddr>,
    ) -> Option<Next> {
        let asked = self.without_name_of_others(vlan, asked, now);
        // By others: whatever this client waited for, it does no longer.
        let waited_for = probes::waited_for(&self.probes, vlan);
        let is_known = |address| owner(address).is_some_and(|mac| mac != asked.mac);
        let (server, counts) = (self.servers.get_mut(&vlan)?, &mut self.counts);
        let verdict = match asked.kind {
            DhcpMessageType::Discover => server.discover(&asked, now, counts, &waited_for, is_known),
            DhcpMessageType::Request => server.request(&asked, now, counts, &waited_for),
            DhcpMessageType::Inform => {
                counts.acks += 1;
                let said = server.said(DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED, &asked);
                Verdict::Say(server.reply(&asked, &said))
            }
            DhcpMessageType::Decline => {
                // Only what it was given: else one client could take all addresses away.
                let had = server.pool.of(asked.mac).map(|(address, _)| address);
                match had.filter(|address| asked.requested == Some(*address)) {
                    Some(address) => {
                        counts.declines += 1;
                        counts.changes += 1;
                        server.pool.decline(asked.mac, address, now);
                    }
                    None => counts.ignored += 1,
                }
                Verdict::Nothing
            }
            DhcpMessageType::Release => {
                counts.changes += u64::from(server.pool.release(asked.mac, asked.client, now));
                Verdict::Nothing
            }
            _ => {
                counts.ignored += 1;
                Verdict::Nothing
            }
        };
        match verdict {
            Verdict::Say(reply) => Some(Next::Say(reply)),
            Verdict::Unsure(address) => self.probe(vlan, asked, address, before, now),
            Verdict::Nothing => None,
        }
    }

    /// What a client asks, without the name that it gives itself if another has that, who came first.
    fn without_name_of_others(&self, vlan: VlanId, asked: Asked, now: Instant) -> Asked {
        let Some(router) = self.servers.get(&vlan).map(|server| &server.router) else { return asked };
        let Some(name) = &asked.host_name else { return asked };
        let has_it = |(of, server): (&VlanId, &Server)| {
            let is_others = |(_, lease): &(_, &Lease)| (*of, lease.mac) != (vlan, asked.mac);
            server.router == *router && server.named(name, now).any(|named| is_others(&named))
        };
        let is_others = self.servers.iter().any(has_it);
        Asked { host_name: asked.host_name.filter(|_| !is_others), ..asked }
    }

    /// What was counted.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// All addresses that are somebody's now.
    pub fn leases(&self, now: Instant) -> Vec<LeaseRow> {
        let rows = self.servers.iter().flat_map(|(vlan, server)| {
            server.pool.leases(now).map(|(address, lease)| LeaseRow {
                vlan: *vlan,
                address,
                mac: lease.mac,
                name: server.name_of(lease).cloned(),
                state: lease.state,
                left_secs: lease.until.since(now).as_secs(),
            })
        });
        rows.collect()
    }

    /// Whether a client has that address.
    pub fn is_leased(&self, vlan: VlanId, address: IpAddr, now: Instant) -> bool {
        let IpAddr::V4(address) = address else { return false };
        self.servers.get(&vlan).is_some_and(|server| server.pool.bound(address, now).is_some())
    }

    /// The names of clients now.
    pub const fn named(&self, now: Instant) -> Named<'_> {
        Named { dhcp: self, now }
    }

    /// What is left of the addresses of each gateway.
    pub fn pools(&self, now: Instant) -> Vec<PoolRow> {
        let row = |(vlan, server): (&VlanId, &Server)| PoolRow {
            vlan: *vlan,
            first: server.said.first,
            last: server.said.last,
            free: server.pool.free(now, &probes::waited_for(&self.probes, *vlan)),
            exhausted: server.exhausted,
        };
        self.servers.iter().map(row).collect()
    }
}

/// The names of clients at one moment: those that the topology file has for them, and those that they gave themselves.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    dhcp: &'a Dhcp,
    now: Instant,
}

impl Leased for Named<'_> {
    fn addresses(&self, vlan: VlanId, name: &str) -> Vec<IpAddr> {
        let server = self.dhcp.servers.get(&vlan);
        let named = server.into_iter().flat_map(|server| server.named(name, self.now));
        named.map(|(address, _)| address.into()).collect()
    }

    fn name(&self, vlan: VlanId, address: IpAddr) -> Option<&str> {
        let (Some(server), IpAddr::V4(address)) = (self.dhcp.servers.get(&vlan), address) else {
            return None;
        };
        server.name_of(server.pool.bound(address, self.now)?).map(String::as_str)
    }
}

/// What a server makes of a message.
enum Verdict {
    Say(Reply),
    /// The client may have this address, if nobody else does.
    Unsure(Ipv4Addr),
    Nothing,
}

impl Server {
    /// What the topology file calls a client or, if that is nobody's name, it calls itself.
    fn name_of<'a>(&'a self, lease: &'a Lease) -> Option<&'a String> {
        let own = || lease.host_name.as_ref().filter(|name| !self.taken.contains(*name));
        self.names.get(&lease.mac).or_else(own)
    }

    /// The clients that have this name, and an address.
    fn named<'a>(&'a self, name: &'a str, now: Instant) -> impl Iterator<Item = (Ipv4Addr, &'a Lease)> {
        let stated = self.macs.get(name).into_iter().flatten().filter_map(move |mac| {
            let (address, _) = self.pool.of(*mac)?;
            Some((address, self.pool.bound(address, now)?))
        });
        let own = self.pool.named(name, now);
        stated.chain(own.filter(|(_, lease)| self.name_of(lease).is_some_and(|own| own == name)))
    }

    fn discover(
        &mut self,
        asked: &Asked,
        now: Instant,
        counts: &mut Counts,
        waited_for: &BTreeSet<Ipv4Addr>,
        is_known: impl Fn(Ipv4Addr) -> bool,
    ) -> Verdict {
        let Some(address) = self.pool.choose(asked.mac, asked.requested, now, waited_for, is_known) else {
            self.exhausted += 1;
            return Verdict::Nothing;
        };
        if !self.pool.is_promised(asked.mac, address, now) {
            return Verdict::Unsure(address);
        }
        Verdict::Say(self.grant(asked, address, now, counts))
    }

    /// RFC 2131 §4.3.2: of an offer, after a restart, to renew.
    fn request(
        &mut self,
        asked: &Asked,
        now: Instant,
        counts: &mut Counts,
        waited_for: &BTreeSet<Ipv4Addr>,
    ) -> Verdict {
        if asked.server.is_some_and(|server| server != self.own.addr()) {
            // It took another's offer.
            if let Some((address, lease)) = self.pool.of(asked.mac)
                && lease.state == LeaseState::Offered
            {
                self.pool.release(asked.mac, address, now);
            }
            return Verdict::Nothing;
        }
        let client = (!asked.client.is_unspecified()).then_some(asked.client);
        let Some(wanted) = asked.requested.or(client) else { return Verdict::Nothing };
        // Who has it already, or was promised it, is not asked whether somebody else does.
        let is_sure = client.is_some() || self.pool.is_promised(asked.mac, wanted, now);
        if !self.pool.can_have(asked.mac, wanted, now) || !is_sure && waited_for.contains(&wanted) {
            return Verdict::Say(self.refusal(asked, counts));
        }
        if !is_sure {
            return Verdict::Unsure(wanted);
        }
        Verdict::Say(self.grant(asked, wanted, now, counts))
    }

    /// The address is offered or given, as the client asks.
    fn grant(&mut self, asked: &Asked, address: Ipv4Addr, now: Instant, counts: &mut Counts) -> Reply {
        let name = asked.host_name.clone();
        let kind = if asked.kind == DhcpMessageType::Discover {
            counts.offers += 1;
            self.pool.offer(asked.mac, address, name, now);
            DhcpMessageType::Offer
        } else {
            counts.acks += 1;
            counts.changes += 1;
            let until = now + Duration::from_secs(self.said.lease_secs.into());
            self.pool.bind(asked.mac, address, name, until);
            DhcpMessageType::Ack
        };
        self.reply(asked, &self.said(kind, address, asked))
    }

    /// It may not have that address.
    fn refusal(&self, asked: &Asked, counts: &mut Counts) -> Reply {
        counts.naks += 1;
        let why = b"that address is not yours here".to_vec();
        let id = self.own.addr().octets().to_vec();
        let options = vec![(option::SERVER_ID, id), (option::MESSAGE, why)];
        let said = Said { kind: DhcpMessageType::Nak, yours: Ipv4Addr::UNSPECIFIED, options, boot: None };
        // To all: what the client takes for its address may be wrong.
        let payload = said.write(&Asked { broadcast: true, ..asked.clone() });
        Reply { src: self.own.addr(), mac: MacAddr::BROADCAST, dst: Ipv4Addr::BROADCAST, payload }
    }

    /// An offer or a grant of an address, or with none what a client wants to know that has one.
    fn said(&self, kind: DhcpMessageType, yours: Ipv4Addr, asked: &Asked) -> Said {
        let own = self.own.addr();
        let secs = |secs: u32| secs.to_be_bytes().to_vec();
        let mut options = vec![(option::SERVER_ID, own.octets().to_vec())];
        if !yours.is_unspecified() {
            let lease = self.said.lease_secs;
            options.push((option::LEASE_TIME, secs(lease)));
            // RFC 2131 §4.4.5.
            options.push((option::RENEWAL_TIME, secs(lease / 2)));
            options.push((option::REBINDING_TIME, secs((u64::from(lease) * 7 / 8) as u32)));
        }
        options.push((option::SUBNET_MASK, self.own.netmask().octets().to_vec()));
        options.push((option::ROUTER, own.octets().to_vec()));
        let dns = if self.said.dns.is_empty() { std::slice::from_ref(&own) } else { &self.said.dns[..] };
        options.push((option::DNS_SERVERS, dns.iter().flat_map(Ipv4Addr::octets).collect()));
        let boot = self.said.boot.as_ref().filter(|boot| match asked.boots {
            Boots::Any => true,
            // Who cannot fetch it goes on to what it boots else.
            Boots::Names => !boot.is_url(),
            Boots::Http => boot.is_http(),
        });
        if let Some(boot) = boot.filter(|_| asked.boots == Boots::Http) {
            // It takes no other offer, and asks for neither by its list alone.
            options.push((option::VENDOR_CLASS, HTTP_CLIENT.to_vec()));
            options.push((option::BOOT_FILE, boot.file.clone().into_bytes()));
        }
        let mut wanted = |option, data: Option<Vec<u8>>| {
            options.extend(data.filter(|_| asked.wants(option)).map(|data| (option, data)));
        };
        if let Some(boot) = boot.filter(|_| asked.boots != Boots::Http) {
            wanted(option::BOOT_FILE, Some(boot.file.clone().into_bytes()));
            wanted(option::TFTP_SERVER, boot.server.map(|server| server.to_string().into_bytes()));
        }
        let name = self.names.get(&asked.mac);
        wanted(option::HOST_NAME, name.map(|name| name.clone().into_bytes()));
        wanted(option::DOMAIN_NAME, Some(self.domain.clone().into_bytes()));
        wanted(option::BROADCAST, Some(self.own.broadcast().octets().to_vec()));
        wanted(option::MTU, self.said.mtu.map(|mtu| mtu.to_be_bytes().to_vec()));
        let search =
            self.said.search.iter().flat_map(|domain| super::dns::labels(domain)).collect::<Vec<_>>();
        wanted(option::DOMAIN_SEARCH, (!search.is_empty()).then_some(search));
        let routes = (!self.said.routes.is_empty()).then(|| {
            // RFC 3442: who takes these takes no router else.
            let default = (Ipv4Net::default(), own);
            self.said.routes.iter().chain([&default]).flat_map(|(to, via)| classless(*to, *via)).collect()
        });
        wanted(option::CLASSLESS_ROUTES, routes);
        Said { kind, yours, options, boot: boot.cloned() }
    }

    /// To whom it goes (RFC 2131 §4.1).
    fn reply(&self, asked: &Asked, said: &Said) -> Reply {
        let (mac, dst) = if !asked.client.is_unspecified() {
            (asked.mac, asked.client)
        } else if asked.broadcast || said.yours.is_unspecified() {
            (MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
        } else {
            (asked.mac, said.yours)
        };
        Reply { src: self.own.addr(), mac, dst, payload: said.write(asked) }
    }
}

/// A route (RFC 3442): as many octets of the destination as count.
fn classless(to: Ipv4Net, via: Ipv4Addr) -> impl Iterator<Item = u8> {
    let octets = usize::from(to.prefix_len().div_ceil(8));
    let network = to.network().octets().into_iter().take(octets);
    std::iter::once(to.prefix_len()).chain(network).chain(via.octets())
}
