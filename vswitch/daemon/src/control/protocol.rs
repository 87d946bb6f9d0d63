//! What is said on the control socket, version by version.
//!
//! A Unix stream; each message is a 4-byte little-endian length and that many bytes of JSON. Descriptors travel with
//! the first byte of the message that names them (SCM_RIGHTS). One request, one reply, in order.

use crate::{recorder::Record, routers};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};
use vswitch_core::{
    clock::Instant,
    drop_reason::DropReason,
    filter::Filter,
    firewall::{
        connections::{Counts, DEFAULT_CAPACITY, Ends, Inverse, State},
        hits::DefaultCounts,
        policy::Direction,
    },
    id::{Epoch, PortId},
    mac::MacAddr,
    trace::Step,
    vlan::VlanId,
};

/// Both ends must be of this version: they come from one executable.
pub const VERSION: u32 = 1;

/// What the controller asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// First on every connection.
    Hello {
        /// [`VERSION`] of the asking side.
        version: u32,
    },
    /// Become this lab. Descriptors: the Description (JSON, in a sealed memfd), then one for each attachment that
    /// says so, in order. A port whose attachment was there before keeps its connection.
    Apply {
        /// How each port's frames get here.
        attachments: Vec<Attachment>,
        /// Workers, CPUs, polling.
        datapath: DatapathSettings,
    },
    /// Before the first lab: a switch before this one had it, so that connections run already.
    Resume,
    /// Everything countable: of each worker at a moment between two of its turns.
    Snapshot,
    /// The learned and static addresses.
    Fdb {
        /// Only those at this port.
        port: Option<PortId>,
    },
    /// How often rules decided.
    RuleHits,
    /// The connections that firewalls have allowed.
    Connections {
        /// Only those of these ports; empty: of all.
        ports: Vec<PortId>,
    },
    /// The neighbours that routers know.
    Neighbours,
    /// The routes of all routers.
    Routes,
    /// The addresses that gateways have given.
    Leases,
    /// Before the first lab: what was given by the switch before this one, or by that of the lab when it was up last. Descriptor: a stream socket, into which a
    /// byte is sent whenever [`Reply::Kept`] would be another; if there is no room, there is something to be heard.
    Remember(Vec<KeptLease>),
    /// What is to be remembered of the addresses that gateways have given.
    Kept,
    /// What would become of this frame if it came in on that port now. Nothing is learned or sent.
    Trace {
        /// Where it would come in.
        port: PortId,
        /// The frame, from its destination address.
        frame: Vec<u8>,
    },
    /// From now on note the fate of frames that match, until the watch is dropped.
    Watch(Watch),
    /// What a watch saw so far.
    Sightings {
        /// From [`Reply::Watching`].
        watch: u32,
    },
    /// Drop a watch.
    Unwatch {
        /// From [`Reply::Watching`].
        watch: u32,
    },
    /// From now on copy frames of a port, as pcapng, into the stream socket that comes as a descriptor, until the capture is
    /// ended, or the socket closed.
    Capture(CaptureSettings),
    /// End a capture: what it has is still written.
    EndCapture {
        /// From [`Reply::Capturing`].
        capture: u32,
    },
    /// What was recorded. Asked again from [`Records::next`] until that is none.
    Records(RecordsWanted),
    /// End the process in order: rings are given back to their guests.
    Stop,
}

/// What vswitchd answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Hello`.
    Hello {
        /// [`VERSION`] of the answering side.
        version: u32,
        /// Its process id.
        pid: u32,
    },
    /// Done.
    Done,
    /// To `Snapshot`.
    Snapshot(Snapshot),
    /// To `Fdb`.
    Fdb(FdbTable),
    /// To `RuleHits`.
    RuleHits(RuleHits),
    /// To `Connections`.
    Connections(ConnectionTable),
    /// To `Neighbours`.
    Neighbours(NeighbourTable),
    /// To `Routes`: router by router, in the order of the description.
    Routes(Vec<RouteRow>),
    /// To `Leases`.
    Leases(LeaseTable),
    /// To `Kept`; none as long as it is not known what became of what was to be remembered, and in a lab without gateways.
    Kept(Option<Kept>),
    /// To `Trace`.
    Trace(Journey),
    /// To `Watch`.
    Watching {
        /// Its number.
        watch: u32,
    },
    /// To `Sightings`: oldest first, at most 64; `lost` more were seen.
    Sightings {
        /// What was seen.
        sightings: Vec<Sighting>,
        /// How many there was no room for.
        lost: u64,
    },
    /// To `Capture`.
    Capturing {
        /// Its number.
        capture: u32,
    },
    /// To `Records`.
    Records(Records),
    /// It could not be done, and nothing changed.
    Refused {
        /// Why, in a sentence.
        why: String,
    },
}

