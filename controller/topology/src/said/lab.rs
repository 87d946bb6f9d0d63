//! The mappings of a topology file, with every key that may stand in them.

use crate::{
    codes::Code,
    report::Sink,
    said::{
        dhcp::Dhcp,
        read::{Entries, OneOrMany, Read, Said, Sound, said_map},
        route::Router,
        rule::{Allowed, Rule},
        scalar::{
            Address, Age, BitRate, BootWord, Burst, ConnectionRate, Count, FrameRate, GuestMemory, Image,
            Kind, Mac, Memory, Mode, ModelWord, Pace, PolicyWord, Poll, SshKey, State, VlanName, VmmWord,
            Whole,
        },
        tree::{Tree, Value},
    },
};
use schemars::JsonSchema;
use vswitch_core::firewall::connections::{MAX_CAPACITY, MIN_CAPACITY};

said_map! {
    /// A lab: nodes, switches, and the links between them.
    Lab is "a lab" {
        /// The version of this format.
        #[expect(dead_code, reason = "its type is the check")]
        version: Said<Whole<1, 1>> = "version", required;
        /// The lab's name; the file's name if it is not given.
        name: Said<String> = "name";
        /// How frames are moved.
        datapath: Datapath = "datapath";
        /// A name for each VLAN, the same on every switch of the lab. VLAN 1 is `default`.
        vlans: Entries<Vlan> = "vlans";
        /// What routers know besides the networks of their gateways. A VLAN's gateway is an interface of router `default` unless the VLAN names another.
        routers: Entries<Router> = "routers";
        /// What may reach interfaces: lists of rules, which interfaces name.
        security_groups: Entries<Vec<Said<Sound<Rule>>>> = "security-groups";
        /// What holds for an interface without security groups; `open` if nothing is said.
        policy: Said<PolicyWord> = "policy";
        /// Who may log in to nodes by SSH: public keys, as lines of `authorized_keys`; nodes are told by gateways with `dhcp`.
        ssh_keys: Said<Vec<Said<SshKey>>> = "ssh-keys";
        /// The switches.
        switches: Entries<Switch> = "switches";
        /// Everything that has a network interface.
        nodes: Entries<Node> = "nodes", required;
        /// What is joined to what.
        links: Vec<Said<Link>> = "links";
        /// What must and must not reach what: `SRC -> DST icmp|tcp/N|udp/N|arp|l2 allow|reject|deny [because REASON]`.
        expect: Vec<Said<String>> = "expect";
    } not yet ["defaults"]
}

said_map! {
    /// How frames are moved.
    Datapath is "`datapath`" {
        /// Threads that move frames: ports are spread over them.
        workers: Said<Whole<1, 64>> = "workers";
        /// The CPUs that they are pinned to, one for each worker, in order.
        cpus: Vec<Said<Whole<0, 4095>>> = "cpus";
        /// Whether an idle worker sleeps.
        poll: Said<Poll> = "poll";
        /// How many connections the interfaces with security groups track together, each an equal part; 262144 if nothing is said.
        connections: Said<Count<MAX_CAPACITY, MIN_CAPACITY>> = "connections";
    } not yet []
}

said_map! {
    /// A VLAN.
    Vlan is "a VLAN" {
        /// Its identifier (IEEE 802.1Q).
        id: Said<Whole<1, 4094>> = "id", required;
        /// The router's own addresses there, each with the network that is connected by it.
        gateway: Said<OneOrMany<Address>> = "gateway";
        /// Whose gateway it is: a name under `routers`; `default` if nothing is said.
        router: Said<String> = "router";
        /// Whether the gateway gives addresses to who asks (DHCPv4): `true`, or which ones.
        dhcp: Said<Dhcp> = "dhcp";
        /// Whether the gateway advertises itself and its IPv6 networks (RA), so that hosts make addresses for themselves.
        ra: Said<bool> = "ra";
        /// Whether the gateway answers who asks for a neighbour that it knows (ARP, ND), so that nobody else hears the question.
        neigh_suppress: Said<bool> = "neigh-suppress";
    } not yet ["isolate"]
}

said_map! {
    /// A switch; `{}` has the defaults.
    Switch is "a switch" {
        /// How long a learned address is kept without being seen, like 300s.
        mac_aging: Said<Age> = "mac-aging";
    } not yet ["stp", "storm-control", "mirror"]
}

