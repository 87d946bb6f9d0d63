//! A policy that changes under traffic: what both deny never passes, what both allow loses nothing, and what one of them allows ends with it,
//! at its next frame.

use crate::{
    attacks::stage::{self, ACK, CLIENT, SERVER, WEB},
    lab::{DEADLINE, Lab, receive, send},
};
use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};
use vhost_net_backend::driver::{Config, Driver};
use vswitch_core::{
    build::{self, Ethernet},
    description::Description,
    id::Epoch,
    mac::MacAddr,
};
use vswitchd::control::protocol::{Attachment, AttachmentKind, DatapathSettings};

const WORKERS: u16 = 2;

/// How often the policy changes.
const CHANGES: u64 = 40;

/// Connections of each kind.
const STREAMS: u16 = 16;

/// TCP to WEB is allowed by both policies, UDP to NEVER by neither; the first alone allows what is named after it, and so does the second.
const FIRST_STREAM: u16 = 81;
const FIRST: u16 = 53;
const SECOND: u16 = 54;
const NEVER: u16 = 99;

/// The first policy has odd epochs.
fn policy(epoch: u64) -> Description {
    let mut lab = if is_first(epoch) {
        stage::lab(500, &[WEB, FIRST_STREAM], &[FIRST])
    } else {
        stage::lab(700, &[WEB], &[SECOND])
    };
    lab.epoch = Epoch::new(epoch);
    lab
}

const fn is_first(epoch: u64) -> bool {
    epoch % 2 == 1
}

/// Applies it to the running lab, whose ports stay.
fn apply(lab: &mut Lab, now: &Description) {
    let ports = now.ports.iter().flatten();
    let attachments = ports.map(|port| Attachment::new(port.id, AttachmentKind::VhostUserListen));
    let some: Vec<OwnedFd> = (0..stage::GUESTS).map(|_| File::open("/dev/null").unwrap().into()).collect();
    let settings = DatapathSettings { workers: WORKERS, ..DatapathSettings::default() };
    lab.datapath.apply(now, attachments.collect(), some, settings).unwrap();
}

/// What the two threads share.
#[derive(Default)]
struct Shared {
    /// Twice the epoch that holds, and one more while the next is applied.
    state: AtomicU64,
    /// Bursts that came to their end under one epoch, counted anew for each.
    bursts: AtomicU64,
    over: AtomicBool,
    /// Held by who must not be disturbed: a change, a handshake.
    still: Mutex<()>,
}

/// Client and server, and what they know of their streams.
struct Traffic {
    client: Driver,
    server: Driver,
    shared: &'static Shared,
    /// Whether the streams that the first policy alone allows are open, as far as they know.
    open: bool,
    /// How often these ended.
    ended: u64,
    /// Datagrams come from a new port each: rules judge them, and no connection.
    port: u16,
}

impl Traffic {
    fn handshake(&mut self, port: u16, to: u16) {
        for (place, frame) in stage::handshake((CLIENT, port), (SERVER, to)) {
            let (from, at) = if place == CLIENT {
                (&mut self.client, &mut self.server)
            } else {
                (&mut self.server, &mut self.client)
            };
            send(from, &frame);
            assert_eq!(receive(at, 1), [frame]);
        }
    }

