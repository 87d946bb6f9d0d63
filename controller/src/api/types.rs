//! What is said over the API: requests and views, in snake_case JSON. The same types serve both ends.

use crate::failure::Exit;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};
use vswitch_core::{
    drop_reason::DropReason,
    filter::Filter,
    firewall::{
        hits::DefaultCounts,
        policy::{Action, Direction},
    },
    mac::MacAddr,
};
use vswitchd::control::protocol::{FdbView, PortCounters, PortState, WorkerView};

/// A topology file as a client read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyFile {
    /// Its text.
    pub text: String,
    /// How the user named it; errors and traces say this name.
    pub name: String,
    /// The folder that its relative paths start from, absolute.
    pub base: PathBuf,
    /// A copy for testing: sockets with a path of their own move to the run directory, so that it does not collide
    /// with the lab itself.
    pub private_copy: bool,
}

/// A lab at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabView {
    /// Its name.
    pub lab: String,
    /// The topology file; none before there is one.
    pub file: Option<String>,
    /// What it is doing.
    pub state: LabState,
    /// The controller's process id.
    pub pid: u32,
    /// Nodes.
    pub nodes: usize,
    /// Ports.
    pub ports: usize,
    /// How often the switch process was restarted.
    pub switch_restarts: u32,
    /// The number of the next event.
    pub events: u64,
}

/// What a lab is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabState {
    /// Its controller waits for a topology file.
    Empty,
    /// It comes up.
    Starting,
    /// It is up.
    Running,
    /// It is up, and the switch or a virtual machine of it is not.
    Degraded,
    /// It goes down.
    Stopping,
    /// Its controller lives and does not answer; only `ls` says this.
    Silent,
    /// Its controller is gone without taking it down; only `ls` says this.
    Orphaned,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortRow {
    /// `node:interface`.
    pub port: String,
    /// What it is linked to: a switch, or `node:interface` at the other end of a wire.
    pub link: Option<String>,
    /// Its VLANs in words: `access users`, `trunk users, servers native wan`, `wire`.
    pub vlan: String,
    /// Its address, if we know it.
    pub mac: Option<MacAddr>,
    /// Whether frames flow.
    pub state: PortState,
    /// Why not, or what was negotiated.
    pub detail: String,
    /// What holds at it: the names of its security groups (`web, managed`); without any, `open` or `closed`.
    pub policy: String,
    /// The vhost-user socket, if it has one.
    pub socket: Option<PathBuf>,
    /// The virtio features in force.
    pub features: u64,
    /// Entries of the running rings, by ring index.
    pub rings: BTreeMap<u16, u16>,
    /// Frames taken from each transmitq (odd) and delivered to each receiveq (even), by ring index, also of rings that do not run.
    pub ring_frames: BTreeMap<u16, u64>,
    /// What was counted.
    pub counters: PortCounters,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub node: String,
    /// As the file writes it: `vm`, `tap`, …
    pub kind: String,
    /// What it is doing.
    pub state: NodeState,
    /// What of this machine it is, by name: taps, an interface, a network namespace, files.
    pub host: Vec<String>,
    /// In words: the accelerator, the exit status, whose part the addresses are.
    pub detail: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Addresses by interface.
    pub interfaces: BTreeMap<String, Vec<IpNet>>,
}

/// What the vCPUs of one virtual machine left the guest for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitsRow {
    /// The node.
    pub node: String,
    /// By kind; none if the node does not run, or its VMM does not count them (QEMU).
    pub exits: Option<Vec<ExitCount>>,
}

/// The exits of one kind, of all vCPUs together, since the machine began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCount {
    /// `port`, `mmio`, `wait`, `interrupted` or `other`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// How long they were handled, all together; of `wait`, how long the guest waited.
    pub nanoseconds: u64,
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// We started it; it did not answer its probe yet.
    Starting,
    /// It answers its probe.
    Ready,
    /// It runs, and has nothing that answers a probe: a disk, a kernel of the user's, an empty VM.
    Running,
    /// It ended.
    Ended,
    /// Not ours to start: a foreign VMM, a tap.
    Foreign,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// Its ends.
    pub ends: [String; 2],
    /// Its VLANs in words.
    pub vlan: String,
    /// Where the file says so: `file:line`.
    pub said: String,
}

/// One VLAN on one switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanRow {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// The switch.
    pub switch: String,
    /// The ports and trunks that carry it untagged.
    pub untagged: Vec<String>,
    /// Those that carry it tagged.
    pub tagged: Vec<String>,
}

/// One reason for which one port lost frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// `node:interface`.
    pub port: String,
    /// `from_port` or `to_port`.
    pub direction: String,
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub frames: u64,
    /// The reason in a sentence.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// What rules decided, and what holds where none does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesView {
    /// The rules, in file order.
    pub rules: Vec<RuleRow>,
    /// Each interface that has a firewall.
    pub defaults: Vec<DefaultRow>,
}