said_map! {
    /// Something that has a network interface.
    Node is "a node" {
        /// What it is.
        kind: Said<Kind> = "kind", required;
        /// Who runs a virtual machine.
        vmm: Said<VmmWord> = "vmm";
        /// An image that vnet makes.
        image: Said<Image> = "image";
        /// A kernel (bzImage or ELF), relative to the file.
        kernel: Said<String> = "kernel";
        /// Its initramfs, relative to the file.
        initrd: Said<String> = "initrd";
        /// Its command line.
        cmdline: Said<String> = "cmdline";
        /// A disk image (raw or qcow2), relative to the file; a private copy-on-write overlay is written.
        disk: Said<String> = "disk";
        /// Write to `disk` itself.
        write: Said<bool> = "write";
        /// Boot from the network.
        boot: Said<BootWord> = "boot";
        /// Who may log in to it by SSH, besides the lab's `ssh-keys`.
        ssh_keys: Said<Vec<Said<SshKey>>> = "ssh-keys";
        /// Memory, like 256M.
        memory: Said<Memory> = "memory";
        /// Virtual CPUs.
        cpus: Said<Whole<1, 255>> = "cpus";
        /// The socket on which we listen for the VMM or the stream's peer, relative to the file.
        listen: Said<String> = "listen";
        /// The socket on which the VMM or the stream's peer listens, relative to the file.
        connect: Said<String> = "connect";
        /// The socket to which the peer sends its datagrams, relative to the file.
        local: Said<String> = "local";
        /// The peer's own socket, to which its datagrams go, relative to the file.
        remote: Said<String> = "remote";
        /// Mode of the socket on which we listen, like "0660".
        socket_mode: Said<Mode> = "socket-mode";
        /// Group of the socket on which we listen.
        socket_group: Said<String> = "socket-group";
        /// The name on the host of a tap or a nic; a tap's can be left out, and the kernel chooses.
        interface: Said<String> = "interface";
        /// A network namespace that is there (`ip netns add NAME`); left out, vnet makes LAB-NODE and takes it away again.
        netns: Said<String> = "netns";
        /// A capture file (pcap or pcapng) whose frames are sent once, when the lab is up; relative to the file.
        replay: Said<String> = "replay";
        /// When they are sent; left out, as recorded.
        pace: Said<Pace> = "pace";
        /// A capture file (pcapng) that is written, over one that is there: all frames that the node is given; relative to the file.
        record: Said<String> = "record";
        /// The interfaces, if one does not suffice.
        interfaces: Entries<Interface> = "interfaces";
        /// Addresses of the only interface.
        addresses: Vec<Said<Address>> = "addresses";
        /// MAC address of the only interface.
        mac: Said<Mac> = "mac";
        /// MTU of the only interface.
        mtu: Said<Whole<68, 65535>> = "mtu";
        /// Queue pairs of the only interface, each a queue to receive from and one to send by; 1 if nothing is said.
        queues: Said<Whole<1, 16>> = "queues";
        /// The network card that the guest sees at the only interface.
        model: Said<ModelWord> = "model";
        /// What guest memory the only interface accepts.
        guest_memory: Said<GuestMemory> = "guest-memory";
        /// The security groups of the only interface: what no rule of theirs allows does not come in.
        security_groups: Said<Vec<Said<String>>> = "security-groups";
        /// Whether the only interface may use its own addresses only; left out, it does if it has security groups, a MAC address that vnet knows, and one VLAN.
        anti_spoof: Said<bool> = "anti-spoof";
        /// What the only interface may use besides: addresses, networks, other MAC addresses.
        allowed_addresses: Said<Vec<Said<Allowed>>> = "allowed-addresses";
        /// Whether the only interface, which has security groups, may answer as a DHCP server.
        dhcp_server: Said<bool> = "dhcp-server";
        /// Whether the only interface, which has security groups, may advertise itself as an IPv6 router.
        router_advertisements: Said<bool> = "router-advertisements";
        /// How much the only interface may send and get.
        limits: Said<Limits> = "limits";
        /// Whether the only interface's link is up.
        state: Said<State> = "state";
    } not yet ["console"]
}

said_map! {
    /// One interface of a node.
    Interface is "an interface" {
        /// Addresses with their prefix lengths.
        addresses: Vec<Said<Address>> = "addresses";
        /// MAC address; left out, a stable one is made from lab, node and interface.
        mac: Said<Mac> = "mac";
        /// The largest payload of a frame, in bytes.
        mtu: Said<Whole<68, 65535>> = "mtu";
        /// Queue pairs, each a queue to receive from and one to send by; 1 if nothing is said.
        queues: Said<Whole<1, 16>> = "queues";
        /// The network card that the guest sees.
        model: Said<ModelWord> = "model";
        /// What guest memory is accepted.
        guest_memory: Said<GuestMemory> = "guest-memory";
        /// Its security groups: what no rule of theirs allows does not come in.
        security_groups: Said<Vec<Said<String>>> = "security-groups";
        /// Whether it may use its own addresses only; left out, it does if it has security groups, a MAC address that vnet knows, and one VLAN.
        anti_spoof: Said<bool> = "anti-spoof";
        /// What it may use besides: addresses, networks, other MAC addresses.
        allowed_addresses: Said<Vec<Said<Allowed>>> = "allowed-addresses";
        /// Whether it, which has security groups, may answer as a DHCP server.
        dhcp_server: Said<bool> = "dhcp-server";
        /// Whether it, which has security groups, may advertise itself as an IPv6 router.
        router_advertisements: Said<bool> = "router-advertisements";
        /// How much it may send and get.
        limits: Said<Limits> = "limits";
        /// Whether the link is up.
        state: Said<State> = "state";
    } not yet []
}

