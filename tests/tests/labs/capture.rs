//! `vnet capture`: what stations say to each other is in the file, for any program that reads pcapng, and nothing is left of it.

use crate::{
    common::{Lab, left_out, topology},
    process::{Background, eventually, kill},
};
use pcap_parser::{Block, OptionCode, parse_block_le, pcapng::PcapNGOption};
use rustix::process::Signal;
use std::{fs, process::Command};
use vswitch_core::head::{Head, Network, Transport};

/// A captured frame.
struct Seen {
    nanos: u64,
    inbound: bool,
    head: Head,
    comment: Option<String>,
}

fn value<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
    let option = options.iter().find(|option| option.code == OptionCode(code))?;
    Some(&option.value[..option.len.into()])
}

/// Reads a whole file of an interface: statistics stand at its end, and say that nothing was missed.
fn read(mut file: &[u8], interface: &str) -> Vec<Seen> {
    let (mut seen, mut ended) = (Vec::new(), false);
    while !file.is_empty() {
        assert!(!ended, "the statistics come last");
        let (rest, block) = parse_block_le(file).expect("a whole block");
        file = rest;
        match block {
            Block::SectionHeader(_) => {}
            Block::InterfaceDescription(of) => {
                assert_eq!(value(&of.options, 2), Some(interface.as_bytes()));
                assert_eq!(of.if_tsresol, 9, "nanoseconds");
            }
            Block::EnhancedPacket(packet) => seen.push(Seen {
                nanos: u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low),
                inbound: value(&packet.options, 2) == Some(&[1, 0, 0, 0]),
                head: Head::parse(&packet.data[..packet.caplen.min(192) as usize], packet.origlen)
                    .expect("a frame"),
                comment: value(&packet.options, 1).map(|text| String::from_utf8_lossy(text).into_owned()),
            }),
            Block::InterfaceStatistics(statistics) => {
                assert_eq!(value(&statistics.options, 6), Some(&(seen.len() as u64).to_le_bytes()[..]));
                assert_eq!(value(&statistics.options, 7), Some(&[0; 8][..]), "nothing was missed");
                ended = true;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ended, "the file has an end");
    seen
}

/// Runs `vnet capture` with these arguments until it ends by itself, while stations ping each other.
fn while_they_ping(lab: &Lab, arguments: &[&str]) -> std::process::Output {
    std::thread::scope(|scope| {
        let capture = scope.spawn(|| lab.vnet(&[&["capture"], arguments].concat()));
        while !capture.is_finished() {
            lab.json(&["pingall"]);
        }
        capture.join().expect("vnet runs")
    })
}

fn captures(lab: &Lab) -> u64 {
    lab.json(&["show", "datapath"])["workers"][0]["captures"].as_u64().expect("a number")
}

#[test]
fn a_capture_holds_both_ways_of_what_was_said_and_ends_whole_at_ctrl_c() {
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    let path = lab.write("alice.pcapng", "");
    let file = path.display().to_string();
    let mut capture = Background::start(&lab, &["capture", "alice", "-w", &file, "icmp or arp"]);
    capture.says("capturing alice");
    let mut web = Background::start(&lab, &["capture", "web:eth0", "-w", &format!("{file}.web")]);
    web.says("capturing web:eth0");
    lab.json(&["pingall"]);
    lab.json(&["test", "--running"]);
    assert_eq!(captures(&lab), 2);
    for background in [capture, web] {
        background.signal(Signal::INT);
        let (status, out, err) = background.end();
        assert!(
            status.success() && out.is_empty() && err.contains(" frames captured"),
            "{status} {out} {err}"
        );
    }
    let seen = read(&fs::read(&path).expect("the file"), "alice:eth0");
    let echoes = |inbound, kind| {
        let is = |seen: &&Seen| {
            seen.inbound == inbound && seen.head.transport == Transport::Icmpv4 { kind, code: 0 }
        };
        seen.iter().filter(is).count()
    };
    for (inbound, kind) in [(true, 8), (true, 0), (false, 8), (false, 0)] {
        assert!(echoes(inbound, kind) > 0, "echoes of type {kind}, inbound {inbound}");
    }
    let wanted = |head: &Head| match head.network {
        Network::Arp(_) => true,
        Network::Ipv4(ip) => ip.protocol == 1,
        _ => false,
    };
    assert!(seen.iter().all(|seen| wanted(&seen.head)), "only what the filter asks for");
    assert!(seen.is_sorted_by_key(|seen| seen.nanos), "time goes on");
    let web = read(&fs::read(format!("{file}.web")).expect("the file"), "web:eth0");
    let alone = Some("dropped: no-receiver".to_owned());
    assert!(web.iter().any(|seen| seen.inbound && seen.comment == alone), "nobody else is in web's VLAN");
    read_by_tcpdump(&file, seen.len());
    eventually("no capture is left", || (captures(&lab) == 0).then_some(()));
    lab.assert_sound();
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

/// In `./check --all` another program must read as many frames.
fn read_by_tcpdump(file: &str, frames: usize) {
    if std::env::var("VNET_TIER").as_deref() != Ok("all") {
        return;
    }
    let Ok(read) = Command::new("tcpdump").args(["-n", "-r", file]).output() else {
        return left_out("a capture read by tcpdump: this machine lacks it");
    };
    let lines = String::from_utf8_lossy(&read.stdout).lines().count();
    assert!(read.status.success() && lines == frames, "{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn a_capture_is_printed_or_piped_and_ends_by_itself() {
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    let printed = while_they_ping(&lab, &["alice", "--count", "4", "icmp and host 10.0.10.2"]);
    let text = String::from_utf8(printed.stdout).expect("text");
    assert!(printed.status.success() && text.lines().count() == 4, "{text}");
    assert!(
        text.lines().all(|line| line.contains("IPv4 10.0.10.") && line.contains(" ICMP echo ")),
        "{text}"
    );
    assert!(text.contains(" from alice:eth0 ") && text.contains(" to alice:eth0 "), "{text}");

    let piped = while_they_ping(&lab, &["bob", "-w", "-", "--count", "3", "--snaplen", "60"]);
    assert!(piped.status.success());
    assert_eq!(read(&piped.stdout, "bob:eth0").len(), 3);
    lab.expect(0, &["capture", "web", "--seconds", "1"]);

    let (_, err) = lab.expect(2, &["capture", "alice", "tpc"]);
    assert!(err.contains("error[filter]: `tpc` is not known here; a filter knows arp, icmp"), "{err}");
    let (_, err) = lab.expect(2, &["capture", "nobody"]);
    assert!(err.contains("error[no-such-interface]"), "{err}");
    lab.expect(0, &["down"]);
}

#[test]
fn a_client_that_is_stopped_holds_up_neither_the_guests_nor_the_end_of_the_lab() {
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    let file = lab.write("alice.pcapng", "").display().to_string();
    let mut capture = Background::start(&lab, &["capture", "alice", "-w", &file]);
    capture.says("capturing alice");
    capture.signal(Signal::STOP);
    // Far more than there is room for on the way to it.
    lab.expect(0, &["transfer", "alice", "bob", "--size", "32"]);
    assert_eq!(captures(&lab), 1);
    lab.assert_sound();
    lab.expect(0, &["down"]);
    capture.signal(Signal::CONT);
    let (status, _, err) = capture.end();
    assert_eq!(status.code(), Some(1), "{err}");
    lab.assert_gone();
}

#[test]
fn a_killed_capture_leaves_nothing_and_one_whose_switch_ends_says_so() {
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    let start = |name| {
        let mut capture = Background::start(&lab, &["capture", name, "--snaplen", "100"]);
        capture.says("capturing");
        capture
    };
    let all: Vec<_> = ["alice", "bob", "web", "alice", "bob", "web", "alice", "bob"].map(start).into();
    assert_eq!(captures(&lab), 8);
    let (_, err) = lab.expect(4, &["capture", "web"]);
    assert!(err.contains("8 captures run already"), "{err}");
    all.iter().for_each(|capture| kill(capture.pid()));
    // No frame has to come for that.
    eventually("no capture is left", || (captures(&lab) == 0).then_some(()));

    let capture = start("alice");
    let pid = lab.json(&["show", "datapath"])["pid"].as_u64().expect("a process id");
    kill(pid.try_into().expect("a process id"));
    let (status, _, err) = capture.end();
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("error[capture]: the capture of alice broke off"), "{err}");
}
