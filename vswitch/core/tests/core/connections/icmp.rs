//! ICMP: queries are connections, errors are about others; and the facts of frames as they are read.

use super::{ACK, EPOCH, IN, OUT, PORT, SYN, at, scope, table};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use vswitch_core::{
    build::{self, Addresses, Echo, Ethernet},
    firewall::{
        connections::{
            Answer, Common, Connections, Event, Facts, Invalid, Opened, Opening, State, Untracked, V4, V6,
            Version,
        },
        policy::Direction,
    },
    head::{Head, LinkHeader},
    mac::MacAddr,
};

const LINK: Ethernet =
    Ethernet { src: MacAddr::new([2, 0, 0, 0, 0, 1]), dst: MacAddr::new([2, 0, 0, 0, 0, 2]), tag: None };
const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// Inside to outside, of each family.
fn families() -> [Addresses; 2] {
    let v6 = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
    [Addresses::V4(A4, B4), Addresses::V6(v6(1), v6(2))]
}

fn back(addresses: Addresses) -> Addresses {
    match addresses {
        Addresses::V4(src, dst) => Addresses::V4(dst, src),
        Addresses::V6(src, dst) => Addresses::V6(dst, src),
    }
}

fn facts(frame: &[u8], from: Direction) -> Facts {
    let link = LinkHeader::parse(frame, frame.len() as u32).unwrap();
    Facts::of(&link, frame, frame.len() as u32, scope(PORT, 10), from)
}

/// What becomes of a frame under rules that let all be opened from inside.
fn sees(table: &Connections, from: Direction, frame: &[u8]) -> Result<State, String> {
    match facts(frame, from) {
        Facts::Of(key, event) => {
            let digest = table.digest(&key);
            match table.look_up(digest, from, &event, EPOCH, at(1)) {
                Answer::Known { state, .. } => Ok(state),
                Answer::New if from == OUT => {
                    let opening =
                        Opening { key: &key, digest, from, event: &event, opener: from, epoch: EPOCH };
                    assert_eq!(table.open(&opening, at(1)), Opened::New);
                    sees(table, from, frame)
                }
                other => Err(format!("{other:?}")),
            }
        }
        Facts::About(key, quoted) => match table.related(table.digest(&key), from, &quoted, EPOCH, at(1)) {
            Answer::Known { state, .. } => Ok(state),
            other => Err(format!("{other:?}")),
        },
        other => Err(format!("{other:?}")),
    }
}

const UNRELATED: &str = "Invalid(Unrelated)";

/// An ICMP error of `kind` about the IP packet in `about`, of which it quotes so many bytes.
fn error(addresses: Addresses, kind: u8, about: &[u8], quoted: usize) -> Vec<u8> {
    // An echo message of the right length, with another type; checksums are not judged.
    let quotation = &about[14..(14 + quoted).min(about.len())];
    let mut frame = build::echo(LINK, addresses, Echo::Request, 0, 0, quotation);
    frame[if matches!(addresses, Addresses::V4(..)) { 34 } else { 54 }] = kind;
    frame
}

fn unreachable(addresses: Addresses) -> u8 {
    if matches!(addresses, Addresses::V4(..)) { 3 } else { 1 }
}

#[test]
fn an_answer_needs_its_query() {
    for addresses in families() {
        let table = table(64, 64);
        let ask = |addresses, id| build::echo(LINK, addresses, Echo::Request, id, 1, b"x");
        let reply = |addresses, id| build::echo(LINK, addresses, Echo::Reply, id, 1, b"x");
        assert_eq!(sees(&table, IN, &reply(back(addresses), 7)).unwrap_err(), "Invalid(NoConnection)");
        assert_eq!(sees(&table, OUT, &ask(addresses, 7)), Ok(State::Asked));
        assert_eq!(sees(&table, IN, &reply(back(addresses), 8)).unwrap_err(), "Invalid(NoConnection)");
        assert_eq!(sees(&table, IN, &ask(back(addresses), 7)).unwrap_err(), "New", "a query of its own");
        assert_eq!(sees(&table, OUT, &reply(addresses, 7)).unwrap_err(), "Invalid(NoConnection)");
        assert_eq!(sees(&table, IN, &reply(back(addresses), 7)), Ok(State::Answered));
    }
}

