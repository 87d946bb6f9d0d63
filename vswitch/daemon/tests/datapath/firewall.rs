//! Interfaces with firewalls from driver to driver: what was opened by one worker is known to the other, what is dropped is counted, and a
//! changed policy holds from the moment on that it was applied.

use crate::lab::{Lab, access, description, mac, receive, send};
use std::{
    fs::File,
    io,
    net::IpAddr,
    ops::Range,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Instant,
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::{Description, Firewall, Origin},
    drop_reason::DropReason,
    firewall::{
        connections::{Counts, Ends, MAX_CAPACITY, MIN_CAPACITY, State},
        hits::DefaultCounts,
        policy::{Action, Direction, GroupId, Match, PortRange, Protocol, Rule, SecurityGroup},
    },
    id::{Epoch, PortId},
    mac::MacAddr,
    trace::Step,
};
use vswitchd::{
    control::protocol::{Attachment, AttachmentKind, ConnectionTable, DatapathSettings, PortState, Watch},
    datapath::Datapath,
};

const HERE: Origin = Origin { line: 7, column: 1 };

/// Two ports in one VLAN; the second lets in UDP to `ports` only.
fn guarded(ports: PortRange, epoch: u64) -> Description {
    let mut lab = description(&[access(10), access(10)]);
    let matches = Match { protocol: Protocol::Number(17), ports: vec![ports], ..Match::default() };
    let rule = Rule {
        direction: Direction::Ingress,
        action: Action::Allow,
        stateful: true,
        log: false,
        matches,
        origin: HERE,
    };
    lab.groups = vec![SecurityGroup { name: "dns".into(), rules: vec![rule], origin: HERE }];
    lab.epoch = Epoch::new(epoch);
    let firewall = Firewall {
        groups: vec![GroupId::new(0)],
        addresses: vec![],
        identity: None,
        dhcp_server: false,
        router: false,
        origin: HERE,
    };
    lab.ports[1].as_mut().unwrap().firewall = Some(firewall);
    lab
}

fn one(port: u16) -> PortRange {
    PortRange { first: port, last: port }
}

fn apply(lab: &mut Lab, now: &Description) {
    let attachment = |port| Attachment { port, kind: AttachmentKind::VhostUserListen, reopened: 0 };
    let attachments = now.ports.iter().flatten().map(|port| attachment(port.id)).collect();
    let some: Vec<OwnedFd> = (0..2).map(|_| File::open("/dev/null").unwrap().into()).collect();
    let settings = DatapathSettings { workers: 2, ..DatapathSettings::default() };
    lab.datapath.apply(now, attachments, some, settings).unwrap();
}

/// From one guest to the other, or to all.
fn udp(from: usize, to: Option<usize>, ports: (u16, u16)) -> Vec<u8> {
    let link = Ethernet { src: mac(from), dst: to.map_or(MacAddr::BROADCAST, mac), tag: None };
    let ip = |n: usize| [10, 0, 0, n as u8 + 1].into();
    build::udp(link, Addresses::V4(ip(from), to.map_or([10, 0, 0, 255].into(), ip)), ports, &[0; 18])
}

/// Both guests, each known to the switch.
fn guests(lab: &Lab) -> [Driver; 2] {
    let mut guests = [0, 1].map(|place| lab.attach(place, &Config::default()));
    for (place, guest) in guests.iter_mut().enumerate() {
        let link = Ethernet { src: mac(place), dst: MacAddr::BROADCAST, tag: None };
        send(guest, &build::arp_request(link, [10, 0, 0, 9].into(), [10, 0, 0, 8].into()));
        lab.wait(|seen| seen.ports[1 - place].counters.to_port.delivered == 1);
    }
    guests
}

/// The frame arrives, and as it was.
fn deliver(from: &mut Driver, to: &mut Driver, frame: &[u8]) {
    send(from, frame);
    assert_eq!(receive(to, 1), [frame]);
}

