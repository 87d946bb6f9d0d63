//! The probe's frames: a raw one is built here, and what the switch saw is told apart from the source's other traffic.

use std::net::{IpAddr, Ipv6Addr};
use topology::plan::{Addresses, Expectation, Interface, Plan, Probe};
use vswitch_core::{
    build::{self, Ethernet},
    head::{ETHERNET_LEN, Head, Network, TcpFlags, Transport},
    mac::MacAddr,
};
use vswitchd::control::protocol::Sighting;

/// Bytes behind the header of an echo request: a length that the usual pingers (32, 56) do not send.
pub(super) const ECHO_PAYLOAD: u16 = 43;

/// Bytes of the header of an echo (RFC 792, RFC 4443 section 4.1) and of a datagram (RFC 768).
const HEADER: u16 = 8;

/// What is in a datagram.
pub(super) const DATAGRAM: &[u8] = b"vnet probe";

/// What is in a raw frame.
const MARKER: &[u8] = b"vnet probe: does this frame arrive where it was sent to?";

/// What a frame of the probe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The probe, sent to a MAC address of the destination, or to the gateway's: nobody else takes it.
    Direct,
    /// The probe, sent to another MAC address: somebody else answers for the destination's address.
    Astray,
    /// It asks for the MAC address of the destination's address (RFC 826, RFC 4861 section 4.3).
    Asks,
    /// The destination's answer to one of the others.
    Answers,
}

/// A frame of the probe as the switch saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What the switch noted.
    pub sighting: Sighting,
    /// What it is to the probe.
    pub role: Role,
}

/// What tells the probe's frames from all others of the same source.
pub(super) struct Probed<'a> {
    /// What is probed.
    pub(super) expectation: &'a Expectation,
    /// The destination's MAC addresses; a tap or a foreign guest may have several, or none that is known.
    pub(super) to: &'a [MacAddr],
    /// The routers' MAC address, if the probe goes by them.
    pub(super) gateway: Option<MacAddr>,
    /// The raw frame, if one was sent.
    pub(super) raw: Option<Vec<u8>>,
}

impl Probed<'_> {
    /// What a frame is to the probe; none: it is other traffic.
    pub(super) fn role(&self, sighting: &Sighting) -> Option<Role> {
        let head = Head::parse(&sighting.head, sighting.len).ok()?;
        if self.raw.as_deref().is_some_and(|raw| is_frame(raw, sighting)) {
            return Some(if self.expectation.probe == Probe::Arp { Role::Asks } else { Role::Direct });
        }
        let addresses = self.expectation.addresses?;
        if asks(&head, addresses) {
            return Some(Role::Asks);
        }
        let is_meant = self.to.contains(&head.link.dst) || self.gateway == Some(head.link.dst);
        let addressed = if is_meant { Role::Direct } else { Role::Astray };
        self.is_probe(&head, addresses).then_some(addressed)
    }

    /// Whether a frame that the destination sent to the source's MAC address, or to the gateway's, answers the probe, or says where the destination is.
    pub(super) fn is_answer(&self, sighting: &Sighting) -> bool {
        let Ok(head) = Head::parse(&sighting.head, sighting.len) else { return false };
        let Some(Addresses { src, dst }) = self.expectation.addresses else { return false };
        let (from, to) = match head.network {
            Network::Arp(arp) => {
                let between = (IpAddr::V4(arp.sender), IpAddr::V4(arp.target));
                return arp.operation == 2 && between == (dst, src);
            }
            Network::Ipv4(ip) => (IpAddr::V4(ip.src), IpAddr::V4(ip.dst)),
            Network::Ipv6(ip) => (IpAddr::V6(ip.src), IpAddr::V6(ip.dst)),
            _ => return false,
        };
        (from, to) == (dst, src)
            && match (self.expectation.probe, head.transport) {
                // Neighbour advertisements: RFC 4861 section 4.4.
                (_, Transport::Icmpv6 { kind: 136, .. }) => true,
                // Echo replies: RFC 792 type 0, RFC 4443 type 129.
                (Probe::Icmp, Transport::Icmpv4 { kind: 0, .. } | Transport::Icmpv6 { kind: 129, .. }) => {
                    true
                }
                (Probe::Tcp(port), Transport::Tcp { src, .. }) => src == port,
                (Probe::Udp(port), Transport::Udp { src, .. }) => src == port,
                _ => false,
            }
    }

    fn is_probe(&self, head: &Head, Addresses { src, dst }: Addresses) -> bool {
        let (from, to, payload) = match head.network {
            Network::Ipv4(ip) => {
                let payload = ip.total_len.saturating_sub(u16::from(ip.header_len));
                (IpAddr::V4(ip.src), IpAddr::V4(ip.dst), payload)
            }
            Network::Ipv6(ip) => (IpAddr::V6(ip.src), IpAddr::V6(ip.dst), ip.payload_len),
            _ => return false,
        };
        if (from, to) != (src, dst) {
            return false;
        }
        match (self.expectation.probe, head.transport) {
            // Echo requests: RFC 792 type 8, RFC 4443 type 128.
            (Probe::Icmp, Transport::Icmpv4 { kind: 8, .. } | Transport::Icmpv6 { kind: 128, .. }) => {
                payload == HEADER + ECHO_PAYLOAD
            }
            (Probe::Tcp(port), Transport::Tcp { dst, flags, .. }) => {
                dst == port && flags.contains(TcpFlags::SYN)
            }
            (Probe::Udp(port), Transport::Udp { dst, .. }) => {
                dst == port && usize::from(payload) == usize::from(HEADER) + DATAGRAM.len()
            }
            _ => false,
        }
    }
}

