//! One batch of frames from one ring: decide, deliver, count. Each stage runs over the whole batch.
//!
//! The counters are computed last, from what the stages left, so that a batch is counted wholly or not at all.

mod answers;
mod captured;
mod offloads;
mod spread;

use super::{
    budget::{self, Budget},
    captures::Captures,
    losses::Losses,
    patience::{self, InVain, Need, has_room},
    ports::{Life, Ports},
    watches::Watches,
};
use crate::recorder::Recorder;
use answers::Answers;
pub(super) use answers::Errors;
use offloads::Offloads;
use std::{ops::Range, sync::Arc};
use vhost_net_backend::device::{
    fault::PortFault,
    ring::{
        Claim, Defect, Edited, Frame, FromGuest, Front, FrontChange, Granted, Lease, NoRoom, Published,
        Rooms, ToGuest, make_visible,
    },
};
use vswitch_core::{
    clock::Instant,
    decide::{Change, Copy, Decision, Edit, Fate, GLANCE, Ingress, Rows, Switch, TagEdit, Untagged, Way},
    drop_reason::DropReason,
    head::{self, HEAD_BYTES},
    route::{Rewrite, Translations},
    world::{Port, Role},
};

// The backend copies as much of a frame as the switch may judge.
const _: () = assert!(HEAD_BYTES == vhost_net_backend::device::ring::HEAD_BYTES);

/// Frames in a row of which a copy each waits for delivery, all in the same way.
#[derive(Debug, Clone)]
struct Run {
    frames: Range<usize>,
    edit: Edit,
    /// The place in `Batch::copies` of the frame's copy, if it is one that was decided by itself.
    copy: Option<usize>,
}

/// What became of the batch's frames.
#[derive(Debug, Default)]
struct Fates {
    /// Frames that had one, the first of the batch, and their bytes.
    frames: usize,
    bytes: u64,
    /// How many of them were decided by themselves.
    alone: usize,
    /// What a copy of each counts in budgets.
    cost: u64,
    unicast: u64,
    flooded: u64,
    flood_copies: u64,
    consumed: u64,
    /// Frames of the switch's own that it led to.
    originated: u64,
}

impl Fates {
    fn add(&mut self, fate: Fate, copies: usize) {
        match fate {
            Fate::Unicast => self.unicast += 1,
            Fate::Flooded => {
                self.flooded += 1;
                self.flood_copies += copies as u64;
            }
            Fate::Consumed => self.consumed += 1,
            Fate::Dropped(_) => {}
        }
    }
}

/// What waits for one destination.
#[derive(Debug, Default)]
struct Heap {
    runs: Vec<Run>,
    frames: usize,
}

impl Heap {
    #[inline(always)]
    fn push(&mut self, run: Run) {
        self.frames += run.frames.len();
        self.runs.push(run);
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.runs.clear();
        self.frames = 0;
    }
}

/// What was published in one ring.
#[derive(Debug)]
struct Delivered {
    /// The port's place.
    port: u16,
    /// The ring's index in the device.
    ring: u16,
    granted: Granted,
}

/// A ring whose driver was not told yet of what was published in it or completed.
#[derive(Debug)]
enum Untold {
    To(Receiveq, Published),
    /// The transmitq in this place of `Ports::sources`.
    From(usize),
}

/// A receiveq: the place of its port, and its own in `Ports::destinations` there.
pub(super) type Receiveq = (u16, u16);

/// Changed heads.
type Heads = Edited<{ HEAD_BYTES + head::TAG_LEN }>;

/// What the stages leave for each other; kept, so that a turn allocates nothing.
#[derive(Default)]
pub(super) struct Batch {
    fates: Fates,
    /// Its frames, those that begin alike together. Boxed, to be lent to a stage by its address; none only before the first batch, or after
    /// a panic.
    rows: Option<Box<Rows>>,
    offloads: Offloads,
    /// What routers translate.
    translations: Translations,
    /// Those of frames that were decided by themselves. Why one was lost is noted here for the watches, under which every frame is.
    copies: Vec<Copy>,
    /// By place of the destination port.
    heaps: Vec<Heap>,
    /// Destinations whose heaps have runs.
    touched: Vec<u16>,
    /// A heap whose destination has several receiveqs, by place of these.
    spread: Vec<Heap>,
    delivered: Vec<Delivered>,
    rooms: Rooms,
    /// Where changed heads stand before they are written.
    edited: Box<Heads>,
    losses: Losses,
    answers: Answers,
    /// Ports that turned out to be broken.
    faults: Vec<(u16, PortFault)>,
    untold: Vec<Untold>,
    /// Whether the last one waits for room, as if it had not been taken.
    waits: bool,
    in_vain: InVain,
}

