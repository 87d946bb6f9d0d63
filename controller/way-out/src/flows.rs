//! UDP and echo requests: a socket of this machine's for each flow, which is forgotten when nobody used it for a while.

use crate::{
    connections::With,
    heard::Packet,
    host::{self, Kind},
    out::{QUOTED, Unreachable},
    reach::{DNS, Way},
};
use rustix::{
    io::{Errno, read},
    net::{SendFlags, send},
};
use smoltcp::{
    phy::ChecksumCapabilities,
    time::{Duration, Instant},
    wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpRepr, UdpPacket, UdpRepr},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

/// Flows at most; of more the one that would be forgotten next goes.
const MOST: usize = 1024;
/// How long a flow lives that nobody uses: as long as NATs keep them (RFC 4787 §4.3), and one to a name server or of echoes a short while.
const IDLE: Duration = Duration::from_secs(180);
const IDLE_SHORT: Duration = Duration::from_secs(30);
/// Datagrams of one flow at once; then it is another one's turn.
const TURN: usize = 64;
/// The longest datagram.
const LONGEST: usize = 65_536;
/// Types of ICMP and ICMPv6.
const ECHO_REPLY: [u8; 2] = [0, 129];
/// Bytes of an ICMP echo's header.
const ECHO_HEADER: usize = 8;

/// Who speaks with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ends {
    Udp { guest: SocketAddr, dst: SocketAddr },
    Echo { guest: IpAddr, dst: IpAddr, ident: u16 },
}

impl Ends {
    const fn kind(self) -> Kind {
        match self {
            Self::Udp { .. } => Kind::Udp,
            Self::Echo { .. } => Kind::Echo,
        }
    }

    fn patience(self) -> Duration {
        match self {
            Self::Udp { dst, .. } if dst.port() != DNS => IDLE,
            _ => IDLE_SHORT,
        }
    }
}

#[derive(Debug)]
struct Flow {
    ends: Ends,
    /// The guest's neighbour on the link, or the guest itself.
    peer: EthernetAddress,
    socket: OwnedFd,
    /// What errors are about: the latest packet's IP header, and the begin of what is behind it.
    sent: (IpRepr, Vec<u8>),
    due: Instant,
    readable: bool,
    queued: bool,
}

/// All flows.
#[derive(Debug)]
pub(crate) struct Flows {
    all: HashMap<u64, Flow>,
    by_ends: HashMap<Ends, u64>,
    due: BTreeSet<(Instant, u64)>,
    turns: VecDeque<u64>,
    datagram: Box<[u8]>,
    /// That this machine does not let this user ping was told.
    told: bool,
}

impl Flows {
    pub(crate) fn new() -> Self {
        Self {
            all: HashMap::new(),
            by_ends: HashMap::new(),
            due: BTreeSet::new(),
            turns: VecDeque::new(),
            datagram: vec![0; LONGEST].into(),
            told: false,
        }
    }

    /// Takes a UDP datagram; a flow that it begins is known by `id`.
    pub(crate) fn udp(&mut self, packet: &Packet<'_>, id: u64, with: &mut With<'_>) {
        let (src, dst) = (packet.ip.src_addr(), packet.ip.dst_addr());
        let Ok(udp) = UdpPacket::new_checked(packet.payload) else { return };
        let Ok(repr) = UdpRepr::parse(&udp, &src, &dst, &ChecksumCapabilities::default()) else { return };
        let (guest, dst) =
            (SocketAddr::new(src.into(), repr.src_port), SocketAddr::new(dst.into(), repr.dst_port));
        let way = |with: &With<'_>| with.reach.way(dst);
        self.lead_out(packet, Ends::Udp { guest, dst }, udp.payload(), way, id, with);
    }

