//! A group of records in the topology's words: who it was, what became of it, which line decided it, what mends it.

use super::{
    group::{Alike, Group},
    millis,
    routed::AtRouter,
};
use crate::{
    api::why::{WhyFrame, WhyGroup, WhyKind},
    expect::words::link_set_down,
};
use std::{collections::BTreeSet, net::IpAddr};
use topology::plan::{Node, Plan};
use vswitch_core::{
    clock::Instant,
    description::Membership,
    drop_reason::DropReason,
    fdb::Former,
    firewall::{
        policy::Direction,
        tuple::{IpTuple, Service, Tuple},
    },
    head::{Protocol, ethertype},
    id::{PortId, SwitchId},
    mac::MacAddr,
    route::Routing,
    trace::{self, LearnedStep, Refused, Step},
    vlan::VlanId,
    world::{Port, Role, World},
};
use vswitchd::recorder::{Event, Folded, FrameNote, Record, Version, What};

/// The words of one lab at one moment.
pub(super) struct Words<'a> {
    pub(super) plan: &'a Plan,
    pub(super) world: &'a World,
    pub(super) now: Instant,
    pub(super) links_down: &'a BTreeSet<PortId>,
}

/// Which kind of record an event makes.
pub(super) const fn kind(event: Event) -> WhyKind {
    match event {
        Event::Dropped { .. } | Event::Unanswered { .. } => WhyKind::Dropped,
        Event::Lost { .. } => WhyKind::Lost,
        Event::Learned { what: LearnedStep::New | LearnedStep::Moved { .. }, .. } => WhyKind::Learned,
        Event::Learned { .. } => WhyKind::NotLearned,
        Event::Up { .. } | Event::Down { .. } | Event::Faulted { .. } => WhyKind::Link,
        Event::Applied => WhyKind::Applied,
    }
}

