//! Links: their ends, which interface each takes, and that switches form no loop.

use crate::{
    check::{
        names::{self, Names, Thing},
        vlans::Vlans,
    },
    codes::Code,
    report::{Sink, Span, visible},
    said::{
        lab::{Carried, Lab, Link},
        read::Said,
    },
};
use std::collections::{HashMap, HashSet};
use vswitch_core::{description::Membership, vlan::VlanId};

/// One end of a link at a node: which of its interfaces.
#[derive(Debug, Clone)]
pub(crate) struct NodeEnd {
    pub(crate) node: usize,
    pub(crate) interface: String,
}

/// A link, checked.
#[derive(Debug, Clone)]
pub(crate) enum Checked {
    Attach { end: NodeEnd, switch: usize, vlans: Membership, span: Span },
    Wire { ends: [NodeEnd; 2], span: Span },
    Trunk { ends: [usize; 2], vlans: Membership, span: Span },
}

impl Checked {
    /// Where it was said.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Attach { span, .. } | Self::Wire { span, .. } | Self::Trunk { span, .. } => *span,
        }
    }

    /// The VLAN of a node's untagged frames there.
    pub(crate) fn untagged(&self) -> Option<VlanId> {
        match self {
            Self::Attach { vlans: Membership::Access(id), .. } => Some(*id),
            Self::Attach { vlans: Membership::Trunk { native, .. }, .. } => *native,
            Self::Wire { .. } | Self::Trunk { .. } => None,
        }
    }

    /// The one VLAN that a node is in there.
    pub(crate) fn only(&self) -> Option<VlanId> {
        match self {
            Self::Attach { vlans: Membership::Access(id), .. } => Some(*id),
            Self::Attach { .. } | Self::Wire { .. } | Self::Trunk { .. } => None,
        }
    }

    /// The switches to which it carries a VLAN.
    pub(crate) fn switches_with(&self, vlan: VlanId) -> &[usize] {
        let (switches, vlans) = match self {
            Self::Attach { switch, vlans, .. } => (std::slice::from_ref(switch), vlans),
            Self::Trunk { ends, vlans, .. } => (&ends[..], vlans),
            Self::Wire { .. } => return &[],
        };
        let carries = match vlans {
            Membership::Access(id) => *id == vlan,
            Membership::Trunk { vlans, .. } => vlans.contains(vlan),
        };
        if carries { switches } else { &[] }
    }

    /// The ends that are nodes.
    pub(crate) fn node_ends(&self) -> &[NodeEnd] {
        match self {
            Self::Attach { end, .. } => std::slice::from_ref(end),
            Self::Wire { ends, .. } => ends,
            Self::Trunk { .. } => &[],
        }
    }
}

/// An end as it resolves, before a node's unnamed interface is chosen.
enum End {
    Node { node: usize, interface: Option<String>, span: Span },
    Switch(usize),
}

/// The links of `lab`.
pub(crate) fn check(lab: &Lab, names: &Names, vlans: &Vlans, sink: &mut Sink) -> Vec<Checked> {
    let mut chooser = Chooser::default();
    let mut links = Vec::new();
    for said in lab.links.iter().flatten() {
        let (ends, vlan) = match &said.value {
            Link::Short(ends) => (Some(ends), None),
            Link::Long(link) => (link.endpoints.as_ref().map(|ends| &ends.value), link.vlan.as_ref()),
        };
        let Some(ends) = ends else { continue };
        let [a, b] = ends.as_slice() else {
            let help = if ends.len() > 2 {
                "use a switch: make one, and link each node to it"
            } else {
                "name two ends"
            };
            sink.error(Code::Ends, said.span, format!("a link has two ends, not {}", ends.len())).help(help);
            continue;
        };
        let (first, second) = (resolve(a, lab, names, sink), resolve(b, lab, names, sink));
        let (Some(first), Some(second)) = (first, second) else { continue };
        links.extend(join(first, second, said.span, vlan, &mut chooser, vlans, sink));
    }
    chooser.tell_mixed(lab, sink);
    refuse_loops(&links, lab, sink);
    links
}

fn join(
    first: End,
    second: End,
    span: Span,
    vlan: Option<&Said<Carried>>,
    chooser: &mut Chooser,
    vlans: &Vlans,
    sink: &mut Sink,
) -> Option<Checked> {
    match (first, second) {
        (End::Switch(a), End::Switch(b)) if a == b => {
            sink.error(Code::Ends, span, "this link joins a switch to itself");
            None
        }
        (End::Switch(a), End::Switch(b)) => {
            let carried = vlan.map_or_else(|| Some(vlans.all()), |said| vlans.membership(said, sink))?;
            Some(Checked::Trunk { ends: [a, b], vlans: carried, span })
        }
        (node @ End::Node { .. }, End::Switch(switch)) | (End::Switch(switch), node @ End::Node { .. }) => {
            let end = chooser.choose(node, sink)?;
            let default = || Some(Membership::Access(VlanId::DEFAULT));
            let vlans = vlan.map_or_else(default, |said| vlans.membership(said, sink))?;
            Some(Checked::Attach { end, switch, vlans, span })
        }
        (a, b) => {
            let ends = [chooser.choose(a, sink)?, chooser.choose(b, sink)?];
            if let Some(vlan) = vlan {
                sink.error(
                    Code::WireVlan,
                    vlan.span,
                    "a link of two nodes is a transparent wire and takes no `vlan`",
                )
                .help("remove `vlan`: tags pass as they are; or put a switch between");
            }
            Some(Checked::Wire { ends, span })
        }
    }
}

