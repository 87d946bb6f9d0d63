//! A batch as captures see it: what its source sent, with its fate, and what its destinations got.
//!
//! The frames are still in the sender's buffers: their payloads are read once more.

use super::{Fates, Heap, Losses};
use crate::capture::{Direction, Intake, Taken};
use vhost_net_backend::device::ring::{FromGuest, Rooms};
use vswitch_core::{
    clock::Instant,
    decide::{Change, Edit},
    route::Translations,
};

impl Fates {
    /// Offers the frames that had a fate to the captures of the port that they came from.
    #[cold]
    pub(super) fn capture<'c>(
        &self,
        ring: &FromGuest,
        losses: &Losses,
        captures: impl Iterator<Item = &'c mut Intake>,
        now: Instant,
    ) {
        for intake in captures {
            let mut dropped = losses.dropped().peekable();
            for place in 0..self.frames {
                let frame = ring.frame(place);
                intake.take(&Taken {
                    at_nanos: now.as_nanos(),
                    direction: Direction::FromPort,
                    head: frame.head(),
                    payload: frame.payload(),
                    len: frame.len(),
                    change: Change::of(Edit::KEEP, None),
                    dropped: dropped.next_if(|(at, _)| *at == place).map(|(_, reason)| reason),
                });
            }
            intake.tell();
        }
    }
}

impl Heap {
    /// Offers the frames that got `rooms` at this destination to its captures.
    #[cold]
    pub(super) fn capture<'c>(
        &self,
        (ring, translations): (&FromGuest, &Translations),
        rooms: &Rooms,
        captures: impl Iterator<Item = &'c mut Intake>,
        now: Instant,
    ) {
        for intake in captures {
            let frames = self.runs.iter().flat_map(|run| run.frames.clone().map(|frame| (frame, run.edit)));
            for (_, (frame, edit)) in frames.enumerate().filter(|(room, _)| rooms.got(*room)) {
                let frame = ring.frame(frame);
                intake.take(&Taken {
                    at_nanos: now.as_nanos(),
                    direction: Direction::ToPort,
                    head: frame.head(),
                    payload: frame.payload(),
                    len: frame.len(),
                    change: Change::of(edit, translations.of(edit.rewrite.as_ref())),
                    dropped: None,
                });
            }
            intake.tell();
        }
    }
}
