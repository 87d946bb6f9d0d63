//! From records to words, in the lab of `topologies/hello.vnet.yaml`.

use super::{
    end::{About, End},
    group, span,
    words::Words,
};
use crate::api::why::{WhyGroup, WhyKind};
use serde_json::json;
use std::{collections::BTreeSet, net::Ipv6Addr, path::Path, time::Duration};
use topology::plan::Plan;
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    clock::Instant,
    drop_reason::DropReason,
    fdb::Target,
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
    trace::LearnedStep,
    vlan::VlanId,
    world::World,
};
use vswitchd::recorder::{Event, Moment, Record, Recorder};

const ALICE: PortId = PortId::new(0, 0);
const BOB: PortId = PortId::new(1, 0);
const WEB: PortId = PortId::new(2, 0);

fn hello() -> Plan {
    let plan = include_str!("../../topology/tests/plans/hello.json");
    serde_json::from_str(plan).expect("a plan")
}

fn mac(plan: &Plan, port: PortId) -> MacAddr {
    plan.description.ports[usize::from(port.index())].as_ref().and_then(|port| port.mac).expect("a station's")
}

fn ping(plan: &Plan, from: PortId, to: PortId, addresses: [[u8; 4]; 2]) -> Vec<u8> {
    let link = Ethernet { src: mac(plan, from), dst: mac(plan, to), tag: None };
    let [src, dst] = addresses.map(Into::into);
    build::echo(link, Addresses::V4(src, dst), Echo::Request, 1, 1, b"why?")
}

/// Records of `event` at these seconds, of one frame each.
fn recorded(epoch: u64, event: Event, seconds: &[u64], frame: &[u8]) -> Vec<Record> {
    let mut recorder = Recorder::new(64);
    recorder.adopt(3);
    for second in seconds {
        let moment = Moment { at: Instant::ZERO + Duration::from_secs(*second), epoch: Epoch::new(epoch) };
        recorder.frames(moment, event, 0..1, |_| (frame, frame.len() as u32));
    }
    recorder.records(Instant::ZERO)
}

fn told(plan: &Plan, records: Vec<Record>) -> Vec<WhyGroup> {
    let world = World::compile(&plan.description).expect("a lab");
    let words = Words {
        plan,
        world: &world,
        now: Instant::ZERO + Duration::from_secs(10),
        links_down: &BTreeSet::new(),
    };
    group::groups(records).iter().map(|group| words.tell(group)).collect()
}

#[test]
fn a_group_says_who_it_was_what_decided_it_and_what_mends_it() {
    let plan = hello();
    let frame = ping(&plan, WEB, BOB, [[10, 0, 20, 1], [10, 0, 10, 2]]);
    let event = Event::Dropped { port: WEB, reason: DropReason::NoReceiver };
    let mut records = recorded(1, Event::Up { port: WEB }, &[9], &[]);
    records.extend(recorded(1, event, &[3, 4, 7], &frame));
    let [group, link] = <[_; 2]>::try_from(told(&plan, records)).expect("two groups");
    assert_eq!((group.kind, group.count, group.more), (WhyKind::Dropped, 3, 0));
    assert_eq!((group.first_millis_ago, group.last_millis_ago), (7000, 3000));
    assert_eq!(group.port.as_deref(), Some("web:eth0"));
    let words = "web:eth0 -> bob:eth0, IPv4 10.0.20.1 (web) > 10.0.10.2 (bob) ICMP echo request, 46 bytes";
    assert_eq!(group.frames.iter().map(|alike| alike.frame.as_str()).collect::<Vec<_>>(), [words]);
    assert_eq!(group.said.as_deref(), Some("hello.vnet.yaml:30"));
    assert_eq!(group.rule.as_deref(), Some("makes it access servers (20)"));
    assert_eq!(group.mend.as_deref(), Some(DropReason::NoReceiver.mend()));
    assert_eq!((link.kind, link.said), (WhyKind::Link, None), "what was lost comes first");
}

#[test]
fn a_record_of_an_older_configuration_is_not_explained_by_a_line_of_the_file_in_force() {
    let mut plan = hello();
    plan.description.epoch = Epoch::new(2);
    let frame = ping(&plan, WEB, BOB, [[10, 0, 20, 1], [10, 0, 10, 2]]);
    let event = Event::Dropped { port: WEB, reason: DropReason::NoReceiver };
    let group = told(&plan, recorded(1, event, &[3], &frame)).remove(0);
    assert_eq!((group.said, group.rule, group.old_epoch), (None, None, Some(1)));
    let group = told(&plan, recorded(2, event, &[3], &frame)).remove(0);
    assert!(group.said.is_some() && group.old_epoch.is_none());
}

