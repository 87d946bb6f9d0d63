//! What a checked file means: the Description for the datapath, and what to start around it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf};
use vswitch_core::{
    description::{Description, Origin, Port},
    drop_reason::DropReason,
    id::PortId,
    mac::MacAddr,
};

/// A lab, compiled from one file: everything that the controller needs to start and judge it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What the datapath is told.
    pub description: Description,
    /// `datapath:`.
    pub datapath: Datapath,
    /// The nodes, in file order.
    pub nodes: Vec<Node>,
    /// `expect:`, in file order.
    pub expectations: Vec<Expectation>,
}

/// The node of the port by which the routers of a lab hear and say what is their own. It is no node of the file: none can have that name.
pub const ROUTERS_NODE: &str = "@routers";

/// The interface of that port.
pub const ROUTERS_INTERFACE: &str = "vlans";

impl Plan {
    /// The port of the routers; none: no VLAN has a gateway.
    pub fn routers(&self) -> Option<&Port> {
        let routing = self.description.routing.as_ref()?;
        self.description.ports.get(usize::from(routing.port.index()))?.as_ref()
    }
}

/// `datapath:`, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datapath {
    /// Workers.
    pub workers: u16,
    /// The CPUs they are pinned to, one each, in order; none: they are not pinned.
    pub cpus: Vec<Cpu>,
    /// True: never sleep (`poll: always`).
    pub always_poll: bool,
    /// Connections that all firewalls track together.
    pub connections: u32,
}

/// A CPU that a worker is pinned to. Whether a machine has it, only that machine knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub number: u16,
    /// Where it was said.
    pub origin: Origin,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its interfaces, in order: `eth0`, `eth1`, …
    pub interfaces: Vec<Interface>,
    /// Where it was said.
    pub origin: Origin,
}

/// One interface of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name on the node.
    pub name: String,
    /// The switch's end of it.
    pub port: PortId,
    /// Its address: given in the file or hashed from lab/node/interface. None for a tap or a foreign VM whose file
    /// does not state it.
    pub mac: Option<MacAddr>,
    /// Addresses with their subnets.
    pub addresses: Vec<IpNet>,
    /// The default gateways of its node that are on this link, one of each family at most: of several interfaces the first that has one
    /// has the node's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// What it is to ask for by itself, having no such address: a guest whose kernel does.
    #[serde(default, skip_serializing_if = "Asks::is_nothing")]
    pub asks: Asks,
    /// Its MTU, if one was given.
    pub mtu: Option<u16>,
    /// Queue pairs.
    pub queues: u16,
    /// The network card that a guest sees there.
    #[serde(default, skip_serializing_if = "Model::is_virtio")]
    pub model: Model,
    /// Whether guest memory must be sealed against shrinking.
    pub sealed_memory: bool,
    /// Whether the virtual machine is to boot with this link down (`state: down`): what runs in it sees no carrier, and its
    /// port is there for it. At any other node `state: down` shuts the port.
    #[serde(default, skip_serializing_if = "is_up")]
    pub link_down: bool,
}

/// What a VLAN's gateway gives an interface of which the file states no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asks {
    /// An IPv4 address, by DHCP.
    pub dhcp: bool,
    /// A prefix for IPv6 addresses of its own making, by router advertisement.
    pub ra: bool,
}

impl Asks {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The words of `vnet.if=` for it.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        [(self.dhcp, "dhcp"), (self.ra, "ra")].into_iter().filter_map(|(asks, word)| asks.then_some(word))
    }
}

/// Whether there is nothing to say of a link that may be down.
fn is_up(down: &bool) -> bool {
    !down
}

/// A network card that QEMU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// virtio-net: the guest's memory is shared with the switch, by vhost-user.
    #[default]
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Realtek RTL8139.
    Rtl8139,
}

impl Model {
    /// Whether it is the one that needs no emulation.
    pub fn is_virtio(&self) -> bool {
        *self == Self::Virtio
    }

