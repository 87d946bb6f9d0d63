//! What a guest behind a firewall may say of itself, and what needs no rule.
//!
//! A guest must not speak for others: its frames have its own addresses as their sender's, in every header that receivers believe. It is
//! no DHCP server and no router unless the file says so.

use crate::{
    drop_reason::DropReason,
    firewall::{
        interface::{Firewall, Identity},
        policy::Direction,
    },
    head::{Arp, FrameView, Head, Ipv4, Ipv6, Network, Transport},
    mac::MacAddr,
};
use std::net::Ipv6Addr;

/// UDP ports of DHCP servers and clients (RFC 2131 §4.1, RFC 8415 §7.2).
mod dhcp {
    pub(super) const SERVER: u16 = 67;
    pub(super) const CLIENT: u16 = 68;
    pub(super) const V6_CLIENT: u16 = 546;
    pub(super) const V6_SERVER: u16 = 547;
}

/// ICMPv6 types (RFC 2710 §3, RFC 3810 §5.2, RFC 4861 §4).
pub(super) mod icmpv6 {
    pub(super) const LISTENER_QUERY: u8 = 130;
    pub(super) const LISTENER_REPORT: u8 = 131;
    pub(super) const LISTENER_DONE: u8 = 132;
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
    pub(in crate::decide) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    pub(super) const REDIRECT: u8 = 137;
    pub(super) const LISTENER_REPORT_V2: u8 = 143;
}

const IGMP: u8 = 2;

/// IGMP types (RFC 3376 §4, RFC 2236 §2), and the length of the shortest message.
mod igmp {
    pub(super) const LEN: u16 = 8;
    pub(super) const QUERY: u8 = 0x11;
    pub(super) const REPORT_V1: u8 = 0x12;
    pub(super) const REPORT_V2: u8 = 0x16;
    pub(super) const LEAVE: u8 = 0x17;
    pub(super) const REPORT_V3: u8 = 0x22;
}

/// ARP operations (RFC 826).
pub(super) const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

