//! Offloads between unlike peers: whatever a sender leaves to others, a receiver gets frames as a correct network would deliver them,
//! or large ones that it said it takes. What is right is made by etherparse, frame by frame.

use crate::{
    description::{description, vlan},
    lab::{DEADLINE, Lab, access, frame, mac, receive, send, trunk},
    rig::Rig,
    tags::tagged,
};
use checksum::Sum;
use etherparse::{
    IpNumber, Ipv4Header, Ipv6Header, NetHeaders, PacketHeaders, PayloadSlice, TcpHeader, TransportHeader,
    UdpHeader,
};
use std::time::Instant;
use vhost_net_backend::{
    driver::{Config, Driver},
    features,
    layout::RingSize,
    net_header::{F_NEEDS_CSUM, NetHeader},
};
use vswitch_core::{description::Link, drop_reason::DropReason, mac::MacAddr};
use vswitchd::{control::protocol::Snapshot, worker::Turn};

/// What a driver may negotiate of either direction: bit by bit what it leaves, and what it takes.
const SENDERS: [u64; 6] = [
    0,
    features::NET_CSUM,
    features::NET_CSUM | features::NET_HOST_TSO4,
    features::NET_CSUM | features::NET_HOST_TSO6,
    features::NET_CSUM | features::NET_HOST_USO,
    features::NET_HOST_OFFLOADS,
];
const RECEIVERS: [u64; 6] = [
    0,
    features::NET_GUEST_CSUM,
    features::NET_GUEST_CSUM | features::NET_GUEST_TSO4,
    features::NET_GUEST_CSUM | features::NET_GUEST_TSO6,
    features::NET_GUEST_CSUM | features::NET_GUEST_USO4 | features::NET_GUEST_USO6,
    features::NET_GUEST_OFFLOADS,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// What one station sends another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) version: Version,
    pub(crate) protocol: Protocol,
    /// Bytes behind all headers.
    pub(crate) len: usize,
    /// Payload bytes of a segment, if it is to be cut.
    pub(crate) size: Option<u16>,
    /// The checksum is left to others.
    pub(crate) unchecked: bool,
    pub(crate) ecn: bool,
}

/// A part of a message: where it begins, its bytes, whether it is the last.
struct Part<'a> {
    number: u16,
    at: usize,
    payload: &'a [u8],
    last: bool,
}

const FROM: usize = 0;
const TO: usize = 1;

impl Message {
    fn payload(&self) -> Vec<u8> {
        frame(mac(TO), mac(FROM), 14 + self.len, self.len as u64).split_off(14)
    }

