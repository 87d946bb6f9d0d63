//! IEEE 802.1Q as a table: every way in, every way out, and the bytes that leave.

use crate::support::lab::{Lab, access, copy, dropped, frame, mac, trunk};
use vswitch_core::{
    build::{self, Ethernet},
    decide::{Fate, TagEdit},
    description::Membership,
    drop_reason::DropReason::{self, TaggedOnAccess, UntaggedOnTrunk, VlanNotMember},
    head::{HEAD_BYTES, Head},
    vlan::Tci,
};

/// Tags as they come in: none, priority 5 without a VLAN, and priority 5 in VLANs 10, 20, 30 and 4095.
const NONE: Option<u16> = None;
const PRIORITY: Option<u16> = Some(0xa000);
const V10: Option<u16> = Some(0xa00a);
const V20: Option<u16> = Some(0xa014);
const V30: Option<u16> = Some(0xa01e);
const V4095: Option<u16> = Some(0xafff);

/// What becomes of a frame that comes in with this tag on such a port, where the other port is a trunk of 10 and 20.
#[test]
fn admission() {
    let to_10 = |tag: Option<u16>| match tag {
        None => Ok(TagEdit::Push(Tci::from_bits(10))),
        Some(0xa000) => Ok(TagEdit::Rewrite(Tci::from_bits(0xa00a))),
        Some(_) => Ok(TagEdit::Keep),
    };
    let rows: &[(Membership, Option<u16>, Result<TagEdit, DropReason>)] = &[
        (access(10), NONE, to_10(NONE)),
        (access(10), PRIORITY, to_10(PRIORITY)),
        (access(10), V10, Err(TaggedOnAccess)),
        (access(10), V20, Err(TaggedOnAccess)),
        (access(10), V4095, Err(VlanNotMember)),
        (trunk(&[10, 20], None), NONE, Err(UntaggedOnTrunk)),
        (trunk(&[10, 20], None), PRIORITY, Err(UntaggedOnTrunk)),
        (trunk(&[10, 20], None), V10, to_10(V10)),
        (trunk(&[10, 20], None), V20, Ok(TagEdit::Keep)),
        (trunk(&[10, 20], None), V30, Err(VlanNotMember)),
        (trunk(&[10, 20], None), V4095, Err(VlanNotMember)),
        (trunk(&[10, 20], Some(10)), NONE, to_10(NONE)),
        (trunk(&[10, 20], Some(10)), PRIORITY, to_10(PRIORITY)),
        (trunk(&[10, 20], Some(10)), V10, to_10(V10)),
        (trunk(&[10, 20], Some(10)), V20, Ok(TagEdit::Keep)),
        (trunk(&[10, 20], Some(10)), V30, Err(VlanNotMember)),
    ];
    for (port, tag, expected) in rows {
        let mut bench = Lab::new()
            .switch("sw1")
            .port("in", 0, port.clone())
            .port("out", 0, trunk(&[10, 20], None))
            .bench();
        let expected = match expected {
            Ok(edit) => (Fate::Flooded, vec![copy(1, *edit)]),
            Err(reason) => dropped(*reason),
        };
        assert_eq!(bench.pass(0, 1, 2, *tag), expected, "{tag:x?} into {port:?}");
    }
}

/// How a frame of VLAN 10 leaves by such a port, by the tag that it came with.
#[test]
fn egress() {
    let rewrite = TagEdit::Rewrite(Tci::from_bits(0xa00a));
    let rows: &[(Membership, [Option<TagEdit>; 3])] = &[
        (access(10), [Some(TagEdit::Keep), Some(TagEdit::Pop), Some(TagEdit::Pop)]),
        (access(20), [None; 3]),
        (trunk(&[10], None), [Some(TagEdit::Push(Tci::from_bits(10))), Some(rewrite), Some(TagEdit::Keep)]),
        (
            trunk(&[10, 20], Some(20)),
            [Some(TagEdit::Push(Tci::from_bits(10))), Some(rewrite), Some(TagEdit::Keep)],
        ),
        (trunk(&[10, 20], Some(10)), [Some(TagEdit::Keep), Some(TagEdit::Pop), Some(TagEdit::Pop)]),
        (trunk(&[20, 30], Some(20)), [None; 3]),
    ];
    for (port, edits) in rows {
        for (tag, edit) in [NONE, PRIORITY, V10].into_iter().zip(edits) {
            let mut bench = Lab::new()
                .switch("sw1")
                .port("in", 0, trunk(&[10], Some(10)))
                .port("out", 0, port.clone())
                .bench();
            let expected = match edit {
                Some(edit) => (Fate::Flooded, vec![copy(1, *edit)]),
                None => dropped(DropReason::NoReceiver),
            };
            assert_eq!(bench.pass(0, 1, 2, tag), expected, "{tag:x?} out of {port:?}");
        }
    }
}

