//! TCP: smoltcp speaks it with the lab, this machine with the far end, and bytes are handed over between the two.
//!
//! ```text
//! SYN -> a socket of this machine's connects; the SYN waits
//!          |-> connected: smoltcp listens at just that address and is given the SYN -> bytes both ways, each end by itself
//!          |-> refused: smoltcp, where nobody listens, is given the SYN: RST
//!          |-> no way there: the sender is told by ICMP
//!          `-> nobody answers: nor is the sender
//! ```
//! Each connection has a set of sockets of its own, with one in it: so a segment is looked at by its own connection alone. Bytes are read where
//! there is room for them on the other side: who does not read is not read from.

use crate::{
    heard::Packet,
    host::{self, Kind, Watch},
    link::Link,
    open::Open,
    out::{Out, Unreachable},
    reach::{Reach, Way},
};
use rustix::{io::Errno, net::sockopt};
use smoltcp::{
    iface::{Config, Interface, PollResult, SocketSet},
    phy::ChecksumCapabilities,
    socket::tcp::{Socket, SocketBuffer, State},
    time::{Duration, Instant},
    wire::{EthernetAddress, HardwareAddress, IpListenEndpoint, TcpControl, TcpPacket, TcpRepr},
};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    os::fd::OwnedFd,
};

/// Connections at most. Those that are over but for stray segments, or that the guest did not confirm, go first; without any a new one
/// is not begun.
const MOST: usize = 1024;
/// So many of them at most are not answered yet; of more the oldest is given up.
const MOST_UNANSWERED: usize = 256;
/// Bytes that wait in one direction of a connection: for the lab, or for this machine.
const BUFFER: usize = 128 << 10;
/// How long the far end may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a guest may not answer, and how often it is asked while there is nothing to say.
const SILENCE: Duration = Duration::from_secs(120);
const ASK_AGAIN: Duration = Duration::from_secs(40);
/// Frames of one connection at once; then it is another one's turn.
const TURN: usize = 128;
/// What is due is not looked at again sooner.
const GRAIN: Duration = Duration::from_millis(1);

/// Who speaks with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    guest: SocketAddr,
    dst: SocketAddr,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    ends: Ends,
    /// The guest's neighbour on the link, or the guest itself.
    peer: EthernetAddress,
    stage: Stage,
    /// It is looked at at this time.
    due: Option<Instant>,
    /// It waits for its turn.
    queued: bool,
}

#[derive(Debug)]
enum Stage {
    /// The far end was not heard yet; the guest's SYN waits.
    Asking {
        socket: OwnedFd,
        syn: Vec<u8>,
    },
    Open(Box<Open>),
}

/// All connections.
pub(crate) struct Connections {
    iface: Interface,
    /// Where nobody listens.
    nobody: SocketSet<'static>,
    mtu: usize,
    all: HashMap<u64, Connection>,
    by_ends: HashMap<Ends, u64>,
    /// In the order in which they were begun.
    unanswered: BTreeSet<u64>,
    due: BTreeSet<(Instant, u64)>,
    turns: VecDeque<u64>,
}