    /// One frame of the message, with all checksums.
    fn frame(&self, part: &Part<'_>, tci: Option<u16>) -> Vec<u8> {
        let payload = part.payload;
        let (source4, destination4) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (source6, destination6) = ([0xfd; 16], [0xfe; 16]);
        let (number, header_len) = match self.protocol {
            // With an option, so that its length is no constant.
            Protocol::Tcp => (IpNumber::TCP, 32),
            Protocol::Udp => (IpNumber::UDP, 8),
        };
        let len = header_len + payload.len();
        let mut ip4 = Ipv4Header::new(len as u16, 64, number, source4, destination4).expect("it fits");
        ip4.identification = 0xfffe_u16.wrapping_add(part.number);
        ip4.header_checksum = ip4.calc_header_checksum();
        let ip6 = Ipv6Header {
            payload_length: len as u16,
            next_header: number,
            hop_limit: 64,
            source: source6,
            destination: destination6,
            ..Ipv6Header::default()
        };
        let mut bytes = [mac(TO).octets(), mac(FROM).octets()].concat();
        match self.version {
            Version::V4 => {
                bytes.extend([8, 0]);
                ip4.write(&mut bytes).expect("memory");
            }
            Version::V6 => {
                bytes.extend([0x86, 0xdd]);
                ip6.write(&mut bytes).expect("memory");
            }
        }
        match self.protocol {
            Protocol::Tcp => {
                let sequence = 0xffff_f000_u32.wrapping_add(part.at as u32);
                let mut tcp = TcpHeader::new(4000, 5000, sequence, 1000);
                tcp.set_options_raw(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]).expect("12 bytes of options");
                (tcp.ack, tcp.acknowledgment_number) = (true, 77);
                (tcp.psh, tcp.fin) = (part.last, part.last);
                tcp.cwr = self.ecn && part.number == 0;
                tcp.checksum = match self.version {
                    Version::V4 => tcp.calc_checksum_ipv4(&ip4, payload),
                    Version::V6 => tcp.calc_checksum_ipv6(&ip6, payload),
                }
                .expect("it fits");
                tcp.write(&mut bytes).expect("memory");
            }
            Protocol::Udp => {
                let udp = match self.version {
                    Version::V4 => UdpHeader::with_ipv4_checksum(4000, 5000, &ip4, payload),
                    Version::V6 => UdpHeader::with_ipv6_checksum(4000, 5000, &ip6, payload),
                };
                udp.expect("it fits").write(&mut bytes).expect("memory");
            }
        }
        bytes.extend(payload);
        tagged(bytes, tci)
    }

    /// All of it in one frame.
    fn whole(&self, tci: Option<u16>) -> Vec<u8> {
        let payload = self.payload();
        self.frame(&Part { number: 0, at: 0, payload: &payload, last: true }, tci)
    }

    /// The frames that it makes on a wire.
    fn frames(&self, tci: Option<u16>) -> Vec<Vec<u8>> {
        let payload = self.payload();
        let size = self.size.map_or(usize::MAX, usize::from);
        let mut frames = Vec::new();
        let mut at = 0usize;
        loop {
            let end = payload.len().min(at.saturating_add(size));
            let last = end == payload.len();
            frames.push(
                self.frame(&Part { number: frames.len() as u16, at, payload: &payload[at..end], last }, tci),
            );
            if last {
                return frames;
            }
            at = end;
        }
    }

    /// Where the transport header begins, the checksum in it, and its length.
    pub(crate) fn places(&self, tagged: bool) -> (usize, usize, usize) {
        let network = if tagged { 18 } else { 14 };
        let transport = network + if self.version == Version::V4 { 20 } else { 40 };
        match self.protocol {
            Protocol::Tcp => (transport, 16, 32),
            Protocol::Udp => (transport, 6, 8),
        }
    }

    /// The net header that asks for what is left to others.
    fn header(&self, tagged: bool) -> NetHeader {
        let plain = NetHeader::plain(0);
        if !self.unchecked {
            return plain;
        }
        let (start, offset, len) = self.places(tagged);
        let gso_type = match (self.protocol, self.version) {
            _ if self.size.is_none() => 0,
            (Protocol::Tcp, Version::V4) => 1,
            (Protocol::Tcp, Version::V6) => 4,
            (Protocol::Udp, _) => 5,
        };
        NetHeader {
            flags: F_NEEDS_CSUM,
            gso_type: gso_type | if self.ecn { 0x80 } else { 0 },
            gso_size: self.size.unwrap_or(0),
            // A lie: nobody is to believe it.
            hdr_len: if self.size.is_some() { (start + len) as u16 + 7 } else { 0 },
            csum_start: start as u16,
            csum_offset: offset as u16,
            ..plain
        }
    }

    /// What the sender hands over: as a driver does, with the sum of the pseudo-header where the checksum is to come.
    pub(crate) fn sent(&self, tci: Option<u16>) -> (NetHeader, Vec<u8>) {
        let mut bytes = self.whole(tci);
        if self.unchecked {
            let (start, offset, _) = self.places(tci.is_some());
            let protocol = if self.protocol == Protocol::Tcp { 6 } else { 17 };
            let addresses = if self.version == Version::V4 { start - 8..start } else { start - 32..start };
            let len = (bytes.len() - start) as u16;
            let sum = Sum::ZERO.add_bytes(&bytes[addresses]).add_word(protocol).add_word(len);
            bytes[start + offset..start + offset + 2].copy_from_slice(&sum.fold().to_ne_bytes());
        }
        (self.header(tci.is_some()), bytes)
    }

    fn may_be_sent(&self, negotiated: u64) -> bool {
        let needs = match (self.unchecked, self.size, self.protocol, self.version) {
            (false, ..) => 0,
            (true, None, ..) => features::NET_CSUM,
            (true, Some(_), Protocol::Tcp, Version::V4) => features::NET_CSUM | features::NET_HOST_TSO4,
            (true, Some(_), Protocol::Tcp, Version::V6) => features::NET_CSUM | features::NET_HOST_TSO6,
            (true, Some(_), Protocol::Udp, _) => features::NET_CSUM | features::NET_HOST_USO,
        };
        let ecn = if self.ecn { features::NET_HOST_ECN } else { 0 };
        negotiated & (needs | ecn) == needs | ecn
    }

    /// Whether a receiver takes it large.
    fn is_taken(&self, negotiated: u64) -> bool {
        let needs = match (self.protocol, self.version) {
            (Protocol::Tcp, Version::V4) => features::NET_GUEST_TSO4,
            (Protocol::Tcp, Version::V6) => features::NET_GUEST_TSO6,
            (Protocol::Udp, Version::V4) => features::NET_GUEST_USO4,
            (Protocol::Udp, Version::V6) => features::NET_GUEST_USO6,
        };
        let ecn = if self.ecn { features::NET_GUEST_ECN } else { 0 };
        negotiated & (needs | ecn) == needs | ecn
    }
}

