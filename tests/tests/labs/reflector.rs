//! What a bundled guest does besides answering: it reflects frames between two interfaces, blasts and counts them, and
//! moves bulk data.

use crate::{
    common::{Lab, kvm},
    process::eventually,
    vmm::{Guest, mac},
};

/// The left and the right VLAN have nothing in common but the guest.
const LAB: &str = "\
version: 1
name: reflected
vlans: { left: { id: 10 }, right: { id: 20 } }
switches: { sw1: {} }
nodes:
  one: { kind: vhost-user, addresses: [10.0.0.1/24] }
  other: { kind: vhost-user, addresses: [10.0.0.2/24] }
  r0: { kind: vhost-user }
  r1: { kind: vhost-user }
  a: { kind: vhost-user }
  b: { kind: vhost-user }
links:
  - [one, sw1]
  - [other, sw1]
  - { endpoints: [a, sw1], vlan: { access: left } }
  - { endpoints: [r0, sw1], vlan: { access: left } }
  - { endpoints: [r1, sw1], vlan: { access: right } }
  - { endpoints: [b, sw1], vlan: { access: right } }
";

fn lab() -> Lab {
    let lab = Lab::new();
    let file = lab.write("reflected.vnet.yaml", LAB);
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);
    lab
}

#[test]
fn a_guest_reflects_between_two_vlans_and_loses_nothing() {
    if !kvm("a bundled guest that reflects") {
        return;
    }
    let lab = lab();
    let mut guest = Guest::attached(&lab, &[("r0", ""), ("r1", "")], "vnet.reflect=eth0,eth1");
    guest.until("eth1: ");
    lab.port_up("r0:eth0");
    lab.port_up("r1:eth0");
    // A guest that gets no CPU for a second still has room in its rings for what comes meanwhile.
    let report = lab.json(&[
        "bench",
        "--between",
        "a",
        "b",
        "--directions",
        "2",
        "--rate",
        "300pps",
        "--frame-size",
        "64,1518",
        "--seconds",
        "1",
        "--repeat",
        "1",
        "--no-limits",
    ]);
    let rows = report["results"].as_array().expect("a row for each size");
    assert_eq!(rows.len(), 2);
    for row in rows {
        let count = |key: &str| row[key].as_u64().expect("a count");
        assert!(count("sent") > 100 && count("received") == count("sent"), "{row}");
        for wrong in ["not_sent", "lost", "reordered", "duplicated", "corrupt", "strayed", "foreign"] {
            assert_eq!(count(wrong), 0, "{wrong}: {row}");
        }
    }
    guest.tell("frames");
    let said = guest.until("eth1 to eth0: ") + &guest.until(" frames");
    let moved = |from: &str| {
        let (_, rest) = said.split_once(from).expect("it was said");
        rest.split(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    let ports = lab.ports();
    assert_eq!(moved("eth0 to eth1: "), ports["r1:eth0"].counters.from_port.frames);
    assert_eq!(moved("eth1 to eth0: "), ports["r0:eth0"].counters.from_port.frames);
    lab.assert_sound();
    assert_eq!(guest.power_off(), Some(0));
}

#[test]
fn a_guest_blasts_frames_and_counts_them() {
    if !kvm("a bundled guest that blasts frames") {
        return;
    }
    let lab = lab();
    let blast = format!("vnet.blast=eth0,to={},bytes=100,count=50000 vnet.sink=eth1", mac(&lab, "other"));
    let mut guest = Guest::attached(&lab, &[("one", ""), ("other", "")], &blast);
    let sent = eventually("all are sent", || {
        let one = lab.ports()["one:eth0"].counters.from_port.clone();
        (one.frames == 50_000).then_some(one)
    });
    assert_eq!(sent.bytes, 50_000 * 100);
    let got = lab.ports()["other:eth0"].counters.to_port.delivered;
    assert!(got > 0, "it is attached before it is sent to for long");
    eventually("the sink has counted all", || {
        guest.tell("frames");
        guest.until("eth0: 50000 frames sent, 0 received");
        guest.until("eth1: 0 frames sent, ");
        (guest.until(" received") == format!("{got} received")).then_some(())
    });
    lab.assert_sound();
    assert_eq!(guest.power_off(), Some(0));
}

#[test]
fn guests_move_bulk_data() {
    if !kvm("bundled guests that move bulk data") {
        return;
    }
    let lab = lab();
    let mut sink = Guest::attached(&lab, &[("one", ",address=10.0.0.1/24")], "vnet.serve=5001");
    sink.until("eth0: ");
    let mut source = Guest::attached(&lab, &[("other", ",address=10.0.0.2/24")], "vnet.ping=10.0.0.1");
    source.until("10.0.0.1 answered after");
    sink.tell("served 5001");
    sink.until("nothing has come to its end yet");
    source.tell("send 10.0.0.1 5001 3000000");
    let sent = source.until(") in ");
    let (_, sum) = sent.split_once("sent 3000000 bytes (checksum ").expect("it says what it sent");
    let sum = sum.get(..16).expect("sixteen digits");
    sink.tell("served 5001");
    sink.until(&format!("got 3000000 bytes (checksum {sum})"));
    // Nobody serves there.
    source.tell("send 10.0.0.1 5002 1");
    source.until("not sent: ");
    lab.assert_sound();
    assert_eq!([sink.power_off(), source.power_off()], [Some(0); 2]);
}
