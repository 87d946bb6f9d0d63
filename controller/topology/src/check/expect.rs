//! `expect:` lines: who is to reach whom with what, one row for each address family.

use crate::{
    check::{
        interfaces::NodeInterface,
        links::Checked,
        names::{Names, Thing},
        routers::Routers,
    },
    codes::Code,
    plan::{Addresses, Because, Boot, Expectation, Node, NodeKind, Probe, Verdict},
    report::{Sink, visible},
    said::read::Said,
};
use ipnet::IpNet;
use vswitch_core::drop_reason::DropReason;

const FORM: &str =
    "the form is `SRC -> DST icmp|tcp/PORT|udp/PORT|arp|l2 allow|reject|deny [because REASON]`";

/// What a line is resolved against.
pub(crate) struct Scope<'a> {
    pub(crate) names: &'a Names,
    pub(crate) interfaces: &'a [NodeInterface],
    pub(crate) links: &'a [Checked],
    pub(crate) routers: &'a Routers,
    /// The nodes of the plan, at the places of the file.
    pub(crate) nodes: &'a [Node],
}

/// The rows that `line` asks for; none if it is wrong, which `sink` was told.
pub(crate) fn check(line: &Said<String>, scope: &Scope<'_>, sink: &mut Sink) -> Option<Vec<Expectation>> {
    let words: Vec<&str> = line.value.split_whitespace().collect();
    let (src, dst, probe, verdict, reason) = match words.as_slice() {
        [src, "->", dst, probe, verdict] => (src, dst, probe, verdict, None),
        [src, "->", dst, probe, verdict, "because", reason] => (src, dst, probe, verdict, Some(*reason)),
        _ => {
            let what = format!("`{}` is not an expectation", visible(&line.value));
            sink.error(Code::ExpectForm, line.span, what).help(FORM);
            return None;
        }
    };
    let probe = parse_probe(probe, line, sink);
    let verdict = parse_verdict(verdict, reason, line, sink);
    let src = end(src, line, scope, sink);
    let dst = end(dst, line, scope, sink);
    let (probe, verdict, src, dst) = (probe?, verdict?, src?, dst?);
    if src == dst {
        sink.error(Code::ExpectEnd, line.span, "the two ends are one interface");
        return None;
    }
    let (from, to) = (&scope.nodes[scope.interfaces[src].node], &scope.nodes[scope.interfaces[dst].node]);
    if !answers(from) {
        sink.error(
            Code::ExpectSource,
            line.span,
            format!("`{}` cannot send probes: nothing of ours runs in it", from.name),
        )
        .help("only stations, namespaces and virtual machines with the bundled guest or an `image` can be the source");
        return None;
    }
    let rows = rows(line, probe, verdict, src, dst, scope, sink)?;
    if let Some(help) = cannot_prove(to) {
        let what =
            format!("a probe to `{}` proves nothing in `vnet test`: nothing of ours is behind it", to.name);
        sink.warning(Code::MayNotAnswer, line.span, what).help(help);
    } else if verdict == Verdict::Allow
        && matches!(probe, Probe::Icmp | Probe::Tcp(_) | Probe::Udp(_))
        && !answers(to)
    {
        sink.warning(Code::MayNotAnswer, line.span, format!("does the guest of `{}` answer this?", to.name))
            .help("we did not make what runs there: it must have the file's address, and answer");
    }
    Some(rows)
}

/// Why the lab that `vnet test` makes cannot prove what becomes of a probe to this node, and what can; none: it can.
fn cannot_prove(node: &Node) -> Option<&'static str> {
    match &node.kind {
        NodeKind::Nic { .. } => Some(
            "it leaves the interfaces of this machine alone: probe a netns, station or vm; or, while the lab is up, \
             `vnet test --running` asks whoever is behind it",
        ),
        NodeKind::Tap { .. } => Some(
            "it makes a tap that nobody uses: probe a netns, station or vm; or, while the lab is up, \
             `vnet test --running` asks whoever uses the tap",
        ),
        NodeKind::Pcap { .. } => Some("capture files answer nothing: probe a netns, station or vm"),
        NodeKind::User => {
            Some("it lets nothing out to the network of this machine: probe a netns, station or vm")
        }
        NodeKind::Station
        | NodeKind::Netns { .. }
        | NodeKind::Vm(_)
        | NodeKind::VhostUser(_)
        | NodeKind::Stream(_)
        | NodeKind::Dgram { .. } => None,
    }
}

