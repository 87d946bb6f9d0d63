//! What a guest is asked.

use crate::Mac;
use alloc::{string::String, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use serde::{Deserialize, Serialize};

/// The number of a question, chosen by the asker; its answer bears the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AskId(u32);

impl AskId {
    /// The question of this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A question: the message towards a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Its number.
    pub id: AskId,
    /// What is asked.
    pub request: Request,
}

/// What can be asked. Interfaces are named by their MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Who are you? First on every line; answered by [`Answer::Ready`](crate::Answer::Ready).
    Hello(Hello),
    /// The interfaces as they are now.
    Report,
    /// Echo requests (ICMP or ICMPv6).
    Ping(Ping),
    /// A TCP connection, closed as soon as it stands.
    Connect(Connect),
    /// A UDP datagram that is expected back.
    UdpEcho(UdpEcho),
    /// Open an echo service, besides those on [`ECHO_PORT`](crate::ECHO_PORT).
    Listen(Service),
    /// Close an echo service that was opened by `Listen`.
    Unlisten(Service),
    /// The MAC address of a neighbour, asked anew by ARP or ND.
    Resolve(Resolve),
    /// Send one frame as it is.
    SendFrame(SendFrame),
    /// From now on count received frames of EtherType [`ETHERTYPE`](crate::ETHERTYPE) that contain this marker. A guest
    /// keeps the latest [`MAX_MARKERS`] of them.
    Expect(Marker),
    /// How many such frames came.
    ReceivedFrames(Marker),
    /// Take bulk transfers on a TCP port, one at a time.
    Serve {
        /// The TCP port.
        port: u16,
    },
    /// What came on a port that is served.
    Served {
        /// The TCP port.
        port: u16,
    },
    /// Send a bulk transfer to a port that is served.
    Send(Send),
    /// Run a program. Only an operating system can.
    Exec(Exec),
    /// End; answered before it is done.
    Shutdown,
}

/// How many markers a guest keeps, at least.
pub const MAX_MARKERS: usize = 64;

/// How many echo requests one [`Ping`] may ask for.
pub const MAX_PINGS: u16 = 1000;

/// The greatest payload of an echo request or datagram, in bytes: fits an IPv4 packet and [`frame`](crate::frame).
pub const MAX_PAYLOAD: u16 = 60_000;

/// `Hello`. Its form does not change from version to version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`](crate::VERSION) of the asker.
    pub version: u16,
    /// Which guest is meant, where several share a socket: the line is its from then on. A guest alone on its line
    /// answers whatever the name.
    pub name: String,
}

/// From where to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// As the routes say.
    Any,
    /// From this interface.
    Interface(Mac),
    /// From this address, and the interface that has it.
    Address(IpAddr),
}

/// `Ping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// To whom.
    pub dst: IpAddr,
    /// From where.
    pub from: Source,
    /// How many, at most [`MAX_PINGS`].
    pub count: u16,
    /// Bytes behind the echo header, at most [`MAX_PAYLOAD`].
    pub payload: u16,
    /// Between two requests.
    pub interval: Duration,
    /// How long to wait for each answer.
    pub timeout: Duration,
}

/// `Connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// To whom.
    pub dst: SocketAddr,
    /// From where.
    pub from: Source,
    /// How long to wait.
    pub timeout: Duration,
}

/// `UdpEcho`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpEcho {
    /// To whom.
    pub dst: SocketAddr,
    /// From where.
    pub from: Source,
    /// The datagram, at most [`MAX_PAYLOAD`].
    pub payload: Vec<u8>,
    /// How long to wait.
    pub timeout: Duration,
}

/// Over what a service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An echo service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    /// Its transport.
    pub transport: Transport,
    /// Its port, not 0.
    pub port: u16,
}

/// `Resolve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// Whose MAC address.
    pub dst: IpAddr,
    /// From where.
    pub from: Source,
    /// How long to wait.
    pub timeout: Duration,
}

/// `SendFrame`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendFrame {
    /// The interface to send from.
    pub interface: Mac,
    /// The frame, from its destination address, without a frame check sequence; at least 14 bytes.
    pub frame: Vec<u8>,
}

/// Bytes that are looked for in received raw frames.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marker {
    /// The bytes, 1 to 64.
    pub bytes: Vec<u8>,
}

/// `Send`: the bytes are [`bulk::Pattern`](crate::bulk::Pattern) of `seed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// To whom.
    pub dst: SocketAddr,
    /// From where.
    pub from: Source,
    /// How many bytes.
    pub bytes: u64,
    /// Of the pattern.
    pub seed: u64,
    /// How long the whole may take.
    pub timeout: Duration,
}

/// `Exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program, looked for in PATH, and its arguments.
    pub argv: Vec<String>,
    /// What it reads; then end of file.
    pub stdin: Vec<u8>,
    /// Killed after this.
    pub timeout: Duration,
}