impl Batch {
    /// Takes a batch off `sources[which]` and moves it; returns how many frames had a fate. An error stops the source.
    #[inline(always)]
    pub(super) fn run(
        &mut self,
        switch: &Switch<'_>,
        ports: &mut Ports,
        which: usize,
        watches: &mut Watches,
        captures: &mut Captures,
        recorder: &mut Recorder,
    ) -> Result<usize, PortFault> {
        self.waits = false;
        let budget = ports.sources.budget(which);
        let Some(source) = ports.sources.get_mut(which) else { return Ok(0) };
        let port = source.port;
        if let Some(need) = source.patience.waits_for(switch.now) {
            let rings = ports.destinations.get(usize::from(need.port)).map_or(&[][..], Vec::as_slice);
            if !has_room(rings, port, need.buffers) {
                self.waits = true;
                return Ok(0);
            }
        }
        let (to, place) = source.toward;
        let to = ports.destinations.get(usize::from(to)).and_then(|rings| rings.get(usize::from(place)));
        if source.ring.harvest_and(budget.frames, || to.into_iter().for_each(|to| to.foresee()))? == 0 {
            return Ok(0);
        }
        // The harvest waited for the other core's lines, and what was written before has gone over meanwhile.
        self.tell(ports);
        // A port that is told may turn out to be broken: then the source may be gone, or in another place.
        let Some(source) = ports.sources.get_mut(which).filter(|source| source.port == port) else {
            return Ok(0);
        };
        self.begin(ports.destinations.len());
        #[cfg(feature = "injection")]
        super::injection::panic_if_asked(&mut ports.lives, port);
        self.decide(switch, port, &source.ring, watches, budget);
        if switch.world.has_way_out() && !watches.any() {
            let short = self.short(switch, port, &source.ring, &ports.destinations);
            if source.patience.waits(short, &mut self.in_vain, switch.now) {
                // What was decided is forgotten, and decided anew when there is room; but what was learned is known then.
                self.losses.record_lessons(switch, port, &source.ring, recorder);
                source.take_fewer(self.fates.frames);
                self.fates = Fates::default();
                self.waits = true;
                self.end();
                return Ok(0);
            }
        }
        self.deliver(port, &source.ring, &ports.destinations, captures, switch.now);
        if !self.answers.is_empty() {
            let sender = (port, source.ring.index());
            self.answer(sender, (&mut ports.lives, &ports.destinations), captures, switch.now);
            if watches.any() {
                self.answers.show(switch.world.port(port), &self.losses, watches);
            }
        }
        if watches.any() {
            watches.close(&self.copies);
        }
        if captures.any() {
            self.fates.capture(&source.ring, &self.losses, captures.of(port), switch.now);
        }
        if !self.losses.is_empty() {
            self.losses.record(switch, port, &source.ring, recorder);
        }
        self.count(port, source.ring.index(), &mut ports.lives);
        source.ring.finish(self.fates.frames);
        if let Some(Untold::To(to, _)) = self.untold.first() {
            source.toward = *to;
        }
        self.end();
        self.untold.push(Untold::From(which));
        if !self.faults.is_empty() {
            self.tell(ports);
            for (port, why) in self.faults.drain(..) {
                ports.stop(port, why);
            }
        }
        Ok(self.fates.frames)
    }

