//! The whole of it, as a guest sees it: smoltcp at the other end of the stream. Its own port 53 leads to servers on this machine's loopback.

use crate::{Spec, out::ETHERNET, run};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::sockopt,
};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium},
    socket::{tcp, udp},
    time::Instant,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
        Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
        IpAddress, IpCidr, IpEndpoint, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, NdiscRepr, TcpControl,
        TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
    },
};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    thread::{self, JoinHandle},
    time::Duration,
};
use vswitchd::ports::framing::{self, Deframer};

pub(crate) const WAY_OUT: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const GUEST: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
pub(crate) const OWN: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const GUESTS: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const MTU: usize = 1500;

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long what must not happen is waited for.
const A_WHILE: Duration = Duration::from_millis(500);

pub(crate) fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

/// A way out, with a guest on its link.
struct Lab {
    wire: Wire,
    iface: Interface,
    sockets: SocketSet<'static>,
    served: JoinHandle<Result<(), String>>,
    start: std::time::Instant,
}

/// The guest's end of the link.
struct Wire {
    stream: UnixStream,
    said: Deframer,
    heard: VecDeque<Vec<u8>>,
}

impl Lab {
    /// Whoever asks it for names asks `resolver`.
    fn new(resolver: Option<SocketAddr>) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let addresses = [format!("{}/24", OWN[0]), format!("{}/64", OWN[1])];
        let spec = Spec {
            mac: "02:00:00:00:00:01".parse().expect("an address"),
            mtu: MTU as u16,
            addresses: addresses.map(|own| own.parse().expect("an address")).into(),
        };
        let served = thread::spawn(move || {
            run(theirs.into(), &spec, Box::new(move || resolver)).map_err(|why| why.to_string())
        });
        let mut wire = Wire { stream: ours, said: Deframer::default(), heard: VecDeque::new() };
        let mut iface = Interface::new(Config::new(GUEST.into()), &mut wire, Instant::ZERO);
        iface.update_ip_addrs(|own| {
            for (address, len) in GUESTS.into_iter().zip([24, 64]) {
                own.push(IpCidr::new(ip(address).into(), len)).expect("room");
            }
        });
        let start = std::time::Instant::now();
        Self { wire, iface, sockets: SocketSet::new(Vec::new()), served, start }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }

    /// Lets the guest do what it does until this is so.
    fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut SocketSet<'static>) -> Option<T>) -> T {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            let now = self.now();
            self.iface.poll(now, &mut self.wire, &mut self.sockets);
            if let Some(done) = done(&mut self.sockets) {
                let now = self.now();
                self.iface.poll(now, &mut self.wire, &mut self.sockets);
                return done;
            }
            let now = self.now();
            let delay = self.iface.poll_delay(now, &self.sockets).map_or(PATIENCE, Into::into);
            self.wire.wait(delay.min(PATIENCE));
            assert!(std::time::Instant::now() < end, "{what}");
        }
    }

    /// A connection that is being made.
    fn connect(&mut self, dst: &str, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let own = 50_000 + self.sockets.iter().count() as u16;
        socket.connect(self.iface.context(), (IpAddress::from(ip(dst)), port), own).expect("it may");
        self.sockets.add(socket)
    }

    fn connected(&mut self, dst: &str, port: u16) -> SocketHandle {
        let handle = self.connect(dst, port);
        self.until("it stands", |all| all.get_mut::<tcp::Socket<'_>>(handle).may_send().then_some(()));
        handle
    }

    /// Sends all of it, and no end.
    fn send(&mut self, handle: SocketHandle, mut bytes: &[u8]) {
        self.until("all is sent", |all| {
            let socket = all.get_mut::<tcp::Socket<'_>>(handle);
            bytes = &bytes[socket.send_slice(bytes).expect("it may")..];
            (bytes.is_empty() && socket.send_queue() == 0).then_some(())
        });
    }

    /// Receives all, to the end.
    fn receive(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all_of_it = Vec::new();
        self.until("all is received", |all| {
            let socket = all.get_mut::<tcp::Socket<'_>>(handle);
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), all_of_it.extend_from_slice(bytes))).expect("it may");
            }
            (!socket.may_recv()).then_some(())
        });
        all_of_it
    }

    fn close(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
    }

    /// Says one packet, and what is said back.
    fn asks(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.wire.say(bytes);
        self.wire.hear(PATIENCE)
    }

    /// It ends when its stream does, and nothing was wrong.
    fn end(self) {
        drop(self.wire);
        self.served.join().expect("no panic").expect("no error");
    }
}

