//! What the sender of a rejected frame is told. etherparse reads the answers, and sums their checksums.

use super::{
    ACK, H1, PC1, PC2, SYN_ACK, TCP, WEB1, addresses, allow, link, office, outcome, segment, syn, to_all,
    udp, v4, v6,
};
use crate::support::lab::{Bench, Lab, mac};
use etherparse::{NetHeaders, PacketHeaders, TcpHeader, TransportHeader};
use vswitch_core::{
    build::{self, Addresses, Echo},
    clock::Instant,
    decide::{Copy, Fate},
    drop_reason::DropReason,
    firewall::{
        answer::{Answer, AnswerKind},
        connections::State,
        policy::{Action, Direction, Match, Protocol, Rule},
    },
    head::{FrameView, HEAD_BYTES, LinkHeader},
    mac::MacAddr,
};

const RST: u8 = 0x04;
const FIN_ACK: u8 = 0x11;

fn reject(direction: Direction) -> Rule {
    Rule { action: Action::Reject, ..allow(direction, Match::default()) }
}

/// An office in which `pc2` rejects whatever would come in, and `web1` whatever would go out.
fn lab() -> Lab {
    let mut lab = office();
    lab.description.groups[2].rules = vec![reject(Direction::Ingress)];
    lab.description.groups[0].rules = vec![reject(Direction::Egress)];
    lab
}

/// On which everybody is known but `web1`, which is not let speak.
fn bench() -> Bench {
    let mut bench = lab().bench();
    for n in 2..=4 {
        let question = build::arp_request(to_all(n), v4(n), v4(n % 4 + 1));
        assert_eq!(bench.send(u16::from(n) - 1, &question).0, Fate::Flooded);
    }
    bench
}

/// What the sender is told of a frame that met this fate.
fn answer_to(bench: &Bench, port: u16, frame: &[u8], fate: Fate, copies: &[Copy]) -> Option<Answer> {
    let len = frame.len() as u32;
    let bytes = &frame[..frame.len().min(HEAD_BYTES)];
    let link = LinkHeader::parse(bytes, len).expect("it has a whole header");
    bench.switch().answer(port, &FrameView { link: &link, bytes, len, wire_len: len }, fate, copies)
}

/// Sends the frame, which is rejected, and returns what its sender is told.
fn told(bench: &mut Bench, port: u16, frame: &[u8]) -> Option<Answer> {
    let (fate, copies) = bench.send(port, frame);
    let reason = outcome((fate, copies.clone())).expect_err("it is rejected");
    assert!(reason.is_reject(), "{reason}");
    answer_to(bench, port, frame, fate, &copies)
}

/// The headers of an answer, whose checksums are right, and what stands behind them.
fn read(answer: &Answer) -> (PacketHeaders<'_>, TransportHeader, &[u8]) {
    let packet = PacketHeaders::from_ethernet_slice(answer.bytes()).expect("a packet");
    let transport = packet.transport.clone().expect("a transport header");
    let payload = packet.payload.slice();
    let mut right = transport.clone();
    match packet.net.as_ref().expect("it is IP") {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            right.update_checksum_ipv4(ip, payload).expect("it has one");
        }
        NetHeaders::Ipv6(ip, _) => right.update_checksum_ipv6(ip, payload).expect("it has one"),
        NetHeaders::Arp(_) => panic!("no IP"),
    }
    assert_eq!(transport, right, "its checksum");
    (packet, transport, payload)
}

fn reset(answer: Option<Answer>) -> TcpHeader {
    let answer = answer.expect("an answer");
    assert_eq!(answer.kind(), AnswerKind::Reset);
    let (_, transport, payload) = read(&answer);
    assert!(payload.is_empty());
    transport.tcp().expect("it is TCP")
}