    /// Whether the last one waits for room.
    #[inline(always)]
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// What there is too little room for, if that is to wait.
    #[cold]
    fn short(
        &self,
        switch: &Switch<'_>,
        sender: u16,
        from: &FromGuest,
        destinations: &[Vec<Arc<ToGuest>>],
    ) -> Option<Need> {
        let is = |port: u16, such: fn(&Port) -> bool| switch.world.port(port).is_some_and(such);
        let sends = is(sender, |port| port.way_out);
        // What routers answer and pass on for all VLANs waits for none of them.
        if is(sender, |port| matches!(port.role, Role::Routers { .. })) {
            return None;
        }
        self.touched.iter().find_map(|port| {
            let way_out = is(*port, |port| port.way_out);
            if !(sends || way_out) || self.in_vain.has(*port, switch.now) {
                return None;
            }
            let heap = &self.heaps[usize::from(*port)];
            let frames = || heap.runs.iter().flat_map(|run| from.lens(run.frames.clone())).map(u64::from);
            let bytes = if self.offloads.none() { 0 } else { frames().sum() };
            let rings = destinations.get(usize::from(*port)).map_or(&[][..], Vec::as_slice);
            patience::short((*port, way_out, rings), sender, heap.frames, bytes)
        })
    }

    /// The work that it was.
    #[inline(always)]
    pub(super) fn work(&self) -> usize {
        budget::work(self.fates.frames, self.fates.alone, self.copies.len())
    }

    /// Whether what it made is more than a source takes that is not greedy.
    #[inline(always)]
    pub(super) fn was_much(&self) -> bool {
        Budget::is_much(self.copies.len(), self.fates.cost)
    }

    /// Tells the drivers of what was published and completed, those that want to know. Before any ring leaves its place.
    #[inline]
    pub(super) fn tell(&mut self, ports: &mut Ports) {
        if self.untold.is_empty() {
            return;
        }
        make_visible();
        for untold in self.untold.drain(..) {
            let (port, told) = match untold {
                Untold::To((port, place), published) => {
                    let rings = ports.destinations.get(usize::from(port));
                    let ring = rings.and_then(|rings| rings.get(usize::from(place)));
                    (port, ring.map_or(Ok(()), |ring| ring.notify(published)))
                }
                Untold::From(which) => {
                    let Some(source) = ports.sources.get_mut(which) else { continue };
                    (source.port, source.ring.notify())
                }
            };
            self.faults.extend(told.err().map(|why| (port, why)));
        }
        for (port, why) in self.faults.drain(..) {
            ports.stop(port, why);
        }
    }

    /// Has the driver of the ring in place `which` told with the others.
    pub(super) fn tell_source(&mut self, which: usize) {
        self.untold.push(Untold::From(which));
    }

    /// A batch begins whose frames may go to any of `ports` ports.
    #[inline(always)]
    fn begin(&mut self, ports: usize) {
        self.fates = Fates::default();
        self.copies.clear();
        self.in_vain.grow(ports);
        if self.heaps.len() < ports {
            self.heaps.resize_with(ports, Heap::default);
        }
    }

    /// Forgets what waited for delivery, also of a batch that a panic cut short: behind a batch, where no receiver waits for it.
    pub(super) fn end(&mut self) {
        for port in self.touched.drain(..) {
            self.heaps[usize::from(port)].clear();
        }
        self.delivered.clear();
        self.losses.clear();
        self.answers.clear();
        self.translations.clear();
    }

    /// Decides about the batch, until a budget is used up, and puts each copy on its destination's heap.
    #[inline(never)]
    fn decide(
        &mut self,
        switch: &Switch<'_>,
        port: u16,
        ring: &FromGuest,
        watches: &mut Watches,
        budget: Budget,
    ) {
        let mut ingress = Ingress::new(*switch, port);
        let mut rows = self.rows.take().unwrap_or_default();
        self.offloads.judge(ring);
        if watches.any() {
            rows.unread(ring.lens(0..ring.batch_len()));
        } else if self.offloads.none() {
            ingress.read(|at| ring.frames(at..ring.batch_len()).map(glance), &mut rows);
            ingress.place(&mut rows);
        } else {
            self.offloads.read(&ingress, ring, budget.bytes, &mut rows);
        }
        self.decide_rows(&mut ingress, &mut rows, (switch, port), ring, watches, budget);
        self.fates.frames = rows.decided();
        // The rows know how long frames are on a wire.
        let known = rows.bytes().filter(|_| self.offloads.none());
        self.fates.bytes = known.unwrap_or_else(|| bytes(ring, rows.decided()));
        self.fates.cost = if self.offloads.none() {
            self.fates.bytes
        } else {
            let lens = ring.lens(0..rows.decided()).enumerate();
            lens.map(|(place, len)| self.offloads.cost(place, len)).sum()
        };
        self.rows = Some(rows);
    }