    /// A burst of all kinds both ways, and what of it may be said whatever epoch holds; returns how many came of what each policy alone
    /// allows: streams, datagrams of the first, datagrams of the second.
    fn burst(&mut self) -> [usize; 3] {
        let mut held = Vec::new();
        for n in 0..STREAMS {
            let ports = [self.port, self.port + 1, self.port + 2];
            self.port = if self.port > 60_000 { 20_000 } else { self.port + 3 };
            for (port, to) in ports.into_iter().zip([NEVER, FIRST, SECOND]) {
                held.push(stage::udp((CLIENT, port), (SERVER, to)));
            }
            held.push(stage::tcp((CLIENT, 3000 + n), (SERVER, FIRST_STREAM), (ACK, 1001, 5001)));
            // What always comes stands behind what may not: once it is there, the others were judged.
            held.push(stage::segment((CLIENT, 1000 + n), (SERVER, WEB), true));
        }
        let back: Vec<Vec<u8>> =
            (0..STREAMS).map(|n| stage::segment((SERVER, WEB), (CLIENT, 1000 + n), false)).collect();
        for (from, frames) in [(&mut self.client, &held), (&mut self.server, &back)] {
            frames.iter().for_each(|frame| assert!(from.pair().transmit(frame), "the ring has room"));
            from.pair().flush();
        }
        assert_eq!(receive(&mut self.client, back.len()), back, "connections that both allow survive");
        let to = |frame: &[u8]| u16::from_be_bytes([frame[36], frame[37]]);
        let is_web = |frame: &[u8]| frame[23] == 6 && to(frame) == WEB;
        let (mut came, end) = (Vec::new(), Instant::now() + DEADLINE);
        while came.iter().filter(|frame: &&Vec<u8>| is_web(frame)).count() < STREAMS.into() {
            assert!(Instant::now() < end, "of {STREAMS} streams that both allow came {came:?}");
            self.server.pair().receive(|_, frame| came.push(frame.to_vec()));
        }
        let web = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            frames.iter().filter(|frame| is_web(frame)).cloned().collect()
        };
        assert_eq!(web(&came), web(&held), "all that both allow, in order");
        let count =
            |protocol, port| came.iter().filter(|frame| frame[23] == protocol && to(frame) == port).count();
        assert_eq!(count(17, NEVER), 0, "what both deny");
        [count(6, FIRST_STREAM), count(17, FIRST), count(17, SECOND)]
    }

    /// Bursts until it is over.
    fn run(mut self) -> Self {
        let all = usize::from(STREAMS);
        while !self.shared.over.load(Ordering::Acquire) {
            let before = self.shared.state.load(Ordering::Acquire);
            let [streams, first, second] = self.burst();
            if before % 2 == 1 || self.shared.state.load(Ordering::Acquire) != before {
                // Either policy may have judged each frame; which ones it ended is not known.
                continue;
            }
            let is_first_policy = is_first(before / 2);
            let expected = if is_first_policy { [all, 0] } else { [0, all] };
            assert_eq!([first, second], expected, "datagrams under the policy of epoch {}", before / 2);
            if !is_first_policy {
                assert_eq!(streams, 0, "what is no longer allowed stops at its next frame");
                self.ended += u64::from(self.open);
                self.open = false;
            } else if self.open {
                assert_eq!(streams, all, "what it allows goes on");
            } else {
                // What ended stays so, until it begins anew.
                assert_eq!(streams, 0);
                let _still = self.shared.still.lock().unwrap();
                if self.shared.state.load(Ordering::Acquire) == before {
                    (0..STREAMS).for_each(|n| self.handshake(3000 + n, FIRST_STREAM));
                    self.open = true;
                }
            }
            self.shared.bursts.fetch_add(1, Ordering::Release);
        }
        self
    }
}

#[test]
fn under_changing_policies_nothing_passes_that_both_deny_and_nothing_is_lost_that_both_allow() {
    let mut lab = Lab::with_workers(&policy(1), WORKERS);
    let [mut client, mut server] = [CLIENT, SERVER].map(|place| lab.attach(place, &Config::default()));
    for (place, guest, other) in [(CLIENT, &mut client, SERVER), (SERVER, &mut server, CLIENT)] {
        let link = Ethernet { src: stage::station(place), dst: MacAddr::BROADCAST, tag: None };
        send(guest, &build::arp_request(link, stage::address(place), stage::address(other)));
        lab.wait(|seen| seen.ports[other].counters.to_port.delivered == 1);
    }
    receive(&mut client, 1);
    receive(&mut server, 1);
    let shared: &'static Shared = Box::leak(Box::default());
    shared.state.store(2, Ordering::Release);
    let mut traffic = Traffic { client, server, shared, open: false, ended: 0, port: 20_000 };
    (0..STREAMS).for_each(|n| traffic.handshake(1000 + n, WEB));
    let running = std::thread::spawn(move || traffic.run());
    for epoch in 2..2 + CHANGES {
        let (end, next) = (Instant::now() + DEADLINE, policy(epoch));
        while shared.bursts.load(Ordering::Acquire) < 3 && !running.is_finished() {
            assert!(Instant::now() < end, "the traffic stopped");
            std::thread::yield_now();
        }
        let _still = shared.still.lock().unwrap();
        shared.state.store(2 * epoch - 1, Ordering::Release);
        apply(&mut lab, &next);
        shared.bursts.store(0, Ordering::Release);
        shared.state.store(2 * epoch, Ordering::Release);
    }
    shared.over.store(true, Ordering::Release);
    let traffic = running.join().expect("nothing passed that may not, nothing was lost that may");
    // The last policy may have no burst to itself.
    assert!(traffic.ended >= CHANGES / 2 - 1, "streams ended {} times", traffic.ended);
    lab.lawful();
}