#[test]
fn what_the_file_does_not_decide_names_the_port_and_says_so() {
    let plan = hello();
    let frame = ping(&plan, ALICE, BOB, [[10, 0, 10, 1], [10, 0, 10, 2]]);
    let event = Event::Lost { port: ALICE, to: BOB, reason: DropReason::NoBuffer };
    let group = told(&plan, recorded(1, event, &[3], &frame)).remove(0);
    assert!(group.fate.starts_with("lost before bob:eth0: no-buffer"), "{}", group.fate);
    assert_eq!(group.said.as_deref(), Some("hello.vnet.yaml:23"));
    assert!(group.rule.is_some_and(|rule| rule.contains("no line of the file decides")));
}

#[test]
fn a_question_is_about_the_frames_from_one_end_to_the_other() {
    let plan = hello();
    let frame = ping(&plan, WEB, BOB, [[10, 0, 20, 1], [10, 0, 10, 2]]);
    let dropped = recorded(1, Event::Dropped { port: WEB, reason: DropReason::NoReceiver }, &[3], &frame)[0];
    let lost = recorded(1, Event::Lost { port: WEB, to: ALICE, reason: DropReason::NoBuffer }, &[3], &[])[0];
    let link = recorded(1, Event::Down { port: BOB }, &[3], &[])[0];
    let about = |src: &str, dst: &str| {
        let end = |said: &str| (!said.is_empty()).then(|| End::find(&plan, said).expect("an end"));
        let about = About { src: end(src), dst: end(dst) };
        json!([about.covers(&dropped), about.covers(&lost), about.covers(&link)])
    };
    assert_eq!(about("", ""), json!([true, true, true]));
    for web in ["web", "web:eth0", "10.0.20.1", &mac(&plan, WEB).to_string()] {
        assert_eq!(about(web, ""), json!([true, true, false]), "{web}");
        assert_eq!(about(web, "bob"), json!([true, false, true]), "{web}");
        assert_eq!(about(web, "alice:eth0"), json!([false, true, false]), "{web}");
    }
    assert_eq!(about("bob", ""), json!([true, false, true]), "alone, it is also what was for it");
    assert_eq!(about("bob", "web"), json!([false, false, true]));
    assert_eq!(about("10.9.9.9", ""), json!([false, false, false]), "an address that nobody has");
    assert!(End::find(&plan, "nobody").unwrap_err().mend.is_some_and(|mend| mend.contains("alice")));
}

#[test]
fn connections_of_one_client_are_alike_and_other_servers_are_not() {
    let plan = hello();
    let link = Ethernet { src: mac(&plan, WEB), dst: mac(&plan, BOB), tag: None };
    let addresses = Addresses::V4([10, 0, 20, 1].into(), [10, 0, 10, 2].into());
    let event = Event::Dropped { port: WEB, reason: DropReason::NoReceiver };
    let syn = |ports| recorded(1, event, &[3], &build::tcp_syn(link, addresses, ports, 1));
    let groups = told(&plan, [syn((5000, 80)), syn((5001, 80)), syn((5002, 22))].concat());
    let [group] = <[_; 1]>::try_from(groups).expect("one cause");
    let mut counts: Vec<_> = group.frames.iter().map(|alike| alike.count).collect();
    counts.sort_unstable();
    assert_eq!((counts, group.count, group.frames_left_out), (vec![1, 2], 3, 0));
}

#[test]
fn a_flood_of_many_sources_is_one_group_of_its_cause_with_a_few_of_its_frames() {
    let plan = hello();
    let from = |number: u8| {
        let link = Ethernet { src: MacAddr::new([2, 0, 0, 0, 9, number]), dst: mac(&plan, BOB), tag: None };
        let addresses = Addresses::V4([10, 0, 20, number].into(), [10, 0, 10, 2].into());
        build::tcp_syn(link, addresses, (5000, 80), 1)
    };
    let dropped = Event::Dropped { port: WEB, reason: DropReason::NoReceiver };
    let vlan = VlanId::DEFAULT;
    let full = |what| Event::Learned { port: WEB, switch: SwitchId::new(0), vlan, what };
    let mut records = Vec::new();
    for number in 0..200 {
        let at = [u64::from(number) % 8];
        records.extend(recorded(1, dropped, &at, &from(number)));
        records.extend(recorded(1, full(LearnedStep::PortLimit), &at, &from(number)));
    }
    // One cause of another port, that it does not hide.
    records.extend(recorded(
        1,
        Event::Dropped { port: ALICE, reason: DropReason::NoReceiver },
        &[1],
        &from(1),
    ));
    let groups = told(&plan, records);
    let summed: Vec<_> = groups
        .iter()
        .map(|group| (group.kind, group.count, group.frames.len(), group.frames_left_out))
        .collect();
    let flood = [WhyKind::Dropped, WhyKind::NotLearned].map(|kind| (kind, 200, 5, 195));
    assert!(flood.iter().all(|group| summed.contains(group)), "{summed:?}");
    assert!(summed.len() == 3 && summed.contains(&(WhyKind::Dropped, 1, 1, 0)), "{summed:?}");
    let refused = groups.iter().find(|group| group.kind == WhyKind::NotLearned).expect("it is there");
    assert!(refused.fate.ends_with("the last of 200 addresses"), "{}", refused.fate);
    assert_eq!((refused.first_millis_ago, refused.last_millis_ago), (10_000, 3000));
}

