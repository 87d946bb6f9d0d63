//! Whether an expectation holds: a pure function of what the probe's sender said and of what the switch saw.
//!
//! Silence proves nothing. A deny holds only if the switch saw the probe frame come in and says where it ended. Nor does
//! an answer prove anything by itself: it counts only if the probe was delivered to the destination's own MAC address.

use super::{
    frames::{Role, Seen},
    words::below_a_trace,
};
use crate::api::types::TestResult;
use topology::plan::{Because, Expectation, Probe, Verdict};
use vswitch_core::{
    description::{Description, Link, Membership, Port},
    drop_reason::DropReason,
    firewall::answer::AnswerKind,
    id::PortId,
    mac::MacAddr,
    trace::Step,
    vlan::VlanId,
};
use vswitchd::control::protocol::{Journey, Sighting};

/// What the sender of the probe said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer came, after this many microseconds.
    Answered(u64),
    /// This MAC address was said to have the destination's address.
    Resolved(MacAddr),
    /// A TCP reset or an ICMP port unreachable: nobody listens there.
    Refused,
    /// Another ICMP error, whosever it was.
    Rejected,
    /// Nothing came back.
    Silent,
    /// The probe asks for no answer: its frame's fate is all there is.
    Unanswerable,
}

/// All that is known of one probe.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Whether the source answers its probe line.
    pub source_ready: bool,
    /// Whether the destination's port is up.
    pub destination_up: bool,
    /// What the sender said.
    pub outcome: Outcome,
    /// The probe had to be sent as a raw frame: the sender had no route, or no neighbour.
    pub raw: bool,
    /// The destination serves the port that is probed only since the probe asked it to.
    pub opened: bool,
    /// The MAC addresses of the destination, as far as they are known.
    pub macs: &'a [MacAddr],
    /// The probe's own frames as the switch saw them, oldest first; then their answers.
    pub seen: &'a [Seen],
}

/// A judgement and its grounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the expectation holds.
    pub result: TestResult,
    /// How that is known, in a sentence.
    pub proof: String,
    /// The sighting that decided it, by its place.
    pub decided_by: Option<usize>,
}

/// Where one probe frame ended, seen from the destination that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// At the destination.
    Delivered,
    /// On the way into the destination's ring.
    Lost(DropReason),
    /// In the switch, as a whole.
    Dropped(DropReason),
    /// At these ports, the destination not among them.
    Elsewhere(Vec<PortId>),
}

fn fate(journey: &Journey, destination: PortId) -> Fate {
    if let Some(reason) = journey.dropped {
        return Fate::Dropped(reason);
    }
    match journey.copies.iter().position(|port| *port == destination) {
        Some(place) => match journey.lost.get(place).copied().flatten() {
            Some(reason) => Fate::Lost(reason),
            None => Fate::Delivered,
        },
        None => Fate::Elsewhere(journey.copies.clone()),
    }
}

/// Whether a frame that was sent to the routers' address went to their port only: they answer it, or keep it while they ask for their
/// neighbour.
pub(super) fn is_with_routers(description: &Description, sighting: &Sighting) -> bool {
    let Some(routing) = &description.routing else { return false };
    let port = description.ports.get(usize::from(routing.port.index())).and_then(Option::as_ref);
    let for_them = port.and_then(|port| port.mac).is_some_and(|mac| sighting.head.starts_with(&mac.octets()));
    for_them && went_to_routers(description, &sighting.journey)
}

/// Whether a frame went to the port of the routers, and to no other.
fn went_to_routers(description: &Description, journey: &Journey) -> bool {
    let routers = description.routing.as_ref().map(|routing| routing.port);
    matches!(journey.copies[..], [to] if Some(to) == routers)
}

/// What the switch told the sender of a frame that a rule rejected.
fn answer_of(journey: &Journey) -> Option<AnswerKind> {
    journey.steps.iter().find_map(|step| match step {
        Step::Answered { kind, .. } => Some(*kind),
        _ => None,
    })
}

/// Whether the switch did with the probe what the file alone says, `foreseen`; none: what it did depends on more than the file. The error
/// says both.
pub(super) fn is_foreseen(
    description: &Description,
    expectation: &Expectation,
    foreseen: &Journey,
    seen: &[Seen],
) -> Option<Result<(), String>> {
    let role = if expectation.probe == Probe::Arp { Role::Asks } else { Role::Direct };
    let of_file = |fate: &Fate| match fate {
        Fate::Delivered | Fate::Elsewhere(_) => true,
        Fate::Dropped(reason) | Fate::Lost(reason) => is_denial(*reason),
    };
    let mut live = seen.iter().filter(|seen| seen.role == role);
    let live = live.find(|seen| !is_with_routers(description, &seen.sighting))?;
    if is_with_routers(description, &Sighting { journey: foreseen.clone(), ..live.sighting.clone() }) {
        return None;
    }
    let journeys = [foreseen, &live.sighting.journey];
    let [foreseen_answer, live_answer] = journeys.map(answer_of);
    let [foreseen, live] = journeys.map(|journey| fate(journey, expectation.dst));
    // An answer may be one too many, or find no room.
    if !of_file(&live) || !of_file(&foreseen) || (foreseen == live && foreseen_answer != live_answer) {
        return None;
    }
    let nothing = Evidence {
        source_ready: true,
        destination_up: true,
        outcome: Outcome::Silent,
        raw: false,
        opened: false,
        macs: &[],
        seen: &[],
    };
    let case = Case { description, expectation, evidence: &nothing };
    let agrees = match (&foreseen, &live) {
        // Who else hears a flood depends on what was learned.
        (Fate::Elsewhere(_), Fate::Elsewhere(_)) => true,
        (foreseen, live) => foreseen == live,
    };
    let both = || {
        format!("by the file the probe is {}; the switch said: {}", case.tell(&foreseen), case.tell(&live))
    };
    Some(if agrees { Ok(()) } else { Err(both()) })
}

