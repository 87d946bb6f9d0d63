//! What a router changes in a frame that it passes on.

use super::{Translation, translation::one_for_another};
use crate::mac::MacAddr;
use std::num::NonZeroU16;

/// The change: both addresses of the link, and one hop less (RFC 1812 §5.3.1, RFC 8200 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// Whom it goes to.
    pub dst: MacAddr,
    /// The router's own address.
    pub src: MacAddr,
    /// Where the IP header stands.
    pub at: u8,
    /// What else changes, if the router translates.
    pub translation: Option<NatNumber>,
}

/// One of a batch's [translations](Translations): it names what is as long as all else of a change together, and which few packets need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatNumber(NonZeroU16);

/// The translations of a batch.
#[derive(Debug, Default)]
pub struct Translations(Vec<Translation>);

impl Translations {
    /// One more; none if it is one of too many.
    pub fn note(&mut self, translation: Translation) -> Option<NatNumber> {
        let number = u16::try_from(self.0.len() + 1).ok().and_then(NonZeroU16::new)?;
        self.0.push(translation);
        Some(NatNumber(number))
    }

    /// What a change says besides, if it does.
    #[inline]
    pub fn of(&self, rewrite: Option<&Rewrite>) -> Option<&Translation> {
        let NatNumber(number) = rewrite?.translation?;
        self.0.get(usize::from(number.get()) - 1)
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Rewrite {
    /// Changes the first bytes of a frame, which have the IP header's fields for addresses and hops: else nothing changes.
    #[inline]
    pub fn apply(&self, head: &mut [u8]) {
        let Some((link, ip)) = head.split_at_mut_checked(self.at.into()) else { return };
        let (Some(link), Some(ip)) = (link.first_chunk_mut::<12>(), ip.first_chunk_mut::<12>()) else {
            return;
        };
        link[..6].copy_from_slice(&self.dst.octets());
        link[6..].copy_from_slice(&self.src.octets());
        let [version, ..] = *ip;
        if let Some(hops) = ip.last_chunk_mut() {
            *hops = one_hop_less(*hops, version >> 4 == 6);
        }
    }
}

/// One hop less in the eight bytes of an IP header in which its hops stand, of which there are some: of IPv4 also in the checksum, the last of them.
#[inline(always)]
pub(crate) fn one_hop_less(bytes: [u8; 8], is_v6: bool) -> [u8; 8] {
    // As one word: bytes that are written one by one cannot be read as a word at once.
    let word = u64::from_be_bytes(bytes);
    if is_v6 {
        return word.wrapping_sub(1 << 32).to_be_bytes();
    }
    let checksum = one_for_another(word as u16, 0x100, 0);
    (word & !0xffff | u64::from(checksum)).wrapping_sub(1 << 24).to_be_bytes()
}
