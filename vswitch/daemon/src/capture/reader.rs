//! Frames out of a capture file, pcap or pcapng, one at a time and in bounded memory. Files come from anywhere: nothing is believed.

use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader,
    traits::{PcapNGPacketBlock, PcapReaderIterator},
};
use std::{fs::File, io, time::Duration};
use thiserror::Error;

/// Bytes that are read ahead. A block that is longer is none of an Ethernet frame.
const BUFFER: usize = 1 << 20;

/// The longest frame that a port takes.
const LONGEST: usize = 65_550;

/// Interfaces that one section may have.
const MOST_INTERFACES: usize = 4096;

/// Why a capture file cannot be read, or not further.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It begins as no such file does.
    #[error("it is neither a pcap nor a pcapng file")]
    Unknown,
    /// It ends, or makes no sense, where this packet should be (1: the first).
    #[error("packet {packet}: the file is damaged there: {why}")]
    Damaged {
        /// Which.
        packet: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The packet is there, and cannot be sent.
    #[error("packet {packet}: {why}")]
    Unfit {
        /// Which.
        packet: u64,
        /// Why.
        why: String,
    },
}

/// What is known of the interface that packets are from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    link: Linktype,
    /// Ticks of its clock in a second.
    ticks: u64,
}

/// A file that is being read.
pub struct Reader {
    blocks: Box<dyn PcapReaderIterator + Send>,
    /// Of a pcap file the one, of a pcapng section one for each description.
    origins: Vec<Origin>,
    packet: u64,
}

/// A packet's fields, whatever the file's form.
struct Packet<'a> {
    origin: Option<Origin>,
    ticks: u64,
    bytes: &'a [u8],
    captured: u32,
    len: u32,
}

impl Reader {
    /// Begins to read `file`.
    ///
    /// # Errors
    /// It is no capture file.
    pub fn new(file: File) -> Result<Self, ReadError> {
        let blocks = create_reader(BUFFER, file).map_err(|_| ReadError::Unknown)?;
        Ok(Self { blocks, origins: Vec::new(), packet: 0 })
    }

