//! All that changes in a copy of a frame.

use super::TagEdit;
use crate::{
    head::{ETHERNET_LEN, HEAD_BYTES, TAG_LEN},
    route::{Checksum, HOPS, Quick, Rewrite, Translation, one_hop_less},
};

/// A change of a copy: what a router does to it, then what the port does by which it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// Of its tag.
    pub tag: TagEdit,
    /// By a router, if one passes it on.
    pub rewrite: Option<Rewrite>,
}

impl Edit {
    /// Nothing changes.
    pub const KEEP: Self = Self::of(TagEdit::Keep);

    /// Only its tag changes.
    pub const fn of(tag: TagEdit) -> Self {
        Self { tag, rewrite: None }
    }

    /// Writes the edited `head` (at most [`HEAD_BYTES`] of it) to the start of `out`; returns how many bytes that are.
    #[inline]
    pub fn apply(&self, head: &[u8], out: &mut [u8; HEAD_BYTES + TAG_LEN]) -> usize {
        let len = self.tag.apply(head, out);
        if let Some(rewrite) = &self.rewrite {
            // What a tag is longer or shorter by, the IP header stands further behind or before.
            let at = self.frame_len(rewrite.at.into()) as u8;
            Rewrite { at, ..*rewrite }.apply(&mut out[..len]);
        }
        len
    }

    /// The length of a frame of `len` bytes after the change.
    #[inline]
    pub const fn frame_len(&self, len: u32) -> u32 {
        self.tag.frame_len(len)
    }
}

/// A change of one frame's copy, with what a router translates.
#[derive(Debug, Clone, Copy)]
pub struct Change<'t> {
    /// Its edit.
    pub edit: Edit,
    /// What a router translates besides, behind that.
    pub translation: Option<&'t Translation>,
    /// What the frame's transport checksum covers.
    pub checksum: Checksum,
}

impl<'t> Change<'t> {
    /// That of a frame whose checksum is complete.
    pub const fn of(edit: Edit, translation: Option<&'t Translation>) -> Self {
        Self { edit, translation, checksum: Checksum::Complete }
    }

    /// Writes the changed `head` to the start of `out`, as [`Edit::apply`] does.
    #[inline]
    pub fn apply(&self, head: &[u8], out: &mut [u8; HEAD_BYTES + TAG_LEN]) -> usize {
        let len = self.edit.apply(head, out);
        if let Some((translation, rewrite)) = self.translation.zip(self.edit.rewrite) {
            let at = self.edit.frame_len(rewrite.at.into()) as usize;
            translation.apply(out[..len].get_mut(at..).unwrap_or_default(), self.checksum);
        }
        len
    }
}

/// Bytes of both addresses of a link.
const MACS: usize = 12;

/// The change of frames that come and go untagged, computed once for many of them: a frame of the common kind is changed as by [`Change::apply`], without a look
/// at what they have in common.
#[derive(Debug, Clone, Copy)]
pub struct Untagged {
    /// Both addresses of the link.
    link: [u8; MACS],
    packet: Packet,
}

#[derive(Debug, Clone, Copy)]
enum Packet {
    /// Of either version: one hop less.
    Routed,
    /// TCP or UDP behind an IPv4 header without options.
    Translated { quick: Quick, is_tcp: bool },
}

impl Untagged {
    /// None if it is a change of another kind.
    pub fn of(change: &Change<'_>) -> Option<Self> {
        let Edit { tag: TagEdit::Keep, rewrite: Some(rewrite) } = change.edit else { return None };
        let packet = match change.translation {
            None => Packet::Routed,
            Some(translation) => {
                let (quick, is_tcp) =
                    translation.quick().filter(|_| change.checksum == Checksum::Complete)?;
                Packet::Translated { quick, is_tcp }
            }
        };
        let mut link = [0; MACS];
        let (dst, src) = link.split_at_mut(MACS / 2);
        dst.copy_from_slice(&rewrite.dst.octets());
        src.copy_from_slice(&rewrite.src.octets());
        (usize::from(rewrite.at) == ETHERNET_LEN).then_some(Self { link, packet })
    }

    /// From where on a frame stays as it is, but for a checksum.
    pub const fn same_from(&self) -> usize {
        match self.packet {
            Packet::Routed => HOPS + 8,
            Packet::Translated { .. } => HOPS + 20,
        }
    }

    /// Hands `put` what changes in a frame that begins so, and what stands before [that](Self::same_from), each with its place. False if
    /// it is not of the common kind.
    #[inline(always)]
    pub fn front(&self, head: &[u8], mut put: impl FnMut(usize, &[u8])) -> bool {
        let Some(first) = head.first_chunk::<{ HOPS + 8 }>() else { return false };
        put(0, &self.link);
        put(MACS, &first[MACS..MACS + 8]);
        match &self.packet {
            Packet::Routed => {
                if let Some(hops) = first.last_chunk() {
                    put(HOPS, &one_hop_less(*hops, first[ETHERNET_LEN] >> 4 == 6));
                }
                true
            }
            Packet::Translated { quick, is_tcp: true } => quick.front::<{ HOPS + 16 + 16 }>(head, put),
            Packet::Translated { quick, is_tcp: false } => quick.front::<{ HOPS + 16 + 6 }>(head, put),
        }
    }
}