/// `datapath:` of the topology file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathSettings {
    /// How many workers: from 1 to 64.
    pub workers: u16,
    /// The CPUs that the workers are pinned to, one each, in order; none: not pinned.
    pub cpus: Vec<u16>,
    /// How a worker waits.
    pub poll: PollMode,
    /// How many connections the firewalls of all ports track together: from
    /// [`MIN_CAPACITY`](vswitch_core::firewall::connections::MIN_CAPACITY) to
    /// [`MAX_CAPACITY`](vswitch_core::firewall::connections::MAX_CAPACITY).
    pub connections: u32,
}

/// What holds where the file says nothing.
impl Default for DatapathSettings {
    fn default() -> Self {
        Self { workers: 1, cpus: Vec::new(), poll: PollMode::Adaptive, connections: DEFAULT_CAPACITY }
    }
}

/// How a worker waits for frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollMode {
    /// Poll while busy, sleep when idle.
    Adaptive,
    /// Never sleep.
    Always,
}

/// How one port's frames get here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The port.
    pub port: PortId,
    /// Its kind.
    pub kind: AttachmentKind,
    /// How often what is outside was opened again: with another number the port is attached anew, with the descriptors that come along.
    pub reopened: u32,
}

impl Attachment {
    /// A port's first one.
    pub fn new(port: PortId, kind: AttachmentKind) -> Self {
        Self { port, kind, reopened: 0 }
    }
}

/// The kinds of port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentKind {
    /// A VMM connects to the listening socket that comes as a descriptor.
    VhostUserListen,
    /// We connect to the VMM's socket, again and again.
    VhostUserConnect {
        /// The socket's path, absolute.
        path: String,
    },
    /// The tap whose descriptors come along, one a queue (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, the header of 10 bytes).
    Tap {
        /// Its queues, as many as the port has queue pairs.
        queues: u16,
        /// Whether the kernel knows large UDP datagrams.
        uso: bool,
    },
    /// A peer with frames on a stream (QEMU's `-netdev stream`) connects to the listening socket that comes as a descriptor.
    StreamListen,
    /// We connect to the socket of such a peer, again and again.
    StreamConnect {
        /// The socket's path, absolute.
        path: String,
    },
    /// The packet socket that comes as a descriptor, bound to an interface of the host (PACKET_VNET_HDR, PACKET_AUXDATA).
    Nic {
        /// The interface's name.
        interface: String,
    },
    /// Capture files. Descriptors: with `replay` the file and an eventfd, which is signalled when the replay is to begin; with
    /// `record` the file.
    Pcap {
        /// A file is replayed.
        replay: bool,
        /// What the port is given is recorded.
        record: bool,
        /// The replay has the file's timing.
        paced: bool,
    },
    /// A peer with a frame a datagram (QEMU's `-netdev dgram`) sends to the bound socket that comes as a descriptor.
    Dgram {
        /// The peer's own socket, absolute.
        remote: String,
    },
    /// The routers of the lab, which the switch serves itself (`Link::Routers`).
    Routers,
}

impl AttachmentKind {
    /// How many descriptors come along with it.
    pub fn descriptors(&self) -> usize {
        match self {
            Self::VhostUserListen | Self::StreamListen | Self::Dgram { .. } | Self::Nic { .. } => 1,
            Self::Pcap { replay, record, .. } => 2 * usize::from(*replay) + usize::from(*record),
            Self::VhostUserConnect { .. } | Self::StreamConnect { .. } | Self::Routers => 0,
            Self::Tap { queues, .. } => usize::from(*queues),
        }
    }
}

