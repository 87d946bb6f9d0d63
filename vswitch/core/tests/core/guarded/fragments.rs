//! Fragments: the rest follows the first, and none of the known attacks gets behind it (RFC 1858, RFC 3128, RFC 5722, RFC 6946, RFC 7112).

use super::{
    ACK, H1, PC1, PC2, SYN_ACK, TCP, UDP, WEB1, allow, meet, office, open_office, outcome,
    pieces::{FRAGMENT, OPTIONS, Sender, tcp_start, udp_start},
    segment, syn, to_port, udp,
};
use crate::support::lab::{Bench, Lab, mac, trunk};
use std::{sync::Barrier, time::Duration};
use vswitch_core::{
    build,
    decide::Fate,
    drop_reason::DropReason::{
        self, FragmentEgress, FragmentIngress, FragmentMalformedEgress, FragmentMalformedIngress,
        FragmentOverlapEgress, FragmentOverlapIngress, InvalidIngress, PolicyIngress, UnparsedIngress,
    },
    firewall::{
        fragments::LIFETIME,
        policy::{Action, Direction, Match, Protocol, Rule},
    },
    head::{FrameView, LinkHeader},
    id::{Epoch, PortId},
    trace::NoTrace,
    vlan::Tci,
};

const OK: Result<(), DropReason> = Ok(());

/// The office in which `pc2` lets in what these rules say, and everybody is known.
fn pc2_with(rules: &[Rule]) -> Bench {
    let mut bench = lab_with(rules, 1).bench();
    meet(&mut bench);
    bench
}

fn lab_with(rules: &[Rule], epoch: u64) -> Lab {
    let mut lab = office();
    lab.description.epoch = Epoch::new(epoch);
    lab.description.groups[2].rules = rules.to_vec();
    lab
}

fn let_in(protocol: u8, port: u16) -> Rule {
    allow(Direction::Ingress, to_port(protocol, port))
}

fn any(protocol: u8) -> Match {
    Match { protocol: Protocol::Number(protocol), ..Match::default() }
}

/// `pc2` lets in UDP to port 53 and TCP to port 80.
fn bench() -> Bench {
    pc2_with(&[let_in(UDP, 53), let_in(TCP, 80)])
}

fn send(bench: &mut Bench, port: u16, frame: &[u8]) -> Result<(), DropReason> {
    outcome(bench.send(port, frame))
}

/// A first fragment of 48 bytes to UDP port 53, of a datagram of 112.
fn first(sender: &Sender) -> Vec<u8> {
    sender.piece(0, true, &udp_start((9, 53), 112, 48))
}

#[test]
fn the_rest_follows_the_first() {
    for sender in Sender::families(3, 4, UDP) {
        let mut bench = bench();
        let pieces = |sender: Sender, port| {
            [
                sender.piece(0, true, &udp_start((9, port), 112, 48)),
                sender.piece(48, true, &[1; 48]),
                sender.piece(96, false, &[2; 16]),
            ]
        };
        for piece in &pieces(sender, 53)[..2] {
            assert_eq!(send(&mut bench, H1, piece), OK, "{}", bench.story());
        }
        assert!(
            bench.story().contains("it follows its datagram's first fragment, which passed"),
            "{}",
            bench.story()
        );
        let elsewhere = Sender { addresses: Sender::v4(1, 4, UDP).addresses, ..sender };
        for other in [sender.id(8), elsewhere] {
            assert_eq!(send(&mut bench, H1, &other.piece(48, true, &[1; 48])), Err(FragmentIngress));
        }
        let last = &pieces(sender, 53)[2];
        assert_eq!(send(&mut bench, H1, last), OK);
        assert_eq!(send(&mut bench, H1, last), Err(FragmentIngress), "it was complete");
        // The number may be used again at once; and a first one that is refused has no followers.
        let refused = pieces(sender, 54).map(|piece| send(&mut bench, H1, &piece));
        assert_eq!(refused, [Err(PolicyIngress), Err(FragmentIngress), Err(FragmentIngress)]);
        assert_eq!(pieces(sender, 53).map(|piece| send(&mut bench, H1, &piece)), [OK; 3]);
    }
}