/// Type, code, and what is quoted.
fn error(answer: &Answer) -> (u8, u8, &[u8]) {
    assert_eq!(answer.kind(), AnswerKind::Prohibited);
    let (_, transport, payload) = read(answer);
    let bytes = match transport {
        TransportHeader::Icmpv4(icmp) => icmp.to_bytes().to_vec(),
        TransportHeader::Icmpv6(icmp) => icmp.to_bytes().to_vec(),
        other => panic!("no ICMP: {other:?}"),
    };
    (bytes[0], bytes[1], payload)
}

/// RFC 9293 §3.5.2: what has no acknowledgement is acknowledged; what has one is answered with that number.
#[test]
fn a_segment_is_answered_with_the_reset_that_its_sender_believes() {
    let mut bench = bench();
    // No acknowledgement: sequence number 0, and all of it acknowledged.
    let frame = syn(3, 4, (4000, 80));
    let answer = told(&mut bench, H1, &frame).expect("an answer");
    assert_eq!(answer.bytes()[..12], [mac(3).octets(), mac(4).octets()].concat());
    let (packet, ..) = read(&answer);
    let Some(NetHeaders::Ipv4(ip, _)) = packet.net else { panic!("no IPv4") };
    assert_eq!((ip.source, ip.destination), (v4(4).octets(), v4(3).octets()));
    let tcp = reset(Some(answer));
    assert_eq!((tcp.source_port, tcp.destination_port, tcp.rst, tcp.ack), (80, 4000, true, true));
    assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (0, 1001));

    // IPv6, and a flag that counts as one.
    let six = Addresses::V6(v6(3), v6(4));
    let tcp = reset(told(&mut bench, H1, &build::tcp_syn(link(3, 4), six, (4000, 80), u32::MAX)));
    assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.ack), (0, 0, true));

    // Padding behind the packet is no data.
    let padded = [frame.clone(), vec![0; 6]].concat();
    assert_eq!(reset(told(&mut bench, H1, &padded)).acknowledgment_number, 1001);
    // A RST is never answered.
    let (fate, copies) = bench.send(H1, &segment(frame, RST, 1000, 0));
    assert_eq!(answer_to(&bench, H1, &syn(3, 4, (4000, 80)), fate, &copies), None, "not a rejection");
}

#[test]
fn a_segment_with_an_acknowledgement_is_answered_with_its_number() {
    let mut lab = lab();
    // What no connection knows is rejected only by who wants no connections.
    lab.description.groups[2].rules[0].stateful = false;
    let mut bench = lab.bench();
    bench.send(PC2, &build::arp_request(to_all(4), v4(4), v4(1)));
    bench.send(H1, &build::arp_request(to_all(3), v4(3), v4(1)));
    for flags in [ACK, SYN_ACK, FIN_ACK] {
        let frame = segment(syn(3, 4, (4000, 80)), flags, 7, 99);
        // What belongs to no connection is dropped before a rule could reject it.
        assert_eq!(outcome(bench.send(H1, &frame)), Err(DropReason::InvalidIngress), "{flags:#x}");
        let rejected = [Copy { to: PC2, outcome: Err(DropReason::RejectIngress) }];
        let tcp = reset(answer_to(&bench, H1, &frame, Fate::Unicast, &rejected));
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.ack), (99, 0, false), "{flags:#x}");
        let none = segment(syn(3, 4, (4000, 80)), RST | ACK, 7, 99);
        assert_eq!(answer_to(&bench, H1, &none, Fate::Unicast, &rejected), None);
    }
}