/// What a correct receiver makes of what it got: the checksum that was left to it is completed.
pub(crate) fn finished(header: &NetHeader, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if header.flags & F_NEEDS_CSUM != 0 {
        let (start, offset) = (usize::from(header.csum_start), usize::from(header.csum_offset));
        let checksum = match Sum::ZERO.add_bytes(&frame[start..]).checksum() {
            [0, 0] => [0xff, 0xff],
            other => other,
        };
        frame[start + offset..start + offset + 2].copy_from_slice(&checksum);
    }
    frame
}

fn messages() -> Vec<Message> {
    let mut all = Vec::new();
    for version in [Version::V4, Version::V6] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let plain = Message { version, protocol, len: 0, size: None, unchecked: false, ecn: false };
            for len in [0, 1, 6, 100, 127, 128, 1400, 1401, 9000, 65_400] {
                all.push(Message { len, ..plain });
                all.push(Message { len, unchecked: true, ..plain });
            }
            // Beside each boundary of the segments, of the head that is copied, and the longest.
            for (len, size) in [
                (101, 100),
                (200, 100),
                (201, 100),
                (2800, 1400),
                (2801, 1400),
                (9001, 1401),
                (65_400, 1448),
                (8000, 64),
            ] {
                all.push(Message { len, size: Some(size), unchecked: true, ..plain });
                // One segment already.
                all.push(Message { len: size.into(), size: Some(size), unchecked: true, ..plain });
            }
            if protocol == Protocol::Tcp {
                all.push(Message { len: 5000, size: Some(1000), unchecked: true, ecn: true, ..plain });
            }
        }
    }
    all
}

/// A port, and the tag of its frames.
type End = (fn() -> Link, Option<u16>);

const UNTAGGED: End = (|| access(10), None);
const TAGGED: End = (|| trunk(None), Some(10));

/// Which tag a frame has when it is sent, and when it arrives, between which ports.
const WAYS: [(End, End); 4] =
    [(UNTAGGED, UNTAGGED), (TAGGED, UNTAGGED), (UNTAGGED, TAGGED), (TAGGED, TAGGED)];

/// Two ports, the second of which has been heard.
fn two(way: usize, sending: &Config, receiving: &Config) -> (Lab, Driver, Driver) {
    let ((from, _), (to, leaves)) = WAYS[way];
    let lab = Lab::new(&[from(), to()]);
    let (mut sender, mut receiver) = (lab.attach(FROM, sending), lab.attach(TO, receiving));
    send(&mut receiver, &tagged(frame(MacAddr::BROADCAST, mac(TO), 60, 0), leaves));
    assert_eq!(receive(&mut sender, 1).len(), 1);
    (lab, sender, receiver)
}

