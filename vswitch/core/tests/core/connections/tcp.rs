//! TCP's rules one by one. Each test says what both ends send; the windows are 1000 bytes.

use super::{ACK, FIN, IN, OUT, RST, SYN, Tcp, at, segment};
use vswitch_core::firewall::connections::{Invalid, Segment, State};

const ESTABLISHED: Result<State, Invalid> = Ok(State::Established);
const FAR: u32 = 0x4000_0000;

#[test]
fn nothing_but_a_syn_opens_a_connection() {
    for flags in 0..64 {
        let tcp = Tcp::new();
        let said = tcp.says(OUT, flags, 100, 0, 0);
        // PSH and URG may go with it.
        if flags & 0x17 == SYN {
            assert_eq!(said, Ok(State::SynSent), "{flags:#x}");
        } else {
            assert!(matches!(said, Err(Invalid::Flags | Invalid::NoConnection)), "{flags:#x}: {said:?}");
            assert_eq!(tcp.state(), None);
        }
    }
}

#[test]
fn flags_that_no_tcp_sends_are_invalid_in_every_state() {
    let bad = [0, FIN, SYN | FIN, SYN | RST, FIN | RST | ACK, 0x29, 0x3f, SYN | FIN | ACK, 0x20, 0x08];
    for flags in bad {
        let tcp = Tcp::established();
        assert_eq!(tcp.says(IN, flags, 501, 101, 0), Err(Invalid::Flags), "{flags:#x}");
        assert_eq!(tcp.state(), Some(State::Established), "{flags:#x}");
        let tcp = Tcp::new();
        tcp.says(OUT, SYN, 100, 0, 0).unwrap();
        assert_eq!(tcp.says(IN, flags, 500, 101, 0), Err(Invalid::Flags), "{flags:#x}");
        assert_eq!(tcp.state(), Some(State::SynSent));
    }
}

#[test]
fn data_goes_as_far_as_the_window() {
    let tcp = Tcp::established();
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 1000), ESTABLISHED);
    assert_eq!(tcp.says(OUT, ACK, 1101, 501, 1), ESTABLISHED, "one byte probes a closed window");
    assert_eq!(tcp.says(OUT, ACK, 1102, 501, 1), Err(Invalid::Sequence));
    assert_eq!(tcp.says(IN, ACK, 501, 1101, 0), ESTABLISHED, "acknowledged: another 1000");
    assert_eq!(tcp.says(OUT, ACK, 1101, 501, 1000), ESTABLISHED);
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 1000), ESTABLISHED, "a retransmission");
    assert_eq!(tcp.says(OUT, ACK, 2100, 501, 0), ESTABLISHED, "a keep-alive");
    let closed = Segment { window: 0, ..segment(ACK, 501, 2101, 0) };
    assert_eq!(tcp.sees(IN, closed), ESTABLISHED, "it closes its window");
    assert_eq!(tcp.says(OUT, ACK, 2101, 501, 1), ESTABLISHED, "and is probed");
}

#[test]
fn blind_data_and_blind_acknowledgements_are_invalid() {
    for from in [OUT, IN] {
        let tcp = Tcp::established();
        let (seq, ack) = if from == OUT { (101u32, 501u32) } else { (501, 101) };
        for far in [FAR, 2 * FAR - 1, 3 * FAR, 100_000, 100_000u32.wrapping_neg()] {
            assert_eq!(
                tcp.says(from, ACK, seq.wrapping_add(far), ack, 10),
                Err(Invalid::Sequence),
                "{far:#x}"
            );
            assert_eq!(
                tcp.says(from, ACK, seq, ack.wrapping_add(far), 10),
                Err(Invalid::Acknowledgement),
                "{far:#x}"
            );
        }
        assert_eq!(tcp.says(from, ACK, seq, ack + 1, 10), Err(Invalid::Acknowledgement), "nothing was sent");
        assert_eq!(tcp.says(from, FIN | ACK, seq + FAR, ack, 0), Err(Invalid::Sequence));
        assert_eq!(tcp.says(from, ACK, seq, ack, 10), ESTABLISHED, "none of them changed anything");
    }
}

