//! Random policies and frames that have to do with each other: few networks that nest, few ports and their neighbours.

use crate::support::frames::Random;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{net::IpAddr, sync::Arc};
use vswitch_core::{
    build::{self, Ethernet},
    description::Origin,
    firewall::policy::{
        Action, Direction, Family, GroupId, IcmpType, Match, PortRange, Protocol, Remote, Rule,
    },
    mac::MacAddr,
};

const LINK: Ethernet =
    Ethernet { src: MacAddr::new([2, 0, 0, 0, 0, 1]), dst: MacAddr::new([2, 0, 0, 0, 0, 2]), tag: None };
const ETHERTYPES: [u16; 6] = [0x0806, 0x88cc, 0x88b5, 0x0600, 0x8914, 0xffff];

/// What rules and frames of one policy are made of.
pub(super) struct Universe {
    networks: Vec<IpNet>,
    /// Ends of ranges.
    ports: Vec<u16>,
    types: [u8; 4],
    /// What half of the frames carry.
    protocol: Option<u8>,
    pub(super) members: Vec<Arc<[IpNet]>>,
    pub(super) rules: Vec<Rule>,
}

impl Universe {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut universe = Self {
            networks: networks(random),
            ports: [0, u16::MAX, 22, 80].into_iter().chain((0..8).map(|_| random.next() as u16)).collect(),
            types: [0, 8, 128, random.next() as u8],
            protocol: None,
            members: Vec::new(),
            rules: Vec::new(),
        };
        universe.members = (0..1 + random.below(4))
            .map(|_| {
                let most = random.pick(&[1, 3, 20]);
                (0..random.below(most)).map(|_| universe.member(random)).collect()
            })
            .collect();
        let most = random.pick(&[2, 8, 20, 20, 20, 64, 300]);
        let count = random.below(most);
        // Some interfaces have no rule that allows, or only rules of one direction.
        let without_allow = random.below(4) == 0;
        let one_way = [None, None, None, Some(Direction::Ingress), Some(Direction::Egress)];
        let one_way = random.pick(&one_way);
        while universe.rules.len() < count {
            let mut rule = universe.rule(random);
            rule.direction = one_way.unwrap_or(rule.direction);
            if rule.matches.check().is_ok() && !(without_allow && rule.action == Action::Allow) {
                universe.rules.push(rule);
            }
        }
        universe
    }

    /// That of frames which this rule is about, or nearly.
    pub(super) fn around(rule: &Rule, members: &[Arc<[IpNet]>]) -> Self {
        let networks = match &rule.matches.remote {
            Remote::Any => networks(&mut Random::new(3)),
            Remote::Networks(networks) => networks.clone(),
            Remote::Group(group) => members[usize::from(group.index())].to_vec(),
        };
        let ports =
            rule.matches.ports.iter().flat_map(|range| [range.first, range.last]).chain([80]).collect();
        let protocol = match rule.matches.protocol {
            Protocol::Number(number) => Some(number),
            Protocol::Any | Protocol::Icmp => None,
        };
        let (members, rules) = (Vec::new(), Vec::new());
        Self { networks, ports, types: [0, 8, 128, 3], protocol, members, rules }
    }

    fn member(&self, random: &mut Random) -> IpNet {
        let network = random.pick(&self.networks);
        match random.below(3) {
            0 => network,
            _ => self.near(random, network).into(),
        }
    }

    /// Any rule, even one that cannot be meant.
    fn rule(&self, random: &mut Random) -> Rule {
        let protocol = match random.below(10) {
            0 => Protocol::Any,
            1..4 => Protocol::Icmp,
            4 => Protocol::Number(random.pick(&[0, 1, 47, 50, 58, 60, 255])),
            _ => Protocol::Number(random.pick(&[6, 6, 17, 132])),
        };
        let has_ports = matches!(protocol, Protocol::Number(6 | 17 | 132)) && random.below(4) != 0;
        let has_type = matches!(protocol, Protocol::Icmp | Protocol::Number(1 | 58)) && random.below(3) != 0;
        let mut matches = Match {
            family: match has_type {
                true => random.pick(&[Family::Ipv4, Family::Ipv6]),
                false => random.pick(&[Family::Any, Family::Any, Family::Ipv4, Family::Ipv6]),
            },
            protocol,
            ports: (0..if has_ports { 1 + random.below(3) } else { 0 }).map(|_| self.range(random)).collect(),
            icmp: has_type.then(|| IcmpType {
                kind: random.pick(&self.types),
                code: random.pick(&[None, Some(0), Some(1), Some(255)]),
            }),
            remote: match random.below(6) {
                0 | 1 => Remote::Any,
                2 => Remote::Group(GroupId::new(random.below(self.members.len()) as u16)),
                _ => Remote::Networks((0..=random.below(2)).map(|_| random.pick(&self.networks)).collect()),
            },
        };
        if random.below(12) == 0 {
            let family = Family::EtherType(random.pick(&ETHERTYPES));
            matches = Match { family, ..Match::default() };
        }
        Rule {
            direction: random.pick(&[Direction::Ingress, Direction::Egress]),
            action: random.pick(&[Action::Allow, Action::Allow, Action::Drop, Action::Reject]),
            stateful: random.below(2) == 0,
            log: false,
            matches,
            origin: Origin { line: 1, column: 1 },
        }
    }

    fn range(&self, random: &mut Random) -> PortRange {
        let first = random.pick(&self.ports);
        match random.below(3) {
            0 => PortRange { first, last: first },
            1 => PortRange { first, last: first.saturating_add(random.below(200) as u16) },
            _ => {
                let other = random.pick(&self.ports);
                PortRange { first: first.min(other), last: first.max(other) }
            }
        }
    }

    /// An address at the edge of the network, on either side, or somewhere in it.
    fn near(&self, random: &mut Random, network: IpNet) -> IpAddr {
        let any = u128::from(random.next()) << 64 | u128::from(random.next());
        let choice = random.below(6);
        let near = |first: u128, last: u128| match choice {
            0 => first,
            1 => last,
            2 => first.wrapping_sub(1),
            3 => last.wrapping_add(1),
            _ => first | any & (last ^ first),
        };
        match network {
            IpNet::V4(network) => {
                let ends = [network.network(), network.broadcast()].map(|end| u128::from(end.to_bits()));
                IpAddr::V4((near(ends[0], ends[1]) as u32).into())
            }
            IpNet::V6(network) => {
                IpAddr::V6(near(network.network().to_bits(), network.broadcast().to_bits()).into())
            }
        }
    }

    /// A frame, now and then cut.
    pub(super) fn frame(&self, random: &mut Random) -> Vec<u8> {
        if random.below(16) == 0 {
            return build::raw(LINK, self.ethertype(random), &[0x45; 60]);
        }
        let one = random.pick(&self.networks);
        let of_family = |other: &IpNet| one.addr().is_ipv4() == other.addr().is_ipv4();
        let others: Vec<IpNet> = self.networks.iter().copied().filter(of_family).collect();
        let other = random.pick(&others);
        let ends = (self.near(random, one), self.near(random, other));
        let icmp = if one.addr().is_ipv4() { 1 } else { 58 };
        let any = random.pick(&[6, 6, 6, 17, 17, 132, 1, 58, icmp, icmp, icmp, 47, 0, 255, 51, 60]);
        let protocol = self.protocol.filter(|_| random.below(2) == 0).unwrap_or(any);
        let mut payload = self.payload(random, protocol);
        // Mostly whole, at times the first fragment or a later one.
        let fragment = random.pick(&[None, None, None, None, None, None, Some(1), Some(8), Some(0x4001)]);
        if random.below(12) == 0 {
            payload.truncate(random.below(20));
        }
        let mut frame = ip(ends, protocol, fragment, &payload);
        if random.below(40) == 0 {
            frame.truncate(14 + random.below(50));
        }
        frame
    }

    /// Of no IP version.
    fn ethertype(&self, random: &mut Random) -> u16 {
        match random.below(4) {
            0 => random.pick(&[46, 0x05ff, 0x9000]),
            _ => random.pick(&ETHERTYPES),
        }
    }

    fn payload(&self, random: &mut Random, protocol: u8) -> Vec<u8> {
        let mut payload = vec![0; 32];
        match protocol {
            1 | 58 => {
                payload[0] = random.pick(&self.types).wrapping_add(random.pick(&[0, 0, 0, 1]));
                payload[1] = random.pick(&[0, 0, 1, 2, 255]);
            }
            _ => {
                let port = random.pick(&self.ports);
                let dst = match random.below(4) {
                    0 => port.wrapping_add(1),
                    1 => port.wrapping_sub(1),
                    2 => port.wrapping_add(random.below(300) as u16),
                    _ => port,
                };
                payload[..2].copy_from_slice(&random.pick(&self.ports).to_be_bytes());
                payload[2..4].copy_from_slice(&dst.to_be_bytes());
                payload[4..6].copy_from_slice(&32u16.to_be_bytes());
                payload[12] = 5 << 4;
            }
        }
        payload
    }
}