    /// The word of the topology file, which is libvirt's too.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::Rtl8139 => "rtl8139",
        }
    }
}

/// The kinds of node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A virtual machine that we start.
    Vm(Vm),
    /// An end station in our own process.
    Station,
    /// A VMM of the user's.
    VhostUser(ForeignSocket),
    /// A tap of the host.
    Tap {
        /// Its name on the host; none: the kernel chooses.
        interface: Option<String>,
    },
    /// Whoever speaks frames on a stream socket: QEMU's `-netdev stream`, passt.
    Stream(ForeignSocket),
    /// A network namespace of the host, joined by a tap for each interface.
    Netns {
        /// One that is there; none: LAB-NODE, which we make and take away again.
        namespace: Option<String>,
    },
    /// An interface of the host.
    Nic {
        /// Its name.
        interface: String,
    },
    /// Capture files.
    Pcap {
        /// Sent once, when the lab is up; an absolute path.
        replay: Option<PathBuf>,
        /// Written; an absolute path.
        record: Option<PathBuf>,
        /// Sent as fast as the switch takes it, not as it was recorded.
        fast: bool,
    },
    /// Whoever sends a frame a datagram: QEMU's `-netdev dgram`.
    Dgram {
        /// Where its datagrams come; the role is to listen.
        local: ForeignSocket,
        /// Its own socket, by absolute path.
        remote: PathBuf,
    },
    /// A way out to the host's network: it serves the routers' addresses that are its interface's `gateways`.
    User,
}

impl NodeKind {
    /// As the file writes it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Vm(_) => "vm",
            Self::Station => "station",
            Self::VhostUser(_) => "vhost-user",
            Self::Tap { .. } => "tap",
            Self::Stream(_) => "stream",
            Self::Dgram { .. } => "dgram",
            Self::Netns { .. } => "netns",
            Self::Nic { .. } => "nic",
            Self::Pcap { .. } => "pcap",
            Self::User => "user",
        }
    }
}

/// A virtual machine that we start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Who runs it.
    pub vmm: Vmm,
    /// What it boots.
    pub boot: Boot,
    /// Memory in bytes.
    pub memory: u64,
    /// vCPUs.
    pub cpus: u8,
    /// Whether a gateway in one of its VLANs tells it of itself (169.254.169.254).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metadata: bool,
}

/// Who runs a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// vmm-lite where KVM runs that guest, else QEMU: for the machine to say where the lab comes up.
    Auto,
    /// The small VMM that is part of vnet.
    VmmLite,
    /// QEMU.
    Qemu,
}

/// What a virtual machine boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// The guest that is part of vnet.
    Bundled,
    /// An image that `vnet image build` makes: `debian`.
    Image(String),
    /// A kernel with or without initrd, by absolute path.
    Kernel {
        /// bzImage or ELF.
        kernel: PathBuf,
        /// initramfs.
        initrd: Option<PathBuf>,
        /// Its command line.
        cmdline: Option<String>,
    },
    /// A disk image (raw or qcow2), by absolute path.
    Disk {
        /// The image.
        path: PathBuf,
        /// Write to it; else a private copy-on-write overlay is written.
        write: bool,
    },
    /// Nothing but what the firmware finds on the network (iPXE).
    Network,
}

/// The socket of a foreign VMM, or of another foreign peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignSocket {
    /// Which side listens.
    pub role: SocketRole,
    /// Its path, absolute; none: in the lab's run directory.
    pub path: Option<PathBuf>,
    /// Mode bits of a socket that we listen on.
    pub mode: Option<u32>,
    /// Group of a socket that we listen on.
    pub group: Option<String>,
}

/// Which side listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketRole {
    /// We do; the VMM, or whatever it is, connects.
    Listen,
    /// The other side does; we connect.
    Connect,
}