#[test]
fn a_rst_ends_a_connection_only_at_the_expected_number() {
    // RFC 5961 §3.2: outside the window it is dropped, inside its receiver has to challenge it, exact it counts.
    let tcp = Tcp::established();
    assert_eq!(tcp.says(IN, RST, 500, 0, 0), Err(Invalid::Reset));
    assert_eq!(tcp.says(IN, RST, 501 + FAR, 0, 0), Err(Invalid::Reset));
    assert_eq!(tcp.says(IN, RST, 1502, 0, 0), Err(Invalid::Reset), "one behind the window");
    assert_eq!(tcp.says(IN, RST, 502, 0, 0), ESTABLISHED, "it passes and ends nothing");
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 0), ESTABLISHED, "the challenge");
    assert_eq!(tcp.says(IN, RST, 501, 0, 0), Ok(State::Reset));
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 10), Ok(State::Reset), "it has to be told again, perhaps");
    assert_eq!(tcp.says(IN, RST, 501, 0, 0), Ok(State::Reset));
    let mut later = tcp;
    later.now += 11;
    assert_eq!(later.says(OUT, ACK, 101, 501, 10), Err(Invalid::NoConnection), "forgotten after ten seconds");
}

#[test]
fn a_rst_behind_data_whose_acknowledgement_is_under_way_counts() {
    let tcp = Tcp::established();
    assert_eq!(tcp.says(IN, ACK, 501, 101, 300), ESTABLISHED);
    assert_eq!(tcp.says(IN, RST, 801, 0, 0), Ok(State::Reset));
}

#[test]
fn a_refused_syn_ends_the_connection() {
    let tcp = Tcp::new();
    tcp.says(OUT, SYN, 100, 0, 0).unwrap();
    assert_eq!(tcp.says(IN, RST | ACK, 0, 100, 0), Err(Invalid::Reset), "it does not acknowledge the SYN");
    assert_eq!(tcp.says(IN, RST, 0, 0, 0), Err(Invalid::Reset));
    assert_eq!(tcp.says(IN, RST | ACK, 0, 101, 0), Ok(State::Reset));
    assert_eq!(tcp.says(OUT, SYN, 9000, 0, 0), Ok(State::SynSent), "and it may try again");
}

#[test]
fn a_blind_syn_changes_nothing_and_its_challenge_passes() {
    let tcp = Tcp::established();
    assert_eq!(
        tcp.says(OUT, SYN, 101 + FAR, 0, 0),
        ESTABLISHED,
        "from the opener: whoever has it challenges"
    );
    assert_eq!(tcp.says(IN, ACK, 501, 101, 0), ESTABLISHED, "the challenge");
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 10), ESTABLISHED);
    assert_eq!(tcp.says(IN, SYN, 501, 0, 0), Err(Invalid::Syn), "the responder would open the other way");
    assert_eq!(tcp.says(IN, ACK, 501, 111, 10), ESTABLISHED);
}

#[test]
fn an_opener_that_forgot_resets_what_is_left_over() {
    // RFC 9293 §3.5.1: its SYN is challenged, it resets the old connection, and its SYN comes again.
    let tcp = Tcp::established();
    assert_eq!(tcp.says(OUT, SYN, 9000, 0, 0), ESTABLISHED);
    assert_eq!(tcp.says(IN, ACK, 501, 101, 0), ESTABLISHED);
    assert_eq!(tcp.says(OUT, RST, 101, 0, 0), Ok(State::Reset));
    assert_eq!(tcp.says(OUT, SYN, 9000, 0, 0), Ok(State::SynSent));
    assert_eq!(tcp.says(IN, SYN | ACK, 70, 9001, 0), Ok(State::SynReceived));
}

#[test]
fn a_responder_that_forgot_answers_a_new_syn() {
    let tcp = Tcp::established();
    assert_eq!(tcp.says(OUT, SYN, 9000, 0, 0), ESTABLISHED);
    assert_eq!(tcp.says(IN, SYN | ACK, FAR, 9000, 0), Err(Invalid::Sequence), "that acknowledges no SYN");
    assert_eq!(tcp.says(IN, SYN | ACK, FAR, 9001, 0), Ok(State::SynReceived));
    assert_eq!(tcp.says(OUT, ACK, 9001, FAR + 1, 0), ESTABLISHED);
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 0), Err(Invalid::Acknowledgement), "the old one is gone");
}

