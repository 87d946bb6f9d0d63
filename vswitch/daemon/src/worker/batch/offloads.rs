//! What the senders of a batch's frames left to others, and doing it for receivers that cannot.

use super::{Heap, glance};
use std::iter;
use vhost_net_backend::{
    device::ring::{Claim, Frame, FromGuest, Lease, MakeHead, NoRoom, Stream},
    features,
    net_header::{self, NetHeader},
};
use vswitch_core::{
    checksum::Sum,
    decide::{Change, Edit, GLANCE, Ingress, Rows},
    head::{HEAD_BYTES, TAG_LEN},
    offload::{Abilities, Asked, Offload, Train, Work},
    route::{Checksum, Translations},
};

impl Heap {
    /// Writes the frames that got room, of a batch in which frames ask for something.
    #[inline(never)]
    pub(super) fn write_offloaded(
        &self,
        lease: &mut Lease<'_>,
        from: &FromGuest,
        (offloads, translations): (&Offloads, &Translations),
        receiver: Abilities,
    ) {
        let frames = self.runs.iter().flat_map(|run| {
            let frames = run.frames.clone().zip(from.frames(run.frames.clone()));
            let change = Change::of(run.edit, translations.of(run.edit.rewrite.as_ref()));
            frames.map(move |frame| (change, frame))
        });
        for (place, (change, frame)) in frames.enumerate() {
            // Who got no room is asked later.
            let _ = offloads.write(lease, place, frame, change, receiver);
        }
    }
}

/// What a frame asks for.
#[derive(Debug, Clone, Copy)]
enum Judged {
    /// Nothing.
    Nothing,
    /// What it may.
    Fair(Offload),
    /// What was not negotiated, or does not fit the frame.
    Unfair,
}

/// What the frames of one batch ask for, by place; empty if none asks.
#[derive(Debug, Default)]
pub(super) struct Offloads(Vec<Judged>);

impl Offloads {
    /// Judges a batch. Called for each, since most ask for nothing at all.
    #[inline(always)]
    pub(super) fn judge(&mut self, ring: &FromGuest) {
        if !self.0.is_empty() || ring.asks() {
            self.judge_all(ring);
        }
    }

    #[inline(never)]
    fn judge_all(&mut self, ring: &FromGuest) {
        self.0.clear();
        if ring.asks() {
            let sender = sender(ring.features());
            self.0.extend(ring.frames(0..ring.batch_len()).map(|frame| judge(frame, sender)));
        }
    }

    /// Whether no frame asks for anything.
    #[inline(always)]
    pub(super) fn none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the frame in this place asks for what it must not.
    pub(super) fn unfair(&self, place: usize) -> bool {
        matches!(self.0.get(place), Some(Judged::Unfair))
    }

    /// The length of the longest frame that the one in this place, of `len` bytes, makes on a wire.
    pub(super) fn wire_len(&self, place: usize, len: u32) -> u32 {
        self.of(place).map_or(len, |offload| offload.wire_len(len))
    }

    /// What a copy of the frame in this place, of `len` bytes, counts in budgets.
    pub(super) fn cost(&self, place: usize, len: u32) -> u64 {
        self.of(place).map_or(len, |offload| offload.cost(len)).into()
    }

    /// Reads a batch into `rows` in which frames ask for something: as many as one copy of each is within `budget` bytes, and one at least.
    #[inline(never)]
    pub(super) fn read(&self, ingress: &Ingress<'_>, ring: &FromGuest, budget: u64, rows: &mut Rows) {
        let mut copied = 0;
        let within = ring.lens(0..ring.batch_len()).enumerate().take_while(|(place, len)| {
            let before = copied;
            copied += self.cost(*place, *len);
            before < budget
        });
        let end = within.count();
        ingress.read(|from| (from..end).zip(ring.frames(from..end)).map(|frame| self.glance(frame)), rows);
        ingress.place(rows);
    }

