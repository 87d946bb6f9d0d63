//! One interface with its addresses and smoltcp behind it: answers ping, and pings.

use crate::{console::say, nic::Nic};
use alloc::{string::String, vec, vec::Vec};
use core::{net::IpAddr, time::Duration};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::ChecksumCapabilities,
    socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket},
    time::Instant,
    wire::{
        EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, Ipv6Address,
    },
};

/// What a word of the command line says of one interface: `vnet.if=MAC,NAME[,ADDRESS/LENGTH]...[,mtu=BYTES]`, as the
/// Linux image reads it too.
pub(crate) struct Wanted<'a> {
    pub(crate) mac: [u8; 6],
    pub(crate) name: &'a str,
    pub(crate) addresses: Vec<IpCidr>,
}

impl<'a> Wanted<'a> {
    /// Reads what stands behind `vnet.if=`; none if it is not of that form.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(',');
        let mac = words.next()?.parse::<EthernetAddress>().ok()?.0;
        let name = words.next()?;
        let words = words.filter(|word| !word.starts_with("mtu="));
        let addresses = words.map(|word| word.parse().ok()).collect::<Option<Vec<_>>>()?;
        Some(Self { mac, name, addresses })
    }
}

/// The number that our echo requests bear.
const IDENT: u16 = 0x766e;
/// The types of echo replies: ICMP's, ICMPv6's.
const ECHO_REPLIES: [u8; 2] = [0, 129];
/// How long an answer may take before the next request is sent.
const PATIENCE: Duration = Duration::from_secs(1);

/// An address that is pinged until it answers.
struct Pinging {
    to: IpAddr,
    sequence: u16,
    sent: Duration,
}

/// An interface that works.
pub(crate) struct Host {
    name: String,
    nic: Nic,
    interface: Interface,
    sockets: SocketSet<'static>,
    echo: SocketHandle,
    pinging: Option<Pinging>,
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl Host {
    /// `nic` with these addresses, and the link-local one besides (RFC 4291 §2.5.1).
    pub(crate) fn new(mut nic: Nic, name: &str, addresses: &[IpCidr], now: Duration) -> Self {
        let mac = nic.mac();
        let mut config = Config::new(EthernetAddress(mac).into());
        // Of ports and sequence numbers: guests differ by their MAC addresses, boots by their time.
        let [a, b, c, d, e, f] = mac;
        config.random_seed = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) ^ now.as_nanos() as u64;
        let mut interface = Interface::new(config, &mut nic, instant(now));
        let own = Ipv6Address::new(
            0xfe80,
            0,
            0,
            0,
            u16::from_be_bytes([a ^ 2, b]),
            u16::from_be_bytes([c, 0xff]),
            u16::from_be_bytes([0xfe, d]),
            u16::from_be_bytes([e, f]),
        );
        interface.update_ip_addrs(|list| {
            let link_local = IpCidr::new(own.into(), 64);
            for address in addresses.iter().copied().chain([link_local]) {
                if list.push(address).is_err() {
                    say!("{name}: no room for {address}");
                }
            }
        });
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 4], vec![0; 512]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.bind(Endpoint::Ident(IDENT)).expect("a new socket");
        let mut sockets = SocketSet::new(Vec::new());
        let echo = sockets.add(socket);
        Self { name: name.into(), nic, interface, sockets, echo, pinging: None }
    }

    /// Takes what came and sends what is to be sent. How long it can be left alone, if not for ever.
    pub(crate) fn work(&mut self, now: Duration) -> Option<Duration> {
        self.interface.poll(instant(now), &mut self.nic, &mut self.sockets);
        let ping = self.ping_on(now);
        if self.nic.has_frame() {
            return Some(Duration::ZERO);
        }
        let stack = self.interface.poll_delay(instant(now), &self.sockets).map(Into::into);
        stack.into_iter().chain(ping).min()
    }

    /// Whether `to` is on this link.
    pub(crate) fn reaches(&self, to: IpAddr) -> bool {
        self.interface.ip_addrs().iter().any(|own| own.contains_addr(&to.into()))
    }

    /// Pings `to` until it answers.
    pub(crate) fn ping(&mut self, to: IpAddr, now: Duration) {
        self.pinging = Some(Pinging { to, sequence: 0, sent: now });
        self.request();
    }

    /// Sends the request that is due.
    fn request(&mut self) {
        let Some(Pinging { to, sequence, .. }) = self.pinging else { return };
        let source = self.interface.get_source_address(&to.into());
        let socket = self.sockets.get_mut::<Socket<'_>>(self.echo);
        let data = b"vnet";
        let none = ChecksumCapabilities::default();
        let sent = match (IpAddress::from(to), source) {
            (IpAddress::Ipv4(_), _) => {
                let request = Icmpv4Repr::EchoRequest { ident: IDENT, seq_no: sequence, data };
                socket.send(request.buffer_len(), to.into()).map(|bytes| {
                    request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &none);
                })
            }
            (IpAddress::Ipv6(to), Some(IpAddress::Ipv6(from))) => {
                let request = Icmpv6Repr::EchoRequest { ident: IDENT, seq_no: sequence, data };
                socket.send(request.buffer_len(), to.into()).map(|bytes| {
                    request.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(bytes), &none);
                })
            }
            _ => Ok(()),
        };
        // A full buffer holds requests that wait for a neighbour; they are as good as this one.
        let _ = sent;
    }

    /// Looks whether the ping was answered, and asks again if that takes too long. When to look again.
    fn ping_on(&mut self, now: Duration) -> Option<Duration> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.echo);
        let mut answered = Vec::new();
        while let Ok((message, from)) = socket.recv() {
            // Requests of others may bear our number too.
            if message.first().is_some_and(|kind| ECHO_REPLIES.contains(kind)) {
                answered.push(IpAddr::from(from));
            }
        }
        let pinging = self.pinging.as_mut()?;
        if answered.contains(&pinging.to) {
            let Pinging { to, sequence, sent } = *pinging;
            let took = (now - sent).as_micros();
            say!(
                "{}: {to} answered after {took} us (request {sequence}), up {} us",
                self.name,
                now.as_micros()
            );
            self.pinging = None;
            return None;
        }
        if now < pinging.sent + PATIENCE {
            return Some(pinging.sent + PATIENCE - now);
        }
        pinging.sequence = pinging.sequence.wrapping_add(1);
        pinging.sent = now;
        self.request();
        Some(Duration::ZERO)
    }
}
