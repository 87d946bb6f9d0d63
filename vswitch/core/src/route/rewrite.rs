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
        one_hop_less(ip);
    }
}

/// One hop less in an IP header that begins so, and in its checksum.
#[inline(always)]
pub(crate) fn one_hop_less(ip: &mut [u8; 12]) {
    if ip[0] >> 4 == 6 {
        ip[7] = ip[7].saturating_sub(1);
        return;
    }
    let before = u16::from_be_bytes([ip[8], ip[9]]);
    ip[8] = ip[8].saturating_sub(1);
    let after = u16::from_be_bytes([ip[8], ip[9]]);
    let checksum = u16::from_be_bytes([ip[10], ip[11]]);
    ip[10..].copy_from_slice(&one_for_another(checksum, before, after).to_be_bytes());
}
