//! What hosts are told of themselves, over TCP as smoltcp speaks it to itself and as it is broken by hand.

use super::{Bench, Lost, ROUTER, mac, read, read_arp, to_all, to_router, v4};
use crate::routers::{
    metadata::station::Wire,
    tests::lab::{description, server, vlan},
};
use etherparse::{NetSlice, TransportSlice};
use proptest::prelude::*;
use serde_json::Value;
use smoltcp::{
    iface::{Config, Interface, SocketSet},
    socket::tcp::{Socket, SocketBuffer, State},
    time,
    wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint},
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};
use vswitch_core::{
    build::{self, Addresses, Ethernet},
    description::{Host, Link, Membership, Port, SshKey},
    id::{PortId, SwitchId},
    mac::MacAddr,
    route::METADATA,
    vlan::Tci,
    world::World,
};

/// Station 7 is node `db`, with a stated address of each version; 8 is `web`, which has what it is given.
fn world() -> Arc<World> {
    let mut said = description(vec![server()]);
    let routers = said.ports[0].clone().expect("a port");
    for (place, n, node) in [(1, 7, "db"), (2, 8, "web")] {
        said.ports.push(Some(Port {
            id: PortId::new(place, 0),
            node: node.into(),
            interface: "eth0".into(),
            mac: Some(mac(n)),
            link: Link::Switch { switch: SwitchId::new(0), vlans: Membership::Access(vlan(10)) },
            ..routers.clone()
        }));
    }
    let routing = said.routing.as_mut().expect("routers");
    let addresses = ["10.0.10.7/24", "2001:db8:10::7/64"].map(|net| net.parse().expect("an address"));
    routing.hosts =
        vec![Host { vlan: vlan(10), name: "db".into(), mac: Some(mac(7)), addresses: addresses.into() }];
    let key = |node: Option<&str>, key: &str| SshKey { node: node.map(str::to_owned), key: key.to_owned() };
    routing.ssh_keys = vec![key(None, "ssh-ed25519 ALL"), key(Some("db"), "ssh-ed25519 DB")];
    Arc::new(World::compile(&said).expect("it fits together"))
}

fn bench() -> Bench {
    let mut bench = Bench::silent(world());
    bench.pass(40);
    bench.said();
    bench
}

/// A host's own stack.
struct Client {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    link: Ethernet,
}

impl Client {
    /// Station `n` of VLAN 10 with the address 10.0.10.n.
    fn new(n: u8) -> Self {
        let mut wire = Wire::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut wire, time::Instant::from_millis(0));
        let own = Ipv4Addr::new(10, 0, 10, n);
        interface.update_ip_addrs(|all| all.push(IpCidr::new(own.into(), 24)).expect("room"));
        interface.routes_mut().add_default_ipv4_route(v4("10.0.10.1")).expect("room");
        Self { wire, interface, sockets: SocketSet::new(Vec::new()), link: to_router(10, n) }
    }

    /// Sends a request from a port, and returns what comes back until the end. `passes` tells of each frame, by its number, whether it is not lost.
    fn ask(&mut self, bench: &mut Bench, request: &str, port: u16, passes: impl Fn(usize) -> bool) -> String {
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let handle = self.sockets.add(Socket::new(buffer(), buffer()));
        let peer = IpEndpoint::new(IpAddress::Ipv4(METADATA), 80);
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        socket.connect(self.interface.context(), peer, port).expect("a socket");
        let (mut heard, mut asked, mut frames) = (Vec::new(), false, 0);
        // A minute of it.
        for _ in 0..6000 {
            let now = time::Instant::from_micros((bench.now.as_nanos() / 1000) as i64);
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
            for packet in self.wire.said.drain(..) {
                frames += 1;
                if passes(frames) {
                    bench.hear(&framed(self.link, &packet));
                }
            }
            for frame in bench.said() {
                assert_eq!(frame[..6], self.link.src.octets(), "to nobody else");
                let packet = read(&frame, 10);
                let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
                assert_eq!(ip.header().source_addr(), METADATA);
                frames += 1;
                if passes(frames) {
                    self.wire.heard.push_back(frame[18..].to_vec());
                }
            }
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            if socket.can_send() && !asked {
                asked = socket.send_slice(request.as_bytes()).expect("it is open") > 0;
            }
            if socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes))).expect("bytes");
            }
            match socket.state() {
                State::CloseWait => socket.close(),
                State::Closed => break,
                _ => {}
            }
            bench.pass_millis(10);
        }
        assert_eq!(self.sockets.get::<Socket<'_>>(handle).state(), State::Closed, "it has an end");
        self.sockets.remove(handle);
        String::from_utf8(heard).expect("text")
    }

    /// The document at a path.
    fn get(&mut self, bench: &mut Bench, path: &str) -> String {
        let told = self.ask(bench, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), 4000, |_| true);
        let (head, body) = told.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {told}"));
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        body.to_owned()
    }
}

