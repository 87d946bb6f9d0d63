//! Captures of a port: what they hold is what was sent and what arrived, and nobody waits for them.

use crate::{
    lab::{DEADLINE, Lab, access, description, frame, mac, receive, send, trunk},
    offloads::{Message, Protocol, Version},
    traffic::Pair,
};
use pcap_parser::{Block, OptionCode, parse_block_le, pcapng::PcapNGOption};
use std::{
    io::Read,
    os::unix::net::UnixStream,
    time::{Duration, SystemTime},
};
use vhost_net_backend::{driver::Config, features};
use vswitch_core::{drop_reason::DropReason, mac::MacAddr};
use vswitchd::control::protocol::CaptureSettings;

/// A captured frame, as another program reads it.
#[derive(Debug, PartialEq)]
struct Seen {
    nanos: u64,
    inbound: bool,
    bytes: Vec<u8>,
    len: u32,
    comment: Option<String>,
}

/// A whole file.
#[derive(Debug)]
struct File {
    seen: Vec<Seen>,
    /// From its statistics: frames captured, frames missed.
    captured: u64,
    missed: u64,
}

fn value<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
    let option = options.iter().find(|option| option.code == OptionCode(code))?;
    Some(&option.value[..option.len.into()])
}

fn number(options: &[PcapNGOption<'_>], code: u16) -> u64 {
    let value = value(options, code).expect("the option is there");
    u64::from_le_bytes(value.try_into().expect("a 64-bit number"))
}

/// Reads a file to its end, which it must have.
fn read(mut from: UnixStream) -> File {
    from.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("the capture ends");
    let (mut rest, mut seen) = (bytes.as_slice(), Vec::new());
    loop {
        let (behind, block) = parse_block_le(rest).expect("a whole block");
        rest = behind;
        match block {
            Block::SectionHeader(_) | Block::InterfaceDescription(_) => {}
            Block::EnhancedPacket(packet) => seen.push(Seen {
                nanos: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
                inbound: value(&packet.options, 2) == Some(&[1, 0, 0, 0]),
                bytes: packet.data[..packet.caplen as usize].to_vec(),
                len: packet.origlen,
                comment: value(&packet.options, 1).map(|text| String::from_utf8(text.to_vec()).unwrap()),
            }),
            Block::InterfaceStatistics(statistics) => {
                assert!(rest.is_empty(), "statistics come last");
                let [captured, missed] = [6, 7].map(|code| number(&statistics.options, code));
                return File { seen, captured, missed };
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Begins to capture port `place`.
fn capture(lab: &mut Lab, place: u16, filter: &str) -> (u32, UnixStream) {
    capture_with(lab, place, |settings| settings.filter = filter.parse().unwrap())
}

fn capture_with(lab: &mut Lab, place: u16, set: impl FnOnce(&mut CaptureSettings)) -> (u32, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let port = lab.datapath.snapshot().unwrap().ports[usize::from(place)].port;
    let filter = "".parse().unwrap();
    let mut settings = CaptureSettings { port, filter, snap_len: 65_550, count: None, seconds: None };
    set(&mut settings);
    (lab.datapath.capture(&settings, theirs.into()).unwrap(), ours)
}

/// The capture is over, and nothing of it is left at the worker.
fn assert_none_left(lab: &Lab) {
    lab.wait(|snapshot| snapshot.workers.iter().all(|worker| worker.captures == 0));
}

#[test]
fn both_ways_are_seen_with_their_fates_and_as_they_were_delivered() {
    let mut lab = Lab::new(&[access(10), trunk(None)]);
    let mut guests = [0, 1].map(|place| lab.attach(place, &Config::default()));
    let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let ((_, one), (_, two)) = (capture(&mut lab, 0, ""), capture(&mut lab, 1, ""));

    let hello = frame(MacAddr::BROADCAST, mac(0), 1500, 1);
    let mut tagged = hello.clone();
    tagged.splice(12..12, [0x81, 0, 0, 10]);
    send(&mut guests[0], &hello);
    assert_eq!(receive(&mut guests[1], 1), [tagged.clone()]);
    // A trunk without a native VLAN takes nothing untagged.
    let untagged = frame(mac(0), mac(1), 60, 2);
    send(&mut guests[1], &untagged);
    lab.wait(|snapshot| !snapshot.ports[1].counters.from_port.dropped.is_empty());
    let mut answer = frame(mac(0), mac(1), 600, 3);
    answer.splice(12..12, [0x81, 0, 0, 10]);
    send(&mut guests[1], &answer);
    let popped = receive(&mut guests[0], 1).remove(0);

    (1..=2).for_each(|number| lab.datapath.end_capture(number).unwrap());
    let (one, two) = (read(one), read(two));
    let told = |file: &File| {
        file.seen
            .iter()
            .map(|seen| (seen.inbound, seen.bytes.clone(), seen.comment.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&one), [(true, hello, None), (false, popped, None)]);
    let reason = Some(format!("dropped: {}", DropReason::UntaggedOnTrunk));
    assert_eq!(told(&two), [(false, tagged, None), (true, untagged, reason), (true, answer, None)]);
    assert_eq!((one.captured, one.missed, two.captured, two.missed), (2, 0, 3, 0));
    for file in [&one, &two] {
        assert!(file.seen.iter().all(|seen| seen.len as usize == seen.bytes.len()));
        assert!(file.seen.is_sorted_by_key(|seen| seen.nanos), "time goes on: {file:?}");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let second = Duration::from_secs(1).as_nanos() as u64;
        assert!(file.seen.iter().all(|seen| (began - second..now + second).contains(&seen.nanos)));
    }
    assert_none_left(&lab);
    lab.lawful();
}

#[test]
fn what_the_switch_finished_or_cut_is_seen_as_it_was_sent() {
    let mut lab = Lab::new(&[access(10), access(10)]);
    let defaults = Config::default();
    let leaving = Config { features: defaults.features | features::NET_HOST_OFFLOADS, ..defaults.clone() };
    let (mut sender, mut receiver) = (lab.attach(0, &leaving), lab.attach(1, &defaults));
    send(&mut receiver, &frame(MacAddr::BROADCAST, mac(1), 60, 0));
    receive(&mut sender, 1);
    let ((_, one), (_, two)) = (capture(&mut lab, 0, ""), capture(&mut lab, 1, ""));
    let large = Message {
        version: Version::V4,
        protocol: Protocol::Tcp,
        len: 4000,
        size: Some(1000),
        unchecked: true,
        ecn: false,
    };
    let (header, bytes) = large.sent(None);
    assert!(sender.pair().transmit_with(&header.to_bytes(), &bytes));
    sender.pair().flush();
    assert_eq!(receive(&mut receiver, 4).len(), 4);
    (1..=2).for_each(|number| lab.datapath.end_capture(number).unwrap());
    for (file, inbound) in [(read(one), true), (read(two), false)] {
        let seen: Vec<_> = file.seen.iter().map(|seen| (seen.inbound, &seen.bytes)).collect();
        assert_eq!(seen, [(inbound, &bytes)]);
    }
    lab.lawful();
}

#[test]
fn a_filter_a_length_and_a_count_are_kept_to() {
    let mut lab = Lab::new(&[access(1), access(1)]);
    let mut guests = [0, 1].map(|place| lab.attach(place, &Config::default()));
    let filter = format!("ether host {} and not ip", mac(0));
    let (_, file) = capture_with(&mut lab, 0, |settings| {
        settings.filter = filter.parse().unwrap();
        (settings.snap_len, settings.count) = (100, Some(3));
    });
    for seed in 0..5 {
        send(&mut guests[0], &frame(mac(1), mac(7), 200, seed));
        send(&mut guests[0], &frame(mac(1), mac(0), 200, seed));
    }
    let file = read(file);
    let whole: Vec<_> = (0..3).map(|seed| frame(mac(1), mac(0), 200, seed)[..100].to_vec()).collect();
    assert_eq!(file.seen.iter().map(|seen| seen.bytes.clone()).collect::<Vec<_>>(), whole);
    assert!(file.seen.iter().all(|seen| seen.len == 200));
    assert_eq!((file.captured, file.missed), (3, 0));
    assert_none_left(&lab);
}

#[test]
fn a_copy_that_found_no_buffer_is_not_among_the_delivered() {
    let mut lab = Lab::new(&[access(1), access(1)]);
    let mut sender = lab.attach(0, &Config::default());
    let _receiver = lab.attach(1, &Config::default());
    let (number, file) = capture(&mut lab, 1, "");
    // Nobody takes frames off the receiver's ring: it is full before these are through.
    let lost = || lab.datapath.snapshot().unwrap().ports[1].counters.to_port.dropped.values().sum::<u64>();
    let mut seed = 0;
    while lost() < 10 {
        if sender.pair().transmit(&frame(mac(1), mac(0), 300, seed)) {
            seed += 1;
        }
        sender.pair().flush();
    }
    lab.wait(|snapshot| snapshot.ports[0].counters.from_port.frames == seed);
    lab.datapath.end_capture(number).unwrap();
    let (file, end) = (read(file), lab.lawful());
    assert_eq!(file.seen.len() as u64, end.ports[1].counters.to_port.delivered);
    assert!(file.seen.iter().all(|seen| !seen.inbound));
}

#[test]
fn who_does_not_read_misses_frames_and_the_guests_miss_none() {
    let mut lab = Lab::new(&[access(1), access(1)]);
    let mut pair = Pair::new(&lab, [0, 1]);
    let (number, file) = capture(&mut lab, 0, "");
    let before = lab.lawful().ports[0].counters.clone();
    // About 100 kB a burst each way, and 4 MiB and what a socket holds is all that there is room for.
    for _ in 0..60 {
        pair.exchange();
    }
    let after = lab.lawful();
    pair.lost_nothing(&after);
    lab.datapath.end_capture(number).unwrap();
    let file = read(file);
    let counters = &after.ports[0].counters;
    let moved = counters.from_port.frames - before.from_port.frames + counters.to_port.delivered
        - before.to_port.delivered;
    assert!(file.missed > 0, "{} of {moved} frames were captured", file.captured);
    assert_eq!(file.captured + file.missed, moved, "each frame is captured or counted");
    assert_eq!(file.seen.len() as u64, file.captured);
    assert_none_left(&lab);
}

#[test]
fn a_client_that_goes_leaves_nothing_and_eight_run_at_a_time() {
    let mut lab = Lab::new(&[access(1), access(1)]);
    let mut pair = Pair::new(&lab, [0, 1]);
    let files: Vec<_> = (0..8).map(|number| capture(&mut lab, number % 2, "")).collect();
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let port = lab.datapath.snapshot().unwrap().ports[0].port;
    let settings =
        || CaptureSettings { port, filter: "".parse().unwrap(), snap_len: 100, count: None, seconds: None };
    let why = lab.datapath.capture(&settings(), theirs.into()).unwrap_err();
    assert!(why.to_string().contains("8 captures run already"), "{why}");
    pair.exchange();
    drop(files);
    // Also those whose port is silent are told by the closed socket.
    assert_none_left(&lab);
    let (number, file) = loop {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // The worker is told before the writer's thread is quite gone.
        if let Ok(number) = lab.datapath.capture(&settings(), theirs.into()) {
            break (number, ours);
        }
    };
    pair.exchange();
    lab.datapath.end_capture(number).unwrap();
    assert_eq!(read(file).captured, 128);
    pair.lost_nothing(&lab.lawful());
}

#[test]
fn a_capture_of_a_silent_port_ends_when_its_time_is_up() {
    let mut lab = Lab::new(&[access(1)]);
    let (_, file) = capture_with(&mut lab, 0, |settings| settings.seconds = Some(1));
    let file = read(file);
    assert_eq!((file.captured, file.missed), (0, 0));
    assert_none_left(&lab);
}

#[test]
fn what_two_workers_deliver_to_one_port_is_in_one_file_each_frame_once_and_each_senders_in_order() {
    const FRAMES: u64 = 2000;
    const RECEIVER: usize = 2;
    let mut lab = Lab::with_workers(&description(&vec![access(10); 3]), 2);
    let mut guests: Vec<_> = (0..3).map(|place| lab.attach(place, &Config::default())).collect();
    send(&mut guests[RECEIVER], &frame(MacAddr::BROADCAST, mac(RECEIVER), 60, 0));
    (0..2).for_each(|sender| assert_eq!(receive(&mut guests[sender], 1).len(), 1));
    let numbered = |sender: usize, number| frame(mac(RECEIVER), mac(sender), 60, number);
    let before = lab.lawful();
    let (capture, file) = capture(&mut lab, RECEIVER as u16, "");
    let (mut sent, mut arrived) = ([0; 2], 0);
    let end = std::time::Instant::now() + DEADLINE;
    while arrived < 2 * FRAMES {
        for (sender, sent) in sent.iter_mut().enumerate() {
            // No more on their way than the receiver has buffers.
            while *sent < FRAMES
                && sent.abs_diff(arrived / 2) < 60
                && guests[sender].pair().transmit(&numbered(sender, *sent))
            {
                *sent += 1;
            }
            guests[sender].pair().flush();
        }
        arrived += guests[RECEIVER].pair().receive(|_, _| {}) as u64;
        assert!(std::time::Instant::now() < end, "{arrived} of {sent:?} arrived");
        std::thread::yield_now();
    }
    lab.datapath.end_capture(capture).unwrap();
    let (file, after) = (read(file), lab.lawful());
    for (worker, earlier) in after.workers.iter().zip(&before.workers) {
        assert!(worker.frames - earlier.frames >= FRAMES, "each moved a sender's: {:#?}", after.workers);
    }
    assert_eq!((file.captured, file.missed, file.seen.len() as u64), (2 * FRAMES, 0, 2 * FRAMES));
    assert!(file.seen.iter().all(|seen| !seen.inbound));
    for sender in 0..2 {
        let its = file.seen.iter().filter(|seen| seen.bytes[6..12] == mac(sender).octets());
        let same = its
            .clone()
            .map(|seen| &seen.bytes)
            .eq(&(0..FRAMES).map(|n| numbered(sender, n)).collect::<Vec<_>>());
        assert!(
            same && its.is_sorted_by_key(|seen| seen.nanos),
            "frames of port {sender}, each once and in order"
        );
    }
    assert_none_left(&lab);
}
