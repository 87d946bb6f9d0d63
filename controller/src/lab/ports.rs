//! How each port's frames reach the switch: sockets and taps are opened here, with the controller's rights, and kept, so
//! that a switch process that is started again gets the same ones.

use super::{
    guests::vm_directory,
    netns, nic, precheck, recording,
    rundir::LabDir,
    sockets::{SOCKET_IN_USE, bind_datagrams, listen, must_fit},
    tap::{self, Tap},
};
use crate::failure::{Context, Failure};
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};
use topology::plan::{ForeignSocket, Interface, Node, NodeKind, Plan, SocketRole, Vm, Vmm};
use vswitch_core::id::PortId;
use vswitchd::control::protocol::{Attachment, AttachmentKind};

/// Asks the kernel for a name.
const NEW_TAP: &str = "vnet%d";

/// One port's way in.
#[derive(Debug)]
struct Way {
    attachment: Attachment,
    /// As many as the attachment says.
    descriptors: Vec<OwnedFd>,
    /// The listening socket's path, removed at the end.
    listens_at: Option<PathBuf>,
    /// The eventfd that a replay begins at.
    begin: Option<OwnedFd>,
    /// What of this machine it is, by name: a tap, an interface, a network namespace, files.
    host: Vec<String>,
}

/// The ways into all ports of a lab. Dropping them closes them, and removes the sockets that were made.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    /// In the order of the nodes and their interfaces; that of the routers is the last.
    ways: Vec<Arc<Way>>,
}

impl Ports {
    /// Opens a way into each port of `plan`.
    ///
    /// # Errors
    /// A socket is in use or cannot be made, a tap is not permitted; with the place of the node in the file. What was opened is
    /// closed again.
    pub fn open(plan: &Plan, dir: &LabDir) -> Result<Self, Failure> {
        let mut ports = Self::default();
        let replayed: Vec<_> = plan.nodes.iter().filter_map(|node| replay(&node.kind)).collect();
        for node in &plan.nodes {
            ports.open_node(node, &replayed, dir).map_err(|failure| precheck::at(plan, node, failure))?;
        }
        let routers = plan.description.routing.as_ref();
        ports.ways.extend(routers.map(|routing| Arc::new(Way::to_routers(routing.port))));
        // Not before all else is there: a lab that does not come up takes no recording away.
        let nodes = plan.nodes.iter().flat_map(|node| node.interfaces.iter().map(move |_| node));
        for (way, node) in ports.ways.iter().zip(nodes) {
            if let (AttachmentKind::Pcap { record: true, .. }, Some(file)) =
                (&way.attachment.kind, way.descriptors.last())
            {
                let begun = recording::empty(file).context("pcap", || "a recording cannot begin".into());
                begun.map_err(|failure| precheck::at(plan, node, failure))?;
            }
        }
        Ok(ports)
    }

    fn open_node(&mut self, node: &Node, replayed: &[&Path], dir: &LabDir) -> Result<(), Failure> {
        let namespace = open_namespace(node, dir)?;
        for interface in &node.interfaces {
            self.ways.push(Arc::new(open(node, interface, namespace.as_deref(), replayed, dir)?));
        }
        namespace.map_or(Ok(()), |name| netns::furnish(&node.interfaces, &name))
    }

    /// The same ports, of which those of taps, nics and network namespaces that are `broken` are opened again; and those that were, by
    /// name, and why others could not be.
    pub fn opened_again(
        &self,
        plan: &Plan,
        broken: &[PortId],
        dir: &LabDir,
    ) -> (Self, Vec<String>, Vec<Failure>) {
        let (mut ports, mut opened, mut failures) = (self.clone(), vec![], vec![]);
        for node in &plan.nodes {
            let of_host = is_of_host(&node.kind);
            for interface in node.interfaces.iter().filter(|own| of_host && broken.contains(&own.port)) {
                let mut ways = ports.ways.iter_mut();
                let Some(way) = ways.find(|way| way.attachment.port == interface.port) else { continue };
                match way.open_again(node, interface, dir) {
                    Ok(again) => {
                        *way = Arc::new(again);
                        opened.push(format!("{}:{}", node.name, interface.name));
                    }
                    Err(failure) => failures.push(precheck::at(plan, node, failure)),
                }
            }
        }
        (ports, opened, failures)
    }