/// Judges `expectation` in the lab that `description` describes.
pub fn judge(description: &Description, expectation: &Expectation, evidence: &Evidence<'_>) -> Judgement {
    let case = Case { description, expectation, evidence };
    let mut judgement = match case.not_up() {
        Some(error) => error,
        None => match expectation.verdict {
            Verdict::Allow => case.allow(),
            Verdict::Deny(because) => case.deny(because),
        },
    };
    if evidence.opened && matches!(evidence.outcome, Outcome::Answered(_)) {
        judgement.proof.push_str(" (port opened for the probe)");
    }
    if evidence.raw {
        judgement.proof.push_str(" (sent as a raw frame: the sender has no route or neighbour for it)");
    }
    judgement
}

/// One expectation with all that is known.
struct Case<'a> {
    description: &'a Description,
    expectation: &'a Expectation,
    evidence: &'a Evidence<'a>,
}

impl Case<'_> {
    /// A node that is not up can prove nothing, neither way.
    fn not_up(&self) -> Option<Judgement> {
        let what = if !self.evidence.source_ready {
            format!("{} does not answer its probe line", self.name(self.expectation.src))
        } else if !self.evidence.destination_up {
            format!("the port of {} is not up", self.name(self.expectation.dst))
        } else {
            return None;
        };
        Some(error(format!("{what}: nothing can be proved"), None))
    }

    fn allow(&self) -> Judgement {
        let last = self.last_fate();
        let place = last.as_ref().map(|last| last.0);
        match (self.evidence.outcome, last) {
            // The switch itself said so, in the destination's name.
            (Outcome::Refused | Outcome::Rejected, Some((place, fate))) if is_rejected(&fate) => {
                fail(self.tell(&fate), Some(place))
            }
            (Outcome::Answered(_) | Outcome::Resolved(_) | Outcome::Refused, _) if !self.is_its_own() => {
                let (proof, place) = self.impostor();
                fail(proof, place)
            }
            (Outcome::Answered(micros), _) => pass(format!("answered in {}", time(micros)), place),
            (Outcome::Resolved(mac), _) => pass(format!("is at {mac}"), place),
            (Outcome::Refused, _) => {
                fail(format!("{} refused: nobody listens there", self.destination()), place)
            }
            (Outcome::Rejected, _) if self.is_its_own() => {
                fail(format!("{} rejected it with an ICMP error", self.destination()), place)
            }
            (Outcome::Unanswerable, Some((place, Fate::Delivered))) => {
                pass(format!("the switch delivered the frame to {}", self.destination()), Some(place))
            }
            (_, None) => fail("no answer, and no frame of the probe entered the switch".into(), None),
            (_, Some((place, Fate::Delivered))) => {
                let delivered = format!("the switch delivered the frame to {}", self.destination());
                match self.lost_answer() {
                    Some((place, why)) => fail(format!("{delivered}, and its answer {why}"), Some(place)),
                    None => fail(format!("{delivered}, and no answer came"), Some(place)),
                }
            }
            (_, Some((place, fate))) => fail(self.tell(&fate), Some(place)),
        }
    }

    /// The last answer that did not get to the probe's sender, and in words why.
    fn lost_answer(&self) -> Option<(usize, String)> {
        let answers = self.evidence.seen.iter().enumerate().rev();
        let mut answers = answers.filter(|(_, seen)| seen.role == Role::Answers);
        answers.find_map(|(place, seen)| {
            if is_with_routers(self.description, &seen.sighting) {
                return None;
            }
            let why = match fate(&seen.sighting.journey, self.expectation.src) {
                Fate::Delivered => return None,
                Fate::Dropped(reason) => {
                    format!("was dropped at {}: {reason} ({})", self.destination(), reason.what())
                }
                lost @ Fate::Lost(_) => format!("was {}", self.tell_to(self.expectation.src, &lost)),
                elsewhere @ Fate::Elsewhere(_) => self.tell_to(self.expectation.src, &elsewhere),
            };
            Some((place, why))
        })
    }

    fn deny(&self, because: Option<Because>) -> Judgement {
        if let Some(judgement) = self.deny_though_heard() {
            return judgement;
        }
        if let Some((place, _, _)) = self.probe_fates().find(|(_, _, fate)| *fate == Fate::Delivered) {
            return fail(format!("the switch delivered the frame to {}", self.destination()), Some(place));
        }
        let Some((place, fate)) = self.last_fate() else {
            return error("no frame of the probe entered the switch: silence proves nothing".into(), None);
        };
        let told = self.tell(&fate);
        if is_with_routers(self.description, &self.evidence.seen[place].sighting) {
            return error(
                format!("{told}: a router that asks for its neighbour in vain denies nothing"),
                Some(place),
            );
        }
        match (because, &fate) {
            (Some(Because::Reject), fate)
                if is_rejected(fate) && self.evidence.outcome == Outcome::Silent =>
            {
                // Of a raw frame its sender awaits no answer: that the switch gave it one is all there is to know.
                match self.answer_to_raw(place) {
                    Some(kind) => pass(format!("{told}, answered with {kind}"), Some(place)),
                    None => fail(format!("{told}, and its sender was not told"), Some(place)),
                }
            }
            // Our own failure forbids nothing, whatever was expected.
            (_, Fate::Dropped(DropReason::Internal) | Fate::Lost(DropReason::Internal)) => {
                error(format!("{told}: that is no denial"), Some(place))
            }
            (Some(because), fate) if self.is_because(because, fate) => pass(told, Some(place)),
            (Some(because), _) => {
                fail(format!("denied, but not because of {}: {told}", name_of(because)), Some(place))
            }
            (None, Fate::Dropped(reason) | Fate::Lost(reason)) if !is_denial(*reason) => {
                error(format!("{told}: that is no denial"), Some(place))
            }
            (None, _) => pass(told, Some(place)),
        }
    }

    /// The judgement of a deny whose probe was answered, by the destination or by somebody else.
    fn deny_though_heard(&self) -> Option<Judgement> {
        let arrived = match self.evidence.outcome {
            Outcome::Silent | Outcome::Unanswerable => return None,
            // A router on the way may say it: then the frame's fate decides.
            Outcome::Rejected if !self.is_its_own() => return None,
            Outcome::Refused if self.last_fate().is_some_and(|(_, fate)| is_rejected(&fate)) => return None,
            _ if !self.is_its_own() => {
                let (proof, place) = self.impostor();
                return Some(error(format!("{proof}: nothing can be proved"), place));
            }
            Outcome::Answered(micros) => format!("answered in {}", time(micros)),
            Outcome::Resolved(mac) => format!("the question arrived: {} is at {mac}", self.destination()),
            Outcome::Refused => format!("the probe arrived: {} itself refused it", self.destination()),
            Outcome::Rejected => format!("the probe arrived: {} itself rejected it", self.destination()),
        };
        Some(fail(arrived, self.last_fate().map(|last| last.0)))
    }

    /// Whether what the sender heard can only be the destination's: the probe was delivered to its own MAC address, or
    /// the question for its address was, and the answer names its MAC address.
    fn is_its_own(&self) -> bool {
        let role = match self.evidence.outcome {
            Outcome::Resolved(mac) if !self.evidence.macs.contains(&mac) => return false,
            Outcome::Resolved(_) => Role::Asks,
            _ => Role::Direct,
        };
        self.fates().any(|(_, seen, fate)| seen == role && fate == Fate::Delivered)
    }

    /// An answer that is not the destination's, in words, and the sighting that shows it.
    fn impostor(&self) -> (String, Option<usize>) {
        let destination = self.destination();
        let astray = self.fates().rev().find(|(_, role, _)| *role == Role::Astray);
        let last = self.last_fate().map(|last| last.0);
        match (self.evidence.outcome, astray) {
            (Outcome::Resolved(mac), _) if !self.evidence.macs.contains(&mac) => {
                (format!("not {destination} but {mac} answers for its address"), last)
            }
            (_, Some((place, _, Fate::Delivered))) => {
                let proof = format!(
                    "an answer came, but the probe was addressed to another MAC address than {destination}'s"
                );
                (proof, Some(place))
            }
            (_, Some((place, _, fate))) => (
                format!("an answer came, but not from {destination}: the probe {}", self.tell(&fate)),
                Some(place),
            ),
            (_, None) => {
                let proof = format!(
                    "an answer came, but the switch delivered no frame of the probe to {destination}"
                );
                (proof, last)
            }
        }
    }

    fn is_because(&self, because: Because, fate: &Fate) -> bool {
        use DropReason::{NoReceiver, TaggedOnAccess, UntaggedOnTrunk, VlanNotMember};
        match (because, fate) {
            (Because::Reason(wanted), Fate::Dropped(reason) | Fate::Lost(reason)) => wanted == *reason,
            (Because::Reject, fate) => is_rejected(fate),
            (Because::Vlan, Fate::Dropped(TaggedOnAccess | UntaggedOnTrunk | VlanNotMember)) => true,
            (Because::Policy, Fate::Dropped(reason) | Fate::Lost(reason)) => reason.is_policy(),
            (Because::Firewall, Fate::Dropped(reason) | Fate::Lost(reason)) => reason.is_firewall(),
            (Because::Vlan, Fate::Dropped(NoReceiver) | Fate::Elsewhere(_)) => !self.destination_is_in_vlan(),
            _ => false,
        }
    }

    /// Whether the destination's port carries the VLAN that the probe's frames, which are untagged, belong to.
    fn destination_is_in_vlan(&self) -> bool {
        let vlan = self.port(self.expectation.src).and_then(untagged_vlan);
        vlan.is_some_and(|vlan| self.port(self.expectation.dst).is_some_and(|port| carries(port, vlan)))
    }

    fn fates(&self) -> impl DoubleEndedIterator<Item = (usize, Role, Fate)> {
        let seen = self.evidence.seen.iter().enumerate();
        let probes = seen.filter(|(_, seen)| seen.role != Role::Answers);
        probes.map(|(place, seen)| (place, seen.role, fate(&seen.sighting.journey, self.expectation.dst)))
    }

    /// Those of the probe itself. What asks for the destination's MAC address stands for it only if it is all that was seen: it may pass where
    /// the probe does not.
    fn probe_fates(&self) -> impl DoubleEndedIterator<Item = (usize, Role, Fate)> {
        let asks_only = self.fates().all(|(_, role, _)| role == Role::Asks);
        self.fates().filter(move |(_, role, _)| asks_only || *role != Role::Asks)
    }

    fn last_fate(&self) -> Option<(usize, Fate)> {
        self.probe_fates().next_back().map(|(place, _, fate)| (place, fate))
    }

    /// What the switch told the sender of the raw frame in this place.
    fn answer_to_raw(&self, place: usize) -> Option<AnswerKind> {
        let seen = self.evidence.seen.get(place).filter(|_| self.evidence.raw)?;
        answer_of(&seen.sighting.journey)
    }

    fn tell(&self, fate: &Fate) -> String {
        self.tell_to(self.expectation.dst, fate)
    }

    fn tell_to(&self, destination: PortId, fate: &Fate) -> String {
        let destination = self.name(destination);
        match fate {
            Fate::Delivered => format!("delivered to {destination}"),
            Fate::Dropped(reason) => format!("dropped: {reason} ({})", reason.what()),
            Fate::Lost(reason) => format!("lost before {destination}: {reason} ({})", reason.what()),
            Fate::Elsewhere(ports) => {
                let names: Vec<_> = ports.iter().map(|port| self.name(*port)).collect();
                format!("went to {}, not to {destination}", names.join(", "))
            }
        }
    }

    fn destination(&self) -> String {
        self.name(self.expectation.dst)
    }

    fn name(&self, port: PortId) -> String {
        self.port(port).map_or_else(|| format!("port {port}"), Port::name)
    }

    fn port(&self, id: PortId) -> Option<&Port> {
        self.description.ports.get(usize::from(id.index()))?.as_ref().filter(|port| port.id == id)
    }
}

