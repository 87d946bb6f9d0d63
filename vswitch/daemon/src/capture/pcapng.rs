//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng): a section of one interface, its frames, and what was missed.
//!
//! Every number is little-endian, as the section header says. A block's type and its length stand in front, the length again at its
//! end; options are (code, length, value), each padded to four bytes.

use std::time::Duration;

/// Block types (§4).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// Of whom the frames are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `node:interface`.
    pub name: String,
    /// Which of them are wanted, as it was written; empty: all.
    pub filter: String,
    /// How many bytes of a frame are captured at most.
    pub snap_len: u32,
}

/// Which way a frame went, seen from the switch (`epb_flags`, §4.3.1: inbound 1, outbound 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the guest to the switch.
    Inbound = 1,
    /// From the switch to the guest.
    Outbound = 2,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When, since 1970.
    pub at: Duration,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// Its length.
    pub len: u32,
    /// Which way it went.
    pub way: Way,
    /// How many were missed between the frame before and this one.
    pub missed: u64,
    /// What else there is to say of it.
    pub comment: Option<&'a str>,
}

/// Appends the Section Header Block (§4.1) and the Interface Description Block (§4.2) that a file begins with.
pub fn begin(file: &mut Vec<u8>, interface: &Interface) {
    block(file, SECTION_HEADER, |body| {
        // Byte-order magic, version 1.0, a section of unknown length.
        body.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        body.extend_from_slice(&[1, 0, 0, 0]);
        body.extend_from_slice(&u64::MAX.to_le_bytes());
        let program = concat!("vnet ", env!("CARGO_PKG_VERSION"));
        options(body, &[(4, program.as_bytes())]);
    });
    block(file, INTERFACE_DESCRIPTION, |body| {
        body.extend_from_slice(&ETHERNET.to_le_bytes());
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&interface.snap_len.to_le_bytes());
        // A filter is preceded by its kind: 0 is a string of libpcap's language (if_filter, §4.2).
        let filter = [&[0], interface.filter.as_bytes()].concat();
        let mut all: Vec<(u16, &[u8])> = vec![(2, interface.name.as_bytes()), (9, &[9])];
        all.extend((!interface.filter.is_empty()).then_some((11, filter.as_slice())));
        options(body, &all);
    });
}

/// Appends an Enhanced Packet Block (§4.3).
pub fn packet(file: &mut Vec<u8>, packet: &Packet<'_>) {
    block(file, ENHANCED_PACKET, |body| {
        body.extend_from_slice(&0_u32.to_le_bytes());
        body.extend_from_slice(&time(packet.at));
        body.extend_from_slice(&(packet.bytes.len() as u32).to_le_bytes());
        body.extend_from_slice(&packet.len.to_le_bytes());
        padded(body, packet.bytes);
        let (flags, missed) = ((packet.way as u32).to_le_bytes(), packet.missed.to_le_bytes());
        let all: [Option<(u16, &[u8])>; 3] = [
            packet.comment.map(|comment| (1, comment.as_bytes())),
            Some((2, &flags)),
            (packet.missed > 0).then_some((4, &missed)),
        ];
        for (code, value) in all.into_iter().flatten() {
            option(body, code, value);
        }
        options(body, &[]);
    });
}

/// Appends the Interface Statistics Block (§4.6) that a file ends with: how many frames were captured, and how many were
/// missed for want of room.
pub fn end(file: &mut Vec<u8>, at: Duration, captured: u64, missed: u64) {
    block(file, INTERFACE_STATISTICS, |body| {
        body.extend_from_slice(&0_u32.to_le_bytes());
        body.extend_from_slice(&time(at));
        // isb_filteraccept, isb_osdrop.
        options(body, &[(6, &captured.to_le_bytes()), (7, &missed.to_le_bytes())]);
    });
}

/// A moment in nanoseconds (the interface's `if_tsresol` is 9), the upper half first.
fn time(at: Duration) -> [u8; 8] {
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    let ([high, low], mut bytes) = ([(nanos >> 32) as u32, nanos as u32], [0; 8]);
    bytes[..4].copy_from_slice(&high.to_le_bytes());
    bytes[4..].copy_from_slice(&low.to_le_bytes());
    bytes
}

/// Appends a block around what `body` writes.
fn block(file: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = file.len();
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    body(file);
    let length = ((file.len() - begin + 4) as u32).to_le_bytes();
    file[begin + 4..begin + 8].copy_from_slice(&length);
    file.extend_from_slice(&length);
}

/// Appends options and their end.
fn options(body: &mut Vec<u8>, all: &[(u16, &[u8])]) {
    all.iter().for_each(|(code, value)| option(body, *code, value));
    body.extend_from_slice(&[0; 4]);
}

/// Appends an option; a value of more than 65,535 bytes is cut.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    padded(body, &value[..usize::from(length)]);
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(bytes);
    body.extend_from_slice(&[0; 3][..bytes.len().wrapping_neg() % 4]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_parser::{Block, OptionCode, parse_block_le, pcapng::PcapNGOption};
    use proptest::prelude::*;

    fn blocks(mut file: &[u8]) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let (rest, block) = parse_block_le(file).unwrap();
            blocks.push(block);
            file = rest;
        }
        blocks
    }

    fn value<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
        let option = options.iter().find(|option| option.code == OptionCode(code))?;
        Some(&option.value[..option.len.into()])
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn another_reader_finds_what_was_written(
            bytes in prop::collection::vec(any::<u8>(), 0..300), beyond in 0_u32..100, nanos in any::<u64>(),
            missed in 0_u64..3, comment in prop::option::of("[a-z]{1,9}"), filter in "[a-z]{0,9}",
        ) {
            let interface = Interface { name: "h1:eth0".into(), filter, snap_len: 300 };
            let len = bytes.len() as u32 + beyond;
            let at = Duration::from_nanos(nanos);
            let sent = Packet { at, bytes: &bytes, len, way: Way::Outbound, missed, comment: comment.as_deref() };
            let mut file = Vec::new();
            begin(&mut file, &interface);
            packet(&mut file, &sent);
            end(&mut file, at, 1, 7);
            let blocks = blocks(&file);
            let [Block::SectionHeader(_), Block::InterfaceDescription(of), Block::EnhancedPacket(got), Block::InterfaceStatistics(statistics)] =
                blocks.as_slice() else { panic!("{blocks:?}") };
            prop_assert_eq!((of.linktype.0, of.snaplen, of.if_tsresol), (1, 300, 9));
            prop_assert_eq!(value(&of.options, 2), Some(interface.name.as_bytes()));
            prop_assert_eq!(value(&of.options, 11).map(|filter| &filter[1..]).unwrap_or_default(), interface.filter.as_bytes());
            prop_assert_eq!(u64::from(got.ts_high) << 32 | u64::from(got.ts_low), nanos);
            prop_assert_eq!((&got.data[..got.caplen as usize], got.origlen), (bytes.as_slice(), len));
            prop_assert_eq!(value(&got.options, 2), Some([2, 0, 0, 0].as_slice()));
            prop_assert_eq!(value(&got.options, 1), comment.as_deref().map(str::as_bytes));
            prop_assert_eq!(value(&got.options, 4).is_some(), missed > 0);
            prop_assert_eq!(value(&statistics.options, 6), Some([1, 0, 0, 0, 0, 0, 0, 0].as_slice()));
            prop_assert_eq!(value(&statistics.options, 7), Some([7, 0, 0, 0, 0, 0, 0, 0].as_slice()));
        }
    }
}