    /// Puts the next frame into `frame`, and returns when it was captured, since 1970 (0 if the file does not say); none: that was all.
    ///
    /// # Errors
    /// The file is damaged, or the packet no whole Ethernet frame. It is of no further use then.
    pub fn next(&mut self, frame: &mut Vec<u8>) -> Result<Option<Duration>, ReadError> {
        loop {
            let there = self.blocks.data().len();
            let (used, found) = match self.blocks.next() {
                Ok((used, block)) => (used, judge(&mut self.origins, &mut self.packet, &block, frame)?),
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::UnexpectedEof) if there == 0 => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    self.blocks.refill().map_err(|_| damaged(self.packet, "it cannot be read"))?;
                    if self.blocks.data().len() == there && !self.blocks.reader_exhausted() {
                        return Err(damaged(self.packet, "a block without an end"));
                    }
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(damaged(self.packet, "it ends within a block")),
                Err(PcapError::BufferTooSmall) => {
                    return Err(damaged(self.packet, "a block of more than 1 MiB"));
                }
                Err(_) => return Err(damaged(self.packet, "no such block is known")),
            };
            self.blocks.consume(used);
            if let Some(at) = found {
                return Ok(Some(at));
            }
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(why: ReadError) -> Self {
        Self::other(why)
    }
}

fn damaged(last: u64, why: &'static str) -> ReadError {
    ReadError::Damaged { packet: last + 1, why }
}

/// What a block says: of a packet its time, with its bytes in `frame`; of any other nothing.
fn judge(
    origins: &mut Vec<Origin>,
    number: &mut u64,
    block: &PcapBlockOwned<'_>,
    frame: &mut Vec<u8>,
) -> Result<Option<Duration>, ReadError> {
    let packet = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let ticks = if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            origins.push(Origin { link: header.network, ticks });
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            origins.clear();
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(described)) => {
            let ticks = described.ts_resolution().filter(|ticks| *ticks > 0);
            let ticks = ticks.ok_or_else(|| damaged(*number, "an interface without a clock"))?;
            if origins.len() == MOST_INTERFACES {
                return Err(damaged(*number, "more interfaces than any machine has"));
            }
            origins.push(Origin { link: described.linktype, ticks });
            return Ok(None);
        }
        PcapBlockOwned::Legacy(packet) => {
            let origin = origins.first().copied();
            let ticks = origin.map_or(0, |origin| {
                u64::from(packet.ts_sec).saturating_mul(origin.ticks).saturating_add(packet.ts_usec.into())
            });
            Packet { origin, ticks, bytes: packet.data, captured: packet.caplen, len: packet.origlen }
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => Packet {
            origin: origins.get(packet.if_id as usize).copied(),
            ticks: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
            bytes: packet.packet_data(),
            captured: packet.caplen,
            len: packet.origlen,
        },
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => Packet {
            origin: origins.first().copied(),
            ticks: 0,
            bytes: packet.packet_data(),
            captured: packet.packet_data().len() as u32,
            len: packet.origlen,
        },
        // Names, statistics, secrets: nothing to send.
        PcapBlockOwned::NG(_) => return Ok(None),
    };
    let origin =
        packet.origin.ok_or_else(|| damaged(*number, "a packet of an interface that is not described"))?;
    *number += 1;
    let unfit = |why| Err(ReadError::Unfit { packet: *number, why });
    if origin.link != Linktype::ETHERNET {
        return unfit(format!("it is of link type {}, and only Ethernet (1) can be sent", origin.link.0));
    }
    if packet.bytes.len() != packet.captured as usize || packet.captured < packet.len {
        let Packet { bytes, len, .. } = packet;
        return unfit(format!("only {} of its {len} bytes were captured (capture with -s 0)", bytes.len()));
    }
    if packet.bytes.len() > LONGEST {
        return unfit(format!("it has {} bytes, and a port takes {LONGEST}", packet.bytes.len()));
    }
    frame.clear();
    frame.extend_from_slice(packet.bytes);
    let nanos = u128::from(packet.ticks % origin.ticks) * 1_000_000_000 / u128::from(origin.ticks);
    Ok(Some(Duration::new(packet.ticks / origin.ticks, nanos as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::pcapng::{self, Interface, Packet, Way};
    use std::io::{Seek, Write};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("room for it");
        file.rewind().expect("a file");
        file
    }

    /// A pcap file of these packets: (time in microseconds, captured bytes, length).
    fn pcap(link: u32, packets: &[(u64, &[u8], u32)]) -> Vec<u8> {
        let words = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, link];
        let mut file: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        for (at, bytes, len) in packets {
            let head = [(at / 1_000_000) as u32, (at % 1_000_000) as u32, bytes.len() as u32, *len];
            file.extend(head.iter().flat_map(|word| word.to_le_bytes()));
            file.extend_from_slice(bytes);
        }
        file
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Duration, Vec<u8>)>, ReadError> {
        let (mut reader, mut frames, mut frame) = (Reader::new(file(bytes))?, Vec::new(), Vec::new());
        while let Some(at) = reader.next(&mut frame)? {
            frames.push((at, frame.clone()));
        }
        Ok(frames)
    }

    #[test]
    fn both_kinds_of_file_give_their_frames_and_times() {
        let frames: Vec<Vec<u8>> = (0..3000_usize).map(|n| vec![n as u8; 60 + n * 7 % 9000]).collect();
        let at = |n: usize| Duration::from_micros(1_700_000_000_000_000 + n as u64 * 1_234_567);
        let packets: Vec<_> = frames
            .iter()
            .enumerate()
            .map(|(n, f)| (at(n).as_micros() as u64, f.as_slice(), f.len() as u32))
            .collect();
        let mut new = Vec::new();
        let interface = Interface { name: "a:eth0".into(), filter: String::new(), snap_len: 262_144 };
        pcapng::begin(&mut new, &interface);
        for (n, bytes) in frames.iter().enumerate() {
            let len = bytes.len() as u32;
            let packet =
                Packet { at: at(n), bytes, len, way: Way::Outbound, missed: 0, comment: Some("a word") };
            pcapng::packet(&mut new, &packet);
        }
        pcapng::end(&mut new, at(0), 3000, 0);
        for bytes in [pcap(1, &packets), new] {
            let read = read(&bytes).expect("it is whole");
            assert_eq!(read.len(), frames.len());
            for (n, (time, frame)) in read.iter().enumerate() {
                assert_eq!((*time, frame), (at(n), &frames[n]), "frame {n}");
            }
        }
        assert_eq!(read(&pcap(1, &[])).expect("it is whole"), []);
    }

    #[test]
    fn what_is_wrong_is_told_with_the_number_of_the_packet() {
        let whole: (u64, &[u8], u32) = (0, &[7; 60], 60);
        let good = pcap(1, &[whole, whole, whole]);
        let said = |bytes: &[u8]| read(bytes).expect_err("it is wrong").to_string();
        assert_eq!(
            said(&good[..good.len() - 1]),
            "packet 3: the file is damaged there: it ends within a block"
        );
        assert_eq!(said(&good[..24 + 76 + 5]), "packet 2: the file is damaged there: it ends within a block");
        let mut huge = good.clone();
        huge[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(said(&huge), "packet 1: the file is damaged there: a block of more than 1 MiB");
        assert_eq!(
            said(&pcap(1, &[whole, (0, &[7; 60], 1514)])),
            "packet 2: only 60 of its 1514 bytes were captured (capture with -s 0)"
        );
        assert_eq!(
            said(&pcap(101, &[whole])),
            "packet 1: it is of link type 101, and only Ethernet (1) can be sent"
        );
        let long = vec![0; 65_551];
        assert_eq!(
            said(&pcap(1, &[(0, &long, 65_551)])),
            "packet 1: it has 65551 bytes, and a port takes 65550"
        );
        for none in [b"".as_slice(), b"hello", &good[..20]] {
            assert_eq!(said(none), "it is neither a pcap nor a pcapng file");
        }
    }

    #[test]
    fn any_damage_is_answered() {
        let packet: (u64, &[u8], u32) = (5, &[7; 60], 60);
        let mut file = pcap(1, &[packet; 20]);
        let mut seed = 1_u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (seed >> 33) as usize % file.len();
            let was = std::mem::replace(&mut file[place], (seed >> 20) as u8);
            let _answered = read(&file);
            file[place] = was;
        }
    }
}
