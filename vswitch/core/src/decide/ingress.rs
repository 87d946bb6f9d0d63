//! A batch's frames from one port. What nearly every frame is, a frame between two stations that are known, is decided here in two
//! steps, each over the whole batch; whatever is unlike that is decided by [`Switch::decide`], which is the rule that this must equal.

use super::{Copy, Decision, Edit, Fate, Switch, TagEdit, gates::Gates};
use crate::{
    description::Membership,
    fdb::{Entry, Hash, Place, Reader, Seen},
    head::{ETHERNET_LEN, FrameView, LinkHeader, MAX_FRAME_LEN, TAG_LEN, ethertype},
    id::SwitchId,
    mac::MacAddr,
    route::Translations,
    trace::NoTrace,
    vlan::{Tci, VlanId},
    world::{Port, Role},
};
use std::ops::Range;

/// The group bit of an address on top of a word (IEEE 802-2014 §8.2.2).
const GROUP: u64 = 1 << 56;

/// The bits of a word that the address on top of it has.
const ADDRESS: u64 = !0xffff;

/// Where one copy of a frame goes, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The port's place.
    pub to: u16,
    /// How the frame leaves.
    pub edit: Edit,
}

/// One port's frames at one moment.
#[derive(Debug)]
pub struct Ingress<'a> {
    pub(super) switch: Switch<'a>,
    port_index: u16,
    /// What is known of the port; none if its frames need more than one look: it is down, has no link, is a wire or has a rate.
    home: Option<Home<'a>>,
}

/// A port of a switch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home<'a> {
    pub(super) port: &'a Port,
    pub(super) switch: SwitchId,
    vlans: &'a Membership,
    pub(super) fdb: Reader<'a>,
    seen: Seen,
}

/// A batch's frames, those that begin with the same bytes and follow each other together. Kept from batch to batch, so that a batch
/// allocates nothing.
#[derive(Debug, Default)]
pub struct Rows {
    /// As many as any batch had; the first `held` are this one's.
    rows: Vec<Row>,
    held: usize,
    /// Rows whose frames are all decided.
    done: usize,
    /// How many frames these are, and how many bytes they have.
    frames: u32,
    bytes: u64,
    /// The place behind the last frame of the last row that came to firewalls or to routers.
    tried: u32,
}

/// Frames that begin alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// The addresses, each on top of a word, and where they stand in the FDB.
    src: u64,
    dst: u64,
    src_hash: Hash,
    dst_hash: Hash,
    /// The VLAN that they are in; none if they are not between two stations, or need more than one look.
    pub(super) place: Option<Place>,
    pub(super) tag: Tag,
    /// The place of the first one that is not decided; the next row's is behind the last.
    begin: u32,
    /// Bytes that each has at most.
    longest: u32,
}

impl Row {
    const EMPTY: Self = Self {
        src: 0,
        dst: 0,
        src_hash: Hash::NONE,
        dst_hash: Hash::NONE,
        place: None,
        tag: Tag::NONE,
        begin: 0,
        longest: 0,
    };
}

impl Rows {
    /// Takes in frames of these lengths, of which each is to be decided by itself.
    pub fn unread(&mut self, lens: impl Iterator<Item = u32>) {
        self.clear();
        for len in lens {
            self.frames += 1;
            self.bytes += u64::from(len);
        }
        if self.frames > 0 {
            self.unread_row(0);
        }
    }

    /// Bytes of the decided frames, if these are all.
    pub fn bytes(&self) -> Option<u64> {
        self.is_done().then_some(self.bytes)
    }

    /// How many frames are decided: the place of the first that is not.
    pub fn decided(&self) -> usize {
        self.begin(self.done) as usize
    }

    /// Whether all frames are decided.
    pub fn is_done(&self) -> bool {
        self.done >= self.held
    }

    /// Notes that one more is decided.
    pub fn skip(&mut self) {
        let end = self.begin(self.done + 1);
        let Some(row) = self.rows[..self.held].get_mut(self.done) else { return };
        row.begin += 1;
        if row.begin >= end {
            self.done += 1;
        }
    }

    fn begin(&self, row: usize) -> u32 {
        self.rows[..self.held].get(row).map_or(self.frames, |row| row.begin)
    }