fn framed(link: Ethernet, packet: &[u8]) -> Vec<u8> {
    let tag = link.tag.expect("a tag").bits().to_be_bytes();
    [&link.dst.octets()[..], &link.src.octets(), &[0x81, 0], &tag, &[8, 0], packet].concat()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[test]
fn a_host_is_told_its_name_its_keys_and_its_network() {
    let mut bench = bench();
    let mut db = Client::new(7);
    let told = json(&db.get(&mut bench, "/meta-data"));
    assert_eq!(told["instance-id"], "test-db");
    assert_eq!(told["local-hostname"], "db");
    assert_eq!(told["public-keys"], serde_json::json!(["ssh-ed25519 ALL", "ssh-ed25519 DB"]));
    let file = told["network-interfaces"].as_str().expect("a text");
    assert!(file.contains("hwaddress ether 02:00:00:00:00:07\n  address 10.0.10.7\n"), "{file}");
    assert!(file.contains("  gateway 10.0.10.1\n  dns-nameservers 10.0.10.1\n"), "{file}");
    let network = &json(&db.get(&mut bench, "/network-config"))["ethernets"]["eth0"];
    assert_eq!(network["match"]["macaddress"], "02:00:00:00:00:07");
    assert_eq!((&network["dhcp4"], &network["addresses"][1]), (&false.into(), &"2001:db8:10::7/64".into()));
    assert_eq!(network["routes"][0], serde_json::json!({ "to": "0.0.0.0/0", "via": "10.0.10.1" }));
    assert_eq!(network["routes"][1], serde_json::json!({ "to": "::/0", "via": "2001:db8:10::1" }));
    assert!(db.get(&mut bench, "/user-data").starts_with("#cloud-config\n"));
    assert_eq!(db.get(&mut bench, "/vendor-data"), "");

    let mut web = Client::new(8);
    let told = json(&web.get(&mut bench, "/meta-data"));
    assert_eq!(
        (&told["local-hostname"], &told["public-keys"]),
        (&"web".into(), &serde_json::json!(["ssh-ed25519 ALL"]))
    );
    assert_eq!(told.get("network-interfaces"), None, "DHCP tells it");
    let network = &json(&web.get(&mut bench, "/network-config"))["ethernets"]["eth0"];
    assert_eq!((&network["dhcp4"], network.get("addresses")), (&true.into(), None));
    assert_eq!(bench.speaker.metadata.waiting(), 0, "nobody is remembered");
}

#[test]
fn who_is_nobody_is_told_nothing() {
    let mut bench = bench();
    let mut other = Client::new(9);
    let told = other.ask(&mut bench, "GET /meta-data HTTP/1.0\r\n\r\n", 4000, |_| true);
    assert!(told.starts_with("HTTP/1.1 404 "), "{told}");
}

#[test]
fn what_is_lost_is_said_again() {
    // Each of the first frames of a short talk, alone, and every third.
    for lost in 1..=12 {
        let told = Client::new(7).ask(&mut bench(), "GET /meta-data HTTP/1.0\r\n\r\n", 4000, |n| n != lost);
        assert!(told.contains("local-hostname"), "frame {lost}: {told}");
    }
    let told = Client::new(7).ask(&mut bench(), "GET /meta-data HTTP/1.0\r\n\r\n", 4000, |n| n % 3 != 0);
    assert!(told.contains("local-hostname"), "{told}");
}

#[test]
fn its_address_is_the_routers_where_it_gives_addresses_and_nowhere_else() {
    let mut bench = bench();
    let request = |number, host| build::arp_request(to_all(number, 7), v4(host), METADATA);
    bench.hear(&request(10, "10.0.10.7"));
    let arp = read_arp(&bench.one(), 10);
    assert_eq!(
        (arp.sender_hw_addr(), arp.sender_protocol_addr()),
        (&ROUTER.octets()[..], &METADATA.octets()[..])
    );
    bench.silent_after(&request(20, "10.0.20.7"));
    // Another port, and VLAN 20: nobody listens.
    for (number, host, port) in [(10, "10.0.10.7", 81), (20, "10.0.20.7", 80)] {
        let ends = Addresses::V4(v4(host), METADATA);
        bench.hear(&build::tcp_syn(to_router(number, 7), ends, (4000, port), 41));
        let said = bench.one();
        let Some(TransportSlice::Tcp(tcp)) = read(&said, number).transport else { panic!("no TCP") };
        assert!(tcp.rst() && tcp.acknowledgment_number() == 42);
    }
    // Nobody else may have it.
    let ends = Addresses::V4(METADATA, v4("10.0.10.1"));
    bench.silent_after(&build::tcp_syn(to_router(10, 7), ends, (4000, 80), 41));
    assert_eq!(bench.lost(Lost::Martian), 1);
}

/// A SYN of station `n` for 80.
fn syn(n: u8, port: u16) -> Vec<u8> {
    let from = MacAddr::new([2, 0, 0, 0, 1, n]);
    let link = Ethernet { src: from, dst: ROUTER, tag: Some(Tci::from_bits(10)) };
    build::tcp_syn(link, Addresses::V4(Ipv4Addr::new(10, 0, 10, n), METADATA), (port, 80), 41)
}

#[test]
fn who_opens_many_connections_and_says_nothing_holds_little_and_not_for_long() {
    let mut bench = bench();
    let is_accepted = |bench: &mut Bench, n, port| {
        bench.said();
        bench.hear(&syn(n, port));
        let said = bench.one();
        let Some(TransportSlice::Tcp(tcp)) = read(&said, 10).transport else { panic!("no TCP") };
        assert!(tcp.rst() != tcp.syn(), "one of the two");
        tcp.syn()
    };
    let open = |bench: &mut Bench| {
        let each = (100..200).flat_map(|n| (1..10).map(move |port| (n, 4000 + port)));
        each.filter(|(n, port)| {
            bench.pass_millis(2);
            is_accepted(bench, *n, *port)
        })
        .count()
    };
    // Eight stations, four connections each.
    assert_eq!(open(&mut bench), 32);
    assert_eq!(bench.speaker.metadata.waiting(), 8);
    // They are reset; then others can ask, and nothing is due.
    bench.pass(11);
    assert_eq!((bench.speaker.metadata.waiting(), bench.speaker.metadata.next_due()), (0, None));
    bench.said();
    let told = Client::new(7).get(&mut bench, "/meta-data");
    assert!(told.contains("local-hostname"));
}

#[test]
fn a_request_without_end_is_refused_and_a_slow_one_cut_off() {
    let mut bench = bench();
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(4090));
    let told = Client::new(7).ask(&mut bench, &long, 4000, |_| true);
    assert!(told.starts_with("HTTP/1.1 431 "), "{told}");
    let before = bench.now;
    assert_eq!(Client::new(7).ask(&mut bench, "GET /meta-data", 4001, |_| true), "");
    assert!(bench.now.since(before) < Duration::from_secs(11));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_segments_come_what_is_held_is_bounded_and_has_an_end(
        segments in prop::collection::vec(
            (100_u8..112, 4000_u16..4006, any::<u8>(), any::<[u8; 8]>(), prop::collection::vec(any::<u8>(), 0..80), any::<bool>()),
            1..200,
        ),
    ) {
        let mut bench = bench();
        let mut last = 0_u32;
        for (n, port, flags, numbers, data, is_apt) in segments {
            // What was said last is acknowledged, or anything.
            let [sequence, heard] = [0, 4].map(|at| u32::from_be_bytes(std::array::from_fn(|n| numbers[at + n])));
            let (sequence, heard) = if is_apt { (42, last.wrapping_add(1)) } else { (sequence, heard) };
            let mut segment = [&port.to_be_bytes()[..], &80_u16.to_be_bytes(), &sequence.to_be_bytes()].concat();
            segment.extend(heard.to_be_bytes());
            segment.extend([5 << 4, flags, 0x10, 0, 0, 0, 0, 0]);
            segment.extend(data);
            let link = Ethernet { src: MacAddr::new([2, 0, 0, 0, 1, n]), dst: ROUTER, tag: Some(Tci::from_bits(10)) };
            let ends = Addresses::V4(Ipv4Addr::new(10, 0, 10, n), METADATA);
            bench.hear(&syn(n, port));
            bench.hear(&build::ip(link, ends, 6, 64, segment, 16));
            for frame in bench.said() {
                let Some(TransportSlice::Tcp(tcp)) = read(&frame, 10).transport else { panic!("no TCP") };
                last = tcp.sequence_number();
            }
            bench.pass_millis(5);
            prop_assert!(bench.speaker.metadata.waiting() <= 8);
        }
        bench.pass(30);
        prop_assert_eq!((bench.speaker.metadata.waiting(), bench.speaker.metadata.next_due()), (0, None));
    }
}
