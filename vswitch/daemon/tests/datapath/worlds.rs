//! One configuration after the other on a running datapath: a wrong one changes nothing, a right one is there at once (DESIGN §2, law 4).

use crate::{
    lab::{Lab, access, description, frame, mac},
    traffic::Pair,
};
use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
};
use vhost_net_backend::driver::Config;
use vswitch_core::{
    description::{Description, Limits, Origin, Rates, Storm},
    id::{Epoch, PortId},
};
use vswitchd::control::protocol::{Attachment, AttachmentKind, DatapathSettings, PortState, Snapshot};

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

/// The workers decide by the old World a little longer than the FDB is of it, and a guest that talks does so all that time.
#[test]
fn addresses_become_sticky_also_of_a_guest_that_talks_while_the_file_changes() {
    let mut lab = Lab::with_workers(&both_in(10, 1), WORKERS);
    let [mut talker, _listener] = [0, 1].map(|place| lab.attach(place, &Config::default()));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                talker.pair().transmit(&frame(mac(1), mac(0), 60, 0));
                talker.pair().flush();
            }
        });
        // A test that fails ends the talker, too.
        let _over = Ends(&over);
        for epoch in 2..82 {
            let sticky = epoch % 2 == 0;
            let mut now = both_in(10, epoch);
            now.ports[0].as_mut().unwrap().limits = sticky.then(sticky_macs);
            apply(&mut lab, &now, 2, settings()).unwrap();
            let sent = |seen: &Snapshot| seen.ports[0].counters.from_port.frames;
            let before = sent(&lab.lawful());
            lab.wait(|seen| sent(seen) > before);
            let rows = lab.datapath.fdb(Some(PortId::new(0, 0))).unwrap().rows;
            let learned: Vec<_> = rows.iter().map(|row| (row.mac, row.is_sticky)).collect();
            assert_eq!(learned, [(mac(0), sticky)], "epoch {epoch}");
        }
    });
}

/// Says so when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn sticky_macs() -> Limits {
    Limits {
        egress: Rates::default(),
        ingress: Rates::default(),
        storm: Storm::default(),
        drops_other_macs: true,
        sticky_macs: true,
        origin: Origin { line: 1, column: 1 },
    }
}
