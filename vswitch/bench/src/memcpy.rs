//! This machine's other limit: one copy from core to core, and how long a cache line takes from one to the other.
//!
//! The generator's core dirties buffers and reads copies, as guests do; the switch's core copies. Only copying is timed.

use crate::machine::{self, Clock};
use std::{
    hint, io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use vhost_net_backend::cycles;

/// Bytes of all buffers together, about: what rings of frames take.
const WORKING_SET: usize = 256 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Round trips of a line.
const HAND_OVERS: u64 = 20_000;
/// Spins before a thread without a CPU of its own lets the other one run.
const SPINS: u32 = 1 << 10;

/// Whose turn it is: even values are this core's, odd ones the other's; [`END`] ends it.
#[repr(align(128))]
struct Turn(AtomicU64);

const END: u64 = u64::MAX;

impl Turn {
    fn wait_until(&self, mine: impl Fn(u64) -> bool, polite: bool) -> u64 {
        let mut spins = 0;
        loop {
            let turn = self.0.load(Ordering::Acquire);
            if mine(turn) {
                return turn;
            }
            spins += 1;
            if polite || spins % SPINS == 0 {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
        }
    }

    fn pass(&self, turn: u64) {
        self.0.store(turn, Ordering::Release);
    }
}

struct Buffers {
    from: Vec<u8>,
    to: Vec<u8>,
}

/// Bytes a second that `cpu` copies in pieces of `size`, for about `time`.
///
/// # Errors
/// The second thread cannot be started or bound to its CPU.
pub fn measure(size: usize, cpu: Option<u16>, time: Duration, clock: Clock) -> io::Result<f64> {
    let stride = size.next_multiple_of(LINE);
    let pieces = (WORKING_SET / stride).max(2);
    let buffers = Buffers { from: vec![1; pieces * stride], to: vec![1; pieces * stride] };
    let (buffers, turn) = (Mutex::new(buffers), Turn(AtomicU64::new(0)));
    let polite = cpu.is_none();
    let with = |each: &mut dyn FnMut(&mut Buffers)| {
        each(&mut buffers.lock().unwrap_or_else(PoisonError::into_inner));
    };
    thread::scope(|scope| {
        let copier = scope.spawn(|| {
            if let Some(cpu) = cpu {
                machine::pin(cpu)?;
            }
            let (mut copied, mut cycles) = (0u64, 0u64);
            loop {
                let now = turn.wait_until(|turn| turn == END || turn % 2 == 1, polite);
                if now == END {
                    return Ok(copied as f64 / clock.seconds(cycles.max(1)));
                }
                with(&mut |buffers| {
                    let begin = cycles::now();
                    let pieces = buffers.from.chunks(stride).zip(buffers.to.chunks_mut(stride));
                    for (from, to) in pieces {
                        to[..size].copy_from_slice(hint::black_box(&from[..size]));
                        copied += size as u64;
                    }
                    cycles += cycles::now().wrapping_sub(begin);
                });
                turn.pass(now + 1);
            }
        });
        let end = cycles::now().wrapping_add(clock.cycles(time));
        let mut round = 0;
        while cycles::now() < end && !copier.is_finished() {
            with(&mut |buffers| {
                let value = round as u8;
                buffers.from.iter_mut().step_by(LINE).for_each(|byte| *byte = value);
                hint::black_box(buffers.to.iter().step_by(LINE).map(|byte| u64::from(*byte)).sum::<u64>());
            });
            turn.pass(round + 1);
            round += 2;
            turn.wait_until(|turn| turn == round || copier.is_finished(), polite);
        }
        turn.pass(END);
        copier.join().unwrap_or_else(|_| Err(io::Error::other("the copying thread panicked")))
    })
}

/// Nanoseconds that a cache line takes from one core to the other: half a round trip.
///
/// # Errors
/// The second thread cannot be started or bound to its CPU.
pub fn hand_over(cpu: Option<u16>, clock: Clock) -> io::Result<f64> {
    let turn = Turn(AtomicU64::new(0));
    let polite = cpu.is_none();
    let rounds = if polite { HAND_OVERS / 20 } else { HAND_OVERS };
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            if let Some(cpu) = cpu {
                machine::pin(cpu)?;
            }
            loop {
                let now = turn.wait_until(|turn| turn == END || turn % 2 == 1, polite);
                if now == END {
                    return Ok(());
                }
                turn.pass(now + 1);
            }
        });
        let mut begin = cycles::now();
        for round in 0..rounds {
            // The first ones wait for the other thread to start.
            if round == rounds / 10 {
                begin = cycles::now();
            }
            turn.pass(2 * round + 1);
            turn.wait_until(|turn| turn == 2 * round + 2 || other.is_finished(), polite);
        }
        let seconds = clock.seconds(cycles::now().wrapping_sub(begin));
        turn.pass(END);
        let ended: io::Result<()> =
            other.join().unwrap_or_else(|_| Err(io::Error::other("the answering thread panicked")));
        ended.map(|()| seconds * 1e9 / (2 * (rounds - rounds / 10)) as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_are_measured_and_a_cpu_that_is_not_there_is_an_error() {
        let clock = Clock::measure();
        for size in [64, 1514, 65535] {
            let rate = measure(size, None, Duration::from_millis(5), clock).expect("a second thread");
            assert!(rate > 1e6, "{size}: {rate} bytes a second");
        }
        assert!(hand_over(None, clock).expect("a second thread") > 1.0);
        assert!(measure(64, Some(u16::MAX), Duration::from_millis(5), clock).is_err());
        assert!(hand_over(Some(u16::MAX), clock).is_err());
    }
}