    /// Has the capture files replayed, each once: a switch that is started again does not begin anew.
    pub fn begin_replays(&self) {
        for begin in self.ways.iter().filter_map(|way| way.begin.as_ref()) {
            // A counter that is full is as good as signalled.
            let _ = rustix::io::write(begin, &1_u64.to_ne_bytes());
        }
    }

    /// What of this machine `node` is, by name: taps, an interface, a network namespace, files.
    pub fn host(&self, node: &Node) -> Vec<String> {
        let of_node = |way: &&Arc<Way>| node.interfaces.iter().any(|own| own.port == way.attachment.port);
        let mut names: Vec<_> = self.ways.iter().filter(of_node).flat_map(|way| way.host.clone()).collect();
        // Interfaces of one namespace follow each other.
        names.dedup();
        names
    }

    /// What the switch is told.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.ways.iter().map(|way| way.attachment.clone()).collect()
    }

    /// The descriptors of the attachments, in order.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.ways.iter().flat_map(|way| &way.descriptors).map(AsFd::as_fd).collect()
    }
}

impl Way {
    /// To what the switch serves itself.
    fn to_routers(port: PortId) -> Self {
        let attachment = Attachment::new(port, AttachmentKind::Routers);
        Self { attachment, descriptors: vec![], listens_at: None, begin: None, host: vec![] }
    }

    /// A new way to the same port, whose interface went away, or whose adapter broke.
    fn open_again(&self, node: &Node, interface: &Interface, dir: &LabDir) -> Result<Self, Failure> {
        let namespace = match &node.kind {
            NodeKind::Netns { namespace } => Some(netns::name(node, namespace.as_deref(), dir)),
            _ => None,
        };
        let is_tap = matches!(self.attachment.kind, AttachmentKind::Tap { .. });
        let mut way = if is_tap && self.descriptors.iter().all(tap::is_attached) {
            // The interface is there as it was, and these are the queues that it has.
            let descriptors = self.descriptors.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
            Self {
                attachment: self.attachment.clone(),
                descriptors: descriptors.context("tap", || self.host.join(", "))?,
                listens_at: None,
                begin: None,
                host: self.host.clone(),
            }
        } else {
            let way = open(node, interface, namespace.as_deref(), &[], dir)?;
            if let Some(name) = namespace {
                netns::furnish(std::slice::from_ref(interface), &name)?;
            }
            way
        };
        way.attachment.reopened = self.attachment.reopened + 1;
        Ok(way)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(path) = &self.listens_at {
            // Gone already, with its folder: as wanted.
            let _ = fs::remove_file(path);
        }
    }
}

/// The socket of an interface, and which side listens on it; none for a tap. [`is_stream`] says what is spoken there.
///
/// Stations and guests under vmm-lite connect to us, and again if they have to. QEMU listens, so that a switch that is started again finds its guests by itself.
pub fn socket(node: &Node, interface: &Interface, dir: &LabDir) -> Option<(SocketRole, PathBuf)> {
    let in_run_directory = || dir.port_socket(&node.name, &interface.name);
    match &node.kind {
        NodeKind::Vm(Vm { vmm: Vmm::VmmLite, .. }) => Some((SocketRole::Listen, in_run_directory())),
        NodeKind::Vm(_) => {
            let place = node.interfaces.iter().position(|other| other.name == interface.name)?;
            Some((SocketRole::Connect, vm_directory(&node.name, dir).interface(place)))
        }
        // To a way out its socket is connected by us.
        NodeKind::Station | NodeKind::User => Some((SocketRole::Listen, in_run_directory())),
        NodeKind::VhostUser(ForeignSocket { role, path, .. })
        | NodeKind::Stream(ForeignSocket { role, path, .. })
        | NodeKind::Dgram { local: ForeignSocket { role, path, .. }, .. } => {
            Some((*role, path.clone().unwrap_or_else(in_run_directory)))
        }
        NodeKind::Tap { .. } | NodeKind::Netns { .. } | NodeKind::Nic { .. } | NodeKind::Pcap { .. } => None,
    }
}