/// Whether a guest may send the frame with this head, whatever its rules say.
pub(super) fn check(firewall: &Firewall, frame: &FrameView<'_>, head: &Head) -> Result<(), DropReason> {
    if let Some(identity) = &firewall.identity
        && !is_own(identity, head)
    {
        return Err(DropReason::AntiSpoof);
    }
    match (head.network, head.transport) {
        (Network::Ipv4(_) | Network::Ipv6(_), Transport::Udp { src, dst })
            if !firewall.dhcp_server
                && is_of_dhcp_server(matches!(head.network, Network::Ipv4(_)), src, dst) =>
        {
            Err(DropReason::DhcpGuard)
        }
        (Network::Ipv6(ip), Transport::Icmpv6 { kind, code }) => match kind {
            icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT | icmpv6::LISTENER_QUERY if !firewall.router => {
                Err(DropReason::RaGuard)
            }
            icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT => {
                Discovery { ip, kind, code, frame, head }.check(firewall.identity.as_ref())
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Whether a datagram between these ports is one of a DHCP server's.
#[inline]
pub(super) const fn is_of_dhcp_server(is_v4: bool, src: u16, dst: u16) -> bool {
    if is_v4 {
        src == dhcp::SERVER || dst == dhcp::CLIENT
    } else {
        src == dhcp::V6_SERVER || dst == dhcp::V6_CLIENT
    }
}

/// Whether the addresses that a frame has as its sender's are the interface's.
fn is_own(identity: &Identity, head: &Head) -> bool {
    let mac = head.link.src;
    match head.network {
        _ if !identity.has_mac(mac) => false,
        Network::Arp(arp) => is_own_arp(identity, &arp),
        Network::Ipv4(ip) => {
            identity.has_v4(mac, ip.src) || (ip.src.is_unspecified() && is_v4_start(&ip, head))
        }
        Network::Ipv6(ip) => {
            identity.has_v6(mac, ip.src) || (ip.src.is_unspecified() && is_v6_start(&ip, head))
        }
        // What cannot be read is dropped behind this; what is not IP names nobody else.
        Network::Unparsed(_) | Network::Other => true,
    }
}

fn is_own_arp(identity: &Identity, arp: &Arp) -> bool {
    // A probe names nobody as its sender (RFC 5227 §2.1.1).
    let probes = arp.operation == ARP_REQUEST && arp.sender.is_unspecified();
    identity.has_mac(arp.sender_mac) && (probes || identity.has_v4(arp.sender_mac, arp.sender))
}

/// What a host without address sends over IPv4: its DHCP client's questions, and which groups it is in.
fn is_v4_start(ip: &Ipv4, head: &Head) -> bool {
    ip.protocol == IGMP || matches!(head.transport, Transport::Udp { src: dhcp::CLIENT, dst: dhcp::SERVER })
}

/// What a host without address sends over IPv6: whether another has the address that it wants, which groups it is in, and its question for
/// routers (RFC 4861 §4.1, §4.3; RFC 3590 §4).
fn is_v6_start(ip: &Ipv6, head: &Head) -> bool {
    use icmpv6::{
        LISTENER_DONE, LISTENER_REPORT, LISTENER_REPORT_V2, NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION,
    };
    ip.dst.is_multicast()
        && matches!(
            head.transport,
            Transport::Icmpv6 {
                kind: NEIGHBOUR_SOLICITATION
                    | ROUTER_SOLICITATION
                    | LISTENER_REPORT
                    | LISTENER_DONE
                    | LISTENER_REPORT_V2,
                ..
            }
        )
}

/// A message of neighbour discovery.
struct Discovery<'a> {
    ip: Ipv6,
    kind: u8,
    code: u8,
    frame: &'a FrameView<'a>,
    head: &'a Head,
}

/// Options that name a link-layer address (RFC 4861 §4.6.1): of the sender, and of the target.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

impl Discovery<'_> {
    fn check(&self, identity: Option<&Identity>) -> Result<(), DropReason> {
        // RFC 4861 §6.1, §7.1, §8.1; RFC 6980 §5: in fragments nobody could judge it.
        if self.ip.hop_limit != 255 || self.code != 0 || self.ip.fragment.is_some() {
            return Err(DropReason::NdGuard);
        }
        let from = usize::from(self.head.transport_at.ok_or(DropReason::NdGuard)?);
        let end = usize::from(self.head.link.len) + 40 + usize::from(self.ip.payload_len);
        let target = match self.kind {
            icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT => {
                let target = self.frame.bytes.get(from + 8..).and_then(<[u8]>::first_chunk::<16>);
                Some(Ipv6Addr::from(*target.filter(|_| from + 24 <= end).ok_or(DropReason::NdGuard)?))
            }
            _ => None,
        };
        if let (Some(identity), Some(target)) = (identity, target)
            && self.claims_target()
            && !identity.has_v6(self.head.link.src, target)
        {
            return Err(DropReason::AntiSpoof);
        }
        let options = match self.kind {
            icmpv6::ROUTER_SOLICITATION => from + 8,
            icmpv6::ROUTER_ADVERTISEMENT => from + 16,
            icmpv6::REDIRECT => from + 40,
            _ => from + 24,
        };
        self.check_options(options, end, identity)
    }

    /// Whether the target is an address that the sender says is its own: in every answer, and where it asks for what it is about to take.
    fn claims_target(&self) -> bool {
        self.kind == icmpv6::NEIGHBOUR_ADVERTISEMENT || self.ip.src.is_unspecified()
    }

    /// The options from `at` to `end`: each has a length (RFC 4861 §4.6), and link-layer addresses are the interface's.
    fn check_options(
        &self,
        mut at: usize,
        end: usize,
        identity: Option<&Identity>,
    ) -> Result<(), DropReason> {
        if at > end {
            return Err(DropReason::NdGuard);
        }
        while at < end {
            let Some(&[kind, units]) = self.frame.bytes.get(at..).and_then(<[u8]>::first_chunk) else {
                // A router's may be so many that they were not all copied; what was is judged.
                let is_known_to_be_more =
                    self.kind == icmpv6::ROUTER_ADVERTISEMENT && end > self.frame.bytes.len();
                return if is_known_to_be_more { Ok(()) } else { Err(DropReason::NdGuard) };
            };
            let len = usize::from(units) * 8;
            if len == 0 || at + len > end {
                return Err(DropReason::NdGuard);
            }
            // A redirect tells the address of somebody else.
            let names_itself = match kind {
                SOURCE_LINK_LAYER => true,
                TARGET_LINK_LAYER => self.kind != icmpv6::REDIRECT,
                _ => false,
            };
            if names_itself {
                let mac = self.frame.bytes.get(at + 2..).and_then(<[u8]>::first_chunk);
                let mac = MacAddr::new(*mac.filter(|_| len == 8).ok_or(DropReason::NdGuard)?);
                if identity.is_some_and(|identity| !identity.has_mac(mac)) {
                    return Err(DropReason::AntiSpoof);
                }
            }
            at += len;
        }
        Ok(())
    }
}

/// Whether a frame is of what a link needs, so that it passes unless a rule drops it. `docs/firewall.md` has the list.
pub(super) fn is_basic(firewall: &Firewall, direction: Direction, bytes: &[u8], head: &Head) -> bool {
    let leaves = direction == Direction::Egress;
    match (head.network, head.transport) {
        (Network::Arp(arp), _) => matches!(arp.operation, ARP_REQUEST | ARP_REPLY),
        (Network::Ipv4(_), Transport::Udp { src, dst }) => {
            let (client, server) = (dhcp::CLIENT, dhcp::SERVER);
            is_dhcp(firewall.dhcp_server, leaves, (src, dst), (client, server))
        }
        (Network::Ipv6(_), Transport::Udp { src, dst }) => {
            let (client, server) = (dhcp::V6_CLIENT, dhcp::V6_SERVER);
            is_dhcp(firewall.dhcp_server, leaves, (src, dst), (client, server))
        }
        // Only a whole message: the rest would follow whatever it is.
        (Network::Ipv4(ip), Transport::Other) if ip.protocol == IGMP && ip.fragment.is_none() => {
            let is_there = ip.total_len >= u16::from(ip.header_len) + igmp::LEN;
            let kind = head.transport_at.and_then(|at| bytes.get(usize::from(at))).filter(|_| is_there);
            // A host tells its groups, and is asked for them.
            match kind {
                Some(&igmp::QUERY) => !leaves,
                Some(&(igmp::REPORT_V1 | igmp::REPORT_V2 | igmp::LEAVE | igmp::REPORT_V3)) => leaves,
                _ => false,
            }
        }
        // RFC 6980 §5 and, of multicast listeners, RFC 2710 §3 and RFC 3810 §5: a receiver must ignore what is a fragment, or comes from afar.
        (Network::Ipv6(ip), Transport::Icmpv6 { .. }) if ip.fragment.is_some() => false,
        (Network::Ipv6(ip), Transport::Icmpv6 { kind, .. }) => match kind {
            icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT => ip.hop_limit == 255,
            icmpv6::ROUTER_SOLICITATION => ip.hop_limit == 255 && (leaves || firewall.router),
            icmpv6::ROUTER_ADVERTISEMENT => ip.hop_limit == 255 && (!leaves || firewall.router),
            icmpv6::LISTENER_QUERY => ip.hop_limit == 1 && (!leaves || firewall.router),
            icmpv6::LISTENER_REPORT | icmpv6::LISTENER_DONE | icmpv6::LISTENER_REPORT_V2 => {
                ip.hop_limit == 1 && (leaves || firewall.router)
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether these are a client's questions or a server's answers, of an interface that is the one or may be the other.
fn is_dhcp(is_server: bool, leaves: bool, ports: (u16, u16), (client, server): (u16, u16)) -> bool {
    let asks = ports == (client, server);
    let answers = ports == (server, client);
    if leaves { asks || (answers && is_server) } else { answers || (asks && is_server) }
}
