//! virtio devices: the register file that a driver sees ([`mmio`]), and what is behind it: [`net`], whose rings the
//! switch serves, and [`block`] and [`rng`], whose ring is [`served`] here.

pub(crate) mod block;
pub(crate) mod image;
pub(crate) mod mmio;
mod names;
pub(crate) mod net;
pub(crate) mod rng;
pub(crate) mod served;

use crate::confine::{ConfineError, Confinement};
use block::Block;
use net::Net;
use rng::Rng;
use served::Served;

/// Any of them.
pub(crate) enum Device {
    Net(Net),
    Block(Served<Block>),
    Rng(Served<Rng>),
}

impl Device {
    /// Starts its thread, with which it begins to work.
    pub(crate) fn begin(&mut self, confinement: Confinement) -> Result<(), ConfineError> {
        match self {
            Self::Net(net) => net.begin(confinement),
            Self::Block(block) => block.begin(confinement),
            Self::Rng(rng) => rng.begin(confinement),
        }
    }

    /// A read of a register.
    pub(crate) fn read(&mut self, register: u64, data: &mut [u8]) {
        match self {
            Self::Net(net) => net.read(register, data),
            Self::Block(block) => block.read(register, data),
            Self::Rng(rng) => rng.read(register, data),
        }
    }

    /// A write to a register.
    pub(crate) fn write(&mut self, register: u64, data: &[u8]) {
        match self {
            Self::Net(net) => net.write(register, data),
            Self::Block(block) => block.write(register, data),
            Self::Rng(rng) => rng.write(register, data),
        }
    }
}
