//! What guards each interface: its security groups, and what it may call itself.

use crate::{
    check::{addresses, groups::Groups, interfaces::NodeInterface, links::Checked, rules},
    codes::Code,
    plan::NodeKind,
    report::{Sink, Span},
    said::{
        lab::{Interface, Lab},
        read::Said,
        rule::{Allowed, Network},
        scalar::PolicyWord,
    },
};
use ipnet::IpNet;
use std::collections::HashMap;
use vswitch_core::{
    description::{Firewall, Identity, Membership},
    firewall::policy::GroupId,
    mac::MacAddr,
};

/// What guards an interface.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) groups: Vec<GroupId>,
    /// Where it was said.
    pub(crate) span: Span,
    /// What it may use besides its own addresses; none: anything.
    allowed: Option<Besides>,
    dhcp_server: bool,
    router: bool,
}

/// What an interface may use besides its own addresses.
#[derive(Debug, Default)]
struct Besides {
    own: Vec<IpNet>,
    others: Vec<(MacAddr, Vec<IpNet>)>,
}

impl Guard {
    /// Whether the interface may use no addresses of that network but the stated ones.
    pub(crate) fn keeps_out(&self, network: IpNet) -> bool {
        self.allowed.as_ref().is_some_and(|besides| !besides.own.iter().any(|own| own.contains(&network)))
    }

    /// What the switch is told of it, for an interface with these addresses.
    pub(crate) fn firewall(&self, mac: Option<MacAddr>, addresses: &[IpNet]) -> Firewall {
        let own = addresses.iter().map(|address| IpNet::from(address.addr()));
        let identity = self.allowed.as_ref().zip(mac).map(|(besides, mac)| Identity {
            mac,
            addresses: own.chain(besides.own.iter().copied()).collect(),
            others: besides.others.clone(),
        });
        Firewall {
            groups: self.groups.clone(),
            addresses: addresses.iter().map(IpNet::addr).collect(),
            identity,
            dhcp_server: self.dhcp_server,
            router: self.router,
            origin: self.span.origin,
        }
    }
}

/// What guards are resolved against.
pub(crate) struct Scope<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) links: &'a [Checked],
    /// By node, what it is.
    pub(crate) kinds: &'a [Option<NodeKind>],
    pub(crate) groups: &'a Groups,
    /// Whether all of the file could be read: else what seems to be missing may be there.
    pub(crate) all_read: bool,
}

/// The guards of all interfaces, each in its interface's place.
pub(crate) fn check(interfaces: &[NodeInterface], scope: &Scope<'_>, sink: &mut Sink) -> Vec<Option<Guard>> {
    interfaces.iter().map(|interface| scope.guard(interface, sink)).collect()
}

