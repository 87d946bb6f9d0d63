//! Rule sets of any size, such as nobody should write. Also compiled into the benchmark, so it uses nothing else of the tests.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::sync::Arc;
use vswitch_core::{
    description::Origin,
    firewall::policy::{Action, Direction, Family, GroupId, Match, PortRange, Protocol, Remote, Rule},
};

/// Rules, all of ingress, and the members of groups that they name.
pub(crate) struct Set {
    pub(crate) rules: Vec<Rule>,
    pub(crate) members: Vec<Arc<[IpNet]>>,
}

/// A kind of set, by name.
pub(crate) type Kind = (&'static str, fn(usize) -> Set);

/// All kinds.
pub(crate) const KINDS: [Kind; 9] = [
    ("random IPv4", random_v4),
    ("random IPv6", random_v6),
    ("nested IPv4", |count| nested(count, 32)),
    ("nested IPv6", |count| nested(count, 128)),
    ("distinct ranges", distinct_ranges),
    ("hosts over ranges", hosts_over_ranges),
    ("groups of 1000", groups),
    ("groups across networks", groups_across_networks),
    ("every protocol", every_protocol),
];

/// The `n`-th random number (SplitMix64).
fn number(n: usize) -> u64 {
    let mut z = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn set(count: usize, matches: impl Fn(usize) -> Match) -> Set {
    let action = |n| [Action::Allow, Action::Allow, Action::Drop, Action::Reject][number(n) as usize % 4];
    let rule = |n| Rule {
        direction: Direction::Ingress,
        action: action(n),
        stateful: n % 3 != 0,
        log: false,
        matches: matches(n),
        origin: Origin { line: n as u32 + 1, column: 1 },
    };
    Set { rules: (0..count).map(rule).collect(), members: Vec::new() }
}

fn v4(bits: u64, len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new((bits as u32).into(), len).expect("at most 32").trunc())
}

/// Spread over the whole address, not its upper half alone.
fn v6(bits: u64, len: u8) -> IpNet {
    let bits = u128::from(bits) << 64 | u128::from(bits.rotate_left(17));
    IpNet::V6(Ipv6Net::new(bits.into(), len).expect("at most 128").trunc())
}

fn from(network: IpNet) -> Remote {
    Remote::Networks(vec![network])
}

fn ports(first: u16, last: u16) -> Vec<PortRange> {
    vec![PortRange { first, last: first.max(last) }]
}

fn some_protocol(n: usize) -> Protocol {
    Protocol::Number([6, 6, 6, 17][number(n) as usize % 4])
}

/// As people write them: a network, a port, a quarter for everybody.
fn random(count: usize, network: fn(u64) -> IpNet) -> Set {
    set(count, |n| {
        let bits = number(n + 1_000_000);
        let port = (bits >> 48) as u16;
        let protocol = if n % 10 == 9 { Protocol::Icmp } else { some_protocol(n) };
        Match {
            protocol,
            ports: match protocol {
                Protocol::Icmp => Vec::new(),
                _ => ports(port, port.saturating_add([0, 0, 100][n % 3])),
            },
            remote: if n % 4 == 0 { Remote::Any } else { from(network(bits)) },
            ..Match::default()
        }
    })
}

fn random_v4(count: usize) -> Set {
    random(count, |bits| v4(bits, 8 + (bits >> 40) as u8 % 25))
}

fn random_v6(count: usize) -> Set {
    random(count, |bits| v6(bits, (bits >> 40) as u8 % 129))
}

/// Networks of all lengths around few addresses, each rule with a range of its own; the narrow ones first.
fn nested(count: usize, most: u8) -> Set {
    let lengths = usize::from(most) + 1;
    let around = count.div_ceil(4 * lengths);
    set(count, |n| {
        let (len, bits) = (most - (n % lengths) as u8, number(n / lengths % around));
        let port = number(n) as u16;
        Match {
            protocol: some_protocol(n),
            ports: ports(port, port.saturating_add(n as u16 % 1000)),
            remote: from(if most == 32 { v4(bits, len) } else { v6(bits, len) }),
            ..Match::default()
        }
    })
}

/// Ranges that lie in each other, the inner ones first: no two are alike, and none hides another.
fn distinct_ranges(count: usize) -> Set {
    set(count, |n| Match {
        family: Family::Any,
        protocol: Protocol::Number(if n % 2 == 0 { 6 } else { 17 }),
        ports: ports(32_767 - 3 * (n as u16 / 2), 32_768 + 3 * (n as u16 / 2)),
        ..Match::default()
    })
}

/// Half of the rules are ports for everybody; the others give a host each a range that holds many of those.
fn hosts_over_ranges(count: usize) -> Set {
    set(count, |n| {
        let place = number(n) as u16;
        Match {
            protocol: Protocol::Number(6),
            ports: if n % 2 == 0 { ports(place, place) } else { ports(place / 2, place / 2 + 30_000) },
            remote: if n % 2 == 0 { Remote::Any } else { from(v4(number(n), 32)) },
            ..Match::default()
        }
    })
}

fn in_groups(mut set: Set, groups: usize) -> Set {
    let member = |n: usize| if n % 2 == 1 { v6(number(n), 128) } else { v4(number(n), 32) };
    set.members = (0..groups).map(|group| (0..1000).map(|n| member(group * 1000 + n)).collect()).collect();
    set
}

fn groups(count: usize) -> Set {
    let rules = set(count, |n| Match {
        protocol: some_protocol(n),
        ports: ports(number(n) as u16, number(n) as u16),
        remote: Remote::Group(GroupId::new((n % 64) as u16)),
        ..Match::default()
    });
    in_groups(rules, 64)
}

/// Four groups, each member of which is in a network of its own.
fn groups_across_networks(count: usize) -> Set {
    let rules = set(count, |n| Match {
        protocol: some_protocol(n),
        ports: ports(number(n) as u16, number(n) as u16),
        remote: match n % 2 {
            0 => Remote::Group(GroupId::new((n / 2 % 4) as u16)),
            _ => from(v4(number(n & !1), 24)),
        },
        ..Match::default()
    });
    in_groups(rules, 4)
}

/// Each rule another protocol number and another network.
fn every_protocol(count: usize) -> Set {
    set(count, |n| Match {
        protocol: Protocol::Number(n as u8),
        remote: from(v4(number(n), 16 + n as u8 % 17)),
        ..Match::default()
    })
}