impl Wire {
    fn say(&mut self, frame: &[u8]) {
        self.stream.write_all(&framing::length(frame.len() as u32)).expect("it listens");
        self.stream.write_all(frame).expect("it listens");
    }

    /// Waits for a frame for so long.
    fn wait(&mut self, timeout: Duration) {
        while let Some(frame) = self.said.next_frame().expect("a frame") {
            self.heard.push_back(frame.to_vec());
            self.said.consume();
        }
        if !self.heard.is_empty() {
            return;
        }
        let timeout = timeout.try_into().expect("it is short");
        let ready = poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&timeout)).expect("it waits");
        if ready > 0 {
            let got = self.stream.read(self.said.room()).expect("it speaks");
            assert_ne!(got, 0, "it ended");
            self.said.filled(got);
        }
    }

    fn hear(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let end = std::time::Instant::now() + patience;
        while self.heard.is_empty() && std::time::Instant::now() < end {
            self.wait(end.saturating_duration_since(std::time::Instant::now()));
        }
        self.heard.pop_front()
    }
}

struct Frame(Vec<u8>);
struct Room<'a>(&'a mut Wire);

impl phy::RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let done = f(&mut frame);
        self.0.say(&frame);
        done
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Room<'_>)> {
        self.wait(Duration::ZERO);
        Some((Frame(self.heard.pop_front()?), Room(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        Some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut all = DeviceCapabilities::default();
        all.medium = Medium::Ethernet;
        all.max_transmission_unit = ETHERNET + MTU;
        all
    }
}

/// A frame of the guest's with an IP packet in it.
fn frame(
    dst: IpAddr,
    protocol: IpProtocol,
    len: usize,
    emit: impl FnOnce(&mut [u8], IpAddress, IpAddress),
) -> Vec<u8> {
    let src = IpAddress::from(ip(GUESTS[usize::from(dst.is_ipv6())]));
    let repr = IpRepr::new(src, dst.into(), protocol, len, 64);
    let ethertype = if dst.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
    let mut bytes = vec![0; ETHERNET + repr.buffer_len()];
    let (header, packet) = bytes.split_at_mut(ETHERNET);
    EthernetRepr { src_addr: GUEST, dst_addr: WAY_OUT, ethertype }
        .emit(&mut EthernetFrame::new_unchecked(header));
    repr.emit(&mut *packet, &ChecksumCapabilities::default());
    emit(&mut packet[repr.header_len()..], src, dst.into());
    bytes
}

pub(crate) fn segment(from: u16, dst: SocketAddr, control: TcpControl) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: from,
        dst_port: dst.port(),
        control,
        seq_number: TcpSeqNumber(1000),
        ack_number: None,
        window_len: 1000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    frame(dst.ip(), IpProtocol::Tcp, tcp.buffer_len(), |bytes, src, dst| {
        tcp.emit(&mut TcpPacket::new_unchecked(bytes), &src, &dst, &ChecksumCapabilities::default());
    })
}

pub(crate) fn datagram(from: u16, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: from, dst_port: dst.port() };
    frame(dst.ip(), IpProtocol::Udp, udp.header_len() + payload.len(), |bytes, src, dst| {
        let mut packet = UdpPacket::new_unchecked(bytes);
        udp.emit(
            &mut packet,
            &src,
            &dst,
            payload.len(),
            |room| room.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

pub(crate) fn echo_request(dst: IpAddr, data: &[u8]) -> Vec<u8> {
    let (ident, seq_no, checksums) = (7, 9, ChecksumCapabilities::default());
    frame(
        dst,
        if dst.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 },
        8 + data.len(),
        |bytes, src, dst| match (src, dst) {
            (IpAddress::Ipv6(src), IpAddress::Ipv6(dst)) => Icmpv6Repr::EchoRequest { ident, seq_no, data }
                .emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(bytes), &checksums),
            _ => Icmpv4Repr::EchoRequest { ident, seq_no, data }
                .emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums),
        },
    )
}

/// Whether a frame refuses the SYN of [`segment`] in the way that its sender may believe (RFC 9293 §3.10.7.1).
fn is_refusal(frame: &[u8]) -> bool {
    let payload = &frame[if frame[12..14] == [0x08, 0] { ETHERNET + 20 } else { ETHERNET + 40 }..];
    let tcp = TcpPacket::new_checked(payload).expect("a segment");
    tcp.rst() && tcp.ack() && tcp.ack_number() == TcpSeqNumber(1001)
}

