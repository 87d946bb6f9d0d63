//! Random labs, random frames: the laws that no frame escapes, against a naive switch written here.

use crate::support::lab::{Bench, Lab, access, frame, mac, no_limits, trunk, vlan};
use proptest::prelude::*;
use std::{collections::BTreeSet, num::NonZeroU64, time::Duration};
use vswitch_core::{
    decide::{Copy, Fate, Ingress, Rows, TagEdit},
    description::{Description, Link, Membership, Origin, Port, Rates},
    drop_reason::{DropReason, Side},
    firewall::policy::{Action, Direction, Family, Match, Rule},
    head::HEAD_BYTES,
    id::SwitchId,
    mac::MacAddr,
    route::Translations,
    vlan::{Tci, VlanId},
};

const VLANS: [u16; 3] = [10, 20, 30];

fn membership() -> impl Strategy<Value = Membership> {
    prop_oneof![
        prop::sample::select(&VLANS[..]).prop_map(|id| Membership::Access(vlan(id))),
        (prop::sample::subsequence(&VLANS[..], 1..=3), any::<bool>())
            .prop_map(|(ids, native)| trunk(&ids, native.then_some(ids[0]))),
    ]
}

/// What guards a port against the frames that are sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    None,
    /// They are allowed in both directions.
    Open,
    /// They are not.
    Closed,
}

/// It may call itself anything.
fn anonymous(port: &mut Port) {
    port.firewall.as_mut().expect("it has one").identity = None;
}

fn is_closed(port: &Port) -> bool {
    port.firewall.as_ref().is_some_and(|firewall| firewall.groups[0].index() == 1)
}

/// A tree of up to five switches, with up to eight ports anywhere on it.
fn labs() -> impl Strategy<Value = Lab> {
    let guard = prop::sample::select(&[Guard::None, Guard::None, Guard::Open, Guard::Closed][..]);
    let ports = prop::collection::vec((0u16..5, membership(), prop::bool::weighted(0.9), guard), 2..8);
    let trunks = prop::collection::vec((any::<u16>(), membership(), prop::bool::weighted(0.8)), 0..4);
    (ports, trunks).prop_map(|(ports, trunks)| {
        let switches = trunks.len() as u16 + 1;
        let experiment = |direction| Rule {
            direction,
            action: Action::Allow,
            stateful: true,
            log: false,
            matches: Match { family: Family::EtherType(0x88b5), ..Match::default() },
            origin: Origin { line: 1, column: 1 },
        };
        let open = [Direction::Egress, Direction::Ingress].map(experiment);
        let lab = Lab::new().group("open", &open).group("closed", &[]);
        let mut lab = (0..switches).fold(lab, |lab, n| lab.switch(&format!("s{n}")));
        for (n, (parent, vlans, joined)) in (1..).zip(trunks) {
            if joined {
                lab = lab.join(n, parent % n, vlans);
            }
        }
        for (n, (switch, vlans, up, guard)) in ports.into_iter().enumerate() {
            lab = lab.port(&format!("n{n}"), switch % switches, vlans).but(|port| port.up = up);
            lab = match guard {
                Guard::None => lab,
                Guard::Open => lab.guarded(0, &[0]).but(anonymous),
                Guard::Closed => lab.guarded(0, &[1]).but(anonymous),
            };
        }
        lab
    })
}

/// The same, with limits at some ports that are so low that they are met.
fn limited_labs() -> impl Strategy<Value = Lab> {
    (labs(), prop::collection::vec(0u8..8, 8)).prop_map(|(mut lab, limits)| {
        for (port, limit) in lab.description.ports.iter_mut().flatten().zip(limits) {
            let mut limits = no_limits(port.origin);
            let low = Rates { frames: NonZeroU64::new(1), burst_micros: 3_000_000, ..Rates::default() };
            match limit {
                0 => limits.egress = low,
                1 => limits.ingress = Rates { bits: NonZeroU64::new(1000), ..low },
                2 => limits.storm.broadcast = NonZeroU64::new(2),
                3 => limits.storm.unknown_unicast = NonZeroU64::new(1),
                4 => (limits.drops_other_macs, limits.sticky_macs, port.mac_limit) = (true, true, 2),
                5 => (limits.drops_other_macs, port.mac_limit) = (true, 0),
                _ => continue,
            }
            port.limits = Some(limits);
        }
        lab
    })
}

