//! What the firewalls of the interfaces on a frame's way say of it: of the one that it comes from, and of each that a copy goes to.
//!
//! ```text
//! head -> guard (from a guest only) -> fragments: its first one passed, and it passes
//!                                   -> connections: known, it passes
//!                                          |- new: rules -> allow: the connection is opened, and it passes
//!                                          |          `--> the default: only what a link needs passes
//!                                          `- none: rules, of which only those that want no connection let it pass
//! ```
//!
//! What cannot be read is dropped, whatever the rules say (DESIGN §2, law 7).

mod fragments;
mod tell;

use super::{Switch, guard};
use crate::{
    drop_reason::DropReason,
    firewall::{
        classify::Decision,
        connections::{
            Answer, Digest, Event, Facts, Invalid, Key, Opened, Opening, Refusal, Scope, State, Untracked,
        },
        interface::Firewall,
        policies::Policy,
        policy::{Action, Direction},
        tuple::Tuple,
    },
    head::{FrameView, Head, LinkHeader, TagKind, TcpFlags, Transport},
    limits::Limits,
    trace::Tracer,
    vlan::VlanId,
    world::Port,
};
use std::cell::OnceCell;

/// A frame, and what firewalls read of it: parsed once, when the first of them asks.
pub(super) struct Examined<'a> {
    pub(super) view: &'a FrameView<'a>,
    head: OnceCell<Head>,
}

impl<'a> Examined<'a> {
    #[inline(always)]
    pub(super) const fn new(view: &'a FrameView<'a>) -> Self {
        Self { view, head: OnceCell::new() }
    }

    pub(super) fn head(&self) -> &Head {
        self.head.get_or_init(|| self.view.head())
    }
}

/// Why a firewall drops a frame, on whichever side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Unparsed,
    Policy,
    Reject,
    Invalid,
    Limit,
    Rate,
    Fragment,
    FragmentMalformed,
    FragmentOverlap,
}

impl Why {
    /// What a decision of rules makes of a frame.
    const fn of(action: Action) -> Result<(), Self> {
        match action {
            Action::Allow => Ok(()),
            Action::Drop => Err(Self::Policy),
            Action::Reject => Err(Self::Reject),
        }
    }

    const fn reason(self, direction: Direction) -> DropReason {
        match (direction, self) {
            (Direction::Egress, Self::Unparsed) => DropReason::UnparsedEgress,
            (Direction::Egress, Self::Policy) => DropReason::PolicyEgress,
            (Direction::Egress, Self::Reject) => DropReason::RejectEgress,
            (Direction::Egress, Self::Invalid) => DropReason::InvalidEgress,
            (Direction::Egress, Self::Limit) => DropReason::ConnectionLimitEgress,
            (Direction::Egress, Self::Rate) => DropReason::ConnectionRateEgress,
            (Direction::Egress, Self::Fragment) => DropReason::FragmentEgress,
            (Direction::Egress, Self::FragmentMalformed) => DropReason::FragmentMalformedEgress,
            (Direction::Egress, Self::FragmentOverlap) => DropReason::FragmentOverlapEgress,
            (Direction::Ingress, Self::Unparsed) => DropReason::UnparsedIngress,
            (Direction::Ingress, Self::Policy) => DropReason::PolicyIngress,
            (Direction::Ingress, Self::Reject) => DropReason::RejectIngress,
            (Direction::Ingress, Self::Invalid) => DropReason::InvalidIngress,
            (Direction::Ingress, Self::Limit) => DropReason::ConnectionLimitIngress,
            (Direction::Ingress, Self::Rate) => DropReason::ConnectionRateIngress,
            (Direction::Ingress, Self::Fragment) => DropReason::FragmentIngress,
            (Direction::Ingress, Self::FragmentMalformed) => DropReason::FragmentMalformedIngress,
            (Direction::Ingress, Self::FragmentOverlap) => DropReason::FragmentOverlapIngress,
        }
    }
}

/// What decided.
#[derive(Debug, Clone, Copy)]
enum By {
    Connection {
        state: State,
        opener: Direction,
    },
    NoConnection,
    Full,
    Rate,
    Rules(Decision),
    /// The same, asked about the frame that opened the connection.
    RulesOfOpener(Decision),
    Basic,
    FirstFragment,
    Fragment,
    MalformedFragment,
    OverlappingFragment,
    Unparsed,
}

/// What became of the frame, and what decided that.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    outcome: Result<(), Why>,
    by: By,
}

impl Verdict {
    const UNPARSED: Self = Self { outcome: Err(Why::Unparsed), by: By::Unparsed };
    const FULL: Self = Self { outcome: Err(Why::Limit), by: By::Full };
    const RATE: Self = Self { outcome: Err(Why::Rate), by: By::Rate };
    const INVALID: Self = Self { outcome: Err(Why::Invalid), by: By::NoConnection };

    const fn connection(state: State, opener: Direction) -> Self {
        Self { outcome: Ok(()), by: By::Connection { state, opener } }
    }

    const fn rules(decision: Decision) -> Self {
        Self { outcome: Why::of(decision.action), by: By::Rules(decision) }
    }