    /// Takes an echo request; that to its own address is answered here.
    pub(crate) fn echo(&mut self, packet: &Packet<'_>, id: u64, with: &mut With<'_>) {
        let Some((ident, seq_no, data)) = echo_request(packet) else { return };
        let (guest, dst) = (packet.src(), packet.dst());
        if with.reach.is_own(dst) {
            return with.out.echo_reply(packet.from, (dst, guest), (ident, seq_no), data);
        }
        // The rest of this machine's own is as if it were not there.
        let way = |with: &With<'_>| match with.reach.host(dst) {
            Way::Refused => Way::Lost,
            way => way,
        };
        self.lead_out(packet, Ends::Echo { guest, dst, ident }, packet.payload, way, id, with);
    }

    fn lead_out(
        &mut self,
        packet: &Packet<'_>,
        ends: Ends,
        payload: &[u8],
        way: impl FnOnce(&With<'_>) -> Way,
        id: u64,
        with: &mut With<'_>,
    ) {
        let known = self.by_ends.get(&ends).copied();
        let found = known.map_or_else(|| self.begin(packet, ends, way(with), id, with), Ok);
        match found {
            Ok(id) => self.send(id, packet, payload, with),
            Err(Some(what)) => with.out.unreachable(packet.from, &packet.ip, packet.payload, what),
            Err(None) => {}
        }
    }

    /// A new flow.
    ///
    /// # Errors
    /// There is none, and perhaps the sender is to be told why.
    fn begin(
        &mut self,
        packet: &Packet<'_>,
        ends: Ends,
        way: Way,
        id: u64,
        with: &With<'_>,
    ) -> Result<u64, Option<Unreachable>> {
        let to = match way {
            Way::To(to) => to,
            Way::Refused => return Err(Some(Unreachable::Port)),
            Way::Lost => return Err(None),
        };
        while self.all.len() >= MOST {
            self.forget_least_used();
        }
        let mut socket = host::connected(ends.kind(), to);
        if matches!(socket, Err(Errno::MFILE | Errno::NFILE)) {
            self.forget_least_used();
            socket = host::connected(ends.kind(), to);
        }
        let socket = socket.and_then(|socket| with.watch.add(&socket, id).map(|()| socket));
        let socket = socket.map_err(|why| match (ends.kind(), why) {
            (Kind::Echo, Errno::ACCESS | Errno::PERM) => {
                if !self.told {
                    self.told = true;
                    tracing::warn!(
                        "nobody is pinged: this user's group is not in `sysctl net.ipv4.ping_group_range`"
                    );
                }
                None
            }
            _ => host::unreachable(why),
        })?;
        let due = with.now + ends.patience();
        let sent = (packet.ip.clone(), Vec::with_capacity(QUOTED));
        let flow = Flow { ends, peer: packet.from, socket, sent, due, readable: false, queued: false };
        self.all.insert(id, flow);
        self.by_ends.insert(ends, id);
        self.due.insert((due, id));
        Ok(id)
    }

    fn send(&mut self, id: u64, packet: &Packet<'_>, payload: &[u8], with: &mut With<'_>) {
        let Some(flow) = self.all.get_mut(&id) else { return };
        flow.peer = packet.from;
        let mut sent = send(&flow.socket, payload, SendFlags::NOSIGNAL);
        if let Err(why) = sent {
            // It may be about one before this one.
            flow.tell(why, with);
            sent = send(&flow.socket, payload, SendFlags::NOSIGNAL);
        }
        flow.sent.0 = packet.ip.clone();
        packet.payload[..packet.payload.len().min(QUOTED)].clone_into(&mut flow.sent.1);
        if let Err(why) = sent {
            flow.tell(why, with);
        }
        self.used(id, with.now);
    }

    fn used(&mut self, id: u64, now: Instant) {
        let Some(flow) = self.all.get_mut(&id) else { return };
        let due = now + flow.ends.patience();
        if due != flow.due {
            self.due.remove(&(flow.due, id));
            self.due.insert((due, id));
            flow.due = due;
        }
    }

    /// A socket of this machine's is ready.
    pub(crate) fn ready(&mut self, id: u64, read: bool) {
        if let Some(flow) = self.all.get_mut(&id)
            && read
        {
            flow.readable = true;
            self.queue(id);
        }
    }

    fn queue(&mut self, id: u64) {
        if let Some(flow) = self.all.get_mut(&id)
            && !flow.queued
        {
            flow.queued = true;
            self.turns.push_back(id);
        }
    }

    /// Forgets those that nobody used.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.pop_first();
            self.forget(id);
        }
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The one that was used longest ago goes: not the one whose time is over first, for questions have less of it.
    fn forget_least_used(&mut self) {
        let used = |flow: &Flow| flow.due - flow.ends.patience();
        let least = self.all.iter().min_by_key(|(_, flow)| used(flow)).map(|(id, _)| *id);
        least.into_iter().for_each(|id| self.forget(id));
    }

    fn forget(&mut self, id: u64) {
        if let Some(flow) = self.all.remove(&id) {
            self.due.remove(&(flow.due, id));
            self.by_ends.remove(&flow.ends);
        }
    }

    /// Whether anybody waits for a turn.
    pub(crate) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    /// One turn of each that waits for one, while there is room for frames.
    pub(crate) fn serve(&mut self, with: &mut With<'_>) {
        for _ in 0..self.turns.len() {
            if !with.out.has_room() {
                return;
            }
            let Some(id) = self.turns.pop_front() else { return };
            let Some(flow) = self.all.get_mut(&id) else { continue };
            flow.queued = false;
            let mut left = TURN;
            while left > 0 && flow.readable && with.out.has_room() {
                left -= 1;
                match read(&flow.socket, &mut *self.datagram) {
                    Ok(got) => flow.answer(&self.datagram[..got], with),
                    Err(Errno::AGAIN) => flow.readable = false,
                    Err(Errno::INTR) => {}
                    Err(why) => flow.tell(why, with),
                }
            }
            let again = flow.readable;
            if left < TURN - 1 {
                self.used(id, with.now);
            }
            if again {
                self.queue(id);
            }
        }
    }
}