/// Whether a sighting is that frame: as long, and alike as far as it was copied.
fn is_frame(frame: &[u8], sighting: &Sighting) -> bool {
    usize::try_from(sighting.len) == Ok(frame.len()) && frame.starts_with(&sighting.head)
}

/// Whether a frame asks for the MAC address of the destination's address.
fn asks(head: &Head, addresses: Addresses) -> bool {
    match (head.network, addresses.dst) {
        (Network::Arp(arp), IpAddr::V4(dst)) => arp.operation == 1 && arp.target == dst,
        // The target is behind the bytes that were copied; the solicited-node address names it by its last 24 bits.
        (Network::Ipv6(ip), IpAddr::V6(dst)) => {
            matches!(head.transport, Transport::Icmpv6 { kind: 135, .. })
                && (ip.dst == dst || ip.dst == solicited_node(dst))
        }
        _ => false,
    }
}

/// The group that the owner of `address` listens to (RFC 4291 section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The MAC address of the routers, if the source sends the probe to its default gateway: what is for a host on none of its links.
pub(super) fn gateway(plan: &Plan, expectation: &Expectation) -> Option<MacAddr> {
    let mut interfaces = plan.nodes.iter().flat_map(|node| &node.interfaces);
    gateway_of(plan, interfaces.find(|interface| interface.port == expectation.src)?, expectation)
}

/// The same of a source that has these addresses and gateways.
pub(super) fn gateway_of(plan: &Plan, src: &Interface, expectation: &Expectation) -> Option<MacAddr> {
    let Addresses { dst, .. } = expectation.addresses?;
    let by_gateway = !matches!(expectation.probe, Probe::Arp | Probe::L2)
        && !src.addresses.iter().any(|network| network.contains(&dst))
        && src.gateways.iter().any(|gateway| gateway.is_ipv4() == dst.is_ipv4());
    plan.routers().filter(|_| by_gateway)?.mac
}

/// The probe as a frame straight to the destination's MAC address.
pub(super) fn raw_frame(expectation: &Expectation, src: MacAddr, dst: MacAddr) -> Vec<u8> {
    frame_with(expectation, (src, dst), MARKER)
}

/// The same with a packet of so many bytes; none if it cannot be as long, or as short.
pub(super) fn frame_of_size(
    expectation: &Expectation,
    (src, dst): (MacAddr, MacAddr),
    size: usize,
) -> Option<Vec<u8>> {
    let headers = frame_with(expectation, (src, dst), &[]).len() - ETHERNET_LEN;
    let is_filled =
        matches!(expectation.probe, Probe::Icmp | Probe::Udp(_)) && expectation.addresses.is_some();
    let data = size.checked_sub(headers).filter(|_| is_filled && size <= usize::from(u16::MAX))?;
    Some(frame_with(expectation, (src, dst), &vec![0; data]))
}

