//! Stations as a process has them: control socket, loop, and real rings on a switch in this process.

use super::control::Control;
use super::turns::Turns;
use super::{InterfaceSpec, Spec, StationSpec};
use probe::answer::{Bulk, Contact, Refusal, Sent, Unreachable};
use probe::ask::{Connect, Hello, Ping, Send, Source, UdpEcho};
use probe::{Answer, Ask, AskId, Decoder, FromGuest, Request, encode};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vswitch_core::description::{Description, Link, Membership, Origin, Port, Switch, Vlan};
use vswitch_core::id::{Epoch, PortId, SwitchId};
use vswitch_core::mac::MacAddr;
use vswitch_core::vlan::VlanId;
use vswitchd::control::client::Client;
use vswitchd::control::protocol::{Attachment, AttachmentKind, DatapathSettings};

/// How long anything may take here.
const DEADLINE: Duration = Duration::from_secs(60);

fn ping(dst: &str, count: u16, payload: u16) -> Request {
    let (interval, timeout) = (ms(1), ms(500));
    let dst = dst.parse().expect("an address");
    Request::Ping(Ping { dst, from: Source::Any, count, payload, interval, timeout })
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

fn connect(dst: SocketAddr) -> Request {
    Request::Connect(Connect { dst, from: Source::Any, timeout: ms(2000) })
}

fn echo(dst: SocketAddr) -> Request {
    Request::UdpEcho(UdpEcho { dst, from: Source::Any, payload: b"hello".to_vec(), timeout: ms(2000) })
}

/// The sockets of two stations in a folder.
fn spec(folder: &Path) -> Spec {
    let station = |number: u8| StationSpec {
        name: format!("h{number}"),
        interfaces: vec![InterfaceSpec {
            name: "eth0".into(),
            socket: folder.join(format!("h{number}.sock")),
            mac: MacAddr::new([2, 0, 0, 0, 0, number]),
            addresses: [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")]
                .map(|address| address.parse().expect("an address"))
                .into(),
            gateways: vec![],
            mtu: None,
        }],
    };
    Spec { stations: vec![station(1), station(2)], control: folder.join("stations.sock") }
}

/// Runs the stations on a thread that ends with the test's process, as they never end by themselves.
fn start(spec: Spec) {
    let control = Control::bind(&spec.control).expect("a socket");
    std::thread::spawn(move || Turns::new(spec.stations, control).expect("stations").run());
}

/// A control connection to one station.
struct Line {
    stream: UnixStream,
    decoder: Decoder<FromGuest>,
}

impl Line {
    fn new(folder: &Path) -> Self {
        let stream = UnixStream::connect(folder.join("stations.sock")).expect("listening");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Self { stream, decoder: Decoder::new() }
    }

    fn to(folder: &Path, name: &str) -> Self {
        let mut line = Self::new(folder);
        assert!(matches!(line.say(hello(name)), Answer::Ready(ready) if ready.name == name));
        line
    }

    /// Says one thing, and waits for what comes back.
    fn say(&mut self, request: Request) -> Answer {
        let ask = Ask { id: AskId::new(9), request };
        self.stream.write_all(&encode(&ask).expect("a short question")).expect("somebody listens");
        let mut bytes = [0; 4096];
        loop {
            let len = self.stream.read(&mut bytes).expect("an answer within the deadline");
            assert_ne!(len, 0, "it hung up");
            if let Some(message) = self.decoder.push(&bytes[..len]).next() {
                let FromGuest::Answer { id, answer } = message.expect("an answer that can be read") else {
                    panic!("not an answer")
                };
                assert_eq!(id, AskId::new(9));
                return answer;
            }
        }
    }

    /// Pings until an answer comes: there is a switch, and it serves both.
    fn wait_for(&mut self, peer: &str) {
        let until = Instant::now() + DEADLINE;
        while !matches!(self.say(ping(peer, 1, 8)), Answer::Ping(Ok(echoes)) if echoes.received() == 1) {
            assert!(Instant::now() < until, "no switch came");
        }
    }
}

fn hello(name: &str) -> Request {
    Request::Hello(Hello { version: probe::VERSION, name: name.into() })
}

/// A switch with one VLAN, on a thread of its own.
struct SwitchProcess {
    client: Client,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl SwitchProcess {
    fn start(listeners: &[UnixListener]) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let options = vswitchd::Options { control: theirs.into() };
        let thread = std::thread::spawn(move || vswitchd::run(options));
        let mut client = Client::new(ours, DEADLINE).expect("a greeting");
        let ids: Vec<_> = (0..listeners.len() as u16).map(|index| PortId::new(index, 0)).collect();
        let kind = AttachmentKind::VhostUserListen;
        let attachments = ids.iter().map(|port| Attachment::new(*port, kind.clone())).collect();
        let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let datapath = DatapathSettings::default();
        client.apply(&description(&ids), attachments, &fds, datapath).expect("a lab");
        Self { client, thread }
    }

    fn stop(mut self) {
        self.client.stop().expect("it stops");
        self.thread.join().expect("no panic").expect("no error");
    }
}

fn description(ids: &[PortId]) -> Description {
    let origin = Origin { line: 1, column: 1 };
    let id = VlanId::new(1).expect("1 is a VLAN");
    let switch = SwitchId::new(0);
    let port = |id: &PortId| Port {
        id: *id,
        node: format!("h{}", id.index() + 1),
        interface: "eth0".into(),
        mac: None,
        mtu: None,
        queues: 1,
        firewall: None,
        limits: None,
        mac_limit: 64,
        sealed_memory: false,
        way_out: false,
        up: true,
        link: Link::Switch { switch, vlans: Membership::Access(VlanId::new(1).expect("1 is a VLAN")) },
        origin,
        link_origin: None,
    };
    Description {
        lab: "test".into(),
        file: "test.vnet.yaml".into(),
        epoch: Epoch::new(1),
        vlans: vec![Vlan { id, name: "default".into(), origin: None }],
        switches: vec![Switch { id: switch, name: "sw".into(), mac_aging_secs: 300, origin }],
        ports: ids.iter().map(|id| Some(port(id))).collect(),
        groups: Vec::new(),
        trunks: Vec::new(),
        routing: None,
    }
}

#[test]
fn the_control_socket_serves_the_station_that_is_named_even_without_a_switch() {
    let folder = tempfile::tempdir().expect("a folder");
    start(spec(folder.path()));
    let mut line = Line::new(folder.path());
    assert_eq!(line.say(Request::Report), Answer::Refused(Refusal::UnknownGuest));
    assert_eq!(line.say(hello("h3")), Answer::Refused(Refusal::UnknownGuest));
    assert!(matches!(line.say(hello("h1")), Answer::Ready(ready) if ready.name == "h1"));
    let Answer::Report(report) = line.say(Request::Report) else { panic!("no report") };
    assert!(!report[0].link_up);
    assert!(matches!(line.say(ping("10.0.0.1", 2, 8)), Answer::Ping(Ok(echoes)) if echoes.received() == 2));
    assert_eq!(line.say(ping("10.0.0.2", 1, 8)), Answer::Ping(Err(Unreachable::NoNeighbour)));
}

#[test]
fn stations_reach_each_other_through_a_switch_and_again_when_it_was_restarted() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = spec(folder.path());
    let sockets = spec.stations.iter().map(|station| &station.interfaces[0].socket);
    let listeners: Vec<_> = sockets.map(|path| UnixListener::bind(path).expect("a socket")).collect();
    let first = SwitchProcess::start(&listeners);
    start(spec);
    let (mut one, mut two) = (Line::to(folder.path(), "h1"), Line::to(folder.path(), "h2"));
    let mut all_is_well = || {
        one.wait_for("10.0.0.2");
        for peer in ["10.0.0.2", "fd00::2"] {
            let answer = one.say(ping(peer, 3, 1000));
            assert!(matches!(&answer, Answer::Ping(Ok(echoes)) if echoes.received() == 3), "{answer:?}");
            assert!(matches!(one.say(connect(at(peer, 7))), Answer::Connect(Contact::Answered(_))));
            assert!(matches!(one.say(echo(at(peer, 7))), Answer::UdpEcho(Contact::Answered(_))));
        }
    };
    all_is_well();
    first.stop();
    let second = SwitchProcess::start(&listeners);
    all_is_well();

    assert_eq!(two.say(Request::Serve { port: 5001 }), Answer::Done);
    let bytes = 64 << 20;
    let send = Send { dst: at("10.0.0.2", 5001), from: Source::Any, bytes, seed: 7, timeout: ms(50_000) };
    let answer = one.say(Request::Send(send));
    let Answer::Sent(Ok(Sent { bulk, .. })) = answer else { panic!("{answer:?}") };
    assert_eq!(bulk.bytes, bytes);
    let Answer::Served(Some(Bulk { bytes, checksum })) = two.say(Request::Served { port: 5001 }) else {
        panic!("nothing was received")
    };
    assert_eq!((bytes, checksum), (bulk.bytes, bulk.checksum));
    second.stop();
}