/// One rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// The group.
    pub group: String,
    /// Which way the frames go, seen from the guest.
    pub direction: Direction,
    /// What it asks of frames, in the file's words; empty: it matches every frame.
    pub matches: String,
    /// What becomes of those that match.
    pub action: Action,
    /// Whether answers to what it allows need no rule.
    pub stateful: bool,
    /// Whether what it decides is logged.
    pub log: bool,
    /// How often it decided, since the switch process started: once a connection, or of each frame that is no connection's.
    pub hits: u64,
    /// Where the file says so: `file:line`.
    pub said: String,
    /// The interfaces that have the group: `node:interface`.
    pub interfaces: Vec<String>,
}

/// What decides at an interface where no rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRow {
    /// `node:interface`.
    pub interface: String,
    /// Its security groups; none: `policy: closed`.
    pub groups: Vec<String>,
    /// What becomes of what no rule lets out; in is always `drop`.
    pub egress: Action,
    /// How often that was, and how often a link needed it.
    pub counts: DefaultCounts,
    /// Where the file says so: `file:line`.
    pub said: String,
}

/// The datapath.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatapathView {
    /// The configuration that runs.
    pub epoch: Option<u64>,
    /// The process.
    pub pid: u32,
    /// How often it was restarted.
    pub restarts: u32,
    /// Its workers.
    pub workers: Vec<WorkerView>,
    /// Its FDB as a whole.
    pub fdb: FdbView,
}

/// Of which interfaces something is to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LookRequest {
    /// Node, or `node:interface`; none: all.
    pub interface: Option<String>,
}

/// Which frame to trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// Node, or `node:interface`.
    pub src: String,
    /// The same, or an IP address.
    pub dst: String,
    /// `icmp`, `tcp/N`, `udp/N`, `arp` or `l2`.
    pub what: String,
    /// How long its packet is, of `icmp` and `udp/N`; none: some tens of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u16>,
}

/// What became, or would become, of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceView {
    /// The frame in words.
    pub frame: String,
    /// Whether the learned addresses of the running lab were known to it; else only static ones.
    pub live: bool,
    /// Its way, one step a line.
    pub steps: Vec<String>,
    /// Its fate in words.
    pub fate: String,
    /// Its drop, if it had no other fate.
    pub dropped: Option<DropReason>,
    /// The ports that get a copy.
    pub copies: Vec<String>,
    /// The file that the lines in `steps` are of.
    pub file: String,
    /// Whether the destination that was asked for gets a copy; none if a frame was seen and none was asked for.
    pub reaches: Option<Reaches>,
}

/// Whether a traced frame gets where it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaches {
    /// The destination, as `node:interface`.
    pub destination: String,
    /// Why it does not; none: it does.
    pub why_not: Option<String>,
}

/// Which frames to capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// Node, or `node:interface`: what its guest sends and gets.
    pub interface: String,
    /// Which of these frames, in words of tcpdump's; none: all.
    #[serde(default)]
    pub filter: Filter,
    /// How many bytes of a frame at most; none: whole frames.
    pub snap_len: Option<u32>,
    /// After how many frames it ends; none: when it is told to.
    pub count: Option<u64>,
    /// After how many seconds it ends.
    pub seconds: Option<u32>,
}

/// What became of the expectations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// The lab.
    pub lab: String,
    /// The file.
    pub file: String,
    /// One row for each expectation, in file order.
    pub rows: Vec<TestRow>,
}

impl TestReport {
    /// How the process that prints it ends.
    pub fn exit(&self) -> Exit {
        if self.rows.iter().all(|row| row.result == TestResult::Pass) {
            Exit::Done
        } else {
            Exit::ExpectationFailed
        }
    }
}

/// What became of one expectation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRow {
    /// The expectation as the user wrote it, and the addresses if both families are tested.
    pub expectation: String,
    /// Where: `file:line`.
    pub said: String,
    /// Whether it holds.
    pub result: TestResult,
    /// How that was proved, or what is wrong.
    pub proof: String,
    /// What to do where nothing can be proved.
    pub help: Option<String>,
    /// Whether what became of the probe's frame was also judged from the file alone, and came to the same. If not, the file does not say
    /// enough: an address that is not known, a port that is not up. Had it come to something else, the row would be an error.
    pub foreseen: bool,
    /// The frame that decided it.
    pub trace: Option<TraceView>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Whether an expectation holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestResult {
    /// It does.
    Pass,
    /// It does not.
    Fail,
    /// It could not be found out.
    Error,
}

