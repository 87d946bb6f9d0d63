//! Nodes: which keys each kind has, and that no two nodes use one thing of the host.

use crate::{
    check::interfaces::NodeInterface,
    codes::Code,
    plan::{Boot, ForeignSocket, NodeKind, SocketRole, Vm, Vmm},
    report::{Sink, Span, visible},
    said::{
        lab::Node,
        read::{Entry, Said},
        scalar::{Kind, Pace, VmmWord},
    },
};
use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
};

/// The longest path of a Unix socket, in bytes: `sun_path` less its terminating NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The memory of a virtual machine of which none is said: of the bundled guest, and of any other.
const BUNDLED_MEMORY: u64 = 64 << 20;
const OTHER_MEMORY: u64 = 256 << 20;

/// What nodes use of the host, each with the place that said so.
#[derive(Default)]
pub(crate) struct Host {
    used: HashMap<(&'static str, String), Span>,
}

impl Host {
    fn use_once(&mut self, what: &'static str, name: &str, span: Span, sink: &mut Sink) {
        if let Some(first) = self.used.get(&(what, name.to_owned())) {
            sink.error(Code::UsedTwice, span, format!("two nodes use the {what} `{}`", visible(name)))
                .label(*first, "first used here");
        } else {
            self.used.insert((what, name.to_owned()), span);
        }
    }
}

/// What `entry` is; none if that could not be told.
pub(crate) fn kind(entry: &Entry<Node>, base: &Path, host: &mut Host, sink: &mut Sink) -> Option<NodeKind> {
    let node = entry.value.as_ref()?;
    let kind = node.kind.as_ref()?;
    refuse_foreign_keys(node, kind.value, sink);
    match kind.value {
        Kind::Vm => vm(entry, node, base, host, sink).map(NodeKind::Vm),
        Kind::Station => Some(NodeKind::Station),
        Kind::VhostUser => socket(node, base, host, sink).map(NodeKind::VhostUser),
        Kind::Stream => socket(node, base, host, sink).map(NodeKind::Stream),
        Kind::Dgram => datagrams(node, kind.span, base, host, sink),
        Kind::Tap => {
            let interface = node.interface.as_ref();
            if let Some(name) = interface {
                tap_name(name, sink);
                host.use_once("host interface", &name.value, name.span, sink);
            }
            Some(NodeKind::Tap { interface: interface.map(|name| name.value.clone()) })
        }
        Kind::Nic => {
            let Some(name) = node.interface.as_ref() else {
                let what =
                    format!("`{}` does not say which interface of the host it is", visible(&entry.name));
                sink.error(Code::MissingKey, kind.span, what)
                    .help("name one that `ip link` lists: `interface: eth1`");
                return None;
            };
            tap_name(name, sink);
            host.use_once("host interface", &name.value, name.span, sink);
            Some(NodeKind::Nic { interface: name.value.clone() })
        }
        Kind::Pcap => pcap(entry, node, base, host, sink),
        Kind::User => Some(NodeKind::User),
        Kind::Netns => {
            let namespace = node.netns.as_ref();
            if let Some(name) = namespace {
                namespace_name(name, sink);
                host.use_once("network namespace", &name.value, name.span, sink);
            }
            Some(NodeKind::Netns { namespace: namespace.map(|name| name.value.clone()) })
        }
    }
}

/// A kind as the file writes it.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Vm => "vm",
        Kind::Station => "station",
        Kind::VhostUser => "vhost-user",
        Kind::Tap => "tap",
        Kind::Stream => "stream",
        Kind::Netns => "netns",
        Kind::Nic => "nic",
        Kind::Pcap => "pcap",
        Kind::Dgram => "dgram",
        Kind::User => "user",
    }
}

