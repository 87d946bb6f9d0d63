//! What the switch itself says to the sender of frames that rules reject. It goes into the sender's own ring, behind what others sent there.

use super::{Batch, Delivered, Untold};
use crate::{
    capture::{Direction, Taken},
    worker::{captures::Captures, losses::Losses, ports::Life, watches::Watches},
};
use std::sync::Arc;
use vhost_net_backend::device::ring::{Claim, Frame, HEAD_BYTES, Payload, ToGuest};
use vswitch_core::{
    clock::Instant,
    decide::{Change, Copy, Edit, Fate, Switch},
    drop_reason::{DropReason, Side},
    firewall::answer::{Answer, AnswerKind},
    head::{FrameView, LinkHeader},
    world::Port,
};

/// ICMP errors that an interface is told in a second, by each worker that serves it (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)), and how many of
/// these at once.
const ERRORS_PER_SECOND: u64 = 1000;
const ERRORS_AT_ONCE: u64 = 100;

/// Those of a batch, which all go to the port that it came from; each with the place of the frame that it answers.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<(usize, Answer)>);

/// How many ICMP errors an interface may still be told.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct Errors {
    /// When all that were told are paid for.
    paid: Instant,
}

impl Default for Errors {
    fn default() -> Self {
        Self { paid: Instant::ZERO }
    }
}

impl Errors {
    /// Whether there may be one more; then it is one less.
    fn take(&mut self, now: Instant) -> bool {
        const EACH: u64 = 1_000_000_000 / ERRORS_PER_SECOND;
        let (now, paid) = (now.as_nanos(), self.paid.as_nanos());
        let may = paid <= now + EACH * (ERRORS_AT_ONCE - 1);
        if may {
            self.paid = Instant::from_nanos(paid.max(now) + EACH);
        }
        may
    }
}

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Notes what is to be said of the frame in place `at`, if a rule rejects it or a copy of it, or a router does not pass it on.
    #[inline]
    pub(super) fn ask(
        &mut self,
        (switch, port): (&Switch<'_>, u16),
        (at, frame, wire_len): (usize, Frame<'_>, u32),
        fate: Fate,
        copies: &[Copy],
    ) {
        let told =
            |copy: &Copy| matches!(copy.outcome, Err(DropReason::RejectIngress | DropReason::MtuExceeded));
        let is_told = match fate {
            Fate::Dropped(reason) => {
                matches!(reason, DropReason::RejectEgress | DropReason::TtlExceeded | DropReason::NoRoute)
            }
            _ => copies.iter().any(told),
        };
        if is_told {
            self.make((switch, port), (at, frame, wire_len), fate, copies);
        }
    }

    #[cold]
    fn make(
        &mut self,
        (switch, port): (&Switch<'_>, u16),
        (at, frame, wire_len): (usize, Frame<'_>, u32),
        fate: Fate,
        copies: &[Copy],
    ) {
        let Ok(link) = LinkHeader::parse(frame.head(), frame.len()) else { return };
        let view = FrameView { link: &link, bytes: frame.head(), len: frame.len(), wire_len };
        if let Some(answer) = switch.answer(port, &view, fate, copies) {
            self.0.push((at, answer));
        }
    }

    /// Shows the watches those that were delivered to `sender`.
    #[cold]
    pub(super) fn show(&self, sender: Option<&Port>, losses: &Losses, watches: &mut Watches) {
        let Some(sender) = sender else { return };
        for (at, answer) in &self.0 {
            // The frame itself may be lost there, too.
            if !losses.has(*at, sender.id.index(), |reason| reason.side() == Side::Egress) {
                watches.answered(*at, sender, answer.kind());
            }
        }
    }
}

impl Batch {
    /// Puts the batch's answers into the ring of the port that it came from: the one that belongs to the transmitq with this index, as
    /// virtio has it (1.2 §5.1.6.5.5).
    #[cold]
    pub(super) fn answer(
        &mut self,
        (port, transmitq): (u16, u16),
        (lives, destinations): (&mut [Option<Life>], &[Vec<Arc<ToGuest>>]),
        captures: &mut Captures,
        now: Instant,
    ) {
        if let Some(Some(life)) = lives.get_mut(usize::from(port)) {
            self.answers.0.retain(|(_, answer)| answer.kind() == AnswerKind::Reset || life.errors.take(now));
        }
        let Self { answers: Answers(answers), fates, losses, rooms, faults, delivered, untold, .. } = self;
        fates.originated += answers.len() as u64;
        let rings = destinations.get(usize::from(port)).map_or(&[][..], Vec::as_slice);
        let place = rings.iter().position(|ring| ring.index() + 1 == transmitq).unwrap_or(0);
        let lose = |losses: &mut Losses| {
            answers.iter().for_each(|(at, _)| losses.lose(*at, port, DropReason::PortDown));
        };
        let Some(to) = rings.get(place) else { return lose(losses) };
        let ask = |claim: &mut Claim<'_>| {
            claim.frames(answers.iter().map(|(_, answer)| answer.bytes().len() as u32));
        };
        let mut lease = match to.reserve(port, rooms, answers.len(), ask) {
            Ok(lease) => lease,
            Err(fault) => {
                faults.push((port, fault));
                return lose(losses);
            }
        };
        let (granted, before) = (lease.granted(), losses.mark());
        for (place, (at, answer)) in answers.iter().enumerate() {
            let (head, rest) = answer.bytes().split_at(answer.bytes().len().min(HEAD_BYTES));
            match lease.write(place, head, Payload::Ours(rest)) {
                Ok(()) => {
                    for intake in captures.of(port) {
                        intake.take(&Taken {
                            at_nanos: now.as_nanos(),
                            direction: Direction::ToPort,
                            head,
                            payload: Payload::Ours(rest),
                            len: answer.bytes().len() as u32,
                            change: Change::of(Edit::KEEP, None),
                            dropped: None,
                        });
                        intake.tell();
                    }
                }
                Err(why) => losses.lose(*at, port, super::no_room(why)),
            }
        }
        match lease.publish() {
            Ok(published) => {
                delivered.push(Delivered { port, ring: to.index(), granted });
                // The place of a ring among a port's is that of its lane.
                untold.push(Untold::To((port, place as u16), published));
            }
            Err(fault) => {
                losses.take_back(before);
                faults.push((port, fault));
                lose(losses);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_told_a_hundred_errors_at_once_and_a_thousand_a_second() {
        let mut errors = Errors::default();
        let mut told = |nanos: u64| (0..5000).filter(|_| errors.take(Instant::from_nanos(nanos))).count();
        assert_eq!(told(5_000_000_000), 100);
        assert_eq!(told(5_000_000_000), 0);
        assert_eq!(told(5_000_999_999), 0);
        assert_eq!(told(5_001_000_000), 1);
        let sum: usize = (1..=1000).map(|milli| told(5_001_000_000 + milli * 1_000_000)).sum();
        assert_eq!(sum, 1000);
        assert_eq!(told(60_000_000_000), 100, "what is not used is not saved up");
    }
}