#[test]
fn an_answer_in_fragments_enters_with_its_connection() {
    for sender in Sender::families(3, 2, UDP) {
        let mut bench = open_office();
        let back = Sender::families(2, 3, UDP)[usize::from(sender.is_v6())];
        let answer =
            [sender.piece(0, true, &udp_start((53, 5000), 112, 64)), sender.piece(64, false, &[0; 48])];
        assert_eq!(send(&mut bench, H1, &answer[0]), Err(PolicyIngress), "nobody has asked");
        let question = [back.piece(0, true, &udp_start((5000, 53), 72, 64)), back.piece(64, false, &[0; 8])];
        assert_eq!(question.map(|piece| send(&mut bench, PC1, &piece)), [OK; 2]);
        assert_eq!(send(&mut bench, H1, &answer[0]), OK);
        assert!(bench.story().contains("its guest opened (replied)"), "{}", bench.story());
        assert_eq!(send(&mut bench, H1, &answer[1]), OK);
    }
}

/// A segment is as long as all its fragments: else its acknowledgement would be of what was never sent.
#[test]
fn a_segment_in_fragments_is_known_to_its_connection_as_a_whole() {
    let mut bench = open_office();
    for (port, frame) in [
        (PC1, syn(2, 1, (4000, 80))),
        (WEB1, segment(syn(1, 2, (80, 4000)), SYN_ACK, 5000, 1001)),
        (PC1, segment(syn(2, 1, (4000, 80)), ACK, 1001, 5001)),
    ] {
        assert_eq!(send(&mut bench, port, &frame), OK);
    }
    let sender = Sender::v4(2, 1, TCP);
    let acknowledged = |to| segment(syn(1, 2, (80, 4000)), ACK, 5001, to);
    let begin = tcp_start((4000, 80), ACK, (1001, 5001), 520);
    assert_eq!(send(&mut bench, PC1, &sender.piece(0, true, &begin)), OK);
    assert_eq!(send(&mut bench, WEB1, &acknowledged(1501)), OK);
    assert_eq!(send(&mut bench, WEB1, &acknowledged(2401)), Err(DropReason::InvalidEgress));
    bench.learning = false;
    assert_eq!(send(&mut bench, PC1, &sender.piece(520, false, &[0; 900])), OK);
    bench.learning = true;
    assert_eq!(send(&mut bench, WEB1, &acknowledged(2401)), Err(DropReason::InvalidEgress), "imagined");
    assert_eq!(send(&mut bench, PC1, &sender.piece(520, false, &[0; 900])), OK);
    let mut last = acknowledged(2401);
    let window = last.len() - 6;
    last[window] = 0;
    assert_eq!(send(&mut bench, WEB1, &last), OK);
    // No window is so large: the whole would not pass either.
    let sender = sender.id(8);
    let begin = tcp_start((4000, 80), ACK, (2401, 5001), 520);
    assert_eq!(send(&mut bench, PC1, &sender.piece(0, true, &begin)), OK);
    let far = sender.piece(64_000, false, &[0; 900]);
    assert_eq!(send(&mut bench, PC1, &far), Err(DropReason::InvalidEgress));
}

#[test]
fn rfc_1858_a_tiny_first_fragment_hides_nothing() {
    for sender in Sender::families(3, 4, TCP) {
        let mut bench = bench();
        let header = tcp_start((9, 80), 2, (1, 0), 24);
        for len in [8, 16] {
            let tiny = sender.piece(0, true, &header[..len]);
            assert_eq!(send(&mut bench, H1, &tiny), Err(FragmentMalformedIngress), "{len} bytes");
            let rest = sender.piece(len as u16, true, &header[len..]);
            assert_eq!(send(&mut bench, H1, &rest), Err(FragmentMalformedIngress), "the flags alone");
        }
        assert_eq!(send(&mut bench, H1, &sender.piece(0, true, &header)), OK);
        // With options that are not all there.
        let mut options = header.clone();
        options[12] = 0x70;
        let sender = sender.id(8);
        assert_eq!(send(&mut bench, H1, &sender.piece(0, true, &options)), Err(FragmentMalformedIngress));
        let of_sctp = Sender { protocol: 132, ..sender };
        assert_eq!(send(&mut bench, H1, &of_sctp.piece(0, true, &[0; 8])), Err(FragmentMalformedIngress));
    }
    // Within a common header of SCTP, of which IPv6 does not say where it ends.
    for (sender, offset) in [(Sender::v4(3, 4, 132), 8), (Sender::v6(3, 4, UDP), 16)] {
        let inside = sender.piece(offset, true, &[0; 8]);
        assert_eq!(
            send(&mut pc2_with(&[allow(Direction::Ingress, any(132))]), H1, &inside),
            Err(FragmentMalformedIngress)
        );
    }
}

