//! The worker's side of a capture: which frames it wants, and how they are copied.

use super::record::{Direction, FACTS_BYTES, Facts, Sender};
use vhost_net_backend::device::ring::Payload;
use vswitch_core::{
    decide::{Change, Edit},
    drop_reason::DropReason,
    filter::Filter,
    head::{HEAD_BYTES, TAG_LEN},
    id::PortId,
};

/// A frame that a worker offers to a capture.
pub(crate) struct Taken<'a> {
    /// When its turn began, in nanoseconds since the worker's origin.
    pub(crate) at_nanos: u64,
    pub(crate) direction: Direction,
    /// As it was sent: its first bytes, those behind them, and how many there are in all.
    pub(crate) head: &'a [u8],
    pub(crate) payload: Payload<'a>,
    pub(crate) len: u32,
    /// What changes of it on the way out.
    pub(crate) change: Change<'a>,
    /// Why the switch dropped it, if it did.
    pub(crate) dropped: Option<DropReason>,
}

/// What a worker holds of a capture. Dropped, it tells the writer that nothing more comes.
pub(crate) struct Intake {
    pub(crate) number: u32,
    pub(crate) port: PortId,
    filter: Filter,
    snap_len: u32,
    sender: Sender,
    /// The record in work; kept, so that a frame allocates nothing.
    record: Vec<u8>,
}

impl Intake {
    pub(super) fn new(number: u32, port: PortId, filter: Filter, snap_len: u32, sender: Sender) -> Self {
        Self {
            number,
            port,
            filter,
            snap_len,
            sender,
            record: Vec::with_capacity(FACTS_BYTES + snap_len as usize),
        }
    }

    /// Copies the frame, if it is wanted and there is room.
    pub(crate) fn take(&mut self, taken: &Taken<'_>) {
        let Taken { head, payload, change, .. } = *taken;
        let mut edited = [0; HEAD_BYTES + TAG_LEN];
        let head = match change.edit {
            Edit::KEEP => head,
            _ => {
                let length = change.apply(head, &mut edited);
                &edited[..length]
            }
        };
        let len = change.edit.frame_len(taken.len);
        if !self.filter.matches(&head[..head.len().min(HEAD_BYTES)], len) {
            return;
        }
        let captured = len.min(self.snap_len);
        let facts = Facts {
            at_nanos: taken.at_nanos,
            missed: self.sender.missed(),
            len,
            captured,
            direction: taken.direction,
            dropped: taken.dropped,
        };
        let end = FACTS_BYTES + captured as usize;
        self.record.clear();
        self.record.extend_from_slice(&facts.to_bytes());
        self.record.extend_from_slice(&head[..head.len().min(captured as usize)]);
        let left = end - self.record.len();
        payload.append_to(&mut self.record, left);
        // A chain that is no frame (its net header cut) can hold less than it says.
        self.record.resize(end, 0);
        self.sender.send(&self.record);
    }

    /// Lets the writer know of what was taken.
    pub(crate) fn tell(&self) {
        self.sender.wake();
    }
}