    fn clear(&mut self) {
        (self.held, self.done, self.frames, self.bytes, self.tried) = (0, 0, 0, 0, 0);
    }

    /// One more row, to be written over where it stands: a row that is made elsewhere and moved there waits for its own words.
    #[inline(always)]
    fn next(&mut self) -> &mut Row {
        if self.held == self.rows.len() {
            self.rows.push(Row::EMPTY);
        }
        self.held += 1;
        &mut self.rows[self.held - 1]
    }

    /// One more row, of frames of which nothing is known.
    fn unread_row(&mut self, begin: u32) {
        let row = self.next();
        (row.place, row.begin) = (None, begin);
    }
}

/// A C-tag with its TPID, or 0: no tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn tci(self) -> Option<Tci> {
        (self != Self::NONE).then_some(Tci::from_bits(self.0 as u16))
    }
}

/// What a frame meets where its destination was found.
#[derive(Debug, Clone, Copy)]
struct Receiver {
    found: Entry,
    tag: Tag,
    /// Bytes that a frame may have.
    longest: u32,
    way: Way,
    /// Whether it has a firewall, or the port that they come from.
    is_guarded: bool,
}

impl Receiver {
    /// Of no entry: none is free.
    const NOBODY: Self = Self {
        found: Entry::FREE,
        tag: Tag::NONE,
        longest: 0,
        way: Way { to: 0, edit: Edit::KEEP },
        is_guarded: false,
    };

    /// Whether a frame with this tag whose destination was `found` meets the same.
    #[inline(always)]
    fn is_of(&self, found: Entry, tag: Tag) -> bool {
        self.found.is_where(found) && self.tag == tag
    }
}

/// As many first bytes as tell a frame's stations, and its tag.
pub const GLANCE: usize = ETHERNET_LEN + TAG_LEN;

/// Bytes 0 to 7 and 6 to 13 of a frame, as they stand in memory: they overlap, so that two loads read all of its header.
#[inline(always)]
fn words(bytes: &[u8; GLANCE]) -> [u64; 2] {
    [0, 6].map(|at| u64::from_ne_bytes(std::array::from_fn(|n| bytes[at + n])))
}

/// What stands behind the EtherType: of a tagged frame its TCI, and the EtherType behind that.
#[inline(always)]
fn behind(bytes: &[u8; GLANCE]) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|n| bytes[ETHERNET_LEN + n]))
}

impl<'a> Ingress<'a> {
    /// Frames that come in on the port in place `port_index`, to be decided by `switch`.
    #[inline(always)]
    pub fn new(switch: Switch<'a>, port_index: u16) -> Self {
        // To look a station up is to note that it was seen.
        let port = switch.world.port(port_index);
        let port = port.filter(|port| port.takes_rows && switch.learning);
        let home = port.and_then(|port| match &port.role {
            Role::Switched { switch: own, vlans } => {
                let fdb = switch.fdb.reader(*own, switch.now);
                Some(Home { port, switch: *own, vlans, fdb, seen: fdb.seen_on(port.id) })
            }
            Role::Unlinked | Role::Wire { .. } | Role::Routers { .. } => None,
        });
        Self { switch, port_index, home }
    }