fn frame_with(expectation: &Expectation, (src, dst): (MacAddr, MacAddr), data: &[u8]) -> Vec<u8> {
    let link = Ethernet { src, dst, tag: None };
    let Some(addresses) = expectation.addresses.and_then(pair) else {
        return build::raw(link, probe::ETHERTYPE, data);
    };
    let ports = |port| (49_152, port);
    match (expectation.probe, addresses) {
        (Probe::L2, _) => build::raw(link, probe::ETHERTYPE, data),
        (Probe::Tcp(port), _) => build::tcp_syn(link, addresses, ports(port), 1),
        (Probe::Udp(port), _) => build::udp(link, addresses, ports(port), data),
        (Probe::Arp, build::Addresses::V4(src, dst)) => {
            build::arp_request(Ethernet { dst: MacAddr::BROADCAST, ..link }, src, dst)
        }
        (Probe::Arp, build::Addresses::V6(src, dst)) => build::neighbour_solicitation(link, src, dst),
        (Probe::Icmp, _) => build::echo(link, addresses, build::Echo::Request, 1, 1, data),
    }
}

fn pair(addresses: Addresses) -> Option<build::Addresses> {
    match (addresses.src, addresses.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(build::Addresses::V4(src, dst)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(build::Addresses::V6(src, dst)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use topology::plan::Verdict;
    use vswitch_core::{description::Origin, id::PortId};
    use vswitchd::control::protocol::Journey;

    const PC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
    const WEB: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);
    const THIEF: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 3]);

    fn expectation(probe: Probe, src: &str, dst: &str) -> Expectation {
        let addresses = Some(Addresses { src: src.parse().unwrap(), dst: dst.parse().unwrap() });
        let (src, dst) = (PortId::new(0, 0), PortId::new(1, 0));
        let (text, origin) = (String::new(), Origin { line: 1, column: 1 });
        Expectation { text, src, dst, addresses, probe, verdict: Verdict::Allow, origin }
    }

    fn seen(frame: &[u8]) -> Sighting {
        Sighting {
            port: PortId::new(0, 0),
            at_nanos: 0,
            head: frame[..frame.len().min(128)].to_vec(),
            len: u32::try_from(frame.len()).unwrap(),
            journey: Journey { steps: vec![], dropped: None, copies: vec![], lost: vec![] },
        }
    }

    fn link(dst: MacAddr) -> Ethernet {
        Ethernet { src: PC, dst, tag: None }
    }

    #[test]
    fn a_raw_frame_is_known_by_its_bytes_and_a_longer_one_is_not_it() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            for probe in [Probe::Icmp, Probe::Tcp(80), Probe::Udp(53), Probe::L2, Probe::Arp] {
                let expectation = expectation(probe, src, dst);
                let raw = raw_frame(&expectation, PC, WEB);
                let probed =
                    Probed { expectation: &expectation, to: &[WEB], gateway: None, raw: Some(raw.clone()) };
                let role = if probe == Probe::Arp { Role::Asks } else { Role::Direct };
                assert_eq!(probed.role(&seen(&raw)), Some(role), "{probe:?} {dst}");
                let other = build::raw(link(WEB), probe::ETHERTYPE, &[MARKER, b"!"].concat());
                assert_eq!(probed.role(&seen(&other)), None, "{probe:?} {dst}");
            }
        }
    }

    #[test]
    fn a_probe_by_the_gateway_is_the_probe() {
        const GATEWAY: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 9]);
        for (src, dst) in [("10.0.0.1", "10.1.0.2"), ("fd00::1", "fd01::2")] {
            let expectation = expectation(Probe::Tcp(80), src, dst);
            let syn = |to| raw_frame(&expectation, PC, to);
            let probed = |gateway| Probed { expectation: &expectation, to: &[WEB], gateway, raw: None };
            assert_eq!(probed(Some(GATEWAY)).role(&seen(&syn(GATEWAY))), Some(Role::Direct), "{dst}");
            // As the router passes it on.
            assert_eq!(probed(Some(GATEWAY)).role(&seen(&syn(WEB))), Some(Role::Direct), "{dst}");
            assert_eq!(probed(Some(GATEWAY)).role(&seen(&syn(THIEF))), Some(Role::Astray), "{dst}");
            assert_eq!(probed(None).role(&seen(&syn(GATEWAY))), Some(Role::Astray), "{dst}");
        }
    }

    #[test]
    fn an_answer_comes_from_where_the_probe_went() {
        for (src, dst, third) in [("10.0.0.1", "10.0.0.2", "10.0.0.3"), ("fd00::1", "fd00::2", "fd00::3")] {
            let back = |from: &str| {
                pair(Addresses { src: from.parse().unwrap(), dst: src.parse().unwrap() }).unwrap()
            };
            let (answer, other) = (back(dst), back(third));
            let echo = |kind| build::echo(link(PC), answer, kind, 7, 1, &[]);
            #[rustfmt::skip]
            let table = [
                (Probe::Icmp,    echo(build::Echo::Reply),                          true),
                (Probe::Icmp,    echo(build::Echo::Request),                        false),
                (Probe::Tcp(80), build::tcp_syn(link(PC), answer, (80, 50_000), 1), true),
                (Probe::Tcp(80), build::tcp_syn(link(PC), other, (80, 50_000), 1),  false),
                (Probe::Tcp(80), build::tcp_syn(link(PC), answer, (81, 50_000), 1), false),
                (Probe::Udp(53), build::udp(link(PC), answer, (53, 50_000), b"!"),  true),
                (Probe::Udp(53), build::udp(link(PC), answer, (54, 50_000), b"!"),  false),
            ];
            for (row, (probe, frame, is_answer)) in table.into_iter().enumerate() {
                let expectation = expectation(probe, src, dst);
                let probed = Probed { expectation: &expectation, to: &[WEB], gateway: None, raw: None };
                assert_eq!(probed.is_answer(&seen(&frame)), is_answer, "row {row} from {dst}");
            }
        }
    }

    #[test]
    fn the_probe_is_told_from_the_sources_other_traffic() {
        for (src, dst, third) in [("10.0.0.1", "10.0.0.2", "10.0.0.3"), ("fd00::1", "fd00::2", "fd00::3")] {
            let of = |from: &str, to: &str| {
                pair(Addresses { src: from.parse().unwrap(), dst: to.parse().unwrap() }).unwrap()
            };
            let (there, elsewhere) = (of(src, dst), of(src, third));
            let ours = vec![0; usize::from(ECHO_PAYLOAD)];
            let echo = |link, addresses, payload: &[u8]| {
                build::echo(link, addresses, build::Echo::Request, 7, 1, payload)
            };
            let asks = |to: &str| match of(src, to) {
                build::Addresses::V4(src, dst) => build::arp_request(link(MacAddr::BROADCAST), src, dst),
                build::Addresses::V6(src, dst) => build::neighbour_solicitation(link(WEB), src, dst),
            };
            let reply = build::echo(link(WEB), there, build::Echo::Reply, 7, 1, &ours);
            #[rustfmt::skip]
            let table = [
                (Probe::Icmp,    echo(link(WEB), there, &ours),                           Some(Role::Direct)),
                (Probe::Icmp,    echo(link(THIEF), there, &ours),                         Some(Role::Astray)),
                (Probe::Icmp,    echo(link(WEB), there, &[0; 56]),                        None),
                (Probe::Icmp,    echo(link(WEB), elsewhere, &ours),                       None),
                (Probe::Icmp,    reply,                                                   None),
                (Probe::Icmp,    build::udp(link(WEB), there, (1, 53), DATAGRAM),         None),
                (Probe::Icmp,    asks(dst),                                               Some(Role::Asks)),
                (Probe::Icmp,    asks(third),                                             None),
                (Probe::Arp,     asks(dst),                                               Some(Role::Asks)),
                (Probe::Tcp(80), build::tcp_syn(link(WEB), there, (50_000, 80), 1),       Some(Role::Direct)),
                (Probe::Tcp(80), build::tcp_syn(link(WEB), there, (50_000, 81), 1),       None),
                (Probe::Udp(53), build::udp(link(WEB), there, (50_000, 53), DATAGRAM),    Some(Role::Direct)),
                (Probe::Udp(53), build::udp(link(WEB), there, (50_000, 53), b"a query"),  None),
                (Probe::Udp(53), build::udp(link(WEB), there, (50_000, 54), DATAGRAM),    None),
            ];
            for (row, (probe, frame, role)) in table.into_iter().enumerate() {
                let expectation = expectation(probe, src, dst);
                let probed = Probed { expectation: &expectation, to: &[WEB], gateway: None, raw: None };
                assert_eq!(probed.role(&seen(&frame)), role, "row {row} to {dst}");
            }
        }
    }
}
