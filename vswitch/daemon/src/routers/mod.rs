//! What routers hear and say themselves, behind the port that they have in the switch: they answer for their addresses, find their neighbours and
//! keep what waits for these, and see who is still there. A pure machine: frames and time go in, frames come out.
//!
//! ```text
//! receive -> arp | nd      answers; learns into Neighbours ---.
//!         -> suppress      answers for neighbours that are known
//!         -> own           echoes, errors, resets             |
//!         -> forward       -> resolve (held) <---------------' then it goes on
//!                          -> cut          what is too long for where it goes on
//! tick    -> announcements, resolve (asks again, gives up), alive (probes who was used and not heard)
//! ```
//!
//! Every VLAN with a gateway is a segment: what it may have is bounded there, so that no VLAN takes what is another's.

mod advertise;
mod alive;
mod arp;
mod counts;
mod cut;
pub mod dhcp;
pub mod dns;
pub(crate) mod failed;
mod forward;
mod metadata;
mod names;
mod nd;
mod own;
mod resolve;
pub(crate) mod rows;
mod segment;
mod serve;
mod suppress;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::lab;

pub use counts::{Counts, Lost};

use crate::{
    control::protocol::{Kept, KeptLease, LeaseTable},
    tracking,
};
use advertise::Advert;
use alive::{Probe, Walk};
use dhcp::Dhcp;
use dns::{Dns, upstream::Upstream};
use failed::Failed;
use ipnet::IpNet;
use metadata::Metadata;
use resolve::Asked;
use segment::{Segment, Shares};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};
use vswitch_core::{
    build::{self, Ethernet},
    clock::Instant,
    description::Link,
    firewall::connections::Connections,
    head::{FrameView, HEAD_BYTES, Head, Network},
    id::PortId,
    mac::MacAddr,
    route::{Interface, Neighbours, Router, Routing},
    vlan::{Tci, VlanId},
    world::World,
};

/// Frames that wait to be sent, and their bytes.
const QUEUED: usize = 1024;
const QUEUED_BYTES: usize = 4 << 20;

/// How often a new address is announced, and how far apart (RFC 5227 §1.1; RFC 4861 §10 allows three).
const ANNOUNCED: u8 = 2;
const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);

/// Addresses that are announced in one tick: half of what may wait.
const ANNOUNCED_A_TICK: usize = QUEUED / 2;

/// How often a question is asked, and how long its answer is waited for (RFC 4861 §10).
const TRIES: u8 = 3;
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The group of all nodes of a link, and its Ethernet address (RFC 4291 §2.7.1, RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr::new([0x33, 0x33, 0, 0, 0, 1]);

/// A neighbour, known or not.
type Key = (VlanId, IpAddr);

/// The routers' voice.
#[derive(Debug)]
pub struct Speaker {
    neighbours: Arc<Neighbours>,
    /// Those that workers translate.
    connections: Arc<Connections>,
    world: Option<Arc<World>>,
    segments: BTreeMap<VlanId, Segment>,
    asked: BTreeMap<Key, Asked>,
    failed: Failed,
    probes: BTreeMap<Key, Probe>,
    walk: Walk,
    /// New addresses; by when they are due, which is the order.
    announcements: VecDeque<Announcement>,
    /// Of the VLANs whose gateways advertise themselves.
    adverts: BTreeMap<VlanId, Advert>,
    dhcp: Dhcp,
    dns: Dns,
    upstream: Upstream,
    metadata: Metadata,
    /// The lab's name.
    lab: String,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    /// What waited for who did not answer, until somebody asks for it.
    unanswered: Vec<Unanswered>,
    counts: Counts,
}

/// A frame that waited for a neighbour in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// The routers' port.
    pub port: PortId,
    /// The neighbour's VLAN.
    pub vlan: VlanId,
    /// Whether later ones took its place; else nobody answered.
    pub crowded: bool,
    /// The frame's first bytes.
    pub head: Vec<u8>,
    /// How many it has.
    pub len: u32,
}

/// An address that is still to be announced.
#[derive(Debug)]
struct Announcement {
    due: Instant,
    key: Key,
    /// How often.
    left: u8,
}

/// Where a frame was heard, and what it says.
#[derive(Clone, Copy)]
struct Heard<'a> {
    routing: &'a Routing,
    interface: &'a Interface,
    vlan: VlanId,
    head: &'a Head,
    frame: &'a [u8],
}

