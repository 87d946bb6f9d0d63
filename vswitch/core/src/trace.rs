//! A frame's journey, step by step, told by the code that decides it.

use crate::{
    decide::{Classified, TagEdit, Tagging},
    description::Membership,
    drop_reason::DropReason,
    fdb::{Former, Learned, Refusal, Target},
    firewall::{
        answer::AnswerKind,
        classify,
        connections::{Hosts, State},
        interface::PolicyFault,
        policies::Policy,
        policy::{Action, Direction},
        tuple::{Service, Tuple},
    },
    head::{FrameView, LinkHeader},
    id::SwitchId,
    mac::MacAddr,
    route::{NewEnds, Route, Router},
    vlan::VlanId,
    world::{HopId, Port, Role, World},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Who is told of each step.
pub trait Tracer {
    /// A step was taken; `make` says which, if it is of interest.
    fn step(&mut self, make: impl FnOnce() -> Step);
}

/// Nobody: compiles to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTrace;

impl Tracer for NoTrace {
    #[inline(always)]
    fn step(&mut self, _: impl FnOnce() -> Step) {}
}

/// Keeps every step.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Tracer for Recorder {
    fn step(&mut self, make: impl FnOnce() -> Step) {
        self.steps.push(make());
    }
}

/// One step of a frame's way through the switch. Its `Display` is one line for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It came in.
    Arrived {
        /// Where.
        port: Place,
        /// Its length in bytes.
        len: u32,
        /// Source address.
        src: MacAddr,
        /// Destination address.
        dst: MacAddr,
        /// What it is, in words.
        what: String,
    },
    /// It passes a wire.
    Wired {
        /// The other end.
        to: Place,
    },
    /// It may enter.
    Admitted {
        /// The switch.
        switch: String,
        /// The VLAN, as `name (id)`.
        vlan: String,
        /// How it was tagged.
        tagging: Tagging,
    },
    /// The firewall of an interface judged it.
    Filtered {
        /// The interface's port.
        port: Place,
        /// Which way the frame goes, seen from the guest.
        direction: Direction,
        /// What decided.
        by: FilteredBy,
        /// Whether it passes.
        passes: bool,
        /// If rules drop it: what would let it pass.
        mend: Option<String>,
    },
    /// Its sender is told that a rule rejects it.
    Answered {
        /// The port that it came from.
        port: Place,
        /// What it is told.
        kind: AnswerKind,
    },
    /// Its source address was not where it was known.
    Learned {
        /// The switch.
        switch: String,
        /// The address.
        mac: MacAddr,
        /// Where it was seen: a port or a neighbouring switch.
        at: String,
        /// What was made of it.
        what: LearnedStep<String>,
    },
    /// Its destination is known.
    Found {
        /// The switch.
        switch: String,
        /// The address.
        mac: MacAddr,
        /// Where it is: a port or a neighbouring switch.
        at: String,
        /// Whether the topology file says so.
        is_static: bool,
    },
    /// It goes to all in the VLAN.
    Flooded {
        /// The switch.
        switch: String,
        /// Whether it is meant for a group; else its destination is unknown.
        group: bool,
        /// The ports of this switch that get it.
        ports: Vec<String>,
    },
    /// It is at a gateway, and a route leads on.
    Routed {
        /// The router.
        router: String,
        /// What the route leads to.
        to: IpNet,
        /// The line that says the route, or the gateway whose network it is.
        line: u32,
        /// Where it goes; none: nowhere.
        onward: Option<NextHop>,
    },
    /// A router translates it.
    Translated {
        /// Its source and destination afterwards.
        hosts: Hosts,
        /// Its ports, or the identifier of its query, afterwards.
        ends: NewEnds,
    },
    /// It is for the router itself.
    ToRouter {
        /// The router.
        router: String,
        /// Why.
        why: ToRouter,
    },
    /// It goes to another switch.
    Crossed {
        /// From this switch.
        from: String,
        /// To this one.
        to: String,
        /// The line that says the link.
        line: u32,
    },
    /// A copy's tag is changed.
    Retagged {
        /// The port that it leaves by.
        port: Place,
        /// The change.
        edit: TagEdit,
    },
    /// A copy is lost.
    Lost {
        /// The port that it was for.
        port: Place,
        /// Why.
        reason: DropReason,
    },
    /// It is dropped.
    Dropped {
        /// Why.
        reason: DropReason,
        /// The rule of the topology file that made it so.
        rule: Option<String>,
    },
}

