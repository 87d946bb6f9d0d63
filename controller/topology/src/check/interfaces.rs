//! Interfaces: which ones a node has, and in which of the two places their keys stand.

use crate::{
    check::{links::Checked, names},
    codes::Code,
    report::{Sink, Span, visible},
    said::{
        lab::{Interface, Lab, Node},
        read::Entry,
        scalar::Kind,
    },
};

/// An interface of a node, with what was said of it.
#[derive(Debug, Clone)]
pub(crate) struct NodeInterface {
    pub(crate) node: usize,
    pub(crate) name: String,
    pub(crate) said: Interface,
    pub(crate) span: Span,
    /// Its place among the links, if it has one.
    pub(crate) link: Option<usize>,
}

/// The interfaces of all nodes, in file order.
pub(crate) fn check(lab: &Lab, links: &[Checked], sink: &mut Sink) -> Vec<NodeInterface> {
    let nodes = lab.nodes.iter().flat_map(|nodes| &nodes.0);
    let mut linked: Vec<Vec<(String, usize)>> = vec![Vec::new(); nodes.clone().count()];
    for (place, link) in links.iter().enumerate() {
        for end in link.node_ends() {
            linked[end.node].push((end.interface.clone(), place));
        }
    }
    let mut all = Vec::new();
    for ((place, entry), linked) in nodes.enumerate().zip(&linked) {
        let Some(node) = &entry.value else { continue };
        let of_node = of_node(place, entry, node, linked, sink);
        if node.kind.as_ref().is_some_and(|kind| kind.value == Kind::Netns) {
            of_node.iter().for_each(|interface| linux_name(interface, sink));
        }
        if is_one_thing(node) {
            only_one(entry, &of_node, sink);
        }
        all.extend(of_node);
    }
    all
}

/// A namespace's interface has its name on the host: at most 15 characters (netdevice(7)), and `lo` is there.
fn linux_name(interface: &NodeInterface, sink: &mut Sink) {
    if interface.name.len() > 15 || interface.name == "lo" {
        let what = format!("`{}` cannot be an interface of a network namespace", visible(&interface.name));
        sink.error(Code::BadName, interface.span, what)
            .help("its name has at most 15 characters, and `lo` is the loopback interface");
    }
}

/// Whether a node is one thing of the host. A peer whose socket no path is said of has a socket for each interface.
fn is_one_thing(node: &Node) -> bool {
    match node.kind.as_ref().map(|kind| kind.value) {
        Some(Kind::Nic | Kind::Pcap | Kind::Dgram | Kind::User) => true,
        Some(Kind::Tap) => node.interface.is_some(),
        Some(Kind::Stream | Kind::VhostUser) => node.listen.is_some() || node.connect.is_some(),
        Some(Kind::Vm | Kind::Station | Kind::Netns) | None => false,
    }
}

/// What is one thing of the host has one interface.
fn only_one(entry: &Entry<Node>, interfaces: &[NodeInterface], sink: &mut Sink) {
    if let Some(second) = interfaces.get(1) {
        let what = format!("`{}` can have one interface only", visible(&entry.name));
        sink.error(Code::KeyNotForKind, second.span, what).help("make it several nodes, each with its own");
    }
}

fn of_node(
    place: usize,
    entry: &Entry<Node>,
    node: &Node,
    linked: &[(String, usize)],
    sink: &mut Sink,
) -> Vec<NodeInterface> {
    let own = node.only_interface();
    let link_of = |name: &str| linked.iter().find(|(linked, _)| linked == name).map(|(_, link)| *link);
    if let Some(listed) = &node.interfaces {
        if !own.is_silent() {
            sink.error(
                Code::BothPlaces,
                entry.span,
                format!("`{}` has interface keys in two places", visible(&entry.name)),
            )
            .help("write them under `interfaces:` only");
        }
        for (name, _) in linked.iter().filter(|(name, _)| !listed.0.iter().any(|listed| listed.name == *name))
        {
            let what =
                format!("a link takes interface `{name}`, which `{}` does not list", visible(&entry.name));
            sink.error(Code::UnknownInterface, entry.span, what)
                .help(format!("add `{name}: {{}}` under `interfaces:`"));
        }
        return listed
            .0
            .iter()
            .map(|listed| {
                names::check(&listed.name, listed.span, sink);
                let said = listed.value.clone().unwrap_or_default();
                NodeInterface {
                    node: place,
                    name: listed.name.clone(),
                    said,
                    span: listed.span,
                    link: link_of(&listed.name),
                }
            })
            .collect();
    }
    if linked.len() > 1 && !own.is_silent() {
        let what = format!(
            "`{}` has {} interfaces; a key on the node does not say which",
            visible(&entry.name),
            linked.len()
        );
        sink.error(Code::KeysNeedInterface, entry.span, what)
            .help("write the keys under `interfaces: { eth0: { ... } }`");
    }
    if linked.is_empty() {
        return vec![NodeInterface {
            node: place,
            name: "eth0".to_owned(),
            said: own,
            span: entry.span,
            link: None,
        }];
    }
    let interface = |(name, link): &(String, usize)| NodeInterface {
        node: place,
        name: name.clone(),
        said: if linked.len() == 1 { own.clone() } else { Interface::default() },
        span: entry.span,
        link: Some(*link),
    };
    let mut interfaces: Vec<NodeInterface> = linked.iter().map(interface).collect();
    interfaces.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    interfaces
}