pub(crate) fn transmit(sender: &mut Driver, header: &NetHeader, bytes: &[u8]) {
    let end = Instant::now() + DEADLINE;
    while !sender.pair().transmit_with(&header.to_bytes(), bytes) {
        sender.pair().flush();
        assert!(Instant::now() < end, "the switch completes nothing: {:?}", sender.pair().fault());
        std::thread::yield_now();
    }
    sender.pair().flush();
}

pub(crate) fn receive_with_headers(receiver: &mut Driver, count: usize) -> Vec<(NetHeader, Vec<u8>)> {
    let end = Instant::now() + DEADLINE;
    let mut frames = Vec::new();
    while frames.len() < count && Instant::now() < end {
        receiver.pair().receive(|header, bytes| frames.push((*header, bytes.to_vec())));
        std::thread::yield_now();
    }
    frames
}

/// Sends every message that this sender may send to this receiver; returns how many, and how many it may not.
fn exchange(way: usize, sending: u64, receiving: u64, mergeable: bool) -> (usize, usize) {
    let ((_, enters), (_, leaves)) = WAYS[way];
    let sender = Config { features: Config::default().features | sending, ..Config::default() };
    let basis = Config::default().features & !features::NET_MRG_RXBUF;
    let (merged, buffer_size) = if mergeable { (features::NET_MRG_RXBUF, 1526) } else { (0, 65_562) };
    let receiver = Config { features: basis | merged | receiving, buffer_size, ..Config::default() };
    let (lab, mut sender, mut receiver) = two(way, &sender, &receiver);
    let (mut fair, mut unfair) = (0, 0);
    for message in messages() {
        let (header, bytes) = message.sent(enters);
        transmit(&mut sender, &header, &bytes);
        if !message.may_be_sent(sending) {
            unfair += 1;
            continue;
        }
        fair += 1;
        let is_large = message.size.is_none() || message.is_taken(receiving);
        let expected = if is_large { vec![message.whole(leaves)] } else { message.frames(leaves) };
        let arrived = receive_with_headers(&mut receiver, expected.len());
        assert_eq!(arrived.len(), expected.len(), "{message:?}");
        let segments = message.frames(leaves).len();
        for (number, ((header, bytes), expected)) in arrived.iter().zip(&expected).enumerate() {
            let finished = finished(header, bytes);
            let differs = finished.iter().zip(expected).position(|(a, b)| a != b);
            assert!(
                differs.is_none() && finished.len() == expected.len(),
                "{message:?} to {receiving:#x}: frame {number} of {} bytes, not {}, differs at {differs:?}",
                finished.len(),
                expected.len()
            );
            // Ours, and as little as it takes: what a receiver did not negotiate is asked of nobody.
            let plain = NetHeader::plain(header.num_buffers);
            let asks = message.header(leaves.is_some());
            let (start, _, len) = message.places(leaves.is_some());
            let right = if receiving & features::NET_GUEST_CSUM == 0 || !message.unchecked {
                plain
            } else if message.size.is_some() && is_large && segments > 1 {
                NetHeader { hdr_len: (start + len) as u16, num_buffers: header.num_buffers, ..asks }
            } else {
                NetHeader { gso_type: 0, gso_size: 0, hdr_len: 0, num_buffers: header.num_buffers, ..asks }
            };
            assert_eq!(*header, right, "{message:?} to {receiving:#x}");
        }
    }
    let end = lab.wait(|snapshot| snapshot.ports[FROM].counters.from_port.frames == (fair + unfair) as u64);
    let dropped = &end.ports[FROM].counters.from_port.dropped;
    assert_eq!(dropped.get(&DropReason::BadNetHeader).copied().unwrap_or(0), unfair as u64, "{dropped:?}");
    assert_eq!(end.ports[TO].counters.to_port.delivered, fair as u64);
    assert_eq!(end.workers[0].panics, 0);
    assert_eq!((sender.pair().fault(), receiver.pair().fault()), (None, None));
    lab.lawful();
    (fair, unfair)
}