/// Whether what an interface's socket carries is frames themselves, with their lengths, and not vhost-user.
pub fn is_stream(node: &Node, interface: &Interface) -> bool {
    match node.kind {
        NodeKind::Stream(_) | NodeKind::User => true,
        NodeKind::Vm(_) => !interface.model.is_virtio(),
        _ => false,
    }
}

/// Whether a node is interfaces of this machine, which may be taken away while the lab runs.
pub(super) fn is_of_host(kind: &NodeKind) -> bool {
    matches!(kind, NodeKind::Tap { .. } | NodeKind::Nic { .. } | NodeKind::Netns { .. })
}

/// The file that a node replays.
fn replay(kind: &NodeKind) -> Option<&Path> {
    match kind {
        NodeKind::Pcap { replay, .. } => replay.as_deref(),
        _ => None,
    }
}

/// The network namespace of a node that has one, made if the file names none.
fn open_namespace(node: &Node, dir: &LabDir) -> Result<Option<String>, Failure> {
    let NodeKind::Netns { namespace } = &node.kind else { return Ok(None) };
    let name = netns::name(node, namespace.as_deref(), dir);
    if namespace.is_none() {
        netns::make(&name, dir)?;
    }
    Ok(Some(name))
}

fn open(
    node: &Node,
    interface: &Interface,
    namespace: Option<&str>,
    replayed: &[&Path],
    dir: &LabDir,
) -> Result<Way, Failure> {
    let way = |kind, descriptors, listens_at| Way {
        attachment: Attachment::new(interface.port, kind),
        descriptors,
        listens_at,
        begin: None,
        host: vec![],
    };
    let of_host = |kind, descriptors, host| {
        let mut way = way(kind, descriptors, None);
        way.host = host;
        way
    };
    let tap_kind = |tap: &Tap| AttachmentKind::Tap { queues: interface.queues, uso: tap.uso };
    let stream = is_stream(node, interface);
    match (socket(node, interface, dir), &node.kind) {
        (Some((_, path)), NodeKind::Dgram { local, remote }) => {
            dir.note_socket(&path)?;
            let bound = bind_datagrams(&path).map_err(|failure| name_the_holder(failure, &path, dir))?;
            let kind = AttachmentKind::Dgram { remote: for_the_switch(remote, dir)? };
            let way = way(kind, vec![bound.into()], Some(path.clone()));
            share(&path, local)?;
            Ok(way)
        }
        (Some((SocketRole::Listen, path)), kind) => {
            dir.note_socket(&path)?;
            let listener = listen(&path).map_err(|failure| name_the_holder(failure, &path, dir))?;
            let spoken = if stream { AttachmentKind::StreamListen } else { AttachmentKind::VhostUserListen };
            let way = way(spoken, vec![listener.into()], Some(path.clone()));
            if let NodeKind::VhostUser(settings) | NodeKind::Stream(settings) = kind {
                share(&path, settings)?;
            }
            Ok(way)
        }
        (Some((SocketRole::Connect, path)), _) => {
            let path = for_the_switch(&path, dir)?;
            let spoken = match stream {
                true => AttachmentKind::StreamConnect { path },
                false => AttachmentKind::VhostUserConnect { path },
            };
            Ok(way(spoken, vec![], None))
        }
        (None, NodeKind::Tap { interface: name }) => {
            let name = name.as_deref().unwrap_or(NEW_TAP);
            let tap = tap::open(name, interface.queues)
                .map_err(|why| not_opened(&node.kind, None, name, interface.queues, why))?;
            Ok(of_host(tap_kind(&tap), tap.queues, vec![tap.name]))
        }
        (None, NodeKind::Nic { interface: name }) => {
            let socket = nic::open(name).map_err(|why| not_opened(&node.kind, None, name, 1, why))?;
            let kind = AttachmentKind::Nic { interface: name.clone() };
            Ok(of_host(kind, vec![socket], vec![name.clone()]))
        }
        (None, NodeKind::Pcap { replay, record, fast }) => {
            let said = |path: &Path| path.display().to_string();
            let kind =
                AttachmentKind::Pcap { replay: replay.is_some(), record: record.is_some(), paced: !fast };
            let mut opened =
                of_host(kind, vec![], replay.iter().chain(record).map(|path| said(path)).collect());
            if let Some(path) = replay {
                let file = File::open(path).context("pcap", || said(path))?;
                let begin = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
                let begin = begin.context("pcap", || said(path))?;
                opened.begin = Some(begin.try_clone().context("pcap", || said(path))?);
                opened.descriptors.extend([file.into(), begin]);
            }
            if let Some(path) = record {
                opened.descriptors.push(recording::open(path, replayed)?.into());
            }
            Ok(opened)
        }
        (None, _) => {
            let (name, queues) = (&interface.name, interface.queues);
            let namespace = namespace.unwrap_or_default();
            let opened = netns::within(namespace, || tap::open(name, queues))?;
            let tap = opened.map_err(|why| not_opened(&node.kind, Some(namespace), name, queues, why))?;
            Ok(of_host(tap_kind(&tap), tap.queues, vec![namespace.to_owned()]))
        }
    }
}

