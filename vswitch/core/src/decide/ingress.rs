//! A batch's frames from one port, one after the other. What nearly every frame is, a frame between two stations that are known, is
//! decided here at one look; whatever is unlike that is decided by [`Switch::decide`], which is the rule that this must equal.

use super::{Copy, Decision, Fate, Switch, TagEdit};
use crate::{
    description::Membership,
    fdb::{Key, Target},
    head::{ETHERNET_LEN, FrameView, LinkHeader, MAX_FRAME_LEN, TAG_LEN, ethertype},
    id::SwitchId,
    mac::MacAddr,
    trace::NoTrace,
    vlan::{Tci, VlanId},
    world::{Port, Role},
};

/// The group bit of an address on top of a word (IEEE 802-2014 §8.2.2).
const GROUP: u64 = 1 << 56;

/// Where one copy of a frame goes, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The port's place.
    pub to: u16,
    /// How the frame leaves.
    pub edit: TagEdit,
}

/// One port's frames at one moment.
#[derive(Debug)]
pub struct Ingress<'a> {
    switch: Switch<'a>,
    port_index: u16,
    /// The moment, in seconds.
    second: u64,
    /// What is known of the port; none if its frames need more than one look: it is down, has no link or is a wire.
    home: Option<Home<'a>>,
    last: Like,
}

/// A port of a switch.
#[derive(Debug, Clone, Copy)]
struct Home<'a> {
    port: &'a Port,
    switch: SwitchId,
    vlans: &'a Membership,
}

/// Whom a frame is between.
struct Stations {
    /// The [`words`] of its header.
    header: [u64; 2],
    /// Its tag, if it has one.
    tag: Option<Tci>,
    vlan: VlanId,
    /// Its source's place in the FDB, and its destination's.
    src: Key,
    dst: Key,
}

/// An untagged frame that has its way: one with the same addresses and EtherType, and not longer, has the same.
#[derive(Debug, Clone, Copy)]
struct Like {
    /// The [`words`] of its header.
    header: [u64; 2],
    /// Bytes that such a frame may have; 0 if there is no such frame.
    longest: u32,
}

impl Like {
    const NOTHING: Self = Self { header: [0; 2], longest: 0 };
}

/// Bytes 0 to 7 and 6 to 13 of a header, as they stand in memory: they overlap, so that two loads read all of it.
#[inline(always)]
fn words(header: &[u8; ETHERNET_LEN]) -> Option<[u64; 2]> {
    Some([u64::from_ne_bytes(*header.first_chunk()?), u64::from_ne_bytes(*header.last_chunk()?)])
}

impl<'a> Ingress<'a> {
    /// Frames that come in on the port in place `port_index`, to be decided by `switch`.
    pub fn new(switch: Switch<'a>, port_index: u16) -> Self {
        let home = switch.world.port(port_index).filter(|port| port.up).and_then(|port| match &port.role {
            Role::Switched { switch, vlans } => Some(Home { port, switch: *switch, vlans }),
            Role::Unlinked | Role::Wire { .. } => None,
        });
        Self { switch, port_index, second: switch.now.as_secs(), home, last: Like::NOTHING }
    }

    /// Whether a frame of `len` bytes that begins with `header` is like the last one that had a [way](Self::way): then it has the same.
    #[inline(always)]
    pub fn repeats(&self, header: &[u8; ETHERNET_LEN], len: u32) -> bool {
        words(header) == Some(self.last.header) && len <= self.last.longest
    }