#[test]
fn a_move_says_from_where_and_concerns_both_ports() {
    let plan = hello();
    let moved = |from: PortId, to, seconds: &[u64]| {
        let what = LearnedStep::Moved { from: Target::Port(from).into() };
        let event = Event::Learned { port: to, switch: SwitchId::new(0), vlan: VlanId::DEFAULT, what };
        let frame = ping(&plan, ALICE, WEB, [[10, 0, 10, seconds[0] as u8], [10, 0, 20, 1]]);
        recorded(1, event, seconds, &frame)
    };
    let there = moved(ALICE, BOB, &[3]);
    for (end, covered) in [("alice", true), ("bob", true), ("web", false)] {
        let about = About {
            src: Some(End::find(&plan, end).expect("an end")),
            dst: Some(End::find(&plan, "web").unwrap()),
        };
        assert_eq!(about.covers(&there[0]), covered, "{end}");
    }
    let [once] = <[_; 1]>::try_from(told(&plan, there.clone())).expect("one group");
    let address = mac(&plan, ALICE);
    assert_eq!(once.fate, format!("sw1 saw {address} move from alice:eth0 to bob:eth0"));
    assert_eq!((once.kind, once.flaps, once.mend), (WhyKind::Learned, 0, None));
    // A second station with the address of the first: it is at one port, at the other, and back.
    let all = [there, moved(BOB, ALICE, &[4]), moved(ALICE, BOB, &[5])].concat();
    let [last, back] = <[_; 2]>::try_from(told(&plan, all)).expect("a group for each way");
    assert_eq!((last.count, last.flaps, back.count, back.flaps), (2, 3, 1, 3));
    assert!(back.fate.ends_with("from bob:eth0 to alice:eth0"), "{}", back.fate);
    assert!(last.mend.is_some_and(|mend| mend.contains("back and forth, 3 times")));
}

#[test]
fn a_frame_that_rules_dropped_is_judged_again_and_told_with_what_lets_it_pass() {
    let text = include_str!("../../../topologies/web-tier.vnet.yaml");
    let plan = topology::load(text, "web-tier.vnet.yaml", Path::new("/lab")).expect("an example").plan;
    let [client, app1, db1] = [(0, 7), (3, 21), (4, 31)].map(|(place, host)| (PortId::new(place, 0), host));
    let link = Ethernet { src: mac(&plan, client.0), dst: mac(&plan, app1.0), tag: None };
    let v6 = |host: u16| Ipv6Addr::new(0x2001, 0xdb8, 0x10, 0, 0, 0, 0, host);
    // Its hosts are named as in the file: in hexadecimal what the others have in decimal.
    let host = |(_, host): (PortId, u8)| u16::from_str_radix(&host.to_string(), 16).unwrap();
    let four =
        |a: (PortId, u8), b: (PortId, u8)| Addresses::V4([10, 0, 10, a.1].into(), [10, 0, 10, b.1].into());
    let lost = |(port, _): (PortId, u8), (to, _): (PortId, u8)| Event::Lost {
        port,
        to,
        reason: DropReason::PolicyIngress,
    };
    let syn = |addresses| build::tcp_syn(link, addresses, (5000, 8080), 1);
    let judged = |epoch, event, frame: Vec<u8>| {
        let group = told(&plan, recorded(epoch, event, &[3], &frame)).remove(0);
        let frame = group.frames.into_iter().next().expect("a frame");
        frame.decided.zip(frame.mend)
    };
    let whereto = "in a security group of app1:eth0 (app, managed)";
    let (decided, mend) = judged(1, lost(client, app1), syn(four(client, app1))).expect("it is known");
    assert_eq!(decided, "no rule allows it");
    assert_eq!(
        mend,
        format!(
            "would pass with `- {{ direction: ingress, protocol: tcp, port: 8080, remote-ip-prefix: 10.0.10.7/32 }}` {whereto}"
        )
    );
    let six = |from| Addresses::V6(from, v6(host(app1)));
    let (decided, mend) =
        judged(1, lost(client, app1), syn(six(v6(host(client))))).expect("its end is known");
    assert_eq!(decided, "if it is of 2001:db8:10::7 to 2001:db8:10::21: no rule allows it");
    assert!(mend.contains("\"2001:db8:10::7/128\""), "{mend}");
    // Of an address that the file does not name, too little was kept.
    assert_eq!(judged(1, lost(client, app1), syn(six(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 99)))), None);
    assert_eq!(judged(2, lost(client, app1), syn(four(client, app1))), None, "the file changed");
    // Whoever is asked is the sender on the way out; what passes now is not explained.
    let egress = Event::Dropped { port: db1.0, reason: DropReason::PolicyEgress };
    let (_, mend) = judged(1, egress, syn(four(db1, client))).expect("it is known");
    assert!(mend.starts_with("would pass with `- { direction: egress, protocol: tcp, port: 8080,"), "{mend}");
    let allowed = build::udp(link, four(db1, client), (5000, 53), b"?");
    assert_eq!(judged(1, egress, allowed), None);
}