/// Every pair of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingallReport {
    /// The cells, row by row.
    pub cells: Vec<PingCell>,
}

impl PingallReport {
    /// How the process that prints it ends: where nobody answers, nothing works.
    pub fn exit(&self) -> Exit {
        let answered = self.cells.iter().any(|cell| cell.rtt_micros.is_some());
        if answered { Exit::Done } else { Exit::ExpectationFailed }
    }
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingCell {
    /// `node:interface` that asks.
    pub src: String,
    /// `node:interface` that is asked.
    pub dst: String,
    /// The address that is asked.
    pub address: IpAddr,
    /// Microseconds until the answer; none without an answer.
    pub rtt_micros: Option<u64>,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// A command for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The node.
    pub node: String,
    /// Command and arguments.
    pub command: Vec<String>,
}

/// What the guest of a virtual machine is to see of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRequest {
    /// Whose: node, or `node:interface`.
    pub interface: String,
    /// Up, or down.
    pub up: bool,
}

/// A bulk transfer over TCP from one node to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferRequest {
    /// Who sends: node, or `node:interface`.
    pub src: String,
    /// Who receives: the same.
    pub dst: String,
    /// How many bytes.
    pub bytes: u64,
}

/// A bulk transfer that arrived as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReport {
    /// `node:interface` that sent.
    pub src: String,
    /// `node:interface` that received.
    pub dst: String,
    /// The address it was sent to.
    pub address: IpAddr,
    /// What the sender sent.
    pub sent: TransferEnd,
    /// What the receiver received.
    pub received: TransferEnd,
    /// From the connection's standing to the receiver's close, in microseconds.
    pub elapsed_micros: u64,
    /// TCP segments sent, if the sender's stack counts them.
    pub segments_sent: Option<u64>,
    /// Of those, sent again, if the sender's stack counts them.
    pub segments_retransmitted: Option<u64>,
}

/// One end of a bulk transfer; each end takes the checksum of the bytes that it saw itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferEnd {
    /// Bytes.
    pub bytes: u64,
    /// [`probe::bulk::Checksum`] over them.
    pub checksum: u64,
}

/// What another VMM is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// For whom: `qemu` or `libvirt`.
    pub vmm: String,
    /// The node, of kind `vhost-user`.
    pub node: String,
    /// The guest's memory in MiB.
    pub memory: u64,
}

/// What another VMM needs to attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportView {
    /// Fit to be pasted.
    pub arguments: String,
    /// What a person should know.
    pub remarks: Vec<String>,
}

/// What the command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecReply {
    /// Its exit status.
    pub status: i32,
    /// The first 24 KiB that it wrote to its standard output, byte by byte.
    pub stdout: Vec<u8>,
    /// The first 24 KiB that it wrote to its standard error, byte by byte.
    pub stderr: Vec<u8>,
    /// How many bytes it wrote beyond those.
    pub cut: u64,
    /// Its time was up, and it was killed after this many seconds.
    pub timed_out_after: Option<u64>,
}

/// What is to be measured between two ports of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchRequest {
    /// Two ports of kind `vhost-user` without a VMM: node, or `node:interface`.
    pub between: [String; 2],
    /// As `vnet bench --frame-size`.
    #[serde(default = "BenchRequest::usual_sizes")]
    pub frame_sizes: Vec<String>,
    /// How long each repetition measures.
    #[serde(default = "BenchRequest::usual_milliseconds")]
    pub milliseconds: u32,
    /// How often; a minute in all at most.
    #[serde(default = "BenchRequest::usual_repetitions")]
    pub repetitions: u32,
    /// 1 or 2.
    #[serde(default = "BenchRequest::one")]
    pub directions: u8,
    /// Frames a second, of all streams together; without it as many as come through.
    #[serde(default)]
    pub rate: Option<u64>,
    /// Flows of each stream; as many as MACs or VLANs if nothing is said.
    #[serde(default)]
    pub flows: Option<u32>,
    /// MAC addresses behind each port.
    #[serde(default = "BenchRequest::one")]
    pub macs: u32,
    /// Tagged frames in so many VLANs; 0: no tags.
    #[serde(default)]
    pub vlans: u16,
    /// The payload is written anew before each frame.
    #[serde(default)]
    pub dirty: bool,
    /// The payload of each frame is read.
    #[serde(default)]
    pub read: bool,
    /// Whether this machine's limits are measured too.
    #[serde(default)]
    pub limits: bool,
}

impl BenchRequest {
    fn usual_sizes() -> Vec<String> {
        ["64", "1518"].map(Into::into).into()
    }

    fn usual_milliseconds() -> u32 {
        1000
    }

    fn usual_repetitions() -> u32 {
        3
    }

    fn one<N: From<u8>>() -> N {
        1.into()
    }
}