/// Why an untagged frame from `src` that goes this way does not reach `dst`; none: it does.
pub fn why_not(description: &Description, (src, dst): (PortId, PortId), journey: &Journey) -> Option<String> {
    if let Some(copy) = journey.copies.iter().position(|port| *port == dst) {
        let lost = journey.lost.get(copy).copied().flatten();
        return lost.map(|reason| format!("{}; {}", reason.what(), below_a_trace(reason.mend())));
    }
    let port = |id: PortId| description.ports.get(usize::from(id.index()))?.as_ref();
    let name = |vlan: VlanId| {
        let named = description.vlans.iter().find(|named| named.id == vlan);
        named.map_or_else(|| format!("VLAN {vlan}"), |named| format!("VLAN {} ({vlan})", named.name))
    };
    let (Some(from), Some(to)) = (port(src), port(dst)) else { return Some("it is no port".into()) };
    let is_theirs = journey.steps.iter().any(|step| matches!(step, Step::ToRouter { .. }));
    if is_theirs && went_to_routers(description, journey) {
        return Some(
            "a router answers it, or keeps it while it asks for the neighbour it is to go to".into(),
        );
    }
    if let Some(reason) = journey.dropped.filter(|reason| is_routers(*reason)) {
        return Some(format!("{}; {}", reason.what(), below_a_trace(reason.mend())));
    }
    let sent_in = untagged_vlan(from);
    Some(match (sent_in, &to.link, journey.dropped) {
        (_, Link::None, _) => format!("{} has no link", to.name()),
        (Some(vlan), Link::Switch { vlans: Membership::Access(other), .. }, _) if *other != vlan => {
            format!("the frame is in {}, {} in {}", name(vlan), to.name(), name(*other))
        }
        (Some(vlan), Link::Switch { .. }, _) if !carries(to, vlan) => {
            format!("the frame is in {}, which {} does not carry", name(vlan), to.name())
        }
        (_, _, Some(DropReason::SamePort)) if src == dst => "it is where the frame comes from".into(),
        // That the two hear each other there holds only for addresses that were learned where they belong.
        (_, _, Some(DropReason::SamePort)) => {
            format!("its address was learned at {}, where the frame comes from: `vnet show fdb`", from.name())
        }
        (_, _, Some(reason)) => format!("{}; {}", reason.what(), below_a_trace(reason.mend())),
        (_, _, None) => "its address was learned elsewhere, or no path leads there: `vnet show fdb`".into(),
    })
}