fn carries(vlans: &Membership, id: u16) -> bool {
    match vlans {
        Membership::Access(own) => own.number() == id,
        Membership::Trunk { vlans, .. } => vlans.contains(vlan(id)),
    }
}

/// The VLAN that a frame is in, by the words of IEEE 802.1Q-2018 §6.9 alone.
fn vlan_of(vlans: &Membership, tag: Option<u16>) -> Option<u16> {
    match (vlans, tag.unwrap_or(0) & 0xfff) {
        (Membership::Access(own), 0) => Some(own.number()),
        (Membership::Access(_), _) => None,
        (Membership::Trunk { native, .. }, 0) => native.map(VlanId::number),
        (Membership::Trunk { .. }, id) => (VLANS.contains(&id) && carries(vlans, id)).then_some(id),
    }
}

/// Every port that may ever hear a frame of that VLAN that enters on that switch: the naive way, by spreading until
/// nothing is new.
fn audience(description: &Description, switch: u16, id: u16) -> BTreeSet<u16> {
    let mut reached = BTreeSet::from([switch]);
    loop {
        let before = reached.len();
        for trunk in description.trunks.iter().filter(|trunk| carries(&trunk.vlans, id)) {
            let [a, b] = trunk.ends.map(SwitchId::index);
            if reached.contains(&a) || reached.contains(&b) {
                reached.extend([a, b]);
            }
        }
        if reached.len() == before {
            break;
        }
    }
    let hears = |link: &Link| match link {
        Link::Switch { switch, vlans } => reached.contains(&switch.index()) && carries(vlans, id),
        _ => false,
    };
    description
        .ports
        .iter()
        .flatten()
        .filter(|port| port.up && hears(&port.link))
        .map(|port| port.id.index())
        .collect()
}