impl Connections {
    /// `seed` is for sequence numbers.
    pub(crate) fn new(mtu: u16, seed: u64, out: &mut Out, now: Instant) -> Self {
        let mtu = usize::from(mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut iface =
            Interface::new(config, &mut Link { heard: None, peer: EthernetAddress([0; 6]), out, mtu }, now);
        // Whom it is given segments for is decided here.
        iface.set_any_ip(true);
        Self {
            iface,
            nobody: SocketSet::new(Vec::new()),
            mtu,
            all: HashMap::new(),
            by_ends: HashMap::new(),
            unanswered: BTreeSet::new(),
            due: BTreeSet::new(),
            turns: VecDeque::new(),
        }
    }

    /// Takes a segment; a connection that it begins is known by `id`. The caller has seen to it that there is room for an answer.
    pub(crate) fn segment(&mut self, packet: &Packet<'_>, id: u64, with: &mut With<'_>) {
        let (src, dst) = (packet.ip.src_addr(), packet.ip.dst_addr());
        let Ok(tcp) = TcpPacket::new_checked(packet.payload) else { return };
        let Ok(tcp) = TcpRepr::parse(&tcp, &src, &dst, &ChecksumCapabilities::default()) else { return };
        let guest = SocketAddr::new(src.into(), tcp.src_port);
        let ends = Ends { guest, dst: SocketAddr::new(dst.into(), tcp.dst_port) };
        let begins = tcp.control == TcpControl::Syn && tcp.ack_number.is_none();
        if let Some(&known) = self.by_ends.get(&ends)
            && self.goes_on(known, packet, tcp.control, begins, with)
        {
            return;
        }
        match begins {
            true => self.begin(ends, packet, id, with),
            false => self.refuse(packet, with),
        }
    }

    /// A segment of a connection that there is; false: of one that was over before.
    fn goes_on(
        &mut self,
        id: u64,
        packet: &Packet<'_>,
        control: TcpControl,
        begins: bool,
        with: &mut With<'_>,
    ) -> bool {
        let Some(connection) = self.all.get_mut(&id) else { return false };
        connection.peer = packet.from;
        match &mut connection.stage {
            Stage::Asking { syn, .. } => {
                if begins {
                    packet.bytes.clone_into(syn);
                } else if control == TcpControl::Rst {
                    self.remove(id);
                }
                true
            }
            Stage::Open(open) if begins && open.is_past() => {
                self.remove(id);
                false
            }
            Stage::Open(open) => {
                let mut link =
                    Link { heard: Some(packet.bytes), peer: packet.from, out: with.out, mtu: self.mtu };
                self.iface.poll_ingress_single(with.now, &mut link, &mut open.sockets);
                let state = open.state();
                open.guest_ended |=
                    matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
                self.queue(id);
                true
            }
        }
    }

    /// There is nobody: RST.
    fn refuse(&mut self, packet: &Packet<'_>, with: &mut With<'_>) {
        let mut link = Link { heard: Some(packet.bytes), peer: packet.from, out: with.out, mtu: self.mtu };
        self.iface.poll_ingress_single(with.now, &mut link, &mut self.nobody);
    }

    /// A SYN, whose connection does not exist yet.
    fn begin(&mut self, ends: Ends, packet: &Packet<'_>, id: u64, with: &mut With<'_>) {
        let to = match with.reach.way(ends.dst) {
            Way::To(to) => to,
            Way::Refused => return self.refuse(packet, with),
            Way::Lost => return,
        };
        if !self.make_room() {
            return;
        }
        let asked =
            host::connected(Kind::Tcp, to).and_then(|socket| with.watch.add(&socket, id).map(|()| socket));
        match asked {
            Ok(socket) => {
                let stage = Stage::Asking { socket, syn: packet.bytes.to_vec() };
                let connection = Connection { ends, peer: packet.from, stage, due: None, queued: false };
                self.all.insert(id, connection);
                self.by_ends.insert(ends, id);
                self.unanswered.insert(id);
                self.set_due(id, Some(with.now + PATIENCE));
            }
            Err(why) => self.not_connected(packet, why, with),
        }
    }

    /// The far end, or this machine, says no.
    fn not_connected(&mut self, packet: &Packet<'_>, why: Errno, with: &mut With<'_>) {
        match (why, host::unreachable(why)) {
            (Errno::CONNRESET, _) | (_, Some(Unreachable::Port)) => self.refuse(packet, with),
            (_, Some(what)) => with.out.unreachable(packet.from, &packet.ip, packet.payload, what),
            // It tries again by itself.
            _ => tracing::debug!("no connection: {why}"),
        }
    }

    /// Whether there is room for one more.
    fn make_room(&mut self) -> bool {
        if self.unanswered.len() >= MOST_UNANSWERED
            && let Some(&oldest) = self.unanswered.first()
        {
            self.remove(oldest);
        }
        if self.all.len() >= MOST {
            let is_over = |connection: &Connection| matches!(&connection.stage, Stage::Open(open) if open.is_past() || open.state() == State::SynReceived);
            let Some(over) = self.all.iter().find(|(_, connection)| is_over(connection)).map(|(id, _)| *id)
            else {
                return false;
            };
            self.remove(over);
        }
        true
    }

    /// A socket of this machine's is ready.
    pub(crate) fn ready(&mut self, id: u64, read: bool, write: bool) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        if let Stage::Open(open) = &mut connection.stage {
            open.readable |= read;
            open.writable |= write;
        }
        self.queue(id);
    }