    /// The first step: reads the frames of a batch, and puts those in one of the `rows` that begin alike and follow each other. `from`
    /// gives them from a place on: how each begins (none: it is no frame, or too short to tell), and its length on a wire.
    #[inline(always)]
    pub fn read<'f, I>(&self, from: impl Fn(usize) -> I, rows: &mut Rows)
    where
        I: Iterator<Item = (Option<&'f [u8; GLANCE]>, u32)>,
    {
        let Some(home) = &self.home else { return rows.unread(from(0).map(|(_, len)| len)) };
        rows.clear();
        let native = home.native();
        // How the last row begins, what stands behind its EtherType if that is a tag's, and bytes that one more of its frames may have: 0
        // if there can be none.
        let (mut last, mut last_tag, mut longest) = ([0; 2], None, 0);
        let (mut at, mut bytes) = (0, 0);
        let mut frames = from(0);
        while let Some((first, len)) = frames.next() {
            let begin = at as u32;
            at += 1;
            bytes += u64::from(len);
            let Some(first) = first else {
                longest = 0;
                rows.unread_row(begin);
                continue;
            };
            let header = words(first);
            if header == last && len <= longest && last_tag.is_none_or(|last| last == behind(first)) {
                let more = alike(from(at), header, longest, last_tag);
                (at, bytes) = (at + more.0, bytes + more.1);
                frames = from(at);
                continue;
            }
            (last, last_tag, longest) = (header, None, len);
            // Each has an address on top; behind the source stands the EtherType.
            let [dst, src] = header.map(u64::from_be);
            if (dst | src) & GROUP != 0 || src < 1 << 16 {
                rows.unread_row(begin);
                continue;
            }
            let row = rows.next();
            (row.src, row.dst) = (src & ADDRESS, dst & ADDRESS);
            (row.place, row.tag) = (native, Tag::NONE);
            (row.begin, row.longest) = (begin, len);
            if is_tpid(src as u16) {
                last_tag = Some(behind(first));
                home.read_tag(first, row);
            }
        }
        (rows.frames, rows.bytes) = (at as u32, bytes);
    }

    /// The second step: computes where the stations of each row stand in the FDB. If it is so large that its lines come from afar, they are
    /// asked for all at once.
    #[inline(always)]
    pub fn place(&self, rows: &mut Rows) {
        let Some(Home { fdb, .. }) = &self.home else { return };
        let hasher = fdb.hasher();
        for row in &mut rows.rows[..rows.held] {
            if let Some(place) = row.place {
                row.src_hash = hasher.hash(place, row.src);
                row.dst_hash = hasher.hash(place, row.dst);
            }
        }
        if fdb.is_cold() {
            // At the first switch: what is looked up behind a trunk depends on what is found here.
            let warm = |loaded, row: &Row| loaded ^ fdb.warm(row.src_hash) ^ fdb.warm(row.dst_hash);
            std::hint::black_box(rows.rows[..rows.held].iter().fold(0, warm));
        }
    }

    /// The third step: tells `run` which frames have which way, one after the other, for rows between two stations of one switch
    /// that are known, and where there are firewalls, for frames of connections that they know: the fate of these is [`Fate::Unicast`], and
    /// they teach nothing. It ends before the first frame that is unlike that, which is to be [decided](Self::decide) and
    /// [skipped](Rows::skip); then the rest can be tried again. `from` gives the frames from a place on: how each begins, and its length.
    /// What routers translate is noted in `translations`.
    #[inline(always)]
    pub fn ways<'f, I>(
        &self,
        rows: &mut Rows,
        from: impl Fn(usize) -> I,
        translations: &mut Translations,
        mut run: impl FnMut(Way, Range<usize>),
    ) where
        I: Iterator<Item = (&'f [u8], u32)>,
    {
        let Some(home) = &self.home else { return };
        self.switched(home, rows, &from, &mut run);
        while !rows.is_done() && self.routed(home, rows, &from, (translations, &mut run)) {
            self.switched(home, rows, &from, &mut run);
        }
    }

    /// The rows that are for a gateway, from the next one on; whether all of that one goes on, so that others may.
    #[cold]
    #[inline(never)]
    fn routed<'f, I>(
        &self,
        home: &Home<'_>,
        rows: &mut Rows,
        from: &impl Fn(usize) -> I,
        (translations, run): (&mut Translations, &mut impl FnMut(Way, Range<usize>)),
    ) -> bool
    where
        I: Iterator<Item = (&'f [u8], u32)>,
    {
        let (begin, end) = (rows.begin(rows.done), rows.begin(rows.done + 1));
        let Some(row) = rows.rows[..rows.held].get_mut(rows.done) else { return false };
        let is_gateways = |mac: MacAddr| mac.to_u64() << 16 == row.dst;
        if !self.switch.world.routing().is_some_and(|routing| is_gateways(routing.mac))
            || home.find(row).is_none()
        {
            return false;
        }
        // Once, also if a frame of the row is decided by itself and the rest is tried again.
        let is_new = rows.tried < end;
        rows.tried = end;
        let frames = from(begin as usize).take((end - begin) as usize);
        row.begin += self.route_row(home, (row, is_new), frames, translations, |way, frames: Range<usize>| {
            run(way, begin as usize + frames.start..begin as usize + frames.end);
        }) as u32;
        let is_whole = row.begin == end;
        rows.done += usize::from(is_whole);
        is_whole
    }

    /// The rows that are for a station, from the next one on.
    #[inline(always)]
    fn switched<'f, I>(
        &self,
        home: &Home<'_>,
        rows: &mut Rows,
        from: &impl Fn(usize) -> I,
        run: &mut impl FnMut(Way, Range<usize>),
    ) where
        I: Iterator<Item = (&'f [u8], u32)>,
    {
        let (mut receiver, mut begin) = (Receiver::NOBODY, rows.decided());
        // Where a row ends of which only the first frames pass firewalls.
        let mut cut = None;
        let left = rows.rows.get(rows.done..rows.held).unwrap_or_default();
        for (at, row) in left.iter().enumerate() {
            let Some(found) = home.find(row) else { break };
            if !receiver.is_of(found, row.tag) {
                let way = receiver.way;
                if !self.meet(&mut receiver, home, row, found) {
                    break;
                }
                if way != receiver.way {
                    if begin < row.begin as usize {
                        run(way, begin..row.begin as usize);
                    }
                    begin = row.begin as usize;
                }
            }
            if row.longest > receiver.longest {
                break;
            }
            if receiver.is_guarded {
                let end = left.get(at + 1).map_or(rows.frames, |next| next.begin);
                // Once, also if a frame of the row is decided by itself and the rest is tried again.
                let is_new = rows.tried < end;
                rows.tried = end;
                let passed = self.through(home, row, (end, is_new), receiver.way.to, from);
                if passed < end {
                    cut = Some(passed);
                    break;
                }
            }
            rows.done += 1;
        }
        if let Some(begin) = cut {
            rows.rows[rows.done].begin = begin;
        }
        let end = rows.decided();
        if begin < end {
            run(receiver.way, begin..end);
        }
    }

    /// Where the frames of `row`, which ends before the one in place `end`, stop passing at once through the firewalls at both ends of their way: the
    /// place of the first that does not, or `end`. All of a row that `is_new` are read ahead
    /// if they are of several connections. Kept apart, so that frames without firewalls pay nothing for it.
    #[cold]
    #[inline(never)]
    fn through<'f, I>(
        &self,
        home: &Home<'_>,
        row: &Row,
        (end, is_new): (u32, bool),
        to: u16,
        from: &impl Fn(usize) -> I,
    ) -> u32
    where
        I: Iterator<Item = (&'f [u8], u32)>,
    {
        let frames = || from(row.begin as usize).take((end - row.begin) as usize);
        let src = MacAddr::new(std::array::from_fn(|n| (row.src >> (56 - 8 * n)) as u8));
        let ends = self.switch.world.port(to).map(|to| (home.port, to));
        let vlan = row.place.and_then(Place::vlan);
        let gates = vlan.zip(ends).and_then(|(vlan, ends)| Gates::between(&self.switch, vlan, src, ends));
        let at = ETHERNET_LEN + if row.tag == Tag::NONE { 0 } else { TAG_LEN };
        let Some(gates) = gates else { return row.begin };
        let last = if is_new { from(end as usize - 1).next() } else { None };
        row.begin + gates.pass(at, frames(), last.map(|(bytes, _)| bytes)) as u32
    }

    /// Makes `receiver` what frames of `row` meet at the port where their destination was `found`; not if that is no other port of
    /// this switch that is up and has no rate.
    #[inline]
    fn meet(&self, receiver: &mut Receiver, home: &Home<'_>, row: &Row, found: Entry) -> bool {
        let tag = row.tag.tci();
        let met = || {
            let place = row.place?;
            let found = home.fdb.find_in(place, found, row.dst_hash)?;
            let port = found.port(self.switch.world)?;
            let vlan = place.vlan()?;
            let egress = port.egress(home.switch, vlan)?;
            let edit = || (found, port, TagEdit::on_egress(egress, vlan, tag, false));
            (port.id != home.port.id && port.takes_rows).then(edit)
        };
        // What was found is of the frames' VLAN now, so that no other row of another VLAN is taken to meet the same.
        let Some((found, port, edit)) = met() else { return false };
        let link_len = ETHERNET_LEN + if tag.is_some() { TAG_LEN } else { 0 };
        let longest =
            port.mtu.map_or(MAX_FRAME_LEN, |mtu| u32::from(mtu) + link_len as u32).min(MAX_FRAME_LEN);
        let way = Way { to: port.id.index(), edit: Edit::of(edit) };
        *receiver = Receiver {
            found,
            tag: row.tag,
            longest,
            way,
            is_guarded: !(port.is_plain && home.port.is_plain),
        };
        true
    }

    /// As [`Switch::judge`], without a trace, for the frame of `len` bytes whose first bytes these are; on a wire it makes frames of at most
    /// `wire_len`.
    pub fn decide(&mut self, bytes: &[u8], (len, wire_len): (u32, u32), copies: &mut Vec<Copy>) -> Decision {
        let decision = match LinkHeader::parse(bytes, len) {
            Ok(link) => {
                let frame = FrameView { link: &link, bytes, len, wire_len };
                self.switch.judge(self.port_index, &frame, copies, &mut NoTrace)
            }
            Err(reason) => Decision::plain(Fate::Dropped(reason)),
        };
        if let Some(home) = &mut self.home {
            home.fdb = home.fdb.renewed();
        }
        decision
    }
}

impl Home<'_> {
    /// The VLAN of untagged frames.
    fn native(&self) -> Option<Place> {
        match self.vlans {
            Membership::Access(vlan) | Membership::Trunk { native: Some(vlan), .. } => {
                Some(Place::new(self.switch, *vlan))
            }
            Membership::Trunk { native: None, .. } => None,
        }
    }

