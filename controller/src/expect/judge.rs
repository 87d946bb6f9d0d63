//! Whether an expectation holds: a pure function of what the probe's sender said and of what the switch saw.
//!
//! Silence proves nothing. A deny holds only if the switch saw the probe frame come in and says where it ended.

use crate::api::types::TestResult;
use topology::plan::{Because, Expectation, Probe, Verdict};
use vswitch_core::{
    description::{Description, Link, Membership, Port},
    drop_reason::DropReason,
    id::PortId,
    vlan::VlanId,
};
use vswitchd::control::protocol::Sighting;

/// What the sender of the probe said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer came, after this many microseconds.
    Answered(u64),
    /// The destination itself said that nobody listens there.
    Refused,
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
    /// The probe's own frames as the switch saw them, oldest first.
    pub sightings: &'a [Sighting],
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

fn fate(sighting: &Sighting, destination: PortId) -> Fate {
    let journey = &sighting.journey;
    if let Some(reason) = journey.dropped {
        return Fate::Dropped(reason);
    }
    match journey.copies.iter().position(|port| *port == destination) {
        Some(place) => match sighting.lost.get(place).copied().flatten() {
            Some(reason) => Fate::Lost(reason),
            None => Fate::Delivered,
        },
        None => Fate::Elsewhere(journey.copies.clone()),
    }
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
        match (self.evidence.outcome, last) {
            (Outcome::Answered(micros), last) => {
                pass(format!("answered in {}", time(micros)), last.map(|l| l.0))
            }
            (Outcome::Unanswerable, Some((place, Fate::Delivered))) => {
                pass(format!("the switch delivered the frame to {}", self.destination()), Some(place))
            }
            (Outcome::Refused, last) => {
                fail(format!("{} refused: nobody listens there", self.destination()), last.map(|l| l.0))
            }
            (_, None) => fail("no answer, and no frame of the probe entered the switch".into(), None),
            (_, Some((place, Fate::Delivered))) => fail(
                format!("the switch delivered the frame to {}, and no answer came", self.destination()),
                Some(place),
            ),
            (_, Some((place, fate))) => fail(self.tell(&fate), Some(place)),
        }
    }

    fn deny(&self, because: Option<Because>) -> Judgement {
        match self.evidence.outcome {
            Outcome::Answered(micros) => {
                return fail(format!("answered in {}", time(micros)), self.last_fate().map(|l| l.0));
            }
            Outcome::Refused => {
                let proof = format!("the probe arrived: {} itself refused it", self.destination());
                return fail(proof, self.last_fate().map(|l| l.0));
            }
            Outcome::Silent | Outcome::Unanswerable => {}
        }
        if let Some((place, _)) = self.fates().find(|(_, fate)| *fate == Fate::Delivered) {
            return fail(format!("the switch delivered the frame to {}", self.destination()), Some(place));
        }
        let Some((place, fate)) = self.last_fate() else {
            return error("no frame of the probe entered the switch: silence proves nothing".into(), None);
        };
        let told = self.tell(&fate);
        match because {
            Some(because) if self.is_because(because, &fate) => pass(told, Some(place)),
            Some(because) => {
                fail(format!("denied, but not because of {}: {told}", name_of(because)), Some(place))
            }
            // Let through, and lost for want of room: another time it would arrive.
            None if matches!(fate, Fate::Lost(DropReason::PortDown | DropReason::NoBuffer)) => {
                error(format!("{told}: that is no denial"), Some(place))
            }
            None => pass(told, Some(place)),
        }
    }

    fn is_because(&self, because: Because, fate: &Fate) -> bool {
        use DropReason::{NoReceiver, TaggedOnAccess, UntaggedOnTrunk, VlanNotMember};
        match (because, fate) {
            (Because::Reason(wanted), Fate::Dropped(reason) | Fate::Lost(reason)) => wanted == *reason,
            (Because::Vlan, Fate::Dropped(TaggedOnAccess | UntaggedOnTrunk | VlanNotMember)) => true,
            (Because::Vlan, Fate::Dropped(NoReceiver) | Fate::Elsewhere(_)) => !self.destination_is_in_vlan(),
            _ => false,
        }
    }

    /// Whether the destination's port carries the VLAN that the probe's frames, which are untagged, belong to.
    fn destination_is_in_vlan(&self) -> bool {
        let vlan = self.port(self.expectation.src).and_then(untagged_vlan);
        vlan.is_some_and(|vlan| self.port(self.expectation.dst).is_some_and(|port| carries(port, vlan)))
    }

    fn fates(&self) -> impl DoubleEndedIterator<Item = (usize, Fate)> {
        let sightings = self.evidence.sightings.iter().enumerate();
        sightings.map(|(place, sighting)| (place, fate(sighting, self.expectation.dst)))
    }

    fn last_fate(&self) -> Option<(usize, Fate)> {
        self.fates().next_back()
    }

    fn tell(&self, fate: &Fate) -> String {
        match fate {
            Fate::Delivered => format!("delivered to {}", self.destination()),
            Fate::Dropped(reason) => format!("dropped: {reason} ({})", reason.what()),
            Fate::Lost(reason) => {
                format!("lost before {}: {reason} ({})", self.destination(), reason.what())
            }
            Fate::Elsewhere(ports) => {
                let names: Vec<_> = ports.iter().map(|port| self.name(*port)).collect();
                format!("went to {}, not to {}", names.join(", "), self.destination())
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

/// The VLAN of an untagged frame that comes in on `port` (IEEE 802.1Q-2018 §6.9.1).
fn untagged_vlan(port: &Port) -> Option<VlanId> {
    match &port.link {
        Link::Switch { vlans: Membership::Access(vlan), .. } => Some(*vlan),
        Link::Switch { vlans: Membership::Trunk { native, .. }, .. } => *native,
        Link::None | Link::Wire { .. } => None,
    }
}

fn carries(port: &Port, vlan: VlanId) -> bool {
    match &port.link {
        Link::Switch { vlans: Membership::Access(access), .. } => *access == vlan,
        Link::Switch { vlans: Membership::Trunk { vlans, .. }, .. } => vlans.contains(vlan),
        Link::None | Link::Wire { .. } => false,
    }
}

/// Whether a probe of this kind can be answered at all.
pub fn is_answerable(probe: Probe) -> bool {
    !matches!(probe, Probe::L2)
}

fn name_of(because: Because) -> &'static str {
    match because {
        Because::Vlan => "vlan",
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
    use vswitch_core::{
        description::Origin,
        id::{Epoch, SwitchId},
    };
    use vswitchd::control::protocol::Journey;

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
                mac_limit: 64,
                sealed_memory: false,
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
            trunks: vec![],
        }
    }

    fn seen(dropped: Option<DropReason>, copies: &[(PortId, Option<DropReason>)]) -> Sighting {
        Sighting {
            port: PC,
            at_nanos: 0,
            head: vec![],
            len: 60,
            journey: Journey { steps: vec![], dropped, copies: copies.iter().map(|c| c.0).collect() },
            lost: copies.iter().map(|c| c.1).collect(),
        }
    }

    fn judged(dst: PortId, verdict: Verdict, evidence: &Evidence<'_>) -> (TestResult, String) {
        let probe = if evidence.outcome == Outcome::Unanswerable { Probe::L2 } else { Probe::Icmp };
        let text = String::new();
        let expectation = Expectation { text, src: PC, dst, addresses: None, probe, verdict, origin: ORIGIN };
        let judgement = judge(&lab(), &expectation, evidence);
        (judgement.result, judgement.proof)
    }

    fn of(outcome: Outcome, sightings: &[Sighting]) -> Evidence<'_> {
        Evidence { source_ready: true, destination_up: true, outcome, raw: false, sightings }
    }

    #[test]
    fn each_outcome_and_fate_has_its_judgement() {
        use DropReason::{MtuExceeded, NoBuffer, NoReceiver, VlanNotMember};
        use Outcome::{Answered, Refused, Silent, Unanswerable};
        const DENY: Verdict = Verdict::Deny(None);
        const BY_VLAN: Verdict = Verdict::Deny(Some(Because::Vlan));
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
            (WEB,  DENY,           Refused,        vec![],                Fail,  "the probe arrived"),
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
        ];
        for (row, (dst, verdict, outcome, sightings, result, words)) in table.into_iter().enumerate() {
            let (judged, proof) = judged(dst, verdict, &of(outcome, &sightings));
            assert_eq!(judged, result, "row {row}: {proof}");
            assert!(proof.contains(words), "row {row}: {proof}");
        }
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
    fn one_delivered_copy_among_many_frames_breaks_a_deny_and_a_raw_probe_says_so() {
        let sightings = [seen(None, &[(WEB, None)]), seen(Some(DropReason::NoReceiver), &[])];
        let evidence = Evidence { raw: true, ..of(Outcome::Silent, &sightings) };
        let (result, proof) = judged(WEB, Verdict::Deny(None), &evidence);
        assert_eq!(result, Fail);
        assert!(proof.ends_with("(sent as a raw frame: the sender has no route or neighbour for it)"));
    }
}