impl Flow {
    /// What came back goes to the guest.
    fn answer(&self, got: &[u8], with: &mut With<'_>) {
        match self.ends {
            Ends::Udp { guest, dst } => with.out.datagram(self.peer, dst, guest, got),
            Ends::Echo { guest, dst, ident } => {
                // The kernel has an identifier of its own.
                if let [kind, 0, _, _, _, _, a, b, data @ ..] = got
                    && ECHO_REPLY[usize::from(guest.is_ipv6())] == *kind
                {
                    let seq_no = u16::from_be_bytes([*a, *b]);
                    with.out.echo_reply(self.peer, (dst, guest), (ident, seq_no), data);
                }
            }
        }
    }

    /// What became of the latest packet.
    fn tell(&self, why: Errno, with: &mut With<'_>) {
        if let Some(what) = host::unreachable(why) {
            with.out.unreachable(self.peer, &self.sent.0, &self.sent.1, what);
        }
    }
}

/// Identifier, sequence number and data of an echo request.
fn echo_request<'a>(packet: &Packet<'a>) -> Option<(u16, u16, &'a [u8])> {
    let checksums = ChecksumCapabilities::default();
    match packet.ip {
        IpRepr::Ipv4(_) => {
            let icmp = Icmpv4Packet::new_checked(packet.payload).ok()?;
            match Icmpv4Repr::parse(&icmp, &checksums).ok()? {
                Icmpv4Repr::EchoRequest { ident, seq_no, .. } => {
                    Some((ident, seq_no, packet.payload.get(ECHO_HEADER..)?))
                }
                _ => None,
            }
        }
        IpRepr::Ipv6(ip) => {
            let icmp = Icmpv6Packet::new_checked(packet.payload).ok()?;
            match Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &icmp, &checksums).ok()? {
                Icmpv6Repr::EchoRequest { ident, seq_no, .. } => {
                    Some((ident, seq_no, packet.payload.get(ECHO_HEADER..)?))
                }
                _ => None,
            }
        }
    }
}