/// The state of the datapath at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The configuration that runs.
    pub epoch: Option<Epoch>,
    /// Each port, in order of its place.
    pub ports: Vec<PortView>,
    /// Each worker.
    pub workers: Vec<WorkerView>,
    /// The FDB as a whole.
    pub fdb: FdbView,
}

/// One port at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortView {
    /// Its id.
    pub port: PortId,
    /// Node.
    pub node: String,
    /// Interface.
    pub interface: String,
    /// Whether frames can flow both ways now.
    pub state: PortState,
    /// Why it is not `up`, in words; what was negotiated if it is.
    pub detail: String,
    /// The virtio features in force; 0 if none.
    pub features: u64,
    /// Entries of the running rings, by ring index.
    pub rings: BTreeMap<u16, u16>,
    /// Frames taken from each transmitq (odd) and delivered to each receiveq (even), by ring index, also of rings that do not run.
    pub ring_frames: BTreeMap<u16, u64>,
    /// What was counted.
    pub counters: PortCounters,
    /// What was counted of the connections that its firewall tracks; none if it has no firewall.
    pub connections: Option<Counts>,
}

/// Whether a port can move frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// A driver runs.
    Up,
    /// Nobody is attached, or no driver runs.
    Waiting,
    /// Stopped because of what the guest or its VMM did.
    Faulted,
    /// Down by configuration.
    Down,
}

/// What is counted of a port. Directions are seen from the switch.
///
/// The accounting law holds for each port's `from_port` and, summed over all ports, for the copies:
/// `frames = unicast + flooded + consumed + Σ dropped`;
/// `Σ copies = Σ (unicast + flood fan-out + originated) = Σ delivered + Σ to_port.dropped`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PortCounters {
    /// What came in.
    pub from_port: FromPort,
    /// What went out.
    pub to_port: ToPort,
    /// How often the port was stopped.
    pub faults: u64,
}

/// Frames that a port sent to the switch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FromPort {
    /// Frames received.
    pub frames: u64,
    /// Their bytes, from the destination address, without the net header.
    pub bytes: u64,
    /// Forwarded to one port.
    pub unicast: u64,
    /// Flooded to one port or more.
    pub flooded: u64,
    /// Copies that those floods made.
    pub flood_copies: u64,
    /// For the switch itself.
    pub consumed: u64,
    /// Frames that the switch made for this port in answer to these: what it says of those that it rejects.
    pub originated: u64,
    /// Dropped, by reason; reasons that did not happen are left out.
    pub dropped: BTreeMap<DropReason, u64>,
}

/// Copies of frames that were meant for a port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToPort {
    /// Copies decided for this port.
    pub copies: u64,
    /// Put into its ring and published.
    pub delivered: u64,
    /// Bytes of those, without the net header.
    pub bytes: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
}

/// One worker since it started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its number.
    pub worker: u16,
    /// The CPU that it is pinned to, if that could be had.
    pub cpu: Option<u16>,
    /// Transmitqs that it serves now.
    pub rings: u16,
    /// Turns that moved at least one frame.
    pub busy_turns: u64,
    /// Frames that came in.
    pub frames: u64,
    /// TSC cycles of busy turns.
    pub busy_cycles: u64,
    /// Nanoseconds of busy turns, by the clock.
    pub busy_nanos: u64,
    /// `busy_cycles / frames`.
    pub cycles_per_frame: f64,
    /// How often it went to sleep, and so woke.
    pub sleeps: u64,
    /// Panics that were caught (law 5): each is a bug of ours.
    pub panics: u64,
    /// Captures that it copies frames for.
    pub captures: usize,
}

/// The FDB as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FdbView {
    /// Entries that are not aged out.
    pub entries: u64,
    /// The same by the switch's name.
    pub by_switch: BTreeMap<String, u64>,
    /// Addresses learned since the start.
    pub learned: u64,
    /// Times that a known address moved to another port.
    pub moves: u64,
    /// Addresses not learned since a port was at its limit, or the table was full there.
    pub refused: u64,
}

