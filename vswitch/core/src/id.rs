//! The names that things have inside the datapath.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A port: a place in the World's table of ports and, so that a place can be used again, its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortId {
    index: u16,
    generation: u16,
}

impl PortId {
    /// The port in place `index`, `generation`-th of its place.
    pub const fn new(index: u16, generation: u16) -> Self {
        Self { index, generation }
    }

    /// Its place in the World's table of ports.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// How many ports held this place before it.
    pub const fn generation(self) -> u16 {
        self.generation
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// A switch of the lab: its place in the World's table of switches, the same for as long as the switch lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SwitchId(u16);

impl SwitchId {
    /// The switch in place `index`; at most 4096 switches make a lab (see [`crate::description`]).
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Its place in the World's table of switches.
    pub const fn index(self) -> u16 {
        self.0
    }
}

/// The number of a configuration: each World that is swapped in has a higher one than the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(u64);

impl Epoch {
    /// The configuration with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