#[test]
fn rfc_1858_an_overlapping_fragment_writes_over_no_header() {
    for sender in Sender::families(3, 4, TCP) {
        let mut bench = bench();
        let header = tcp_start((9, 80), 2, (1, 0), 48);
        assert_eq!(send(&mut bench, H1, &sender.piece(0, true, &header)), OK);
        for offset in [8, 16] {
            let over = sender.piece(offset, true, &[0; 40]);
            assert_eq!(send(&mut bench, H1, &over), Err(FragmentMalformedIngress), "{offset}");
        }
        assert_eq!(send(&mut bench, H1, &sender.piece(48, true, &[0; 8])), OK, "that was no part of it");
        assert_eq!(send(&mut bench, H1, &sender.piece(24, true, &[0; 40])), Err(FragmentOverlapIngress));
        // RFC 5722: nothing of it passes any more, and no rule is asked.
        assert_eq!(send(&mut bench, H1, &sender.piece(64, false, &[0; 8])), Err(FragmentOverlapIngress));
        assert_eq!(send(&mut bench, H1, &sender.piece(0, true, &header)), Err(FragmentOverlapIngress));
        assert_eq!(send(&mut bench, H1, &sender.id(8).piece(0, true, &header)), OK);
    }
}

/// A second fragment without offset would write other ports over those that were judged.
#[test]
fn rfc_3128_a_second_first_fragment_changes_no_port() {
    for sender in Sender::families(3, 4, TCP) {
        let mut bench = pc2_with(&[let_in(TCP, 80), let_in(TCP, 81)]);
        let start = |port, len| sender.piece(0, true, &tcp_start((9, port), 2, (1, 0), len));
        assert_eq!(send(&mut bench, H1, &start(80, 48)), OK);
        assert_eq!(send(&mut bench, H1, &start(80, 8)), Err(FragmentMalformedIngress), "tiny");
        assert_eq!(send(&mut bench, H1, &start(22, 24)), Err(PolicyIngress));
        assert_eq!(send(&mut bench, H1, &start(81, 24)), Err(FragmentOverlapIngress), "allowed, but another");
        assert_eq!(send(&mut bench, H1, &start(80, 48)), Err(FragmentOverlapIngress), "the same once more");
        assert_eq!(send(&mut bench, H1, &sender.piece(48, true, &[0; 8])), OK, "that did no harm");
        assert_eq!(send(&mut bench, H1, &start(81, 64)), Err(FragmentOverlapIngress), "a longer one does");
        assert_eq!(send(&mut bench, H1, &sender.piece(56, false, &[0; 8])), Err(FragmentOverlapIngress));
    }
}

/// RFC 8200 §4.5 on exact duplicates: a network doubles frames, and the datagram is none the worse.
#[test]
fn a_doubled_fragment_is_lost_alone() {
    for sender in Sender::families(3, 4, UDP) {
        let mut bench = bench();
        let middle = sender.piece(48, true, &[1; 48]);
        assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
        assert_eq!(send(&mut bench, H1, &middle), OK);
        assert_eq!(send(&mut bench, H1, &middle), Err(FragmentOverlapIngress));
        assert_eq!(send(&mut bench, H1, &first(&sender)), Err(FragmentOverlapIngress));
        assert_eq!(send(&mut bench, H1, &sender.piece(96, false, &[2; 16])), OK);
    }
}

#[test]
fn no_fragment_is_behind_the_longest_datagram() {
    for sender in Sender::families(3, 4, UDP) {
        let mut bench = bench();
        assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
        let end = if sender.is_v6() { 65_535 } else { 65_515 };
        let fits = end - 65_504;
        let past = sender.piece(65_504, false, &vec![0; fits + 1]);
        assert_eq!(send(&mut bench, H1, &past), Err(FragmentMalformedIngress));
        assert_eq!(send(&mut bench, H1, &sender.piece(65_528, true, &[0; 8])), Err(FragmentMalformedIngress));
        assert_eq!(send(&mut bench, H1, &sender.piece(65_504, false, &vec![0; fits])), OK);
        assert_eq!(send(&mut bench, H1, &sender.piece(65_504, true, &[0; 8])), Err(FragmentOverlapIngress));
    }
}

