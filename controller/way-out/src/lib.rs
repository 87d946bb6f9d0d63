//! A way out of a lab without rights: frames on a stream socket become ordinary sockets of this machine's.
//!
//! ```text
//! stream port of the switch <-> heard, out: frames
//!                                 |-> answers: ARP, neighbour solicitations, echoes of its own addresses
//!                                 |-> connections: TCP, which smoltcp speaks with the lab and this machine with the far end
//!                                 `-> flows: UDP and echoes, a socket each
//!                                        \-> reach: where a packet may go
//! ```
//! One thread serves all: it sleeps until a socket is ready or a time is due. Whatever waits, waits within bounds: who does not read
//! is not read from either, and of what has a number (connections, flows) the one that is least missed goes first. What guests send is a
//! stranger's: it is parsed by smoltcp's checked types, and what cannot be is lost.
//!
//! Files: `heard` what a frame is, `out` the frames that are sent, `reach` which destinations there are, `connections` (`open`, `link`) and `flows`
//! who speaks with whom, `host` the sockets, `turns` the loop, `confine` what the process gives up.

#![forbid(unsafe_code)]

mod confine;
mod connections;
mod flows;
mod heard;
mod host;
mod link;
mod open;
mod out;
mod reach;
mod turns;

#[cfg(test)]
mod tests;

pub use confine::{ConfineError, confine};

use ipnet::IpNet;
use std::{io, net::SocketAddr, os::fd::OwnedFd};
use vswitch_core::mac::MacAddr;

/// Who it is in the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Its MAC address.
    pub mac: MacAddr,
    /// The longest IP packet of the link, in bytes.
    pub mtu: u16,
    /// Its own addresses, with their networks.
    pub addresses: Vec<IpNet>,
}

/// Whom to ask for names now; nobody, if this machine says none.
pub type Resolver = Box<dyn Fn() -> Option<SocketAddr> + Send>;

/// The name server that resolv.conf(5) has first.
pub fn resolver() -> Option<SocketAddr> {
    reach::name_server(&std::fs::read_to_string(reach::RESOLV_CONF).ok()?)
}

/// Why a way out ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses what every process may have.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The switch said something that is no frame.
    #[error("{0}")]
    Frame(#[from] vswitchd::ports::framing::BadLength),
}

/// Serves the lab at the other end of `stream`, until that hangs up. Names that are asked of its own addresses are asked of `resolver`.
///
/// # Errors
/// The kernel gives no sockets, or what comes is no stream of frames.
pub fn run(stream: OwnedFd, spec: &Spec, resolver: Resolver) -> Result<(), Error> {
    turns::Turns::new(stream, spec, resolver)?.run()
}