#[test]
fn edits_change_the_tag_and_nothing_else() {
    let link = |tag| Ethernet { src: mac(1), dst: mac(2), tag };
    for payload in [46, 170, 400] {
        let payload = vec![0x5a; payload];
        let untagged = build::raw(link(None), 0x88b5, &payload);
        let ten = build::raw(link(Some(Tci::from_bits(10))), 0x88b5, &payload);
        let twenty = build::raw(link(Some(Tci::from_bits(20))), 0x88b5, &payload);
        for (edit, from, to) in [
            (TagEdit::Keep, &ten, &ten),
            (TagEdit::Pop, &ten, &untagged),
            (TagEdit::Push(Tci::from_bits(10)), &untagged, &ten),
            (TagEdit::Rewrite(Tci::from_bits(20)), &ten, &twenty),
        ] {
            let head = &from[..from.len().min(HEAD_BYTES)];
            let mut out = [0; HEAD_BYTES + 4];
            let written = edit.apply(head, &mut out);
            let sent = [&out[..written], &from[head.len()..]].concat();
            assert_eq!(&sent, to, "{edit:?}");
            assert_eq!(edit.frame_len(from.len() as u32), to.len() as u32);
        }
    }
}

#[test]
fn an_edit_of_too_short_a_head_changes_nothing() {
    for len in 0..16 {
        let mut out = [0; HEAD_BYTES + 4];
        assert_eq!(TagEdit::Pop.apply(&[7; 16][..len], &mut out), len);
        assert_eq!(out[..len], [7; 16][..len]);
    }
}

#[test]
fn a_hidden_tag_never_becomes_the_frames_vlan() {
    // pc1 is no member of VLAN 20. It puts a priority tag before a tag of VLAN 20, and hopes that the first one is
    // removed on the trunk whose native VLAN is its own.
    let mut bench = Lab::new()
        .switch("sw1")
        .port("pc1", 0, access(10))
        .port("uplink", 0, trunk(&[10, 20], Some(10)))
        .bench();
    let mut hop = frame(mac(1), mac(2), Some(20));
    hop.splice(12..12, [0x81, 0, 0, 0]);
    let (fate, copies) = bench.send(0, &hop);
    assert_eq!((fate, copies.len()), (Fate::Flooded, 1));
    let mut out = [0; HEAD_BYTES + 4];
    let written = copies[0].outcome.unwrap().apply(&hop, &mut out);
    let left = Head::parse(&out[..written], written as u32).unwrap();
    assert_eq!(left.link.c_tag().unwrap().map(Tci::vid), Some(10), "it stays in VLAN 10");
}

#[test]
fn a_tag_that_is_cut_is_a_runt() {
    let mut bench = Lab::new().switch("sw1").port("a", 0, access(10)).port("b", 0, access(10)).bench();
    let cut = [&mac(2).octets()[..], &mac(1).octets(), &[0x81, 0, 0]].concat();
    assert_eq!(bench.send(0, &cut), dropped(DropReason::Runt));
}

#[test]
fn a_service_tag_is_payload() {
    let mut bench = Lab::new().switch("sw1").port("a", 0, access(10)).port("b", 0, access(10)).bench();
    let mut service = frame(mac(1), mac(2), Some(20));
    service[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(bench.send(0, &service), (Fate::Flooded, vec![copy(1, TagEdit::Keep)]));
}