/// Whether it says that a port is unreachable, of which address and port.
fn unreachable_port(frame: &[u8]) -> Option<(IpAddr, u16)> {
    let all = ChecksumCapabilities::default();
    let quoted = |data: &[u8]| UdpPacket::new_unchecked(data).dst_port();
    if frame[12..14] == [0x08, 0] {
        match Icmpv4Repr::parse(&Icmpv4Packet::new_checked(&frame[ETHERNET + 20..]).ok()?, &all).ok()? {
            Icmpv4Repr::DstUnreachable { reason: Icmpv4DstUnreachable::PortUnreachable, header, data } => {
                Some((header.dst_addr.into(), quoted(data)))
            }
            _ => None,
        }
    } else {
        let packet = Ipv6Packet::new_checked(&frame[ETHERNET..]).ok()?;
        let (src, dst) = (packet.src_addr(), packet.dst_addr());
        match Icmpv6Repr::parse(&src, &dst, &Icmpv6Packet::new_checked(&frame[ETHERNET + 40..]).ok()?, &all)
            .ok()?
        {
            Icmpv6Repr::DstUnreachable { reason: Icmpv6DstUnreachable::PortUnreachable, header, data } => {
                Some((header.dst_addr.into(), quoted(data)))
            }
            _ => None,
        }
    }
}

/// Bytes of which none is like its neighbours.
fn file(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it has one");
    (listener, address)
}

/// A connection of the guest's to a server.
fn pair(lab: &mut Lab, listener: &TcpListener) -> (SocketHandle, TcpStream) {
    let handle = lab.connected(OWN[0], 53);
    let (server, _) = listener.accept().expect("somebody came");
    server.set_read_timeout(Some(PATIENCE)).expect("it may");
    (handle, server)
}

#[test]
fn files_go_both_ways_intact_and_each_side_ends_by_itself() {
    let (listener, address) = listener();
    let mut lab = Lab::new(Some(address));
    for own in OWN {
        // The guest says all and ends; only then it is answered.
        let server = listener.try_clone().expect("it may");
        let server = thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("somebody came");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("it is heard");
            stream.write_all(&got).expect("it is told");
        });
        let handle = lab.connected(own, 53);
        let file = file(3_000_001);
        lab.send(handle, &file);
        lab.close(handle);
        assert!(lab.receive(handle) == file, "{own}");
        server.join().expect("no panic");

        // The server says all and ends; only then the guest speaks.
        let server = listener.try_clone().expect("it may");
        let sent = file.clone();
        let server = thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("somebody came");
            stream.write_all(&sent).expect("it is told");
            stream.shutdown(Shutdown::Write).expect("it may");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("it is heard");
            got
        });
        let handle = lab.connected(own, 53);
        assert!(lab.receive(handle) == file, "{own}");
        lab.send(handle, &file);
        lab.close(handle);
        lab.until("all of it is over", |all| {
            (all.get_mut::<tcp::Socket<'_>>(handle).state() == tcp::State::Closed).then_some(())
        });
        assert!(server.join().expect("no panic") == file, "{own}");
    }
    lab.end();
}