#[test]
fn an_error_is_related_to_the_frame_that_it_quotes() {
    for addresses in families() {
        let table = table(64, 64);
        let udp = build::udp(LINK, addresses, (1000, 53), b"question");
        let kind = unreachable(addresses);
        let about = |quoted| error(back(addresses), kind, &udp, quoted);
        assert_eq!(sees(&table, IN, &about(100)).unwrap_err(), UNRELATED, "of nothing yet");
        assert_eq!(sees(&table, OUT, &udp), Ok(State::Unreplied));
        assert_eq!(sees(&table, IN, &about(100)), Ok(State::Unreplied));
        let header = if kind == 3 { 20 } else { 40 };
        assert_eq!(sees(&table, IN, &about(header + 8)), Ok(State::Unreplied), "eight bytes are enough");
        for cut in 0..header + 8 {
            assert_eq!(sees(&table, IN, &about(cut)).unwrap_err(), UNRELATED, "{cut}");
        }
        assert_eq!(
            sees(&table, OUT, &error(addresses, kind, &udp, 100)).unwrap_err(),
            UNRELATED,
            "to the sender's peer"
        );
        let forth = build::udp(LINK, back(addresses), (53, 1000), b"answer");
        assert_eq!(
            sees(&table, OUT, &error(addresses, kind, &forth, 100)),
            Ok(State::Unreplied),
            "about the answer"
        );
        assert_eq!(sees(&table, IN, &error(back(addresses), kind, &forth, 100)).unwrap_err(), UNRELATED);
        let nested = error(addresses, kind, &udp, 100);
        assert_eq!(sees(&table, IN, &error(back(addresses), kind, &nested, 100)).unwrap_err(), UNRELATED);
        let other = build::udp(LINK, addresses, (1001, 53), b"question");
        assert_eq!(sees(&table, IN, &error(back(addresses), kind, &other, 100)).unwrap_err(), UNRELATED);
    }
}

#[test]
fn an_error_comes_from_any_router_but_goes_to_the_sender() {
    let table = table(64, 64);
    let udp = build::udp(LINK, Addresses::V4(A4, B4), (1000, 53), b"question");
    sees(&table, OUT, &udp).unwrap();
    assert_eq!(sees(&table, IN, &error(Addresses::V4(ROUTER4, A4), 11, &udp, 28)), Ok(State::Unreplied));
    assert_eq!(sees(&table, IN, &error(Addresses::V4(ROUTER4, B4), 11, &udp, 28)).unwrap_err(), UNRELATED);
    let mut fragment = udp.clone();
    fragment[21] = 8;
    assert_eq!(
        sees(&table, IN, &error(Addresses::V4(ROUTER4, A4), 11, &fragment, 28)).unwrap_err(),
        UNRELATED
    );
}

/// What pads a frame is no part of the message: else it could say of what the error is, and later fragments something else.
#[test]
fn a_quotation_behind_the_datagram_is_none() {
    let table = table(64, 64);
    let udp = build::udp(LINK, Addresses::V4(A4, B4), (1000, 53), b"question");
    sees(&table, OUT, &udp).unwrap();
    let mut padded = error(Addresses::V4(B4, A4), 3, &udp, 28);
    assert_eq!(sees(&table, IN, &padded), Ok(State::Unreplied));
    padded[16..18].copy_from_slice(&(20u16 + 8 + 20).to_be_bytes());
    assert_eq!(sees(&table, IN, &padded).unwrap_err(), UNRELATED);
}

#[test]
fn an_error_about_tcp_quotes_what_was_sent() {
    // RFC 5927 §4.1.
    for addresses in families() {
        let table = table(64, 64);
        let syn = build::tcp_syn(LINK, addresses, (1000, 80), 5000);
        assert_eq!(sees(&table, OUT, &syn), Ok(State::SynSent));
        let about = |seq| {
            let frame = build::tcp_syn(LINK, addresses, (1000, 80), seq);
            sees(&table, IN, &error(back(addresses), unreachable(addresses), &frame, 48))
        };
        assert_eq!(about(5000), Ok(State::SynSent));
        assert_eq!(about(5001 + 1).unwrap_err(), UNRELATED, "not sent yet");
        assert_eq!(about(5000 + 0x4000_0000).unwrap_err(), UNRELATED);
        assert_eq!(about(5000u32.wrapping_sub(100_000)).unwrap_err(), UNRELATED, "long ago");
        let back_syn = build::tcp_syn(LINK, back(addresses), (80, 1000), 0);
        let forged = error(addresses, unreachable(addresses), &back_syn, 48);
        assert_eq!(sees(&table, OUT, &forged).unwrap_err(), UNRELATED, "the responder sent nothing yet");
    }
}

