//! What firewalls say of fragments: the first is judged as what it is a part of, and the rest follows it.

use super::{By, Case, Verdict, Why};
use crate::firewall::{
    connections::{Answer, Facts, Invalid},
    fragments::{At, Begun, Follows, Fragment, Piece},
    policy::{Action, Direction},
    tuple::Tuple,
};

impl Verdict {
    const MALFORMED_FRAGMENT: Self = Self { outcome: Err(Why::FragmentMalformed), by: By::MalformedFragment };
    const OVERLAPPING_FRAGMENT: Self =
        Self { outcome: Err(Why::FragmentOverlap), by: By::OverlappingFragment };
    const LONE_FRAGMENT: Self = Self { outcome: Err(Why::Fragment), by: By::Fragment };
    const FOLLOWS: Self = Self { outcome: Ok(()), by: By::FirstFragment };
}

impl Case<'_> {
    /// A frame with what makes it a fragment.
    #[cold]
    pub(super) fn of_piece(&self) -> Verdict {
        match Piece::of(self.head, self.scope, self.direction) {
            Piece::Whole => self.of_whole(),
            Piece::First(first) => self.of_first(&first),
            Piece::Later(later) => self.of_later(&later),
            Piece::Malformed => Verdict::MALFORMED_FRAGMENT,
        }
    }

    /// The first fragment of a datagram.
    fn of_first(&self, first: &Fragment) -> Verdict {
        let verdict = self.of_whole();
        if verdict.outcome.is_err() {
            return verdict;
        }
        let begun = match Facts::read(self.head, self.view.bytes, self.scope, self.direction) {
            Facts::Of(key, event) => Begun::of(first, &key, &event),
            _ => None,
        };
        self.joined(verdict, first, begun)
    }

    /// Any other fragment.
    fn of_later(&self, later: &Fragment) -> Verdict {
        match self.switch.connections.fragments().follow(&self.at(later), later.part) {
            Follows::First(Some(begun)) => self.of_segment(&begun, later),
            Follows::First(None) => Verdict::FOLLOWS,
            Follows::Overlap => Verdict::OVERLAPPING_FRAGMENT,
            Follows::Lost => Verdict::LONE_FRAGMENT,
            Follows::Nothing => self.alone(later),
        }
    }

    /// A TCP segment that this fragment makes longer: its connection has to take the whole, and to know of it, for it will be acknowledged.
    fn of_segment(&self, begun: &Begun, later: &Fragment) -> Verdict {
        let (key, event) = begun.up_to(later);
        match self.known_of(self.switch.connections.digest(&key), &event) {
            Answer::Invalid(Invalid::Sequence) => Verdict::INVALID,
            // Whatever else became of the connection since: that was the first one's to meet.
            _ => Verdict::FOLLOWS,
        }
    }

    /// A fragment whose first one is not known: only what holds whatever its ports are can let it pass.
    fn alone(&self, later: &Fragment) -> Verdict {
        let Ok(Tuple::Ip(ip)) = Tuple::of(self.head) else { return Verdict::LONE_FRAGMENT };
        match self.policy.classifier(self.direction).decide_unread(&ip) {
            Some(decision) if decision.action == Action::Allow => {
                self.joined(Verdict::rules(decision), later, None)
            }
            Some(decision) if decision.rule.is_some() => Verdict::rules(decision),
            _ => Verdict::LONE_FRAGMENT,
        }
    }

    /// The verdict of a fragment that may pass, if it does not touch another one of its datagram.
    fn joined(&self, verdict: Verdict, fragment: &Fragment, begun: Option<Begun>) -> Verdict {
        match self.switch.connections.fragments().join(&self.at(fragment), fragment.part, begun) {
            Follows::Overlap => Verdict::OVERLAPPING_FRAGMENT,
            // Nobody knows that it passed, so the rest is judged as this one was.
            Follows::First(_) | Follows::Nothing | Follows::Lost => verdict,
        }
    }

    fn at(&self, fragment: &Fragment) -> At {
        At {
            port: self.scope.port.index(),
            is_ingress: self.direction == Direction::Ingress,
            digest: self.switch.connections.digest(&fragment.datagram),
            epoch: self.firewall.epoch,
            now: self.switch.now,
            notes: self.switch.learning,
        }
    }
}
