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
    /// It calls itself a gateway.
    GatewaySource = "gateway-source", Ingress, "the frame's source MAC address is that of the lab's gateways",
        "look at what sends on that interface; give the guest an address of its own";
    /// An IP header that no router may pass on (RFC 1812 §5.2.2).
    BadIpHeader = "bad-ip-header", Ingress, "the frame is for a gateway, and its IP header contradicts itself or its checksum is wrong",
        "look at what sends on that interface; a checksum that is left to the device has to be asked for in the virtio-net header";
    /// A route of the sender's own (RFC 7126 §4.3, RFC 5095).
    SourceRoute = "source-route", Ingress, "the packet names a route of its sender's own, which no gateway follows",
        "send it without that option or routing header";
    /// An address that nobody has, or that is not there where the packet comes from (RFC 1812 §5.3.7, §5.3.8).
    Martian = "martian", Ingress, "the packet's source or destination is an address that cannot be there: a group's, a loopback, or one of another VLAN's network",
        "give the guest an address of its VLAN's network, or let it send by its interface in the other VLAN";
    /// A router translates what goes this way, and no connection is known that it could belong to, or begin.
    NatInvalid = "nat-invalid", Ingress, "a router translates addresses here, and the packet belongs to no connection that it knows, nor can it begin one",
        "a TCP connection begins with a SYN: one that the router forgot (idle, or a changed lab) is to be opened again; protocols without connections are not translated";
    /// No port of a router's address is free, or no room in the table of connections.
    NatExhausted = "nat-exhausted", Ingress, "a router translates addresses here, and found no free port, or no room in the table of connections, for a new connection",
        "see `vnet show connections` for who has so many; more room is `datapath: { connections: N }`, more ports another address outside";
    /// A fragment whose addresses a router would have to translate.
    NatFragment = "nat-fragment", Ingress, "a router translates addresses here, and the packet is a fragment: its ports stand in another one",
        "send packets that fit the MTU of the way, as TCP does by itself";
    /// No route leads there.
    NoRoute = "no-route", Ingress, "the gateway's router has no route to the packet's destination",
        "add one (`routers: { NAME: { routes: [{ to: ..., via: ... }] } }`), or see what there is: `vnet show routes`";
    /// A route leads nowhere.
    Blackhole = "blackhole", Ingress, "the longest route to the packet's destination is a blackhole",
        "remove that route, or add a longer one: `vnet show routes`";
    /// A packet for all in a network, from elsewhere (RFC 2644).
    DirectedBroadcast = "directed-broadcast", Ingress, "the packet is for all in a network that it comes to from elsewhere",
        "send it from within that VLAN";
    /// It was passed on as often as it may be.
    TtlExceeded = "ttl-exceeded", Ingress, "the packet's time to live (hop limit) ended at the gateway",
        "nothing, if it was sent by traceroute; else look for a loop of routes";
    /// More bits than the sender's interface may send in a second.
    BitRateEgress = "bit-rate-egress", Ingress, "the guest sends more bits a second than its interface may",
        "raise `limits: { egress: { rate: ... } }` of its interface, or let it send less";
    /// More frames than the sender's interface may send in a second.
    FrameRateEgress = "frame-rate-egress", Ingress, "the guest sends more frames a second than its interface may",
        "raise `limits: { egress: { frame-rate: ... } }` of its interface, or let it send less";
    /// More connections than the sender's interface may open in a second.
    ConnectionRateEgress = "connection-rate-egress", Ingress, "the guest opens more connections a second than its interface may",
        "raise `limits: { egress: { new-connections: ... } }` of its interface, or look at what opens so many";
    /// More broadcasts than the sender's interface may send in a second.
    StormBroadcast = "storm-broadcast", Ingress, "the guest sends more broadcasts a second than its interface may",
        "look for a loop behind it; else raise `limits: { storm-control: { broadcast: ... } }`";
    /// More multicasts than the sender's interface may send in a second.
    StormMulticast = "storm-multicast", Ingress, "the guest sends more frames to groups a second than its interface may",
        "look at what sends them; else raise `limits: { storm-control: { multicast: ... } }`";
    /// More frames to unknown stations than the sender's interface may send in a second.
    StormUnknownUnicast = "storm-unknown-unicast", Ingress,
        "the guest sends more frames a second to stations that the switch does not know than its interface may",
        "see why they are not known (`vnet show fdb`); else raise `limits: { storm-control: { unknown-unicast: ... } }`";
    /// From an address that its interface may not have besides those that it has.
    MacLimit = "mac-limit", Ingress, "the source MAC address is one too many for its interface, or is another interface's",
        "look at what sends under so many addresses (`vnet show fdb`); else raise `limits: { macs: ... }`";
    /// It calls itself what its interface may not (anti-spoof).
    AntiSpoof = "anti-spoof", Ingress, "the frame names a MAC or IP address as its sender's that is not the interface's",
        "if the guest may use it, add it to the interface's `allowed-addresses`, or set `anti-spoof: false`";
    /// It answers as a DHCP server, and its interface is none.
    DhcpGuard = "dhcp-guard", Ingress, "the guest answers as a DHCP server, and its interface is not allowed to",
        "if it is to serve DHCP, say so on its interface (`dhcp-server: true`)";
    /// It speaks as an IPv6 router, and its interface is none.
    RaGuard = "ra-guard", Ingress, "the guest advertises itself as an IPv6 router or redirects others, and its interface is not allowed to",
        "if it is a router, say so on its interface (`router-advertisements: true`)";
    /// Neighbour discovery that every receiver must discard (RFC 4861 §6.1, §7.1, §8.1; RFC 6980).
    NdGuard = "nd-guard", Ingress, "the neighbour discovery message is not valid: hop limit other than 255, a fragment, or wrong lengths",
        "look at what sends on that interface; no honest station sends such messages";
    /// What a filter would have to read of it cannot be read.
    UnparsedEgress = "unparsed-egress", Ingress,
        "a header that the sender's firewall has to read is cut, malformed, too far behind, hidden by LLC or a second tag, or names a route of its own",
        "look at what sends on that interface; without security groups such frames pass";
    /// No rule of the sender lets it leave.
    PolicyEgress = "policy-egress", Ingress, "the sender's security groups do not let the frame leave",
        "add an egress rule for it to a security group of the sender; `vnet trace` names the rule that decided";
    /// A rule of the sender rejects it.
    RejectEgress = "reject-egress", Ingress, "a rule of the sender's security groups rejects the frame",
        "change the rule; `vnet trace` names it";
    /// It belongs to no connection, or contradicts its connection.
    InvalidEgress = "invalid-egress", Ingress, "the frame belongs to no connection that the sender's firewall knows, or does not fit its state",
        "open the connection anew; if frames of it take another way, let stateless rules allow them";
    /// The sender's interface has as many connections as it may have.
    ConnectionLimitEgress = "connection-limit-egress", Ingress, "the sender's interface has as many connections as it may have, and all are in use",
        "look at what opens so many; it can have another when one of them ends";
    /// A fragment that follows none which passed, and that no rule of the sender can judge.
    FragmentEgress = "fragment-egress", Ingress,
        "no first fragment of its datagram passed the sender's firewall in the last seconds, and without one its ports are not known",
        "see what became of the first one; if fragments overtake each other, lower the MTU, or allow the protocol without ports";
    /// A fragment that no honest sender makes (RFC 1858, RFC 3128, RFC 7112, RFC 8200 §4.5).
    FragmentMalformedEgress = "fragment-malformed-egress", Ingress,
        "the fragment is too short for its headers, lies within them or behind 65,535 bytes, has a length that none has, or is one of a fragment",
        "look at what sends it; no honest station makes such fragments";
    /// A fragment that touches what was seen of its datagram (RFC 5722).
    FragmentOverlapEgress = "fragment-overlap-egress", Ingress,
        "the fragment repeats, overlaps or contradicts another one of its datagram that passed the sender's firewall",
        "look at what sends it; where a network doubles frames it does no harm";
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
    /// More bits than the receiver's interface may get in a second.
    BitRateIngress = "bit-rate-ingress", Egress, "more bits a second are sent to the receiver than its interface may get",
        "raise `limits: { ingress: { rate: ... } }` of the receiver's interface, or slow the sender";
    /// More frames than the receiver's interface may get in a second.
    FrameRateIngress = "frame-rate-ingress", Egress, "more frames a second are sent to the receiver than its interface may get",
        "raise `limits: { ingress: { frame-rate: ... } }` of the receiver's interface, or slow the sender";
    /// More connections than may be opened to the receiver in a second.
    ConnectionRateIngress = "connection-rate-ingress", Egress, "more connections a second are opened to the receiver than its interface may get",
        "raise `limits: { ingress: { new-connections: ... } }` of the receiver's interface, or look at what opens so many";
    /// What a filter would have to read of it cannot be read.
    UnparsedIngress = "unparsed-ingress", Egress,
        "a header that the receiver's firewall has to read is cut, malformed, too far behind, hidden by LLC or a second tag, or names a route of its own",
        "look at what sends it; to interfaces without security groups such frames pass";
    /// No rule of the receiver lets it enter.
    PolicyIngress = "policy-ingress", Egress, "the receiver's security groups do not let the frame enter",
        "add an ingress rule for it to a security group of the receiver; `vnet trace` names the rule that decided";
    /// A rule of the receiver rejects it.
    RejectIngress = "reject-ingress", Egress, "a rule of the receiver's security groups rejects the frame",
        "change the rule; `vnet trace` names it";
    /// It belongs to no connection, or contradicts its connection.
    InvalidIngress = "invalid-ingress", Egress, "the frame belongs to no connection that the receiver's firewall knows, or does not fit its state",
        "open the connection anew; if frames of it take another way, let stateless rules allow them";
    /// The receiver's interface has as many connections as it may have.
    ConnectionLimitIngress = "connection-limit-ingress", Egress, "the receiver's interface has as many connections as it may have, and all are in use",
        "look at what opens so many; it can have another when one of them ends";
    /// A fragment that follows none which passed, and that no rule of the receiver can judge.
    FragmentIngress = "fragment-ingress", Egress,
        "no first fragment of its datagram passed the receiver's firewall in the last seconds, and without one its ports are not known",
        "see what became of the first one; if fragments overtake each other, lower the MTU, or allow the protocol without ports";
    /// A fragment that no honest sender makes (RFC 1858, RFC 3128, RFC 7112, RFC 8200 §4.5).
    FragmentMalformedIngress = "fragment-malformed-ingress", Egress,
        "the fragment is too short for its headers, lies within them or behind 65,535 bytes, has a length that none has, or is one of a fragment",
        "look at what sends it; no honest station makes such fragments";
    /// A fragment that touches what was seen of its datagram (RFC 5722).
    FragmentOverlapIngress = "fragment-overlap-ingress", Egress,
        "the fragment repeats, overlaps or contradicts another one of its datagram that passed the receiver's firewall",
        "look at what sends it; where a network doubles frames it does no harm";
}