    /// Decides about the frames of `rows`, which are the batch's, in order.
    #[inline(always)]
    fn decide_rows(
        &mut self,
        ingress: &mut Ingress<'_>,
        rows: &mut Rows,
        at: (&Switch<'_>, u16),
        ring: &FromGuest,
        watches: &mut Watches,
        budget: Budget,
    ) {
        let mut copied = 0;
        while copied < budget.bytes
            && self.copies.len() < budget.copies
            && budget::work(rows.decided(), self.fates.alone, self.copies.len()) < budget.work
        {
            let frames = |at| ring.frames(at..ring.batch_len()).map(|frame| (frame.head(), frame.len()));
            let Self { fates, heaps, touched, translations, .. } = self;
            ingress.ways(rows, frames, translations, |Way { to, edit }, frames| {
                fates.unicast += frames.len() as u64;
                push((heaps, touched), to, Run { frames, edit, copy: None });
            });
            if rows.is_done() {
                break;
            }
            let frame = rows.decided();
            copied += self.decide_one(ingress, at, frame, ring.frame(frame), watches);
            self.fates.alone += 1;
            rows.skip();
        }
    }

    /// Decides about the frame in place `at` by itself; returns how many bytes its copies have.
    #[inline(never)]
    fn decide_one(
        &mut self,
        ingress: &mut Ingress<'_>,
        (switch, port): (&Switch<'_>, u16),
        at: usize,
        frame: Frame<'_>,
        watches: &mut Watches,
    ) -> u64 {
        let before = self.copies.len();
        let lens = (frame.len(), self.offloads.wire_len(at, frame.len()));
        let defect = frame.defect().map(drop_reason);
        let Decision { fate, lesson, rewrite, translation } =
            match defect.or_else(|| self.offloads.unfair(at).then_some(DropReason::BadNetHeader)) {
                Some(reason) => Decision::plain(Fate::Dropped(reason)),
                None if watches.any() => {
                    watches.decide((switch, port), (at, frame.head()), lens, &mut self.copies)
                }
                None => ingress.decide(frame.head(), lens, &mut self.copies),
            };
        if let Some(lesson) = lesson {
            self.losses.learn(at, lesson);
        }
        self.answers.ask((switch, port), (at, frame, lens.1), fate, &self.copies[before..]);
        if let Fate::Dropped(reason) = fate {
            self.losses.lose(at, port, reason);
            return 0;
        }
        let rewrite = rewrite.map(|rewrite| Rewrite {
            // A batch has fewer frames than there are numbers.
            translation: translation.and_then(|translation| self.translations.note(translation)),
            ..rewrite
        });
        self.heap((fate, rewrite), before, at);
        self.offloads.cost(at, frame.len()) * (self.copies.len() - before) as u64
    }

    /// Puts the copies from `first` on, of one frame, on their destinations' heaps.
    #[inline(never)]
    fn heap(&mut self, (fate, rewrite): (Fate, Option<Rewrite>), first: usize, frame: usize) {
        self.fates.add(fate, self.copies.len() - first);
        for at in first..self.copies.len() {
            let Copy { to, outcome } = self.copies[at];
            match outcome {
                Ok(tag) => {
                    let edit = Edit { tag, rewrite };
                    let run = Run { frames: frame..frame + 1, edit, copy: Some(at) };
                    push((&mut self.heaps, &mut self.touched), to, run);
                }
                Err(reason) => self.losses.lose(frame, to, reason),
            }
        }
    }

    #[inline(always)]
    fn deliver(
        &mut self,
        sender: u16,
        ring: &FromGuest,
        destinations: &[Vec<Arc<ToGuest>>],
        captures: &mut Captures,
        now: Instant,
    ) {
        let Self {
            copies,
            heaps,
            touched,
            spread,
            rooms,
            edited,
            losses,
            faults,
            untold,
            delivered,
            offloads,
            translations,
            ..
        } = self;
        let mut delivery = Delivery {
            sender,
            ring,
            offloads,
            translations,
            now,
            copies,
            rooms,
            edited,
            losses,
            faults,
            untold,
            delivered,
            captures,
        };
        for &port in &*touched {
            let heap = &heaps[usize::from(port)];
            match destinations.get(usize::from(port)).map(Vec::as_slice) {
                Some([to]) => delivery.fill((port, 0), to, heap),
                None | Some([]) => delivery.lose(port, heap),
                Some(several) => delivery.spread(port, several, heap, spread),
            }
        }
    }

    fn count(&self, port: u16, ring: u16, lives: &mut [Option<Life>]) {
        for Delivered { port, ring, granted: Granted { frames, bytes } } in &self.delivered {
            let Some(Some(life)) = lives.get_mut(usize::from(*port)) else { continue };
            life.counters.copies += u64::from(*frames);
            life.counters.delivered += u64::from(*frames);
            life.counters.delivered_bytes += bytes;
            life.counters.through(*ring, u64::from(*frames));
        }
        self.losses.count(lives);
        let Some(Some(life)) = lives.get_mut(usize::from(port)) else { return };
        let Fates { frames, bytes, unicast, flooded, flood_copies, consumed, originated, cost: _, alone: _ } =
            &self.fates;
        life.counters.frames += *frames as u64;
        life.counters.through(ring, *frames as u64);
        life.counters.bytes += bytes;
        life.counters.unicast += unicast;
        life.counters.flooded += flooded;
        life.counters.flood_copies += flood_copies;
        life.counters.consumed += consumed;
        life.counters.originated += originated;
    }
}

/// Puts a run on its destination's heap.
#[inline]
fn push((heaps, touched): (&mut [Heap], &mut Vec<u16>), to: u16, run: Run) {
    let heap = &mut heaps[usize::from(to)];
    if heap.runs.is_empty() {
        touched.push(to);
    }
    heap.push(run);
}

/// A batch on its way into its destinations' rings, and what it leaves behind.
struct Delivery<'b> {
    sender: u16,
    ring: &'b FromGuest,
    offloads: &'b Offloads,
    translations: &'b Translations,
    now: Instant,
    copies: &'b mut Vec<Copy>,
    rooms: &'b mut Rooms,
    edited: &'b mut Heads,
    losses: &'b mut Losses,
    faults: &'b mut Vec<(u16, PortFault)>,
    untold: &'b mut Vec<Untold>,
    delivered: &'b mut Vec<Delivered>,
    captures: &'b mut Captures,
}

impl Delivery<'_> {
    /// Delivers a heap, or what of it is for this receiveq.
    #[inline(always)]
    fn fill(&mut self, at: Receiveq, to: &ToGuest, heap: &Heap) {
        let Self { ring, copies, losses, captures, translations, .. } = self;
        let (port, before) = (at.0, losses.mark());
        let lost = |run: &Run, frame, reason| {
            run.copy.into_iter().for_each(|copy| copies[copy].outcome = Err(reason));
            losses.lose(frame, port, reason);
        };
        let kept = (&mut *self.rooms, &mut *self.edited);
        match fill((to, self.sender), kept, (ring, self.offloads), (heap, translations), lost) {
            Ok((granted, published)) => {
                if captures.any() {
                    heap.capture((ring, translations), self.rooms, captures.of(port), self.now);
                }
                self.delivered.push(Delivered { port, ring: to.index(), granted });
                self.untold.push(Untold::To(at, published));
            }
            Err(fault) => {
                losses.take_back(before);
                self.faults.push((port, fault));
                self.lose(port, heap);
            }
        }
    }