fn dropped(lab: &Lab, place: usize, reason: DropReason) -> u64 {
    lab.lawful().ports[place].counters.to_port.dropped.get(&reason).copied().unwrap_or(0)
}

#[test]
fn what_one_worker_opened_the_other_knows_and_what_was_not_opened_is_dropped_and_counted() {
    let mut lab = Lab::with_workers(&guarded(one(53), 1), 2);
    let [mut outside, mut inside] = guests(&lab);
    receive(&mut outside, 1);
    receive(&mut inside, 1);
    // Each guest is another worker's.
    let reached = |lab: &Lab, count| lab.wait(|seen| seen.ports[0].counters.from_port.frames == count);
    send(&mut outside, &udp(0, Some(1), (9, 99)));
    reached(&lab, 2);
    assert_eq!(dropped(&lab, 1, DropReason::PolicyIngress), 1);
    deliver(&mut inside, &mut outside, &udp(1, Some(0), (99, 9)));
    deliver(&mut outside, &mut inside, &udp(0, Some(1), (9, 99)));
    deliver(&mut outside, &mut inside, &udp(0, Some(1), (7, 53)));
    deliver(&mut inside, &mut outside, &udp(1, Some(0), (53, 7)));
    // What is imagined opens nothing.
    let port = |place| PortId::new(place, 0);
    let journey = lab.datapath.trace(port(1), &udp(1, Some(0), (5, 5))).unwrap();
    assert_eq!((journey.dropped, journey.copies.len()), (None, 1));
    send(&mut outside, &udp(0, Some(1), (5, 5)));
    reached(&lab, 5);
    assert_eq!(dropped(&lab, 1, DropReason::PolicyIngress), 2);
    // Port 53 is closed: what it opened ends, what the guest opened goes on.
    apply(&mut lab, &guarded(one(54), 2));
    send(&mut outside, &udp(0, Some(1), (7, 53)));
    reached(&lab, 6);
    assert_eq!(dropped(&lab, 1, DropReason::PolicyIngress), 3);
    deliver(&mut outside, &mut inside, &udp(0, Some(1), (9, 99)));
    deliver(&mut outside, &mut inside, &udp(0, Some(1), (7, 54)));
    // A flood has a copy for each, and that one is dropped.
    send(&mut outside, &udp(0, None, (9, 98)));
    reached(&lab, 9);
    assert_eq!(dropped(&lab, 1, DropReason::PolicyIngress), 4);
}

#[test]
fn fragments_follow_their_first_one_also_across_an_apply() {
    let mut lab = Lab::with_workers(&guarded(one(53), 1), 2);
    let [mut outside, mut inside] = guests(&lab);
    receive(&mut inside, 1);
    // Of 24 bytes, in units of eight from `offset` on; what is behind them in the frame pads it.
    let piece = |offset: u8, more: bool, port| {
        let mut frame = udp(0, Some(1), (9, port));
        (frame[17], frame[20], frame[21]) = (44, u8::from(more) << 5, offset);
        frame
    };
    let mut deliver = |from: &mut Driver, frame: &[u8]| {
        send(from, frame);
        assert_eq!(receive(&mut inside, 1), [frame]);
    };
    deliver(&mut outside, &piece(0, true, 53));
    deliver(&mut outside, &piece(3, true, 0));
    // Nothing of the firewall changes: the memory is shared out as before.
    apply(&mut lab, &guarded(one(53), 2));
    deliver(&mut outside, &piece(6, true, 0));
    send(&mut outside, &piece(3, true, 0));
    deliver(&mut outside, &piece(9, false, 0));
    send(&mut outside, &piece(9, false, 0));
    send(&mut outside, &piece(0, true, 54));
    send(&mut outside, &piece(1, true, 54));
    lab.wait(|seen| seen.ports[0].counters.from_port.frames == 9);
    for (reason, count) in [
        (DropReason::FragmentOverlapIngress, 1),
        (DropReason::FragmentIngress, 2),
        (DropReason::PolicyIngress, 1),
    ] {
        assert_eq!(dropped(&lab, 1, reason), count, "{reason}");
    }
    // What is imagined says why.
    let journey = lab.datapath.trace(PortId::new(0, 0), &piece(3, true, 0)).unwrap();
    let story: Vec<String> = journey.steps.iter().map(ToString::to_string).collect();
    assert!(story.concat().contains("none passed that it follows"), "{story:?}");
}

