//! One interface of a station: its NIC, smoltcp behind it, its neighbours and its services.

use crate::answer::{Services, is_over};
use crate::frames::{self, Path};
use crate::neighbours::{Neighbour, Neighbours};
use crate::nic::{Nic, Wire};
use crate::observe::{self, Event, Sender};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::ops::RangeInclusive;
use ipnet::IpNet;
use probe::Mac;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr};

/// Ports that connections of ours are made from (RFC 6335 §6).
const DYNAMIC_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// How long a connection may take to close.
const CLOSING: Duration = Duration::from_secs(5);

/// One interface.
pub(crate) struct Stack<W> {
    pub(crate) nic: Nic<W>,
    pub(crate) interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) services: Services,
    neighbours: Neighbours,
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    closing: Vec<(SocketHandle, Instant)>,
    next_port: u16,
}

impl<W: Wire> Stack<W> {
    /// `addresses` are unicast and at most seven; the link-local one comes besides (RFC 4862 §5.3). Of `gateways`, one of each family at
    /// most, those that are on no network of these take nothing.
    pub(crate) fn new(
        mut nic: Nic<W>,
        (mut addresses, mut gateways): (Vec<IpNet>, Vec<IpAddr>),
        seed: u64,
        now: Instant,
    ) -> Self {
        let mac = EthernetAddress(nic.mac().octets());
        let mut config = Config::new(mac.into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut nic, now);
        addresses.push(link_local(nic.mac()));
        interface.update_ip_addrs(|own| {
            for address in &addresses {
                own.push(IpCidr::new(address.addr().into(), address.prefix_len()))
                    .expect("seven addresses and one more are the eight that smoltcp has room for");
            }
        });
        gateways.retain(|gateway| addresses.iter().any(|own| own.contains(gateway)));
        for gateway in &gateways {
            let routes = interface.routes_mut();
            let added = match gateway {
                IpAddr::V4(gateway) => routes.add_default_ipv4_route(*gateway),
                IpAddr::V6(gateway) => routes.add_default_ipv6_route(*gateway),
            };
            added.expect("smoltcp has room for two routes");
        }
        let mut sockets = SocketSet::new(Vec::new());
        let services = Services::new(&mut sockets);
        let next_port = DYNAMIC_PORTS.start() | (seed as u16 & 0x3fff);
        let neighbours = Neighbours::default();
        let closing = Vec::new();
        Self { nic, interface, sockets, services, neighbours, addresses, gateways, closing, next_port }
    }