#[test]
fn lengths_that_no_fragment_has_pass_nowhere() {
    for sender in Sender::families(3, 4, UDP) {
        // Whatever the rules.
        let mut bench = pc2_with(&[allow(Direction::Ingress, Match::default())]);
        assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
        for (offset, more, len) in
            [(48, true, 0), (48, false, 0), (48, true, 12), (0, true, 12), (0, true, 0)]
        {
            let piece = sender.piece(offset, more, &udp_start((9, 53), 112, len)[..len]);
            assert_eq!(
                send(&mut bench, H1, &piece),
                Err(FragmentMalformedIngress),
                "{len} bytes at {offset}: {}",
                bench.story()
            );
        }
        assert_eq!(send(&mut bench, H1, &sender.piece(48, false, &[0; 13])), OK);
    }
}

#[test]
fn a_fragment_of_a_fragment_passes_nowhere() {
    let sender = Sender::v6(3, 4, UDP);
    let outer = Sender { protocol: FRAGMENT, id: 9, ..sender };
    let inner = [sender.fragment_header(0, true), udp_start((9, 53), 112, 48)].concat();
    let mut bench = pc2_with(&[allow(Direction::Ingress, Match::default())]);
    for (what, frame) in [
        ("a first one", outer.piece(0, true, &inner)),
        ("in an atomic one", outer.piece(0, false, &inner)),
        ("a later one", outer.piece(48, true, &inner)),
        ("behind options", {
            let options = [[FRAGMENT, 0, 1, 4, 0, 0, 0, 0].to_vec(), inner].concat();
            Sender { protocol: OPTIONS, ..outer }.piece(0, true, &options)
        }),
    ] {
        assert_eq!(send(&mut bench, H1, &frame), Err(FragmentMalformedIngress), "{what}: {}", bench.story());
    }
}

#[test]
fn rfc_6946_an_atomic_fragment_is_a_datagram_by_itself() {
    let sender = Sender::v6(3, 4, UDP);
    let mut bench = bench();
    let atomic = |port| sender.piece(0, false, &udp_start((9, port), 48, 48));
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &atomic(53)), OK, "whatever others have its number");
    assert_eq!(send(&mut bench, H1, &atomic(53)), OK);
    assert_eq!(send(&mut bench, H1, &atomic(54)), Err(PolicyIngress));
    assert_eq!(send(&mut bench, H1, &sender.piece(48, false, &[0; 64])), OK);
    assert_eq!(send(&mut bench, H1, &atomic(53)), OK);
    assert_eq!(
        send(&mut bench, H1, &sender.piece(48, false, &[0; 64])),
        Err(FragmentIngress),
        "nothing follows it"
    );
    assert_eq!(
        send(&mut bench, H1, &sender.piece(0, false, &[0; 4])),
        Err(UnparsedIngress),
        "cut, as any other"
    );
}

#[test]
fn rfc_7112_the_first_fragment_has_all_headers() {
    let sender = Sender { protocol: OPTIONS, ..Sender::v6(3, 4, UDP) };
    let options = [UDP, 4, 1, 36].to_vec();
    let chain = [options, vec![0; 36], udp_start((9, 53), 112, 48)].concat();
    let mut bench = bench();
    for len in [8, 32, 40] {
        let cut = sender.piece(0, true, &chain[..len]);
        assert_eq!(send(&mut bench, H1, &cut), Err(FragmentMalformedIngress), "{len} bytes");
    }
    assert_eq!(send(&mut bench, H1, &sender.piece(0, true, &chain[..48])), OK);
    assert_eq!(send(&mut bench, H1, &sender.piece(48, false, &[0; 48])), OK);
    // A chain that reaches behind what is copied of a frame cannot be read, in a fragment or not.
    let long = [vec![UDP, 20, 1, 164], vec![0; 164], udp_start((9, 53), 112, 48)].concat();
    assert_eq!(send(&mut bench, H1, &sender.piece(0, true, &long)), Err(UnparsedIngress));
}

