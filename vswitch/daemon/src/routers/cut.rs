//! Packets of IPv4 that are too long for where they go on, and may be cut (RFC 791 §3.2, RFC 1812 §4.2.2.7): the routers pass these on themselves.
//!
//! They are cut for the port of their VLAN that takes the fewest bytes: whose port the neighbour's is only the switch knows.

use super::{Heard, Lost, QUEUED, Speaker, forward::lost, link, own};
use vswitch_core::{
    build,
    checksum::Sum,
    clock::Instant,
    decide::{AtRouter, Routers},
    head::{Network, ethertype},
    route::Checksum,
    trace::NoTrace,
    vlan::VlanId,
};

/// Of an IPv4 header (RFC 791 §3.1): where it has its length, its flags and fragment offset, its hops, its checksum, and its options.
const LENGTH: usize = 2;
const FRAGMENT: usize = 6;
const HOPS: usize = 8;
const CHECKSUM: usize = 10;
const OPTIONS: usize = 20;

/// Bytes of the longest header.
const LONGEST_HEADER: usize = 60;

/// That more fragments follow, and the greatest offset, in eights of bytes.
const MORE: u16 = 0x2000;
const FURTHEST: u16 = 0x1fff;

/// Options: the end of all, one that is nothing, and the bit of those that every fragment has.
const END: u8 = 0;
const NOTHING: u8 = 1;
const COPIED: u8 = 0x80;

impl Speaker {
    /// The bytes that a packet may have which goes on into that VLAN, if it has more, and may be cut.
    pub(super) fn too_long_for(&self, heard: Heard<'_>, to: VlanId) -> Option<usize> {
        let Network::Ipv4(ip) = heard.head.network else { return None };
        let mtu = self.segments.get(&to)?.mtu.map(usize::from)?;
        let is_too_long = !ip.dont_fragment && own::packet(&heard)?.len() > mtu;
        is_too_long.then_some(mtu)
    }

    /// Passes on a packet into that VLAN in pieces of so many bytes.
    pub(super) fn go_on_in_pieces(
        &mut self,
        heard: Heard<'_>,
        (to, mtu): (VlanId, usize),
        now: Instant,
    ) -> Result<(), Lost> {
        let packet = own::packet(&heard).ok_or(Lost::Malformed)?;
        // Each has the longest header that there may be, at most.
        let pieces = packet.len().div_ceil(mtu.saturating_sub(LONGEST_HEADER).max(8) & !7);
        let segment = self.segments.get(&heard.vlan).ok_or(Lost::NoGateway)?;
        if !segment.cuts.take_many(pieces as u64, heard.head.link.src, now) {
            return Err(Lost::Rate);
        }
        // What others are to be told has room still.
        if self.queue.len() + pieces > QUEUED / 2 {
            return Err(Lost::QueueFull);
        }
        let mut packet = packet.to_vec();
        let Self { neighbours, connections, .. } = self;
        let world = self.world.as_ref().ok_or(Lost::NoGateway)?;
        let routers = Routers { world, connections, neighbours, now, learning: true };
        let decided = routers.pass_on(heard.vlan, (&heard.view(), heard.head), &mut NoTrace);
        let (vlan, mac, translation) = match decided {
            Some(AtRouter::Onward { vlan, mac, translation }) if vlan == to => (vlan, mac, translation),
            Some(AtRouter::Dropped(reason)) => return Err(lost(reason)),
            _ => return Err(Lost::Changed),
        };
        if let Some(translation) = translation {
            translation.apply(&mut packet, Checksum::Complete);
        }
        // Somebody decided that there are some left.
        packet[HOPS] -= 1;
        let pieces = fragments(&packet, mtu).ok_or(Lost::Malformed)?;
        let link = link(heard.routing, vlan, mac);
        let are_said = pieces.iter().all(|piece| self.say(build::raw(link, ethertype::IPV4, piece)));
        self.counts.cut += u64::from(are_said);
        Ok(())
    }
}

/// The fragments of a packet, or of a fragment, each of at most `mtu` bytes, with checksums of their own; none: its header says what cannot be.
fn fragments(packet: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let (header, mut payload) = packet.split_at_checked(usize::from(packet.first()? & 15) * 4)?;
    let later = later(header)?;
    let said = u16::from_be_bytes(*header.get(FRAGMENT..)?.first_chunk()?);
    let mut offset = said & FURTHEST;
    let (mut header, mut pieces) = (header, Vec::new());
    loop {
        let room = mtu.checked_sub(header.len())?;
        // All but the last have whole eights of bytes.
        let is_last = payload.len() <= room;
        let (data, rest) = payload.split_at(if is_last { payload.len() } else { room & !7 });
        if data.is_empty() && !is_last || offset > FURTHEST {
            return None;
        }
        let more = if is_last { said & MORE } else { MORE };
        let mut piece = [header, data].concat();
        let length = u16::try_from(piece.len()).ok()?;
        piece[LENGTH..LENGTH + 2].copy_from_slice(&length.to_be_bytes());
        piece[FRAGMENT..FRAGMENT + 2].copy_from_slice(&(more | offset).to_be_bytes());
        piece[CHECKSUM..CHECKSUM + 2].fill(0);
        let checksum = Sum::ZERO.add_bytes(&piece[..header.len()]).checksum();
        piece[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum);
        pieces.push(piece);
        if is_last {
            return Some(pieces);
        }
        // No packet has more than 64 KiB.
        offset += (data.len() / 8) as u16;
        (header, payload) = (&later, rest);
    }
}