/// The path of a socket of somebody else's as the switch is told it: it works in the lab's folder.
fn for_the_switch(path: &Path, dir: &LabDir) -> Result<String, Failure> {
    let path = path.strip_prefix(dir.path()).unwrap_or(path).to_owned();
    must_fit(&path)?;
    path.into_os_string().into_string().map_err(|path| {
        Failure::invalid("socket-path", format!("the socket path {} is not UTF-8", path.display()))
    })
}

/// Names the lab whose socket is in the way, if it is one of this user's.
fn name_the_holder(failure: Failure, path: &Path, dir: &LabDir) -> Failure {
    match dir.other_lab_with(path) {
        Some(lab) if failure.code == SOCKET_IN_USE => Failure {
            message: format!(
                "{} cannot be listened on: another vnet lab ({lab}) listens there",
                path.display()
            ),
            mend: Some(format!("take it down: vnet down --name {lab}; or give another path")),
            ..failure
        },
        _ => failure,
    }
}

/// Lets those connect whom the file names.
fn share(path: &Path, settings: &ForeignSocket) -> Result<(), Failure> {
    if let Some(group) = &settings.group {
        let id = group_id(group).ok_or_else(|| {
            Failure::invalid("no-such-group", format!("there is no group `{group}` on this machine"))
        })?;
        std::os::unix::fs::lchown(path, None, Some(id))
            .context("socket-group", || format!("{} cannot be given to group `{group}`", path.display()))?;
    }
    if let Some(mode) = settings.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .context("socket-mode", || format!("{} cannot get mode {mode:o}", path.display()))?;
    }
    Ok(())
}

/// The number of a group, by its number or its name in group(5).
fn group_id(group: &str) -> Option<u32> {
    group.parse().ok().or_else(|| {
        let groups = fs::read_to_string("/etc/group").ok()?;
        let mut lines = groups.lines().map(|line| line.split(':'));
        lines.find_map(|mut fields| (fields.next()? == group).then(|| fields.nth(1)?.parse().ok())?)
    })
}

