//! What a guest answers.

use crate::{AskId, Mac};
use alloc::{string::String, vec::Vec};
use core::time::Duration;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The message from a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// Unasked, once, when the guest is ready to be asked.
    Ready(Ready),
    /// To the question of that number.
    Answer {
        /// Of the question.
        id: AskId,
        /// The answer.
        answer: Answer,
    },
}

/// The answers; each [`Request`](crate::Request) has one of its own, or gets `Refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Hello`.
    Ready(Ready),
    /// To `Report`.
    Report(Vec<InterfaceReport>),
    /// To `Ping`.
    Ping(Result<Echoes, Unreachable>),
    /// To `Connect`.
    Connect(Contact),
    /// To `UdpEcho`.
    UdpEcho(Contact),
    /// To `Resolve`; none: nobody answered.
    Resolved(Option<Mac>),
    /// To `ReceivedFrames`: by interface; those that received none may be left out.
    Received(Vec<Received>),
    /// To `Served`; none: no transfer has ended yet.
    Served(Option<Bulk>),
    /// To `Send`.
    Sent(Result<Sent, SendFailed>),
    /// To `Exec`.
    Exec(Executed),
    /// To `Listen`, `Unlisten`, `SendFrame`, `Expect`, `Serve` and `Shutdown`: done.
    Done,
    /// It was not tried.
    Refused(Refusal),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// [`VERSION`](crate::VERSION) of the guest.
    pub version: u16,
    /// Its name.
    pub name: String,
    /// Its interfaces, in their order.
    pub interfaces: Vec<InterfaceName>,
}

/// One interface by both of its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceName {
    /// What the guest calls it.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
}

/// One interface as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// What the guest calls it.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses with their subnets.
    pub addresses: Vec<IpNet>,
    /// Whether it can send and receive now.
    pub link_up: bool,
    /// What was counted since it came up.
    pub counters: Counters,
}

/// Frames and bytes that passed an interface, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Frames received.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames received and thrown away.
    pub received_drops: u64,
    /// Frames sent.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that could not be sent.
    pub sent_drops: u64,
}

/// Why there is no way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unreachable {
    /// No route leads there; nothing was sent.
    NoRoute,
    /// The destination, or the router before it, did not answer ARP or ND.
    NoNeighbour,
    /// An ICMP or ICMPv6 error said so.
    Rejected,
}

/// What became of echo requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Echoes {
    /// Requests sent.
    pub sent: u16,
    /// The round-trip time of each that was answered, in the order of sending.
    pub round_trips: Vec<Duration>,
}

impl Echoes {
    /// How many were answered.
    pub fn received(&self) -> usize {
        self.round_trips.len()
    }

    /// The shortest round trip, if one was answered.
    pub fn min(&self) -> Option<Duration> {
        self.round_trips.iter().min().copied()
    }

    /// The mean round trip, if one was answered.
    pub fn average(&self) -> Option<Duration> {
        let answered = u32::try_from(self.round_trips.len()).ok().filter(|n| *n > 0)?;
        let total = self.round_trips.iter().try_fold(Duration::ZERO, |sum, rtt| sum.checked_add(*rtt))?;
        Some(total / answered)
    }

    /// The longest round trip, if one was answered.
    pub fn max(&self) -> Option<Duration> {
        self.round_trips.iter().max().copied()
    }
}

/// What became of an attempt to reach a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Contact {
    /// It answered after this time.
    Answered(Duration),
    /// The host is there, the service is not: TCP reset, or ICMP port unreachable.
    Refused,
    /// Nothing came back in time.
    TimedOut,
    /// There is no way there.
    Unreachable(Unreachable),
}

/// Raw frames that were counted on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The interface.
    pub interface: Mac,
    /// Frames that held the marker.
    pub frames: u64,
}

/// A bulk transfer as one of its ends saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    /// Bytes.
    pub bytes: u64,
    /// [`bulk::Checksum`](crate::bulk::Checksum) over them.
    pub checksum: u64,
}

/// A bulk transfer that was sent to its end, and whose receiver has closed after its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// What was sent.
    pub bulk: Bulk,
    /// From the connection's standing to the receiver's close.
    pub elapsed: Duration,
    /// TCP segments sent, if the stack counts them.
    pub segments_sent: Option<u64>,
    /// Of those, sent again, if the stack counts them.
    pub segments_retransmitted: Option<u64>,
}

/// Why a bulk transfer did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SendFailed {
    /// The connection never stood.
    NotConnected(Contact),
    /// It broke, or time ran out, after this many bytes were taken by the stack.
    Broken {
        /// Bytes.
        after: u64,
    },
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// How it ended.
    pub end: End,
    /// The first [`MAX_OUTPUT`] bytes of its standard output.
    pub stdout: Vec<u8>,
    /// The first [`MAX_OUTPUT`] bytes of its standard error.
    pub stderr: Vec<u8>,
    /// How many bytes it wrote beyond those that are kept.
    pub cut: u64,
}

/// How many bytes of each output of a program are kept.
pub const MAX_OUTPUT: usize = 24 * 1024;

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Killed since its time was up.
    TimedOut,
}

/// Why a request was not tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// This kind of guest cannot.
    Unsupported,
    /// No guest of that name is behind this socket, or none was named yet.
    UnknownGuest,
    /// The guest speaks another version.
    OtherVersion(u16),
    /// No interface has that MAC or source address.
    NoSuchInterface,
    /// The marker is not among those expected.
    NotExpected,
    /// Nothing is served or listened to there.
    NotOpen,
    /// The port is taken by another service.
    PortTaken,
    /// A number or length is out of the bounds that [`ask`](crate::ask) states.
    OutOfBounds,
    /// The guest has no room for more now.
    Busy,
    /// The guest's system refused, in its words.
    System(String),
}