/// The VLAN of an untagged frame that comes in on `port` (IEEE 802.1Q-2018 §6.9.1).
fn untagged_vlan(port: &Port) -> Option<VlanId> {
    match &port.link {
        Link::Switch { vlans: Membership::Access(vlan), .. } => Some(*vlan),
        Link::Switch { vlans: Membership::Trunk { native, .. }, .. } => *native,
        Link::None | Link::Wire { .. } | Link::Routers => None,
    }
}

fn carries(port: &Port, vlan: VlanId) -> bool {
    match &port.link {
        Link::Switch { vlans: Membership::Access(access), .. } => *access == vlan,
        Link::Switch { vlans: Membership::Trunk { vlans, .. }, .. } => vlans.contains(vlan),
        Link::None | Link::Wire { .. } | Link::Routers => false,
    }
}

/// Whether a rule rejected the frame, so that the switch answered it.
const fn is_rejected(fate: &Fate) -> bool {
    matches!(fate, Fate::Dropped(reason) | Fate::Lost(reason) if reason.is_reject())
}

/// Whether a router dropped it, in whatever VLAN its destination is.
const fn is_routers(reason: DropReason) -> bool {
    use DropReason::{
        BadIpHeader, Blackhole, DirectedBroadcast, Martian, NatExhausted, NatFragment, NatInvalid, NoRoute,
        SourceRoute, TtlExceeded,
    };
    matches!(
        reason,
        BadIpHeader
            | Blackhole
            | DirectedBroadcast
            | Martian
            | NatExhausted
            | NatFragment
            | NatInvalid
            | NoRoute
            | SourceRoute
            | TtlExceeded
    )
}