/// Whether a prober of ours runs there.
fn answers(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Station | NodeKind::Netns { .. } => true,
        NodeKind::Vm(vm) => matches!(vm.boot, Boot::Image(_) | Boot::Bundled),
        NodeKind::VhostUser(_)
        | NodeKind::Stream(_)
        | NodeKind::Dgram { .. }
        | NodeKind::Tap { .. }
        | NodeKind::Nic { .. }
        | NodeKind::Pcap { .. }
        | NodeKind::User => false,
    }
}

fn bad_form(line: &Said<String>, what: String, sink: &mut Sink) {
    sink.error(Code::ExpectForm, line.span, what).help(FORM);
}

fn parse_probe(word: &str, line: &Said<String>, sink: &mut Sink) -> Option<Probe> {
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0 && !text.starts_with(['0', '+']));
    let probe = match word.split_once('/') {
        None => match word {
            "icmp" => Some(Probe::Icmp),
            "arp" => Some(Probe::Arp),
            "l2" => Some(Probe::L2),
            _ => None,
        },
        Some(("tcp", number)) => port(number).map(Probe::Tcp),
        Some(("udp", number)) => port(number).map(Probe::Udp),
        Some(_) => None,
    };
    if probe.is_none() {
        let what = format!(
            "`{}` is no probe: icmp, tcp/PORT, udp/PORT, arp and l2 are (ports are 1 to 65535)",
            visible(word)
        );
        bad_form(line, what, sink);
    }
    probe
}

fn parse_verdict(word: &str, reason: Option<&str>, line: &Said<String>, sink: &mut Sink) -> Option<Verdict> {
    match (word, reason) {
        ("allow", None) => Some(Verdict::Allow),
        ("allow" | "reject", Some(_)) => {
            sink.error(Code::ExpectReason, line.span, "`because` stands behind `deny` only");
            None
        }
        ("deny", None) => Some(Verdict::Deny(None)),
        ("deny", Some(Because::VLAN)) => Some(Verdict::Deny(Some(Because::Vlan))),
        ("deny", Some(Because::POLICY)) => Some(Verdict::Deny(Some(Because::Policy))),
        ("deny", Some(Because::FIREWALL)) => Some(Verdict::Deny(Some(Because::Firewall))),
        ("reject", None) | ("deny", Some(Because::REJECT)) => Some(Verdict::Deny(Some(Because::Reject))),
        ("deny", Some(reason)) => {
            if let Ok(reason) = reason.parse() {
                return Some(Verdict::Deny(Some(Because::Reason(reason))));
            }
            let what = format!("there is no reason `{}`", visible(reason));
            let classes = Because::CLASSES.map(|(name, _)| name);
            let known = DropReason::ALL.iter().map(|reason| reason.name()).chain(classes.iter().copied());
            sink.error(Code::ExpectReason, line.span, what)
                .help(
                    "`vlan`, `policy`, `firewall`, `reject`, or a drop reason as `vnet show drops` names it",
                )
                .did_you_mean(reason, known);
            None
        }
        _ => {
            bad_form(line, format!("`{}` is no outcome: allow, deny and reject are", visible(word)), sink);
            None
        }
    }
}

/// The interface that `word` means, as its place.
fn end(word: &str, line: &Said<String>, scope: &Scope<'_>, sink: &mut Sink) -> Option<usize> {
    let (name, wanted) = word.split_once(':').map_or((word, None), |(name, wanted)| (name, Some(wanted)));
    let Some(Thing::Node(node)) = scope.names.get(name) else {
        if word.parse::<std::net::IpAddr>().is_ok() || word.starts_with("vlan:") {
            sink.error(
                Code::NotSupportedYet,
                line.span,
                "an address or a VLAN as an end is not supported yet",
            )
            .help("name a node");
            return None;
        }
        let what = format!("there is no node `{}`", visible(name));
        sink.error(Code::ExpectEnd, line.span, what).did_you_mean(name, scope.names.all());
        return None;
    };
    let mut own = scope.interfaces.iter().enumerate().filter(|(_, interface)| interface.node == node);
    let found = match wanted {
        Some(wanted) => own.find(|(_, interface)| interface.name == wanted),
        None => match (own.next(), own.next()) {
            (first, None) => first,
            _ => {
                let what = format!("`{name}` has several interfaces");
                sink.error(Code::ExpectInterface, line.span, what).help(format!("write `{name}:INTERFACE`"));
                return None;
            }
        },
    };
    match found {
        Some((place, interface)) if interface.link.is_some() => Some(place),
        Some(_) => {
            sink.error(Code::ExpectEnd, line.span, format!("`{}` has no link", visible(word)));
            None
        }
        None => {
            sink.error(Code::ExpectEnd, line.span, format!("there is no interface `{}`", visible(word)));
            None
        }
    }
}