/// The header of all fragments but the first: with the options that are to be copied, and zeros up to the next word.
fn later(header: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut options) = header.split_at_checked(OPTIONS)?;
    let mut later = fixed.to_vec();
    while let [kind, rest @ ..] = options {
        let len = match (*kind, rest) {
            (END, _) => break,
            (NOTHING, _) => 1,
            (_, [len, ..]) => usize::from(*len),
            (_, []) => return None,
        };
        // An option says how long it is, from its kind on.
        let (option, others) = options.split_at_checked(len).filter(|(option, _)| !option.is_empty())?;
        if kind & COPIED != 0 {
            later.extend(option);
        }
        options = others;
    }
    later.resize(later.len().next_multiple_of(4), 0);
    // No header is longer than the one that it is of.
    later[0] = 0x40 | (later.len() / 4) as u8;
    Some(later)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A header with these options, whole words of them.
    fn header(flags: u16, options: &[u8], len: usize) -> Vec<u8> {
        let mut header =
            vec![0x40 | (5 + options.len() / 4) as u8, 0xb8, 0, 0, 0x12, 0x34, 0, 0, 63, 17, 0, 0];
        header.extend([10, 0, 0, 1, 10, 0, 1, 2]);
        header[LENGTH..LENGTH + 2].copy_from_slice(&((20 + options.len() + len) as u16).to_be_bytes());
        header[FRAGMENT..FRAGMENT + 2].copy_from_slice(&flags.to_be_bytes());
        header.extend(options);
        header
    }

    #[test]
    fn rfc_791_3_2_only_options_that_are_to_be_copied_are_in_all_fragments() {
        // Record route is not copied, stream id and router alert are; nothing stands between them.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x88, 4, 1, 2, 1, 0x94, 4, 0, 0, 0, 0, 0];
        let packet = [header(0, &options, 600), vec![9; 600]].concat();
        let pieces = fragments(&packet, 300).expect("it can be cut");
        assert_eq!(pieces[0][20..40], options);
        for piece in &pieces[1..] {
            assert_eq!((piece[0], &piece[20..28]), (0x47, &[0x88, 4, 1, 2, 0x94, 4, 0, 0][..]));
        }
        for wrong in [[0x88, 0, 0, 0], [0x88, 9, 0, 0], [1, 1, 1, 0x88]] {
            let packet = [header(0, &wrong, 600), vec![9; 600]].concat();
            assert_eq!(fragments(&packet, 300), None, "{wrong:?}");
        }
    }

    proptest! {
        /// Whatever is cut, and cut again, is the same when it is put together.
        #[test]
        fn pieces_of_pieces_make_the_same_packet(
            payload in prop::collection::vec(any::<u8>(), 1..4000),
            mtus in prop::collection::vec(68usize..1600, 1..4),
            words in 0usize..11,
        ) {
            let packet = [header(0, &vec![NOTHING; words * 4], payload.len()), payload.clone()].concat();
            let mut pieces = vec![packet];
            for mtu in mtus {
                pieces = pieces.iter().flat_map(|piece| fragments(piece, mtu).expect("it can be cut")).collect();
                prop_assert!(pieces.iter().all(|piece| piece.len() <= mtu));
            }
            let mut whole = BTreeMap::new();
            for piece in &pieces {
                let len = usize::from(piece[0] & 15) * 4;
                let said = u16::from_be_bytes([piece[FRAGMENT], piece[FRAGMENT + 1]]);
                prop_assert_eq!(Sum::ZERO.add_bytes(&piece[..len]).checksum(), [0, 0]);
                prop_assert_eq!(usize::from(u16::from_be_bytes([piece[LENGTH], piece[LENGTH + 1]])), piece.len());
                let begin = usize::from(said & FURTHEST) * 8;
                prop_assert_eq!(said & MORE == 0, begin + piece.len() - len == payload.len());
                prop_assert!(whole.insert(begin, &piece[len..]).is_none());
            }
            prop_assert_eq!(whole.into_values().flatten().copied().collect::<Vec<u8>>(), payload);
        }
    }
}
