//! What nodes answer, in words.

use probe::{
    Answer,
    answer::{Refusal, Unreachable},
};

/// Why there is no way to a destination.
pub(super) const fn unreachable(why: Unreachable) -> &'static str {
    match why {
        Unreachable::NoRoute => "no route",
        Unreachable::NoNeighbour => "no ARP or ND answer",
        Unreachable::Rejected => "rejected by an ICMP error",
    }
}

/// An answer to something else than what was asked.
pub(super) fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Refused(Refusal::Unsupported) => "this kind of node does not do it".into(),
        Answer::Refused(Refusal::System(why)) => why.clone(),
        other => format!("it answers {other:?}"),
    }
}