#[test]
fn every_pair_of_offloads_gets_what_a_correct_network_would_deliver() {
    let (mut pairs, mut fair, mut unfair) = (0, 0, 0);
    for way in 0..WAYS.len() {
        for sending in SENDERS {
            for receiving in RECEIVERS {
                for mergeable in [false, true] {
                    let done = exchange(way, sending, receiving, mergeable);
                    (pairs, fair, unfair) = (pairs + 1, fair + done.0, unfair + done.1);
                }
            }
        }
    }
    println!("{pairs} pairs of ports, {fair} messages delivered, {unfair} refused");
}

/// Whether a frame's lengths and checksums are right, as etherparse reads it.
pub(crate) fn is_right(frame: &[u8]) -> bool {
    let Ok(headers) = PacketHeaders::from_ethernet_slice(frame) else { return false };
    let (PayloadSlice::Tcp(payload) | PayloadSlice::Udp(payload)) = headers.payload else { return false };
    match (headers.net, headers.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            ip.header_checksum == ip.calc_header_checksum()
                && tcp.calc_checksum_ipv4(&ip, payload) == Ok(tcp.checksum)
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Tcp(tcp))) => {
            tcp.calc_checksum_ipv6(&ip, payload) == Ok(tcp.checksum)
        }
        (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) => {
            ip.header_checksum == ip.calc_header_checksum()
                && udp.calc_checksum_ipv4(&ip, payload) == Ok(udp.checksum)
        }
        (Some(NetHeaders::Ipv6(ip, _)), Some(TransportHeader::Udp(udp))) => {
            udp.calc_checksum_ipv6(&ip, payload) == Ok(udp.checksum)
        }
        _ => false,
    }
}