said_map! {
    /// How much an interface may send and get; what is more is dropped.
    Limits is "`limits`" {
        /// What comes from the guest.
        egress: Rates = "egress";
        /// What goes to the guest.
        ingress: Rates = "ingress";
        /// Frames a second from the guest that go to many.
        storm_control: Storm = "storm-control";
        /// MAC addresses that may be learned there, of all VLANs together; frames from others are dropped. 4096 if nothing is said, and then others pass.
        macs: Said<Count<{ 1 << 20 }>> = "macs";
        /// Whether these addresses, once learned, neither age nor move.
        sticky_macs: Said<bool> = "sticky-macs";
    } not yet []
}

said_map! {
    /// What may go in one direction.
    Rates is "a direction of `limits`" {
        /// Bits a second, like 10Mbit.
        rate: Said<BitRate> = "rate";
        /// Frames a second, like 5kpps.
        frame_rate: Said<FrameRate> = "frame-rate";
        /// Connections that are opened in a second, like 50/s; the interface has security groups.
        new_connections: Said<ConnectionRate> = "new-connections";
        /// What may go at once after a pause: as much as in this time; 100ms if nothing is said.
        burst: Said<Burst> = "burst";
    } not yet []
}

said_map! {
    /// Frames a second that go to many.
    Storm is "`storm-control`" {
        /// To all, like 100pps.
        broadcast: Said<FrameRate> = "broadcast";
        /// To groups, like 1kpps.
        multicast: Said<FrameRate> = "multicast";
        /// To stations of which the switch does not know where they are, like 1kpps.
        unknown_unicast: Said<FrameRate> = "unknown-unicast";
    } not yet []
}

said_map! {
    /// A link in its long form.
    LongLink is "a link" {
        /// Its two ends: NODE, NODE:INTERFACE or SWITCH.
        endpoints: Said<Vec<Said<String>>> = "endpoints", required;
        /// The VLANs that it carries.
        vlan: Said<Carried> = "vlan";
    } not yet ["impair"]
}

said_map! {
    /// The VLANs that a link carries.
    Carried is "`vlan`" {
        /// One VLAN, untagged.
        access: Said<VlanName> = "access";
        /// These VLANs, tagged.
        trunk: Vec<Said<VlanName>> = "trunk";
        /// The VLAN of a trunk's untagged frames.
        native: Said<VlanName> = "native";
    } not yet []
}

/// A link: `[END, END]`, or the long form.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Link {
    Short(Vec<Said<String>>),
    Long(Box<LongLink>),
}

impl Read for Link {
    fn read(tree: &Tree, sink: &mut Sink) -> Option<Self> {
        match &tree.value {
            Value::List(_) => Read::read(tree, sink).map(Self::Short),
            Value::Map(_) => LongLink::read(tree, sink).map(|link| Self::Long(Box::new(link))),
            other => {
                sink.error(
                    Code::WrongType,
                    tree.span,
                    format!("a link is needed here, not {}", other.kind()),
                )
                .help("write `[END, END]` or `{ endpoints: [END, END], vlan: { ... } }`");
                None
            }
        }
    }
}

impl Node {
    /// The keys of the only interface that stand on the node.
    pub(crate) fn only_interface(&self) -> Interface {
        Interface {
            addresses: self.addresses.clone(),
            mac: self.mac.clone(),
            mtu: self.mtu.clone(),
            queues: self.queues.clone(),
            model: self.model.clone(),
            guest_memory: self.guest_memory.clone(),
            security_groups: self.security_groups.clone(),
            anti_spoof: self.anti_spoof.clone(),
            allowed_addresses: self.allowed_addresses.clone(),
            dhcp_server: self.dhcp_server.clone(),
            router_advertisements: self.router_advertisements.clone(),
            limits: self.limits.clone(),
            state: self.state.clone(),
        }
    }
}

impl Interface {
    /// Whether nothing was said of it.
    pub(crate) fn is_silent(&self) -> bool {
        let Self {
            addresses,
            mac,
            mtu,
            queues,
            model,
            guest_memory,
            security_groups,
            anti_spoof,
            allowed_addresses,
            dhcp_server,
            router_advertisements,
            limits,
            state,
        } = self;
        addresses.is_none()
            && mac.is_none()
            && mtu.is_none()
            && queues.is_none()
            && model.is_none()
            && guest_memory.is_none()
            && security_groups.is_none()
            && anti_spoof.is_none()
            && allowed_addresses.is_none()
            && dhcp_server.is_none()
            && router_advertisements.is_none()
            && limits.is_none()
            && state.is_none()
    }
}