/// Why the interface `name` could not be opened, and what to do about it.
fn not_opened(kind: &NodeKind, namespace: Option<&str>, name: &str, queues: u16, why: Errno) -> Failure {
    let several = if queues > 1 { " multi_queue" } else { "" };
    let (code, mend) = match (kind, why) {
        (NodeKind::Nic { .. }, Errno::PERM | Errno::ACCESS) => {
            ("nic", "run vnet as root: a packet socket needs CAP_NET_RAW".into())
        }
        (NodeKind::Nic { .. }, Errno::NODEV) => {
            ("nic", "`ip link` lists the interfaces that are here".into())
        }
        (NodeKind::Nic { .. }, Errno::INVAL) => {
            ("nic", "it must be an Ethernet interface (`ip link` says link/ether)".into())
        }
        (NodeKind::Nic { .. }, _) => ("nic", "as root: modprobe af_packet".into()),
        (_, Errno::NOENT) => ("tap", "as root: modprobe tun".into()),
        (NodeKind::Tap { interface: Some(_) }, Errno::PERM | Errno::ACCESS) => {
            let user = rustix::process::getuid().as_raw();
            let mend = format!("as root, once: ip tuntap add dev {name} mode tap user {user}{several}");
            ("tap-not-permitted", mend)
        }
        (NodeKind::Tap { interface: Some(_) }, Errno::BUSY) => {
            ("tap", format!("somebody else has {name}: give another name"))
        }
        (NodeKind::Tap { interface: Some(_) }, Errno::INVAL) => ("tap", unfit(name, queues)),
        (NodeKind::Tap { .. }, _) => {
            let mend = "run vnet as root, or name a tap that root made for you (`interface:`)";
            ("tap-not-permitted", mend.into())
        }
        (_, Errno::BUSY | Errno::INVAL) => {
            let there = namespace.unwrap_or_default();
            let otherwise = "name the node's interface otherwise (`interfaces:`)";
            let mend = match netns::within(there, || tap::is_tap(name)) {
                Ok(Ok(true)) => {
                    format!(
                        "there is a tap {name} already: {otherwise}, or take that one away: ip -n {there} link del {name}"
                    )
                }
                _ => format!("there is a {name} already, and it is no tap: {otherwise}"),
            };
            ("netns", mend)
        }
        (_, _) => ("netns-not-permitted", "run vnet as root: it needs CAP_NET_ADMIN there".into()),
    };
    let place = namespace.map(|name| format!(" in the network namespace {name}")).unwrap_or_default();
    let what = if name == NEW_TAP { "a new tap".into() } else { format!("the interface {name}") };
    Failure::lacking(code, format!("{what} cannot be opened{place}: {why}")).mend(mend)
}

