//! What moves frames without being a host: reflectors between two interfaces, blasters that send one frame again and
//! again, sinks. Each has its interfaces for itself and goes at the pace of the rings.

use crate::{
    Found,
    buffers::Buffers,
    console::say,
    nic::{HEADER, Nic},
    ring::SIZE,
};
use alloc::{boxed::Box, string::String, vec, vec::Vec};
use smoltcp::wire::EthernetAddress;

/// Frames that are moved at once.
const BATCH: u16 = 64;
/// Bytes of a frame of which nothing is said: the shortest without its check sequence.
const SHORTEST: usize = 60;
/// IEEE 802's local experimental EtherType 2, as no protocol's.
const ETHERTYPE: [u8; 2] = [0x88, 0xb6];

/// An interface by its name.
pub(crate) type Named = (String, Nic);

/// What moves frames.
pub(crate) trait Mover {
    /// Moves what there is, in both directions; false if there was nothing.
    fn turn(&mut self) -> bool;
    /// Its interfaces.
    fn nics(&mut self) -> &mut [Named];
    /// Whether it could move something, for whoever is about to wait; its interfaces call for what comes later.
    fn has_work(&self) -> bool;
    /// Says what it did.
    fn report(&self);
    /// Sends what it was to send first, so that there is something to move.
    fn begin(&mut self) {}
}

/// The movers that the command line asks for, and the interfaces that are left.
pub(crate) fn of<'a>(
    reflected: impl Iterator<Item = &'a str>,
    blasted: impl Iterator<Item = &'a str>,
    sunk: impl Iterator<Item = &'a str>,
    found: &mut Vec<Found>,
) -> Vec<Box<dyn Mover>> {
    let mut movers: Vec<Box<dyn Mover>> = Vec::new();
    for text in reflected {
        match Reflector::new(text, found) {
            Some(reflector) => movers.push(Box::new(reflector)),
            None => say!(
                "vnet.reflect={text}: two interfaces, then first=FRAMES, 256 at most, and bytes=BYTES, 60 to what both carry"
            ),
        }
    }
    for text in blasted {
        match Blaster::new(text, found) {
            Some(blaster) => movers.push(Box::new(blaster)),
            None => say!(
                "vnet.blast={text}: an interface, then to=MAC, bytes=BYTES, 60 to what it carries, and count=FRAMES"
            ),
        }
    }
    for name in sunk {
        match take(found, name) {
            Some(nic) => movers.push(Box::new(Blaster::sink(nic))),
            None => say!("vnet.sink={name}: no such interface, or it is used already"),
        }
    }
    movers
}

fn take(found: &mut Vec<Found>, wanted: &str) -> Option<Named> {
    let at = found.iter().position(|found| found.name == wanted)?;
    let Found { name, mut nic, .. } = found.remove(at);
    nic.wait_for_sent();
    Some((name, nic))
}

/// What follows the interfaces' names, as KEY=VALUE.
fn options<'a>(
    words: impl Iterator<Item = &'a str>,
    mut each: impl FnMut(&'a str, &'a str) -> Option<()>,
) -> Option<()> {
    for word in words {
        let (key, value) = word.split_once('=')?;
        each(key, value)?;
    }
    Some(())
}

/// So many equal frames to send, with their header.
fn frames(count: u16, (to, from): ([u8; 6], [u8; 6]), bytes: usize) -> Buffers {
    let mut buffers = Buffers::new(count, HEADER + bytes);
    for number in 0..count {
        let all = buffers.bytes(number, 0..HEADER + bytes);
        all.fill(0);
        let frame = &mut all[HEADER..];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        frame[12..14].copy_from_slice(&ETHERTYPE);
    }
    buffers
}

/// The longest frame that an interface carries.
fn longest(found: &[Found], name: &str) -> Option<usize> {
    found.iter().find(|found| found.name == name).map(|found| found.nic.longest())
}

/// Sends on either interface what came on the other: the very buffer that it was received in, which goes back to its
/// receiveq once it was sent.
struct Reflector {
    nics: [Named; 2],
    /// For each number of either transmitq, the other side's receive buffer that it holds; none: one of `first`.
    holds: [Vec<Option<u16>>; 2],
    /// Frames that came by either interface, and went out by the other.
    moved: [u64; 2],
    /// How many frames of how many bytes each interface sends to the other when it is told to begin.
    first: (u16, usize),
    /// Those frames, once they were sent.
    sent: Option<[Buffers; 2]>,
}

impl Reflector {
    /// `IF,IF[,first=FRAMES][,bytes=BYTES]`.
    fn new(text: &str, found: &mut Vec<Found>) -> Option<Self> {
        let mut words = text.split(',');
        let (one, other) = (words.next()?, words.next()?);
        let (mut count, mut bytes) = (0, SHORTEST);
        options(words, |key, value| {
            match key {
                "first" => count = value.parse().ok().filter(|count| *count <= SIZE)?,
                "bytes" => bytes = value.parse().ok()?,
                _ => return None,
            }
            Some(())
        })?;
        let longest = longest(found, one)?.min(longest(found, other)?);
        if one == other || !(SHORTEST..=longest).contains(&bytes) {
            return None;
        }
        let nics = [take(found, one)?, take(found, other)?];
        let holds = [vec![None; usize::from(SIZE)], vec![None; usize::from(SIZE)]];
        Some(Self { nics, holds, moved: [0; 2], first: (count, bytes), sent: None })
    }

