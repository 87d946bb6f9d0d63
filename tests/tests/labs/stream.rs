//! A guest with an emulated card beside guests of all sorts: its frames come by QEMU's stream socket, as anybody's may.

use crate::{
    common::{Lab, kvm, real_guests, topology},
    process::{eventually, kill},
};
use controller::api::types::{DatapathView, PingallReport, TransferReport};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixDatagram, UnixStream},
    time::Duration,
};
use vswitchd::control::protocol::PortState;

/// Who answers no pings.
const FOREIGN: [&str; 2] = ["yours:eth0", "other:eth0"];

/// Pings in all directions; those that were not answered.
fn unanswered(lab: &Lab) -> Vec<String> {
    let output = lab.vnet(&["pingall", "--format", "json"]);
    let report: PingallReport = serde_json::from_slice(&output.stdout).expect("a report");
    let cells = report
        .cells
        .into_iter()
        .filter(|cell| cell.rtt_micros.is_none() && !FOREIGN.contains(&cell.dst.as_str()));
    cells.map(|cell| format!("{} -> {}: {:?}", cell.src, cell.dst, cell.error)).collect()
}

/// The next frame that the switch sends to a peer.
fn frame(peer: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    peer.read_exact(&mut length).expect("a length");
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    peer.read_exact(&mut frame).expect("a frame");
    frame
}

/// An ARP request for the e1000 guest from a peer, and the answer that is due.
fn arp(old: [u8; 6], number: u8) -> (Vec<u8>, Vec<u8>) {
    let (me, my_address, its_address) = ([2, 0, 0, 0, 0, number], [10, 0, 20, number], [10, 0, 20, 1]);
    let asked = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &me, &my_address, &[0; 6], &its_address].concat();
    let answer = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &old, &its_address, &me, &my_address].concat();
    let ask = [&[0xff; 6][..], &me, &[8, 6], &asked].concat();
    (ask, [&me[..], &old, &[8, 6], &answer].concat())
}

#[test]
fn an_e1000_guest_a_virtio_guest_a_bundled_guest_a_station_and_a_stream_peer_share_a_vlan() {
    if !real_guests() || !kvm("a bundled guest beside an e1000") {
        return;
    }
    let lab = Lab::new();
    let example = fs::read_to_string(topology("stream.vnet.yaml")).expect("an example");
    let file = lab.write("stream.vnet.yaml", &example).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    let (said, _) = lab.expect(0, &["exec", "old", "--", "readlink", "/sys/class/net/eth0/device/driver"]);
    assert!(said.trim_end().ends_with("/e1000"), "{said}");
    assert_eq!(unanswered(&lab), [""; 0]);
    for (src, dst) in
        [("old", "new"), ("new", "old"), ("old", "lite"), ("lite", "old"), ("old", "st1"), ("st1", "old")]
    {
        let report: TransferReport =
            serde_json::from_value(lab.json(&["transfer", src, dst, "--size", "16"])).expect("a report");
        assert_eq!((&report.sent, report.received.bytes), (&report.received, 16 << 20), "{report:?}");
    }
    let (said, _) = lab.expect(0, &["test", "--running"]);
    assert!(said.contains("3 of 3 expectations hold"), "{said}");

    // A peer that speaks for itself: an ARP request for the e1000 guest, from an address of its own.
    let port = |lab: &Lab| lab.ports().remove("yours:eth0").expect("it is in the file");
    assert_eq!(port(&lab).state, PortState::Waiting, "{:?}", port(&lab));
    let socket = port(&lab).socket.expect("it listens");
    let mut peer = UnixStream::connect(socket).expect("it listens");
    peer.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let old = lab.ports()["old:eth0"].mac.expect("it is a VM of ours").octets();
    let (ask, expected) = arp(old, 0x77);
    peer.write_all(&[&(ask.len() as u32).to_be_bytes()[..], &ask].concat()).expect("it is read");
    while !frame(&mut peer).starts_with(&expected) {}
    assert_eq!(port(&lab).state, PortState::Up);

    // The same by datagrams.
    let ports = lab.ports();
    assert_eq!(ports["other:eth0"].state, PortState::Waiting, "{:?}", ports["other:eth0"]);
    let peer_of_other = UnixDatagram::bind(lab.path("theirs.sock")).expect("a socket");
    peer_of_other.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    lab.port_up("other:eth0");
    let (ask, expected) = arp(old, 0x78);
    peer_of_other.send_to(&ask, lab.path("ours.sock")).expect("it is read");
    let mut into = [0; 2048];
    while peer_of_other.recv(&mut into).is_ok_and(|len| !into[..len].starts_with(&expected)) {}
    assert!(into.starts_with(&expected), "no answer came");
    lab.assert_sound();
    // What no frame is: the port is rid of it and says why, and nobody else notices.
    peer.write_all(&70_000u32.to_be_bytes()).expect("it is read");
    while peer.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
    let why = "a frame of 70000 bytes was announced, and frames have 14 to 65550";
    eventually("that it says why", || port(&lab).detail.ends_with(why).then_some(()));
    assert_eq!(port(&lab).state, PortState::Waiting);
    lab.assert_sound();

    // QEMU listens, so a switch that is started again finds its guest.
    let datapath = || {
        let shown = lab.vnet(&["show", "datapath", "--format", "json"]);
        serde_json::from_slice::<DatapathView>(&shown.stdout).ok()
    };
    let before = datapath().expect("a switch").pid;
    kill(before);
    eventually("another switch", || datapath().filter(|now| now.pid != before));
    lab.expect(0, &["up", "-d", &file]);
    assert_eq!(unanswered(&lab), [""; 0]);
    lab.expect(0, &["down"]);
    lab.assert_gone();
    for socket in ["yours.sock", "ours.sock"] {
        assert!(!lab.path(socket).exists(), "{socket} is left");
    }
}