    fn glance<'f>(&self, (at, frame): (usize, Frame<'f>)) -> (Option<&'f [u8; GLANCE]>, u32) {
        let (first, len) = glance(frame);
        (first.filter(|_| !self.unfair(at)), self.wire_len(at, len))
    }

    fn of(&self, place: usize) -> Option<&Offload> {
        if let Some(Judged::Fair(offload)) = self.0.get(place) { Some(offload) } else { None }
    }

    /// Claims room for the frame in this place as it is to reach this receiver.
    pub(super) fn claim(
        &self,
        claim: &mut Claim<'_>,
        (place, len): (usize, u32),
        edit: Edit,
        receiver: Abilities,
    ) {
        let len = edit.frame_len(len);
        match self.of(place).map(|offload| offload.behind(edit.tag)) {
            Some(offload) if matches!(offload.work(receiver), Work::Cut { .. }) => {
                claim.train(offload.segment_count(len), offload.segment_lens(len));
            }
            _ => claim.frames(iter::once(len)),
        }
    }

    /// Writes the frame in place `at` of its batch as it is to reach this receiver. Who got no room is asked of the lease.
    pub(super) fn write(
        &self,
        lease: &mut Lease<'_>,
        place: usize,
        (at, frame): (usize, Frame<'_>),
        change: Change<'_>,
        receiver: Abilities,
    ) -> Result<(), NoRoom> {
        let edit = change.edit;
        let mut room = [0; net_header::LEN + HEAD_BYTES + TAG_LEN];
        let behind = room.last_chunk_mut().expect("the net header comes before");
        let head_len = if edit == Edit::KEEP {
            behind[..frame.head().len()].copy_from_slice(frame.head());
            frame.head().len()
        } else {
            let is_partial = self.of(at).is_some_and(Offload::is_of_transport);
            let checksum = if is_partial { Checksum::Partial } else { Checksum::Complete };
            Change { checksum, ..change }.apply(frame.head(), behind)
        };
        let Some(offload) = self.of(at).map(|offload| offload.behind(edit.tag)) else {
            return lease.write(place, &behind[..head_len], frame.payload());
        };
        let len = edit.frame_len(frame.len());
        let work = offload.work(receiver);
        let train = if let Work::Cut { checksums } = work {
            offload.train(&mut behind[..head_len]).map(|train| (train, checksums))
        } else {
            None
        };
        let headers = if train.is_some() { offload.header_len(head_len) } else { head_len };
        let (head, rest) = room[..net_header::LEN + head_len].split_at_mut(net_header::LEN + headers);
        let left = len - headers as u32;
        lease.write_made(
            place,
            head,
            Stream::new(rest, frame.payload()),
            &Made { offload, work, train, len, left },
        )
    }
}

fn judge(frame: Frame<'_>, sender: Abilities) -> Judged {
    if !frame.asks() {
        return Judged::Nothing;
    }
    let header = frame.net_header();
    let asked = Asked {
        needs_checksum: header.flags & net_header::F_NEEDS_CSUM != 0,
        checksum_start: header.csum_start,
        checksum_offset: header.csum_offset,
        gso_type: header.gso_type,
        gso_size: header.gso_size,
        header_len: header.hdr_len,
    };
    Offload::judge(&asked, frame.head(), frame.len(), sender).map_or(Judged::Unfair, Judged::Fair)
}

/// What a driver with these features may ask for.
fn sender(negotiated: u64) -> Abilities {
    let has = |feature| negotiated & feature != 0;
    Abilities {
        checksum: has(features::NET_CSUM),
        tcp4: has(features::NET_HOST_TSO4),
        tcp6: has(features::NET_HOST_TSO6),
        ecn: has(features::NET_HOST_ECN),
        udp4: has(features::NET_HOST_USO),
        udp6: has(features::NET_HOST_USO),
    }
}

/// What a driver with these features takes.
pub(super) fn receiver(negotiated: u64) -> Abilities {
    let has = |feature| negotiated & feature != 0;
    Abilities {
        checksum: has(features::NET_GUEST_CSUM),
        tcp4: has(features::NET_GUEST_TSO4),
        tcp6: has(features::NET_GUEST_TSO6),
        ecn: has(features::NET_GUEST_ECN),
        udp4: has(features::NET_GUEST_USO4),
        udp6: has(features::NET_GUEST_USO6),
    }
}

/// How one frame is made for one receiver.
struct Made {
    offload: Offload,
    work: Work,
    /// If it is cut, and whether its segments' checksums are completed.
    train: Option<(Train, bool)>,
    /// Its length, and that of what stands behind its head.
    len: u32,
    left: u32,
}

impl MakeHead for Made {
    fn payload(&self, number: u16) -> (u32, bool) {
        match self.train {
            Some((_, checksums)) => (self.offload.segment(self.len, number).len.into(), checksums),
            None => (self.left, self.work == Work::Checksum),
        }
    }

    fn head(&self, number: u16, sum: Sum, head: &mut [u8]) -> NetHeader {
        if let Some((train, checksums)) = &self.train {
            train.make(head, &self.offload.segment(self.len, number), checksums.then_some(sum));
            return if *checksums {
                NetHeader::default()
            } else {
                net_header(&self.offload.asked_of_segments())
            };
        }
        if self.work == Work::Checksum {
            self.offload.complete(head, sum);
            return NetHeader::default();
        }
        net_header(&self.offload.asked())
    }
}

/// What a receiver is asked for, as its net header says it.
fn net_header(asked: &Asked) -> NetHeader {
    NetHeader {
        flags: if asked.needs_checksum { net_header::F_NEEDS_CSUM } else { 0 },
        gso_type: asked.gso_type,
        hdr_len: asked.header_len,
        gso_size: asked.gso_size,
        csum_start: asked.checksum_start,
        csum_offset: asked.checksum_offset,
        num_buffers: 0,
    }
}