/// RFC 8200 §4.5: Next Header of any fragment but the first means nothing, so it gives no fragment another datagram either.
#[test]
fn the_first_fragment_alone_says_what_an_ipv6_datagram_carries() {
    let sender = Sender::v6(3, 4, UDP);
    let named = |protocol| Sender { protocol, ..sender };
    let mut bench = pc2_with(&[let_in(UDP, 53), allow(Direction::Ingress, any(47))]);
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &named(47).piece(0, true, &[0; 64])), Err(FragmentOverlapIngress));
    let sender = sender.id(8);
    let named = |protocol| Sender { protocol, ..sender };
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &named(47).piece(40, true, &[0; 16])), Err(FragmentOverlapIngress));
    let sender = sender.id(9);
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &Sender { protocol: 6, ..sender }.piece(48, true, &[0; 16])), OK);
    // One that rules let pass by what it calls itself lets no other pass.
    let sender = sender.id(10);
    assert_eq!(send(&mut bench, H1, &Sender { protocol: 47, ..sender }.piece(48, true, &[0; 8])), OK);
    assert_eq!(send(&mut bench, H1, &sender.piece(56, true, &[0; 8])), Err(FragmentIngress));
    // In IPv4 it is another datagram (RFC 791 §3.2).
    let sender = Sender::v4(3, 4, UDP);
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &Sender { protocol: 47, ..sender }.piece(0, true, &[0; 64])), OK);
}

/// Fragments of one sender go in order; of what overtakes the first, that passes which rules without ports allow.
#[test]
fn what_comes_before_the_first_passes_by_rules_without_ports_only() {
    for sender in Sender::families(3, 4, UDP) {
        let later = sender.piece(48, true, &[0; 48]);
        let mut bench = bench();
        assert_eq!(send(&mut bench, H1, &later), Err(FragmentIngress));
        assert!(bench.story().contains("none passed that it follows"), "{}", bench.story());
        assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
        assert_eq!(send(&mut bench, H1, &later), OK, "it was not noted");
        let mut bench = pc2_with(&[allow(Direction::Ingress, any(UDP))]);
        assert_eq!(send(&mut bench, H1, &later), OK);
        assert!(bench.story().contains("group none allows it"), "{}", bench.story());
        assert_eq!(send(&mut bench, H1, &later), Err(FragmentOverlapIngress), "it was");
        assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
        assert_eq!(send(&mut bench, H1, &sender.piece(96, false, &[0; 16])), OK);
        // An early one that the first one overlaps: no receiver puts them together as they were judged.
        let sender = sender.id(8);
        assert_eq!(send(&mut bench, H1, &sender.piece(40, true, &[0; 8])), OK);
        assert_eq!(send(&mut bench, H1, &first(&sender)), Err(FragmentOverlapIngress));
    }
}

#[test]
fn what_a_guest_sends_is_judged_the_same() {
    for sender in Sender::families(2, 3, UDP) {
        let mut lab = office();
        lab.description.groups[1].rules = vec![allow(Direction::Egress, to_port(UDP, 53))];
        let mut bench = lab.bench();
        meet(&mut bench);
        assert_eq!(send(&mut bench, PC1, &sender.piece(48, true, &[0; 8])), Err(FragmentEgress));
        assert_eq!(send(&mut bench, PC1, &sender.piece(0, true, &[0; 4])), Err(FragmentMalformedEgress));
        assert_eq!(send(&mut bench, PC1, &first(&sender)), OK);
        assert_eq!(send(&mut bench, PC1, &first(&sender)), Err(FragmentOverlapEgress));
        let mut of_another = sender.piece(48, true, &[0; 8]);
        let source = if sender.is_v6() { 37 } else { 29 };
        of_another[source] = 1;
        assert_eq!(send(&mut bench, PC1, &of_another), Err(DropReason::AntiSpoof), "also in a fragment");
        assert_eq!(send(&mut bench, PC1, &sender.piece(48, false, &[0; 64])), OK);
    }
}

#[test]
fn a_first_fragment_is_remembered_for_a_while() {
    let sender = Sender::v4(3, 4, UDP);
    let mut bench = bench();
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    bench.now = bench.now + LIFETIME;
    assert_eq!(send(&mut bench, H1, &sender.piece(48, true, &[0; 8])), OK);
    bench.now = bench.now + Duration::from_nanos(1);
    assert_eq!(
        send(&mut bench, H1, &sender.piece(56, true, &[0; 8])),
        Err(FragmentIngress),
        "from the first on"
    );
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK, "its number is free again");
}