/// Some addresses, and networks of any length around each.
fn networks(random: &mut Random) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for _ in 0..3 {
        let v4 = (random.next() >> 32) as u32;
        let v6 = u128::from(random.next()) << 64 | u128::from(random.next());
        let lengths = |random: &mut Random, most: u8| {
            let some = [0, most - 1, most, most, random.next() as u8 % (most + 1)];
            (0..3).map(|_| random.pick(&some)).collect::<Vec<u8>>()
        };
        for len in lengths(random, 32) {
            networks.push(IpNet::V4(Ipv4Net::new(v4.into(), len).expect("at most 32").trunc()));
        }
        for len in lengths(random, 128) {
            networks.push(IpNet::V6(Ipv6Net::new(v6.into(), len).expect("at most 128").trunc()));
        }
    }
    networks
}

/// An IP packet; `fragment` is offset and flag as IPv6 has them.
fn ip(ends: (IpAddr, IpAddr), protocol: u8, fragment: Option<u16>, payload: &[u8]) -> Vec<u8> {
    match ends {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [l0, l1] = (20 + payload.len() as u16).to_be_bytes();
            let field = fragment.map_or(0, |field| field >> 3 | (field & 1) << 13);
            let [f0, f1] = field.to_be_bytes();
            let header = [0x45, 0, l0, l1, 0, 7, f0, f1, 64, protocol, 0, 0];
            build::raw(LINK, 0x0800, &[&header, &src.octets()[..], &dst.octets(), payload].concat())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let extension = fragment.map_or(Vec::new(), |field| {
                let [f0, f1] = field.to_be_bytes();
                vec![protocol, 0, f0, f1, 0, 0, 0, 7]
            });
            let [l0, l1] = ((extension.len() + payload.len()) as u16).to_be_bytes();
            let next = if fragment.is_some() { 44 } else { protocol };
            let header = [0x60, 0, 0, 0, l0, l1, next, 64];
            let packet = [&header, &src.octets()[..], &dst.octets(), &extension, payload].concat();
            build::raw(LINK, 0x86dd, &packet)
        }
        _ => unreachable!("both ends are of one family"),
    }
}
