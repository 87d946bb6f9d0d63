//! Why a frame was dropped: one closed list, in which name, side, sentence and mend are born together.
//!
//! The names are a contract: they are metric labels, what `because REASON` in `expect` compares with and what
//! `vnet explain` takes.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// On which side of the switch a frame was lost, and so which sum of the accounting law the drop belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The frame itself: it had no other fate.
    Ingress,
    /// One copy of it: others may have been delivered.
    Egress,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $side:ident, $what:literal, $mend:literal;)*) => {
        /// Why a frame, or a copy of one, was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// Every reason, in the order of [`DropReason::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where the frame was lost.
            pub const fn side(self) -> Side {
                match self { $(Self::$variant => Side::$side,)* }
            }

            /// One sentence: what was wrong.
            pub const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }

            /// One sentence: what a person can do about it.
            pub const fn mend(self) -> &'static str {
                match self { $(Self::$variant => $mend,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its Ethernet header.
    Runt = "runt", Ingress, "the frame is shorter than its Ethernet header (14 bytes, 18 with a VLAN tag)",
        "the guest's driver sends garbage; look at what sends on that interface";
    /// Longer than anything that virtio-net can carry.
    Oversize = "oversize", Ingress, "the frame is longer than 65,550 bytes, the most that virtio-net carries",
        "lower the guest's MTU or its segmentation offload size";
    /// The virtio-net header asks for what was not negotiated, or contradicts the frame.
    BadNetHeader = "bad-net-header", Ingress, "the virtio-net header asks for an offload that was not negotiated, or that does not fit the frame",
        "the guest's driver is faulty; reset it";
    /// A transmit chain holds buffers that are meant for the device to write.
    BadDirection = "bad-direction", Ingress, "the guest gave a buffer of the wrong direction",
        "the guest's driver is faulty; reset it";
    /// The port is administratively down.
    LinkDown = "link-down", Ingress, "the interface's link is down by configuration",
        "set `state: up` on the interface";
    /// The port is linked to nothing.
    Unlinked = "unlinked", Ingress, "the interface has no link",
        "add a link for the interface to the topology file";
    /// The source address is a group address or zero (IEEE 802-2014 §8.2.2: it can name no station).
    BadSource = "bad-source", Ingress, "the source MAC address is a group address or all zero",
        "look at what sends on that interface; no station may use such an address";
    /// Sent to 01-80-c2-00-00-0x (IEEE 802.1D-2004 §7.12.6: never forwarded).
    ReservedMulticast = "reserved-multicast", Ingress,
        "the destination is one of the sixteen group addresses that a bridge never forwards (STP, LACP, LLDP, 802.1X)",
        "join the two nodes by a wire (a link of two nodes) if they are to hear each other's control frames";
    /// A tagged frame on an access port.
    TaggedOnAccess = "tagged-on-access", Ingress, "a tagged frame came in on an access port",
        "make the link a trunk (`vlan: { trunk: [...] }`), or stop tagging in the guest";
    /// An untagged frame on a trunk without native VLAN.
    UntaggedOnTrunk = "untagged-on-trunk", Ingress, "an untagged frame came in on a trunk that has no native VLAN",
        "give the trunk a native VLAN (`vlan: { trunk: [...], native: NAME }`), or tag in the guest";
    /// The tag's VLAN is not carried by this port.
    VlanNotMember = "vlan-not-member", Ingress, "the frame's VLAN is not carried by this port",
        "add the VLAN to the link's `trunk` list, or change the tag in the guest";
    /// The destination was learned on the port that the frame came from (IEEE 802.1Q-2018 §8.6.1).
    SamePort = "same-port", Ingress, "the destination is on the port that the frame came from",
        "nothing: the two already hear each other there";
    /// Nobody else is in the VLAN.
    NoReceiver = "no-receiver", Ingress, "no other port carries the frame's VLAN",
        "check that the other interface is in the same VLAN: `vnet show vlans`";
    /// Our own bug: the turn that held this frame panicked.
    Internal = "internal", Ingress, "vnet failed inside (a panic was caught)",
        "report it, with the output of `vnet logs`; the port was stopped";
    /// The destination is not attached, or went away in mid-turn.
    PortDown = "port-down", Egress, "the destination port is down",
        "see why with `vnet show ports`: its guest is not attached, faulted or has no driver running";
    /// The receiver gave no buffers.
    NoBuffer = "no-buffer", Egress, "the receiving guest had no free buffer in its ring",
        "the guest does not keep up: give it a larger ring, more CPU, or slow the sender";
    /// The receiver's buffers are too small for the frame.
    BufferTooSmall = "buffer-too-small", Egress, "the frame does not fit the receiving guest's buffers",
        "the guest did not negotiate mergeable buffers: lower the sender's MTU or use a driver that has MRG_RXBUF";
    /// Longer than the MTU that the file gives the destination.
    MtuExceeded = "mtu-exceeded", Egress, "the frame is longer than the destination interface's `mtu`",
        "raise `mtu` on the destination, or lower the sender's";
}

impl DropReason {
    /// Its place in [`DropReason::ALL`]: an index for tables of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no drop reason of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSuchReason;

impl FromStr for DropReason {
    type Err = NoSuchReason;

    fn from_str(name: &str) -> Result<Self, NoSuchReason> {
        Self::ALL.iter().copied().find(|reason| reason.name() == name).ok_or(NoSuchReason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_same_everywhere() {
        for (place, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert_eq!(reason.name().parse(), Ok(*reason));
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{}\"", reason.name()));
        }
    }
}