impl Words<'_> {
    pub(super) fn tell(&self, group: &Group) -> WhyGroup {
        let event = group.last.event;
        let (reason, to) = match event {
            Event::Dropped { reason, .. } => (Some(reason), None),
            Event::Lost { reason, to, .. } => (Some(reason), Some(to)),
            _ => (None, None),
        };
        let epoch = group.last.epoch();
        let old = (epoch != self.world.epoch()).then_some(epoch.number());
        // What an older file said is not known: the present one's lines may be others.
        let (said, rule) = match (old, reason, to.or(event.port()).and_then(|port| self.port(port))) {
            (None, Some(reason), Some(port)) => {
                let (line, does) = self.line(reason, port, &group.last);
                (Some(self.place(line)), Some(does))
            }
            (None, None, _) => self.leads(&group.last).unzip(),
            _ => (None, None),
        };
        WhyGroup {
            kind: kind(event),
            count: group.count,
            more: group.more,
            first_millis_ago: millis(self.now.since(group.first_at)),
            last_millis_ago: millis(self.now.since(group.last.at)),
            port: event.port().map(|port| self.port_name(port)),
            to: to.map(|port| self.port_name(port)),
            frames: group.samples.iter().filter_map(|alike| self.sample(alike)).collect(),
            frames_left_out: group.kinds - group.samples.len(),
            reason,
            fate: self.fate(group),
            said,
            rule,
            mend: reason
                .map(DropReason::mend)
                .map(Into::into)
                .or_else(|| self.bring_up(event))
                .or_else(|| mend(group)),
            flaps: group.flaps,
            old_epoch: old,
        }
    }

    /// What brings up the port that went down since its link was set down.
    fn bring_up(&self, event: Event) -> Option<String> {
        let Event::Down { port, .. } = event else { return None };
        let interface = |node: &'_ Node| {
            let interface = node.interfaces.iter().find(|interface| interface.port == port)?;
            Some(link_set_down(node, interface))
        };
        self.links_down.contains(&port).then(|| self.plan.nodes.iter().find_map(interface)).flatten()
    }

    fn place(&self, line: u32) -> String {
        format!("{}:{line}", self.plan.description.file)
    }

    /// The line by which a router was to pass on what waited for a neighbour in vain, and what it says.
    fn leads(&self, record: &Record) -> Option<(String, String)> {
        let Event::Unanswered { vlan, .. } = record.event else { return None };
        let (line, next) = AtRouter::of(self, record)?.next(vlan)?;
        Some((self.place(line), format!("leads it to {next}")))
    }

    /// The VLAN of what came in untagged where something happened.
    pub(super) fn untagged(&self, event: Event) -> Option<VlanId> {
        match &self.port(event.port()?)?.role {
            Role::Switched { vlans: Membership::Access(vlan), .. } => Some(*vlan),
            Role::Switched { vlans: Membership::Trunk { native, .. }, .. } => *native,
            _ => None,
        }
    }

    pub(super) fn vlan_name(&self, vlan: VlanId) -> String {
        self.world
            .vlan_name(vlan)
            .map_or_else(|| format!("VLAN {vlan}"), |name| format!("VLAN {name} ({vlan})"))
    }

    /// The address, if it was kept, or only one interface of the file has such.
    pub(super) fn whole(&self, address: Folded, version: Version) -> Option<IpAddr> {
        address.whole(version).or_else(|| self.owned(address, version).map(|(_, whole)| whole))
    }

    /// The line that decided a drop at `port`, or else the line that says the port.
    fn line(&self, reason: DropReason, port: &Port, record: &Record) -> (u32, String) {
        let rule = trace::rule(reason, self.world, port).map(|rule| (rule.line, rule.does));
        match rule.or_else(|| AtRouter::of(self, record)?.line(reason)) {
            Some(said) => said,
            None => (port.origin.line, format!("says {}; no line of the file decides this", port.name)),
        }
    }

    /// What became of it, in a sentence.
    fn fate(&self, group: &Group) -> String {
        let record = &group.last;
        match record.event {
            Event::Dropped { reason, .. } => format!("dropped: {reason} - {}", reason.what()),
            Event::Lost { to, reason, .. } => {
                format!("lost before {}: {reason} - {}", self.port_name(to), reason.what())
            }
            Event::Learned { port, switch, what, .. } => {
                let mac = record.frame.map(|frame| frame.src).unwrap_or_default();
                let what = what.map(|former| self.former_name(record, former));
                let step =
                    Step::Learned { switch: self.switch_name(switch), mac, at: self.port_name(port), what };
                match group.kinds {
                    1 => step.to_string(),
                    many => format!("{step}, the last of {many} addresses"),
                }
            }
            Event::Unanswered { vlan, crowded, .. } => {
                let next = AtRouter::of(self, record).and_then(|at| at.next(vlan));
                let whom = next.map_or_else(|| "the next hop".into(), |(_, next)| next.to_string());
                let vlan = self.vlan_name(vlan);
                if crowded {
                    format!(
                        "dropped: three later ones waited for {whom} in {vlan}, whom the router was still asking for"
                    )
                } else {
                    format!("dropped: it waited for {whom} in {vlan}, who did not answer the router")
                }
            }
            Event::Up { .. } => "came up: a driver runs".into(),
            Event::Down { port, .. } if self.links_down.contains(&port) => {
                "went down: its link was set down".into()
            }
            Event::Down { .. } => {
                "went down: its driver, its VMM or its peer stopped, or its interface is gone".into()
            }
            Event::Faulted { why, .. } => format!("was stopped: {}", why.words()),
            Event::Applied => format!("configuration {} came into force", record.epoch()),
        }
    }

    fn sample(&self, alike: &Alike) -> Option<WhyFrame> {
        let Record { frame, len, .. } = alike.last;
        let refused = self.refused(&alike.last);
        Some(WhyFrame {
            frame: format!("{}, {len} bytes", self.frame(&frame?)),
            count: alike.count,
            decided: refused.as_ref().map(|(refused, of)| format!("{of}{}", refused.by)),
            mend: refused.and_then(|(refused, _)| refused.mend),
        })
    }

    /// What rules say of a frame that they dropped. The recorder keeps headers and not what decided, but rules say the same of the same
    /// headers for as long as the configuration is the same. With it under which addresses they were asked, where that is a guess.
    fn refused(&self, record: &Record) -> Option<(Refused, String)> {
        let (at, reason, direction) = match record.event {
            Event::Dropped { port, reason } => (port, reason, Direction::Egress),
            Event::Lost { to, reason, .. } => (to, reason, Direction::Ingress),
            _ => return None,
        };
        let by_rules = matches!(
            reason,
            DropReason::PolicyEgress
                | DropReason::RejectEgress
                | DropReason::PolicyIngress
                | DropReason::RejectIngress
        );
        if !by_rules || record.epoch() != self.world.epoch() {
            return None;
        }
        let mut tuple = self.tuple(&record.frame?)?;
        if let (Tuple::Ip(ip), Direction::Ingress) = (&mut tuple, direction)
            && let Some(at_router) = AtRouter::of(self, record)
        {
            at_router.turn(ip);
        }
        let guessed = match &tuple {
            Tuple::Ip(IpTuple { src: src @ IpAddr::V6(_), dst, .. }) => {
                format!("if it is of {src} to {dst}: ")
            }
            _ => String::new(),
        };
        Some((trace::refused(self.world, self.port(at)?, direction, &tuple)?, guessed))
    }

    /// What rules read of a frame; none if its addresses are not known as a whole, and no interface of the file has such either.
    fn tuple(&self, frame: &FrameNote) -> Option<Tuple> {
        Some(match frame.what {
            What::Other { ethertype } => Tuple::Other { ethertype },
            What::Arp { .. } => Tuple::Other { ethertype: ethertype::ARP },
            What::Ip { version: Version::V6, .. } if frame.dst.is_group() => return None,
            What::Ip { version, src, dst, protocol, transport } => {
                let (src, dst) = (self.whole(src, version)?, self.whole(dst, version)?);
                Tuple::Ip(IpTuple { src, dst, protocol, service: Service::of(transport) })
            }
        })
    }

    /// The frame: from whom, to whom, what.
    fn frame(&self, frame: &FrameNote) -> String {
        let tag = frame.tag.map(|tci| format!("tag {} priority {}, ", tci.vid(), tci.priority()));
        let what = match frame.what {
            What::Other { ethertype } if ethertype < 0x600 => "IEEE 802.3 LLC".into(),
            What::Other { ethertype } => format!("EtherType 0x{ethertype:04x}"),
            What::Arp { operation, sender, target } => {
                let [sender, target] =
                    [sender, target].map(|ip| self.address(Folded::of(ip.into()), Version::V4));
                match operation {
                    1 => format!("ARP who has {target}, tell {sender}"),
                    2 => format!("ARP reply of {sender} to {target}"),
                    other => format!("ARP operation {other}"),
                }
            }
            What::Ip { version, src, dst, protocol, transport } => {
                let src = self.address(src, version);
                // The end of a group's address is nobody's.
                let dst = if frame.dst.is_group() { dst.words(version) } else { self.address(dst, version) };
                let name = if version == Version::V4 { "IPv4" } else { "IPv6" };
                format!("{name} {src} > {dst} {}", Protocol(transport, protocol))
            }
        };
        let [src, dst] = [frame.src, frame.dst].map(|mac| self.station(mac));
        format!("{src} -> {dst}, {}{what}", tag.unwrap_or_default())
    }

    /// Whose MAC address it is.
    fn station(&self, mac: MacAddr) -> String {
        let known = self.world.ports().find(|port| port.mac == Some(mac));
        match known {
            Some(port) => port.name.clone(),
            None if mac == MacAddr::BROADCAST => "broadcast".into(),
            None => mac.to_string(),
        }
    }

    /// Whether a router has this address of its own.
    fn is_gateway(&self, folded: Folded, version: Version) -> bool {
        let gateways = self.world.routing().into_iter().flat_map(Routing::interfaces);
        let mut own = gateways.flat_map(|gateway| gateway.said.addresses.iter().map(ipnet::IpNet::addr));
        own.any(|own| version == Version::V4 && folded.whole(version) == Some(own))
    }

    /// An address and whose it is. Of an IPv6 address the last 32 bits were kept: others that no file names may end so, too.
    fn address(&self, folded: Folded, version: Version) -> String {
        let words = folded.words(version);
        match (self.owned(folded, version), version) {
            (Some((node, _)), Version::V4) => format!("{words} ({})", node.name),
            (Some((node, _)), Version::V6) => format!("{words} (perhaps {})", node.name),
            (None, _) if self.is_gateway(folded, version) => format!("{words} (a gateway)"),
            (None, _) => words,
        }
    }

    /// The only node that the file gives such an address, and all of it.
    fn owned(&self, folded: Folded, version: Version) -> Option<(&Node, IpAddr)> {
        let interfaces = self.plan.nodes.iter().flat_map(|node| {
            node.interfaces
                .iter()
                .flat_map(move |interface| interface.addresses.iter().map(move |ip| (node, ip)))
        });
        let mut owners = interfaces.filter(|(_, ip)| {
            ip.addr().is_ipv4() == (version == Version::V4) && Folded::of(ip.addr()) == folded
        });
        match (owners.next(), owners.next()) {
            (Some((node, ip)), None) => Some((node, ip.addr())),
            _ => None,
        }
    }

    fn port(&self, id: PortId) -> Option<&Port> {
        self.world.port(id.index()).filter(|port| port.id == id)
    }

    fn port_name(&self, id: PortId) -> String {
        self.port(id).map_or_else(|| format!("port {id}"), |port| port.name.clone())
    }

    /// Where an address was, which only the configuration of that time says.
    fn former_name(&self, record: &Record, former: Former) -> String {
        match record.epoch() == self.world.epoch() {
            true => trace::former_name(self.world, former),
            false => "elsewhere".into(),
        }
    }

    fn switch_name(&self, id: SwitchId) -> String {
        self.world.switch(id).map(|switch| switch.name.clone()).unwrap_or_default()
    }
}

