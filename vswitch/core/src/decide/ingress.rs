//! A batch's frames from one port, one after the other: what was decided about the last one holds for its like.

use super::{Copy, Fate, Switch};
use crate::{
    head::{ETHERNET_LEN, FrameView, LinkHeader, ethertype},
    trace::NoTrace,
};

/// One port's frames at one moment.
#[derive(Debug)]
pub struct Ingress<'a> {
    switch: Switch<'a>,
    port_index: u16,
    last: Option<Last>,
}

/// An untagged frame that went to one port, from a source that was known: another one with this link header goes the same way and
/// teaches nothing new, unless it is longer (the receiver may have an MTU).
#[derive(Debug, Clone, Copy)]
struct Last {
    header: [u8; ETHERNET_LEN],
    len: u32,
}

impl<'a> Ingress<'a> {
    /// Frames that come in on the port in place `port_index`, to be decided by `switch`.
    pub fn new(switch: Switch<'a>, port_index: u16) -> Self {
        Self { switch, port_index, last: None }
    }

    /// Whether a frame is like the last one decided: then it has the same fate, [`Fate::Unicast`], and one copy that is
    /// the same but for its length. `bytes` are its first bytes, `len` is its length.
    #[inline(always)]
    pub fn repeats(&self, bytes: &[u8], len: u32) -> bool {
        match (&self.last, bytes.first_chunk()) {
            (Some(last), Some(header)) => last.header == *header && len <= last.len,
            _ => false,
        }
    }

    /// As [`Switch::decide`], without a trace, for the frame of `len` bytes whose first bytes these are.
    pub fn decide(&mut self, bytes: &[u8], len: u32, copies: &mut Vec<Copy>) -> Fate {
        self.last = None;
        let link = match LinkHeader::parse(bytes, len) {
            Ok(link) => link,
            Err(reason) => return Fate::Dropped(reason),
        };
        let before = copies.len();
        let frame = FrameView { link: &link, bytes, len };
        let (fate, settled) = self.switch.judge(self.port_index, &frame, copies, &mut NoTrace);
        if let (Fate::Unicast, true, [Copy { outcome: Ok(_), .. }]) = (fate, settled, &copies[before..])
            && !matches!(link.ethertype, ethertype::C_TAG | ethertype::S_TAG)
            && link.outer.is_none()
        {
            self.last = bytes.first_chunk().map(|header| Last { header: *header, len });
        }
        fate
    }
}
