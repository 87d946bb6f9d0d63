//! Heads that change between the look and the delivery: addresses, tags and net headers of two frames with unlike fates.

use super::{ATTACKER, Attacker};
use crate::{
    lab::{DEADLINE, access, description, frame, mac, vlan},
    rig::Rig,
    tags::tagged,
};
use std::time::Instant;
use vhost_net_backend::{
    driver::{Config, Descriptor, misbehave::RawRing},
    layout::{DESC_INDIRECT, DESC_NEXT},
    net_header::{self, NetHeader},
};
use vswitch_core::{
    description::{Link, Membership},
    drop_reason::DropReason,
    id::SwitchId,
    vlan::VlanSet,
};
use vswitchd::control::protocol::PortCounters;

/// Slots of the attacker's that hold a frame each; the others hold the second piece, or a table.
const FRAMES: u16 = 128;

/// Bytes of a frame: those of its two versions, and some behind them that stay.
const LENGTHS: [usize; 2] = [60, 1000];

/// Of each of the two fates, so many frames must have been seen.
const ENOUGH: u64 = 10_000;

/// How the attacker's frames lie in its memory.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// In one piece.
    Whole,
    /// In two, the head in both.
    Chained,
    /// In two, behind an indirect descriptor.
    Indirect,
}

/// The first bytes of a chain, in the attacker's two versions: net header, and the head of a frame.
type Versions = [Vec<u8>; 2];

pub(super) fn message(header: [u8; net_header::LEN], frame: Vec<u8>) -> Vec<u8> {
    [header.to_vec(), frame].concat()
}

/// Bytes of a chain before its second piece: net header, both addresses, and half of the EtherType.
const CUT: u32 = net_header::LEN as u32 + 13;

/// Writes every descriptor, once: what changes later is what they point to.
fn lay_out(ring: &RawRing, layout: Layout, message: &[u8]) {
    let len = message.len() as u32;
    for index in 0..FRAMES {
        let addr = ring.fill(index, message);
        let first = Descriptor { addr, len: CUT, flags: DESC_NEXT, next: index + FRAMES };
        let second = Descriptor { addr: addr + u64::from(CUT), len: len - CUT, flags: 0, next: 0 };
        match layout {
            Layout::Whole => ring.set_descriptor(index, Descriptor { addr, len, flags: 0, next: 0 }),
            Layout::Chained => {
                ring.set_descriptor(index, first);
                ring.set_descriptor(index + FRAMES, second);
            }
            Layout::Indirect => {
                let addr = ring.fill_table(index + FRAMES, &[Descriptor { next: 1, ..first }, second]);
                ring.set_descriptor(index, Descriptor { addr, len: 32, flags: DESC_INDIRECT, next: 0 });
            }
        }
    }
}

/// Rewrites the attacker's frames, of so many bytes each, from one version to the other and back while they are switched, until there were enough of both
/// fates. Each frame that arrives must fit the guest that it arrives at.
pub(super) fn race(
    mut rig: Rig,
    lengths: &[usize],
    versions: &Versions,
    fits: impl Fn(usize, &NetHeader, &[u8]) -> bool,
    fates: impl Fn(&[PortCounters]) -> [u64; 2],
) {
    let ring = rig.guests[ATTACKER].raw_ring(1).unwrap();
    let layouts = [Layout::Whole, Layout::Chained, Layout::Indirect];
    let mut before = [0; 2];
    for (layout, len) in layouts.into_iter().flat_map(|layout| lengths.iter().map(move |len| (layout, *len)))
    {
        let mut whole = versions[0].clone();
        whole.resize(net_header::LEN + len, 0);
        lay_out(&ring, layout, &whole);
        let attacker = {
            let (ring, versions) = (rig.guests[ATTACKER].raw_ring(1).unwrap(), versions.clone());
            Attacker::start(move |round| {
                (0..FRAMES).for_each(|slot| {
                    ring.fill(slot, &versions[(round % 2) as usize]);
                });
            })
        };
        let end = Instant::now() + DEADLINE;
        loop {
            rig.burst(&ring, FRAMES);
            for (place, guest) in rig.guests.iter_mut().enumerate().skip(1) {
                guest.pair.receive(|header, frame| {
                    assert_eq!((header.flags, header.gso_type, header.num_buffers), (0, 0, 1));
                    assert_eq!(&frame[6..12], mac(ATTACKER).octets(), "{layout:?}");
                    assert!(
                        fits(place, header, frame),
                        "{layout:?}, {len} bytes: port {place} got what is not for it: {:02x?}",
                        &frame[..18]
                    );
                });
                guest.pair.flush();
                assert_eq!(guest.pair.fault(), None);
            }
            let counters: Vec<_> = (0..rig.guests.len()).map(|place| rig.counters_of(place)).collect();
            let seen = fates(&counters);
            if (0..2).all(|fate| seen[fate] - before[fate] >= ENOUGH) {
                before = seen;
                break;
            }
            assert!(
                Instant::now() < end,
                "{layout:?}, {len} bytes: not enough of both: {seen:?} of {before:?}"
            );
        }
        attacker.end();
    }
    assert!((0..rig.guests.len()).all(|place| rig.fault_of(place).is_none()));
}