    /// Moves what came by `from` (0 or 1) to the other interface.
    #[inline(always)]
    fn forward(&mut self, from: usize) -> bool {
        let (head, tail) = self.nics.split_at_mut(1);
        let ((_, left), (_, right)) = (&mut head[0], &mut tail[0]);
        let (from_nic, to_nic) = if from == 0 { (left, right) } else { (right, left) };
        let holds = &mut self.holds[1 - from];
        while let Some((sent, _)) = to_nic.transmitq.take() {
            if let Some(buffer) = holds[usize::from(sent)].take() {
                from_nic.lend(buffer);
            }
        }
        from_nic.show_lent();
        let count = from_nic.receiveq.ready().min(to_nic.transmitq.room()).min(BATCH);
        for behind in 0..count {
            from_nic.prefetch(behind);
        }
        for _ in 0..count {
            let Some((buffer, length)) = from_nic.take() else { break };
            let sent = from_nic.forward(buffer, length, to_nic);
            holds[usize::from(sent)] = Some(buffer);
        }
        to_nic.show_put();
        self.moved[from] += u64::from(count);
        count > 0
    }
}

impl Mover for Reflector {
    fn turn(&mut self) -> bool {
        self.forward(0) | self.forward(1)
    }

    fn nics(&mut self) -> &mut [Named] {
        &mut self.nics
    }

    fn has_work(&self) -> bool {
        let [(_, one), (_, other)] = &self.nics;
        // What came cannot go on before something that was sent comes back.
        let can = |from: &Nic, to: &Nic| {
            to.transmitq.is_ready() || from.receiveq.is_ready() && to.transmitq.room() > 0
        };
        can(one, other) || can(other, one)
    }

    fn report(&self) {
        let ([(one, _), (other, _)], [there, back]) = (&self.nics, self.moved);
        say!("{one} to {other}: {there} frames, {other} to {one}: {back} frames");
    }

    fn begin(&mut self) {
        let (count, bytes) = self.first;
        if count == 0 || self.sent.is_some() {
            return;
        }
        let macs = self.nics.each_ref().map(|(_, nic)| nic.mac());
        let buffers = [(macs[1], macs[0]), (macs[0], macs[1])].map(|ends| frames(count, ends, bytes));
        for ((_, nic), buffers) in self.nics.iter_mut().zip(&buffers) {
            for number in 0..count.min(nic.transmitq.room()) {
                nic.transmitq.put(buffers, number, HEADER + bytes);
            }
            nic.show_put();
        }
        self.sent = Some(buffers);
    }
}

/// Sends one frame again and again, and counts what comes.
struct Blaster {
    nic: [Named; 1],
    /// Every descriptor of the transmitq refers to it.
    frame: Buffers,
    length: usize,
    /// Frames to send yet.
    left: u64,
    sent: u64,
    received: u64,
}

impl Blaster {
    /// `IF[,to=MAC][,bytes=BYTES][,count=FRAMES]`: to everybody, the shortest, for ever.
    fn new(text: &str, found: &mut Vec<Found>) -> Option<Self> {
        let mut words = text.split(',');
        let name = words.next()?;
        let (mut to, mut bytes, mut left) = ([0xff; 6], SHORTEST, u64::MAX);
        options(words, |key, value| {
            match key {
                "to" => to = value.parse::<EthernetAddress>().ok()?.0,
                "bytes" => bytes = value.parse().ok()?,
                "count" => left = value.parse().ok()?,
                _ => return None,
            }
            Some(())
        })?;
        if !(SHORTEST..=longest(found, name)?).contains(&bytes) {
            return None;
        }
        let nic = take(found, name)?;
        let frame = frames(1, (to, nic.1.mac()), bytes);
        Some(Self { nic: [nic], frame, length: HEADER + bytes, left, sent: 0, received: 0 })
    }

    /// One that has nothing to send.
    fn sink(nic: Named) -> Self {
        let frame = frames(1, ([0xff; 6], nic.1.mac()), SHORTEST);
        Self { nic: [nic], frame, length: HEADER + SHORTEST, left: 0, sent: 0, received: 0 }
    }
}

impl Mover for Blaster {
    fn turn(&mut self) -> bool {
        let [(_, nic)] = &mut self.nic;
        let mut came = 0;
        while let Some((buffer, _)) = nic.take() {
            nic.lend(buffer);
            came += 1;
        }
        nic.show_lent();
        while nic.transmitq.take().is_some() {}
        let count = self.left.min(nic.transmitq.room().min(BATCH).into());
        for _ in 0..count {
            nic.transmitq.put(&self.frame, 0, self.length);
        }
        nic.show_put();
        self.left -= count;
        self.sent += count;
        self.received += came;
        count + came > 0
    }

    fn nics(&mut self) -> &mut [Named] {
        &mut self.nic
    }

    fn has_work(&self) -> bool {
        let [(_, nic)] = &self.nic;
        nic.receiveq.is_ready() || nic.transmitq.is_ready()
    }

    fn report(&self) {
        let [(name, _)] = &self.nic;
        say!("{name}: {} frames sent, {} received", self.sent, self.received);
    }
}
