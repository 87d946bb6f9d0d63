//! Records that are alike, together: the same event of the same configuration, and the same frame but for what differs from one
//! connection or frame to the next.

use std::{cmp::Reverse, collections::HashMap};
use vswitch_core::{clock::Instant, head::Transport, id::Epoch};
use vswitchd::recorder::{Event, FrameNote, Record, What};

/// Alike records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The last of them.
    pub(super) last: Record,
    pub(super) first_at: Instant,
    pub(super) count: u64,
    pub(super) more: u64,
}

/// All groups: first those that say that something was lost, each the latest first.
pub(super) fn groups(records: Vec<Record>) -> Vec<Group> {
    let mut groups: HashMap<(Event, Epoch, Option<FrameNote>), Group> = HashMap::new();
    for record in records {
        let alike = (record.event, record.epoch(), record.frame.map(without_source_port));
        let group =
            groups.entry(alike).or_insert(Group { last: record, first_at: record.at, count: 0, more: 0 });
        group.count += 1;
        group.more += u64::from(record.more);
        group.first_at = group.first_at.min(record.at);
        if record.at >= group.last.at {
            group.last = record;
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| (!super::words::kind(group.last.event).is_loss(), Reverse(group.last.at)));
    groups
}

/// A note that is the same for each connection of a client to one server.
fn without_source_port(mut note: FrameNote) -> FrameNote {
    if let What::Ip { transport: Transport::Tcp { src, .. } | Transport::Udp { src, .. }, .. } =
        &mut note.what
    {
        *src = 0;
    }
    note
}