impl<'a> Heard<'a> {
    fn router(&self) -> &'a Router {
        self.routing.router(self.interface)
    }

    /// The part of the frame that was judged.
    fn judged(&self) -> &'a [u8] {
        &self.frame[..self.frame.len().min(HEAD_BYTES)]
    }

    fn view(&self) -> FrameView<'_> {
        // No frame is longer than virtio-net carries: that was looked at.
        let len = self.frame.len() as u32;
        FrameView { link: &self.head.link, bytes: self.judged(), len, wire_len: len }
    }

    /// The link header of what is said to the frame's sender.
    fn back(&self) -> Ethernet {
        link(self.routing, self.vlan, self.head.link.src)
    }
}

/// The link header of a frame of the routers' own.
fn link(routing: &Routing, vlan: VlanId, dst: MacAddr) -> Ethernet {
    Ethernet { src: routing.mac, dst, tag: Some(Tci::from_bits(vlan.number())) }
}

/// Whether somebody else may say that this is their MAC address.
fn is_others(mac: MacAddr, routing: &Routing) -> bool {
    !(mac.is_group() || mac.is_zero() || mac == routing.mac)
}

/// The routers' link-local address: in every VLAN with an IPv6 gateway the same (RFC 4291 appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Whether the address is the router's own in this VLAN.
fn has(routing: &Routing, interface: &Interface, address: IpAddr) -> bool {
    let mine = || matches!(address, IpAddr::V6(address) if address == link_local(routing.mac));
    interface.has(address) || speaks_v6(interface) && mine()
}

fn speaks_v6(interface: &Interface) -> bool {
    interface.said.addresses.iter().any(|own| own.addr().is_ipv6())
}

/// All of the routers' own addresses.
fn addresses(world: &World) -> impl Iterator<Item = Key> {
    world.routing().into_iter().flat_map(|routing| {
        routing.interfaces().iter().flat_map(|interface| {
            let vlan = interface.said.vlan;
            let own = interface.said.addresses.iter().map(IpNet::addr);
            let own = own.chain(interface.outside().iter().copied()).map(move |own| (vlan, own));
            own.chain(speaks_v6(interface).then(|| (vlan, link_local(routing.mac).into())))
        })
    })
}