#[test]
fn an_interface_whose_rules_cannot_be_meant_is_down_until_they_can() {
    let backwards = PortRange { first: 9, last: 8 };
    let lab = Lab::of(&guarded(backwards, 1));
    let seen = lab.lawful();
    assert_eq!([seen.ports[0].state, seen.ports[1].state], [PortState::Waiting, PortState::Down]);
    assert_eq!(
        seen.ports[1].detail,
        "down: its firewall cannot be compiled (line 7: a rule of security group `dns` names ports 9-8, a range that ends before it begins)"
    );
    // One that ran and is broken by a change is closed, too, and back when it is mended.
    let mut lab = Lab::with_workers(&guarded(one(53), 1), 2);
    let [mut outside, mut inside] = guests(&lab);
    receive(&mut inside, 1);
    apply(&mut lab, &guarded(backwards, 2));
    assert_eq!(lab.lawful().ports[1].state, PortState::Down);
    send(&mut outside, &udp(0, Some(1), (7, 53)));
    let seen = lab.wait(|seen| seen.ports[0].counters.from_port.frames == 2);
    assert_eq!(seen.ports[0].counters.from_port.dropped.get(&DropReason::NoReceiver), Some(&1));
    assert_eq!(seen.ports[1].counters.to_port.delivered, 1, "what came before");
    apply(&mut lab, &guarded(one(53), 3));
    send(&mut outside, &udp(0, Some(1), (7, 53)));
    assert_eq!(receive(&mut inside, 1), [udp(0, Some(1), (7, 53))]);
    lab.lawful();
}

/// An answer is a copy like any other: made for the sender, delivered to its ring or lost there, and counted.
#[test]
fn who_sends_what_a_rule_rejects_is_told_in_its_own_ring() {
    let mut now = guarded(one(53), 1);
    now.groups[0].rules[0].action = Action::Reject;
    let mut lab = Lab::with_workers(&now, 1);
    let [mut outside, mut inside] = guests(&lab);
    receive(&mut outside, 1);
    receive(&mut inside, 1);
    let watch = lab.datapath.watch(&Watch { port: Some(PortId::new(0, 0)), ..Watch::default() }).unwrap();
    let frame = udp(0, Some(1), (9, 53));
    send(&mut outside, &frame);
    let answer = &receive(&mut outside, 1)[0];
    assert_eq!(answer[..14], [&mac(0).octets()[..], &mac(1).octets(), &[8, 0]].concat());
    assert_eq!((answer[23], answer[34], answer[35]), (1, 3, 13), "administratively prohibited");
    assert_eq!(answer[42..], frame[14..], "what it is about");
    let seen = lab.lawful();
    let [from, to] = [0, 1].map(|place| &seen.ports[place].counters);
    assert_eq!((from.from_port.originated, from.to_port.copies, from.to_port.delivered), (1, 2, 2));
    assert_eq!(to.to_port.dropped.get(&DropReason::RejectIngress), Some(&1));
    let (sightings, _) = lab.datapath.sightings(watch, false).unwrap();
    let [ref seen] = sightings[..] else { panic!("not one: {sightings:?}") };
    for journey in [&lab.datapath.trace(PortId::new(0, 0), &frame).unwrap(), &seen.journey] {
        let said = journey.steps.last().map(ToString::to_string).unwrap_or_default();
        assert!(said.contains("with an ICMP error"), "{said}");
    }
    // Far more than it may be told, and none of it read: what finds no buffer is lost there, like any copy.
    let began = Instant::now();
    let mut answered = 1;
    for batch in 1..=60 {
        (0..50).for_each(|_| send(&mut outside, &frame));
        lab.wait(|seen| seen.ports[0].counters.from_port.frames == 2 + 50 * batch);
        let (sightings, missed) = lab.datapath.sightings(watch, false).unwrap();
        assert_eq!((sightings.len(), missed), (50, 0));
        let steps = sightings.iter().flat_map(|seen| &seen.journey.steps);
        answered += steps.filter(|step| matches!(step, Step::Answered { .. })).count() as u64;
    }
    let may = 101 + began.elapsed().as_millis() as u64 + 1;
    let from = &lab.lawful().ports[0].counters;
    assert!((101..=may).contains(&from.from_port.originated), "{from:?}, and may be {may}");
    assert_eq!(from.to_port.copies, 1 + from.from_port.originated);
    assert_eq!(from.to_port.delivered, 1 + answered, "a watch shows those that arrived, and no others");
}

