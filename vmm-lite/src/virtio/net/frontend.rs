//! The thread of an interface that speaks vhost-user with the switch. If the switch goes away, it connects to the next one
//! and puts the rings before it as they are: the driver notices a pause. No vCPU ever waits for a message but of a reset, and of a
//! number of queue pairs.

use super::{
    super::mmio::{Queue, VERSION_1},
    NetConfig, NetError, Shared, State,
    offer::{OF_BACKEND, QUEUE_SIZE, carriers, mask},
};
use crate::{devices::lock, event::Event, memory::Ram};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};
use std::{
    collections::BTreeSet,
    io,
    net::Shutdown,
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{atomic::Ordering, mpsc::channel},
    thread,
    time::{Duration, Instant},
};
use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures, message::VhostUserHeaderFlag},
};
use virtio_bindings::virtio_net::VIRTIO_NET_F_MQ;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// How long after the switch went away, or was not there, it is looked for again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long after it was lent the rings that it fills, a new switch is lent those that it empties: it meets all its guests
/// at about this time, and what it takes for one that is not there yet is lost to a transfer that may wait a second for that.
const OTHERS_COME: Duration = Duration::from_millis(20);
/// How often in a row a switch may hang up over the rings before it is the rings that are wrong.
const MOST_HANG_UPS: u8 = 8;
/// VHOST_USER_F_PROTOCOL_FEATURES: of the connection, not of the device.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Several queue pairs.
const MQ: u64 = mask(&[VIRTIO_NET_F_MQ]);

fn message<T>(step: &'static str, result: vhost::Result<T>) -> Result<T, NetError> {
    result.map_err(|source| NetError::Message { step, source })
}

/// A switch that has said what it offers.
pub(super) struct Connection {
    frontend: Frontend,
    /// The same socket, to see when it is closed.
    stream: UnixStream,
    offered: u64,
    /// It has the guest's memory, which never changes.
    has_memory: bool,
    /// The rings that it was told to carry frames by, and was not told to stop: who takes a ring back does not.
    enabled: BTreeSet<usize>,
}

impl Connection {
    /// Connects, and hears what is offered; an error if that takes longer than `limit`.
    pub(super) fn open_within(config: &NetConfig, limit: Duration) -> Result<Self, NetError> {
        let (socket, queues) = (&config.socket, config.queues);
        let stream =
            connect(socket).map_err(|source| NetError::Connect { socket: socket.clone(), source })?;
        let ours = stream.try_clone()?;
        let (sender, opened) = channel();
        thread::Builder::new().name("handshake".into()).spawn(move || {
            // Who has given up does not want it.
            let _ = sender.send(Self::open(stream, queues));
        })?;
        let opened = opened.recv_timeout(limit).unwrap_or_else(|_| {
            // By this the thread ends, too.
            let _ = ours.shutdown(Shutdown::Both);
            Err(NetError::Silent { socket: socket.clone() })
        });
        match opened {
            Err(NetError::Message { step, .. }) if hung_up(&ours) => {
                Err(NetError::HungUp { socket: socket.clone(), step })
            }
            opened => opened,
        }
    }

    /// The same with a switch that is to serve so many queue pairs.
    fn open(stream: UnixStream, queues: u16) -> Result<Self, NetError> {
        let mut frontend = Frontend::from_stream(stream.try_clone()?, 2 * u64::from(queues));
        message("SET_OWNER", frontend.set_owner())?;
        let offered = message("GET_FEATURES", frontend.get_features())?;
        if offered & VERSION_1 == 0 {
            return Err(NetError::Legacy);
        }
        let mut served = 1;
        if offered & PROTOCOL_FEATURES != 0 {
            let known = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
            let protocol = message("GET_PROTOCOL_FEATURES", frontend.get_protocol_features())? & known;
            message("SET_PROTOCOL_FEATURES", frontend.set_protocol_features(protocol))?;
            if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
            // Without replies nobody would know from when on a pair is not filled any more.
            let known = offered & MQ != 0
                && protocol.contains(VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK);
            if queues > 1 && known {
                served = message("GET_QUEUE_NUM", frontend.get_queue_num())? / 2;
            }
        }
        if served < queues.into() {
            return Err(NetError::Queues { offered: served, wanted: queues });
        }
        Ok(Self { frontend, stream, offered, has_memory: false, enabled: BTreeSet::new() })
    }

    /// Has it carry frames by a ring, or not. One without this message does by all it is given.
    fn enable(&mut self, ring: usize, on: bool) -> Result<(), NetError> {
        if self.offered & PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        message("SET_VRING_ENABLE", self.frontend.set_vring_enable(ring, on))?;
        if on {
            self.enabled.insert(ring)
        } else {
            self.enabled.remove(&ring)
        };
        Ok(())
    }