impl Speaker {
    /// Nobody yet: a World is to be adopted. Whom it hears of it tells `neighbours`, which nobody else does.
    pub fn new(neighbours: Arc<Neighbours>) -> Self {
        Self {
            neighbours,
            connections: Arc::new(tracking::nothing()),
            world: None,
            segments: BTreeMap::new(),
            asked: BTreeMap::new(),
            failed: Failed::default(),
            probes: BTreeMap::new(),
            walk: Walk::default(),
            announcements: VecDeque::new(),
            adverts: BTreeMap::new(),
            dhcp: Dhcp::default(),
            dns: Dns::default(),
            upstream: Upstream::default(),
            metadata: Metadata::default(),
            lab: String::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            unanswered: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// From now on these are the connections that routers translate: before a [World](Self::adopt) in which they do.
    pub fn translate_by(&mut self, connections: Arc<Connections>) {
        self.connections = connections;
    }

    /// Speaks for the routers of another World: what is not true in it is forgotten, and addresses that are new are announced from the next tick on.
    pub fn adopt(&mut self, world: Arc<World>) {
        let routing = world.routing();
        self.neighbours.settle(routing);
        let has_gateway = |vlan| routing.is_some_and(|routing| routing.interface(vlan).is_some());
        let is_neighbours =
            |(vlan, address): Key| routing.is_some_and(|routing| routing.is_neighbours(vlan, address));
        self.segments.retain(|vlan, _| has_gateway(*vlan));
        for interface in routing.into_iter().flat_map(Routing::interfaces) {
            let vlan = interface.said.vlan;
            self.segments.entry(vlan).or_insert_with(Segment::new).mtu = world.narrowest(vlan);
        }
        let lost: usize = self
            .asked
            .extract_if(.., |key, asked| !is_neighbours(*key) || !has_gateway(asked.asker))
            .map(|(_, asked)| asked.held.len())
            .sum();
        self.counts.lose_many(Lost::Changed, lost as u64);
        for asked in self.asked.values_mut() {
            let before = asked.held.len();
            asked.held.retain(|held| has_gateway(held.vlan));
            self.counts.lose_many(Lost::Changed, (before - asked.held.len()) as u64);
        }
        self.probes.retain(|key, _| is_neighbours(*key));
        self.failed.clear();
        self.upstream.clear();
        // What waits to be sent was said by the World before.
        let mac = routing.map(|routing| routing.mac);
        let mut lost = 0;
        self.queue.retain(|frame| {
            let stays = link_of(frame).is_some_and(|(ends, vlan)| ends.contains(&mac) && has_gateway(vlan));
            lost += u64::from(!stays);
            stays
        });
        self.queued_bytes = self.queue.iter().map(Vec::len).sum();
        self.counts.lose_many(Lost::Changed, lost);
        let before = self.world.take().filter(|before| before.routing().map(|before| before.mac) == mac);
        let known: BTreeSet<Key> = before.iter().flat_map(|before| addresses(before)).collect();
        let now_has: BTreeSet<Key> = addresses(&world).collect();
        self.announcements.retain(|announcement| now_has.contains(&announcement.key));
        let new = now_has.into_iter().filter(|key| !known.contains(key));
        let new = new.map(|key| Announcement { due: Instant::ZERO, key, left: ANNOUNCED });
        // Before those that were announced once already: these are due later.
        new.for_each(|announcement| self.announcements.push_front(announcement));
        self.serve(&world);
        self.world = Some(world);
    }

    /// Gives addresses, tells names and hosts of themselves, and advertises gateways as this World says.
    fn serve(&mut self, world: &World) {
        let (routing, said) = (world.routing(), world.description());
        let hosts = said.routing.as_ref().map_or(&[][..], |routing| &routing.hosts[..]);
        let ports = said.ports.iter().flatten().filter(|port| port.link != Link::Routers);
        let vlans = said.vlans.iter().map(|vlan| (vlan.name.as_str(), None));
        let named = ports.map(|port| (port.node.as_str(), port.mac)).chain(vlans);
        self.dhcp.adopt(&said.lab, routing, hosts, &named);
        self.dns.adopt(&said.lab, routing, hosts, |vlan| world.vlan_name(vlan).map(str::to_owned));
        self.metadata.adopt(said, routing);
        self.lab.clone_from(&said.lab);
        // Whatever changed, hosts hear of it.
        self.adverts = (routing.into_iter().flat_map(Routing::interfaces))
            .filter(|interface| advertise::advertises(interface))
            .map(|interface| (interface.said.vlan, Advert::first()))
            .collect();
    }

    /// Hears a frame, from its destination address on, whole: with its tag, its checksums complete.
    pub fn receive(&mut self, frame: &[u8], now: Instant) {
        if let Err(why) = self.hear(frame, now) {
            self.counts.lose(why);
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        let Some(world) = self.world.clone() else { return };
        let Some(routing) = world.routing() else { return };
        self.announce(routing, now);
        self.advertise(routing, now);
        self.serve_who_waited(routing, now);
        self.tell_again(routing, now);
        self.ask_others_again(routing, now);
        self.ask_again(routing, now);
        self.probe_again(routing, now);
        self.go_on(routing, now);
    }

    /// What waited for who did not answer, since this was asked last: some of it, if that is much.
    pub fn unanswered(&mut self) -> Vec<Unanswered> {
        mem::take(&mut self.unanswered)
    }

    /// When there is something to do though nothing is heard; in the past: at once.
    pub fn next_due(&self) -> Option<Instant> {
        self.world.as_ref()?.routing()?;
        // While much waits to be sent nothing is announced.
        let announced = self.announcements.front().filter(|_| self.queue.len() < ANNOUNCED_A_TICK);
        let announced = announced.map(|announcement| announcement.due);
        let asked = self.asked.values().map(|asked| asked.due);
        let probes = self.probes.values().map(|probe| probe.due);
        let adverts = self.adverts.values().map(|advert| advert.due);
        announced
            .into_iter()
            .chain(adverts)
            .chain(self.dhcp.next_due())
            .chain(self.metadata.next_due())
            .chain(self.upstream.next_due())
            .chain(asked)
            .chain(probes)
            .chain(self.walk.due())
            .min()
    }

    /// The frame to be sent next.
    pub fn next_frame(&self) -> Option<&[u8]> {
        self.queue.front().map(Vec::as_slice)
    }

    /// The frame to be sent next was sent.
    pub fn sent(&mut self) {
        self.queued_bytes -= self.queue.pop_front().map_or(0, |frame| frame.len());
    }

    /// What was counted since the beginning.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The addresses that hosts were given, and what is left.
    pub fn leases(&self, now: Instant) -> LeaseTable {
        LeaseTable { rows: self.dhcp.leases(now), pools: self.dhcp.pools(now) }
    }

    /// These addresses were given before this speaker was there, as far as they fit its World.
    pub fn remember(&mut self, leases: Vec<KeptLease>, now: Instant) {
        self.dhcp.remember(leases, now);
    }

    /// What is to be remembered of the addresses that hosts were given.
    pub fn kept(&self, now: Instant) -> Kept {
        self.dhcp.kept(now)
    }

    /// How often that has changed; 0 before the first World.
    pub const fn lease_changes(&self) -> u64 {
        self.dhcp.counts().changes
    }

    /// How many frames wait to be sent, how many neighbours are asked for, and how many frames wait for these: now.
    pub fn waiting(&self) -> (usize, usize, usize) {
        (self.queue.len(), self.asked.len(), self.asked.values().map(|asked| asked.held.len()).sum())
    }

    fn hear(&mut self, frame: &[u8], now: Instant) -> Result<(), Lost> {
        let world = self.world.clone().ok_or(Lost::NoGateway)?;
        let routing = world.routing().ok_or(Lost::NoGateway)?;
        let len = u32::try_from(frame.len()).map_err(|_| Lost::Malformed)?;
        let judged = &frame[..frame.len().min(HEAD_BYTES)];
        let head = Head::parse(judged, len).map_err(|_| Lost::Malformed)?;
        let tci = head.link.c_tag().map_err(|_| Lost::Malformed)?.ok_or(Lost::NoGateway)?;
        let vlan = VlanId::new(tci.vid()).ok_or(Lost::NoGateway)?;
        let interface = routing.interface(vlan).ok_or(Lost::NoGateway)?;
        if head.link.src == routing.mac && !head.link.dst.is_group() {
            // What the switch answers to a frame that went on from here is for its sender.
            self.say(frame.to_vec());
            return Ok(());
        }
        if head.link.inner.is_some() || !is_others(head.link.src, routing) {
            return Err(Lost::Malformed);
        }
        if head.link.dst != routing.mac && !head.link.dst.is_group() {
            return Err(Lost::NotOurs);
        }
        let heard = Heard { routing, interface, vlan, head: &head, frame };
        match head.network {
            Network::Arp(arp) => self.hear_arp(heard, &arp, now),
            Network::Ipv6(ip) if nd::is_message(&head) => self.hear_nd(heard, &ip, now),
            Network::Ipv4(ip) if serve::is_dhcp(&heard, &ip) => self.hear_dhcp(heard, now),
            Network::Ipv4(_) | Network::Ipv6(_) => self.hear_packet(heard, now),
            Network::Unparsed(_) => Err(Lost::Malformed),
            Network::Other => Err(Lost::NotOurs),
        }
    }

    /// Queues a frame; false: there is no room, and it is lost.
    fn say(&mut self, frame: Vec<u8>) -> bool {
        let has_room = self.queue.len() < QUEUED && self.queued_bytes + frame.len() <= QUEUED_BYTES;
        if has_room {
            self.queued_bytes += frame.len();
            self.queue.push_back(frame);
        } else {
            self.counts.lose(Lost::QueueFull);
        }
        has_room
    }

    /// Queues an answer, if the station that asked may have one more.
    fn answer(&mut self, station: (VlanId, MacAddr), frame: Vec<u8>, now: Instant) -> Result<(), Lost> {
        self.answer_from(|segment| &segment.answers, station, frame, now)
    }

    /// The same of who has an address of the router's.
    fn answer_who(&mut self, heard: Heard<'_>, frame: Vec<u8>, now: Instant) -> Result<(), Lost> {
        let station = (heard.vlan, heard.head.link.src);
        self.answer_from(|segment| &segment.addresses, station, frame, now)
    }

    fn answer_from(
        &mut self,
        shares: fn(&Segment) -> &Shares,
        (vlan, station): (VlanId, MacAddr),
        frame: Vec<u8>,
        now: Instant,
    ) -> Result<(), Lost> {
        let segment = self.segments.get(&vlan).ok_or(Lost::NoGateway)?;
        if !shares(segment).take(station, now) {
            return Err(Lost::Rate);
        }
        self.counts.answered += u64::from(self.say(frame));
        Ok(())
    }

    /// Announces the addresses whose time has come.
    fn announce(&mut self, routing: &Routing, now: Instant) {
        for _ in 0..ANNOUNCED_A_TICK {
            if self.queue.len() >= ANNOUNCED_A_TICK {
                return;
            }
            if self.announcements.front().is_none_or(|next| next.due > now) {
                return;
            }
            let Some(next) = self.announcements.pop_front() else { return };
            self.say_own(routing, next.key);
            if next.left > 1 {
                let (due, left) = (now + ANNOUNCE_EVERY, next.left - 1);
                self.announcements.push_back(Announcement { due, left, ..next });
            }
        }
    }

    /// Tells everybody in the VLAN that an address is the router's.
    fn say_own(&mut self, routing: &Routing, (vlan, address): Key) {
        let frame = match address {
            IpAddr::V4(own) => build::arp_request(link(routing, vlan, MacAddr::BROADCAST), own, own),
            IpAddr::V6(own) => nd::unsolicited(link(routing, vlan, ALL_NODES_MAC), own),
        };
        self.counts.announced += u64::from(self.say(frame));
    }

    /// Somebody else claims one of the router's own addresses: it is kept, and others are told so, not more often than two such could go on
    /// about it (RFC 5227 §2.4 (c)).
    fn defend(&mut self, routing: &Routing, key: Key, now: Instant) {
        self.counts.conflicts += 1;
        let Some(segment) = self.segments.get_mut(&key.0) else { return };
        if segment.may_defend(key.1, now) {
            self.say_own(routing, key);
        }
    }

    /// Asks who has an address: everybody, or whom it was known of. False: the router has no address to ask from.
    fn ask(&mut self, routing: &Routing, (vlan, address): Key, whom: Option<MacAddr>) -> bool {
        let Some(interface) = routing.interface(vlan) else { return false };
        let frame = match (address, interface.source(address)) {
            (IpAddr::V4(target), Some(IpAddr::V4(own))) => {
                let dst = whom.unwrap_or(MacAddr::BROADCAST);
                build::arp_request(link(routing, vlan, dst), own, target)
            }
            (IpAddr::V6(target), Some(IpAddr::V6(own))) => {
                let link = link(routing, vlan, whom.unwrap_or_default());
                match whom {
                    Some(_) => nd::solicitation(link, own, target),
                    None => build::neighbour_solicitation(link, own, target),
                }
            }
            _ => return false,
        };
        self.counts.asked += u64::from(self.say(frame));
        true
    }

    /// A neighbour said who it is: what waits for it goes on.
    fn learn(&mut self, routing: &Routing, (vlan, address): Key, mac: MacAddr, now: Instant) {
        self.neighbours.set(vlan, address, mac, now);
        self.walk.begin(now);
        self.probes.remove(&(vlan, address));
        self.failed.remove((vlan, address));
        self.go_on_with(routing, (vlan, address), now);
    }

    /// Whether a neighbour is known.
    fn knows(&self, (vlan, address): Key, now: Instant) -> Option<MacAddr> {
        self.neighbours.find(vlan, address, now, false)
    }

    /// Learns of a neighbour that spoke to us unasked, if it is known, or its VLAN may have one more.
    fn learn_unasked(&mut self, routing: &Routing, key: Key, mac: MacAddr, now: Instant) {
        if self.knows(key, now).is_none() && !self.asked.contains_key(&key) {
            let Some(segment) = self.segments.get_mut(&key.0) else { return };
            if !segment.may_have_another() {
                self.counts.lose(Lost::TooMany);
                return;
            }
        }
        self.learn(routing, key, mac, now);
    }
}

/// Both addresses and the VLAN of a frame that waits to be sent. But for answers for neighbours the one or the other is the routers' own.
fn link_of(frame: &[u8]) -> Option<([Option<MacAddr>; 2], VlanId)> {
    let mac = |at: usize| frame.get(at..)?.first_chunk().copied().map(MacAddr::new);
    let [high, low] = *frame.get(14..)?.first_chunk()?;
    Some(([mac(0), mac(6)], VlanId::new(Tci::from_bits(u16::from_be_bytes([high, low])).vid())?))
}