#[test]
fn changed_rules_forget_what_passed_under_others() {
    let rules = [let_in(UDP, 53)];
    let sender = Sender::v4(3, 4, UDP);
    let mut bench = pc2_with(&rules);
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    // A change elsewhere is none.
    let mut elsewhere = lab_with(&rules, 2);
    elsewhere.description.groups[0].rules.clear();
    bench.adopt(&elsewhere);
    assert_eq!(send(&mut bench, H1, &sender.piece(48, true, &[0; 8])), OK);
    bench.adopt(&lab_with(&[let_in(UDP, 53), let_in(UDP, 54)], 3));
    assert_eq!(send(&mut bench, H1, &sender.piece(56, true, &[0; 8])), Err(FragmentIngress));
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &sender.piece(56, true, &[0; 8])), OK);
}

#[test]
fn an_imagined_fragment_is_judged_and_not_noted() {
    let sender = Sender::v4(3, 4, UDP);
    let mut bench = pc2_with(&[let_in(UDP, 53), allow(Direction::Ingress, any(47))]);
    let later = sender.piece(48, true, &[0; 8]);
    let early = Sender { protocol: 47, ..sender }.piece(48, true, &[0; 8]);
    bench.learning = false;
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &later), Err(FragmentIngress));
    assert_eq!([0; 2].map(|_| send(&mut bench, H1, &early)), [OK; 2]);
    bench.learning = true;
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    bench.learning = false;
    assert_eq!([0; 2].map(|_| send(&mut bench, H1, &later)), [OK; 2]);
    assert_eq!(send(&mut bench, H1, &first(&sender)), Err(FragmentOverlapIngress));
    assert_eq!(send(&mut bench, H1, &sender.piece(40, true, &[0; 16])), Err(FragmentOverlapIngress));
    assert_eq!(send(&mut bench, H1, &sender.piece(48, false, &[0; 8])), OK);
    bench.learning = true;
    assert_eq!(send(&mut bench, H1, &later), OK, "neither the overlap nor the last one was there");
}

#[test]
fn the_same_number_in_another_vlan_is_another_datagram() {
    let lab = Lab::new()
        .group("none", &[let_in(UDP, 53)])
        .switch("sw1")
        .port("router", 0, trunk(&[10, 20], None))
        .guarded(1, &[0])
        .port("outside", 0, trunk(&[10, 20], None));
    let mut bench = lab.bench();
    let tagged = |vlan| {
        let sender = Sender::v4(2, 1, UDP);
        Sender { link: build::Ethernet { tag: Some(Tci::from_bits(vlan)), ..sender.link }, ..sender }
    };
    let delivered = |(fate, copies): (Fate, Vec<vswitch_core::decide::Copy>)| {
        assert!(matches!(fate, Fate::Unicast | Fate::Flooded));
        copies[0].outcome.map(|_| ())
    };
    assert_eq!(delivered(bench.send(1, &first(&tagged(10)))), OK);
    let later = |vlan| tagged(vlan).piece(48, true, &[0; 8]);
    assert_eq!(delivered(bench.send(1, &later(20))), Err(FragmentIngress));
    assert_eq!(delivered(bench.send(1, &later(10))), OK);
}

/// K14: however many datagrams are begun and never completed, the memory stays as large as it is, and who floods pushes out its own.
#[test]
fn a_flood_of_fragments_pushes_out_nobody_elses() {
    // Without rules for ports egress would let any fragment out.
    let rules = [let_in(UDP, 53), allow(Direction::Egress, to_port(UDP, 53))];
    let mut lab = lab_with(&rules, 1);
    lab.description.groups[1].rules = rules.to_vec();
    let mut bench = lab.bench();
    meet(&mut bench);
    let room = bench.connections.fragments().room(PortId::new(PC2, 0));
    assert!((8..1000).contains(&room), "{room}");
    let victim = Sender::v4(3, 2, UDP).id(0x1_0000);
    let own = Sender::v4(4, 3, UDP).id(0x1_0000);
    assert_eq!(send(&mut bench, H1, &first(&victim)), OK);
    assert_eq!(send(&mut bench, PC2, &first(&own)), OK);
    let flood = Sender::v6(3, 4, UDP);
    let count = 20_000;
    for id in 0..count {
        bench.now = bench.now + Duration::from_micros(1);
        assert_eq!(send(&mut bench, H1, &first(&flood.id(id))), OK);
    }
    assert_eq!(send(&mut bench, H1, &victim.piece(48, true, &[0; 8])), OK, "to another interface");
    assert_eq!(send(&mut bench, PC2, &own.piece(48, true, &[0; 8])), OK, "the other way");
    let known = |bench: &mut Bench, id| send(bench, H1, &flood.id(id).piece(48, true, &[0; 8])).is_ok();
    assert!(known(&mut bench, count - 1), "the last one is remembered");
    let remembered = (0..count).filter(|id| known(&mut bench, *id)).count();
    assert!(remembered <= room && remembered > room / 2, "{remembered} of {count}, room for {room}");
}

