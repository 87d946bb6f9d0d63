//! Random frames that look like frames: built from meanings, wrapped in odd headers, then mutated.

use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    mac::MacAddr,
    vlan::Tci,
};

/// A small deterministic generator (xorshift64*): the same seed tells the same story everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// The generator with this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 if there is none.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// One frame: half of them sound, a quarter with a few bytes changed, a quarter cut off somewhere.
pub(crate) fn random_frame(random: &mut Random) -> Vec<u8> {
    let mut frame = sound_frame(random);
    if random.below(4) == 0 {
        let at = random.pick(&[12, 12, 16]).min(frame.len());
        for _ in 0..=random.below(3) {
            let tpid: [u8; 2] = random.pick(&[[0x81, 0], [0x88, 0xa8]]);
            let tci = random.next() as u16;
            frame.splice(at..at, [tpid[0], tpid[1], (tci >> 8) as u8, tci as u8]);
        }
    }
    match random.below(4) {
        0 => {
            for _ in 0..=random.below(4) {
                let at = random.below(frame.len().min(80));
                let any = random.next() as u8;
                if let Some(byte) = frame.get_mut(at) {
                    *byte = random.pick(&[0, 1, 4, 6, 13, 17, 43, 44, 51, 58, 60, 0xff, any]);
                }
            }
        }
        1 => frame.truncate(random.below(frame.len() + 1)),
        _ => {}
    }
    frame
}

fn sound_frame(random: &mut Random) -> Vec<u8> {
    let link = Ethernet {
        src: MacAddr::from_u64(0x0200_0000_0000 | random.next() & 0xffff),
        dst: random.pick(&[MacAddr::BROADCAST, MacAddr::new([2, 0, 0, 0, 0, 9])]),
        tag: (random.below(3) == 0).then(|| Tci::from_bits(random.next() as u16)),
    };
    let v4 = (Ipv4Addr::from(random.next() as u32), Ipv4Addr::from(random.next() as u32));
    let v6 = (
        Ipv6Addr::from(u128::from(random.next()) << 64 | 1),
        Ipv6Addr::from(u128::from(random.next()) << 64 | 2),
    );
    let addresses = if random.below(2) == 0 { Addresses::V4(v4.0, v4.1) } else { Addresses::V6(v6.0, v6.1) };
    let ports = (random.next() as u16, random.next() as u16);
    let len = random.pick(&[0, 8, 12, 40, 200, 1400]);
    let data = random.bytes(len);
    match random.below(10) {
        0 => build::arp_request(link, v4.0, v4.1),
        1 => build::arp_reply(link, v4.0, v4.1),
        2 => {
            build::echo(link, addresses, random.pick(&[Echo::Request, Echo::Reply]), ports.0, ports.1, &data)
        }
        3 => build::neighbour_solicitation(link, v6.0, v6.1),
        4 => build::tcp_syn(link, addresses, ports, random.next() as u32),
        5 => build::udp(link, addresses, ports, &data),
        6 => build::raw(link, random.next() as u16, &data),
        7 => random.bytes(data.len()),
        8 => with_ipv6_extensions(random, link, v6),
        _ => with_ipv4_options(random, link, v4),
    }
}

/// IPv6 with up to ten extension headers of random kinds, in any order.
fn with_ipv6_extensions(random: &mut Random, link: Ethernet, (src, dst): (Ipv6Addr, Ipv6Addr)) -> Vec<u8> {
    let kinds: Vec<u8> = (0..random.below(11)).map(|_| random.pick(&[0, 43, 44, 51, 60, 60, 60])).collect();
    let last = random.pick(&[6, 17, 58, 59, 1, 50, 132]);
    let mut payload = Vec::new();
    for (place, kind) in kinds.iter().enumerate() {
        let next = *kinds.get(place + 1).unwrap_or(&last);
        let mut header = random.bytes(8);
        header[0] = next;
        match kind {
            // A fragment header: mostly atomic, at times a first fragment.
            44 => header[2..4].copy_from_slice(&random.pick(&[[0, 0], [0, 0], [0, 1], [0, 8]])),
            // An authentication header of sixteen bytes.
            51 => {
                header[1] = 2;
                header.extend(random.bytes(8));
            }
            _ => {
                header[1] = random.pick(&[0, 0, 0, 1, 4]);
                header.extend(random.bytes(usize::from(header[1]) * 8));
            }
        }
        payload.extend(header);
    }
    let len = random.pick(&[4, 8, 20, 32]);
    let mut transport = random.bytes(len);
    match last {
        17 if len >= 8 => transport[4..6].copy_from_slice(&[0, random.pick(&[0, 8, len as u8])]),
        6 if len >= 20 => transport[12] = 5 << 4,
        _ => {}
    }
    payload.extend(transport);
    // Now and then as a jumbogram has it: 0.
    let said = if random.below(16) == 0 { 0 } else { payload.len() as u16 };
    let mut packet = vec![0x60, 0, 0, 0, (said >> 8) as u8, said as u8];
    packet.extend([*kinds.first().unwrap_or(&last), 64]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    build::raw(link, 0x86dd, &packet)
}

/// IPv4 with options, fragments, and protocols of every sort.
fn with_ipv4_options(random: &mut Random, link: Ethernet, (src, dst): (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let words = random.below(11);
    let len = random.pick(&[0, 4, 8, 12, 20, 24, 150]);
    let mut transport = random.bytes(len);
    let protocol = random.pick(&[1, 6, 17, 17, 51, 58, 47, 132]);
    match protocol {
        17 if len >= 8 => transport[4..6].copy_from_slice(&[0, random.pick(&[0, 8, len as u8])]),
        1 if len >= 8 => transport[..2].copy_from_slice(&[random.pick(&[0, 3, 8, 13]), 0]),
        6 if len >= 20 => transport[12] = random.pick(&[5, 5, 6, 15]) << 4,
        _ => {}
    }
    let total = 20 + words * 4 + len;
    let fragment: [u8; 2] = random.pick(&[[0, 0], [0x40, 0], [0x20, 0], [0, 1]]);
    let mut packet = vec![0x45 + words as u8, 0, (total >> 8) as u8, total as u8, 0, 1];
    packet.extend(fragment);
    packet.extend([64, protocol, 0, 0]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(random.bytes(words * 4));
    packet.extend(transport);
    build::raw(link, 0x0800, &packet)
}