    /// The features that it offers.
    pub(super) fn offered(&self) -> u64 {
        self.offered
    }

    /// The same socket, to cut.
    pub(super) fn line(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Whether the other end is gone.
    fn hung_up(&self) -> bool {
        hung_up(&self.stream)
    }
}

/// Whether the other end is gone.
fn hung_up(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// What the switch was told.
#[derive(Default)]
struct Told {
    /// Of which of the driver's lives.
    life: u64,
    /// It has the rings of that life, of which there may be none.
    lent: bool,
    /// The rings that it may look at.
    rings: Vec<usize>,
    /// How many queue pairs it carries frames by.
    pairs: u16,
    /// How often in a row it hung up when it was told of them.
    hang_ups: u8,
}

/// Where rings begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rings {
    /// At 0: the driver has just set them up.
    New,
    /// Where the last switch left them: it completed in order, so the used index says how far it came.
    GoOn,
}

/// The connection is of no use any more.
struct Lost;

impl Shared {
    /// Tells the switch what the driver does, and the next switch when there is one, until the machine is over.
    pub(super) fn speak(&self, first: Connection) {
        if catch_unwind(AssertUnwindSafe(|| self.until_over(first))).is_err() {
            // Its connection is closed by now. Nobody is to wait for a thread that is no more.
            let mut state = lock(&self.state);
            state.complain("its thread panicked; this is a bug of the VMM");
            state.registers.needs_reset();
            self.returned(&mut state);
            self.call.ring();
        }
    }

    fn until_over(&self, first: Connection) {
        let (mut connection, mut told) = (Some(first), Told::default());
        loop {
            if let Some(switch) = &mut connection {
                if self.catch_up(switch, &mut told).and_then(|()| self.wait(switch)).is_ok() {
                    continue;
                }
                // Dropped first: the switch leaves the rings, if it is there at all.
                drop(connection.take());
                told.rings.clear();
                told.lent = false;
                let mut state = lock(&self.state);
                state.line = None;
                self.returned(&mut state);
            }
            self.pause(AGAIN);
            if lock(&self.state).over {
                return;
            }
            connection = self.connect();
        }
    }

    /// The next switch, if there is one.
    fn connect(&self) -> Option<Connection> {
        let stream = connect(&self.config.socket).ok()?;
        {
            // A switch that takes its time holds nobody up but us, whom the end of the machine frees by this.
            let mut state = lock(&self.state);
            state.line = stream.try_clone().ok();
            if state.over || state.line.is_none() {
                return None;
            }
        }
        let opened = Connection::open(stream, self.config.queues);
        if let Err(why @ (NetError::Legacy | NetError::Queues { .. })) = &opened {
            lock(&self.state).complain(why);
        }
        opened.ok()
    }

    /// Waits until the driver has done something.
    fn wait(&self, switch: &Connection) -> Result<(), Lost> {
        let mut polled =
            [PollFd::new(&switch.stream, PollFlags::RDHUP), PollFd::new(&self.news, PollFlags::IN)];
        // An error is that of a signal, after which it is looked again.
        let _ = poll(&mut polled, None);
        if polled[0].revents().is_empty() { Ok(()) } else { Err(Lost) }
    }