/// Tells of each key that only another kind has.
fn refuse_foreign_keys(node: &Node, kind: Kind, sink: &mut Sink) {
    let span = |said: &Option<Said<String>>| said.as_ref().map(|said| said.span);
    let (vm, sockets): (&[Kind], &[Kind]) = (&[Kind::Vm], &[Kind::VhostUser, Kind::Stream]);
    let shared: &[Kind] = &[Kind::VhostUser, Kind::Stream, Kind::Dgram];
    let guests = &[Kind::Vm, Kind::VhostUser, Kind::Stream, Kind::Dgram, Kind::Tap, Kind::Netns, Kind::Nic];
    let keys = [
        ("vmm", vm, node.vmm.as_ref().map(|said| said.span)),
        ("image", vm, node.image.as_ref().map(|said| said.span)),
        ("kernel", vm, span(&node.kernel)),
        ("initrd", vm, span(&node.initrd)),
        ("cmdline", vm, span(&node.cmdline)),
        ("disk", vm, span(&node.disk)),
        ("write", vm, node.write.as_ref().map(|said| said.span)),
        ("boot", vm, node.boot.as_ref().map(|said| said.span)),
        ("ssh-keys", guests, node.ssh_keys.as_ref().map(|said| said.span)),
        ("memory", vm, node.memory.as_ref().map(|said| said.span)),
        ("cpus", vm, node.cpus.as_ref().map(|said| said.span)),
        ("listen", sockets, span(&node.listen)),
        ("connect", sockets, span(&node.connect)),
        ("local", &[Kind::Dgram], span(&node.local)),
        ("remote", &[Kind::Dgram], span(&node.remote)),
        ("socket-mode", shared, node.socket_mode.as_ref().map(|said| said.span)),
        ("socket-group", shared, span(&node.socket_group)),
        ("interface", &[Kind::Tap, Kind::Nic], span(&node.interface)),
        ("replay", &[Kind::Pcap], span(&node.replay)),
        ("record", &[Kind::Pcap], span(&node.record)),
        ("pace", &[Kind::Pcap], node.pace.as_ref().map(|said| said.span)),
        ("netns", &[Kind::Netns], span(&node.netns)),
    ];
    for (key, owners, span) in keys {
        if let Some(span) = span.filter(|_| !owners.contains(&kind)) {
            let what = format!("a node of kind {} has no `{key}`", word(kind));
            let owners: Vec<_> = owners.iter().map(|owner| word(*owner)).collect();
            sink.error(Code::KeyNotForKind, span, what)
                .help(format!("`{key}` belongs to kind {}", owners.join(" or ")));
        }
    }
}

/// Refuses several queue pairs where there can only be one.
pub(crate) fn check_queues(kinds: &[Option<NodeKind>], interfaces: &[NodeInterface], sink: &mut Sink) {
    for interface in interfaces {
        let who = match kinds.get(interface.node) {
            Some(Some(NodeKind::Station)) => "a station",
            Some(Some(NodeKind::Nic { .. })) => "a nic",
            Some(Some(NodeKind::Pcap { .. })) => "a port of capture files",
            Some(Some(NodeKind::Vm(vm))) if vm.boot == Boot::Bundled => "the bundled guest",
            _ => continue,
        };
        if let Some(queues) = interface.said.queues.as_ref().filter(|queues| queues.value.0 > 1) {
            let what = format!("`queues: {}` is not supported yet: {who} has one queue pair", queues.value.0);
            sink.error(Code::NotSupportedYet, queues.span, what).help(
                "leave `queues` out; a guest with a kernel of its own can have several, like `image: debian`",
            );
        }
    }
}