    /// All of a heap is lost: its port has no ring, or a broken one.
    #[cold]
    fn lose(&mut self, port: u16, heap: &Heap) {
        for run in &heap.runs {
            run.copy.into_iter().for_each(|copy| self.copies[copy].outcome = Err(DropReason::PortDown));
            run.frames.clone().for_each(|frame| self.losses.lose(frame, port, DropReason::PortDown));
        }
    }
}

/// How many bytes the first `frames` of a batch have.
#[inline(never)]
fn bytes(ring: &FromGuest, frames: usize) -> u64 {
    ring.lens(0..frames).map(u64::from).sum()
}

/// How a frame begins, if it is one, and its length.
#[inline(always)]
fn glance(frame: Frame<'_>) -> (Option<&[u8; GLANCE]>, u32) {
    (if frame.defect().is_some() { None } else { frame.first() }, frame.len())
}

/// Writes a heap's frames, which `sender` sent, into one ring, and says what got no room. An error means that the destination is broken.
#[inline(always)]
fn fill(
    (to, sender): (&ToGuest, u16),
    (rooms, edited): (&mut Rooms, &mut Heads),
    (from, offloads): (&FromGuest, &Offloads),
    (heap, translations): (&Heap, &Translations),
    mut lost: impl FnMut(&Run, usize, DropReason),
) -> Result<(Granted, Published), PortFault> {
    let ask = |claim: &mut Claim<'_>| {
        for run in &heap.runs {
            match run.edit {
                edit if !offloads.none() => {
                    let frames = run.frames.clone().zip(from.lens(run.frames.clone()));
                    let receiver = offloads::receiver(to.features());
                    frames.for_each(|frame| offloads.claim(claim, frame, edit, receiver));
                }
                Edit { tag: TagEdit::Keep | TagEdit::Rewrite(_), .. } => {
                    claim.frames(from.lens(run.frames.clone()));
                }
                edit => {
                    claim.frames(from.lens(run.frames.clone()).map(|len| edit.frame_len(len)));
                }
            }
        }
    };
    let mut lease = to.reserve(sender, rooms, heap.frames, ask)?;
    let granted = lease.granted();
    if granted.frames > 0 {
        if offloads.none() {
            write(&mut lease, from, (heap, translations), edited);
        } else {
            let receiver = offloads::receiver(to.features());
            heap.write_offloaded(&mut lease, from, (offloads, translations), receiver);
        }
    }
    if (granted.frames as usize) < heap.frames {
        let frames = heap.runs.iter().flat_map(|run| run.frames.clone().map(move |frame| (run, frame)));
        for (place, (run, frame)) in frames.enumerate() {
            if let Err(why) = lease.room(place) {
                lost(run, frame, no_room(why));
            }
        }
    }
    lease.publish().map(|published| (granted, published))
}