/// All values of a field beside its boundaries.
fn around(places: &[usize]) -> Vec<u16> {
    let beside = |place: &usize| [place.wrapping_sub(1), *place, place + 1];
    let mut all: Vec<_> = places.iter().flat_map(beside).map(|value| value as u16).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn whatever_a_net_header_says_no_wrong_frame_leaves_and_the_neighbour_hears_all() {
    let config = Config {
        features: Config::default().features | features::NET_HOST_OFFLOADS,
        ring_size: RingSize::new(1024).expect("a power of two"),
        ..Config::default()
    };
    let lab = Lab::new(&[access(10), access(10), access(10)]);
    let [mut hostile, mut victim, mut honest] = [0, 1, 2].map(|place| lab.attach(place, &config));
    send(&mut victim, &frame(MacAddr::BROADCAST, mac(TO), 60, 0));
    assert_eq!((receive(&mut hostile, 1).len(), receive(&mut honest, 1).len()), (1, 1));
    let (mut sent, mut arrived, mut heard, mut said) = (0u64, 0u64, 0u64, 0u64);
    let greeting = frame(mac(TO), mac(2), 60, 9);
    let mut hear = |victim: &mut Driver| {
        victim.pair().receive(|header, bytes| {
            assert_eq!(*header, NetHeader::plain(header.num_buffers));
            if bytes[6..12] == mac(2).octets() {
                assert_eq!(bytes, greeting);
                heard += 1;
            } else {
                assert!(is_right(bytes), "{bytes:x?}");
                arrived += 1;
            }
        });
        heard
    };
    for (version, protocol, len) in [
        (Version::V4, Protocol::Tcp, 3000),
        (Version::V6, Protocol::Tcp, 3000),
        (Version::V4, Protocol::Udp, 3000),
        (Version::V6, Protocol::Udp, 90),
    ] {
        let message = Message { version, protocol, len, size: None, unchecked: true, ecn: false };
        let (_, bytes) = message.sent(None);
        let (start, offset, headers) = message.places(false);
        // TCP has no tunnels in it; what a UDP datagram carries may be one, whose checksum is not the outer one's.
        let inside = [0, 14, start, start + headers, 190, bytes.len(), u16::MAX.into()];
        let inside =
            inside.into_iter().filter(|at| protocol == Protocol::Tcp || *at < start + 7 || *at > 190);
        for csum_start in around(&inside.collect::<Vec<_>>()) {
            for csum_offset in around(&[0, offset, 192 - start, u16::MAX.into()]) {
                for gso_type in [0, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0x84, 0x85, 0xff] {
                    for gso_size in [0, 1, 100, 1000, len as u16, u16::MAX] {
                        for flags in [0, F_NEEDS_CSUM, 0xff] {
                            let right = flags & F_NEEDS_CSUM != 0 || gso_type != 0;
                            if !right {
                                // It asks for nothing, and its own checksum is not there.
                                continue;
                            }
                            let hdr_len = [0, 1, 54, u16::MAX][usize::from(csum_start ^ gso_size) % 4];
                            let header = NetHeader {
                                flags,
                                gso_type,
                                hdr_len,
                                gso_size,
                                csum_start,
                                csum_offset,
                                num_buffers: 3,
                            };
                            transmit(&mut hostile, &header, &bytes);
                            sent += 1;
                        }
                    }
                }
                transmit(&mut honest, &NetHeader::plain(0), &greeting);
                said += 1;
                let end = Instant::now() + DEADLINE;
                while hear(&mut victim) < said {
                    assert!(Instant::now() < end, "the neighbour's frame {said} is lost");
                    std::thread::yield_now();
                }
            }
        }
    }
    let taken = |snapshot: &Snapshot| {
        let to = &snapshot.ports[1].counters.to_port;
        snapshot.ports[0].counters.from_port.frames == sent
            && to.delivered + to.dropped.values().sum::<u64>() > 0
    };
    let end = lab.wait(taken);
    hear(&mut victim);
    assert_eq!(end.workers[0].panics, 0);
    assert_eq!((hostile.pair().fault(), victim.pair().fault()), (None, None));
    let refused = end.ports[0].counters.from_port.dropped.get(&DropReason::BadNetHeader).copied();
    println!("{sent} sent, {refused:?} refused, {arrived} frames arrived, {said} greetings");
    assert!(arrived > 0 && refused.is_some_and(|refused| refused < sent));
    lab.lawful();
}

/// The frames that the first turn takes of 32 large ones, which wait in a ring of a guest that leaves so much to others.
fn taken_at_once(message: Message, receiving: u64) -> usize {
    let features = Config::default().features | features::NET_HOST_OFFLOADS | receiving;
    let config =
        Config { features, ring_size: RingSize::new(4096).expect("a power of two"), ..Config::default() };
    let mut rig = Rig::new(&description(&[access(10), access(10)]), &config);
    (0..).zip([FROM, TO]).for_each(|(place, station)| rig.teach(place, vlan(10), mac(station)));
    let (header, bytes) = message.sent(None);
    let pair = &mut rig.guests[FROM].pair;
    (0..32).for_each(|_| assert!(pair.transmit_with(&header.to_bytes(), &bytes)));
    pair.flush();
    let Turn::Busy(frames) = rig.turn() else { panic!("there are frames") };
    frames
}

#[test]
fn a_turn_takes_no_more_of_large_frames_than_of_others() {
    let large = Message {
        version: Version::V4,
        protocol: Protocol::Tcp,
        len: 65_000,
        size: Some(1448),
        unchecked: true,
        ecn: false,
    };
    // A mebibyte of copies: 45 segments count 2 KiB each, whether they are made here or by their receiver; a datagram counts its bytes.
    for (message, receiving, frames) in [
        (large, 0, 12),
        (large, features::NET_GUEST_OFFLOADS, 12),
        (Message { size: Some(508), ..large }, 0, 4),
        (Message { size: None, ..large }, 0, 17),
    ] {
        assert_eq!(taken_at_once(message, receiving), frames, "{message:?}");
    }
}