/// The neighbour that a packet goes to next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Its VLAN, as `name (id)`.
    pub vlan: String,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, if it is known.
    pub mac: Option<MacAddr>,
}

/// Why a frame is for a router itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRouter {
    /// Its destination is an address of the router's.
    Own(IpAddr),
    /// Its destination is an address of the link alone.
    OnLink(IpAddr),
    /// It is no IP packet, or one behind more tags than that of its VLAN.
    NotIp,
    /// It waits there while the router asks who has that address.
    Asks(IpAddr),
    /// It asks who has that address: the router answers, and nobody else hears it.
    AnswersFor(IpAddr),
    /// It is longer than this where it goes on, and may be cut: the router does that.
    Cuts(u16),
}

/// What decided in a firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilteredBy {
    /// The frame belongs to a connection that was allowed.
    Connection {
        /// Where the connection stands.
        state: State,
        /// Which way its first frame went.
        opener: Direction,
    },
    /// The frame contradicts its connection, or there is none.
    NoConnection,
    /// Rules allow it, but there is no room for its connection.
    Full,
    /// Rules allow it, but connections are opened faster than they may be.
    Rate,
    /// A rule.
    Rule {
        /// The security group.
        group: String,
        /// The rule's line.
        line: u32,
        /// What it says.
        action: Action,
    },
    /// No rule matches.
    Default {
        /// What then holds.
        action: Action,
    },
    /// It is on the list of what needs no rule.
    Basic,
    /// The first fragment of its datagram passed.
    FirstFragment,
    /// What rules ask for stands in another frame, which did not pass or is forgotten.
    Fragment,
    /// It is a fragment that no honest sender makes.
    MalformedFragment,
    /// It is a fragment that touches what was seen of its datagram.
    OverlappingFragment,
    /// What rules ask for cannot be read.
    Unparsed,
}

/// A port, and the line of the topology file that says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `node:interface`.
    pub name: String,
    /// The line.
    pub line: u32,
}

/// What was made of a source address, where a place is told as `P`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedStep<P> {
    /// It was new.
    New,
    /// It was known elsewhere.
    Moved {
        /// Where.
        from: P,
    },
    /// Not learned: the topology file says that it is elsewhere.
    IsStatic,
    /// Not learned: it stays where it was learned.
    IsSticky,
    /// Not learned: the port has as many as it may have.
    PortLimit,
    /// Not learned: there was no room.
    TableFull,
    /// Not learned: another worker was at it.
    Busy,
}

impl Place {
    fn of(port: &Port) -> Self {
        Self { name: port.name.clone(), line: port.origin.line }
    }
}

fn switch_name(world: &World, id: SwitchId) -> String {
    world.switch(id).map(|switch| switch.name.clone()).unwrap_or_default()
}

fn vlan_name(world: &World, id: VlanId) -> String {
    format!("{} ({id})", world.vlan_name(id).unwrap_or("unnamed"))
}

fn target_name(world: &World, target: Target) -> String {
    match target {
        Target::Port(id) => world.port(id.index()).map(|port| port.name.clone()).unwrap_or_default(),
        Target::Trunk(neighbour) => switch_name(world, neighbour),
    }
}

/// The name of where an address was.
pub fn former_name(world: &World, former: Former) -> String {
    former.target(world).map_or_else(|| "a port that is gone".into(), |target| target_name(world, target))
}