/// What to do about what is no drop.
fn mend(group: &Group) -> Option<String> {
    let what = match group.last.event {
        Event::Learned { what: LearnedStep::Moved { .. }, .. } if group.flaps > 0 => {
            return Some(format!(
                "it moved back and forth, {} times in all: look for two stations with this address, or for a loop behind these ports",
                group.flaps
            ));
        }
        Event::Learned { what: LearnedStep::IsStatic, .. } => {
            "let no other station use the address, or state `mac:` where it is"
        }
        Event::Learned { what: LearnedStep::IsSticky, .. } => {
            "let no other station use the address, or leave `sticky-macs` out where it was learned"
        }
        Event::Learned { what: LearnedStep::PortLimit, .. } => {
            "look at what sends under so many addresses; frames to those that are not learned are flooded, and those from them dropped if the file says `macs`"
        }
        Event::Learned { what: LearnedStep::TableFull, .. } => {
            "nothing: frames to that address are flooded until there is room"
        }
        Event::Unanswered { crowded: true, .. } => {
            "nothing, once the neighbour is known: the latest three wait for one that is asked for; a sender that begins slowly, or sends again, loses nothing"
        }
        Event::Unanswered { .. } => {
            "see that whoever has that address runs, and is in that VLAN: `vnet show neighbours`, `vnet show ports`; if nobody has it, change the route or the destination"
        }
        Event::Faulted { .. } => {
            "`vnet show ports` says more; reset the guest's driver or start its VMM anew"
        }
        Event::Down { .. } => "`vnet show ports` says its state now",
        _ => return None,
    };
    Some(what.into())
}
