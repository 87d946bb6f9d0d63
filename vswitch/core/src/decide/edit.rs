//! All that changes in a copy of a frame.

use super::TagEdit;
use crate::{
    head::{HEAD_BYTES, TAG_LEN},
    route::{Checksum, Rewrite, Translation},
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
