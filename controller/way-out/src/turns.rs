//! The thread's loop: who has something to do gets a turn; then it sleeps.

use crate::{
    Error, Resolver, Spec,
    connections::{Connections, With},
    flows::Flows,
    heard::{Heard, Packet, heard},
    host::{self, Watch},
    out::{ETHERNET, Out},
    reach::Reach,
};
use rustix::{
    io::{Errno, ioctl_fionbio, read},
    rand::{GetRandomFlags, getrandom},
};
use smoltcp::{
    time::Instant,
    wire::{EthernetAddress, IpProtocol},
};
use std::{io, net::IpAddr, os::fd::OwnedFd};
use vswitchd::ports::framing::Deframer;

/// Frames that are taken at once.
const BATCH: usize = 256;

/// The word that the stream is watched under; no connection or flow has it.
const STREAM: u64 = 0;

/// All that the thread serves.
pub(crate) struct Turns {
    stream: OwnedFd,
    said: Deframer,
    /// The stream may have something to read.
    readable: bool,
    /// Nobody is at its other end.
    ended: bool,
    out: Out,
    watch: Watch,
    served: Served,
    start: std::time::Instant,
}

/// Who speaks with whom.
struct Served {
    own: EthernetAddress,
    /// The longest frame.
    longest: usize,
    reach: Reach,
    connections: Connections,
    flows: Flows,
    /// The number of the latest connection or flow; of the former the words are odd.
    latest: u64,
}

impl Turns {
    pub(crate) fn new(stream: OwnedFd, spec: &Spec, resolver: Resolver) -> Result<Self, Error> {
        host::allow_many();
        ioctl_fionbio(&stream, true).map_err(io::Error::from)?;
        let watch = Watch::new()?;
        watch.add(&stream, STREAM).map_err(io::Error::from)?;
        let mut seed = [0; 8];
        getrandom(&mut seed, GetRandomFlags::empty()).map_err(io::Error::from)?;
        let own = EthernetAddress(spec.mac.octets());
        let mut out = Out::new(own);
        let connections = Connections::new(spec.mtu, u64::from_ne_bytes(seed), &mut out, Instant::ZERO);
        let served = Served {
            own,
            longest: ETHERNET + usize::from(spec.mtu),
            reach: Reach::new(spec.addresses.clone(), resolver),
            connections,
            flows: Flows::new(),
            latest: 0,
        };
        let (said, start) = (Deframer::default(), std::time::Instant::now());
        Ok(Self { stream, said, readable: true, ended: false, out, watch, served, start })
    }

