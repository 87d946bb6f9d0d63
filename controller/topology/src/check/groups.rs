//! Security groups: their names, and the rules under each.

use crate::{
    check::{guards::Guard, interfaces::NodeInterface, names, neighbours, rules, shadows},
    codes::Code,
    report::{Sink, Span, visible},
    said::{lab::Lab, read::Said},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use vswitch_core::firewall::{
    policies::Policies,
    policy::{Direction, Family, GroupId, Remote, SecurityGroup},
};

/// The names of all groups.
#[derive(Debug)]
pub(crate) struct GroupNames(BTreeMap<String, GroupId>);

impl GroupNames {
    /// The group that is called so.
    pub(crate) fn get(&self, said: &Said<String>, sink: &mut Sink) -> Option<GroupId> {
        let found = self.0.get(&said.value).copied();
        if found.is_none() {
            let what = format!("there is no security group `{}`", visible(&said.value));
            sink.error(Code::UnknownGroup, said.span, what)
                .did_you_mean(&said.value, self.0.keys().map(String::as_str));
        }
        found
    }
}

/// The groups of a lab, in file order.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(crate) names: GroupNames,
    pub(crate) list: Vec<SecurityGroup>,
    /// By group, where each of its rules is said.
    spans: Vec<Vec<Places>>,
}

/// Where a rule is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) rule: Span,
    remote: Option<Span>,
}

impl Groups {
    /// The groups of `lab`.
    pub(crate) fn of(lab: &Lab, sink: &mut Sink) -> Self {
        let entries = || lab.security_groups.iter().flat_map(|groups| &groups.0);
        // A file has at most 131,072 values, and a group is two.
        let id = |place: usize| GroupId::new(u16::try_from(place).unwrap_or(u16::MAX));
        let names = entries().enumerate().map(|(place, entry)| (entry.name.clone(), id(place)));
        let mut groups = Self { names: GroupNames(names.collect()), list: Vec::new(), spans: Vec::new() };
        for entry in entries() {
            names::check(&entry.name, entry.span, sink);
            let said = entry.value.iter().flatten();
            let checked = said.filter_map(|said| {
                let rule = rules::check(&said.value.0, said.span, &groups.names, sink)?;
                let prefix = said.value.0.remote_ip_prefix.as_ref().map(|prefix| prefix.span);
                let remote = prefix.or(said.value.0.remote_group.as_ref().map(|group| group.span));
                Some((rule, Places { rule: said.span, remote }))
            });
            let (rules, spans) = checked.unzip();
            groups.list.push(SecurityGroup { name: entry.name.clone(), rules, origin: entry.span.origin });
            groups.spans.push(spans);
        }
        groups
    }

    /// Tells of rules that stand behind one that takes all, or that no frame can match.
    pub(crate) fn warn(&self, guards: &[Option<Guard>], interfaces: &[NodeInterface], sink: &mut Sink) {
        let members = self.members(guards, interfaces);
        let listed: HashSet<GroupId> =
            guards.iter().flatten().flat_map(|guard| &guard.groups).copied().collect();
        let mut budget = shadows::BUDGET;
        for ((group, spans), own) in self.list.iter().zip(&self.spans).zip(&members) {
            shadows::warn(group, spans, &mut budget, sink);
            neighbours::warn(group, spans, own, sink);
            for (rule, places) in group.rules.iter().zip(spans) {
                let span = places.remote.unwrap_or(places.rule);
                match &rule.matches.remote {
                    Remote::Group(id) => {
                        let of = &members[usize::from(id.index())];
                        self.warn_of_members(*id, of, rule.matches.family, listed.contains(id), span, sink);
                    }
                    Remote::Networks(networks)
                        if rule.direction == Direction::Ingress
                            && networks.iter().all(|network| network.network().is_multicast()) =>
                    {
                        let what = "no frame comes from a multicast address: this rule never matches";
                        sink.warning(Code::NeverMatches, span, what)
                            .help("`remote-ip-prefix` of an ingress rule is the sender's address");
                    }
                    Remote::Any | Remote::Networks(_) => {}
                }
            }
        }
    }

    fn warn_of_members(
        &self,
        id: GroupId,
        members: &[IpNet],
        family: Family,
        listed: bool,
        span: Span,
        sink: &mut Sink,
    ) {
        let fits = |member: &IpNet| match family {
            Family::Ipv4 => matches!(member, IpNet::V4(_)),
            Family::Ipv6 => matches!(member, IpNet::V6(_)),
            Family::Any | Family::EtherType(_) => true,
        };
        if members.iter().any(fits) {
            return;
        }
        let name = &self.list[usize::from(id.index())].name;
        let (what, help) = match (listed, members.is_empty()) {
            (false, _) => (
                format!("nobody is a member of `{name}`: this rule never matches"),
                format!("list it at an interface: `security-groups: [{name}]`"),
            ),
            (true, true) => (
                format!("no member of `{name}` has an address: this rule never matches"),
                "write `addresses` at the interfaces that list the group: by these it is known".to_owned(),
            ),
            (true, false) => (
                format!("no member of `{name}` has an address of this family: this rule never matches"),
                "mend `ether-type` or `protocol`, or give the members such addresses".to_owned(),
            ),
        };
        sink.warning(Code::NeverMatches, span, what).help(help);
    }

    /// Tells of interfaces whose rules the switch would refuse: it would keep them down.
    pub(crate) fn fit(
        &self,
        guards: &[Option<Guard>],
        interfaces: &[NodeInterface],
        node_name: impl Fn(usize) -> String,
        sink: &mut Sink,
    ) {
        let members: Vec<Arc<[IpNet]>> =
            self.members(guards, interfaces).into_iter().map(Arc::from).collect();
        let lists = guards.iter().flatten().map(|guard| &guard.groups[..]);
        let policies = Policies::compile(&self.list, &members, lists, &Policies::default());
        for (guard, interface) in guards.iter().zip(interfaces) {
            let Some(guard) = guard else { continue };
            if let Some(Err(error)) = policies.of(&guard.groups) {
                let who = format!("{}:{}", node_name(interface.node), interface.name);
                let what = format!("the rules of {who} do not fit: {}", error.why);
                sink.error(Code::RulesDoNotFit, guard.span, what);
            }
        }
    }

    /// By group, the addresses of the interfaces that list it, each once.
    fn members(&self, guards: &[Option<Guard>], interfaces: &[NodeInterface]) -> Vec<Vec<IpNet>> {
        let mut members = vec![Vec::new(); self.list.len()];
        for (guard, interface) in guards.iter().zip(interfaces) {
            let addresses = || interface.said.addresses.iter().flatten();
            for id in guard.iter().flat_map(|guard| &guard.groups) {
                members[usize::from(id.index())]
                    .extend(addresses().map(|said| IpNet::from(said.value.0.addr())));
            }
        }
        for addresses in &mut members {
            addresses.sort();
            addresses.dedup();
        }
        members
    }
}
