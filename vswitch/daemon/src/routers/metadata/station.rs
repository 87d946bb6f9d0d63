//! The connections of one who asks.

use super::{CHECKSUM_AT, PATIENCE, PORT, http};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    time,
    wire::{HardwareAddress, IpCidr},
};
use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    net::Ipv4Addr,
    time::Duration,
};
use vswitch_core::{clock::Instant, route::METADATA};

/// Connections that a station has at a time: clients fetch one file after the other.
const CONNECTIONS: usize = 4;

/// Bytes that wait in a connection to be read, and to be acknowledged.
const HEARD: usize = 1024;
const SAID: usize = 2048;

/// Bytes of a packet: who takes less says so (RFC 9293 §3.7.1).
const MTU: usize = 1500;

/// What is due is done, at most, so often.
const TICK: Duration = Duration::from_millis(1);

/// Bytes of an IPv4 header without options: smoltcp writes no others.
const IP_LEN: usize = 20;

/// IP, for all stations: it holds nothing of theirs.
pub(super) struct Stack(Interface);

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stack")
    }
}

impl Stack {
    pub(super) fn new(now: Instant) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = RandomState::new().build_hasher().finish();
        let mut interface = Interface::new(config, &mut Wire::default(), moment(now));
        // Neither list has anything yet, so that there is room.
        interface.update_ip_addrs(|own| {
            let _ = own.push(IpCidr::new(METADATA.into(), 32));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(METADATA);
        Self(interface)
    }
}

fn moment(now: Instant) -> time::Instant {
    // For 292,000 years.
    time::Instant::from_micros((now.as_nanos() / 1000) as i64)
}

/// Packets that were heard and are to be said.
#[derive(Debug, Default)]
pub(in crate::routers) struct Wire {
    pub(in crate::routers) heard: VecDeque<Vec<u8>>,
    pub(in crate::routers) said: Vec<Vec<u8>>,
}

pub(in crate::routers) struct Heard(Vec<u8>);

impl RxToken for Heard {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(in crate::routers) struct Say<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Say<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Heard;
    type TxToken<'a> = Say<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Heard, Say<'_>)> {
        let packet = self.heard.pop_front()?;
        Some((Heard(packet), Say(&mut self.said)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Say<'_>> {
        Some(Say(&mut self.said))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// One who asks.
#[derive(Debug)]
pub(super) struct Station {
    wire: Wire,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    due: Instant,
}

#[derive(Debug)]
struct Connection {
    handle: SocketHandle,
    /// When it was first seen open.
    since: Option<Instant>,
    request: Vec<u8>,
    /// And how much of it was taken by the socket.
    response: Option<(Vec<u8>, usize)>,
}

impl Connection {
    fn open(sockets: &mut SocketSet<'static>) -> Self {
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(HEARD), buffer(SAID));
        // That a client ended is acknowledged before its socket is another's.
        socket.set_ack_delay(None);
        // A socket that is new can listen, and a port is one.
        let _ = socket.listen((METADATA, PORT));
        Self { handle: sockets.add(socket), since: None, request: Vec::new(), response: None }
    }

    /// Reads and answers as far as it can.
    fn go_on(&mut self, socket: &mut Socket<'_>, tell: impl FnOnce(&str) -> Option<String>, now: Instant) {
        if socket.state() == State::Listen {
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= PATIENCE {
            socket.abort();
            return;
        }
        while socket.can_recv() {
            // It can.
            let _ = socket.recv(|bytes| {
                let room = http::REQUEST - self.request.len();
                self.request.extend(&bytes[..bytes.len().min(room)]);
                // What is more is not looked at.
                (bytes.len(), ())
            });
        }
        if self.response.is_none() {
            self.response = http::answer(&self.request, tell).map(|response| (response, 0));
        }
        match &mut self.response {
            Some((response, sent)) if *sent < response.len() => {
                *sent += socket.send_slice(&response[*sent..]).unwrap_or(0);
                if *sent == response.len() {
                    socket.close();
                }
            }
            // It will say no more.
            None if socket.state() == State::CloseWait => socket.close(),
            Some(_) | None => {}
        }
    }
}

impl Station {
    pub(super) fn new() -> Self {
        let mut sockets = SocketSet::new(Vec::new());
        let connections = (0..CONNECTIONS).map(|_| Connection::open(&mut sockets)).collect();
        Self { wire: Wire::default(), sockets, connections, due: Instant::ZERO }
    }

    /// Hears a packet; [`Self::go_on`] looks at it.
    pub(super) fn hear(&mut self, packet: &[u8]) {
        self.wire.heard.push_back(packet.to_vec());
    }

    /// Does what is to be done: TCP segments, and to whom.
    pub(super) fn go_on(
        &mut self,
        Stack(interface): &mut Stack,
        tell: impl Fn(&str) -> Option<String>,
        now: Instant,
    ) -> Vec<(Ipv4Addr, Vec<u8>)> {
        let at = moment(now);
        let Self { wire, sockets, connections, due } = self;
        interface.poll(at, wire, sockets);
        for connection in connections.iter_mut() {
            connection.go_on(sockets.get_mut(connection.handle), &tell, now);
        }
        interface.poll(at, wire, sockets);
        for connection in connections.iter_mut() {
            // What is said late of an old connection is refused; that nobody waits for it is known (RFC 9293 §3.6.1 would wait for minutes). One that
            // was reset before it was open listens again.
            let state = sockets.get::<Socket<'_>>(connection.handle).state();
            if connection.since.is_some() && matches!(state, State::Closed | State::TimeWait | State::Listen)
            {
                sockets.remove(connection.handle);
                *connection = Connection::open(sockets);
            }
        }
        let ends = connections.iter().filter_map(|connection| Some(connection.since? + PATIENCE)).min();
        let said_again = interface.poll_at(at, sockets);
        let said_again = said_again.map(|due| Instant::from_nanos(due.total_micros() as u64 * 1000));
        // Whatever smoltcp says is due at once, the thread sleeps.
        *due = ends.into_iter().chain(said_again).min().unwrap_or(now).max(now + TICK);
        std::mem::take(&mut wire.said).iter().filter_map(|packet| segment(packet)).collect()
    }

    /// Whether it has no connection.
    pub(super) fn is_done(&self) -> bool {
        self.connections.iter().all(|connection| connection.since.is_none())
    }

    /// When it is to [go on](Self::go_on).
    pub(super) const fn due(&self) -> Instant {
        self.due
    }
}

/// The segment in a packet, and where it goes, without its checksum.
fn segment(packet: &[u8]) -> Option<(Ipv4Addr, Vec<u8>)> {
    let to: [u8; 4] = *packet.get(16..)?.first_chunk()?;
    let mut segment = packet.get(IP_LEN..)?.to_vec();
    segment.get_mut(CHECKSUM_AT..CHECKSUM_AT + 2)?.fill(0);
    Some((to.into(), segment))
}
