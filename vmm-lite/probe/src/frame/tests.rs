//! Frames: round trips, cuts, garbage, noise.

use super::*;
use crate::{Ask, AskId, Request, answer::*, ask::*};
use alloc::{string::String, vec, vec::Vec};
use core::{net::IpAddr, time::Duration};
use proptest::prelude::*;

fn decode_all<M: DeserializeOwned>(pieces: &[&[u8]]) -> Vec<Result<M, FrameError>> {
    let mut decoder = Decoder::new();
    pieces.iter().flat_map(|piece| decoder.push(piece)).collect()
}

fn messages<M: DeserializeOwned>(bytes: &[u8]) -> Vec<M> {
    decode_all(&[bytes]).into_iter().filter_map(Result::ok).collect()
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Any),
        any::<[u8; 6]>().prop_map(|mac| Source::Interface(crate::Mac::new(mac))),
        any::<IpAddr>().prop_map(Source::Address),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..600);
    prop_oneof![
        (any::<u16>(), any::<String>()).prop_map(|(version, name)| Request::Hello(Hello { version, name })),
        Just(Request::Report),
        (any::<IpAddr>(), source(), any::<u16>(), any::<Duration>()).prop_map(|(dst, from, count, time)| {
            Request::Ping(Ping { dst, from, count, payload: count, interval: time, timeout: time })
        }),
        (any::<IpAddr>(), any::<u16>(), source(), bytes()).prop_map(|(dst, port, from, payload)| {
            Request::UdpEcho(UdpEcho { dst: (dst, port).into(), from, payload, timeout: Duration::ZERO })
        }),
        (any::<[u8; 6]>(), bytes()).prop_map(|(mac, frame)| {
            Request::SendFrame(SendFrame { interface: crate::Mac::new(mac), frame })
        }),
        (prop::collection::vec(any::<String>(), 0..4), bytes())
            .prop_map(|(argv, stdin)| Request::Exec(Exec { argv, stdin, timeout: Duration::MAX })),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    (any::<u32>(), request()).prop_map(|(id, request)| Ask { id: AskId::new(id), request })
}

proptest! {
    /// However a stream is cut, and whatever noise without a zero stands between its frames, every message arrives.
    #[test]
    fn messages_survive_cuts_and_garbage(
        asks in prop::collection::vec((prop::collection::vec(1u8.., 0..50), ask()), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut stream = Vec::new();
        for (garbage, ask) in &asks {
            stream.extend(garbage);
            stream.extend(encode(ask).unwrap());
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        let arrived = decode_all(&pieces);
        let damaged = arrived.iter().filter(|found| found.is_err()).count();
        prop_assert_eq!(damaged, asks.iter().filter(|(garbage, _)| !garbage.is_empty()).count());
        let asked: Vec<Ask> = asks.into_iter().map(|(_, ask)| ask).collect();
        prop_assert_eq!(arrived.into_iter().filter_map(Result::ok).collect::<Vec<Ask>>(), asked);
    }

    /// Noise is never a message, and never stops the next one.
    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..2000), ask in ask()) {
        let mut stream = noise;
        stream.extend(encode(&ask).unwrap());
        prop_assert_eq!(messages::<Ask>(&stream), vec![ask]);
    }

    /// A frame that lost or changed a byte is not taken for another.
    #[test]
    fn damage_is_seen(ask in ask(), at: prop::sample::Index, change in 1u8..) {
        let mut frame = encode(&ask).unwrap();
        let at = 1 + at.index(frame.len() - 2);
        frame[at] ^= change;
        prop_assert_eq!(messages::<Ask>(&frame), vec![]);
        frame.remove(at);
        prop_assert_eq!(messages::<Ask>(&frame), vec![]);
    }

    /// The reader of messages meets any bytes under a right CRC: those of another version, or of an enemy.
    #[test]
    fn any_payload_under_a_right_crc(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = payload;
        let crc = CRC.checksum(&bytes);
        bytes.extend(crc.to_le_bytes());
        let mut frame = cobs::encode_vec(&bytes);
        frame.push(0);
        for found in decode_all::<FromGuest>(&[&frame]) {
            prop_assert!(matches!(found, Ok(_) | Err(FrameError::Unknown)), "{:?}", found);
        }
    }
}

#[test]
fn every_kind_of_answer_round_trips() {
    let answers = [
        Answer::Report(vec![InterfaceReport {
            name: "eth0".into(),
            mac: crate::Mac::new([2, 0, 0, 0, 0, 1]),
            addresses: vec!["10.0.0.1/24".parse().unwrap(), "fe80::1/64".parse().unwrap()],
            link_up: true,
            counters: Counters { received_frames: 1, sent_bytes: u64::MAX, ..Counters::default() },
        }]),
        Answer::Ping(Err(Unreachable::NoNeighbour)),
        Answer::Ping(Ok(Echoes { sent: 3, round_trips: vec![Duration::from_micros(80)] })),
        Answer::Connect(Contact::Answered(Duration::from_micros(12))),
        Answer::Sent(Err(SendFailed::NotConnected(Contact::Refused))),
        Answer::Exec(Executed {
            end: End::Killed(9),
            stdout: vec![0; MAX_OUTPUT],
            stderr: vec![1; MAX_OUTPUT],
            cut: 7,
        }),
        Answer::Refused(Refusal::System("no".into())),
    ];
    for answer in answers {
        let message = FromGuest::Answer { id: AskId::new(7), answer };
        assert_eq!(messages::<FromGuest>(&encode(&message).unwrap()), [message]);
    }
}

#[test]
fn echoes_are_summed_up() {
    let echoes = Echoes { sent: 3, round_trips: [3, 1, 2].map(Duration::from_millis).to_vec() };
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!((echoes.received(), echoes.min(), echoes.average(), echoes.max()), (3, ms(1), ms(2), ms(3)));
    assert_eq!(Echoes::default().average(), None);
}

#[test]
fn a_message_has_a_greatest_length_and_the_decoder_no_more_memory_than_that() {
    let of_length = |stdin: usize| Ask {
        id: AskId::new(0),
        request: Request::Exec(Exec { argv: vec![], stdin: vec![7; stdin], timeout: Duration::ZERO }),
    };
    let greatest = (0..=MAX_MESSAGE).rev().find(|len| encode(&of_length(*len)).is_ok()).unwrap();
    let frame = encode(&of_length(greatest)).unwrap();
    assert_eq!(messages::<Ask>(&frame), [of_length(greatest)]);

    let mut decoder = Decoder::<Ask>::new();
    for _ in 0..100 {
        assert_eq!(decoder.push(&[1; 10_000]).count(), 0);
        assert!(decoder.frame.capacity() <= 2 * MAX_FRAME);
    }
    let found: Vec<_> = decoder.push(&frame).collect();
    assert_eq!(found, [Err(FrameError::TooLong), Ok(of_length(greatest))]);
}
