//! Tags (K7) and double tagging over a trunk's native VLAN: who is in one VLAN reaches no other.

use super::{Row, hold, verdict};
use crate::support::lab::{Bench, Lab, access, frame, mac, trunk};
use vswitch_core::{
    decide::{Fate, TagEdit},
    drop_reason::DropReason::{Runt, TaggedOnAccess, UntaggedOnTrunk, VlanNotMember},
    head::HEAD_BYTES,
};

/// Two switches whose trunk has VLAN 10 as its native one: `attacker` and `user` in 10, `victim` and `server` in 20, and a recorder on a trunk.
fn two_switches() -> Bench {
    Lab::new()
        .switch("sw1")
        .switch("sw2")
        .port("attacker", 0, access(10))
        .port("user", 1, access(10))
        .port("victim", 1, access(20))
        .port("server", 0, access(20))
        .port("uplink", 1, trunk(&[10, 20], Some(10)))
        .join(0, 1, trunk(&[10, 20], Some(10)))
        .bench()
}

const USER: u16 = 1;
const VICTIM: u16 = 2;
const SERVER: u16 = 3;
const UPLINK: u16 = 4;

/// The tag in which a frame that leaves by a trunk with native VLAN 10 is, as the next switch reads it.
fn vlan_of(sent: &[u8]) -> u16 {
    if sent[12..14] == [0x81, 0] { u16::from_be_bytes([sent[14], sent[15]]) & 0xfff } else { 10 }
}

/// All piles of two and three tags, of C-tags, S-tags and the TPID of before: none takes a frame from VLAN 10 to VLAN 20.
#[test]
fn no_pile_of_tags_leads_into_another_vlan() {
    let tpids = [[0x81, 0], [0x88, 0xa8], [0x91, 0]];
    let tags: Vec<[u8; 4]> = tpids
        .into_iter()
        .flat_map(|tpid| [0u16, 10, 20, 30, 4095].map(|vid| [tpid[0], tpid[1], (vid >> 8) as u8, vid as u8]))
        .collect();
    let (mut passed, mut dropped) = (0, 0);
    for outer in &tags {
        for inner in &tags {
            for more in [&[][..], &[[0x81, 0, 0, 20]]] {
                let mut bench = two_switches();
                let mut hop = frame(mac(1), mac(2), None);
                hop.splice(12..12, [&[*outer, *inner][..], more].concat().concat());
                let (fate, copies) = bench.send(0, &hop);
                let outer_vid = u16::from_be_bytes([outer[2], outer[3]]);
                let refused = match (outer[..2] == [0x81, 0], outer_vid) {
                    (true, 4095) => Some(VlanNotMember),
                    (true, 10 | 20 | 30) => Some(TaggedOnAccess),
                    _ => None,
                };
                if let Some(reason) = refused {
                    assert_eq!(fate, Fate::Dropped(reason), "{outer:x?} {inner:x?}");
                    dropped += 1;
                    continue;
                }
                assert_eq!(fate, Fate::Flooded);
                let to: Vec<u16> = copies.iter().map(|copy| copy.to).collect();
                assert!(!to.contains(&VICTIM) && !to.contains(&SERVER), "{outer:x?} {inner:x?}: {to:?}");
                assert!(to.contains(&USER) && to.contains(&UPLINK), "{to:?}");
                // Nor does what leaves by a trunk read as a frame of another one.
                let at_trunk = copies.iter().find(|copy| copy.to == UPLINK).expect("it is flooded there");
                let mut out = [0; HEAD_BYTES + 4];
                let written = at_trunk.outcome.expect("it leaves").apply(&hop, &mut out);
                assert_eq!(
                    vlan_of(&out[..written]),
                    10,
                    "{outer:x?} {inner:x?} leaves as {:x?}",
                    &out[12..24]
                );
                passed += 1;
            }
        }
    }
    assert!(passed > 100 && dropped > 100, "{passed} {dropped}");
    // Its own members hear one another.
    assert_eq!(two_switches().broadcast(SERVER, 4, None), [VICTIM, UPLINK]);
}

#[test]
fn a_port_takes_frames_of_its_own_vlans() {
    let lab = |vlans| Lab::new().switch("sw1").port("in", 0, vlans).port("out", 0, trunk(&[10, 20], None));
    let tagged = |tag: u16| frame(mac(1), mac(2), Some(tag));
    let plain = || frame(mac(1), mac(2), None);
    let cut = || tagged(10)[..17].to_vec();
    let priority = 0xa000;
    let row = |what: &str, refused, honest| Row::new(what, (0, 1), refused, honest);
    hold(
        || lab(access(10)).bench(),
        [
            row("its own tag", (tagged(10), TaggedOnAccess), plain()),
            row("another's", (tagged(20), TaggedOnAccess), tagged(priority)),
            row("the reserved one", (tagged(4095), VlanNotMember), tagged(0)),
            row("a tag that is cut", (cut(), Runt), plain()),
        ],
    );
    hold(
        || lab(trunk(&[10, 20], None)).bench(),
        [
            row("none", (plain(), UntaggedOnTrunk), tagged(10)),
            row("a priority", (tagged(priority), UntaggedOnTrunk), tagged(priority | 20)),
            row("another's", (tagged(30), VlanNotMember), tagged(20)),
            row("the reserved one", (tagged(4095), VlanNotMember), tagged(10)),
        ],
    );
    hold(
        || lab(trunk(&[10, 20], Some(10))).bench(),
        [row("another's", (tagged(30), VlanNotMember), plain())],
    );
    // An S-tag is payload to a bridge of C-VLANs (IEEE 802.1Q-2018 §5.9): it is in the port's VLAN as any untagged frame is.
    let mut service = tagged(20);
    service[12..14].copy_from_slice(&[0x88, 0xa8]);
    let (_, copies) = lab(access(10)).bench().send(0, &service);
    assert!(matches!(copies[..], [one] if matches!(one.outcome, Ok(TagEdit::Push(tag)) if tag.vid() == 10)));
    assert_eq!(verdict(&mut lab(trunk(&[10], None)).bench(), (0, 1), &service), Err(UntaggedOnTrunk));
}