/// A port without any room lets in what its rules let in, and forgets it at once.
#[test]
fn without_room_nothing_follows() {
    let mut bench = bench();
    bench.connections.fragments().share(&[]);
    let sender = Sender::v4(3, 4, UDP);
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &sender.piece(48, true, &[0; 8])), Err(FragmentIngress));
    // Once there is, it stays while others come and go that take none of it.
    let ports = [PC2, PC1].map(|port| PortId::new(port, 0));
    bench.connections.fragments().share(&ports);
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    bench.connections.fragments().share(&[ports[0], PortId::new(WEB1, 0)]);
    assert_eq!(send(&mut bench, H1, &sender.piece(48, true, &[0; 8])), OK);
}

/// Rules that drop by port, in front of one that allows all: the first fragment passes, and so do later ones although the rules alone would
/// not know.
#[test]
fn a_rule_with_ports_in_front_of_one_for_all_stops_no_fragment_that_follows() {
    let deny = Rule { action: Action::Drop, ..let_in(UDP, 53) };
    let mut bench = pc2_with(&[deny, allow(Direction::Ingress, any(UDP))]);
    let sender = Sender::v4(3, 4, UDP);
    let other = sender.piece(0, true, &udp_start((9, 54), 112, 48));
    let later = sender.piece(48, true, &[0; 8]);
    assert_eq!(send(&mut bench, H1, &later), Err(FragmentIngress));
    assert_eq!(send(&mut bench, H1, &first(&sender)), Err(PolicyIngress));
    assert_eq!(send(&mut bench, H1, &other), OK);
    assert_eq!(send(&mut bench, H1, &later), OK);
}

/// Of several workers that meet the same fragment at once, one lets it pass.
#[test]
fn a_fragment_passes_once_whichever_worker_it_meets() {
    let mut bench = bench();
    let sender = Sender::v4(3, 4, UDP);
    let mut passed = 0;
    for round in 0..200 {
        let sender = sender.id(round);
        assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
        let frame = sender.piece(48, true, &[0; 48]);
        let link = LinkHeader::parse(&frame, frame.len() as u32).expect("a frame");
        let (switch, start) = (bench.switch(), Barrier::new(3));
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let len = frame.len() as u32;
                        let view = FrameView { link: &link, bytes: &frame, len, wire_len: len };
                        let mut copies = vec![];
                        start.wait();
                        let fate = switch.decide(H1, &view, &mut copies, &mut NoTrace);
                        outcome((fate, copies))
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
        });
        passed += outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        // Who does not get the lock in time loses it, too.
        let lost = outcomes.iter().filter_map(|outcome| outcome.err());
        assert!(lost.into_iter().all(|why| [FragmentOverlapIngress, FragmentIngress].contains(&why)));
    }
    assert_eq!(passed, 200);
}

/// A rest that was let in by nothing but its first fragment never comes from elsewhere: the frame's MAC addresses do not count, as for the
/// receiver.
#[test]
fn another_station_that_speaks_for_the_sender_is_no_other_datagram() {
    let sender = Sender::v4(3, 4, UDP);
    let mut bench = bench();
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    let mut forged = sender.piece(40, true, &[0; 16]);
    forged[6..12].copy_from_slice(&mac(9).octets());
    assert_eq!(send(&mut bench, H1, &forged), Err(FragmentOverlapIngress));
}

#[test]
fn a_whole_datagram_has_nothing_to_do_with_fragments() {
    let mut bench = bench();
    let sender = Sender::v4(3, 4, UDP).id(0);
    assert_eq!(send(&mut bench, H1, &first(&sender)), OK);
    assert_eq!(send(&mut bench, H1, &udp(3, 4, (9, 53))), OK);
    assert_eq!(send(&mut bench, H1, &udp(3, 4, (9, 54))), Err(PolicyIngress));
    let segment = segment(syn(3, 4, (9, 80)), ACK, 5, 6);
    assert_eq!(send(&mut bench, H1, &segment), Err(InvalidIngress));
    assert_eq!(send(&mut bench, H1, &sender.piece(48, true, &[0; 8])), OK);
}