    /// Loads what will be looked up for frames that begin with these bytes, all at once, so that the cache misses overlap. Costs
    /// nothing while the FDB is small, and little for frames that are alike.
    #[inline(always)]
    pub fn warm<'f>(&self, frames: impl Iterator<Item = &'f [u8]>) {
        if self.switch.fdb.is_cold() {
            self.warm_all(frames);
        }
    }

    #[inline(never)]
    fn warm_all<'f>(&self, frames: impl Iterator<Item = &'f [u8]>) {
        let (mut last, mut loaded) = (None, 0);
        for bytes in frames {
            let header = bytes.first_chunk::<ETHERNET_LEN>();
            if header == last {
                continue;
            }
            last = header;
            // At the first switch: what is looked up behind a trunk depends on what is found here.
            if let Some(Stations { src, dst, .. }) = self.stations(bytes) {
                loaded ^= self.switch.fdb.warm(src) ^ self.switch.fdb.warm(dst);
            }
        }
        std::hint::black_box(loaded);
    }

    /// What the FDB is asked about a frame between two stations; none if it is none or needs more than one look.
    #[inline(always)]
    fn stations(&self, bytes: &[u8]) -> Option<Stations> {
        let Home { switch, vlans, .. } = self.home?;
        let header = words(bytes.first_chunk()?)?;
        // Each has an address on top; behind the source stands the EtherType.
        let [first, second] = header.map(u64::from_be);
        let (dst, src) = (MacAddr::from_u64(first >> 16), MacAddr::from_u64(second >> 16));
        if (first | second) & GROUP != 0 || second >> 16 == 0 {
            return None;
        }
        let tag = match second as u16 {
            ethertype::S_TAG => return None,
            ethertype::C_TAG => Some(lone_tag(bytes)?),
            _ => None,
        };
        let vlan = match (vlans, tag) {
            (Membership::Access(vlan), None) | (Membership::Trunk { native: Some(vlan), .. }, None) => *vlan,
            (Membership::Trunk { vlans, .. }, Some(tag)) => {
                VlanId::new(tag.vid()).filter(|vlan| vlans.contains(*vlan))?
            }
            _ => return None,
        };
        let [src, dst] = [src, dst].map(|mac| Key::new(switch, vlan, mac));
        Some(Stations { header, tag, vlan, src, dst })
    }

    /// The way of a frame between two stations of one switch that are known, and were seen this second: its fate is [`Fate::Unicast`],
    /// and it teaches nothing. None says nothing: such a frame is to be [decided](Self::decide).
    #[inline]
    pub fn way(&mut self, bytes: &[u8], len: u32) -> Option<Way> {
        let Home { port, switch, .. } = self.home?;
        let Stations { header, tag, vlan, src, dst } = self.stations(bytes)?;
        let fdb = self.switch.fdb;
        if !fdb.is_fresh(src, Target::Port(port.id), self.second) {
            return None;
        }
        let to = fdb.port_of(self.switch.world, dst, self.second)?;
        let egress = to.egress(switch, vlan)?;
        let link_len = ETHERNET_LEN + if tag.is_some() { TAG_LEN } else { 0 };
        let longest = to.mtu.map_or(MAX_FRAME_LEN, |mtu| u32::from(mtu) + link_len as u32).min(MAX_FRAME_LEN);
        if to.id == port.id || !to.up || len > longest {
            return None;
        }
        let edit = TagEdit::on_egress(egress, vlan, tag, false);
        self.last = if tag.is_none() { Like { header, longest } } else { Like::NOTHING };
        Some(Way { to: to.id.index(), edit })
    }

    /// As [`Switch::judge`], without a trace, for the frame of `len` bytes whose first bytes these are.
    pub fn decide(&mut self, bytes: &[u8], len: u32, copies: &mut Vec<Copy>) -> Decision {
        self.last = Like::NOTHING;
        match LinkHeader::parse(bytes, len) {
            Ok(link) => {
                let frame = FrameView { link: &link, bytes, len };
                self.switch.judge(self.port_index, &frame, copies, &mut NoTrace)
            }
            Err(reason) => Decision::plain(Fate::Dropped(reason)),
        }
    }
}

/// The C-tag behind a frame's addresses, if it names a VLAN and no other tag stands behind it.
#[inline]
fn lone_tag(bytes: &[u8]) -> Option<Tci> {
    let tag: &[u8; 4] = bytes.get(ETHERNET_LEN..)?.first_chunk()?;
    let [tci, next] = [[tag[0], tag[1]], [tag[2], tag[3]]].map(u16::from_be_bytes);
    (!matches!(next, ethertype::C_TAG | ethertype::S_TAG)).then_some(Tci::from_bits(tci))
}
