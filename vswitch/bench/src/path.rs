//! What a switch does with the frames of a way: switches, routes or translates them; so how they look where they are sent, and where they arrive.

use crate::frames::ARP;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The first half of senders' and of receivers' IPv4 addresses (RFC 2544 appendix C.2.2): each is a network of 16 bits.
pub(crate) const SENDERS: [u8; 2] = [198, 18];
pub(crate) const RECEIVERS: [u8; 2] = [198, 19];
/// The low half of the gateways' addresses in both networks: no port has that number.
const GATEWAY: [u8; 2] = [255, 254];
/// TTL of frames that are sent.
const TTL: u8 = 64;
/// ARP's fixed part for Ethernet and IPv4, and its operation: a request (RFC 826).
const ARP_REQUEST: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 1];

/// ARP's answer (RFC 826).
const ARP_REPLY: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 2];
/// So many bytes of a frame say whether it is one.
pub(crate) const ARP_HEAD: usize = 22;

/// What the switch does with frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// It switches them.
    #[default]
    Switched,
    /// It routes them: 198.18.0.0/16 and 198.19.0.0/16 are two VLANs, whose gateways are the hosts 255.254.
    Routed,
    /// The same, and they arrive with the gateway's address as their source (RFC 3022 §2.2).
    Nat,
}

impl Path {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Switched, Self::Routed, Self::Nat];
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Switched => "switched",
            Self::Routed => "routed",
            Self::Nat => "nat",
        })
    }
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|path| path.to_string() == text);
        named.ok_or_else(|| format!("`{text}` is no path: say switched, routed or nat"))
    }
}

/// The path of frames, and the MAC address of the gateway on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Route {
    /// What is done with them.
    pub path: Path,
    /// The gateway's address in both VLANs; without meaning where frames are switched.
    pub gateway: [u8; 6],
}

/// What stands in a frame's headers and is another thing where it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Labels {
    /// Destination and source, as they stand there.
    pub(crate) macs: [[u8; 6]; 2],
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    pub(crate) ttl: u8,
}

/// The MAC address of a port's first station.
fn station(port: u16) -> [u8; 6] {
    let [high, low] = port.to_be_bytes();
    [2, high, low, 0, 0, 0]
}

/// The address of a port's host in that network: 0 is no host's.
fn host([a, b]: [u8; 2], port: u16) -> [u8; 4] {
    let [c, d] = (port + 1).to_be_bytes();
    [a, b, c, d]
}

/// The address of the gateway in that network.
fn gateway([a, b]: [u8; 2]) -> [u8; 4] {
    let [c, d] = GATEWAY;
    [a, b, c, d]
}

/// Whether a frame that begins so answers an announcement.
pub(crate) fn is_answer(announcement: &[u8; 60], head: &[u8; ARP_HEAD]) -> bool {
    head[..6] == announcement[6..12] && head[12..14] == ARP && head[14..22] == ARP_REPLY
}

impl Route {
    /// Frames from one port to another as they are sent.
    pub(crate) fn sent(&self, from: u16, to: u16) -> Labels {
        let next = if self.path == Path::Switched { station(to) } else { self.gateway };
        Labels {
            macs: [next, station(from)],
            source: host(SENDERS, from),
            destination: host(RECEIVERS, to),
            ttl: TTL,
        }
    }

    /// The same frames as they arrive.
    pub(crate) fn arriving(&self, from: u16, to: u16) -> Labels {
        let sent = self.sent(from, to);
        let routed = Labels { macs: [station(to), self.gateway], ttl: TTL - 1, ..sent };
        match self.path {
            Path::Switched => sent,
            Path::Routed => routed,
            Path::Nat => Labels { source: gateway(RECEIVERS), ..routed },
        }
    }

    /// What a receiver says to its gateway, so that it is known there: who has the gateway's address? None where there is no gateway.
    pub(crate) fn announcement(&self, receiver: u16) -> Option<[u8; 60]> {
        if self.path == Path::Switched {
            return None;
        }
        let (mac, own) = (station(receiver), host(RECEIVERS, receiver));
        let mut frame = [0; 60];
        // To the gateway alone: nothing of it is flooded.
        frame[..6].copy_from_slice(&self.gateway);
        frame[6..12].copy_from_slice(&mac);
        frame[12..14].copy_from_slice(&ARP);
        frame[14..22].copy_from_slice(&ARP_REQUEST);
        frame[22..28].copy_from_slice(&mac);
        frame[28..32].copy_from_slice(&own);
        frame[38..42].copy_from_slice(&gateway(RECEIVERS));
        Some(frame)
    }
}
