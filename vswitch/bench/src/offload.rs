//! What a sender leaves to the switch, for receivers that do not take it: a checksum to be completed, a large frame to be cut.

use crate::frames::FrameSize;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use vhost_net_backend::features;

/// What the switch is left to do with each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offload {
    /// Nothing: frames are UDP, and whole.
    #[default]
    None,
    /// To complete the checksum of TCP (VIRTIO_NET_HDR_F_NEEDS_CSUM).
    Checksum,
    /// To cut it into segments (VIRTIO_NET_HDR_GSO_TCPV4), and to complete the checksum of each.
    Segments,
}

impl Offload {
    /// The features that a sender must have negotiated.
    pub(crate) fn features(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Checksum => features::NET_CSUM,
            Self::Segments => features::NET_CSUM | features::NET_HOST_TSO4,
        }
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Checksum => "checksum",
            Self::Segments => "segments",
        })
    }
}

impl FromStr for Offload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::None, Self::Checksum, Self::Segments];
        let named = all.into_iter().find(|offload| offload.to_string() == text);
        named.ok_or_else(|| {
            format!("`{text}` is nothing to be left to the switch: say checksum, segments or none")
        })
    }
}

/// The frames of one row: their size, and what the switch does with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The size of each.
    pub size: FrameSize,
    /// What is left to the switch.
    pub offload: Offload,
}

impl From<FrameSize> for Kind {
    fn from(size: FrameSize) -> Self {
        Self { size, offload: Offload::None }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offload {
            Offload::None => write!(f, "{}", self.size),
            offload => write!(f, "{}, {offload}", self.size),
        }
    }
}