/// One row for each address family that both ends have; for `l2` one without addresses.
fn rows(
    line: &Said<String>,
    probe: Probe,
    verdict: Verdict,
    src: usize,
    dst: usize,
    scope: &Scope<'_>,
    sink: &mut Sink,
) -> Option<Vec<Expectation>> {
    let interface = |place: usize| {
        let found = &scope.interfaces[place];
        scope.nodes[found.node].interfaces.iter().find(|interface| interface.name == found.name)
    };
    let (from, to) = (interface(src)?, interface(dst)?);
    let row = |addresses| Expectation {
        text: line.value.clone(),
        src: from.port,
        dst: to.port,
        addresses,
        probe,
        verdict,
        origin: line.span.origin,
    };
    if probe == Probe::L2 {
        if to.mac.is_none() {
            sink.error(Code::ExpectAddress, line.span, "the destination's MAC address is not known")
                .help("state `mac:` on its interface");
            return None;
        }
        return Some(vec![row(None)]);
    }
    let pairs: Vec<(IpNet, IpNet)> =
        from.addresses.iter().flat_map(|a| to.addresses.iter().map(move |b| (*a, *b))).collect();
    let vlan = |place: usize| scope.interfaces[place].link.and_then(|link| scope.links[link].untagged());
    let (src_vlan, dst_vlan) = (vlan(src), vlan(dst));
    let near = |(a, b): &&(IpNet, IpNet)| a.trunc() == b.trunc();
    // Nobody is asked for who is elsewhere.
    let routed = |(a, b): &&(IpNet, IpNet)| {
        let gateway = src_vlan.and_then(|vlan| scope.routers.gateway_for(vlan, a.addr()));
        let router = src_vlan.and_then(|vlan| scope.routers.of_vlan(vlan));
        probe != Probe::Arp
            && gateway.is_some()
            && from.gateways.iter().any(|own| own.is_ipv4() == a.addr().is_ipv4())
            && router.is_some_and(|(router, _)| router.leads_to(b.addr(), dst_vlan))
    };
    let of_family = |v4: bool| {
        let family: Vec<_> =
            pairs.iter().filter(|(a, b)| a.addr().is_ipv4() == v4 && b.addr().is_ipv4() == v4).collect();
        let best = || family.iter().copied();
        best().find(near).or_else(|| best().find(routed)).or(family.first().copied())
    };
    let chosen: Vec<_> = [of_family(true), of_family(false)].into_iter().flatten().collect();
    if chosen.is_empty() {
        sink.error(Code::ExpectAddress, line.span, "the two ends have no addresses of one family")
            .help("give both an address under `addresses:`, or probe with l2");
        return None;
    }
    if verdict == Verdict::Allow && !chosen.iter().all(|pair| near(pair) || routed(pair)) {
        let (what, help) = match probe {
            Probe::Arp => (
                "the two ends have no common subnet, and no router passes questions for MAC addresses on",
                "give both addresses of one subnet, or probe with icmp, tcp or udp",
            ),
            _ => (
                "the two ends have no common subnet, and no gateway leads from one to the other",
                "give both addresses of one subnet, or the VLANs of both a `gateway` of one router in their networks",
            ),
        };
        sink.error(Code::ExpectAddress, line.span, what).help(help);
        return None;
    }
    Some(chosen.iter().map(|(a, b)| row(Some(Addresses { src: a.addr(), dst: b.addr() }))).collect())
}