    const fn rules_of_opener(decision: Decision) -> Self {
        Self { by: By::RulesOfOpener(decision), ..Self::rules(decision) }
    }
}

/// One frame before one firewall.
struct Case<'a> {
    switch: &'a Switch<'a>,
    limits: Option<&'a Limits>,
    firewall: &'a Firewall,
    policy: &'a Policy,
    view: &'a FrameView<'a>,
    head: &'a Head,
    scope: Scope,
    direction: Direction,
}

impl Switch<'_> {
    /// Whether the frame, which is in `vlan`, may pass the `firewall` of `port` in that direction.
    #[inline(never)]
    pub(super) fn filter<T: Tracer>(
        &self,
        (port, firewall): (&Port, &Firewall),
        vlan: VlanId,
        direction: Direction,
        frame: &Examined<'_>,
        tracer: &mut T,
    ) -> Result<(), DropReason> {
        // There is none only on a port that is down.
        let Ok(policy) = &firewall.policy else { return Err(Why::Policy.reason(direction)) };
        let verdict = if is_plain(frame.view.link) {
            let head = frame.head();
            if direction == Direction::Egress {
                guard::check(firewall, frame.view, head)?;
            }
            let scope = Scope { port: port.id, vlan };
            let limits = port.limits.as_deref();
            Case { switch: self, limits, firewall, policy, view: frame.view, head, scope, direction }.judge()
        } else {
            Verdict::UNPARSED
        };
        if self.learning && !matches!(verdict.by, By::Connection { .. }) {
            tell::count(self, (port, firewall, policy), direction, frame, verdict.by);
        }
        tracer.step(|| tell::step(self.world, (port, firewall, policy), direction, frame, &verdict));
        verdict.outcome.map_err(|why| why.reason(direction))
    }
}

/// EtherTypes that some receivers look behind as behind a tag, or behind a length with LLC: the TPIDs that were in use before IEEE 802.1ad, and
/// LLC encapsulation (IEEE 802.1AC-2016 Cor 1).
const fn is_veil(ethertype: u16) -> bool {
    matches!(ethertype, 0x8870 | 0x9100 | 0x9200 | 0x9300)
}

/// Whether a frame is what it looks like to every receiver: Ethernet II, behind one C-tag at most. What LLC or a second tag hides, some
/// receivers find (VU#855201), and no rule could be asked of it.
const fn is_plain(link: &LinkHeader) -> bool {
    let one_tag = match link.outer {
        Some(outer) => matches!(outer.kind, TagKind::Customer) && link.inner.is_none(),
        None => true,
    };
    one_tag && link.ethertype >= 0x600 && !is_veil(link.ethertype)
}

/// The VLAN of a frame on a wire, which has none but in its own tag.
pub(super) fn vlan_on_wire(link: &LinkHeader) -> VlanId {
    let tagged = link.outer.filter(|tag| tag.kind == TagKind::Customer);
    tagged.and_then(|tag| VlanId::new(tag.tci.vid())).unwrap_or(VlanId::DEFAULT)
}