/// What the FDB holds, or as much of it as one answer shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FdbTable {
    /// How many addresses there are.
    pub entries: u64,
    /// Those that are shown, in no order.
    pub rows: Vec<FdbRow>,
}

/// One address in the FDB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbRow {
    /// The switch's name.
    pub switch: String,
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub mac: MacAddr,
    /// `node:interface`, or the name of the switch behind a trunk.
    pub port: String,
    /// Whether the topology file put it there.
    pub is_static: bool,
    /// Whether it was learned to stay (`sticky-macs`).
    pub is_sticky: bool,
    /// Seconds since it was last seen; 0 for what does not age.
    pub age_secs: u64,
}

/// Whom routers know, and what their own voice did for that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NeighbourTable {
    /// All that are known, and those that are asked for or did not answer, rising by VLAN and address.
    pub rows: Vec<NeighbourRow>,
    /// What was counted since the routers' port is there; of a moment at which they had nothing to do.
    pub counts: routers::Counts,
}

/// A neighbour of a router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourRow {
    /// The VLAN.
    pub vlan: VlanId,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, if it is known.
    pub mac: Option<MacAddr>,
    /// Seconds since it was heard; of one that is not known, since it was asked for first or given up.
    pub age_secs: u32,
    /// Seconds since a frame was last routed to it; none: not since it was heard.
    pub used_secs: Option<u32>,
    /// How sure it is.
    pub state: NeighbourState,
}

/// How sure it is that a neighbour is there (RFC 4861 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourState {
    /// It was heard within 30 seconds.
    Reachable,
    /// It was not; once a frame goes to it, it is asked.
    Stale,
    /// It is asked for, and frames wait for it.
    Incomplete,
    /// It did not answer, and is not asked for again for some seconds: frames for it are lost.
    Failed,
}

/// The addresses that gateways have given, and what is left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseTable {
    /// All that are somebody's, rising by VLAN and address.
    pub rows: Vec<LeaseRow>,
    /// Of each gateway that gives any; of a moment at which the routers had nothing to do.
    pub pools: Vec<PoolRow>,
}

/// The addresses that a gateway gives to who has none stated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// The VLAN.
    pub vlan: VlanId,
    /// The first address.
    pub first: Ipv4Addr,
    /// The last one.
    pub last: Ipv4Addr,
    /// How many are nobody's.
    pub free: u64,
    /// How often a client asked and there was none for it.
    pub exhausted: u64,
}

/// An address that a gateway has given, or offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is.
    pub mac: MacAddr,
    /// What the topology file calls the client, or it calls itself.
    pub name: Option<String>,
    /// What it is to the client.
    pub state: LeaseState,
    /// Seconds that are left.
    pub left_secs: u64,
}

/// What an address is to the client that it is noted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// It was told that it may have it.
    Offered,
    /// It has it.
    Bound,
    /// It found somebody else there, nobody knows whom (RFC 2131 §3.1): nobody is given it for a while.
    Declined,
    /// It answers for it, though it was not given it: it may have it, and nobody else.
    InUse,
}

/// What is to be remembered of the addresses that gateways have given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    /// What clients have, and what they had last: no offers. Rising by VLAN and address; [`KEPT_LEASES`] at most, and if there are more, those that end
    /// last.
    pub leases: Vec<KeptLease>,
    /// How many of those that were to be remembered fit no gateway of the first lab.
    pub forgotten: u64,
}

/// How many leases are remembered: as many as one range has addresses. So many fit into one request.
pub const KEPT_LEASES: usize = 1 << 16;

/// An address that a client has, or had last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptLease {
    /// The VLAN.
    pub vlan: VlanId,
    /// The address.
    pub address: Ipv4Addr,
    /// Whose it is.
    pub mac: MacAddr,
    /// What the client calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Seconds that are left; 0: it is over, and the client gets the address again if nobody else has it by then.
    pub left_secs: u64,
}

/// A router's route, or one of its ways if it has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// The router's name.
    pub router: String,
    /// What it leads to.
    pub to: IpNet,
    /// Its kind.
    pub kind: RouteKind,
    /// The next router; none if there is none.
    pub via: Option<IpAddr>,
    /// The VLAN that it leads into; none for [`RouteKind::Blackhole`].
    pub vlan: Option<VlanId>,
    /// The line of the file that says so: of a network that is connected the gateway's.
    pub line: u32,
}