impl Step {
    pub(crate) fn arrived(port: &Port, frame: &FrameView<'_>) -> Self {
        let LinkHeader { src, dst, .. } = *frame.link;
        Self::Arrived { port: Place::of(port), len: frame.len, src, dst, what: frame.head().to_string() }
    }

    pub(crate) fn wired(to: &Port) -> Self {
        Self::Wired { to: Place::of(to) }
    }

    pub(crate) fn admitted(world: &World, frame: &Classified) -> Self {
        Self::Admitted {
            switch: switch_name(world, frame.switch),
            vlan: vlan_name(world, frame.vlan),
            tagging: frame.tagging,
        }
    }

    pub(crate) fn filtered(
        port: &Port,
        direction: Direction,
        by: FilteredBy,
        passes: bool,
        mend: Option<String>,
    ) -> Self {
        Self::Filtered { port: Place::of(port), direction, by, passes, mend }
    }

    pub(crate) fn learned(
        world: &World,
        switch: SwitchId,
        mac: MacAddr,
        at: Target,
        learned: Learned,
    ) -> Self {
        Self::Learned {
            switch: switch_name(world, switch),
            mac,
            at: target_name(world, at),
            what: LearnedStep::from(learned).map(|former| former_name(world, former)),
        }
    }

    pub(crate) fn found(world: &World, switch: SwitchId, mac: MacAddr, at: Target, is_static: bool) -> Self {
        Self::Found { switch: switch_name(world, switch), mac, at: target_name(world, at), is_static }
    }

    pub(crate) fn flooded<'p>(
        world: &World,
        switch: SwitchId,
        dst: MacAddr,
        ports: impl Iterator<Item = &'p Port>,
    ) -> Self {
        let ports = ports.map(|port| port.name.clone()).collect();
        Self::Flooded { switch: switch_name(world, switch), group: dst.is_group(), ports }
    }

    /// `next` is the neighbour that it goes to.
    pub(crate) fn routed(
        world: &World,
        router: &Router,
        route: &Route,
        next: Option<(VlanId, IpAddr, Option<MacAddr>)>,
    ) -> Self {
        Self::Routed {
            router: router.name.clone(),
            to: route.to,
            line: route.origin.line,
            onward: next.map(|(vlan, address, mac)| NextHop { vlan: vlan_name(world, vlan), address, mac }),
        }
    }

    pub(crate) fn to_router(router: &Router, why: ToRouter) -> Self {
        Self::ToRouter { router: router.name.clone(), why }
    }

    pub(crate) fn crossed(world: &World, hop: HopId) -> Self {
        let hop = world.hop(hop);
        Self::Crossed {
            from: switch_name(world, hop.from),
            to: switch_name(world, hop.to),
            line: hop.origin.line,
        }
    }

    pub(crate) fn retagged(port: &Port, edit: TagEdit) -> Self {
        Self::Retagged { port: Place::of(port), edit }
    }

    /// A copy that was for `port` is not delivered.
    pub fn lost(port: &Port, reason: DropReason) -> Self {
        Self::Lost { port: Place::of(port), reason }
    }

    /// The sender of the frame, at `port`, is told.
    pub fn answered(port: &Port, kind: AnswerKind) -> Self {
        Self::Answered { port: Place::of(port), kind }
    }

    /// `place` is where the frame came in, if that port exists.
    pub(crate) fn dropped(reason: DropReason, place: Option<(&World, &Port)>) -> Self {
        let rule = place.and_then(|(world, port)| rule(reason, world, port)).map(|rule| rule.to_string());
        Self::Dropped { reason, rule }
    }
}

/// What the topology file says that made a port drop a frame. Its `Display` is `line 7 makes it access users (10)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The line.
    pub line: u32,
    /// What that line does to the port: `makes it access users (10)`.
    pub does: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} {}", self.line, self.does)
    }
}