fn vm(entry: &Entry<Node>, node: &Node, base: &Path, host: &mut Host, sink: &mut Sink) -> Option<Vm> {
    let path = |said: &Said<String>| absolute(base, &said.value);
    let ways = [
        node.image.as_ref().map(|said| ("image", said.span)),
        node.kernel.as_ref().map(|said| ("kernel", said.span)),
        node.disk.as_ref().map(|said| ("disk", said.span)),
        node.boot.as_ref().map(|said| ("boot", said.span)),
    ];
    let mut ways = ways.into_iter().flatten();
    let first = ways.next();
    if let (Some((first, place)), Some((second, span))) = (first, ways.next()) {
        sink.error(Code::Exclusive, span, format!("`{first}` and `{second}` both say what to boot"))
            .label(place, "the other");
    }
    for (key, said) in [("initrd", &node.initrd), ("cmdline", &node.cmdline)] {
        if let Some(said) = said.as_ref().filter(|_| node.kernel.is_none()) {
            sink.error(Code::NeedsKey, said.span, format!("`{key}` needs `kernel`"));
        }
    }
    if let Some(write) = node.write.as_ref().filter(|_| node.disk.is_none()) {
        sink.error(Code::NeedsKey, write.span, "`write` needs `disk`");
    }
    let write = node.write.as_ref().is_some_and(|said| said.value);
    let boot = if let Some(image) = &node.image {
        Boot::Image(image.value.word().to_owned())
    } else if let Some(kernel) = &node.kernel {
        let cmdline = node.cmdline.as_ref().map(|said| said.value.clone());
        Boot::Kernel { kernel: path(kernel), initrd: node.initrd.as_ref().map(path), cmdline }
    } else if let Some(disk) = &node.disk {
        let path = path(disk);
        if write {
            host.use_once("disk (to write to)", &path.to_string_lossy(), disk.span, sink);
        }
        Boot::Disk { path, write }
    } else if node.boot.is_some() {
        Boot::Network
    } else {
        Boot::Bundled
    };
    if let Some(said) = &node.vmm {
        let what = match (said.value, &boot) {
            (VmmWord::Qemu, Boot::Bundled) => Some((
                "boots the bundled guest, which QEMU cannot",
                "leave `vmm` out; or say what QEMU is to boot, like `image: debian`",
            )),
            (VmmWord::VmmLite, Boot::Disk { .. }) => Some((
                "boots a disk, which vmm-lite cannot: it has no firmware",
                "leave `vmm` out, and QEMU boots it; or give `kernel` and `initrd` in place of `disk`",
            )),
            (VmmWord::VmmLite, Boot::Network) => Some((
                "boots from the network, which vmm-lite cannot: it has no firmware",
                "leave `vmm` out, and QEMU boots it",
            )),
            _ => None,
        };
        if let Some((what, help)) = what {
            sink.error(Code::Exclusive, said.span, format!("`{}` {what}", visible(&entry.name))).help(help);
        }
    }
    let vmm = match (node.vmm.as_ref().map(|said| said.value), &boot) {
        // Nobody else has it.
        (_, Boot::Bundled) | (Some(VmmWord::VmmLite), _) => Vmm::VmmLite,
        (Some(VmmWord::Qemu), _) => Vmm::Qemu,
        (None | Some(VmmWord::Auto), _) => Vmm::Auto,
    };
    let default_memory = if boot == Boot::Bundled { BUNDLED_MEMORY } else { OTHER_MEMORY };
    let memory = node.memory.as_ref().map_or(default_memory, |said| said.value.0);
    let cpus = node.cpus.as_ref().map_or(1, |said| u8::try_from(said.value.0).unwrap_or(u8::MAX));
    Some(Vm { vmm, boot, memory, cpus, metadata: false })
}

fn pcap(entry: &Entry<Node>, node: &Node, base: &Path, host: &mut Host, sink: &mut Sink) -> Option<NodeKind> {
    let path =
        |said: &Option<Said<String>>| said.as_ref().map(|said| (absolute(base, &said.value), said.span));
    let (replay, record) = (path(&node.replay), path(&node.record));
    if replay.is_none() && record.is_none() {
        let what = format!("`{}` says neither what to replay nor what to record", visible(&entry.name));
        sink.error(Code::MissingKey, node.kind.as_ref()?.span, what)
            .help("add `replay: in.pcap`, `record: out.pcapng`, or both");
        return None;
    }
    if let Some(pace) = node.pace.as_ref().filter(|_| replay.is_none()) {
        sink.error(Code::NeedsKey, pace.span, "`pace` needs `replay`");
    }
    if let Some((path, span)) = &record {
        host.use_once("file (to record to)", &path.to_string_lossy(), *span, sink);
        if let Some((_, from)) = replay.as_ref().filter(|(other, _)| other == path) {
            sink.error(Code::Exclusive, *span, "`record` would overwrite what is replayed")
                .label(*from, "replayed here")
                .help("record to another file");
        }
    }
    let fast = node.pace.as_ref().is_some_and(|pace| pace.value == Pace::Fast);
    Some(NodeKind::Pcap { replay: replay.map(|(path, _)| path), record: record.map(|(path, _)| path), fast })
}