    pub(crate) fn run(mut self) -> Result<(), Error> {
        loop {
            let more = self.hear()?;
            if self.ended {
                return Ok(());
            }
            let now = self.now();
            let Self { served, out, watch, .. } = &mut self;
            let with = &mut With { reach: &served.reach, watch, out, now };
            served.connections.tick(now);
            served.flows.tick(now);
            served.connections.serve(with);
            served.flows.serve(with);
            match self.out.write(&self.stream) {
                Ok(_) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(why) => return Err(io::Error::from(why).into()),
            }
            self.sleep(more)?;
        }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Takes frames, as long as there is room for answers; whether there may be more.
    fn hear(&mut self) -> Result<bool, Error> {
        let now = self.now();
        for _ in 0..BATCH {
            if !self.out.has_room() {
                return Ok(true);
            }
            let Self { served, out, watch, said, .. } = self;
            if let Some(frame) = said.next_frame()? {
                served.frame(frame, watch, out, now);
                said.consume();
                continue;
            }
            if !self.readable {
                return Ok(false);
            }
            match read(&self.stream, self.said.room()) {
                Ok(0) | Err(Errno::CONNRESET) => {
                    self.ended = true;
                    return Ok(false);
                }
                Ok(got) => self.said.filled(got),
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(why) => return Err(io::Error::from(why).into()),
            }
        }
        Ok(true)
    }

    /// Until a socket is ready or somebody is due; `more` is to be heard.
    fn sleep(&mut self, more: bool) -> Result<(), Error> {
        let now = self.now();
        let Served { connections, flows, .. } = &self.served;
        let at_once = more || connections.has_turns() || flows.has_turns();
        let due = [connections.due(), flows.due()].into_iter().flatten().min();
        let timeout = match self.out.has_room() {
            // Nobody has a turn before the switch reads.
            false => None,
            true if at_once => Some(std::time::Duration::ZERO),
            true => due.map(|due| std::time::Duration::from_micros((due.max(now) - now).total_micros())),
        };
        for ready in self.watch.wait(timeout)? {
            match ready.word {
                STREAM => self.readable |= ready.read,
                word if word % 2 == 1 => self.served.connections.ready(word, ready.read, ready.write),
                word => self.served.flows.ready(word, ready.read),
            }
        }
        Ok(())
    }
}

impl Served {
    /// One frame of the lab's.
    fn frame(&mut self, frame: &[u8], watch: &Watch, out: &mut Out, now: Instant) {
        // What is longer than the link allows is for nobody here.
        if frame.len() > self.longest {
            return;
        }
        match heard(frame, self.own) {
            Some(Heard::WhoHas { from, asker, target }) if self.reach.is_own(IpAddr::V4(target)) => {
                out.arp_reply(from, target, asker);
            }
            Some(Heard::Solicited { from, asker, target }) if self.reach.is_own(IpAddr::V6(target)) => {
                out.advertisement(from, target, asker);
            }
            Some(Heard::Packet(packet)) => self.packet(&packet, watch, out, now),
            _ => {}
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, watch: &Watch, out: &mut Out, now: Instant) {
        let with = &mut With { reach: &self.reach, watch, out, now };
        self.latest += 1;
        let word = 2 * self.latest;
        match packet.ip.next_header() {
            IpProtocol::Tcp => self.connections.segment(packet, word + 1, with),
            IpProtocol::Udp => self.flows.udp(packet, word, with),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.flows.echo(packet, word, with),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        reach::Way,
        tests::{OWN, datagram, echo_request, ip, refill, segment},
    };
    use ipnet::IpNet;
    use proptest::{prelude::*, sample::Index};
    use smoltcp::wire::TcpControl;
    use std::net::SocketAddr;

    /// Bytes of a guest: a frame of some kind, with some of them changed, cut, or followed by others.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let dst = || SocketAddr::new(ip(OWN[0]), 53);
        let dst6 = || SocketAddr::new(ip(OWN[1]), 80);
        let right = prop_oneof![
            Just(segment(1, dst(), TcpControl::Syn)),
            Just(segment(1, dst6(), TcpControl::Rst)),
            Just(datagram(1, dst(), b"data")),
            Just(datagram(1, dst6(), b"data")),
            Just(echo_request(ip(OWN[0]), b"data")),
            Just(echo_request(ip(OWN[1]), b"data")),
            proptest::collection::vec(any::<u8>(), 0..200),
        ];
        let changes = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6);
        (right, changes, any::<Index>(), proptest::collection::vec(any::<u8>(), 0..40), any::<bool>())
            .prop_map(|(mut bytes, changes, len, more, right)| {
                for (at, byte) in changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                if right && bytes.len() >= ETHERNET + 20 {
                    refill(&mut bytes);
                }
                bytes.truncate(len.index(bytes.len() + 1).max(bytes.len() / 2));
                bytes.extend(more);
                bytes
            })
    }

    proptest! {
        #[test]
        fn whatever_a_guest_sends_it_goes_on_and_answers_within_bounds(frames in proptest::collection::vec(hostile(), 1..40)) {
            let mac = EthernetAddress([2, 0, 0, 0, 0, 1]);
            let mut out = Out::new(mac);
            let own = OWN.map(|own| IpNet::from(ip(own)));
            // Port 53 leads to nobody, on this machine's loopback.
            let resolver = || Some(SocketAddr::new(ip("127.0.0.1"), 1));
            let mut served = Served {
                own: mac,
                longest: ETHERNET + 1500,
                reach: Reach::new(own.into(), Box::new(resolver)),
                connections: Connections::new(1500, 7, &mut out, Instant::ZERO),
                flows: Flows::new(),
                latest: 0,
            };
            let mut watch = Watch::new().expect("it may");
            let mut said = Vec::new();
            for (at, frame) in frames.iter().enumerate() {
                let now = Instant::from_millis(at as i64);
                // A test asks nobody outside.
                let leads_out = |packet: &Packet<'_>| matches!(served.reach.host(packet.dst()), Way::To(_));
                if !matches!(heard(frame, mac), Some(Heard::Packet(packet)) if leads_out(&packet)) {
                    served.frame(frame, &watch, &mut out, now);
                }
                for ready in watch.wait(Some(std::time::Duration::ZERO)).expect("it waits") {
                    served.connections.ready(ready.word, ready.read, ready.write);
                    served.flows.ready(ready.word, ready.read);
                }
                let with = &mut With { reach: &served.reach, watch: &watch, out: &mut out, now };
                served.connections.serve(with);
                served.flows.serve(with);
                said.push(out.waiting());
            }
            // A frame is answered by one, that is not much longer.
            let longest = frames.iter().map(Vec::len).max().unwrap_or(0);
            prop_assert!(said.last().is_none_or(|said| *said <= frames.len() * (2 * longest + 200)));
        }
    }
}