/// RFC 792, RFC 1812 §5.2.7.1, RFC 4443 §3.1.
#[test]
fn a_datagram_is_answered_with_an_error_that_quotes_it() {
    let mut bench = bench();
    let frame = udp(3, 4, (4000, 53));
    let answer = told(&mut bench, H1, &frame).expect("an answer");
    assert_eq!(error(&answer), (3, 13, &frame[14..]));
    let six = Addresses::V6(v6(3), v6(4));
    let frame = build::udp(link(3, 4), six, (4000, 53), &[7; 1000]);
    let answer = told(&mut bench, H1, &frame).expect("an answer");
    // What was copied of it, and no padding.
    assert_eq!(error(&answer), (1, 1, &frame[14..HEAD_BYTES]));
    let padded = [udp(3, 4, (4000, 53)), vec![0; 9]].concat();
    let answer = told(&mut bench, H1, &padded).expect("an answer");
    assert_eq!(error(&answer).2, &padded[14..padded.len() - 9]);
    let ping = build::echo(link(3, 4), addresses(3, 4), Echo::Request, 1, 1, b"hello");
    let answer = told(&mut bench, H1, &ping).expect("an answer");
    assert_eq!(error(&answer), (3, 13, &ping[14..]));
}

/// A rule of its own interface rejects what would leave; and what comes with a tag is answered with that tag.
#[test]
fn who_may_not_send_is_told_the_same() {
    let mut bench = bench();
    let (fate, copies) = bench.send(WEB1, &syn(1, 3, (4000, 80)));
    assert_eq!((fate, copies.len()), (Fate::Dropped(DropReason::RejectEgress), 0));
    let tcp = reset(answer_to(&bench, WEB1, &syn(1, 3, (4000, 80)), fate, &copies));
    assert_eq!((tcp.source_port, tcp.destination_port), (80, 4000));
    // Priority 5, drop eligible, VLAN 0.
    let mut tagged = syn(1, 3, (4000, 80));
    tagged.splice(12..12, [0x81, 0, 0xb0, 0]);
    let (fate, copies) = bench.send(WEB1, &tagged);
    let answer = answer_to(&bench, WEB1, &tagged, fate, &copies).expect("an answer");
    assert_eq!(answer.bytes()[12..18], [0x81, 0, 0xa0, 0, 8, 0], "its priority, and not to be dropped first");
}

/// RFC 1122 §3.2.2, RFC 4443 §2.4 (e).
#[test]
fn nobody_is_told_of_what_must_not_be_answered() {
    let bench = bench();
    let rejected = [Copy { to: PC2, outcome: Err(DropReason::RejectIngress) }];
    let none = |what: &str, frame: &[u8]| {
        assert_eq!(answer_to(&bench, H1, frame, Fate::Unicast, &rejected), None, "{what}");
    };
    let change = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let datagram = udp(3, 4, (4000, 53));
    assert!(answer_to(&bench, H1, &datagram, Fate::Unicast, &rejected).is_some());
    none("to a group", &change(datagram.clone(), 0, &[1, 0, 0x5e, 0, 0, 1]));
    none("from a group", &change(datagram.clone(), 6, &[1, 0, 0x5e, 0, 0, 1]));
    for address in [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255], [127, 0, 0, 1]] {
        none("from no host", &change(datagram.clone(), 26, &address));
        none("to no host", &change(datagram.clone(), 30, &address));
    }
    none("a later fragment", &change(datagram.clone(), 20, &[0, 4]));
    none("a cut header", &change(datagram.clone(), 16, &[0, 24]));
    none("a segment of which more follows", &change(syn(3, 4, (1, 2)), 20, &[0x20, 0]));
    none("ARP", &build::arp_reply(link(3, 4), v4(3), v4(4)));
    let ping = build::echo(link(3, 4), addresses(3, 4), Echo::Request, 1, 1, b"hello");
    for kind in [3, 4, 5, 11, 12] {
        none("an ICMP error", &change(ping.clone(), 34, &[kind]));
    }
    let six = build::echo(link(3, 4), Addresses::V6(v6(3), v6(4)), Echo::Request, 1, 1, b"hello");
    assert!(answer_to(&bench, H1, &six, Fate::Unicast, &rejected).is_some());
    for kind in [1, 2, 3, 4, 100, 130, 131, 133, 134, 135, 136, 137, 143] {
        none("an ICMPv6 error, or of the link only", &change(six.clone(), 54, &[kind]));
    }
    for kind in [[0; 16], [0xff; 16]] {
        none("from no host", &change(six.clone(), 22, &kind));
    }
    // What is dropped without a word has no answer, nor has what passes.
    for outcome in [Err(DropReason::PolicyIngress), Ok(vswitch_core::decide::TagEdit::Keep)] {
        assert_eq!(answer_to(&bench, H1, &datagram, Fate::Unicast, &[Copy { to: PC2, outcome }]), None);
    }
    let dropped = Fate::Dropped(DropReason::PolicyEgress);
    assert_eq!(answer_to(&bench, H1, &datagram, dropped, &[]), None);
}