#[test]
fn who_does_not_read_is_not_read_from() {
    let (listener, address) = listener();
    let mut lab = Lab::new(Some(address));
    let (handle, mut server) = pair(&mut lab, &listener);
    server.set_nonblocking(true).expect("it may");
    let piece = file(64 << 10);
    let mut sent = Vec::new();
    // Nobody polls the guest: nothing is acknowledged.
    let waits = || {
        let timeout = A_WHILE.try_into().expect("it is short");
        poll(&mut [PollFd::new(&server, PollFlags::OUT)], Some(&timeout)).expect("it waits") == 0
    };
    while !waits() {
        match (&server).write(&piece) {
            Ok(written) => sent.extend_from_slice(&piece[..written]),
            Err(why) => assert_eq!(why.kind(), ErrorKind::WouldBlock),
        }
        assert!(sent.len() < 32 << 20, "it takes all that there is");
    }
    server.set_nonblocking(false).expect("it may");
    server.shutdown(Shutdown::Write).expect("it may");
    assert!(lab.receive(handle) == sent, "nothing of it is lost");
    lab.send(handle, b"bye");
    lab.close(handle);
    lab.until("it ends", |all| (!all.get_mut::<tcp::Socket<'_>>(handle).is_active()).then_some(()));
    let mut last = Vec::new();
    server.read_to_end(&mut last).expect("it is heard");
    assert_eq!(last, b"bye");
}

#[test]
fn what_breaks_on_one_side_breaks_on_the_other() {
    let (listener, address) = listener();
    let mut lab = Lab::new(Some(address));
    let (handle, server) = pair(&mut lab, &listener);
    sockopt::set_socket_linger(&server, Some(Duration::ZERO)).expect("it may");
    drop(server);
    lab.until("it is reset", |all| (!all.get_mut::<tcp::Socket<'_>>(handle).is_open()).then_some(()));

    let (handle, mut server) = pair(&mut lab, &listener);
    lab.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
    lab.until("it is told", |all| {
        all.get_mut::<tcp::Socket<'_>>(handle).remote_endpoint().is_none().then_some(())
    });
    let broken = server.read(&mut [0]).expect_err("it is reset");
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);

    // Who takes its SYN back has no connection.
    let dst = SocketAddr::new(ip(OWN[0]), 53);
    lab.asks(&segment(998, dst, TcpControl::Syn)).expect("an answer");
    let (mut server, _) = listener.accept().expect("somebody came");
    let mut rst = segment(998, dst, TcpControl::Rst);
    let seq = &mut rst[ETHERNET + 20 + 4..][..4];
    seq.copy_from_slice(&1001_u32.to_be_bytes());
    refill_tcp(&mut rst);
    lab.wire.say(&rst);
    server.set_read_timeout(Some(PATIENCE)).expect("it may");
    assert_eq!(server.read(&mut [0]).expect_err("it is reset").kind(), ErrorKind::ConnectionReset);

    // A segment of a connection that nobody knows.
    let told = lab.asks(&segment(999, dst, TcpControl::Fin)).expect("an answer");
    assert!(TcpPacket::new_checked(&told[ETHERNET + 20..]).expect("a segment").rst());
    lab.end();
}

#[test]
fn nothing_of_this_machines_own_is_reached_and_a_refusal_can_be_believed() {
    let (listener, address) = listener();
    listener.set_nonblocking(true).expect("it may");
    let server = UdpSocket::bind(address).expect("a port");
    server.set_nonblocking(true).expect("it may");
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, address.port())).expect("a port");
    v6.set_nonblocking(true).expect("it may");
    let mut lab = Lab::new(None);
    let mapped = "::ffff:127.0.0.1";
    for closed in [OWN[0], OWN[1], "127.0.0.1", "127.1.2.3", "169.254.1.1", "::1", mapped, "fe80::1"] {
        let dst = SocketAddr::new(ip(closed), address.port());
        let (syn, asked) = (segment(2000, dst, TcpControl::Syn), datagram(2000, dst, b"who is there?"));
        assert!(is_refusal(&lab.asks(&syn).expect("an answer")), "{closed}");
        let told = lab.asks(&asked).expect("an answer");
        assert_eq!(unreachable_port(&told), Some((dst.ip(), dst.port())), "{closed}");
    }
    for closed in ["0.0.0.0", "::"] {
        let dst = SocketAddr::new(ip(closed), address.port());
        lab.wire.say(&segment(2000, dst, TcpControl::Syn));
        lab.wire.say(&datagram(2000, dst, b"who is there?"));
    }
    assert_eq!(lab.wire.hear(A_WHILE), None, "what is to no address is answered by nobody");
    for nobody in [&listener, &v6] {
        assert_eq!(nobody.accept().expect_err("nobody came").kind(), ErrorKind::WouldBlock);
    }
    assert_eq!(server.recv(&mut [0]).expect_err("nobody asked").kind(), ErrorKind::WouldBlock);
    lab.end();
    // A resolver that does not listen is as any port that is closed.
    drop(listener);
    let mut lab = Lab::new(Some(address));
    for own in OWN {
        let dst = SocketAddr::new(ip(own), 53);
        assert!(is_refusal(&lab.asks(&segment(2001, dst, TcpControl::Syn)).expect("an answer")), "{own}");
    }
    lab.end();
}

#[test]
fn datagrams_come_back_to_who_asked_and_a_closed_port_is_told() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut lab = Lab::new(Some(server.local_addr().expect("it has one")));
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 8192]);
    let mut handles = Vec::new();
    for (own, ports) in OWN.into_iter().zip([[3000, 3001], [3002, 3003]]) {
        for port in ports {
            let mut socket = udp::Socket::new(buffer(), buffer());
            socket.bind(port).expect("it may");
            let dst = IpEndpoint::new(ip(own).into(), 53);
            let handle = lab.sockets.add(socket);
            let asked = format!("{own} {port}").repeat(40);
            lab.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(asked.as_bytes(), dst).expect("it may");
            lab.until("it is sent", |all| {
                (all.get_mut::<udp::Socket<'_>>(handle).send_queue() == 0).then_some(())
            });
            let mut heard = [0; 4096];
            let (len, from) = server.recv_from(&mut heard).expect("it is asked");
            assert_eq!(&heard[..len], asked.as_bytes());
            handles.push((handle, asked, dst, from));
        }
    }
    // Answers in another order.
    for (_, asked, _, from) in handles.iter().rev() {
        server.send_to(asked.as_bytes(), from).expect("it is told");
    }
    for (handle, asked, dst, _) in &handles {
        lab.until("an answer", |all| {
            let (answer, meta) = all.get_mut::<udp::Socket<'_>>(*handle).recv().ok()?;
            assert_eq!((answer, meta.endpoint), (asked.as_bytes(), *dst));
            Some(())
        });
    }
    drop(server);
    for own in OWN {
        let dst = SocketAddr::new(ip(own), 53);
        let told = lab.asks(&datagram(4000, dst, b"who is there?")).expect("an answer");
        assert_eq!(unreachable_port(&told), Some((dst.ip(), 53)));
    }
    lab.end();
}