/// The line of the topology file that a drop follows from. `port` is where the drop happened: where the frame came in, or
/// where a copy of it was to go. None: it follows from the frame or the guest, whatever the file says.
pub fn rule(reason: DropReason, world: &World, port: &Port) -> Option<Rule> {
    if matches!(reason, DropReason::LinkDown | DropReason::PortDown)
        && let Some(PolicyFault { line, what }) = port.fault()
    {
        return Some(Rule { line: *line, does: format!("keeps it down: {what}") });
    }
    let interface = |does: String| Some(Rule { line: port.origin.line, does });
    if let Some(limits) = port.limits.as_ref().filter(|_| reason.is_limit()) {
        let does = format!("gives it `{}`", limits.words(reason, port.mac_limit)?);
        return Some(Rule { line: limits.said.origin.line, does });
    }
    let said = match (reason, &port.role) {
        (DropReason::LinkDown, _) => return interface("sets it down".into()),
        (DropReason::PortDown, _) if !port.up => return interface("sets it down".into()),
        (reason, _) if reason.is_firewall() => {
            let firewall = port.firewall.as_ref()?;
            let does = match &firewall.groups[..] {
                [] => "guards it, and no security group allows anything".into(),
                groups => format!("guards it by security groups {}", groups.join(", ")),
            };
            return Some(Rule { line: firewall.origin.line, does });
        }
        (DropReason::Unlinked, _) => return interface("gives it no link".into()),
        (DropReason::MtuExceeded, _) => return interface(format!("gives it `mtu: {}`", port.mtu?)),
        (
            DropReason::TaggedOnAccess
            | DropReason::UntaggedOnTrunk
            | DropReason::VlanNotMember
            | DropReason::NoReceiver,
            Role::Switched { vlans, .. },
        ) => match vlans {
            Membership::Access(vlan) => format!("access {}", vlan_name(world, *vlan)),
            Membership::Trunk { vlans, native } => {
                // The list is for people: a trunk of all VLANs would fill the screen.
                let mut names: Vec<_> = vlans.iter().take(9).map(|vlan| vlan_name(world, vlan)).collect();
                if names.len() == 9 {
                    names[8] = "…".into();
                }
                let native = native.map_or("none".into(), |native| vlan_name(world, native));
                format!("trunk [{}], native {native}", names.join(", "))
            }
        },
        _ => return None,
    };
    let line = port.link_origin.unwrap_or(port.origin).line;
    Some(Rule { line, does: format!("makes it {said}") })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {})", self.name, self.line)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrived { port, len, src, dst, what } => {
                write!(f, "came in at {port}, {len} bytes, {src} -> {dst}, {what}")
            }
            Self::Wired { to } => write!(f, "passed the wire to {to}"),
            Self::Admitted { switch, vlan, tagging } => {
                let tagging = match tagging {
                    Tagging::Untagged => "untagged",
                    Tagging::PriorityTagged => "priority-tagged",
                    Tagging::Tagged => "tagged",
                };
                write!(f, "admitted by {switch} to VLAN {vlan} as {tagging}")
            }
            Self::Filtered { port, direction, by, passes, mend } => {
                let done = if *passes { "passed" } else { "was stopped by" };
                let way = match direction {
                    Direction::Egress => "from its guest",
                    Direction::Ingress => "to its guest",
                };
                write!(f, "{done} the firewall of {port} {way}: {by}")?;
                mend.iter().try_for_each(|mend| write!(f, "; {mend}"))
            }
            Self::Answered { port, kind } => write!(f, "answered at {port} with {kind}"),
            Self::Learned { switch, mac, at, what } => match what {
                LearnedStep::New => write!(f, "{switch} learned {mac} on {at}"),
                LearnedStep::Moved { from } => write!(f, "{switch} saw {mac} move from {from} to {at}"),
                refused => write!(f, "{switch} did not learn {mac} on {at}: {}", refused.why()),
            },
            Self::Found { switch, mac, at, is_static } => {
                let origin = if *is_static { ", as the topology file says" } else { "" };
                write!(f, "FDB of {switch}: {mac} is on {at}{origin}")
            }
            Self::Flooded { switch, group, ports } => {
                let why = if *group { "group address" } else { "unknown destination" };
                match ports.len() {
                    0 => write!(f, "{switch} floods it, but has no other port in the VLAN itself ({why})"),
                    1 => write!(f, "{switch} flooded it to 1 port ({why}): {}", ports[0]),
                    many => write!(f, "{switch} flooded it to {many} ports ({why}): {}", ports.join(", ")),
                }
            }
            Self::Routed { router, to, line, onward } => {
                write!(f, "router {router}: the route to {to} (line {line}) leads ")?;
                match onward {
                    None => f.write_str("nowhere"),
                    Some(NextHop { vlan, address, mac: Some(mac) }) => {
                        write!(f, "to {address} ({mac}) in VLAN {vlan}")
                    }
                    Some(NextHop { vlan, address, mac: None }) => write!(f, "to {address} in VLAN {vlan}"),
                }
            }
            Self::Translated { hosts, ends } => {
                let (src, dst) = hosts.pair();
                match ends {
                    NewEnds::Ports(from, to) => {
                        let (src, dst) = (SocketAddr::new(src, *from), SocketAddr::new(dst, *to));
                        write!(f, "translated: goes on from {src} to {dst}")
                    }
                    NewEnds::Id(id) => {
                        write!(f, "translated: goes on from {src} to {dst}, with identifier {id}")
                    }
                    NewEnds::Same => write!(f, "translated: goes on from {src} to {dst}"),
                }
            }
            Self::ToRouter { router, why } => match why {
                ToRouter::Own(address) => write!(f, "router {router}: {address} is its own; it answers"),
                ToRouter::OnLink(address) => {
                    write!(
                        f,
                        "router {router}: {address} is of this link alone; it answers if that is its own"
                    )
                }
                ToRouter::NotIp => {
                    write!(f, "router {router}: no packet to be passed on; it answers if it is asked")
                }
                ToRouter::Asks(address) => {
                    write!(f, "router {router}: keeps it while it asks who has {address}")
                }
                ToRouter::AnswersFor(address) => {
                    write!(f, "router {router}: knows who has {address} and answers; nobody else hears it")
                }
                ToRouter::Cuts(mtu) => {
                    write!(
                        f,
                        "router {router}: cuts it, as it may (no DF), into packets of at most {mtu} bytes"
                    )
                }
            },
            Self::Crossed { from, to, line } => write!(f, "crossed the trunk {from} - {to} (line {line})"),
            Self::Retagged { port, edit } => match edit {
                TagEdit::Keep => write!(f, "leaves {port} as it is"),
                TagEdit::Pop => write!(f, "leaves {port} without its tag"),
                TagEdit::Push(tci) | TagEdit::Rewrite(tci) => {
                    write!(f, "leaves {port} with tag {} priority {}", tci.vid(), tci.priority())
                }
            },
            Self::Lost { port, reason } => {
                write!(f, "lost at {port}: {reason} - {}; mend: {}", reason.what(), reason.mend())
            }
            Self::Dropped { reason, rule } => {
                write!(f, "dropped: {reason} - {}", reason.what())?;
                if let Some(rule) = rule {
                    write!(f, "; {rule}")?;
                }
                write!(f, "; mend: {}", reason.mend())
            }
        }
    }
}