/// Writes the frames of a heap that got room; which did not is asked of the lease later, once for all.
#[inline(always)]
fn write(
    lease: &mut Lease<'_>,
    from: &FromGuest,
    (heap, translations): (&Heap, &Translations),
    edited: &mut Heads,
) {
    let mut place = 0;
    for run in &heap.runs {
        let frames = from.frames(run.frames.clone());
        match run.edit {
            Edit::KEEP => lease.write_frames(place, frames, |_| {}),
            edit => {
                let change = Change::of(edit, translations.of(edit.rewrite.as_ref()));
                match Untagged::of(&change) {
                    Some(untagged) => write_quick(lease, place, frames, &Quick(untagged, change), edited),
                    None => write_changed(lease, place, frames, change, edited),
                }
            }
        }
        place += run.frames.len();
    }
}

/// A change that is [quick](Untagged), and all of it.
struct Quick<'t>(Untagged, Change<'t>);

impl FrontChange<{ HEAD_BYTES + head::TAG_LEN }> for Quick<'_> {
    #[inline(always)]
    fn same_from(&self) -> usize {
        self.0.same_from()
    }

    #[inline(always)]
    fn front(&self, head: &[u8], room: &Front<'_>) -> bool {
        self.0.front(head, |at, bytes| room.put(at, bytes))
    }

    fn all(&self, head: &[u8], out: &mut [u8; HEAD_BYTES + head::TAG_LEN]) -> usize {
        self.1.apply(head, out)
    }
}

#[inline(never)]
fn write_quick<'f>(
    lease: &mut Lease<'_>,
    place: usize,
    frames: impl Iterator<Item = Frame<'f>>,
    change: &Quick<'_>,
    edited: &mut Heads,
) {
    lease.write_fronts(place, frames, change, edited);
}

#[inline(never)]
fn write_changed<'f>(
    lease: &mut Lease<'_>,
    place: usize,
    frames: impl Iterator<Item = Frame<'f>>,
    change: Change<'_>,
    edited: &mut Heads,
) {
    lease.write_edited(place, frames, |head, out| change.apply(head, out), edited);
}

/// Why a frame found no buffer, in the switch's words.
fn no_room(why: NoRoom) -> DropReason {
    match why {
        NoRoom::Empty => DropReason::NoBuffer,
        NoRoom::TooSmall => DropReason::BufferTooSmall,
    }
}

/// What makes a chain no frame, in the switch's words.
fn drop_reason(defect: Defect) -> DropReason {
    match defect {
        Defect::Oversize => DropReason::Oversize,
        Defect::BadDirection => DropReason::BadDirection,
    }
}