/// A trunk of VLAN `number` alone: all that leaves it is tagged.
fn trunk_of(number: &[u16]) -> Link {
    let mut vlans = VlanSet::empty();
    number.iter().for_each(|number| vlans.insert(vlan(*number)));
    Link::Switch { switch: SwitchId::new(0), vlans: Membership::Trunk { vlans, native: None } }
}

#[test]
fn no_guest_gets_a_frame_that_was_judged_as_anothers() {
    let mut rig = Rig::new(&description(&[access(10), access(10), access(10)]), &Config::default());
    [1, 2].into_iter().for_each(|place| rig.teach(place, vlan(10), mac(place.into())));
    let to = |place| message([0; net_header::LEN], frame(mac(place), mac(ATTACKER), 60, 1));
    race(
        rig,
        &LENGTHS,
        &[to(1), to(2)],
        |place, _, frame| frame[..6] == mac(place).octets(),
        |ports| [1, 2].map(|place: usize| ports[place].to_port.delivered),
    );
}

#[test]
fn a_tag_that_appears_behind_the_look_stays_outside() {
    let mut rig = Rig::new(&description(&[access(10), access(10), access(20)]), &Config::default());
    rig.teach(1, vlan(10), mac(1));
    rig.teach(2, vlan(20), mac(1));
    // The same but for the EtherType: bytes of the one's payload are the other's VLAN, 20.
    let smuggled = tagged(frame(mac(1), mac(ATTACKER), 60, 1), Some(20));
    let mut plain = smuggled.clone();
    plain[12..14].copy_from_slice(&[0x88, 0xb5]);
    let header = [0; net_header::LEN];
    race(
        rig,
        &LENGTHS,
        &[message(header, plain), message(header, smuggled)],
        |place, _, frame| place == 1 && frame[12..14] != [0x81, 0x00],
        |ports| {
            let dropped = &ports[ATTACKER].from_port.dropped;
            assert!(dropped.keys().all(|reason| *reason == DropReason::TaggedOnAccess), "{dropped:?}");
            [ports[1].to_port.delivered, dropped.values().sum()]
        },
    );
}

#[test]
fn no_vlan_gets_a_frame_that_was_judged_as_anothers() {
    // The same station in both VLANs, so that the tag alone decides.
    let ports = [trunk_of(&[10, 20]), trunk_of(&[10]), trunk_of(&[20])];
    let mut rig = Rig::new(&description(&ports), &Config::default());
    rig.teach(1, vlan(10), mac(1));
    rig.teach(2, vlan(20), mac(1));
    let of = |number| {
        let frame = tagged(frame(mac(1), mac(ATTACKER), 60, 1), Some(number));
        message([0; net_header::LEN], frame)
    };
    race(
        rig,
        &LENGTHS,
        &[of(10), of(20)],
        |place, _, frame| frame[12..16] == [0x81, 0, 0, 10 * place as u8],
        |ports| [1, 2].map(|place: usize| ports[place].to_port.delivered),
    );
}

#[test]
fn a_net_header_that_asks_behind_the_look_is_asked_for_nothing() {
    let mut rig = Rig::new(&description(&[access(10), access(10)]), &Config::default());
    rig.teach(1, vlan(10), mac(1));
    let with = |header| message(header, frame(mac(1), mac(ATTACKER), 60, 1));
    let asks =
        NetHeader { flags: net_header::F_NEEDS_CSUM, gso_type: 1, num_buffers: 7, ..NetHeader::plain(0) };
    race(
        rig,
        &LENGTHS,
        &[with([0; net_header::LEN]), with(asks.to_bytes())],
        |place, header, _| place == 1 && *header == NetHeader::plain(1),
        |ports| {
            let dropped = &ports[ATTACKER].from_port.dropped;
            assert!(dropped.keys().all(|reason| *reason == DropReason::BadNetHeader), "{dropped:?}");
            [ports[1].to_port.delivered, dropped.values().sum()]
        },
    );
}