    pub(crate) fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    pub(crate) fn owns(&self, addr: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == addr)
    }

    /// The way to `dst` on this link from the address of the longest prefix, and that prefix.
    pub(crate) fn path(&self, dst: IpAddr) -> Option<(Path, u8)> {
        let nets = self.addresses.iter().filter(|own| own.contains(&dst));
        let net = nets.max_by_key(|own| own.prefix_len())?;
        Some((Path::new(net.addr(), dst)?, net.prefix_len()))
    }

    /// The same, or else the way by the default gateway, which is in a network of no length.
    pub(crate) fn way(&self, dst: IpAddr) -> Option<(Path, u8)> {
        self.path(dst).or_else(|| {
            let (near, _) = self.path(self.gateway(dst)?)?;
            Some((Path::new(near.src(), dst)?, 0))
        })
    }

    /// Who takes what goes to `dst`: itself, if it is on this link, or else the default gateway.
    pub(crate) fn next(&self, dst: IpAddr) -> Option<IpAddr> {
        match self.path(dst) {
            Some(_) => Some(dst),
            None => self.gateway(dst),
        }
    }

    /// The default gateway for `dst`, if that may be a host elsewhere.
    fn gateway(&self, dst: IpAddr) -> Option<IpAddr> {
        if dst.is_unspecified() || dst.is_loopback() || dst.is_multicast() {
            return None;
        }
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == dst.is_ipv4())
    }

    /// What is known of `addr`, which is on this link.
    pub(crate) fn neighbour(&self, addr: IpAddr, now: Instant) -> Neighbour {
        if self.owns(addr) {
            return Neighbour::Known(self.nic.mac());
        }
        self.neighbours.lookup(addr, now)
    }

    /// Asks who has `addr`, whatever is known and under way.
    pub(crate) fn ask_anew(&mut self, addr: IpAddr, now: Instant) {
        if !self.owns(addr) {
            self.neighbours.ask_anew(addr, now);
        }
    }

    /// Asks who has `addr`, whatever is known, unless it is under way.
    pub(crate) fn ask(&mut self, addr: IpAddr, now: Instant) {
        if !self.owns(addr) {
            self.neighbours.ask(addr, now);
        }
    }

    /// Sees to it that smoltcp can send to `addr`.
    pub(crate) fn tell(&mut self, addr: IpAddr, now: Instant) {
        let own = self.nic.mac();
        let mac = if self.owns(addr) { Some(own) } else { self.neighbours.untold(addr, now) };
        let path = self.path(addr).and_then(|(path, _)| Path::new(addr, path.src()));
        if let (Some(mac), Some(path)) = (mac, path) {
            self.nic.offer(frames::neighbour_answer(mac, own, path));
            self.interface.poll_ingress_single(now, &mut self.nic, &mut self.sockets);
        }
    }

    /// A port, or an echo identifier, that was not used for long.
    pub(crate) fn next_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(*DYNAMIC_PORTS.start());
        port
    }

    /// Closes a connection in the background.
    pub(crate) fn retire(&mut self, handle: SocketHandle, now: Instant) {
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        self.closing.push((handle, now + CLOSING));
    }

    /// Takes what came; `raw` gets probe frames, `events` what requests may wait for.
    pub(crate) fn ingress(&mut self, now: Instant, events: &mut Vec<Event>, raw: &mut dyn FnMut(&[u8])) {
        self.nic.exchange();
        while let Some(frame) = self.nic.next_arrived() {
            if observe::is_raw(&frame) {
                raw(&frame);
                continue;
            }
            let observed = observe::observe(&frame);
            if let Some(sender) = observed.sender {
                self.meet(sender, now);
            }
            events.extend(observed.event);
            self.nic.offer(frame);
            self.interface.poll_ingress_single(now, &mut self.nic, &mut self.sockets);
            self.services.replenish(&mut self.sockets);
        }
        self.services.advance(now, &mut self.sockets);
    }

    /// Learns from a frame, so that what answers it finds its way.
    fn meet(&mut self, sender: Sender, now: Instant) {
        let Sender { addr, mac, to, by_resolution } = sender;
        let for_us = self.owns(to);
        let is_group = mac.octets()[0] & 1 != 0;
        if is_group || self.owns(addr) {
            return;
        }
        // What comes from elsewhere came by a router, and is answered that way.
        let Some(next) = self.next(addr) else { return };
        if !by_resolution {
            if for_us {
                self.neighbours.heard(next, mac, now);
            }
        } else if next == addr {
            self.neighbours.resolved(addr, mac, for_us, now);
        }
        if for_us {
            self.tell(next, now);
        }
    }

    /// Sends what is due, and drops connections that are over.
    pub(crate) fn egress(&mut self, now: Instant) {
        for addr in self.neighbours.due(now) {
            if let Some((path, _)) = self.path(addr) {
                self.nic.send(frames::neighbour_request(self.nic.mac(), path));
            }
        }
        while self.interface.poll_egress(now, &mut self.nic, &mut self.sockets) != PollResult::None {
            self.services.advance(now, &mut self.sockets);
        }
        self.services.reap(&mut self.sockets);
        let sockets = &mut self.sockets;
        self.closing.retain(|(handle, until)| {
            let over = now >= *until || is_over(sockets.get(*handle));
            if over {
                sockets.remove(*handle);
            }
            !over
        });
        self.nic.flush();
    }

    /// When this interface has something to do without a frame.
    pub(crate) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        if self.nic.is_blocked() {
            return None;
        }
        if self.nic.has_arrived() {
            return Some(now);
        }
        let closing = self.closing.iter().map(|(_, until)| *until).min();
        let sockets = self.interface.poll_at(now, &self.sockets);
        [self.neighbours.poll_at(), closing, sockets].into_iter().flatten().min()
    }
}

/// The link-local address of a MAC address (RFC 4291 appendix A).
fn link_local(mac: Mac) -> IpNet {
    let [a, b, c, d, e, f] = mac.octets();
    let pair = |high, low| u16::from_be_bytes([high, low]);
    let addr = Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f));
    IpNet::new_assert(addr.into(), 64)
}
