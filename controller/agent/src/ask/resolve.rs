//! `Resolve`: the MAC address of a neighbour, asked anew.

use crate::{
    deadline::Deadline,
    neighbours,
    origin::{Origin, system},
};
use probe::{Answer, answer::Refusal, ask::Resolve};

/// Asks by ARP or ND, and waits for the answer.
pub(crate) fn resolve(ask: Resolve) -> Result<Answer, Refusal> {
    let origin = Origin::find(ask.from)?;
    let found = neighbours::resolve(ask.dst, &origin, Deadline::after(ask.timeout));
    found.map(Answer::Resolved).map_err(|error| system("ask for the neighbour", error))
}