#[test]
fn what_rules_decided_and_what_they_allowed_is_shown() {
    let mut lab = Lab::with_workers(&guarded(one(53), 1), 2);
    let [mut outside, mut inside] = guests(&lab);
    receive(&mut outside, 1);
    receive(&mut inside, 1);
    let port = |place| PortId::new(place, 0);
    let shown = |lab: &Lab| {
        let hits = lab.datapath.rule_hits().unwrap();
        let [(of, defaults)] = hits.defaults[..] else { panic!("not one firewall: {hits:?}") };
        assert_eq!(of, port(1));
        (hits.rules, defaults)
    };
    let asked = DefaultCounts { ingress_basic: 1, egress_basic: 1, ..DefaultCounts::default() };
    assert_eq!(shown(&lab), (vec![0], asked), "ARP needs no rule");
    for from in [7, 8] {
        for _ in 0..3 {
            deliver(&mut outside, &mut inside, &udp(0, Some(1), (from, 53)));
            deliver(&mut inside, &mut outside, &udp(1, Some(0), (53, from)));
        }
    }
    deliver(&mut inside, &mut outside, &udp(1, Some(0), (99, 9)));
    send(&mut outside, &udp(0, Some(1), (9, 98)));
    lab.wait(|seen| seen.ports[0].counters.from_port.frames == 8);
    // Nothing is counted of what is imagined.
    lab.datapath.trace(port(0), &udp(0, Some(1), (5, 53))).unwrap();
    let defaults = DefaultCounts { ingress_dropped: 1, egress_allowed: 1, ..asked };
    assert_eq!(shown(&lab), (vec![2], defaults));
    let counted = lab.lawful().ports.into_iter().map(|port| port.connections);
    let three = Counts { held: 3, opened: 3, ..Counts::default() };
    assert_eq!(Vec::from_iter(counted), [None, Some(three)], "of the firewall, and of nothing else");

    let table = lab.datapath.connections(&[port(1)]).unwrap();
    assert_eq!((table.entries, lab.datapath.connections(&[]).unwrap().entries), (3, 3));
    assert_eq!(lab.datapath.connections(&[port(0)]).unwrap(), ConnectionTable::default());
    let mut rows: Vec<_> = table.rows.iter().map(|row| (row.ends, row.opener, row.state)).collect();
    rows.sort_by_key(|(ends, ..)| format!("{ends:?}"));
    let ends = |inside, outside| Ends::Ports { inside, outside };
    let expected = [
        (ends(53, 7), Direction::Ingress, State::Replied),
        (ends(53, 8), Direction::Ingress, State::Replied),
        (ends(99, 9), Direction::Egress, State::Unreplied),
    ];
    assert_eq!(rows, expected);
    let row = &table.rows[0];
    assert_eq!((row.interface.as_str(), row.protocol, row.vlan.number()), ("n1:eth0", 17, 10));
    assert_eq!([row.inside, row.outside], [[10, 0, 0, 2], [10, 0, 0, 1]].map(IpAddr::from));
    assert!(row.idle_secs + row.left_secs == if row.state == State::Replied { 120 } else { 30 });

    // A rule that stays goes on, one that changed begins anew; the interface is the same one.
    apply(&mut lab, &guarded(one(53), 2));
    deliver(&mut outside, &mut inside, &udp(0, Some(1), (10, 53)));
    assert_eq!(shown(&lab), (vec![3], defaults));
    apply(&mut lab, &guarded(one(54), 3));
    assert_eq!(shown(&lab), (vec![0], defaults));
}