impl FilteredBy {
    /// The rule, or the default, by which rules decided.
    pub(crate) fn rules(world: &World, policy: &Policy, decision: classify::Decision) -> Self {
        match decision.rule.and_then(|place| world.rule(policy, place)) {
            Some((group, line)) => Self::Rule { group: group.into(), line, action: decision.action },
            None => Self::Default { action: decision.action },
        }
    }
}

/// What rules say of a frame that they do not let pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The rule, or the default.
    pub by: FilteredBy,
    /// What would let it pass.
    pub mend: Option<String>,
}

/// Asks the rules of `port` about a frame that goes that way and belongs to no connection. None: they let it pass, or it has none.
pub fn refused(world: &World, port: &Port, direction: Direction, tuple: &Tuple) -> Option<Refused> {
    let firewall = port.firewall.as_ref()?;
    let policy = firewall.policy.as_ref().ok()?;
    let decision = match tuple {
        Tuple::Other { .. } => policy.decide_not_ip(direction, tuple),
        Tuple::Ip(ip) if ip.service == Service::Unread => policy.classifier(direction).decide_unread(ip)?,
        Tuple::Ip(_) => policy.decide(direction, tuple),
    };
    (decision.action != Action::Allow).then(|| Refused {
        by: FilteredBy::rules(world, policy, decision),
        mend: world.mend((port, firewall, policy), direction, tuple, &decision),
    })
}

