//! Frames' ways told step by step, word for word.

use crate::support::lab::{Lab, access, copy, dropped, frame, mac, trunk};
use insta::assert_snapshot;
use std::net::Ipv4Addr;
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    decide::{Copy, Fate, TagEdit},
    description::Link,
    drop_reason::DropReason,
    id::PortId,
    mac::MacAddr,
};

#[test]
fn two_strangers_meet() {
    let mut bench = Lab::new()
        .switch("sw1")
        .port("pc1", 0, access(10))
        .port("web1", 0, access(10))
        .port("pc2", 0, access(10))
        .port("db1", 0, access(20))
        .bench();
    let link = |src, dst| Ethernet { src: mac(src), dst, tag: None };
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));

    let (fate, copies) = bench.send(0, &build::arp_request(link(1, MacAddr::BROADCAST), a, b));
    assert_eq!((fate, copies), (Fate::Flooded, vec![copy(1, TagEdit::Keep), copy(2, TagEdit::Keep)]));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 2), 42 bytes, 02:00:00:00:00:01 -> ff:ff:ff:ff:ff:ff, ARP who has 10.0.0.2, tell 10.0.0.1
    admitted by sw1 to VLAN users (10) as untagged
    sw1 learned 02:00:00:00:00:01 on pc1:eth0
    sw1 flooded it to 2 ports (group address): web1:eth0, pc2:eth0
    "#);

    assert_eq!(
        bench.send(1, &build::arp_reply(link(2, mac(1)), b, a)),
        (Fate::Unicast, vec![copy(0, TagEdit::Keep)])
    );
    assert_snapshot!(bench.story(), @r#"
    came in at web1:eth0 (line 3), 42 bytes, 02:00:00:00:00:02 -> 02:00:00:00:00:01, ARP 10.0.0.2 is at 02:00:00:00:00:02
    admitted by sw1 to VLAN users (10) as untagged
    sw1 learned 02:00:00:00:00:02 on web1:eth0
    FDB of sw1: 02:00:00:00:00:01 is on pc1:eth0
    "#);

    let ping = build::echo(link(1, mac(2)), Addresses::V4(a, b), Echo::Request, 1, 1, &[0; 56]);
    assert_eq!(bench.send(0, &ping), (Fate::Unicast, vec![copy(1, TagEdit::Keep)]));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 2), 98 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:02, IPv4 10.0.0.1 > 10.0.0.2 ICMP echo request
    admitted by sw1 to VLAN users (10) as untagged
    FDB of sw1: 02:00:00:00:00:02 is on web1:eth0
    "#);
}

#[test]
fn a_tag_on_an_access_port_is_explained() {
    let mut bench = Lab::new().switch("sw1").port("pc1", 0, access(10)).port("pc2", 0, access(10)).bench();
    assert_eq!(bench.pass(0, 1, 2, Some(10)), dropped(DropReason::TaggedOnAccess));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 2), 64 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:02, tag 10 priority 0, EtherType 0x88b5
    dropped: tagged-on-access - a tagged frame came in on an access port; line 2 makes it access users (10); mend: make the link a trunk (`vlan: { trunk: [...] }`), or stop tagging in the guest
    "#);
}

#[test]
fn a_frame_crosses_two_trunks_and_comes_back_straight() {
    let mut bench = Lab::new()
        .switch("sw1")
        .switch("sw2")
        .switch("sw3")
        .join(0, 1, trunk(&[10, 20], None))
        .join(2, 1, trunk(&[10], Some(10)))
        .port("pc1", 0, access(10))
        .port("pc2", 2, trunk(&[10], None))
        .bench();
    let push = TagEdit::Push(vswitch_core::vlan::Tci::from_bits(10));
    assert_eq!(bench.pass(0, 1, 2, None), (Fate::Flooded, vec![copy(1, push)]));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 6), 60 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:02, EtherType 0x88b5
    admitted by sw1 to VLAN users (10) as untagged
    sw1 learned 02:00:00:00:00:01 on pc1:eth0
    sw1 floods it, but has no other port in the VLAN itself (unknown destination)
    crossed the trunk sw1 - sw2 (line 4)
    sw2 learned 02:00:00:00:00:01 on sw1
    sw2 floods it, but has no other port in the VLAN itself (unknown destination)
    crossed the trunk sw2 - sw3 (line 5)
    sw3 learned 02:00:00:00:00:01 on sw2
    sw3 flooded it to 1 port (unknown destination): pc2:eth0
    leaves pc2:eth0 (line 7) with tag 10 priority 0
    "#);
    assert_eq!(bench.pass(1, 2, 1, Some(10)), (Fate::Unicast, vec![copy(0, TagEdit::Pop)]));
    assert_snapshot!(bench.story(), @r#"
    came in at pc2:eth0 (line 7), 64 bytes, 02:00:00:00:00:02 -> 02:00:00:00:00:01, tag 10 priority 0, EtherType 0x88b5
    admitted by sw3 to VLAN users (10) as tagged
    sw3 learned 02:00:00:00:00:02 on pc2:eth0
    FDB of sw3: 02:00:00:00:00:01 is on sw2
    crossed the trunk sw3 - sw2 (line 5)
    sw2 learned 02:00:00:00:00:02 on sw3
    FDB of sw2: 02:00:00:00:00:01 is on sw1
    crossed the trunk sw2 - sw1 (line 4)
    sw1 learned 02:00:00:00:00:02 on sw2
    FDB of sw1: 02:00:00:00:00:01 is on pc1:eth0
    leaves pc1:eth0 (line 6) without its tag
    "#);
}