impl Case<'_> {
    #[inline(always)]
    fn judge(&self) -> Verdict {
        // Rules are asked for the destination that is read, and whoever follows the route sends it on to another (RFC 8200 §4.4, RFC 5095 §4.2, RFC 7126
        // §4.3).
        if self.head.network.has_source_route() {
            return Verdict::UNPARSED;
        }
        if self.head.network.fragment().is_some() { self.of_piece() } else { self.of_whole() }
    }

    /// A whole datagram, or the first fragment of one, which has all that is judged.
    fn of_whole(&self) -> Verdict {
        let Ok(tuple) = Tuple::of(self.head) else { return Verdict::UNPARSED };
        if matches!(self.head.transport, Transport::Unparsed(_)) {
            return Verdict::UNPARSED;
        }
        match Facts::read(self.head, self.view.bytes, self.scope, self.direction) {
            Facts::Of(key, event) => self.of_connection(&key, &event, &tuple),
            Facts::About(key, quoted) => {
                let Switch { connections, now, .. } = *self.switch;
                let digest = connections.digest(&key);
                let related =
                    || connections.related(digest, self.direction, &quoted, self.firewall.epoch, now);
                let unrelated = || Answer::Invalid(Invalid::Unrelated);
                self.answered((&key, digest), related, unrelated, || self.without_connection(&tuple), &tuple)
            }
            Facts::Invalid(_) => self.without_connection(&tuple),
            Facts::Untracked(Untracked::Unparsed | Untracked::LaterFragment) => Verdict::UNPARSED,
            Facts::Untracked(Untracked::NotIp) => {
                self.or_basic(Verdict::rules(self.policy.decide_not_ip(self.direction, &tuple)))
            }
            Facts::Untracked(Untracked::Icmp) => {
                self.or_basic(Verdict::rules(self.policy.decide(self.direction, &tuple)))
            }
        }
    }

    /// A frame that belongs to a connection, or may open one.
    fn of_connection(&self, key: &Key, event: &Event, tuple: &Tuple) -> Verdict {
        let digest = self.switch.connections.digest(key);
        let look_up = || self.known_of(digest, event);
        let absent = || self.switch.connections.absent(event, self.switch.now);
        self.answered((key, digest), look_up, absent, || self.opening((key, digest), event, tuple), tuple)
    }

    /// What is known of the connection with this digest, which the frame says that to.
    fn known_of(&self, digest: Digest, event: &Event) -> Answer {
        let Switch { connections, now, learning, .. } = *self.switch;
        let epoch = self.firewall.epoch;
        if learning {
            connections.look_up(digest, self.direction, event, epoch, now)
        } else {
            connections.foresee(digest, self.direction, event, epoch, now)
        }
    }

    /// What follows from what `look_up` says is known of a connection; of a new one that is what `new` says. `absent` is what it would say if
    /// there were none.
    fn answered(
        &self,
        (key, digest): (&Key, Digest),
        look_up: impl Fn() -> Answer,
        absent: impl FnOnce() -> Answer,
        new: impl FnOnce() -> Verdict,
        tuple: &Tuple,
    ) -> Verdict {
        let mut answer = look_up();
        if let Answer::Stale { opener } = answer {
            let decision = self.policy.decide(opener, &Tuple::opening(key, opener));
            let goes_on = decision.action == Action::Allow && decision.stateful;
            if self.switch.learning {
                if goes_on {
                    self.switch.connections.renew(digest, self.firewall.epoch);
                } else {
                    self.switch.connections.end(digest);
                }
            }
            if decision.action != Action::Allow {
                return Verdict::rules_of_opener(decision);
            }
            // Whether it could be ended now or another worker was changing the port's share: rules without connections allow it, and so it is
            // none of this frame's.
            answer = if goes_on { look_up() } else { absent() };
            if matches!(answer, Answer::Stale { .. }) {
                // It is only imagined, or another worker was changing the port's share: the next frame is judged as well.
                return Verdict::rules_of_opener(decision);
            }
        }
        match answer {
            Answer::Known { state, opener } => Verdict::connection(state, opener),
            Answer::New => new(),
            Answer::Invalid(Invalid::NoConnection | Invalid::Unrelated) => self.without_connection(tuple),
            Answer::Invalid(_) | Answer::Stale { .. } => Verdict::INVALID,
        }
    }

    /// The first frame of a connection.
    fn opening(&self, (key, digest): (&Key, Digest), event: &Event, tuple: &Tuple) -> Verdict {
        let mut opener = self.direction;
        let mut decision = self.policy.decide(opener, tuple);
        if decision.action != Action::Allow && is_picked_up(event) {
            // A segment of a connection that was forgotten may be an answer to what the rules would let be opened.
            let other = self.policy.decide(opener.opposite(), &Tuple::opening(key, opener.opposite()));
            if other.action == Action::Allow && other.stateful {
                (opener, decision) = (opener.opposite(), other);
            }
        }
        let verdict = Verdict::rules(decision);
        if verdict.outcome.is_err() {
            return self.or_basic(verdict);
        }
        if !decision.stateful {
            return verdict;
        }
        // What is picked up is not new.
        let limits = self.limits.filter(|_| !is_picked_up(event));
        if limits.is_some_and(|limits| !limits.let_connection(self.direction, self.switch.asking())) {
            return Verdict::RATE;
        }
        if !self.switch.learning {
            return verdict;
        }
        let opening =
            Opening { key, digest, from: self.direction, event, opener, epoch: self.firewall.epoch };
        let opened = self.switch.connections.open(&opening, self.switch.now);
        if let Some(limits) = limits.filter(|_| opened != Opened::New) {
            limits.give_connection_back(self.direction);
        }
        match opened {
            Opened::New | Opened::Already | Opened::Refused(Refusal::Busy) => verdict,
            Opened::Refused(
                Refusal::PortLimit | Refusal::TableFull | Refusal::NoPort | Refusal::InverseTaken,
            ) => Verdict::FULL,
            Opened::Refused(Refusal::NoBeginning) => Verdict::INVALID,
        }
    }

    /// A frame that can only belong to a connection, and there is none: rules that want none let it pass.
    fn without_connection(&self, tuple: &Tuple) -> Verdict {
        let decision = self.policy.decide(self.direction, tuple);
        if decision.action == Action::Allow && !decision.stateful {
            Verdict::rules(decision)
        } else {
            Verdict::INVALID
        }
    }

    /// The verdict of rules, or of the default: that lets pass what a link needs.
    fn or_basic(&self, verdict: Verdict) -> Verdict {
        match verdict.by {
            By::Rules(Decision { rule: None, .. })
                if verdict.outcome.is_err()
                    && guard::is_basic(self.firewall, self.direction, self.view.bytes, self.head) =>
            {
                Verdict { outcome: Ok(()), by: By::Basic }
            }
            _ => verdict,
        }
    }
}

/// Whether a frame that is new can be so only because running connections are picked up.
fn is_picked_up(event: &Event) -> bool {
    matches!(event, Event::Tcp(segment) if !segment.flags.contains(TcpFlags::SYN))
}
