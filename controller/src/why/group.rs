//! Records that are alike, together: of one cause (an event at a port, of one configuration) in one group, however many stations it
//! concerns; in it frames that are the same but for what differs from one connection to the next.

use std::{cmp::Reverse, collections::HashMap};
use vswitch_core::{
    clock::Instant,
    fdb::Former,
    head::Transport,
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
    trace::LearnedStep,
    vlan::VlanId,
};
use vswitchd::recorder::{Event, FrameNote, Record, What};

/// Records of one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The last of them.
    pub(super) last: Record,
    pub(super) first_at: Instant,
    pub(super) count: u64,
    pub(super) more: u64,
    /// If it is about addresses that moved back and forth: how often they moved in all.
    pub(super) flaps: u64,
    /// Its frames, the latest first, a few kinds of them.
    pub(super) samples: Vec<Alike>,
    /// How many kinds there are; of what was learned, how many addresses.
    pub(super) kinds: usize,
}

/// Records of one cause and of frames that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alike {
    /// The last of them.
    pub(super) last: Record,
    pub(super) count: u64,
    first_at: Instant,
    more: u64,
    flaps: u64,
}

/// So many kinds of frames stand for all of a group.
const SAMPLES: usize = 5;

/// All groups: first those that say that something was lost, each the latest first.
pub(super) fn groups(records: Vec<Record>) -> Vec<Group> {
    let mut groups: HashMap<(Event, Epoch), Group> = HashMap::new();
    // The latest first.
    for alike in alike(records) {
        let group = groups.entry((alike.last.event, alike.last.epoch())).or_insert_with(|| Group {
            last: alike.last,
            first_at: alike.first_at,
            count: 0,
            more: 0,
            flaps: 0,
            samples: Vec::new(),
            kinds: 0,
        });
        group.count += alike.count;
        group.more += alike.more;
        group.flaps += alike.flaps;
        group.first_at = group.first_at.min(alike.first_at);
        group.kinds += 1;
        if group.samples.len() < SAMPLES {
            group.samples.push(alike);
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| (!super::words::kind(group.last.event).is_loss(), Reverse(group.last.at)));
    groups
}

/// Of each kind of frame the records, the latest kind first.
fn alike(records: Vec<Record>) -> Vec<Alike> {
    let mut groups: HashMap<(Event, Epoch, Option<FrameNote>), Alike> = HashMap::new();
    for record in records {
        let note = match record.event {
            Event::Learned { .. } => record.frame.map(source_alone),
            _ => record.frame.map(without_source_port),
        };
        let group = groups.entry((record.event, record.epoch(), note)).or_insert(Alike {
            last: record,
            first_at: record.at,
            count: 0,
            more: 0,
            flaps: 0,
        });
        group.count += 1;
        group.more += u64::from(record.more);
        group.first_at = group.first_at.min(record.at);
        if record.at >= group.last.at {
            group.last = record;
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    tell_flaps(&mut groups);
    groups.sort_by_key(|group| Reverse(group.last.at));
    groups
}

/// One move of an address, as a group of records has it.
#[derive(Clone, Copy)]
struct Move {
    /// The switch, the VLAN and the address.
    of: (SwitchId, VlanId, MacAddr),
    from: Former,
    to: PortId,
}

impl Move {
    fn of(record: &Record) -> Option<Self> {
        let Event::Learned { port: to, switch, vlan, what: LearnedStep::Moved { from } } = record.event
        else {
            return None;
        };
        Some(Self { of: (switch, vlan, record.frame?.src), from, to })
    }

    /// Whether `other` is the same way back.
    fn is_undone_by(&self, other: &Self) -> bool {
        self.from.is_port(other.to.index()) && other.from.is_port(self.to.index())
    }
}

/// Notes with which addresses moved back and forth: those that went one way twice, or a way and back.
fn tell_flaps(groups: &mut [Alike]) {
    let moves: Vec<_> =
        groups.iter().filter_map(|group| Some((Move::of(&group.last)?, group.count + group.more))).collect();
    let mut by_address: HashMap<_, Vec<(Move, u64)>> = HashMap::new();
    for (made, times) in moves {
        by_address.entry(made.of).or_default().push((made, times));
    }
    for group in groups {
        let Some(made) = Move::of(&group.last) else { continue };
        let all = &by_address[&made.of];
        let flaps =
            all.iter().any(|(one, times)| *times > 1 || all.iter().any(|(other, _)| one.is_undone_by(other)));
        group.flaps = if flaps { all.iter().map(|(_, times)| times).sum() } else { 0 };
    }
}

/// A note that is the same for all that a station sends.
fn source_alone(note: FrameNote) -> FrameNote {
    FrameNote { dst: MacAddr::default(), src: note.src, tag: None, what: What::Other { ethertype: 0 } }
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