/// What to do about an interface `name` that is there and that TUNSETIFF refuses to open with so many queues. What is no tap of vnet's kind is
/// somebody's network: nothing here is to tell anybody to take it away.
fn unfit(name: &str, queues: u16) -> String {
    match (tap::is_tap(name), queues) {
        (Ok(true), 1) => format!(
            "{name} is a tap of several queues (multi_queue): say `queues: 2` or more at the node, or make it anew with one: \
             ip tuntap del dev {name} mode tap multi_queue; ip tuntap add dev {name} mode tap"
        ),
        (Ok(true), _) => format!(
            "{name} is a tap of one queue, and the node has {queues}: leave `queues` out, or make it anew for several: \
             ip tuntap del dev {name} mode tap; ip tuntap add dev {name} mode tap multi_queue"
        ),
        _ => format!(
            "{name} is an interface of this machine that is no tap: choose another name, which vnet makes; \
             or `kind: nic` attaches to {name} itself"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rundir::Runtime;
    use super::*;
    use vswitch_core::{
        description::{Description, Origin},
        id::Epoch,
    };

    const ORIGIN: Origin = Origin { line: 1, column: 1 };

    fn node(name: &str, port: u16, kind: NodeKind) -> Node {
        let interface = Interface {
            name: "eth0".into(),
            port: PortId::new(port, 0),
            mac: None,
            addresses: vec![],
            gateways: vec![],
            asks: topology::plan::Asks::default(),
            mtu: None,
            queues: 1,
            model: topology::plan::Model::Virtio,
            sealed_memory: false,
            link_down: false,
        };
        Node { name: name.into(), kind, interfaces: vec![interface], origin: ORIGIN }
    }

    fn plan(nodes: Vec<Node>) -> Plan {
        Plan {
            description: Description {
                lab: "lab".into(),
                file: "lab.vnet.yaml".into(),
                epoch: Epoch::new(1),
                vlans: vec![],
                switches: vec![],
                groups: vec![],
                ports: vec![],
                trunks: vec![],
                routing: None,
            },
            datapath: topology::plan::Datapath {
                workers: 1,
                cpus: vec![],
                always_poll: false,
                connections: 1024,
            },
            nodes,
            expectations: vec![],
        }
    }

    #[test]
    fn listening_ports_bring_a_socket_with_its_mode_and_leave_none_behind() {
        let base = tempfile::tempdir().unwrap();
        let claim = Runtime::at(&base.path().join("vnet")).claim(&"lab".parse().unwrap()).unwrap();
        let foreign = base.path().join("ext.sock");
        let listen = ForeignSocket {
            role: SocketRole::Listen,
            path: Some(foreign.clone()),
            mode: Some(0o660),
            group: None,
        };
        let connect = ForeignSocket {
            role: SocketRole::Connect,
            path: Some("/vmm.sock".into()),
            mode: None,
            group: None,
        };
        let plan = plan(vec![
            node("h1", 0, NodeKind::Station),
            node("ext1", 1, NodeKind::VhostUser(listen)),
            node("ext2", 2, NodeKind::VhostUser(connect)),
        ]);
        let ports = Ports::open(&plan, claim.dir()).unwrap();
        let station = claim.dir().port_socket("h1", "eth0");
        assert!(station.exists());
        assert_eq!(fs::metadata(&foreign).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(ports.descriptors().len(), 2);
        let kinds: Vec<_> = ports.attachments().into_iter().map(|attachment| attachment.kind).collect();
        let connects = AttachmentKind::VhostUserConnect { path: "/vmm.sock".into() };
        assert_eq!(kinds, [AttachmentKind::VhostUserListen, AttachmentKind::VhostUserListen, connects]);
        drop(ports);
        assert!(!station.exists() && !foreign.exists());
    }

    #[test]
    fn the_routers_are_attached_behind_all_nodes_and_bring_no_descriptor() {
        let base = tempfile::tempdir().unwrap();
        let claim = Runtime::at(&base.path().join("vnet")).claim(&"lab".parse().unwrap()).unwrap();
        let text = include_str!("../../../topologies/routed.vnet.yaml");
        let plan = topology::load(text, "routed.vnet.yaml", base.path()).unwrap().plan;
        let ports = Ports::open(&plan, claim.dir()).unwrap();
        let (attachments, routers) = (ports.attachments(), plan.routers().unwrap().id);
        assert_eq!(attachments.last(), Some(&Attachment::new(routers, AttachmentKind::Routers)));
        let descriptors: usize = attachments.iter().map(|one| one.kind.descriptors()).sum();
        assert_eq!((attachments.len(), descriptors), (plan.nodes.len() + 1, ports.descriptors().len()));
    }

    #[test]
    fn a_port_that_cannot_be_opened_closes_those_before_it() {
        let base = tempfile::tempdir().unwrap();
        let claim = Runtime::at(&base.path().join("vnet")).claim(&"lab".parse().unwrap()).unwrap();
        let group = Some("no-such-group-here".to_owned());
        let path = base.path().join("ext.sock");
        let nobody = ForeignSocket { role: SocketRole::Listen, path: Some(path.clone()), mode: None, group };
        let plan = plan(vec![node("h1", 0, NodeKind::Station), node("ext1", 1, NodeKind::VhostUser(nobody))]);
        let failure = Ports::open(&plan, claim.dir()).unwrap_err();
        assert_eq!(failure.code, "no-such-group");
        assert!(failure.message.starts_with("lab.vnet.yaml:1:1: node ext1: there is no group"), "{failure}");
        assert!(!claim.dir().port_socket("h1", "eth0").exists() && !path.exists());
    }

    #[test]
    fn what_cannot_be_recorded_to_is_told_with_its_place() {
        let base = tempfile::tempdir().unwrap();
        let claim = Runtime::at(&base.path().join("vnet")).claim(&"lab".parse().unwrap()).unwrap();
        let record = Some(base.path().join("nowhere/out.pcapng"));
        let plan = plan(vec![node("sink", 0, NodeKind::Pcap { replay: None, record, fast: false })]);
        let failure = Ports::open(&plan, claim.dir()).unwrap_err();
        assert_eq!(failure.code, "pcap");
        assert!(failure.message.starts_with("lab.vnet.yaml:1:1: node sink: /"), "{failure}");
    }
}