#[test]
fn a_challenge_of_a_connection_that_is_not_known_here_passes() {
    let tcp = Tcp::new();
    tcp.says(OUT, SYN, 100, 0, 0).unwrap();
    assert_eq!(tcp.says(IN, ACK, 7000, 6000, 0), Ok(State::SynSent));
    assert_eq!(tcp.says(IN, ACK, 7000, 6000, 1), Err(Invalid::State), "but no data");
    assert_eq!(tcp.says(OUT, RST, 6001, 0, 0), Err(Invalid::Reset));
    assert_eq!(tcp.says(OUT, RST, 6000, 0, 0), Ok(State::SynSent));
    assert_eq!(tcp.says(OUT, SYN, 100, 0, 0), Ok(State::SynSent));
    assert_eq!(tcp.says(IN, SYN | ACK, 500, 101, 0), Ok(State::SynReceived));
}

#[test]
fn the_handshake_can_be_repeated_and_not_be_forged() {
    let tcp = Tcp::new();
    tcp.says(OUT, SYN, 100, 0, 0).unwrap();
    assert_eq!(tcp.says(OUT, SYN, 100, 0, 0), Ok(State::SynSent));
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 0), Err(Invalid::State), "nothing was answered yet");
    assert_eq!(tcp.says(IN, SYN | ACK, 500, 102, 0), Err(Invalid::Acknowledgement));
    assert_eq!(tcp.says(IN, SYN | ACK, 500, 100, 0), Err(Invalid::Acknowledgement));
    assert_eq!(tcp.says(IN, SYN | ACK, 500, 101, 0), Ok(State::SynReceived));
    assert_eq!(tcp.says(OUT, SYN, 100, 0, 0), Ok(State::SynReceived), "it had not heard the answer");
    assert_eq!(tcp.says(IN, SYN | ACK, 500, 101, 0), Ok(State::SynReceived));
    assert_eq!(tcp.says(OUT, ACK, 101, 500, 0), Err(Invalid::Acknowledgement), "of no SYN");
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 500), ESTABLISHED, "with data at once");
    assert_eq!(tcp.says(IN, SYN | ACK, 500, 101, 0), ESTABLISHED, "overtaken");
}

#[test]
fn both_ends_may_open_at_once() {
    // RFC 9293 §3.5, figure 7.
    let tcp = Tcp::new();
    assert_eq!(tcp.says(OUT, SYN, 100, 0, 0), Ok(State::SynSent));
    assert_eq!(tcp.says(IN, SYN, 500, 0, 0), Ok(State::SynBoth));
    assert_eq!(tcp.says(OUT, SYN | ACK, 100, 501, 0), Ok(State::SynReceived));
    assert_eq!(tcp.says(IN, SYN | ACK, 500, 101, 0), ESTABLISHED);
    assert_eq!(tcp.says(OUT, ACK, 101, 501, 900), ESTABLISHED);
}

#[test]
fn each_end_closes_for_itself() {
    let tcp = Tcp::established();
    assert_eq!(tcp.says(OUT, FIN | ACK, 101, 501, 10), Ok(State::HalfClosed));
    assert_eq!(tcp.says(IN, ACK, 501, 112, 0), Ok(State::HalfClosed));
    assert_eq!(tcp.says(IN, ACK, 501, 112, 900), Ok(State::HalfClosed), "the other one goes on");
    assert_eq!(tcp.says(OUT, ACK, 112, 1401, 0), Ok(State::HalfClosed));
    assert_eq!(tcp.says(IN, FIN | ACK, 1401, 112, 0), Ok(State::Closing));
    assert_eq!(tcp.says(OUT, ACK, 112, 1402, 0), Ok(State::TimeWait));
    assert_eq!(tcp.says(IN, FIN | ACK, 1401, 112, 0), Ok(State::TimeWait), "its last ACK was lost");
}

#[test]
fn a_syn_opens_anew_after_time_wait() {
    for (from, opener) in [(OUT, State::SynSent), (IN, State::SynSent)] {
        let tcp = Tcp::established();
        tcp.says(OUT, FIN | ACK, 101, 501, 0).unwrap();
        tcp.says(IN, FIN | ACK, 501, 102, 0).unwrap();
        assert_eq!(tcp.says(OUT, ACK, 102, 502, 0), Ok(State::TimeWait));
        assert_eq!(tcp.says(from, SYN, 5000, 0, 0), Ok(opener));
        assert_eq!(tcp.table.counts().held, 1, "in its place");
    }
}