    /// Puts the tag of a frame that begins so into its row, and its VLAN: if it is a C-tag that names one, and no other tag stands behind it.
    #[inline(never)]
    fn read_tag(&self, first: &[u8; GLANCE], row: &mut Row) {
        let [.., tpid_high, tpid_low, tci_high, tci_low, next_high, next_low] = *first;
        let [tpid, tci, next] =
            [[tpid_high, tpid_low], [tci_high, tci_low], [next_high, next_low]].map(u16::from_be_bytes);
        let place = match self.vlans {
            Membership::Trunk { vlans, .. } if tpid == ethertype::C_TAG && !is_tpid(next) => {
                let vlan = VlanId::new(Tci::from_bits(tci).vid()).filter(|vlan| vlans.contains(*vlan));
                vlan.map(|vlan| Place::new(self.switch, vlan))
            }
            _ => None,
        };
        (row.place, row.tag) = (place, Tag(u32::from(tpid) << 16 | u32::from(tci)));
    }

    /// Notes that the source of `row` was seen here, if that is where it is known; then the entry of its destination.
    #[inline(always)]
    fn find(&self, row: &Row) -> Option<Entry> {
        if !self.fdb.notes(self.seen, row.place?, row.src, row.src_hash) {
            return None;
        }
        self.fdb.find(row.dst, row.dst_hash)
    }
}

/// How many of these frames, one after the other, begin with `header`, have this `tag` behind it if there is one, and have at most `longest`
/// bytes; and how many bytes in all.
#[inline(always)]
fn alike<'f>(
    frames: impl Iterator<Item = (Option<&'f [u8; GLANCE]>, u32)>,
    header: [u64; 2],
    longest: u32,
    tag: Option<u32>,
) -> (usize, u64) {
    let ([front, back], mut count, mut bytes) = (header, 0, 0);
    for (first, len) in frames {
        // Word by word: this is what a frame of a long row costs.
        let is_alike = first.is_some_and(|first| {
            let words = words(first);
            words[0] == front && words[1] == back && tag.is_none_or(|tag| tag == behind(first))
        });
        if !is_alike || len > longest {
            break;
        }
        count += 1;
        bytes += u64::from(len);
    }
    (count, bytes)
}

const fn is_tpid(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::C_TAG | ethertype::S_TAG)
}