/// The guest outside talks from so many ports of its own; how many of these connections there are then, and how many there was no room for.
fn talk(connections: u32, ports: Range<u16>) -> Counts {
    let settings = DatapathSettings { connections, ..DatapathSettings::default() };
    let lab = Lab::with_settings(&guarded(one(53), 1), settings);
    let [mut outside, mut inside] = guests(&lab);
    receive(&mut outside, 1);
    receive(&mut inside, 1);
    for (n, from) in (2..).zip(ports) {
        send(&mut outside, &udp(0, Some(1), (from, 53)));
        lab.wait(|seen| seen.ports[0].counters.from_port.frames == n);
        inside.pair().receive(|_, _| {});
    }
    lab.lawful().ports[1].connections.expect("it has a firewall")
}

#[test]
fn a_lab_tracks_as_many_connections_as_it_was_told() {
    let opened = u64::from(MIN_CAPACITY) + 50;
    let ports = 1000..1000 + opened as u16;
    // What nobody answered makes room: the last ones are there.
    let few = talk(MIN_CAPACITY, ports.clone());
    assert_eq!((few.held, few.opened, few.evicted), (MIN_CAPACITY.into(), opened, 50));
    let more = talk(2 * MIN_CAPACITY, ports);
    assert_eq!((more.held, more.opened, more.evicted), (opened, opened, 0));
    for connections in [0, MIN_CAPACITY - 1, MAX_CAPACITY + 1] {
        let settings = DatapathSettings { connections, ..DatapathSettings::default() };
        let why = Datapath::new().apply(&guarded(one(53), 1), vec![], vec![], settings).unwrap_err();
        let told = format!("a datapath tracks 1024 to 16777215 connections, not {connections}");
        assert_eq!(why.to_string(), told);
    }
}

/// All lines that this process writes down.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// How many decisions of rules of `group` they account for, logged or not.
    fn decisions(&self, group: &str) -> u64 {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let count = |line: &str| {
            let (said, left_out) = line.split_once(" more ").map_or((line, 0), |(said, _)| {
                let (said, number) = said.rsplit_once(' ').unwrap();
                (said, number.parse::<u64>().unwrap())
            });
            left_out + u64::from(said.contains(" allows it ") || said.contains(" drops it "))
        };
        text.lines().filter(|line| line.contains(&format!("group {group}"))).map(count).sum()
    }
}

/// Also what was decided in the last second, of which no later line can tell.
#[test]
fn no_decision_of_a_rule_that_logs_is_lost_where_the_file_changes_or_the_switch_ends() {
    const EACH: u16 = 25;
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let logging = |epoch| {
        let mut lab = guarded(one(53), epoch);
        lab.groups[0].name = "loud".into();
        lab.groups[0].rules[0].log = true;
        lab
    };
    let mut lab = Lab::with_workers(&logging(1), 2);
    let [mut client, mut server] = guests(&lab);
    receive(&mut server, 1);
    let mut send_all = |lab: &Lab, from: u16| {
        (from..from + EACH).for_each(|port| send(&mut client, &udp(0, Some(1), (port, 53))));
        assert_eq!(receive(&mut server, EACH.into()).len(), usize::from(EACH));
        lab.lawful();
    };
    send_all(&lab, 1000);
    apply(&mut lab, &logging(2));
    assert_eq!(lines.decisions("loud"), u64::from(EACH), "{lines:?}");
    send_all(&lab, 2000);
    drop(lab);
    assert_eq!(lines.decisions("loud"), 2 * u64::from(EACH), "{lines:?}");
}