#[test]
fn an_address_that_moves_is_told_with_where_it_was() {
    let mut bench = Lab::new()
        .switch("sw1")
        .switch("sw2")
        .join(0, 1, trunk(&[10], None))
        .port("pc1", 0, access(10))
        .port("pc2", 1, access(10))
        .port("pc3", 1, access(10))
        .bench();
    let mut moves = |port| {
        bench.pass(port, 1, 9, None);
        bench.story().lines().filter(|line| line.contains(" move ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(moves(0), "");
    assert_snapshot!(moves(1), @r#"
    sw2 saw 02:00:00:00:00:01 move from sw1 to pc2:eth0
    sw1 saw 02:00:00:00:00:01 move from pc1:eth0 to sw2
    "#);
    assert_snapshot!(moves(2), @"sw2 saw 02:00:00:00:00:01 move from pc2:eth0 to pc3:eth0");
    let counts = bench.fdb.counts(bench.now);
    assert_eq!((counts.entries, counts.by_switch, counts.moves), (2, vec![1, 1], 3));
}

#[test]
fn a_wire_passes_what_a_switch_would_not() {
    let wire = |peer| Link::Wire { peer: PortId::new(peer, 0) };
    let mut bench = Lab::new().linked("a", wire(1)).linked("b", wire(0)).bench();
    let odd = [
        frame(mac(1), MacAddr::new([1, 0x80, 0xc2, 0, 0, 0]), None),
        frame(MacAddr::BROADCAST, mac(2), Some(4095)),
        frame(MacAddr::default(), mac(2), Some(0)),
        [[2; 12].as_slice(), &[0x81, 0]].concat(),
    ];
    for frame in odd {
        assert_eq!(bench.send(0, &frame), (Fate::Unicast, vec![copy(1, TagEdit::Keep)]));
        assert_eq!(bench.send(1, &frame), (Fate::Unicast, vec![copy(0, TagEdit::Keep)]));
    }
    assert_snapshot!(bench.story(), @r#"
    came in at b:eth0 (line 2), 14 bytes, 02:02:02:02:02:02 -> 02:02:02:02:02:02, VLAN tag (cut short)
    passed the wire to a:eth0 (line 1)
    "#);
    assert_eq!(bench.fdb.counts(bench.now).entries, 0, "a wire learns nothing");
}

#[test]
fn a_switch_refuses_what_no_bridge_forwards() {
    let mut bench = Lab::new()
        .switch("sw1")
        .port("pc1", 0, access(10))
        .port("pc2", 0, access(10))
        .port("off", 0, access(10))
        .but(|port| port.up = false)
        .linked("alone", Link::None)
        .bench();
    for last in 0..16 {
        let reserved = frame(mac(1), MacAddr::new([1, 0x80, 0xc2, 0, 0, last]), None);
        assert_eq!(bench.send(0, &reserved), dropped(DropReason::ReservedMulticast));
    }
    assert_eq!(bench.send(0, &frame(MacAddr::BROADCAST, mac(2), None)), dropped(DropReason::BadSource));
    assert_eq!(bench.send(0, &frame(MacAddr::default(), mac(2), None)), dropped(DropReason::BadSource));
    assert_eq!(bench.pass(2, 3, 1, None), dropped(DropReason::LinkDown));
    assert_snapshot!(bench.story(), @r#"
    came in at off:eth0 (line 4), 60 bytes, 02:00:00:00:00:03 -> 02:00:00:00:00:01, EtherType 0x88b5
    dropped: link-down - the interface's link is down by configuration; line 4 sets it down; mend: set `state: up` on the interface
    "#);
    assert_eq!(bench.pass(3, 4, 1, None), dropped(DropReason::Unlinked));
    assert_snapshot!(bench.story(), @r#"
    came in at alone:eth0 (line 5), 60 bytes, 02:00:00:00:00:04 -> 02:00:00:00:00:01, EtherType 0x88b5
    dropped: unlinked - the interface has no link; line 5 gives it no link; mend: add a link for the interface to the topology file
    "#);
    assert_eq!(bench.pass(99, 4, 1, None), dropped(DropReason::Unlinked), "a port that does not exist");
    assert_eq!(bench.fdb.counts(bench.now).entries, 0, "what is not admitted is not learned");
}

#[test]
fn nobody_hears_a_frame_of_an_empty_vlan_or_its_own() {
    let mut bench = Lab::new().switch("sw1").port("pc1", 0, access(10)).port("pc2", 0, access(20)).bench();
    assert_eq!(bench.pass(0, 1, 2, None), dropped(DropReason::NoReceiver));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 2), 60 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:02, EtherType 0x88b5
    admitted by sw1 to VLAN users (10) as untagged
    sw1 learned 02:00:00:00:00:01 on pc1:eth0
    sw1 floods it, but has no other port in the VLAN itself (unknown destination)
    dropped: no-receiver - no other port carries the frame's VLAN; line 2 makes it access users (10); mend: check that the other interface is in the same VLAN: `vnet show vlans`
    "#);
    assert_eq!(bench.pass(0, 3, 1, None), dropped(DropReason::SamePort));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 2), 60 bytes, 02:00:00:00:00:03 -> 02:00:00:00:00:01, EtherType 0x88b5
    admitted by sw1 to VLAN users (10) as untagged
    sw1 learned 02:00:00:00:00:03 on pc1:eth0
    FDB of sw1: 02:00:00:00:00:01 is on pc1:eth0
    dropped: same-port - the destination is on the port that the frame came from; mend: nothing: the two already hear each other there
    "#);
}

#[test]
fn an_mtu_and_a_port_that_is_down_lose_copies_not_frames() {
    let mut bench = Lab::new()
        .switch("sw1")
        .port("pc1", 0, access(10))
        .port("small", 0, trunk(&[10], None))
        .but(|port| port.mtu = Some(46))
        .port("off", 0, access(10))
        .but(|port| (port.up, port.mac) = (false, Some(mac(9))))
        .bench();
    let fits = frame(mac(1), mac(2), Some(0));
    let push = TagEdit::Rewrite(vswitch_core::vlan::Tci::from_bits(10));
    assert_eq!(
        bench.send(0, &fits),
        (Fate::Flooded, vec![copy(1, push)]),
        "tags do not count, down ports do not hear"
    );
    let too_long = [fits.as_slice(), &[0]].concat();
    let lost = |to, reason| Copy { to, outcome: Err(reason) };
    assert_eq!(bench.send(0, &too_long), (Fate::Flooded, vec![lost(1, DropReason::MtuExceeded)]));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 2), 65 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:02, tag 0 priority 0, EtherType 0x88b5
    admitted by sw1 to VLAN users (10) as priority-tagged
    sw1 flooded it to 1 port (unknown destination): small:eth0
    lost at small:eth0 (line 3): mtu-exceeded - the frame is longer than the destination interface's `mtu`; mend: raise `mtu` on the destination, or lower the sender's
    "#);
    assert_eq!(bench.pass(0, 1, 9, None), (Fate::Unicast, vec![lost(2, DropReason::PortDown)]));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 2), 60 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:09, EtherType 0x88b5
    admitted by sw1 to VLAN users (10) as untagged
    FDB of sw1: 02:00:00:00:00:09 is on off:eth0, as the topology file says
    lost at off:eth0 (line 4): port-down - the destination port is down; mend: see why with `vnet show ports`: its guest is not attached, faulted or has no driver running
    "#);
}

#[test]
fn a_step_survives_the_control_socket() {
    use vswitch_core::trace::{Place, Step};
    let step = Step::Retagged { port: Place { name: "a:eth0".into(), line: 3 }, edit: TagEdit::Pop };
    let text = serde_json::to_string(&step).unwrap();
    assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
    assert_eq!(step.to_string(), "leaves a:eth0 (line 3) without its tag");
}