/// The kinds of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// A network that the router has an address in.
    Connected,
    /// One that the file names, by another router.
    Static,
    /// An address of the router's own.
    Own,
    /// To nowhere.
    Blackhole,
}

/// How often rules decided. They are asked where no connection is known: once a connection, and of each frame that is no connection's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// The configuration whose rules these are. What was counted under the ones before is in it, of rules that said the same.
    pub epoch: Epoch,
    /// Of each rule, group by group in the order of the description.
    pub rules: Vec<u64>,
    /// Of each port that has a firewall: how often it was no rule that decided.
    pub defaults: Vec<(PortId, DefaultCounts)>,
}

/// The connections that firewalls have allowed, or as many of them as one answer shows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionTable {
    /// How many there are.
    pub entries: u64,
    /// Those that are shown: by interface, and of each the one with the latest frame first.
    pub rows: Vec<ConnectionRow>,
}

/// One connection of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// `node:interface`, whose firewall tracks it.
    pub interface: String,
    /// The VLAN.
    pub vlan: VlanId,
    /// Protocol number.
    pub protocol: u8,
    /// The address of the end on the interface's side: the guest's, or of somebody behind it.
    pub inside: IpAddr,
    /// The address of the other end.
    pub outside: IpAddr,
    /// What tells it from others between these hosts.
    pub ends: Ends,
    /// Which way its first frame went, seen from the guest.
    pub opener: Direction,
    /// Where it stands.
    pub state: State,
    /// Seconds since it was opened.
    pub age_secs: u32,
    /// Seconds since its last frame.
    pub idle_secs: u32,
    /// Seconds after which it is forgotten, if no frame comes.
    pub left_secs: u32,
    /// Of one that a router translates: what its responder's frames are when they come back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inverse: Option<Inverse>,
}

/// What became of one frame, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Journey {
    /// The way.
    pub steps: Vec<Step>,
    /// Its drop, if it had no other fate.
    pub dropped: Option<DropReason>,
    /// The ports that a copy was decided for.
    pub copies: Vec<PortId>,
    /// For each copy, in the same order: why it is not delivered; none if it is.
    pub lost: Vec<Option<DropReason>>,
}

/// Which frames to note. All that is given must match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watch {
    /// Came in here.
    pub port: Option<PortId>,
    /// Source address.
    pub src: Option<MacAddr>,
    /// Destination address.
    pub dst: Option<MacAddr>,
    /// EtherType behind the tags.
    pub ethertype: Option<u16>,
    /// These bytes somewhere in the copied head of the frame.
    pub contains: Option<Vec<u8>>,
}

/// What to capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSettings {
    /// Of which port: what its guest sends, and what it gets.
    pub port: PortId,
    /// Which of these frames.
    pub filter: Filter,
    /// How many bytes of a frame at most.
    pub snap_len: u32,
    /// After how many frames it ends.
    pub count: Option<u64>,
    /// After how many seconds it ends.
    pub seconds: Option<u32>,
}

/// A watched frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    /// Where it came in.
    pub port: PortId,
    /// Nanoseconds since vswitchd started.
    pub at_nanos: u64,
    /// Its first bytes, at most 128: the headers up to TCP over IPv6.
    pub head: Vec<u8>,
    /// Its length.
    pub len: u32,
    /// The decision.
    pub journey: Journey,
}

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordsWanted {
    /// Of the last so many nanoseconds.
    pub last_nanos: u64,
    /// Of what happened at these ports or was to go there, and of what concerns the whole switch; empty: all.
    pub ports: Vec<PortId>,
    /// Where to go on, from the last [`Records::next`]; empty: begin.
    pub from: Vec<u64>,
}

/// Some records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The moment of the answer, since the process started.
    pub now: Instant,
    /// The moment from which on nothing was forgotten.
    pub whole_since: Instant,
    /// At most some thousand; there are several recorders, and each one's are in order of time.
    pub records: Vec<Record>,
    /// Where to go on; none: that was all.
    pub next: Option<Vec<u64>>,
}