impl fmt::Display for FilteredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection { state, opener } => {
                let opened = match opener {
                    Direction::Egress => "its guest opened",
                    Direction::Ingress => "was opened from outside",
                };
                write!(f, "it belongs to a connection that {opened} ({})", state.name())
            }
            Self::NoConnection => f.write_str("it belongs to no connection, or contradicts it"),
            Self::Full => {
                f.write_str("rules allow it, but the interface has as many connections as it may have")
            }
            Self::Rate => f.write_str("rules allow it, but too many connections are opened in a second"),
            Self::Rule { group, line, action } => {
                let does = match action {
                    Action::Allow => "allows",
                    Action::Drop => "drops",
                    Action::Reject => "rejects",
                };
                write!(f, "group {group} {does} it (line {line})")
            }
            Self::Default { action: Action::Allow } => f.write_str("no rule forbids it"),
            Self::Default { .. } => f.write_str("no rule allows it"),
            Self::Basic => f.write_str(
                "what a link needs (ARP, neighbour discovery, group membership, DHCP) takes no rule",
            ),
            Self::FirstFragment => f.write_str("it follows its datagram's first fragment, which passed"),
            Self::Fragment => {
                f.write_str("its ports are in another fragment, and none passed that it follows")
            }
            Self::MalformedFragment => f.write_str("it is a fragment that no honest sender makes"),
            Self::OverlappingFragment => {
                f.write_str("it repeats, overlaps or contradicts another fragment of its datagram")
            }
            Self::Unparsed => f.write_str("its headers cannot be read, or name a route of their own"),
        }
    }
}

impl From<Learned> for LearnedStep<Former> {
    fn from(learned: Learned) -> Self {
        match learned {
            Learned::New | Learned::Known => Self::New,
            Learned::Moved { from } => Self::Moved { from },
            Learned::Refused(Refusal::Static) => Self::IsStatic,
            Learned::Refused(Refusal::Sticky) => Self::IsSticky,
            Learned::Refused(Refusal::PortLimit) => Self::PortLimit,
            Learned::Refused(Refusal::TableFull) => Self::TableFull,
            Learned::Refused(Refusal::Busy) => Self::Busy,
        }
    }
}

impl<P> LearnedStep<P> {
    /// The same, with a place told as `tell` does.
    pub fn map<Q>(self, tell: impl FnOnce(P) -> Q) -> LearnedStep<Q> {
        match self {
            Self::New => LearnedStep::New,
            Self::Moved { from } => LearnedStep::Moved { from: tell(from) },
            Self::IsStatic => LearnedStep::IsStatic,
            Self::IsSticky => LearnedStep::IsSticky,
            Self::PortLimit => LearnedStep::PortLimit,
            Self::TableFull => LearnedStep::TableFull,
            Self::Busy => LearnedStep::Busy,
        }
    }

    /// Why it was not learned; empty if it was.
    pub const fn why(&self) -> &'static str {
        match self {
            Self::New | Self::Moved { .. } => "",
            Self::IsStatic => "the topology file says that it is elsewhere",
            Self::IsSticky => "it was learned elsewhere, and is sticky there",
            Self::PortLimit => "the port has as many addresses as it may have",
            Self::TableFull => "there is no room in the table where it would stand",
            Self::Busy => "another worker was at it",
        }
    }
}