/// So many connections and flows there are at most (`connections`, `flows`), and so many connections that nobody answered.
const MOST: usize = 1024;
const MOST_UNANSWERED: usize = 256;

/// Descriptors of this process that are sockets of the far side of `server`: tests run each in a process of its own.
fn table(table: &str, port: u16) -> usize {
    let text = std::fs::read_to_string(format!("/proc/self/net/{table}")).expect("the kernel says");
    let far = format!("0100007F:{port:04X}");
    text.lines().filter(|line| line.split_ascii_whitespace().nth(2) == Some(&far)).count()
}

#[test]
fn flows_have_a_bound_and_the_one_that_is_least_missed_goes() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("it has one");
    let mut lab = Lab::new(Some(address));
    let dst = SocketAddr::new(ip(OWN[0]), 53);
    let mut heard = [0; 16];
    let mut from = Vec::new();
    for number in 0..MOST as u16 + 50 {
        lab.wire.say(&datagram(1000 + number, dst, &number.to_be_bytes()));
        from.push(server.recv_from(&mut heard).expect("it is asked").1);
    }
    assert_eq!(table("udp", address.port()), MOST);
    // The first is gone, the last is there.
    server.send_to(b"last", from.last().expect("one")).expect("it is told");
    let told = lab.wire.hear(PATIENCE).expect("an answer");
    assert_eq!(told[told.len() - 4..], *b"last");
    lab.wire.say(&datagram(1000, dst, b"again"));
    assert_ne!(server.recv_from(&mut heard).expect("it is asked").1, from[0]);
    lab.end();
}

#[test]
fn connections_have_a_bound_and_so_have_those_that_nobody_answers() {
    let (listener, address) = listener();
    let mut lab = Lab::new(Some(address));
    let dst = SocketAddr::new(ip(OWN[0]), 53);
    let mut stand = 0;
    for number in 0..MOST as u16 + 50 {
        lab.wire.say(&segment(1000 + number, dst, TcpControl::Syn));
        // A SYN that finds no room is not answered, and no connection is broken for it.
        if usize::from(number) < MOST {
            let told = lab.wire.hear(PATIENCE).expect("an answer");
            let tcp = TcpPacket::new_checked(&told[ETHERNET + 20..]).expect("a segment");
            stand += usize::from(tcp.syn() && tcp.ack());
        }
        // Nobody takes them: the listener's queue is as long as it may be.
        if number % 100 == 99 {
            (0..100).for_each(|_| drop(listener.accept().map(std::mem::forget)));
        }
    }
    assert_eq!(stand, MOST);
    lab.end();

    // A listener whose queue is full does not answer.
    let (listener, address) = self::listener();
    rustix::net::listen(&listener, 0).expect("it may");
    let full: Vec<_> = (0..2).map(|_| TcpStream::connect_timeout(&address, A_WHILE)).collect();
    let mut lab = Lab::new(Some(address));
    for number in 0..MOST_UNANSWERED as u16 + 50 {
        lab.wire.say(&segment(1000 + number, dst, TcpControl::Syn));
    }
    // All were looked at when this is answered.
    lab.wire.say(&echo_request(ip(OWN[0]), b"all?"));
    while !lab.wire.hear(PATIENCE).is_some_and(|told| told.ends_with(b"all?")) {}
    assert_eq!(table("tcp", address.port()) - full.iter().flatten().count(), MOST_UNANSWERED);
    drop(lab);
}