/// Whether a drop is a rule of the lab that will hold another time too, not a want of room or a failure.
const fn is_denial(reason: DropReason) -> bool {
    use DropReason::{
        AntiSpoof, BadDirection, BadNetHeader, BadSource, BitRateEgress, BitRateIngress, BufferTooSmall,
        ConnectionLimitEgress, ConnectionLimitIngress, ConnectionRateEgress, ConnectionRateIngress,
        DhcpGuard, FragmentEgress, FragmentIngress, FragmentMalformedEgress, FragmentMalformedIngress,
        FragmentOverlapEgress, FragmentOverlapIngress, FrameRateEgress, FrameRateIngress, Internal,
        InvalidEgress, InvalidIngress, LinkDown, MacLimit, MtuExceeded, NdGuard, NoBuffer, NoReceiver,
        Oversize, PolicyEgress, PolicyIngress, PortDown, RaGuard, RejectEgress, RejectIngress,
        ReservedMulticast, Runt, SamePort, StormBroadcast, StormMulticast, StormUnknownUnicast,
        TaggedOnAccess, Unlinked, UnparsedEgress, UnparsedIngress, UntaggedOnTrunk, VlanNotMember,
    };
    use DropReason::{
        BadIpHeader, Blackhole, DirectedBroadcast, GatewaySource, Martian, NatExhausted, NatFragment,
        NatInvalid, NoRoute, SourceRoute, TtlExceeded,
    };
    match reason {
        LinkDown | Unlinked | ReservedMulticast | TaggedOnAccess | UntaggedOnTrunk | VlanNotMember
        | SamePort | NoReceiver | MtuExceeded => true,
        NoRoute | Blackhole | Martian | DirectedBroadcast | GatewaySource => true,
        // A loop of routes is nobody's rule, and nor is what other connections leave.
        TtlExceeded | NatExhausted | NatFragment | NatInvalid => false,
        AntiSpoof
        | DhcpGuard
        | RaGuard
        | NdGuard
        | UnparsedEgress
        | UnparsedIngress
        | PolicyEgress
        | PolicyIngress
        | RejectEgress
        | RejectIngress
        | InvalidEgress
        | InvalidIngress
        | FragmentEgress
        | FragmentIngress
        | FragmentMalformedEgress
        | FragmentMalformedIngress
        | FragmentOverlapEgress
        | FragmentOverlapIngress => true,
        // Too much in one second is not too much in the next, and which address was one too many the file does not say.
        BitRateEgress
        | BitRateIngress
        | FrameRateEgress
        | FrameRateIngress
        | ConnectionRateEgress
        | ConnectionRateIngress
        | StormBroadcast
        | StormMulticast
        | StormUnknownUnicast
        | MacLimit => false,
        ConnectionLimitEgress | ConnectionLimitIngress => false,
        Runt | Oversize | BadNetHeader | BadIpHeader | SourceRoute | BadDirection | BadSource | Internal
        | PortDown | NoBuffer | BufferTooSmall => false,
    }
}

fn name_of(because: Because) -> &'static str {
    match because {
        Because::Vlan => Because::VLAN,
        Because::Policy => Because::POLICY,
        Because::Firewall => Because::FIREWALL,
        Because::Reject => Because::REJECT,
        Because::Reason(reason) => reason.name(),
    }
}

