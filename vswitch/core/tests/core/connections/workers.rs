//! Several workers at once: nobody waits, nothing is found that was not opened, and all room comes back.

use super::{ACK, IN, OUT, PORT, RST, SYN, at, key, look_up, open, segment, table};
use std::sync::Barrier;
use vswitch_core::{
    firewall::connections::{Answer, Event, Opened, Refusal, State},
    id::PortId,
};

const THREADS: u32 = 4;

/// Four threads open, use, reset and end few connections of two ports in few entries, while another sweeps and lists. Even keys are
/// opened from inside and odd ones from outside: a look-up never says otherwise.
#[test]
fn what_is_found_was_opened_so() {
    let ports = [PORT, PortId::new(2, 0)];
    let table = table(12, 6);
    table.admit(ports[1], 6);
    let start = Barrier::new(THREADS as usize + 1);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, start) = (&table, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..40_000u32 {
                    let n = round.wrapping_mul(7).wrapping_add(thread) % 10;
                    let key = key(ports[(n % 2) as usize], 6, n);
                    let opener = if n % 2 == 0 { OUT } else { IN };
                    let now = at(u64::from(round / 2000));
                    let syn = Event::Tcp(segment(SYN, 100, 0, 0));
                    let opened = open(table, &key, opener, &syn, now);
                    assert!(
                        matches!(
                            opened,
                            Opened::New
                                | Opened::Already
                                | Opened::Refused(Refusal::Busy | Refusal::PortLimit)
                        ),
                        "{opened:?}"
                    );
                    for (from, flags, seq, ack) in [
                        (opener.opposite(), SYN | ACK, 500, 101),
                        (opener, ACK, 101, 501),
                        (opener, RST, if round % 3 == 0 { 101 } else { 9 }, 0),
                    ] {
                        let event = Event::Tcp(segment(flags, seq, ack, 0));
                        if let Answer::Known { opener: found, .. } = look_up(table, &key, from, &event, now) {
                            assert_eq!(found, opener);
                        }
                    }
                    if round % 50 == 0 {
                        table.end(table.digest(&key));
                    }
                }
            });
        }
        start.wait();
        for round in 0..2000 {
            table.sweep(at(round / 100), 5);
            table.list(0, usize::MAX, at(0), |row| {
                let is_even = matches!(row.ends, vswitch_core::firewall::connections::Ends::Ports { outside, .. } if outside % 2 == 0);
                assert_eq!((row.opener == OUT, row.port == ports[0]), (is_even, is_even));
            });
        }
    });
    ports.iter().for_each(|port| table.forget(port.index()));
    let counts = table.counts();
    assert_eq!((counts.held, counts.opened), (0, counts.ended));
    // Every entry is free again, and every slot of the index.
    table.admit(PORT, 12);
    for n in 0..12 {
        assert_eq!(open(&table, &key(PORT, 17, 100 + n), OUT, &Event::Datagram, at(1)), Opened::New);
    }
}

/// Two workers carry the two directions of one connection: no segment of honest ends is refused.
#[test]
fn both_directions_on_two_workers() {
    const SEGMENTS: u32 = 50_000;
    let table = table(64, 64);
    let key = key(PORT, 6, 1);
    let tell = |from, flags, seq, ack, len| {
        look_up(&table, &key, from, &Event::Tcp(segment(flags, seq, ack, len)), at(1))
    };
    open(&table, &key, OUT, &Event::Tcp(segment(SYN, 100, 0, 0)), at(1));
    tell(IN, SYN | ACK, 500, 101, 0);
    tell(OUT, ACK, 101, 501, 0);
    let established = Answer::Known { state: State::Established, opener: OUT };
    let (data, acks) = std::sync::mpsc::sync_channel::<u32>(8);
    let (back, heard) = std::sync::mpsc::channel::<u32>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut seq = 101;
            let mut acked = 101;
            for _ in 0..SEGMENTS {
                while seq - acked > 900 {
                    acked = heard.recv().expect("the other end answers");
                }
                assert_eq!(tell(OUT, ACK, seq, 501, 100), established);
                seq += 100;
                data.send(seq).expect("the other end listens");
            }
        });
        for seq in acks {
            assert_eq!(tell(IN, ACK, 501, seq, 0), established);
            // The sender may be done.
            let _ = back.send(seq);
        }
    });
}