impl Scope<'_> {
    fn guard(&self, interface: &NodeInterface, sink: &mut Sink) -> Option<Guard> {
        let said = &interface.said;
        let link = interface.link.map(|link| &self.links[link]);
        if let Some(Checked::Wire { span, .. }) = link {
            if let Some((key, place)) = keys(said).next() {
                sink.error(
                    Code::GroupsOnWire,
                    place,
                    format!("`{key}` at a wire: all passes there as it is"),
                )
                .label(*span, "a link of two nodes is a wire");
            }
            return None;
        }
        let closed = self.lab.policy.as_ref().filter(|policy| policy.value == PolicyWord::Closed);
        let span = said.security_groups.as_ref().map(|said| said.span).or(closed.map(|policy| policy.span));
        let Some(span) = span else {
            for (key, place) in keys(said).filter(|_| self.all_read) {
                sink.error(Code::NeedsKey, place, format!("`{key}` needs `security-groups`: this interface has no firewall"))
                    .help("add `security-groups: [NAME]`; a group that lets everything in is `open: [{ direction: ingress }]`");
            }
            return None;
        };
        let groups = said.security_groups.as_ref().map(|said| self.groups(said, sink));
        let allowed = self.anti_spoof(interface, link, span, sink).then(|| besides(said, sink));
        Some(Guard {
            groups: groups.unwrap_or_default(),
            span,
            allowed,
            dhcp_server: said.dhcp_server.as_ref().is_some_and(|said| said.value),
            router: said.router_advertisements.as_ref().is_some_and(|said| said.value),
        })
    }

    fn groups(&self, said: &Said<Vec<Said<String>>>, sink: &mut Sink) -> Vec<GroupId> {
        let mut groups = Vec::new();
        let mut first: HashMap<GroupId, Span> = HashMap::new();
        if said.value.is_empty() && self.all_read {
            sink.error(Code::EmptyList, said.span, "no security group is in this list").help(
                "leave `security-groups` out for what `policy` says; a group without rules, which lets in answers only, is `NAME: []`",
            );
        }
        for name in &said.value {
            let Some(id) = self.groups.names.get(name, sink) else { continue };
            if let Some(place) = first.get(&id) {
                sink.error(Code::GroupTwice, name.span, format!("`{}` is listed twice", name.value))
                    .label(*place, "first listed here");
                continue;
            }
            first.insert(id, name.span);
            groups.push(id);
        }
        groups
    }

    /// Whether an interface that is filtered may use its own addresses only.
    ///
    /// Unless the file says so, it may where we know what is its own: we gave it its MAC address or the file states one, and
    /// it is one station in one VLAN. Behind a trunk, or a thing of the host, there may be many.
    fn anti_spoof(
        &self,
        interface: &NodeInterface,
        link: Option<&Checked>,
        span: Span,
        sink: &mut Sink,
    ) -> bool {
        let said = &interface.said;
        let kind = self.kinds.get(interface.node).and_then(Option::as_ref);
        let ours = matches!(kind, Some(NodeKind::Vm(_) | NodeKind::Station | NodeKind::Netns { .. }));
        let host = matches!(
            kind,
            Some(NodeKind::Tap { .. } | NodeKind::Nic { .. } | NodeKind::Pcap { .. } | NodeKind::User)
        );
        let trunk = matches!(link, Some(Checked::Attach { vlans: Membership::Trunk { .. }, .. }));
        let by_itself = !trunk && !host && (ours || said.mac.is_some());
        let asked = said.anti_spoof.as_ref();
        let on = asked.map_or(by_itself, |asked| asked.value);
        if let Some(asked) = asked.filter(|_| on && host && said.mac.is_none()) {
            sink.error(
                Code::NeedsKey,
                asked.span,
                "`anti-spoof` needs `mac` here: nobody knows the address of what is behind it",
            )
            .help("add `mac:`, or leave `anti-spoof` out");
        }
        if let Some(allowed) = said.allowed_addresses.as_ref().filter(|_| !on && self.all_read) {
            let told = sink.error(
                Code::NeedsKey,
                allowed.span,
                "`allowed-addresses` needs `anti-spoof`: this interface may use any address",
            );
            match asked {
                Some(asked) => told.label(asked.span, "off by this").help("remove one of the two"),
                None if trunk => told.help("add `anti-spoof: true`: a trunk has it only if asked"),
                None => told
                    .help("add `anti-spoof: true`: it is on by itself only where vnet knows the MAC address"),
            };
        }
        let without = said.addresses.as_ref().is_none_or(Vec::is_empty) && said.allowed_addresses.is_none();
        if on && without && self.all_read {
            let place = asked.map_or(span, |asked| asked.span);
            let told = sink.error(
                Code::NoAddresses,
                place,
                "this interface may send from its own addresses only, and has none",
            );
            if asked.is_none() && said.security_groups.is_none() {
                told.label(interface.span, "the interface");
            }
        }
        on
    }
}

/// The keys that mean something behind a firewall only, with what they are called.
fn keys(said: &Interface) -> impl Iterator<Item = (&'static str, Span)> + use<> {
    let on = |said: &Option<Said<bool>>| said.as_ref().filter(|said| said.value).map(|said| said.span);
    let all = [
        ("security-groups", said.security_groups.as_ref().map(|said| said.span)),
        ("anti-spoof", on(&said.anti_spoof)),
        ("allowed-addresses", said.allowed_addresses.as_ref().map(|said| said.span)),
        ("dhcp-server", on(&said.dhcp_server)),
        ("router-advertisements", on(&said.router_advertisements)),
    ];
    all.into_iter().filter_map(|(key, span)| Some((key, span?)))
}

/// What `allowed-addresses` says.
fn besides(said: &Interface, sink: &mut Sink) -> Besides {
    let mut besides = Besides::default();
    for allowed in said.allowed_addresses.iter().flat_map(|said| &said.value) {
        match &allowed.value {
            Allowed::Own(network) => {
                let network = Said { value: *network, span: allowed.span };
                besides.own.extend(usable(&network, sink));
            }
            Allowed::Other(pair) => {
                let Some(mac) = &pair.mac else { continue };
                addresses::refuse_group_mac(mac.value.0, mac.span, sink);
                let networks = pair.addresses.iter().flatten();
                let networks = networks.filter_map(|network| usable(network, sink)).collect();
                besides.others.push((mac.value.0, networks));
            }
        }
    }
    besides
}

/// A network that frames can come from.
fn usable(said: &Said<Network>, sink: &mut Sink) -> Option<IpNet> {
    let network = rules::network(said, sink)?;
    if network.network().is_multicast() || network.network().is_loopback() {
        let what = format!("no frame comes from {network}");
        sink.error(Code::BadAddress, said.span, what)
            .help("name unicast addresses: those that the guest sends from");
        return None;
    }
    Some(network)
}
