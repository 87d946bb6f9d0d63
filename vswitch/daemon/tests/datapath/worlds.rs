//! One configuration after the other on a running datapath: a wrong one changes nothing, a right one is there at once (DESIGN §2, law 4).

use crate::{
    lab::{Lab, access, description},
    traffic::Pair,
};
use std::{fs::File, os::fd::OwnedFd};
use vswitch_core::{description::Description, id::Epoch};
use vswitchd::control::protocol::{Attachment, AttachmentKind, DatapathSettings, PortState};

const WORKERS: u16 = 2;

/// Two ports in VLAN `number`, in the `epoch`th configuration.
fn both_in(number: u16, epoch: u64) -> Description {
    Description { epoch: Epoch::new(epoch), ..description(&[access(number), access(number)]) }
}

fn settings() -> DatapathSettings {
    DatapathSettings { workers: WORKERS, ..DatapathSettings::default() }
}

/// Applies it to a running lab, whose ports stay; so many descriptors come along, in place of listening sockets.
fn apply(
    lab: &mut Lab,
    lab_now: &Description,
    descriptors: usize,
    settings: DatapathSettings,
) -> anyhow::Result<()> {
    let ports = lab_now.ports.iter().flatten();
    let attachments = ports.map(|port| Attachment::new(port.id, AttachmentKind::VhostUserListen));
    let some: Vec<OwnedFd> = (0..descriptors).map(|_| File::open("/dev/null").unwrap().into()).collect();
    lab.datapath.apply(lab_now, attachments.collect(), some, settings)
}

#[test]
fn a_wrong_configuration_changes_nothing_of_the_one_that_runs() {
    let mut lab = Lab::with_workers(&both_in(10, 1), WORKERS);
    let pair = Pair::new(&lab, [0, 1]).start();
    let learned = lab.lawful().fdb;
    let refused = |lab: &mut Lab, wrong: &Description, descriptors, settings| {
        apply(lab, wrong, descriptors, settings).unwrap_err().to_string()
    };
    let unknown = both_in(99, 2);
    let three = DatapathSettings { workers: 3, ..settings() };
    let more_room = DatapathSettings { connections: 1 << 20, ..settings() };
    for (why, words) in [
        (refused(&mut lab, &unknown, 2, settings()), "99"),
        (refused(&mut lab, &both_in(20, 2), 2, three), "cannot change while the lab runs"),
        (refused(&mut lab, &both_in(20, 2), 2, more_room), "cannot change while the lab runs"),
        (refused(&mut lab, &both_in(20, 2), 1, settings()), "without its descriptor"),
    ] {
        assert!(why.contains(words), "{why}");
        pair.flows();
        let seen = lab.lawful();
        assert_eq!((seen.epoch, seen.workers.len()), (Some(Epoch::new(1)), WORKERS.into()), "{why}");
        assert!(seen.ports.iter().all(|port| port.state == PortState::Up && port.counters.faults == 0));
    }
    pair.stop().lost_nothing(&lab.lawful());
    assert_eq!(lab.lawful().fdb, learned, "nor of what was learned");
}

#[test]
fn every_frame_is_judged_by_one_whole_configuration() {
    let mut lab = Lab::with_workers(&both_in(10, 1), WORKERS);
    let pair = Pair::new(&lab, [0, 1]).start();
    // Both ports are in the same VLAN in each. One port in the old and one in the new would lose frames.
    for epoch in 2..42 {
        apply(&mut lab, &both_in([10, 20][(epoch % 2) as usize], epoch), 2, settings()).unwrap();
        assert_eq!(lab.lawful().epoch, Some(Epoch::new(epoch)));
        pair.flows();
    }
    pair.stop().lost_nothing(&lab.lawful());
}