#[test]
fn what_is_no_connection_says_why() {
    let why = |frame: &[u8]| facts(frame, OUT);
    assert_eq!(why(&build::arp_request(LINK, A4, B4)), Facts::Untracked(Untracked::NotIp));
    let solicitation =
        build::neighbour_solicitation(LINK, "fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
    assert_eq!(why(&solicitation), Facts::Untracked(Untracked::Icmp));
    let mut later = build::udp(LINK, Addresses::V4(A4, B4), (1, 2), b"datagram");
    later[21] = 1;
    assert_eq!(why(&later), Facts::Untracked(Untracked::LaterFragment));
    let udp = build::udp(LINK, Addresses::V4(A4, B4), (1, 2), b"datagram");
    let mut short = udp.clone();
    short[38..40].copy_from_slice(&[0, 7]);
    assert_eq!(why(&short), Facts::Untracked(Untracked::Unparsed));
    let quench = error(Addresses::V4(A4, B4), 4, &udp, 28);
    assert_eq!(why(&quench), Facts::Untracked(Untracked::Icmp), "RFC 6633");
    let cut = error(Addresses::V4(A4, B4), 3, &udp, 27);
    assert_eq!(why(&cut), Facts::Invalid(Invalid::Unrelated));
}

#[test]
fn a_padded_frame_has_no_more_data_than_its_datagram() {
    let mut frame = build::tcp_syn(LINK, Addresses::V4(A4, B4), (1, 2), 9);
    frame[47] = ACK;
    frame.resize(1000, 0);
    let Facts::Of(_, Event::Tcp(segment)) = facts(&frame, OUT) else { panic!("a segment") };
    assert_eq!((segment.len, segment.seq), (0, 9));
}

proptest! {
    /// The short path says what the parser says, of frames of the common kinds with any bytes changed and any length.
    #[test]
    fn the_short_path_says_what_the_parser_says(
        v6: bool, kind in 0..3, out: bool, padding in 0usize..200, cut in 0usize..120,
        changes in proptest::collection::vec((12usize..80, any::<u8>()), 0..4),
    ) {
        let addresses = families()[usize::from(v6)];
        let mut frame = match kind {
            0 => build::udp(LINK, addresses, (1, 2), b"some data"),
            1 => build::tcp_syn(LINK, addresses, (1, 2), 3),
            _ => build::echo(LINK, addresses, Echo::Request, 1, 2, b"data"),
        };
        if kind == 1 {
            frame[if v6 { 67 } else { 47 }] = ACK | if cut % 2 == 0 { 0 } else { SYN };
        }
        frame.resize(frame.len() + padding, 0);
        frame.truncate(frame.len().saturating_sub(cut).max(14));
        for (place, value) in changes {
            if let Some(byte) = frame.get_mut(place) {
                *byte = value;
            }
        }
        let from = if out { OUT } else { IN };
        let link = LinkHeader::parse(&frame, frame.len() as u32).unwrap();
        let bytes = &frame[..frame.len().min(192)];
        let head = Head::behind(link, bytes, frame.len() as u32);
        let parsed = Facts::read(&head, bytes, scope(PORT, 10), from);
        prop_assert_eq!(Facts::of(&link, bytes, frame.len() as u32, scope(PORT, 10), from), parsed);
    }

    /// A frame that is read as one of a flow says what it says by itself, and of no other flow anything.
    #[test]
    fn frames_of_one_flow_are_alike_and_no_others(
        v6: bool, tcp: bool, swap: bool, cut in prop_oneof![8 => Just(0), 1 => 1usize..20],
        changes in proptest::collection::vec((14usize..60, 0u8..8), 0..3),
    ) {
        let addresses = families()[usize::from(v6)];
        // Read as TCP, this data goes on a header that is one.
        let mut first = build::udp(LINK, addresses, (1, 2), &[0x50; 24]);
        if tcp {
            first = build::tcp_syn(LINK, addresses, (1, 2), 3);
            first[if v6 { 67 } else { 47 }] = ACK;
        }
        let mut other = first.clone();
        other.truncate(other.len() - cut);
        if swap {
            other[if v6 { 20 } else { 23 }] = 6;
        }
        for (place, bit) in changes {
            if let Some(byte) = other.get_mut(place) {
                *byte ^= 1 << bit;
            }
        }
        if v6 { alike::<V6>(&first, &other)? } else { alike::<V4>(&first, &other)? }
    }
}

fn alike<V: Version>(first: &[u8], other: &[u8]) -> Result<(), TestCaseError> {
    let read = |frame: &[u8]| Common::read::<V>(14, frame, frame.len() as u32);
    let flow = *read(first).expect("it is of the common kind").flow();
    let of_flow = read(other).filter(|other| *other.flow() == flow).map(|other| *other.event());
    prop_assert_eq!(Common::read_alike::<V>(&first[14..], 14, other, other.len() as u32), of_flow);
    Ok(())
}
