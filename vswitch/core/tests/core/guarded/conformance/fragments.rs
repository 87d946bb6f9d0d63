//! Fragments in every order and of every kind (K14 to K16). The tricks one by one are in `guarded::fragments`.

use super::{
    super::{
        H1, PC2, TCP, UDP,
        pieces::{FRAGMENT, OPTIONS, Sender, tcp_start, udp_start},
    },
    Row, Verdict, anything, hold, pc2_with, services, verdict,
};
use vswitch_core::{
    drop_reason::DropReason::{
        FragmentIngress, FragmentMalformedIngress, FragmentOverlapIngress, PolicyIngress, UnparsedIngress,
    },
    firewall::policy::Direction,
};

const TO_PC2: (u16, u16) = (H1, PC2);

/// A fragment before its first is lost, and lets nothing else pass or be lost; one behind it passes, in whichever order (decision 0037).
#[test]
fn in_every_order_what_follows_its_first_passes_and_nothing_else() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for (sender, order) in Sender::families(3, 4, UDP).into_iter().flat_map(|s| orders.map(|o| (s, o))) {
        for port in [53, 54] {
            let pieces = [
                sender.piece(0, true, &udp_start((9, port), 112, 48)),
                sender.piece(48, true, &[1; 48]),
                sender.piece(96, false, &[2; 16]),
            ];
            let mut bench = services();
            let mut begun = false;
            for piece in order {
                begun |= piece == 0 && port == 53;
                let expected: Verdict = match (piece, begun) {
                    (_, true) => Ok(()),
                    (0, false) => Err(PolicyIngress),
                    (_, false) => Err(FragmentIngress),
                };
                let got = verdict(&mut bench, TO_PC2, &pieces[piece]);
                assert_eq!(got, expected, "piece {piece} of {order:?} to {port}: {}", bench.story());
            }
        }
    }
}

/// Where rules let in anything, the shape of a fragment alone decides: RFC 791 §3.2, RFC 1858, RFC 3128, RFC 7112, RFC 8200 §4.5.
#[test]
fn fragments_that_nobody_sends_pass_nowhere() {
    let mut rows = vec![];
    for sender in Sender::families(3, 4, TCP) {
        let header = tcp_start((9, 80), 2, (1, 0), 24);
        let honest = sender.id(8).piece(0, true, &header);
        let end = if sender.is_v6() { 65_535 } else { 65_515 };
        let mut tricks = vec![
            ("ports alone", sender.piece(0, true, &header[..8])),
            ("all but the flags' last words", sender.piece(0, true, &header[..16])),
            ("options that are not there", {
                let mut header = header.clone();
                header[12] = 0x80;
                sender.piece(0, true, &header)
            }),
            ("over the flags", sender.piece(8, true, &header[8..])),
            ("over the checksum", sender.piece(16, false, &header[16..])),
            ("nothing at all", sender.piece(24, true, &[])),
            ("nothing at all, the last", sender.piece(24, false, &[])),
            ("of odd length, not the last", sender.piece(24, true, &[0; 12])),
            ("behind the end", sender.piece(65_504, false, &vec![0; end - 65_504 + 1])),
            ("behind the end, not the last", sender.piece(65_528, true, &[0; 8])),
        ];
        if sender.is_v6() {
            let outer = Sender { protocol: FRAGMENT, id: 9, ..sender };
            let inner = [sender.fragment_header(0, true), header.clone()].concat();
            let whole = [sender.fragment_header(0, false), header.clone()].concat();
            let options = [[FRAGMENT, 0, 1, 4, 0, 0, 0, 0].to_vec(), inner.clone()].concat();
            let behind = Sender { protocol: OPTIONS, ..outer };
            tricks.extend([
                ("a fragment in a first one", outer.piece(0, true, &inner)),
                ("a fragment in an atomic one", outer.piece(0, false, &inner)),
                ("an atomic one in a first one", outer.piece(0, true, &whole)),
                ("an atomic one in an atomic one", outer.piece(0, false, &whole)),
                ("a fragment in a later one", outer.piece(24, true, &inner)),
                ("a fragment in options in a fragment", behind.piece(0, true, &options)),
                ("a chain that is cut", behind.piece(0, true, &[TCP, 4, 1, 36, 0, 0, 0, 0])),
            ]);
        }
        let rows_of = tricks
            .into_iter()
            .map(|(what, trick)| Row::new(what, TO_PC2, (trick, FragmentMalformedIngress), honest.clone()));
        rows.extend(rows_of);
    }
    // An honest first one that comes again is its own double.
    for Row { what, refused, because, honest, .. } in rows {
        let mut bench = pc2_with(&[anything(Direction::Ingress)]);
        assert_eq!(verdict(&mut bench, TO_PC2, &refused), Err(because), "{what}: {}", bench.story());
        assert_eq!(verdict(&mut bench, TO_PC2, &honest), Ok(()), "{what}");
        assert_eq!(verdict(&mut bench, TO_PC2, &honest), Err(FragmentOverlapIngress), "{what}");
        assert_eq!(verdict(&mut bench, TO_PC2, &refused), Err(because), "{what}");
    }
}

/// Every fragment that touches one that passed, by as little as eight bytes: RFC 5722, RFC 8200 §4.5.
#[test]
fn what_touches_a_fragment_that_passed_passes_nowhere() {
    for sender in Sender::families(3, 4, UDP) {
        let first = sender.piece(0, true, &udp_start((9, 53), 200, 64));
        let middle = sender.piece(96, true, &[1; 32]);
        for from in (24..160u16).step_by(8) {
            for len in [8, 16, 40, 104] {
                let mut bench = services();
                assert_eq!([&first, &middle].map(|piece| verdict(&mut bench, TO_PC2, piece)), [Ok(()); 2]);
                let touches = |start, end| from < end && from + len > start;
                let expected: Verdict =
                    if touches(0, 64) || touches(96, 128) { Err(FragmentOverlapIngress) } else { Ok(()) };
                let piece = sender.piece(from, true, &vec![2; len.into()]);
                assert_eq!(verdict(&mut bench, TO_PC2, &piece), expected, "{len} bytes at {from}");
                // Within what was seen it is lost alone; beyond it, all that would follow is.
                let inside = from + len <= 64 || (from >= 96 && from + len <= 128);
                let poisons = expected.is_err() && !inside;
                let next = sender.piece(800, true, &[3; 8]);
                let expected: Verdict = if poisons { Err(FragmentOverlapIngress) } else { Ok(()) };
                assert_eq!(verdict(&mut bench, TO_PC2, &next), expected, "behind {len} bytes at {from}");
            }
        }
    }
}

/// RFC 6946: an atomic fragment is judged by what it carries, and has no followers.
#[test]
fn an_atomic_fragment_is_judged_as_its_datagram() {
    let sender = Sender::v6(3, 4, UDP);
    let atomic = |port| sender.piece(0, false, &udp_start((9, port), 48, 48));
    let cut = sender.piece(0, false, &udp_start((9, 53), 48, 40));
    let rows = [
        Row::new("another port", TO_PC2, (atomic(54), PolicyIngress), atomic(53)),
        Row::new("cut", TO_PC2, (cut, UnparsedIngress), atomic(53)),
        Row::new("a follower", TO_PC2, (sender.piece(48, false, &[0; 8]), FragmentIngress), atomic(53)),
    ];
    hold(services, rows);
}
