//! virtio devices: the register file that a driver sees ([`mmio`]), and what is behind it ([`net`]).

pub(crate) mod mmio;
pub(crate) mod net;