/// One line of `expect:`, resolved: one row of the result table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// The line as the user wrote it.
    pub text: String,
    /// Who sends.
    pub src: PortId,
    /// To whom.
    pub dst: PortId,
    /// The addresses used, where the probe needs any.
    pub addresses: Option<Addresses>,
    /// With what.
    pub probe: Probe,
    /// The outcome that is expected.
    pub verdict: Verdict,
    /// Where it was said.
    pub origin: Origin,
}

/// The two ends of a probe; both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Of the source interface.
    pub src: IpAddr,
    /// Of the destination interface.
    pub dst: IpAddr,
}

/// What is sent to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Echo request (ICMP or ICMPv6).
    Icmp,
    /// A TCP connection to this port.
    Tcp(u16),
    /// A UDP datagram to this port, echoed.
    Udp(u16),
    /// An ARP request (or neighbour solicitation).
    Arp,
    /// A frame of the local experimental EtherType 0x88b5 (IEEE 802-2014 §9.2.3), sent to the destination's MAC.
    L2,
}

/// What is expected of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It arrives, and its answer comes back.
    Allow,
    /// It does not arrive, and its fate says so.
    Deny(Option<Because>),
}

/// Why a deny is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The destination is not in the frame's VLAN: a VLAN drop reason, or the frame went where its VLAN goes.
    Vlan,
    /// The rules of an interface's security groups do not let it pass, nor is it of a connection that they allowed.
    Policy,
    /// The firewall of an interface: its policy, or that it guards who the sender says it is and what it may serve.
    Firewall,
    /// A rule rejects it, and its sender is told.
    Reject,
    /// Exactly this drop reason.
    Reason(DropReason),
}

impl Because {
    /// How the file says [`Self::Vlan`].
    pub const VLAN: &str = "vlan";
    /// How the file says [`Self::Policy`].
    pub const POLICY: &str = "policy";
    /// How the file says [`Self::Firewall`].
    pub const FIREWALL: &str = "firewall";
    /// How the file says [`Self::Reject`], as an outcome or as a cause.
    pub const REJECT: &str = "reject";

    /// Names of all classes, and what each is in a few words.
    pub const CLASSES: [(&str, &str); 4] = [
        (Self::VLAN, "the destination is not in the frame's VLAN"),
        (Self::POLICY, "the rules of an interface's security groups do not let the frame pass"),
        (
            Self::FIREWALL,
            "the firewall of an interface does not let the frame pass: its rules, or what it may call itself",
        ),
        (Self::REJECT, "a rule of an interface's security groups rejects the frame, and its sender is told"),
    ];

    /// What the class of that name is, and what to do about it; none if there is no such class.
    pub fn explain(name: &str) -> Option<(&'static str, &'static str)> {
        match name {
            Self::VLAN => Some((
                "the destination is not in the frame's VLAN: the frame was dropped as tagged-on-access, \
                 untagged-on-trunk or vlan-not-member, or it went where its VLAN goes and not to the destination \
                 (or to nobody: no-receiver)",
                "give both links the same `vlan`, or expect `deny because vlan`; `vnet trace` says both VLANs",
            )),
            Self::POLICY => Some((
                "the rules of an interface's security groups do not let the frame pass: none allows it, one drops or rejects \
                 it, or it belongs to no connection that they allowed",
                "add a rule to a security group of the interface, or expect `deny because policy`; `vnet trace` names the \
                 rule that decided",
            )),
            Self::FIREWALL => Some((
                "the firewall of an interface does not let the frame pass: its rules do not (policy), the sender uses an \
                 address that is not its own (anti-spoof), or serves what its interface may not",
                "add a rule, or `allowed-addresses`, `dhcp-server` or `router-advertisements` to the interface, or expect \
                 `deny because firewall`; `vnet trace` says which of these it was",
            )),
            Self::REJECT => Some((
                "a rule with `action: reject` stopped the frame, and its sender was told: by a TCP RST, or by an ICMP error",
                "change the rule, or expect `reject`; `vnet trace` names the rule that decided",
            )),
            _ => None,
        }
    }
}
