//! What happens to a frame's tag on its way out of a port.

use crate::{
    head::{HEAD_BYTES, TAG_LEN, ethertype},
    vlan::{Tci, VlanId},
    world::Egress,
};
use serde::{Deserialize, Serialize};

/// The offset of a C-tag: behind the two addresses (IEEE 802.1Q-2018 §9.1).
const TAG_AT: usize = 12;

/// A change of a frame's C-tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagEdit {
    /// Nothing changes.
    Keep,
    /// The tag goes.
    Pop,
    /// A tag comes.
    Push(Tci),
    /// The tag says something else.
    Rewrite(Tci),
}

impl TagEdit {
    /// How a frame that came with `tag` leaves in `vlan` (IEEE 802.1Q-2018 §8.6.8, §6.9.2).
    ///
    /// One thing is stricter than the standard. A frame whose first tag `hides_c_tag` behind it keeps a tag even in a
    /// trunk's native VLAN: if that were removed, the next bridge would take the hidden one for the frame's VLAN, and
    /// a guest could so choose a VLAN that it is no member of. Trunks admit frames of their native VLAN tagged, too.
    #[inline]
    pub(super) fn on_egress(egress: Egress, vlan: VlanId, tag: Option<Tci>, hides_c_tag: bool) -> Self {
        let untagged = match egress {
            Egress::Access => true,
            Egress::Native => !hides_c_tag,
            Egress::Tagged => false,
        };
        match (untagged, tag) {
            (true, None) => Self::Keep,
            (true, Some(_)) => Self::Pop,
            (false, None) => Self::Push(Tci::from_bits(0).with_vlan(vlan)),
            (false, Some(tci)) if tci.vid() == vlan.number() => Self::Keep,
            (false, Some(tci)) => Self::Rewrite(tci.with_vlan(vlan)),
        }
    }

    /// Writes the edited `head` (at most [`HEAD_BYTES`] of it) to the start of `out`; returns how many bytes that are.
    /// A head that is too short to hold what is to be changed stays as it is.
    #[inline]
    pub fn apply(self, head: &[u8], out: &mut [u8; HEAD_BYTES + TAG_LEN]) -> usize {
        let head = &head[..head.len().min(HEAD_BYTES)];
        match self {
            Self::Pop if head.len() >= TAG_AT + TAG_LEN => {
                out[..TAG_AT].copy_from_slice(&head[..TAG_AT]);
                out[TAG_AT..head.len() - TAG_LEN].copy_from_slice(&head[TAG_AT + TAG_LEN..]);
                head.len() - TAG_LEN
            }
            Self::Push(tci) if head.len() >= TAG_AT => {
                out[..TAG_AT].copy_from_slice(&head[..TAG_AT]);
                out[TAG_AT..TAG_AT + 2].copy_from_slice(&ethertype::C_TAG.to_be_bytes());
                out[TAG_AT + 2..TAG_AT + TAG_LEN].copy_from_slice(&tci.bits().to_be_bytes());
                out[TAG_AT + TAG_LEN..head.len() + TAG_LEN].copy_from_slice(&head[TAG_AT..]);
                head.len() + TAG_LEN
            }
            Self::Rewrite(tci) if head.len() >= TAG_AT + TAG_LEN => {
                copy(head, out);
                out[TAG_AT + 2..TAG_AT + TAG_LEN].copy_from_slice(&tci.bits().to_be_bytes());
                head.len()
            }
            Self::Keep | Self::Pop | Self::Push(_) | Self::Rewrite(_) => {
                copy(head, out);
                head.len()
            }
        }
    }

    /// The length of a frame of `len` bytes after the change.
    #[inline]
    pub const fn frame_len(self, len: u32) -> u32 {
        match self {
            Self::Keep | Self::Rewrite(_) => len,
            Self::Pop => len.saturating_sub(TAG_LEN as u32),
            Self::Push(_) => len.saturating_add(TAG_LEN as u32),
        }
    }
}

/// Copies a head of at most [`HEAD_BYTES`] to the start of `out`: that of a short frame by its first and last bytes, which overlap.
#[inline(always)]
fn copy(head: &[u8], out: &mut [u8; HEAD_BYTES + TAG_LEN]) {
    let out = &mut out[..head.len()];
    match head.len() {
        32..=64 => copy_ends::<32>(head, out),
        65..=128 => copy_ends::<64>(head, out),
        _ => out.copy_from_slice(head),
    }
}

/// Copies from `N` to two times as many bytes.
#[inline(always)]
fn copy_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
    if let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
        to[..N].copy_from_slice(first);
        let at = to.len() - N;
        to[at..].copy_from_slice(last);
    }
}
