//! Frames from driver to driver, through gate, daemon, rings, worker and switch, in one process.

use crate::lab::{DEADLINE, Lab, access, frame, mac, receive, send};
use vhost_net_backend::driver::Config;
use vswitch_core::{drop_reason::DropReason, id::PortId, mac::MacAddr};
use vswitchd::control::protocol::Watch;

#[test]
fn a_flood_stays_in_its_vlan_and_the_answer_is_unicast() {
    let lab = Lab::new(&[access(10), access(10), access(10), access(20)]);
    let mut guests: Vec<_> = (0..4).map(|place| lab.attach(place, &Config::default())).collect();

    let hello = frame(MacAddr::BROADCAST, mac(0), 60, 1);
    send(&mut guests[0], &hello);
    assert_eq!(receive(&mut guests[1], 1), std::slice::from_ref(&hello));
    assert_eq!(receive(&mut guests[2], 1), [hello]);

    let answer = frame(mac(0), mac(1), 1500, 2);
    send(&mut guests[1], &answer);
    assert_eq!(receive(&mut guests[0], 1), [answer]);

    let lonely = frame(MacAddr::BROADCAST, mac(3), 60, 3);
    send(&mut guests[3], &lonely);
    let seen = lab.wait(|snapshot| snapshot.ports[3].counters.from_port.frames == 1);
    assert_eq!(seen.ports[3].counters.from_port.dropped.get(&DropReason::NoReceiver), Some(&1));

    let end = lab.lawful();
    assert_eq!(
        (end.ports[0].counters.from_port.flooded, end.ports[0].counters.from_port.flood_copies),
        (1, 2)
    );
    assert_eq!(end.ports[1].counters.from_port.unicast, 1);
    assert_eq!(end.ports[2].counters.to_port.delivered, 1, "the answer went to its receiver only");
    assert_eq!(end.ports[3].counters.to_port.copies, 0, "nothing left the VLAN");
}

#[test]
fn a_watched_frame_says_where_it_went() {
    let mut lab = Lab::new(&[access(10), access(10)]);
    let mut guests: Vec<_> = (0..2).map(|place| lab.attach(place, &Config::default())).collect();
    let watch = lab.datapath.watch(&Watch { src: Some(mac(0)), ..Watch::default() }).unwrap();
    send(&mut guests[0], &frame(mac(9), mac(0), 60, 0));
    receive(&mut guests[1], 1);
    let (sightings, lost) = lab.datapath.sightings(watch, true).unwrap();
    assert_eq!((sightings.len(), lost), (1, 0));
    assert_eq!(sightings[0].journey.copies.len(), 1);
    assert_eq!(sightings[0].journey.lost, [None]);
    assert!(lab.datapath.sightings(watch, true).is_err(), "the watch is gone");
}

#[test]
fn a_trace_sends_nothing_to_a_port_that_nobody_is_at() {
    let lab = Lab::new(&[access(10), access(10), access(10)]);
    let _guests: Vec<_> = (0..2).map(|place| lab.attach(place, &Config::default())).collect();
    let [from, there, nobody] = [0, 1, 2].map(|place| PortId::new(place, 0));
    let journey = lab.datapath.trace(from, &frame(MacAddr::BROADCAST, mac(0), 60, 0)).unwrap();
    assert_eq!(journey.copies, [there, nobody]);
    assert_eq!(journey.lost, [None, Some(DropReason::PortDown)]);
    let last = journey.steps.last().map(ToString::to_string).unwrap_or_default();
    assert!(last.starts_with("lost at") && last.contains("port-down"), "{last}");
}

#[test]
fn a_driver_that_starts_its_rings_elsewhere_goes_on_with_empty_ones() {
    let lab = Lab::new(&[access(10), access(10)]);
    let mut guests: Vec<_> = (0..2).map(|place| lab.attach(place, &Config::default())).collect();
    for round in 0..3 {
        for (from, to) in [(0, 1), (1, 0)] {
            let sent = frame(mac(to), mac(from), 600, round);
            send(&mut guests[from], &sent);
            assert_eq!(receive(&mut guests[to], 1), [sent], "round {round}");
        }
        let before = guests[0].memory().clone();
        guests[0].start_elsewhere().unwrap();
        assert!(!std::sync::Arc::ptr_eq(&before, guests[0].memory()));
    }
    assert!(lab.lawful().ports.iter().all(|port| port.counters.faults == 0));
}

#[test]
fn an_idle_worker_sleeps_and_a_kick_wakes_it() {
    let lab = Lab::new(&[access(10), access(10)]);
    let mut guests: Vec<_> = (0..2).map(|place| lab.attach(place, &Config::default())).collect();
    for round in 0..20 {
        // Each snapshot wakes the worker, which goes back to sleep: wait for that, then only a kick can move a frame.
        let before = lab.datapath.snapshot().unwrap().workers[0].sleeps;
        lab.wait(|snapshot| snapshot.workers[0].sleeps > before);
        let sent = frame(mac(1), mac(0), 60, round);
        send(&mut guests[0], &sent);
        assert_eq!(receive(&mut guests[1], 1), [sent]);
    }
    lab.lawful();
}

#[cfg(feature = "injection")]
#[test]
fn a_panic_stops_the_port_whose_frames_it_met_and_no_other() {
    use vswitch_core::id::PortId;
    let lab = Lab::new(&[access(10), access(10), access(10)]);
    let mut guests: Vec<_> = (0..3).map(|place| lab.attach(place, &Config::default())).collect();
    lab.datapath.inject_panic(PortId::new(0, 0)).unwrap();
    send(&mut guests[0], &frame(mac(1), mac(0), 60, 0));
    let end = lab.wait(|snapshot| snapshot.ports[0].counters.faults == 1);
    assert_eq!(end.workers[0].panics, 1);
    assert_eq!(end.ports[0].counters.from_port.dropped.get(&DropReason::Internal), Some(&1));
    let through = frame(mac(2), mac(1), 60, 1);
    send(&mut guests[1], &through);
    assert_eq!(receive(&mut guests[2], 1), [through]);
    lab.lawful();
}

#[cfg(feature = "injection")]
#[test]
fn a_panic_is_told_in_a_line_so_that_other_ports_do_not_stand_still_for_a_trace() {
    let this = std::env::current_exe().expect("a name");
    let test = "forward::a_panic_stops_the_port_whose_frames_it_met_and_no_other";
    let run = std::process::Command::new(this)
        .args(["--exact", "--nocapture", test])
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let is_told =
        |line: &str| line.starts_with("worker-0: panicked at") && line.ends_with("injected by a test");
    assert_eq!(said.lines().filter(|line| is_told(line)).count(), 1, "{said}");
    assert!(!said.contains("stack backtrace"), "{said}");
}

#[test]
fn a_guest_that_goes_away_is_waited_for_and_comes_back() {
    let lab = Lab::new(&[access(10), access(10)]);
    let mut stays = lab.attach(0, &Config::default());
    for round in 0..10 {
        let mut goes = lab.attach(1, &Config::default());
        let sent = frame(mac(1), mac(0), 64, round);
        send(&mut stays, &sent);
        assert_eq!(receive(&mut goes, 1), [sent], "round {round}, within {DEADLINE:?}");
        drop(goes);
        lab.wait(|snapshot| snapshot.ports[1].rings.is_empty());
    }
    lab.lawful();
}
