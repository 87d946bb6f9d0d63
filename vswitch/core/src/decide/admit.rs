//! Whether a frame may enter, and in which VLAN it is then.

use crate::{
    description::Membership,
    drop_reason::DropReason,
    head::LinkHeader,
    id::SwitchId,
    vlan::{Tci, VlanId},
    world::{Port, Role},
};
use serde::{Deserialize, Serialize};

/// How a frame was tagged when it came in (IEEE 802.1Q-2018 §3: untagged, priority-tagged, VLAN-tagged).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tagging {
    /// Without a tag.
    Untagged,
    /// With a tag that names no VLAN (VID 0).
    PriorityTagged,
    /// With a tag that names the VLAN.
    Tagged,
}

/// Where an admitted frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Over a wire to the port in this place.
    Wire { peer: u16 },
    /// Into a VLAN of a switch.
    Vlan(Classified),
}

/// A frame in its VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Classified {
    pub(crate) switch: SwitchId,
    pub(crate) vlan: VlanId,
    pub(crate) tagging: Tagging,
    /// The tag that it came with: its priority survives.
    pub(crate) tag: Option<Tci>,
}

/// Judges a frame that came in on `port`.
#[inline]
pub(super) fn admit(port: &Port, link: &LinkHeader) -> Result<Admitted, DropReason> {
    if !port.up {
        return Err(DropReason::LinkDown);
    }
    let (switch, vlans) = match &port.role {
        Role::Routers { .. } => return admit_routers(port, link),
        Role::Unlinked => return Err(DropReason::Unlinked),
        Role::Wire { peer } => return Ok(Admitted::Wire { peer: *peer }),
        Role::Switched { switch, vlans } => (*switch, vlans),
    };
    // IEEE 802-2014 §8.2.2: a group address names no station, so it cannot be one's own.
    if link.src.is_group() || link.src.is_zero() {
        return Err(DropReason::BadSource);
    }
    // IEEE 802.1Q-2018 §8.6.3, table 8-1: never relayed, whatever the VLAN.
    if link.dst.is_reserved_group() {
        return Err(DropReason::ReservedMulticast);
    }
    let tag = link.c_tag()?;
    let (vlan, tagging) = classify(vlans, tag)?;
    Ok(Admitted::Vlan(Classified { switch, vlan, tagging, tag }))
}

/// The same of what routers say themselves: tagged, in a VLAN that has a gateway.
#[cold]
fn admit_routers(port: &Port, link: &LinkHeader) -> Result<Admitted, DropReason> {
    let tag = link.c_tag()?;
    let vlan = tag.and_then(|tag| VlanId::new(tag.vid())).ok_or(DropReason::UntaggedOnTrunk)?;
    let switch = port.role.home(vlan).ok_or(DropReason::VlanNotMember)?;
    Ok(Admitted::Vlan(Classified { switch, vlan, tagging: Tagging::Tagged, tag }))
}

/// The frame's VLAN (IEEE 802.1Q-2018 §6.9.1), if the port admits such frames (§6.9, §8.6.2).
#[inline]
fn classify(vlans: &Membership, tag: Option<Tci>) -> Result<(VlanId, Tagging), DropReason> {
    let tagging = match tag.map(Tci::vid) {
        None => Tagging::Untagged,
        Some(0) => Tagging::PriorityTagged,
        // Table 9-2: reserved; no port can be a member.
        Some(0xfff) => return Err(DropReason::VlanNotMember),
        Some(_) => Tagging::Tagged,
    };
    match (vlans, tagging) {
        (Membership::Access(_), Tagging::Tagged) => Err(DropReason::TaggedOnAccess),
        (Membership::Access(vlan), _) => Ok((*vlan, tagging)),
        (Membership::Trunk { vlans, .. }, Tagging::Tagged) => {
            let vlan = tag.and_then(|tag| VlanId::new(tag.vid())).filter(|vlan| vlans.contains(*vlan));
            Ok((vlan.ok_or(DropReason::VlanNotMember)?, tagging))
        }
        (Membership::Trunk { native, .. }, _) => Ok((native.ok_or(DropReason::UntaggedOnTrunk)?, tagging)),
    }
}