impl DropReason {
    /// Whether rules of security groups dropped it, or what is known of connections that they allowed: `because policy`.
    pub const fn is_policy(self) -> bool {
        matches!(
            self,
            Self::PolicyEgress
                | Self::PolicyIngress
                | Self::RejectEgress
                | Self::RejectIngress
                | Self::InvalidEgress
                | Self::InvalidIngress
                | Self::FragmentEgress
                | Self::FragmentIngress
        )
    }

    /// Whether a rule rejects it, so that its sender is told.
    pub const fn is_reject(self) -> bool {
        matches!(self, Self::RejectEgress | Self::RejectIngress)
    }

    /// Whether a firewall dropped it, for whatever cause: `because firewall`.
    pub const fn is_firewall(self) -> bool {
        let guards = matches!(self, Self::AntiSpoof | Self::DhcpGuard | Self::RaGuard | Self::NdGuard);
        let limits = matches!(self, Self::ConnectionLimitEgress | Self::ConnectionLimitIngress);
        let unparsed = matches!(
            self,
            Self::UnparsedEgress
                | Self::UnparsedIngress
                | Self::FragmentMalformedEgress
                | Self::FragmentMalformedIngress
        );
        let overlaps = matches!(self, Self::FragmentOverlapEgress | Self::FragmentOverlapIngress);
        self.is_policy() || guards || limits || unparsed || overlaps
    }

    /// Whether `limits` of an interface dropped it.
    pub const fn is_limit(self) -> bool {
        matches!(
            self,
            Self::BitRateEgress
                | Self::BitRateIngress
                | Self::FrameRateEgress
                | Self::FrameRateIngress
                | Self::ConnectionRateEgress
                | Self::ConnectionRateIngress
                | Self::StormBroadcast
                | Self::StormMulticast
                | Self::StormUnknownUnicast
                | Self::MacLimit
        )
    }

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