/// Puts one frame in, and holds the laws against what comes out.
fn check(
    lab: &Lab,
    bench: &mut Bench,
    port: u16,
    src: u8,
    dst: MacAddr,
    tag: Option<u16>,
) -> Result<(), TestCaseError> {
    let said = lab.description.ports[usize::from(port)].as_ref().expect("every place has a port");
    let Link::Switch { switch, vlans } = &said.link else { return Ok(()) };
    let (fate, copies) = bench.send(port, &frame(mac(src), dst, tag));
    let to: BTreeSet<u16> = copies.iter().map(|copy| copy.to).collect();
    prop_assert_eq!(to.len(), copies.len(), "no port gets two copies");
    prop_assert!(!to.contains(&port), "no port gets its own frame back");
    match fate {
        Fate::Unicast => prop_assert_eq!(copies.len(), 1),
        Fate::Flooded => prop_assert!(!copies.is_empty()),
        Fate::Consumed => prop_assert!(false, "nothing is for the switch itself"),
        Fate::Dropped(reason) => {
            prop_assert!(copies.is_empty());
            prop_assert_eq!(reason.side(), Side::Ingress);
        }
    }
    let Some(id) = vlan_of(vlans, tag).filter(|_| said.up) else {
        prop_assert!(copies.is_empty(), "not admitted, and yet copied");
        return Ok(());
    };
    if is_closed(said) {
        let admitted = !dst.is_reserved_group();
        prop_assert!(!admitted || fate == Fate::Dropped(DropReason::PolicyEgress));
        return Ok(());
    }
    for copy in &copies {
        let receiver = lab.description.ports[usize::from(copy.to)].as_ref().expect("every place has a port");
        let expected = if is_closed(receiver) { Some(DropReason::PolicyIngress) } else { None };
        let expected = if receiver.up { expected } else { Some(DropReason::PortDown) };
        prop_assert_eq!(copy.outcome.err(), expected);
    }
    let mut audience = audience(&lab.description, switch.index(), id);
    audience.remove(&port);
    prop_assert!(to.is_subset(&audience), "VLAN {} leaked: {:?} beyond {:?}", id, to, audience);
    if dst.is_group() {
        prop_assert_eq!(&to, &audience, "a broadcast reaches all of its VLAN");
        prop_assert_eq!(fate == Fate::Dropped(DropReason::NoReceiver), audience.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_frame_escapes_the_laws(
        lab in labs(),
        frames in prop::collection::vec(
            (any::<u16>(), 1u8..6, 0u8..7, prop::option::of(prop::sample::select(&[0u16, 10, 20, 30, 40, 4095, 0xe00a][..]))),
            1..40,
        ),
    ) {
        let mut bench = lab.bench();
        let ports = lab.description.ports.len() as u16;
        for (port, src, dst, tag) in frames {
            let dst = if dst == 0 { MacAddr::BROADCAST } else { mac(dst) };
            check(&lab, &mut bench, port % ports, src, dst, tag)?;
        }
    }

    /// A batch that is decided at one go has the fates that its frames have one by one, and teaches the same.
    #[test]
    fn a_batch_is_its_frames_one_by_one(
        lab in limited_labs(),
        mtu in 60u16..120,
        known in any::<bool>(),
        buckets in prop::sample::select(&[1usize, 4, 1024][..]),
        batches in prop::collection::vec((any::<u16>(), 0u64..400, prop::collection::vec(
            (((0u8..4, 0u8..4), 1usize..4), prop::sample::select(&[13usize, 17, 60, 60, 100, 140][..]),
             prop::option::weighted(0.4, prop::sample::select(&[0u16, 10, 20, 4095][..])),
             prop::option::weighted(0.1, prop::sample::select(&[0x8100u16, 0x88a8][..]))), 1..12)), 1..20),
    ) {
        let lab = lab.but(|port| { port.mtu = Some(mtu); port.mac = known.then_some(mac(3)); });
        let (mut single, mut batched) = (lab.bench_of(buckets), lab.bench_of(buckets));
        for (port, seconds, frames) in batches {
            let port = port % lab.description.ports.len() as u16;
            single.now = single.now + Duration::from_secs(seconds / 4);
            batched.now = single.now;
            let frames: Vec<_> = frames.into_iter().flat_map(|(((src, dst), times), len, tag, behind)| {
                std::iter::repeat_n(wild(src, dst, len, tag, behind), times)
            }).collect();
            let expected: Vec<_> = frames.iter().map(|frame| single.send(port, frame)).collect();
            prop_assert_eq!(expected, fates(&batched, port, &frames).0);
        }
        prop_assert_eq!(single.fdb.counts(single.now), batched.fdb.counts(batched.now));
        prop_assert_eq!(learned(&single), learned(&batched), "seen by both at the same times");
        prop_assert_eq!(single.connections.counts(), batched.connections.counts());
    }

    /// A frame that is only imagined leaves no mark, and has the same fate as one that is real.
    #[test]
    fn imagining_is_without_consequence(lab in limited_labs(), port: u16, src in 1u8..6, dst in 1u8..6) {
        let mut bench = lab.bench();
        let port = port % lab.description.ports.len() as u16;
        bench.learning = false;
        let imagined = bench.pass(port, src, dst, None);
        prop_assert_eq!(bench.fdb.counts(bench.now).entries, 0);
        bench.learning = true;
        if src != dst {
            prop_assert_eq!(imagined, bench.pass(port, src, dst, None));
        }
    }
}

/// A frame of `len` bytes that may be cut short, and may have the tag protocol identifier `behind` where an EtherType is due.
fn wild(src: u8, dst: u8, len: usize, tag: Option<u16>, behind: Option<u16>) -> Vec<u8> {
    let src = if src == 0 { MacAddr::default() } else { mac(src) };
    let dst = if dst == 0 { MacAddr::BROADCAST } else { mac(dst) };
    let mut bytes = frame(src, dst, tag);
    if let Some(tpid) = behind {
        let at = if tag.is_some() { 16 } else { 12 };
        let [high, low] = tpid.to_be_bytes();
        bytes.splice(at..at, [high, low, 0, 20]);
    }
    bytes.resize(len, 0);
    bytes
}

/// The fates of a batch that is decided at one go, and the places of those that were decided by themselves.
pub(crate) fn fates(bench: &Bench, port: u16, frames: &[Vec<u8>]) -> (Vec<(Fate, Vec<Copy>)>, Vec<usize>) {
    let (mut ingress, mut rows) = (Ingress::new(bench.switch(), port), Rows::default());
    ingress.read(|at| frames[at..].iter().map(|frame| (frame.first_chunk(), frame.len() as u32)), &mut rows);
    ingress.place(&mut rows);
    let (mut fates, mut single) = (vec![], vec![]);
    loop {
        let from = |at: usize| {
            frames[at..].iter().map(|frame| (&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32))
        };
        ingress.ways(&mut rows, from, &mut Translations::default(), |way, places| {
            assert_eq!(places.start, fates.len(), "in order");
            let copy = Copy { to: way.to, outcome: Ok(way.edit.tag) };
            fates.extend(places.map(|_| (Fate::Unicast, vec![copy])));
        });
        if rows.is_done() {
            assert_eq!(rows.bytes(), Some(frames.iter().map(|frame| frame.len() as u64).sum()));
            return (fates, single);
        }
        assert_eq!(rows.decided(), fates.len());
        let (frame, mut copies) = (&frames[fates.len()], vec![]);
        let fate = ingress.decide(frame, (frame.len() as u32, frame.len() as u32), &mut copies).fate;
        single.push(fates.len());
        fates.push((fate, copies));
        rows.skip();
    }
}

/// All that the FDB holds, with its age.
fn learned(bench: &Bench) -> Vec<String> {
    let mut rows: Vec<_> = bench.fdb.rows(&bench.world, bench.now).map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows
}

/// What spares a decision is used: else the law above would hold of nothing.
#[test]
fn frames_between_known_stations_have_their_way_without_a_decision_and_no_others() {
    let trunk = trunk(&[10, 20], None);
    let lab = Lab::new().switch("s1").port("a", 0, access(10)).port("b", 0, access(10)).port("c", 0, trunk);
    let mut bench = lab.bench();
    let there = frame(mac(1), mac(2), None);
    let (tagged, to_trunk) = (frame(mac(3), mac(1), Some(10)), frame(mac(1), mac(3), None));
    assert_eq!(fates(&bench, 0, std::slice::from_ref(&there)).1, [0], "nobody is known");
    bench.send(1, &frame(mac(2), mac(1), None));
    bench.send(2, &tagged);
    let one_way = |to, edit| (Fate::Unicast, vec![Copy { to, outcome: Ok(edit) }]);
    let (there_way, trunk_way) = (one_way(1, TagEdit::Keep), one_way(2, TagEdit::Push(Tci::from_bits(10))));
    let batch = [&there, &there, &to_trunk, &there].map(Clone::clone);
    let all = vec![there_way.clone(), there_way.clone(), trunk_way, there_way];
    assert_eq!(fates(&bench, 0, &batch), (all, vec![]));
    assert_eq!(fates(&bench, 2, &[tagged.clone(), tagged]), (vec![one_way(0, TagEdit::Pop); 2], vec![]));
    bench.now = bench.now + Duration::from_secs(200);
    assert_eq!(
        fates(&bench, 0, &[there.clone(), there.clone()]).1,
        [0usize; 0],
        "that it is still there is no news"
    );
    assert_eq!(fates(&bench, 1, &[frame(mac(2), mac(1), None)]).1, [0usize; 0]);
    bench.now = bench.now + Duration::from_secs(200);
    assert_eq!(
        fates(&bench, 0, std::slice::from_ref(&there)).1,
        [0usize; 0],
        "and it was noted: else it were aged out by now"
    );
    bench.now = bench.now + Duration::from_secs(301);
    assert_eq!(fates(&bench, 0, &[there]).1, [0], "now it is");
}

/// One address in several VLANs stands several times in a table, maybe side by side, and each time somewhere else.
#[test]
fn an_address_in_two_vlans_is_found_in_the_right_one_also_in_a_table_of_one_bucket() {
    let both = || trunk(&[10, 20], None);
    let lab = Lab::new().switch("s1").port("a", 0, both()).port("b", 0, both()).port("c", 0, both());
    let mut bench = lab.bench_of(1);
    let frames = [10, 20].map(|id| frame(mac(1), mac(2), Some(id)));
    for (tag, there) in [(10, 1), (20, 2)] {
        bench.send(0, &frame(mac(1), mac(2), Some(tag)));
        bench.send(there, &frame(mac(2), mac(1), Some(tag)));
    }
    let ways = [1, 2].map(|to| (Fate::Unicast, vec![Copy { to, outcome: Ok(TagEdit::Keep) }]));
    let batch = [0, 1, 1, 0, 1, 0, 0].map(|n: usize| frames[n].clone());
    let expected = [0, 1, 1, 0, 1, 0, 0].map(|n: usize| ways[n].clone());
    for seconds in 0..3 {
        bench.now = bench.now + Duration::from_secs(seconds);
        assert_eq!(fates(&bench, 0, &batch), (expected.to_vec(), vec![]), "none is decided by itself");
    }
}