    /// Has those looked at whose time has come.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.set_due(id, None);
            match self.all.get(&id).map(|connection| &connection.stage) {
                // Nobody answered.
                Some(Stage::Asking { .. }) => self.remove(id),
                _ => self.queue(id),
            }
        }
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
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
            let Some(connection) = self.all.get_mut(&id) else { continue };
            connection.queued = false;
            match &mut connection.stage {
                Stage::Asking { .. } => self.answered(id, with),
                Stage::Open(_) => self.turn(id, with),
            }
        }
    }

    /// The far end answered, if it did.
    fn answered(&mut self, id: u64, with: &mut With<'_>) {
        let Some(Connection { stage: Stage::Asking { socket, syn }, peer, .. }) = self.all.get(&id) else {
            return;
        };
        let (peer, answer) = (*peer, sockopt::socket_error(socket).and_then(|error| error));
        if answer.is_ok() && rustix::net::getpeername(socket).is_err() {
            // Not yet.
            return;
        }
        let syn = syn.clone();
        let Some(packet) = Packet::parse(peer, &syn) else { return self.remove(id) };
        match answer {
            Ok(()) => self.open(id, &packet, with),
            Err(why) => {
                self.remove(id);
                self.not_connected(&packet, why, with);
            }
        }
    }

    /// The far end is there: the guest may be answered.
    fn open(&mut self, id: u64, syn: &Packet<'_>, with: &mut With<'_>) {
        let Some(dst) = self.all.get(&id).map(|connection| connection.ends.dst) else { return };
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        // The far end decided what it collects.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(SILENCE));
        socket.set_keep_alive(Some(ASK_AGAIN));
        if socket.listen(IpListenEndpoint { addr: Some(dst.ip().into()), port: dst.port() }).is_err() {
            // Port 0 has no way.
            return self.remove(id);
        }
        let Some(connection) = self.all.remove(&id) else { return };
        let Stage::Asking { socket: host, .. } = connection.stage else { return };
        self.unanswered.remove(&id);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let mut link = Link { heard: Some(syn.bytes), peer: syn.from, out: with.out, mtu: self.mtu };
        self.iface.poll_ingress_single(with.now, &mut link, &mut sockets);
        let open = Open {
            sockets,
            handle,
            host,
            readable: true,
            writable: true,
            host_ended: false,
            guest_ended: false,
            told: false,
            broken: false,
        };
        self.all.insert(id, Connection { stage: Stage::Open(Box::new(open)), ..connection });
        self.set_due(id, None);
        self.turn(id, with);
    }

    /// Hands over what can be, and sends what is to be sent.
    fn turn(&mut self, id: u64, with: &mut With<'_>) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        let Stage::Open(open) = &mut connection.stage else { return };
        if !open.broken && open.hand_over().is_err() {
            // Nothing that the guest still says is of any use.
            open.broken = true;
            open.sockets.get_mut::<Socket<'_>>(open.handle).abort();
        }
        let mut link = Link { heard: None, peer: connection.peer, out: with.out, mtu: self.mtu };
        let mut left = TURN;
        while left > 0 && self.iface.poll_egress(with.now, &mut link, &mut open.sockets) != PollResult::None {
            left -= 1;
        }
        if open.is_over() {
            return self.remove(id);
        }
        let again = left == 0 || !link.out.has_room();
        let due = self.iface.poll_at(with.now, &open.sockets).map(|due| due.max(with.now + GRAIN));
        self.set_due(id, due.filter(|_| !again));
        if again {
            self.queue(id);
        }
    }

    fn queue(&mut self, id: u64) {
        if let Some(connection) = self.all.get_mut(&id)
            && !connection.queued
        {
            connection.queued = true;
            self.turns.push_back(id);
        }
    }

    fn set_due(&mut self, id: u64, due: Option<Instant>) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        if let Some(before) = std::mem::replace(&mut connection.due, due) {
            self.due.remove(&(before, id));
        }
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }

    /// Forgets a connection; to the far end it is closed or, if that was not done with it, broken.
    fn remove(&mut self, id: u64) {
        self.set_due(id, None);
        let Some(connection) = self.all.remove(&id) else { return };
        self.by_ends.remove(&connection.ends);
        self.unanswered.remove(&id);
        if let Stage::Open(open) = connection.stage
            && !(open.told && open.host_ended)
        {
            // It is closed in any case.
            let _ = sockopt::set_socket_linger(&open.host, Some(std::time::Duration::ZERO));
        }
    }
}

/// What a connection needs for a while.
pub(crate) struct With<'a> {
    pub(crate) reach: &'a Reach,
    pub(crate) watch: &'a Watch,
    pub(crate) out: &'a mut Out,
    pub(crate) now: Instant,
}