#[test]
fn windows_are_scaled_if_both_ends_say_so() {
    let scaled = |flags, seq, ack, scale| Segment { scale, ..segment(flags, seq, ack, 0) };
    for (outer, most) in [(Some(7), 1000 << 7), (None, 1000)] {
        let tcp = Tcp::new();
        tcp.sees(OUT, scaled(SYN, 100, 0, Some(4))).unwrap();
        tcp.sees(IN, scaled(SYN | ACK, 500, 101, outer)).unwrap();
        tcp.says(OUT, ACK, 101, 501, 0).unwrap();
        assert_eq!(tcp.says(OUT, ACK, 1103, 501, 0), Err(Invalid::Sequence), "a SYN's own window never is");
        assert_eq!(tcp.says(IN, ACK, 501, 101, 0), ESTABLISHED);
        assert_eq!(tcp.says(OUT, ACK, 101 + most + 2, 501, 0), Err(Invalid::Sequence));
        assert_eq!(tcp.says(OUT, ACK, 101, 501, most.min(65_000)), ESTABLISHED);
        let inner = if outer.is_some() { 1000 << 4 } else { 1000 };
        assert_eq!(tcp.says(IN, ACK, 501 + inner + 2, 101, 0), Err(Invalid::Sequence));
        assert_eq!(tcp.says(IN, ACK, 501, 101, inner), ESTABLISHED);
    }
}

#[test]
fn numbers_wrap() {
    let tcp = Tcp::new();
    let (mut seq, mut ack) = (u32::MAX - 1500, u32::MAX - 300);
    tcp.says(OUT, SYN, seq, 0, 0).unwrap();
    seq = seq.wrapping_add(1);
    tcp.says(IN, SYN | ACK, ack, seq, 0).unwrap();
    ack = ack.wrapping_add(1);
    for _ in 0..10 {
        assert_eq!(tcp.says(OUT, ACK, seq, ack, 400), ESTABLISHED);
        seq = seq.wrapping_add(400);
        assert_eq!(tcp.says(IN, ACK, ack, seq, 100), ESTABLISHED);
        ack = ack.wrapping_add(100);
    }
    assert_eq!(tcp.says(OUT, RST, seq, 0, 0), Ok(State::Reset));
}

#[test]
fn a_large_frame_is_one_segment() {
    let tcp = Tcp::new();
    let large =
        |flags, seq, ack, len, scale| Segment { window: 0xffff, scale, ..segment(flags, seq, ack, len) };
    tcp.sees(OUT, large(SYN, 100, 0, 0, Some(7))).unwrap();
    tcp.sees(IN, large(SYN | ACK, 500, 101, 0, Some(7))).unwrap();
    tcp.sees(OUT, large(ACK, 101, 501, 65_000, None)).unwrap();
    assert_eq!(tcp.sees(IN, large(ACK, 501, 65_101, 65_000, None)), ESTABLISHED);
    assert_eq!(tcp.sees(OUT, large(ACK, 65_101, 65_501, 65_000, None)), ESTABLISHED);
}

#[test]
fn running_connections_are_picked_up_for_a_while_after_a_restart() {
    for from in [OUT, IN] {
        let mut tcp = Tcp::new();
        assert_eq!(tcp.says(from, ACK, 7000, 9000, 100), Err(Invalid::NoConnection));
        tcp.table.pick_up_until(at(31));
        assert_eq!(tcp.says(from, RST | ACK, 7000, 9000, 0), Err(Invalid::NoConnection));
        assert_eq!(tcp.says(from, FIN | ACK, 7000, 9000, 0), Err(Invalid::NoConnection));
        assert_eq!(tcp.says(from, ACK, 7000, 9000, 100), ESTABLISHED);
        let other = from.opposite();
        assert_eq!(tcp.says(from, ACK, 7100, 12_000, 0), ESTABLISHED, "of what was under way before");
        assert_eq!(tcp.says(other, ACK, 12_000, 7100, 1000), ESTABLISHED);
        assert_eq!(tcp.says(other, ACK, 9000, 7100, 1000), ESTABLISHED, "and is sent once more");
        assert_eq!(tcp.says(other, ACK, 12_000 + 3 * FAR, 7100, 1000), Err(Invalid::Sequence));
        assert_eq!(tcp.says(other, RST, 12_500, 0, 0), ESTABLISHED, "guessed windows end nothing");
        tcp.now = 32;
        assert_eq!(tcp.says(other, ACK, 13_000, 7100, 1000), ESTABLISHED, "it is known now");
        assert_eq!(tcp.says(other, RST, 14_000, 0, 0), Ok(State::Reset));
        tcp.now = 50;
        assert_eq!(tcp.says(from, ACK, 7100, 14_000, 0), Err(Invalid::NoConnection));
    }
}