/// A frame to an address that is not known yet reaches everybody: who is not meant must not end what others begin.
#[test]
fn who_overhears_a_flood_does_not_answer_for_its_receiver() {
    let unknown = MacAddr::new([2, 0, 0, 0, 0, 9]);
    let mut frame = syn(3, 4, (4000, 80));
    frame[..6].copy_from_slice(&unknown.octets());
    let mut lab = lab();
    let mut bench = lab.bench();
    let (fate, copies) = bench.send(H1, &frame);
    assert_eq!(fate, Fate::Flooded);
    assert!(copies.contains(&Copy { to: PC2, outcome: Err(DropReason::RejectIngress) }));
    assert_eq!(answer_to(&bench, H1, &frame, fate, &copies), None);
    // It is the receiver's interface: the file says so.
    lab.description.ports[usize::from(PC2)].as_mut().expect("it is there").mac = Some(unknown);
    let mut bench = lab.bench();
    let (fate, copies) = bench.send(H1, &frame);
    assert_eq!((fate, copies[0].outcome), (Fate::Unicast, Err(DropReason::RejectIngress)));
    reset(answer_to(&bench, H1, &frame, fate, &copies));
}

/// What the sender's own firewall let begin is over when it is told so.
#[test]
fn the_sender_has_no_connection_left_of_what_was_rejected() {
    let mut bench = bench();
    let frame = syn(2, 4, (4000, 80));
    let (fate, copies) = bench.send(PC1, &frame);
    assert_eq!(outcome((fate, copies.clone())), Err(DropReason::RejectIngress));
    let states = |bench: &Bench| {
        let mut states = Vec::new();
        assert_eq!(bench.connections.list(0, 4096, bench.now, |row| states.push(row.state)), None);
        states
    };
    assert_eq!(states(&bench), [State::SynSent]);
    // An imagined answer ends nothing.
    bench.learning = false;
    reset(answer_to(&bench, PC1, &frame, fate, &copies));
    assert_eq!(states(&bench), [State::SynSent]);
    bench.learning = true;
    reset(answer_to(&bench, PC1, &frame, fate, &copies));
    assert!(!states(&bench).contains(&State::SynSent), "{:?}", states(&bench));
    bench.now = Instant::from_nanos(bench.now.as_nanos() + 11_000_000_000);
    assert_eq!(states(&bench), []);
}

/// What the switch says itself is no frame that a rule decides about.
#[test]
fn an_answer_is_no_hit_of_the_senders_rules() {
    let mut lab = lab();
    let any_tcp = || Match { protocol: Protocol::Number(TCP), ..Match::default() };
    let stateless = |direction| Rule { stateful: false, log: true, ..allow(direction, any_tcp()) };
    lab.description.groups[1].rules = [Direction::Egress, Direction::Ingress].map(stateless).into();
    let mut bench = lab.bench();
    bench.send(PC2, &build::arp_request(to_all(4), v4(4), v4(1)));
    reset(told(&mut bench, PC1, &syn(2, 4, (4000, 80))));
    // That of `web1`, both of `pc1`, and that of `pc2`.
    assert_eq!(bench.world.rule_hits().collect::<Vec<_>>(), [0, 1, 0, 1]);
    let logged = bench.world.log().expect("rules log").take();
    assert_eq!(logged.iter().map(|entry| entry.direction).collect::<Vec<_>>(), [Direction::Egress]);
}