#[test]
fn it_answers_for_its_own_addresses_alone() {
    let mut lab = Lab::new(None);
    let who_has = |target: &str| {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: GUEST,
            source_protocol_addr: GUESTS[0].parse().expect("an address"),
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target.parse().expect("an address"),
        };
        let mut bytes = vec![0; ETHERNET + arp.buffer_len()];
        let to_all = EthernetRepr {
            src_addr: GUEST,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        to_all.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
        arp.emit(&mut ArpPacket::new_unchecked(&mut bytes[ETHERNET..]));
        bytes
    };
    let solicit = |target: &str| {
        let (src, target): (Ipv6Addr, Ipv6Addr) = (ip6(GUESTS[1]), ip6(target));
        let icmp =
            Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(GUEST.into()) });
        let mut bytes = frame(target.into(), IpProtocol::Icmpv6, icmp.buffer_len(), |bytes, _, _| {
            icmp.emit(
                &src,
                &target,
                &mut Icmpv6Packet::new_unchecked(bytes),
                &ChecksumCapabilities::default(),
            );
        });
        bytes[ETHERNET + 7] = 255;
        bytes
    };
    for (nobody, own) in [("192.0.2.7", OWN[0]), ("192.0.2.2", OWN[0]), ("203.0.113.1", OWN[0])] {
        lab.wire.say(&who_has(nobody));
        let told = lab.asks(&who_has(own)).expect("an answer");
        let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } =
            ArpRepr::parse(&ArpPacket::new_checked(&told[ETHERNET..]).expect("ARP")).expect("ARP")
        else {
            panic!("no ARP of IPv4")
        };
        let own: Ipv4Addr = own.parse().expect("an address");
        assert_eq!(
            (operation, source_hardware_addr, source_protocol_addr),
            (ArpOperation::Reply, WAY_OUT, own)
        );
    }
    for nobody in ["2001:db8::7", GUESTS[1], "fe80::1"] {
        lab.wire.say(&solicit(nobody));
        let told = lab.asks(&solicit(OWN[1])).expect("an answer");
        let icmp = Icmpv6Packet::new_checked(&told[ETHERNET + 40..]).expect("ICMPv6");
        let told = Icmpv6Repr::parse(&ip6(OWN[1]), &ip6(GUESTS[1]), &icmp, &ChecksumCapabilities::default());
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, lladdr, .. }) = told.expect("right")
        else {
            panic!("no advertisement")
        };
        assert_eq!((target_addr, lladdr), (ip6(OWN[1]), Some(WAY_OUT.into())));
    }
    // Its own addresses can be pinged, and others of this machine's own are silent.
    for (own, silent) in OWN.into_iter().zip(["127.0.0.1", "::1"]) {
        lab.wire.say(&echo_request(ip(silent), b"anybody"));
        let told = lab.asks(&echo_request(ip(own), b"is it you?")).expect("an answer");
        assert_eq!(told.split_at(told.len() - 10).1, b"is it you?");
    }
    // What is to many, or for another station, is nobody's.
    let dst = SocketAddr::new(ip("224.0.0.251"), 5353);
    lab.wire.say(&datagram(5000, dst, b"hello"));
    let mut other = segment(5001, SocketAddr::new(ip(OWN[0]), 80), TcpControl::Syn);
    other[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    lab.wire.say(&other);
    let mut fragment = datagram(5002, SocketAddr::new(ip(OWN[0]), 80), b"a part");
    fragment[ETHERNET + 6] = 0x20;
    refill(&mut fragment);
    lab.wire.say(&fragment);
    assert_eq!(lab.wire.hear(A_WHILE), None);
    lab.end();
}

fn ip6(address: &str) -> Ipv6Addr {
    address.parse().expect("an address")
}

/// Makes the checksum of a segment over IPv4 right again.
fn refill_tcp(frame: &mut [u8]) {
    let [src, dst] = [GUESTS[0], OWN[0]].map(|address| IpAddress::from(ip(address)));
    TcpPacket::new_unchecked(&mut frame[ETHERNET + 20..]).fill_checksum(&src, &dst);
}

/// Makes the checksum of an IPv4 header right again, if there is one.
pub(crate) fn refill(frame: &mut [u8]) {
    if let Ok(mut packet) = Ipv4Packet::new_checked(&mut frame[ETHERNET..]) {
        packet.fill_checksum();
    }
}