    /// Lets some time go by; none when the machine is over.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !lock(&self.state).over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.news.drain();
            let mut polled = [PollFd::new(&self.news, PollFlags::IN)];
            let _ = poll(&mut polled, Timespec::try_from(left).ok().as_ref());
        }
    }

    /// Tells the switch of all that the driver has done so far.
    fn catch_up(&self, switch: &mut Connection, told: &mut Told) -> Result<(), Lost> {
        loop {
            self.news.drain();
            let mut state = lock(&self.state);
            if state.over {
                return Err(Lost);
            }
            let life = state.life;
            if told.life != life && told.lent {
                drop(state);
                self.take_back(switch, told)?;
            } else if state.registers.started() && !state.refused && !told.lent {
                let rings = if told.life == life { Rings::GoOn } else { Rings::New };
                told.life = life;
                state.lent = true;
                told.pairs = state.control.pairs;
                let features = state.registers.features();
                let queues = &state.registers.queues()[..carriers(features, self.config.queues)];
                let queues = queues.to_vec();
                drop(state);
                let shown = self.lend(switch, features, &queues, rings, told);
                self.settle(switch, told, rings, shown)?;
            } else if told.lent && told.pairs != state.control.pairs {
                let pairs = state.control.pairs;
                drop(state);
                self.carry_by(switch, told, pairs)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Takes the rings from the switch: when this returns, it leaves them alone.
    fn take_back(&self, switch: &mut Connection, told: &mut Told) -> Result<(), Lost> {
        for index in std::mem::take(&mut told.rings) {
            if let Err(why) = message("GET_VRING_BASE", switch.frontend.get_vring_base(index)) {
                if !switch.hung_up() {
                    lock(&self.state).complain(&why);
                }
                return Err(Lost);
            }
        }
        told.lent = false;
        self.returned(&mut lock(&self.state));
        Ok(())
    }

    /// Has the switch carry frames by so many queue pairs; by as many as before, if it refuses.
    fn carry_by(&self, switch: &mut Connection, told: &mut Told, pairs: u16) -> Result<(), Lost> {
        let before = std::mem::replace(&mut told.pairs, pairs);
        for ring in told.rings.iter().copied().filter(|ring| is_of(*ring, pairs) != is_of(*ring, before)) {
            let on = is_of(ring, pairs);
            if on == switch.enabled.contains(&ring) {
                continue;
            }
            let Err(why) = switch.enable(ring, on) else { continue };
            if switch.hung_up() {
                return Err(Lost);
            }
            let mut state = lock(&self.state);
            state.complain(&why);
            if !on {
                return Err(Lost);
            }
            // What was enabled of them until here is taken back at once: the driver wants no more than before.
            state.control.pairs = before;
            return Ok(());
        }
        lock(&self.state).control.carried = pairs;
        self.settled.notify_all();
        Ok(())
    }

    /// The switch has left the rings.
    fn returned(&self, state: &mut State) {
        state.lent = false;
        self.settled.notify_all();
    }

    /// What follows from how the switch took the rings.
    fn settle(
        &self,
        switch: &Connection,
        told: &mut Told,
        rings: Rings,
        shown: Result<(), NetError>,
    ) -> Result<(), Lost> {
        let Err(why) = shown else {
            told.lent = true;
            told.hang_ups = 0;
            let mut state = lock(&self.state);
            state.control.carried = told.pairs;
            self.settled.notify_all();
            if rings == Rings::GoOn {
                // What was called or kicked while nobody listened.
                self.kicks.iter().for_each(Event::ring);
                // This switch has yet to learn where its guests are.
                state.ask_to_announce();
                self.call.ring();
            }
            return Ok(());
        };
        // Of these it was told nothing: it is as good a switch as before.
        let untold = matches!(why, NetError::Ring(_) | NetError::Less(_));
        told.hang_ups += 1;
        // A switch that went away just now gets them when it is back; one that refuses them and hangs up will again.
        if untold || !switch.hung_up() || told.hang_ups >= MOST_HANG_UPS {
            told.hang_ups = 0;
            let mut state = lock(&self.state);
            if state.life == told.life {
                state.refused = true;
                state.complain(&why);
                state.registers.needs_reset();
                self.call.ring();
            }
            if untold {
                self.returned(&mut state);
            }
        }
        if untold { Ok(()) } else { Err(Lost) }
    }

    /// Puts memory and rings before the switch; `told` notes those that it may look at.
    fn lend(
        &self,
        switch: &mut Connection,
        features: u64,
        queues: &[Queue],
        rings: Rings,
        told: &mut Told,
    ) -> Result<(), NetError> {
        let (ram, frontend) = (self.vm.ram(), &mut switch.frontend);
        let of_backend = features & OF_BACKEND;
        if of_backend & !switch.offered != 0 {
            return Err(NetError::Less(of_backend & !switch.offered));
        }
        let described = described(ram, queues, rings)?;
        let of_connection = switch.offered & PROTOCOL_FEATURES;
        message("SET_FEATURES", frontend.set_features(of_backend | of_connection))?;
        if !switch.has_memory {
            let regions = ram.iter().map(VhostUserMemoryRegionInfo::from_guest_region);
            let regions = message("SET_MEM_TABLE", regions.collect::<vhost::Result<Vec<_>>>())?;
            message("SET_MEM_TABLE", frontend.set_mem_table(&regions))?;
            switch.has_memory = true;
        }
        let mut others_come = rings == Rings::GoOn;
        for (index, config, base) in described {
            if is_transmitq(index) && std::mem::take(&mut others_come) {
                self.pause(OTHERS_COME);
            }
            let used = is_of(index, told.pairs);
            if !used && switch.enabled.contains(&index) {
                switch.enable(index, false)?;
            }
            let frontend = &mut switch.frontend;
            message("SET_VRING_NUM", frontend.set_vring_num(index, config.queue_size))?;
            message("SET_VRING_BASE", frontend.set_vring_base(index, base))?;
            message("SET_VRING_ADDR", frontend.set_vring_addr(index, &config))?;
            message("SET_VRING_KICK", frontend.set_vring_kick(index, self.kicks[index].as_event_fd()))?;
            message("SET_VRING_CALL", frontend.set_vring_call(index, self.call.as_event_fd()))?;
            told.rings.push(index);
            if used {
                switch.enable(index, true)?;
            }
        }
        Ok(())
    }
}

/// Whether a ring is one that the switch empties: receiveqs and transmitqs take turns (§5.1.2).
const fn is_transmitq(index: usize) -> bool {
    index % 2 == 1
}

/// Whether a ring is of one of the first so many queue pairs.
fn is_of(index: usize, pairs: u16) -> bool {
    index / 2 < usize::from(pairs)
}

/// One attempt that does not wait: a listener whose queue is full would block a plain connect.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// All rings that are ready, with where they begin: those that the switch fills, then those that it empties.
fn described(
    ram: &Ram,
    queues: &[Queue],
    rings: Rings,
) -> Result<Vec<(usize, VringConfigData, u16)>, NetError> {
    let ready = queues.iter().enumerate().filter(|(_, queue)| queue.ready);
    let one = |(index, queue)| {
        let config = ring(ram, queue)?;
        let base = match rings {
            Rings::New => 0,
            Rings::GoOn => used_index(ram, queue)?,
        };
        Some((index, config, base))
    };
    let described = ready.map(|(index, queue)| one((index, queue)).ok_or(NetError::Ring(index)));
    let mut described = described.collect::<Result<Vec<_>, _>>()?;
    described.sort_by_key(|(index, ..)| is_transmitq(*index));
    Ok(described)
}

/// How far the device came with a ring (§2.7.8).
fn used_index(ram: &Ram, queue: &Queue) -> Option<u16> {
    let address = GuestAddress(queue.device.checked_add(2)?);
    ram.load::<u16>(address, Ordering::Acquire).ok().map(u16::from_le)
}

/// A ring in our own addresses, which vhost-user speaks of; none if a part of it is not in the guest's memory.
fn ring(ram: &Ram, queue: &Queue) -> Option<VringConfigData> {
    let size = queue.size?;
    let entries = u64::from(size);
    // A part must lie in one region: ring parts are contiguous for whoever maps them (§2.7 has the lengths).
    let place = |address: u64, length: u64| {
        let slice = ram.get_slice(GuestAddress(address), usize::try_from(length).ok()?).ok()?;
        Some(slice.ptr_guard().as_ptr() as u64)
    };
    Some(VringConfigData {
        queue_max_size: QUEUE_SIZE,
        queue_size: size,
        flags: 0,
        desc_table_addr: place(queue.descriptors, 16 * entries)?,
        avail_ring_addr: place(queue.driver, 6 + 2 * entries)?,
        used_ring_addr: place(queue.device, 6 + 8 * entries)?,
        log_addr: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_goes_on_where_it_was_used_up_to() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let queue = Queue { size: Some(8), ready: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000 };
        ram.write_obj(0xfffeu16, GuestAddress(0x3002)).unwrap();
        assert_eq!(used_index(&ram, &queue), Some(0xfffe));
        for device in [(1 << 20) - 2, 1 << 20, u64::MAX] {
            assert_eq!(used_index(&ram, &Queue { device, ..queue }), None);
        }
    }

    #[test]
    fn rings_are_described_all_or_none() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let good = Queue { size: Some(8), ready: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000 };
        ram.write_obj(7u16, GuestAddress(0x3002)).unwrap();
        let bases = |queues: &[Queue], rings| {
            let described = described(&ram, queues, rings).map_err(|why| why.to_string())?;
            Ok(described.into_iter().map(|(index, _, base)| (index, base)).collect::<Vec<_>>())
        };
        assert_eq!(bases(&[good, good], Rings::New), Ok(vec![(0, 0), (1, 0)]));
        assert_eq!(bases(&[Queue { ready: false, ..good }, good], Rings::GoOn), Ok(vec![(1, 7)]));
        let bad = Queue { device: 1 << 20, ..good };
        let why: Result<Vec<(usize, u16)>, _> = Err("ring 1 is not in the guest's memory".to_owned());
        assert_eq!(bases(&[good, bad], Rings::New), why);
    }

    #[test]
    fn a_ring_lies_in_memory_or_is_none() {
        let ram = Ram::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let good = Queue { size: Some(8), ready: true, descriptors: 0x1000, driver: 0x2000, device: 0x3000 };
        let host = ram.get_host_address(GuestAddress(0)).unwrap() as u64;
        let found = ring(&ram, &good).unwrap();
        assert_eq!((found.desc_table_addr, found.used_ring_addr), (host + 0x1000, host + 0x3000));
        for bad in [
            Queue { size: None, ..good },
            Queue { descriptors: (1 << 20) - 16, ..good },
            Queue { driver: u64::MAX, ..good },
            Queue { device: 1 << 20, ..good },
        ] {
            assert!(ring(&ram, &bad).is_none(), "{bad:?}");
        }
    }
}