fn time(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

fn pass(proof: String, decided_by: Option<usize>) -> Judgement {
    Judgement { result: TestResult::Pass, proof, decided_by }
}

fn fail(proof: String, decided_by: Option<usize>) -> Judgement {
    Judgement { result: TestResult::Fail, proof, decided_by }
}

fn error(proof: String, decided_by: Option<usize>) -> Judgement {
    Judgement { result: TestResult::Error, proof, decided_by }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TestResult::{Error, Fail, Pass};
    use topology::plan::Probe;
    use vswitch_core::{
        description::{Origin, Routing},
        id::{Epoch, SwitchId},
        trace::Place,
    };
    use vswitchd::control::protocol::Sighting;

    const ORIGIN: Origin = Origin { line: 1, column: 1 };
    /// `pc` and `twin` are in VLAN 10, `web` is in VLAN 20.
    const PC: PortId = PortId::new(0, 0);
    const WEB: PortId = PortId::new(1, 0);
    const TWIN: PortId = PortId::new(2, 0);

    fn lab() -> Description {
        let port = |id: PortId, node: &str, vlan: u16| {
            Some(Port {
                id,
                node: node.into(),
                interface: "eth0".into(),
                mac: None,
                mtu: None,
                queues: 1,
                firewall: None,
                limits: None,
                mac_limit: 64,
                sealed_memory: false,
                way_out: false,
                up: true,
                link: Link::Switch {
                    switch: SwitchId::new(0),
                    vlans: Membership::Access(VlanId::new(vlan).unwrap()),
                },
                origin: ORIGIN,
                link_origin: None,
            })
        };
        Description {
            lab: "lab".into(),
            file: "lab.vnet.yaml".into(),
            epoch: Epoch::new(1),
            vlans: vec![],
            switches: vec![],
            ports: vec![port(PC, "pc", 10), port(WEB, "web", 20), port(TWIN, "twin", 10)],
            groups: Vec::new(),
            trunks: vec![],
            routing: None,
        }
    }

    const WEB_MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 1]);
    const THIEF: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 2]);

    fn journey(dropped: Option<DropReason>, copies: &[(PortId, Option<DropReason>)]) -> Journey {
        let (copies, lost) = copies.iter().copied().unzip();
        Journey { steps: vec![], dropped, copies, lost }
    }

    fn seen(dropped: Option<DropReason>, copies: &[(PortId, Option<DropReason>)]) -> Seen {
        let sighting =
            Sighting { port: PC, at_nanos: 0, head: vec![], len: 60, journey: journey(dropped, copies) };
        Seen { sighting, role: Role::Direct }
    }

    fn of_role(role: Role, mut all: Vec<Seen>) -> Vec<Seen> {
        all.iter_mut().for_each(|seen| seen.role = role);
        all
    }

    fn judged(dst: PortId, verdict: Verdict, evidence: &Evidence<'_>) -> (TestResult, String) {
        let probe = if evidence.outcome == Outcome::Unanswerable { Probe::L2 } else { Probe::Icmp };
        let text = String::new();
        let expectation = Expectation { text, src: PC, dst, addresses: None, probe, verdict, origin: ORIGIN };
        let judgement = judge(&lab(), &expectation, evidence);
        (judgement.result, judgement.proof)
    }

    fn of(outcome: Outcome, seen: &[Seen]) -> Evidence<'_> {
        Evidence {
            source_ready: true,
            destination_up: true,
            outcome,
            raw: false,
            opened: false,
            macs: &[WEB_MAC],
            seen,
        }
    }

    #[test]
    fn each_outcome_and_fate_has_its_judgement() {
        use DropReason::{
            BitRateIngress, Internal, MacLimit, MtuExceeded, NoBuffer, NoReceiver, PortDown, StormBroadcast,
            VlanNotMember,
        };
        use Outcome::{Answered, Refused, Rejected, Resolved, Silent, Unanswerable};
        use Role::{Asks, Astray};
        const DENY: Verdict = Verdict::Deny(None);
        const BY_VLAN: Verdict = Verdict::Deny(Some(Because::Vlan));
        const BY_US: Verdict = Verdict::Deny(Some(Because::Reason(Internal)));
        const BY_MACS: Verdict = Verdict::Deny(Some(Because::Reason(MacLimit)));
        const BY_MTU: Verdict = Verdict::Deny(Some(Because::Reason(MtuExceeded)));
        let delivered = |port| vec![seen(None, &[(port, None)])];
        let lost = |reason| vec![seen(None, &[(WEB, Some(reason))])];
        let dropped = |reason| vec![seen(Some(reason), &[])];
        #[rustfmt::skip]
        let table = [
            (WEB,  Verdict::Allow, Answered(1500), delivered(WEB),        Pass,  "answered in 1.50 ms"),
            (WEB,  Verdict::Allow, Silent,         delivered(WEB),        Fail,  "delivered the frame to web:eth0, and no answer"),
            (WEB,  Verdict::Allow, Silent,         dropped(NoReceiver),   Fail,  "dropped: no-receiver"),
            (WEB,  Verdict::Allow, Silent,         vec![],                Fail,  "no frame of the probe entered"),
            (WEB,  Verdict::Allow, Refused,        delivered(WEB),        Fail,  "nobody listens"),
            (WEB,  Verdict::Allow, Unanswerable,   delivered(WEB),        Pass,  "delivered the frame to web:eth0"),
            (WEB,  Verdict::Allow, Unanswerable,   delivered(TWIN),       Fail,  "went to twin:eth0, not to web:eth0"),
            (WEB,  DENY,           Silent,         vec![],                Error, "silence proves nothing"),
            (WEB,  DENY,           Silent,         delivered(WEB),        Fail,  "delivered the frame to web:eth0"),
            (WEB,  DENY,           Answered(10),   delivered(WEB),        Fail,  "answered"),
            (WEB,  DENY,           Refused,        vec![],                Error, "nothing can be proved"),
            (WEB,  DENY,           Silent,         delivered(TWIN),       Pass,  "went to twin:eth0"),
            (WEB,  DENY,           Silent,         lost(NoBuffer),        Error, "that is no denial"),
            (WEB,  DENY,           Silent,         lost(MtuExceeded),     Pass,  "mtu-exceeded"),
            (WEB,  BY_VLAN,        Silent,         delivered(TWIN),       Pass,  "went to twin:eth0"),
            (WEB,  BY_VLAN,        Silent,         dropped(NoReceiver),   Pass,  "no-receiver"),
            (WEB,  BY_VLAN,        Silent,         dropped(VlanNotMember),Pass,  "vlan-not-member"),
            (WEB,  BY_VLAN,        Silent,         lost(MtuExceeded),     Fail,  "not because of vlan"),
            (TWIN, BY_VLAN,        Silent,         dropped(NoReceiver),   Fail,  "not because of vlan"),
            (WEB,  BY_MTU,         Silent,         lost(MtuExceeded),     Pass,  "mtu-exceeded"),
            (WEB,  BY_MTU,         Silent,         delivered(TWIN),       Fail,  "not because of mtu-exceeded"),
            // An answer is the destination's only if the probe was delivered to its own MAC address.
            (WEB,  Verdict::Allow, Answered(1500), vec![],                Fail,  "delivered no frame of the probe to web:eth0"),
            (WEB,  Verdict::Allow, Answered(1500), dropped(NoReceiver),   Fail,  "delivered no frame of the probe to web:eth0"),
            (WEB,  Verdict::Allow, Answered(1500), of_role(Asks, delivered(WEB)),    Fail, "delivered no frame of the probe"),
            (WEB,  Verdict::Allow, Answered(1500), of_role(Astray, delivered(TWIN)), Fail, "not from web:eth0: the probe went to twin:eth0"),
            (WEB,  Verdict::Allow, Answered(1500), of_role(Astray, delivered(WEB)),  Fail, "another MAC address than web:eth0's"),
            (WEB,  DENY,           Answered(1500), of_role(Astray, delivered(TWIN)), Error, "nothing can be proved"),
            (WEB,  DENY,           Answered(1500), vec![],                Error, "nothing can be proved"),
            // ARP and ND: the answer must name the destination's MAC address.
            (WEB,  Verdict::Allow, Resolved(WEB_MAC), of_role(Asks, delivered(WEB)), Pass, "is at 02:00:00:00:00:01"),
            (WEB,  Verdict::Allow, Resolved(THIEF),   of_role(Asks, delivered(WEB)), Fail, "not web:eth0 but 02:00:00:00:00:02 answers"),
            (WEB,  Verdict::Allow, Resolved(WEB_MAC), vec![],                        Fail, "delivered no frame of the probe"),
            (WEB,  DENY,           Resolved(WEB_MAC), of_role(Asks, delivered(WEB)), Fail, "the question arrived"),
            (WEB,  DENY,           Resolved(THIEF),   of_role(Asks, delivered(WEB)), Error, "nothing can be proved"),
            // Whose refusal it was, the frame's fate says.
            (WEB,  Verdict::Allow, Refused,        of_role(Astray, delivered(TWIN)), Fail, "not from web:eth0"),
            (WEB,  Verdict::Allow, Rejected,       delivered(WEB),        Fail,  "web:eth0 rejected it"),
            (WEB,  Verdict::Allow, Rejected,       delivered(TWIN),       Fail,  "went to twin:eth0"),
            (WEB,  DENY,           Refused,        delivered(WEB),        Fail,  "web:eth0 itself refused it"),
            (WEB,  DENY,           Rejected,       delivered(WEB),        Fail,  "web:eth0 itself rejected it"),
            (WEB,  DENY,           Rejected,       dropped(VlanNotMember),Pass,  "vlan-not-member"),
            (WEB,  DENY,           Rejected,       delivered(TWIN),       Pass,  "went to twin:eth0"),
            // A failure of ours, or of a guest, forbids nothing.
            (WEB,  DENY,           Silent,         dropped(Internal),     Error, "that is no denial"),
            (WEB,  BY_US,          Silent,         dropped(Internal),     Error, "that is no denial"),
            (WEB,  DENY,           Silent,         lost(PortDown),        Error, "that is no denial"),
            // Nor does a limit, which may let the next one pass, unless it is what was expected.
            (WEB,  DENY,           Silent,         lost(BitRateIngress),  Error, "that is no denial"),
            (WEB,  DENY,           Silent,         dropped(StormBroadcast), Error, "that is no denial"),
            (WEB,  DENY,           Silent,         dropped(MacLimit),     Error, "that is no denial"),
            (WEB,  BY_MACS,        Silent,         dropped(MacLimit),     Pass,  "mac-limit"),
        ];
        for (row, (dst, verdict, outcome, sightings, result, words)) in table.into_iter().enumerate() {
            let (judged, proof) = judged(dst, verdict, &of(outcome, &sightings));
            assert_eq!(judged, result, "row {row}: {proof}");
            assert!(proof.contains(words), "row {row}: {proof}");
        }
    }

    const ROUTERS: PortId = PortId::new(3, 0);
    const ROUTERS_MAC: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 9]);

    /// The same lab with routers.
    fn routed_lab() -> Description {
        let mut lab = lab();
        let mut routers = lab.ports[0].clone().unwrap();
        routers.id = ROUTERS;
        (routers.node, routers.interface) = ("@routers".into(), "vlans".into());
        (routers.mac, routers.link) = (Some(ROUTERS_MAC), Link::Routers);
        lab.ports.push(Some(routers));
        lab.routing = Some(Routing { port: ROUTERS, routers: vec![], hosts: vec![], ssh_keys: vec![] });
        lab
    }

    /// A frame to that address, of which a copy went there.
    fn went(dst: MacAddr, to: PortId) -> Seen {
        let mut seen = seen(None, &[(to, None)]);
        seen.sighting.head = dst.octets().to_vec();
        seen
    }

    #[test]
    fn what_a_router_keeps_until_it_knows_its_neighbour_proves_nothing_by_itself() {
        use Outcome::{Answered, Rejected, Silent};
        const DENY: Verdict = Verdict::Deny(None);
        let (kept, passed_on) = (went(ROUTERS_MAC, ROUTERS), went(WEB_MAC, WEB));
        let filtered = seen(None, &[(WEB, Some(DropReason::PolicyIngress))]);
        #[rustfmt::skip]
        let table = [
            (Verdict::Allow, Answered(10), vec![kept.clone(), passed_on.clone()], Pass,  "answered"),
            (Verdict::Allow, Answered(10), vec![kept.clone()],                    Fail,  "delivered no frame of the probe"),
            (Verdict::Allow, Silent,       vec![kept.clone()],                    Fail,  "went to @routers:vlans"),
            (DENY,           Silent,       vec![kept.clone()],                    Error, "denies nothing"),
            (DENY,           Rejected,     vec![kept.clone()],                    Error, "denies nothing"),
            (DENY,           Silent,       vec![kept.clone(), filtered],          Pass,  "policy-ingress"),
            (DENY,           Silent,       vec![kept.clone(), passed_on],         Fail,  "delivered the frame"),
            // What was flooded there and was not for it says where the frame went.
            (DENY,           Silent,       vec![went(WEB_MAC, ROUTERS)],          Pass,  "went to @routers:vlans"),
        ];
        let (text, probe) = (String::new(), Probe::Icmp);
        for (row, (verdict, outcome, sightings, result, words)) in table.into_iter().enumerate() {
            let text = text.clone();
            let expectation =
                Expectation { text, src: PC, dst: WEB, addresses: None, probe, verdict, origin: ORIGIN };
            let judged = judge(&routed_lab(), &expectation, &of(outcome, &sightings));
            assert_eq!(judged.result, result, "row {row}: {}", judged.proof);
            assert!(judged.proof.contains(words), "row {row}: {}", judged.proof);
        }
        let expectation =
            Expectation { text, src: PC, dst: WEB, addresses: None, probe, verdict: DENY, origin: ORIGIN };
        let foreseen = journey(None, &[(WEB, None)]);
        let live = |seen: &[Seen]| is_foreseen(&routed_lab(), &expectation, &foreseen, seen);
        assert_eq!(live(std::slice::from_ref(&kept)), None);
        assert_eq!(live(&[kept, went(WEB_MAC, WEB)]), Some(Ok(())));
    }

    #[test]
    fn an_answer_that_was_lost_is_the_cause() {
        use DropReason::{NoBuffer, PolicyEgress};
        let told = |dropped, copies: &[_]| {
            let answers = of_role(Role::Answers, vec![seen(dropped, copies)]);
            let all = [vec![seen(None, &[(WEB, None)])], answers].concat();
            let (result, proof) = judged(WEB, Verdict::Allow, &of(Outcome::Silent, &all));
            assert_eq!(result, Fail);
            proof
        };
        let lost = told(Some(PolicyEgress), &[]);
        assert!(lost.contains("web:eth0, and its answer was dropped at web:eth0: policy-egress ("), "{lost}");
        let lost = told(None, &[(PC, Some(NoBuffer))]);
        assert!(lost.contains("and its answer was lost before pc:eth0: no-buffer ("), "{lost}");
        assert!(told(None, &[(PC, None)]).ends_with("and no answer came"));
    }

    #[test]
    fn a_raw_probe_is_rejected_if_the_switch_told_its_sender() {
        let reject = Verdict::Deny(Some(Because::Reject));
        let rejected = [seen(None, &[(WEB, Some(DropReason::RejectIngress))])];
        let mut told = rejected.clone();
        let pc = Place { name: "pc:eth0".into(), line: 1 };
        told[0].sighting.journey.steps.push(Step::Answered { port: pc, kind: AnswerKind::Reset });
        for (raw, seen, result, words) in [
            (true, &told, Pass, "answered with a TCP RST (sent as a raw frame"),
            (true, &rejected, Fail, "its sender was not told (sent as a raw frame"),
            // Whoever waits for it must have heard it.
            (false, &told, Fail, "its sender was not told"),
        ] {
            let (judged, proof) = judged(WEB, reject, &Evidence { raw, ..of(Outcome::Silent, seen) });
            assert_eq!(judged, result, "{proof}");
            assert!(proof.contains(words), "{proof}");
        }
    }

    #[test]
    fn a_trace_says_whether_the_destination_is_reached_and_why_not() {
        let told = |dst, journey: &Journey| why_not(&lab(), (PC, dst), journey);
        let sent = |to: &[PortId]| journey(None, &to.iter().map(|port| (*port, None)).collect::<Vec<_>>());
        assert_eq!(told(WEB, &sent(&[TWIN, WEB])), None);
        let lost = journey(None, &[(TWIN, None), (WEB, Some(DropReason::PortDown))]);
        assert!(told(WEB, &lost).unwrap().starts_with("the destination port is down"));
        let other_vlan = "the frame is in VLAN 10, web:eth0 in VLAN 20";
        assert_eq!(told(WEB, &sent(&[TWIN])).unwrap(), other_vlan);
        assert_eq!(told(WEB, &journey(Some(DropReason::NoReceiver), &[])).unwrap(), other_vlan);
        let down = told(TWIN, &journey(Some(DropReason::LinkDown), &[])).unwrap();
        assert!(down.starts_with("the interface's link is down"), "{down}");
        assert!(told(TWIN, &sent(&[WEB])).unwrap().contains("vnet show fdb"));
        let same = journey(Some(DropReason::SamePort), &[]);
        assert!(told(TWIN, &same).unwrap().contains("learned at pc:eth0, where the frame comes from"));
        assert_eq!(told(PC, &same).unwrap(), "it is where the frame comes from");
        let rejected = journey(None, &[(TWIN, Some(DropReason::RejectIngress))]);
        assert!(told(TWIN, &rejected).unwrap().ends_with("; change the rule"), "the trace names it");
    }

    #[test]
    fn a_deny_towards_or_from_a_dead_guest_is_an_error() {
        let sightings = [seen(Some(DropReason::NoReceiver), &[])];
        let alive = of(Outcome::Silent, &sightings);
        for dead in [Evidence { destination_up: false, ..alive }, Evidence { source_ready: false, ..alive }] {
            assert_eq!(judged(WEB, Verdict::Deny(Some(Because::Vlan)), &dead).0, Error);
        }
        assert_eq!(judged(WEB, Verdict::Deny(Some(Because::Vlan)), &alive).0, Pass);
    }

    #[test]
    fn an_answer_from_a_port_that_was_opened_for_the_probe_says_so() {
        let sightings = [seen(None, &[(WEB, None)])];
        let evidence = Evidence { opened: true, ..of(Outcome::Answered(150), &sightings) };
        let (result, proof) = judged(WEB, Verdict::Allow, &evidence);
        assert_eq!((result, proof.as_str()), (Pass, "answered in 0.15 ms (port opened for the probe)"));
    }

    #[test]
    fn one_delivered_copy_among_many_frames_breaks_a_deny_and_a_raw_probe_says_so() {
        let sightings = [seen(None, &[(WEB, None)]), seen(Some(DropReason::NoReceiver), &[])];
        let evidence = Evidence { raw: true, ..of(Outcome::Silent, &sightings) };
        let (result, proof) = judged(WEB, Verdict::Deny(None), &evidence);
        assert_eq!(result, Fail);
        assert!(proof.ends_with("(sent as a raw frame: the sender has no route or neighbour for it)"));
    }
}