fn socket(node: &Node, base: &Path, host: &mut Host, sink: &mut Sink) -> Option<ForeignSocket> {
    if let (Some(listen), Some(connect)) = (&node.listen, &node.connect) {
        sink.error(
            Code::Exclusive,
            connect.span,
            "`listen` and `connect` exclude one another: one side listens",
        )
        .label(listen.span, "the other");
        return None;
    }
    let said = node.listen.as_ref().or(node.connect.as_ref());
    let path = said.map(|said| socket_path(said, base, host, sink));
    if node.connect.is_some() {
        let mode = node.socket_mode.as_ref().map(|said| ("socket-mode", said.span));
        let group = node.socket_group.as_ref().map(|said| ("socket-group", said.span));
        for (key, span) in mode.into_iter().chain(group) {
            sink.error(
                Code::NeedsKey,
                span,
                format!("`{key}` is for a socket that we listen on, not one we connect to"),
            );
        }
    }
    Some(ForeignSocket {
        role: if node.connect.is_some() { SocketRole::Connect } else { SocketRole::Listen },
        path,
        mode: node.socket_mode.as_ref().map(|said| said.value.0),
        group: node.socket_group.as_ref().map(|said| said.value.clone()),
    })
}

/// The sockets of a peer that sends datagrams.
fn datagrams(node: &Node, kind: Span, base: &Path, host: &mut Host, sink: &mut Sink) -> Option<NodeKind> {
    let path = node.local.as_ref().map(|said| socket_path(said, base, host, sink));
    let Some(remote) = &node.remote else {
        sink.error(
            Code::NeedsKey,
            kind,
            "`kind: dgram` needs `remote`: the peer's own socket, where we send",
        )
        .help("add `remote: PATH`");
        return None;
    };
    let remote = socket_path(remote, base, host, sink);
    let (mode, group) = (&node.socket_mode, &node.socket_group);
    let local = ForeignSocket {
        role: SocketRole::Listen,
        path,
        mode: mode.as_ref().map(|said| said.value.0),
        group: group.as_ref().map(|said| said.value.clone()),
    };
    Some(NodeKind::Dgram { local, remote })
}

/// The path of a socket, which only one node uses.
fn socket_path(said: &Said<String>, base: &Path, host: &mut Host, sink: &mut Sink) -> PathBuf {
    let path = absolute(base, &said.value);
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let what = format!(
            "the socket's path has {length} bytes, more than the {MAX_SOCKET_PATH} that Linux allows"
        );
        sink.error(Code::PathTooLong, said.span, what)
            .help("choose a shorter one, or leave it out: the socket then lies in the run directory");
    }
    host.use_once("socket", &path.to_string_lossy(), said.span, sink);
    path
}

/// Linux's `dev_valid_name`: 1 to 15 bytes, no `/`, `:` or blank, neither `.` nor `..`.
fn tap_name(name: &Said<String>, sink: &mut Sink) {
    let text = &name.value;
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    if text.is_empty() || text.len() > 15 || !text.bytes().all(allowed) || matches!(text.as_str(), "." | "..")
    {
        sink.error(
            Code::Malformed,
            name.span,
            format!("`{}` cannot be the name of a host interface", visible(text)),
        )
        .help("it has at most 15 characters and no blanks, `/`, `:` or `%`");
    }
}

/// The name of a file in the folder of network namespaces (ip-netns(8)).
fn namespace_name(name: &Said<String>, sink: &mut Sink) {
    let text = &name.value;
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) || text.starts_with(['.', '-']) {
        sink.error(
            Code::Malformed,
            name.span,
            format!("`{}` cannot be the name of a network namespace", visible(text)),
        )
        .help("it is one that `ip netns list` shows: no path; leave `netns` out, and vnet makes one");
    }
}

/// `said` relative to `base`, without `.` and without `..` behind a name.
fn absolute(base: &Path, said: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in base.join(said).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