#[test]
fn a_rule_for_a_forwarded_port_names_the_port_of_its_host() {
    let text = "version: 1\nvlans:\n  in: { id: 10, gateway: 10.0.10.1/24 }\n  wan: { id: 20, gateway: 192.0.2.2/24 }\n\
                routers: { default: { nat: [{ masquerade: wan }, { forward: \"8080:web:80/tcp\" }] } }\nsecurity-groups: { closed: [] }\n\
                switches: { sw1: {} }\nnodes:\n  net: { kind: station, addresses: [192.0.2.1/24] }\n  \
                web: { kind: station, addresses: [10.0.10.20/24], security-groups: [closed] }\nlinks:\n  \
                - { endpoints: [net, sw1], vlan: { access: wan } }\n  - { endpoints: [web, sw1], vlan: { access: in } }\n";
    let loaded = topology::load(text, "lab.vnet.yaml", Path::new("/lab"));
    let plan = loaded.unwrap_or_else(|report| panic!("{report}")).plan;
    let [net, web] = [0, 1].map(|place| PortId::new(place, 0));
    let dst = plan.routers().and_then(|routers| routers.mac).expect("the routers' own");
    let link = Ethernet { src: mac(&plan, net), dst, tag: None };
    let syn =
        build::tcp_syn(link, Addresses::V4([192, 0, 2, 1].into(), [192, 0, 2, 2].into()), (5000, 8080), 1);
    let event = Event::Lost { port: net, to: web, reason: DropReason::PolicyIngress };
    let group = told(&plan, recorded(1, event, &[3], &syn)).remove(0);
    let mend = group.frames[0].mend.clone().expect("a rule");
    assert!(mend.contains("protocol: tcp, port: 80, remote-ip-prefix: 192.0.2.1/32 }"), "{mend}");
}

#[test]
fn an_ipv6_address_is_shown_as_far_as_it_was_kept_and_its_owner_is_a_guess() {
    let text = include_str!("../../../topologies/web-tier.vnet.yaml");
    let plan = topology::load(text, "web-tier.vnet.yaml", Path::new("/lab")).expect("an example").plan;
    let (client, app1) = (PortId::new(0, 0), PortId::new(3, 0));
    let told_of = |dst: MacAddr, from: &str, to: &str| {
        let link = Ethernet { src: mac(&plan, client), dst, tag: None };
        let addresses = Addresses::V6(from.parse().unwrap(), to.parse().unwrap());
        let frame = build::tcp_syn(link, addresses, (5000, 80), 1);
        let event = Event::Lost { port: client, to: app1, reason: DropReason::PolicyIngress };
        told(&plan, recorded(1, event, &[3], &frame)).remove(0).frames.remove(0)
    };
    let owned = told_of(mac(&plan, app1), "2001:db8:bad::7", "2001:db8:10::21");
    assert!(owned.frame.contains("IPv6 …:0:7 (perhaps client) > …:0:21 (perhaps app1) "), "{owned:?}");
    let group = told_of(MacAddr::new([0x33, 0x33, 0, 0, 0, 7]), "2001:db8:10::1:99", "ff02::7");
    assert!(group.frame.contains("IPv6 …:1:99 > …:0:7 TCP"), "{group:?}");
    assert_eq!(group.decided, None);
    let asks = |said: &str| {
        let dst = Some(End::find(&plan, said).expect("an end"));
        About { src: None, dst }.compares_last_bits()
    };
    assert_eq!(
        ["2001:db8:10::7", "2001:db8::77", "10.0.10.7", "client"].map(asks),
        [true, true, false, false]
    );
}

#[test]
fn a_span_has_a_unit() {
    for (said, millis) in [("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("500ms", 500)] {
        assert_eq!(span(said).unwrap(), Duration::from_millis(millis));
    }
    for wrong in
        ["", "10", "s", "0s", "-1s", "1.5s", "10 s", "99999999999999999999s", "18446744073709551615h"]
    {
        assert_eq!(span(wrong).unwrap_err().code, "bad-span", "{wrong}");
    }
}