fn resolve(said: &Said<String>, lab: &Lab, names: &Names, sink: &mut Sink) -> Option<End> {
    let (name, interface) = match said.value.split_once(':') {
        Some((name, interface)) => (name, Some(interface)),
        None => (said.value.as_str(), None),
    };
    match (names.get(name), interface) {
        (Some(Thing::Switch(switch)), None) => Some(End::Switch(switch)),
        (Some(Thing::Switch(_)), Some(_)) => {
            sink.error(
                Code::UnknownInterface,
                said.span,
                format!("`{name}` is a switch, which has no named interfaces"),
            )
            .help(format!("write `{name}`"));
            None
        }
        (Some(Thing::Node(node)), interface) => {
            let interface = interface.map(str::to_owned);
            if let Some(interface) = &interface {
                names::check(interface, said.span, sink);
                known_interface(said, node, interface, lab, sink)?;
            }
            Some(End::Node { node, interface, span: said.span })
        }
        (None, _) => {
            let what = format!("there is no node or switch `{}`", visible(name));
            sink.error(Code::UnknownEnd, said.span, what).did_you_mean(name, names.all());
            None
        }
    }
}

/// A node that lists its interfaces has these and no others.
fn known_interface(
    said: &Said<String>,
    node: usize,
    interface: &str,
    lab: &Lab,
    sink: &mut Sink,
) -> Option<()> {
    let entry = lab.nodes.as_ref()?.0.get(node)?;
    let Some(listed) = entry.value.as_ref().and_then(|node| node.interfaces.as_ref()) else {
        return Some(());
    };
    if listed.0.iter().any(|listed| listed.name == interface) {
        return Some(());
    }
    let what = format!("`{}` has no interface `{}`", visible(&entry.name), visible(interface));
    sink.error(Code::UnknownInterface, said.span, what)
        .label(entry.span, "the node")
        .did_you_mean(interface, listed.0.iter().map(|listed| listed.name.as_str()));
    None
}

/// Gives each link end its interface: the one it names, or the node's next `ethN`.
#[derive(Default)]
struct Chooser {
    used: HashMap<(usize, String), Span>,
    next: HashMap<usize, usize>,
    named: HashMap<usize, Span>,
    unnamed: HashMap<usize, Span>,
}

impl Chooser {
    fn choose(&mut self, end: End, sink: &mut Sink) -> Option<NodeEnd> {
        let End::Node { node, interface, span } = end else { return None };
        let interface = match interface {
            Some(interface) => {
                self.named.entry(node).or_insert(span);
                if let Some(first) = self.used.get(&(node, interface.clone())) {
                    sink.error(Code::LinkedTwice, span, format!("interface `{interface}` has two links"))
                        .label(*first, "first linked here");
                    return None;
                }
                interface
            }
            None => {
                self.unnamed.entry(node).or_insert(span);
                let next = self.next.entry(node).or_default();
                *next += 1;
                format!("eth{}", *next - 1)
            }
        };
        self.used.insert((node, interface.clone()), span);
        Some(NodeEnd { node, interface })
    }

    fn tell_mixed(&self, lab: &Lab, sink: &mut Sink) {
        for (place, entry) in lab.nodes.iter().flat_map(|nodes| &nodes.0).enumerate() {
            if let (Some(named), Some(unnamed)) = (self.named.get(&place), self.unnamed.get(&place)) {
                let what =
                    format!("this link names no interface of `{}`, another does", visible(&entry.name));
                sink.error(Code::SomeNamed, *unnamed, what)
                    .label(*named, "this one does")
                    .help("name the interface in all of the node's links, or in none");
            }
        }
    }
}

/// Tells of each link that closes a loop, with the links that it closes it with.
fn refuse_loops(links: &[Checked], lab: &Lab, sink: &mut Sink) {
    let mut neighbours: HashMap<usize, Vec<(usize, Span)>> = HashMap::new();
    for link in links {
        let Checked::Trunk { ends: [a, b], span, .. } = link else { continue };
        // Each look at a loop walks the switches: no more than can be shown.
        if sink.is_full() {
            return;
        }
        if let Some(path) = path(&neighbours, *a, *b) {
            let name = |place: usize| {
                lab.switches.as_ref().and_then(|s| s.0.get(place)).map_or("", |s| s.name.as_str())
            };
            let what = format!("this link of `{}` and `{}` closes a loop of switches", name(*a), name(*b));
            let mut told = sink
                .error(Code::Loop, *span, what)
                .help("remove one of these links: there is no spanning tree yet");
            for span in path {
                told = told.label(span, "in the loop");
            }
            continue;
        }
        neighbours.entry(*a).or_default().push((*b, *span));
        neighbours.entry(*b).or_default().push((*a, *span));
    }
}

/// The links from `from` to `to`, in a graph without loops.
fn path(neighbours: &HashMap<usize, Vec<(usize, Span)>>, from: usize, to: usize) -> Option<Vec<Span>> {
    let mut came: HashMap<usize, (usize, Span)> = HashMap::new();
    let mut seen = HashSet::from([from]);
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        if at == to {
            let mut spans = Vec::new();
            let mut back = to;
            while let Some((before, span)) = came.get(&back) {
                spans.push(*span);
                back = *before;
            }
            return Some(spans);
        }
        for (next, span) in neighbours.get(&at).into_iter().flatten() {
            if seen.insert(*next) {
                came.insert(*next, (at, *span));
                open.push(*next);
            }
        }
    }
    None
}
