//! Clients of every kind at the server; smoltcp writes what they say and reads what they are told.

mod kept;

use super::*;
use crate::routers::tests::lab::{self, gateway};
use proptest::prelude::*;
use smoltcp::wire::{DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};
use std::{collections::BTreeSet, sync::Arc};
use vswitch_core::{
    description::{Boot, Gateway, Router},
    world::World,
};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 10, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LEASE: u32 = 3600;

fn vlan() -> VlanId {
    VlanId::new(10).expect("an id")
}

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 10, n)
}

fn at(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

/// Gives 10.0.10.50 to .53; web1 (02:…:07) has .51 stated, and somebody without a MAC address .53.
fn said() -> Said4 {
    Said4 {
        first: ip(50),
        last: ip(53),
        lease_secs: LEASE,
        dns: vec![],
        domain: Some("lab.test".into()),
        search: vec!["lab.test".into(), "test".into()],
        mtu: Some(1400),
        routes: vec![],
        boot: None,
    }
}

fn host(name: &str, mac: Option<MacAddr>, n: u8) -> Host {
    let address = format!("10.0.10.{n}/24").parse().expect("an address");
    Host { vlan: vlan(), name: name.into(), mac, addresses: vec![address] }
}

fn world(said: Said4) -> Arc<World> {
    let served = Gateway { dhcp: Some(said), ..gateway(10, &["10.0.10.1/24"]) };
    lab::world(vec![Router {
        name: "default".into(),
        gateways: vec![served],
        routes: vec![],
        nat: Vec::new(),
        nameservers: Vec::new(),
    }])
}

fn server() -> Dhcp {
    serving(said())
}

fn serving(said: Said4) -> Dhcp {
    let mut dhcp = Dhcp::default();
    let nodes = [("web1", Some(mac(7))), ("old", None), ("phone", Some(mac(8)))];
    let hosts = [host("web1", Some(mac(7)), 51), host("old", None, 53)];
    dhcp.adopt("test", world(said).routing(), &hosts, &nodes.into_iter());
    dhcp
}

/// What a client says that wants these options.
pub(crate) fn message<'a>(n: u8, kind: DhcpMessageType, change: impl FnOnce(&mut DhcpRepr<'a>)) -> Vec<u8> {
    let mut repr = DhcpRepr {
        message_type: kind,
        transaction_id: 0x1234_5678,
        secs: 0,
        client_hardware_address: EthernetAddress(mac(n).octets()),
        client_ip: NOBODY,
        your_ip: NOBODY,
        server_ip: NOBODY,
        router: None,
        subnet_mask: None,
        relay_agent_ip: NOBODY,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6, 12, 15, 26, 28, 119]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    change(&mut repr);
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).expect("there is room");
    bytes
}

/// What is said to a client at last: if somebody is asked for, nobody answers.
fn ask(dhcp: &mut Dhcp, n: u8, now: u64, bytes: &[u8]) -> Option<Reply> {
    match dhcp.receive((vlan(), mac(n)), bytes, at(now), |_| None)? {
        Next::Say(reply) => Some(reply),
        Next::Ask(_) | Next::Wait => match &silence(dhcp, at(now) + probes::WAIT)[..] {
            [Next::Say(reply)] => Some(reply.clone()),
            other => panic!("one answer: {other:?}"),
        },
    }
}

/// What comes of it that nobody was heard until now.
fn silence(dhcp: &mut Dhcp, now: Instant) -> Vec<Next> {
    dhcp.tick(now, |_, _| None).into_iter().map(|(_, next)| next).collect()
}

/// What comes at once of a message.
fn at_once(dhcp: &mut Dhcp, n: u8, now: u64, bytes: &[u8]) -> Option<Next> {
    dhcp.receive((vlan(), mac(n)), bytes, at(now), |_| None)
}

/// Somebody says that it has an address.
fn heard(dhcp: &mut Dhcp, address: Ipv4Addr, n: u8, now: u64) -> Option<Next> {
    dhcp.heard((vlan(), address), mac(n), at(now), |_| None)
}

/// What a reply says: its kind, and the address that it gives.
fn read(reply: &Reply) -> (DhcpMessageType, Ipv4Addr) {
    let packet = DhcpPacket::new_checked(&reply.payload[..]).expect("a message");
    let repr = DhcpRepr::parse(&packet).expect("a message");
    assert_eq!((repr.transaction_id, repr.server_identifier, reply.src), (0x1234_5678, Some(OWN), OWN));
    (repr.message_type, repr.your_ip)
}

fn option(reply: &Reply, wanted: u8) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(&reply.payload[..]).expect("a message");
    packet.options().find(|option| option.kind == wanted).map(|DhcpOption { data, .. }| data.to_vec())
}

/// The address that a client is offered.
fn discover(dhcp: &mut Dhcp, n: u8, now: u64) -> Option<Ipv4Addr> {
    let reply = ask(dhcp, n, now, &message(n, DhcpMessageType::Discover, |_| {}))?;
    let (kind, address) = read(&reply);
    assert_eq!(kind, DhcpMessageType::Offer);
    Some(address)
}

/// It asks for that address as `change` says.
fn request(
    dhcp: &mut Dhcp,
    n: u8,
    now: u64,
    change: impl FnOnce(&mut DhcpRepr<'_>),
) -> Option<(DhcpMessageType, Ipv4Addr)> {
    ask(dhcp, n, now, &message(n, DhcpMessageType::Request, change)).map(|reply| read(&reply))
}

/// It takes an offer.
fn take(dhcp: &mut Dhcp, n: u8, now: u64, address: Ipv4Addr) -> Option<(DhcpMessageType, Ipv4Addr)> {
    request(dhcp, n, now, |repr| (repr.requested_ip, repr.server_identifier) = (Some(address), Some(OWN)))
}

/// All the way to an address.
fn lease(dhcp: &mut Dhcp, n: u8, now: u64) -> Ipv4Addr {
    let address = discover(dhcp, n, now).expect("there is an address");
    assert_eq!(take(dhcp, n, now, address), Some((DhcpMessageType::Ack, address)));
    address
}

#[test]
fn a_client_gets_an_address_and_all_that_it_needs() {
    let mut dhcp = server();
    let offer = ask(&mut dhcp, 1, 0, &message(1, DhcpMessageType::Discover, |_| {})).expect("an offer");
    let (_, address) = read(&offer);
    assert_eq!((offer.mac, offer.dst), (mac(1), address), "it takes unicast");
    assert!([50, 52].map(ip).contains(&address), "{address}: the others are stated");
    let asks = message(1, DhcpMessageType::Request, |repr| {
        (repr.requested_ip, repr.server_identifier) = (Some(address), Some(OWN));
    });
    let ack = ask(&mut dhcp, 1, 0, &asks).expect("a grant");
    assert_eq!(read(&ack), (DhcpMessageType::Ack, address));
    let expected: [(u8, Option<&[u8]>); 12] = [
        (1, Some(&[255, 255, 255, 0])),
        (3, Some(&[10, 0, 10, 1])),
        (6, Some(&[10, 0, 10, 1])),
        (12, None),
        (15, Some(b"lab.test")),
        (26, Some(&[5, 120])),
        (28, Some(&[10, 0, 10, 255])),
        (51, Some(&[0, 0, 14, 16])),
        (58, Some(&[0, 0, 7, 8])),
        (59, Some(&[0, 0, 12, 78])),
        (119, Some(b"\x03lab\x04test\x00\x04test\x00")),
        (121, None),
    ];
    for (number, data) in expected {
        assert_eq!(option(&ack, number).as_deref(), data, "option {number}");
    }
    assert!(ack.payload.len() >= 300, "RFC 1542 §2.1");
    // Without a domain of its own it is that of the names which the gateway knows, as in router advertisements.
    let asks = message(2, DhcpMessageType::Discover, |_| {});
    let offer = ask(&mut serving(Said4 { domain: None, ..self::said() }), 2, 0, &asks).expect("an offer");
    assert_eq!(option(&offer, 15).as_deref(), Some(&b"test.internal"[..]));
    let rows = dhcp.leases(at(600));
    assert_eq!(
        rows,
        [LeaseRow {
            vlan: vlan(),
            address,
            mac: mac(1),
            name: None,
            state: LeaseState::Bound,
            left_secs: 3000
        }]
    );
    assert_eq!(dhcp.leases(at(3600)), [], "it is over");
    assert_eq!((dhcp.counts().offers, dhcp.counts().acks), (1, 1));
}

#[test]
fn what_the_file_states_is_its_hosts_and_nobody_elses() {
    let mut dhcp = server();
    let asks = message(7, DhcpMessageType::Discover, |repr| repr.requested_ip = Some(ip(50)));
    let offer = ask(&mut dhcp, 7, 0, &asks).expect("an offer");
    assert_eq!((read(&offer).1, option(&offer, 12).as_deref()), (ip(51), Some(&b"web1"[..])));
    assert_eq!(take(&mut dhcp, 7, 0, ip(50)), Some((DhcpMessageType::Nak, NOBODY)), "it has one of its own");
    assert_eq!(take(&mut dhcp, 7, 0, ip(51)), Some((DhcpMessageType::Ack, ip(51))));
    assert_eq!(dhcp.leases(at(0))[0].name.as_deref(), Some("web1"));
    // The gateway, a host of another MAC address, one of none, one out of the range.
    for n in [1, 51, 53, 60] {
        assert_eq!(take(&mut dhcp, 1, 0, ip(n)), Some((DhcpMessageType::Nak, NOBODY)), "{n}");
    }
    let all: BTreeSet<_> = (10..30).filter_map(|n| discover(&mut dhcp, n, 0)).collect();
    assert_eq!(all, [50, 52].map(ip).into());
    let pool = PoolRow { vlan: vlan(), first: ip(50), last: ip(53), free: 0, exhausted: 18 };
    assert_eq!(dhcp.pools(at(0)), std::slice::from_ref(&pool));
    // What was offered and not taken is free again, and what is nobody's by the file any more is still given; another lab counts on.
    dhcp.adopt("test", world(said()).routing(), &[host("old", None, 53)], &std::iter::empty());
    assert_eq!(dhcp.pools(at(100)), [PoolRow { free: 2, ..pool }]);
}

#[test]
fn a_client_gets_the_same_address_again_also_from_a_server_that_forgot_all() {
    let first = lease(&mut server(), 1, 0);
    assert_eq!(lease(&mut server(), 1, 0), first, "it follows from its MAC address");
    let mut dhcp = server();
    let (one, other) = (lease(&mut dhcp, 1, 0), lease(&mut dhcp, 2, 0));
    // Both leases are over, and who comes first does not get the other's.
    assert_eq!(lease(&mut dhcp, 2, 10_000), other);
    assert_eq!(lease(&mut dhcp, 1, 10_000), one);
    // A changed lab keeps leases; an address that is no longer given goes.
    let (low, high) = (one.min(other), one.max(other));
    dhcp.adopt("test", world(Said4 { last: low, ..said() }).routing(), &[], &std::iter::empty());
    let left: Vec<_> = dhcp.leases(at(10_001)).iter().map(|row| row.address).collect();
    assert_eq!(left, [low], "{high} is out of the range");
}

#[test]
fn a_wish_is_granted_if_nobody_has_it() {
    let mut dhcp = server();
    let wish = |n| message(n, DhcpMessageType::Discover, |repr| repr.requested_ip = Some(ip(52)));
    let offered = |reply: Option<Reply>| reply.map(|reply| read(&reply).1);
    assert_eq!(offered(ask(&mut dhcp, 1, 0, &wish(1))), Some(ip(52)));
    assert_eq!(offered(ask(&mut dhcp, 2, 0, &wish(2))), Some(ip(50)), "it is offered to another");
    assert_eq!(offered(ask(&mut dhcp, 3, 61, &wish(3))), Some(ip(52)), "who did not come");
}

#[test]
fn rfc_2131_4_3_2_requests_of_every_kind() {
    let mut dhcp = server();
    let address = lease(&mut dhcp, 1, 0);
    // RENEWING: from its address, to it, without naming a server.
    let renew = message(1, DhcpMessageType::Request, |repr| repr.client_ip = address);
    let reply = ask(&mut dhcp, 1, 1800, &renew).expect("a grant");
    assert_eq!((read(&reply), reply.mac, reply.dst), ((DhcpMessageType::Ack, address), mac(1), address));
    assert_eq!(dhcp.leases(at(1800))[0].left_secs, 3600);
    // INIT-REBOOT: with the address that it had.
    let reboot = |repr: &mut DhcpRepr<'_>| repr.requested_ip = Some(address);
    assert_eq!(request(&mut dhcp, 1, 2000, reboot), Some((DhcpMessageType::Ack, address)));
    // Of one that another has, of one that is nobody's here: it is told, and all hear it.
    for wanted in [address, Ipv4Addr::new(192, 168, 0, 7)] {
        let asks = message(2, DhcpMessageType::Request, |repr| repr.requested_ip = Some(wanted));
        let nak = ask(&mut dhcp, 2, 2000, &asks).expect("a refusal");
        assert_eq!(
            (read(&nak), nak.mac, nak.dst),
            ((DhcpMessageType::Nak, NOBODY), MacAddr::BROADCAST, Ipv4Addr::BROADCAST)
        );
    }
    // Of one that is free: granted, though nothing was offered, as after a restart of the server.
    let other = if address == ip(50) { ip(52) } else { ip(50) };
    assert_eq!(
        request(&mut dhcp, 2, 2000, |repr| repr.requested_ip = Some(other)),
        Some((DhcpMessageType::Ack, other))
    );
    // For another server: nothing is said, and what was offered is free again.
    let mut dhcp = server();
    let offered = discover(&mut dhcp, 3, 0).expect("an offer");
    let elsewhere = |repr: &mut DhcpRepr<'_>| {
        (repr.requested_ip, repr.server_identifier) = (Some(offered), Some(ip(2)));
    };
    assert_eq!(request(&mut dhcp, 3, 0, elsewhere), None);
    assert_eq!(take(&mut dhcp, 4, 0, offered), Some((DhcpMessageType::Ack, offered)));
    // Without any address.
    assert_eq!(request(&mut dhcp, 3, 0, |_| {}), None);
}

#[test]
fn a_client_that_cannot_take_unicast_is_told_by_broadcast() {
    let mut dhcp = server();
    let asks = message(1, DhcpMessageType::Discover, |repr| repr.broadcast = true);
    let offer = ask(&mut dhcp, 1, 0, &asks).expect("an offer");
    assert_eq!((offer.mac, offer.dst), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
}

#[test]
fn an_address_that_a_client_finds_in_use_is_nobodys_for_a_while() {
    let mut dhcp = server();
    let address = lease(&mut dhcp, 1, 0);
    let decline = message(1, DhcpMessageType::Decline, |repr| {
        (repr.requested_ip, repr.server_identifier) = (Some(address), Some(OWN));
    });
    assert_eq!(ask(&mut dhcp, 1, 10, &decline), None);
    let other = lease(&mut dhcp, 1, 11);
    assert_ne!(other, address);
    assert_eq!((discover(&mut dhcp, 2, 12), dhcp.counts().declines), (None, 1));
    let row = dhcp.leases(at(12)).into_iter().find(|row| row.address == address).expect("it is told");
    assert_eq!(row.state, LeaseState::Declined);
    assert_eq!(discover(&mut dhcp, 2, 611), Some(address));
    // What is not the client's to decline stays whose it is.
    for n in 50..54 {
        let lie = message(5, DhcpMessageType::Decline, |repr| repr.requested_ip = Some(ip(n)));
        ask(&mut dhcp, 5, 612, &lie);
    }
    assert_eq!((lease(&mut dhcp, 7, 612), dhcp.counts().declines), (ip(51), 1));
}

#[test]
fn what_is_given_back_is_free_and_what_is_used_by_others_is_not_offered() {
    let mut dhcp = server();
    let (one, other) = (lease(&mut dhcp, 1, 0), lease(&mut dhcp, 2, 0));
    // Not by somebody else.
    let release = |n| message(n, DhcpMessageType::Release, |repr| repr.client_ip = one);
    ask(&mut dhcp, 3, 1, &release(3));
    assert_eq!(discover(&mut dhcp, 3, 1), None);
    ask(&mut dhcp, 1, 1, &release(1));
    assert_eq!(dhcp.leases(at(1)).len(), 1);
    assert_eq!(dhcp.pools(at(1))[0].free, 1, "{other} is its neighbour's still");
    // It gave it back, and still has it: who else speaks of it is only asked.
    let used = |address| (address == one).then_some(mac(1));
    assert_eq!(dhcp.receive((vlan(), mac(3)), &asks_of(3), at(1), used), Some(Next::Ask(one)));
    assert_eq!(dhcp.pools(at(1))[0].free, 0, "a client waits for it");
    assert_eq!((heard(&mut dhcp, one, 1, 1), dhcp.pools(at(1))[0].free), (None, 0));
    assert_eq!(dhcp.pools(at(1))[0].exhausted, 2);
}

#[test]
fn an_address_that_only_an_old_neighbour_speaks_of_is_asked_for_and_given() {
    let known = |_| Some(mac(9));
    // Given back, over, never had: nobody answers.
    let mut dhcp = server();
    let (one, other) = (lease(&mut dhcp, 1, 0), lease(&mut dhcp, 2, 0));
    ask(&mut dhcp, 1, 1, &message(1, DhcpMessageType::Release, |repr| repr.client_ip = one));
    assert_eq!(dhcp.pools(at(1))[0].free, 1);
    assert_eq!(dhcp.receive((vlan(), mac(3)), &asks_of(3), at(1), known), Some(Next::Ask(one)));
    assert!(is_offer_of(silence(&mut dhcp, at(2)).first(), one));
    assert_eq!(dhcp.pools(at(4000))[0].free, 2);
    assert_eq!(dhcp.receive((vlan(), mac(2)), &asks_of(2), at(4000), known), Some(Next::Ask(other)));
    assert!(is_offer_of(silence(&mut dhcp, at(4001)).first(), other));
    let again = message(1, DhcpMessageType::Request, |repr| repr.requested_ip = Some(ip(52)));
    let mut dhcp = server();
    assert_eq!(dhcp.receive((vlan(), mac(1)), &again, at(0), known), Some(Next::Ask(ip(52))));
    // One that nobody speaks of is preferred, also to a wish.
    let mut dhcp = server();
    let wish = message(1, DhcpMessageType::Discover, |repr| repr.requested_ip = Some(ip(52)));
    let known = |address| (address == ip(52)).then_some(mac(9));
    assert_eq!(dhcp.receive((vlan(), mac(1)), &wish, at(0), known), Some(Next::Ask(ip(50))));
}

#[test]
fn who_has_an_address_is_told_the_rest() {
    let mut dhcp = server();
    let asks = message(1, DhcpMessageType::Inform, |repr| repr.client_ip = ip(200));
    let reply = ask(&mut dhcp, 1, 0, &asks).expect("an answer");
    assert_eq!((read(&reply), reply.dst), ((DhcpMessageType::Ack, NOBODY), ip(200)));
    assert_eq!((option(&reply, 51), option(&reply, 3)), (None, Some(vec![10, 0, 10, 1])));
    assert_eq!(dhcp.leases(at(0)), []);
}

#[test]
fn rfc_3442_routes_have_as_many_octets_as_count() {
    let route = |to: &str, via: [u8; 4]| (to.parse().expect("a network"), Ipv4Addr::from(via));
    let routes = vec![
        route("10.27.129.0/24", [10, 0, 10, 2]),
        route("10.17.0.0/16", [10, 0, 10, 3]),
        route("10.229.0.128/25", [10, 0, 10, 4]),
    ];
    let mut dhcp = serving(Said4 { routes, ..said() });
    let asks = message(1, DhcpMessageType::Discover, |repr| repr.parameter_request_list = Some(&[121]));
    let offer = ask(&mut dhcp, 1, 0, &asks).expect("an offer");
    let expected = [
        &[24, 10, 27, 129, 10, 0, 10, 2][..],
        &[16, 10, 17, 10, 0, 10, 3],
        &[25, 10, 229, 0, 128, 10, 0, 10, 4],
        &[0, 10, 0, 10, 1],
    ];
    assert_eq!(option(&offer, 121), Some(expected.concat()));
    assert_eq!(option(&offer, 26), None, "it did not ask for that");
}

/// A server of clients that boot, and what one is told that has these options.
fn boots(server: Option<Ipv4Addr>, file: &str, options: &[DhcpOption<'_>], wanted: &[u8]) -> Reply {
    let boot = Some(Boot { server, file: file.into() });
    let asks = message(1, DhcpMessageType::Discover, |repr| {
        repr.additional_options = options;
        repr.parameter_request_list = Some(wanted);
    });
    ask(&mut serving(Said4 { boot, ..said() }), 1, 0, &asks).expect("an offer")
}

/// The next server, and the name of the file, before the options.
fn fields(reply: &Reply) -> (Ipv4Addr, String) {
    let packet = DhcpPacket::new_checked(&reply.payload[..]).expect("a message");
    // One that is empty is none to the parser.
    (packet.server_ip(), packet.get_boot_file().unwrap_or_default().to_owned())
}

#[test]
fn rfc_2132_9_5_who_boots_is_told_which_file_of_whom() {
    const PXE: &[u8] = b"PXEClient:Arch:00000:UNDI:002001";
    const HTTP: &[u8] = b"HTTPClient:Arch:00016:UNDI:003001";
    const URL: &str = "http://10.0.20.10/boot.efi";
    let (web, all) = (Ipv4Addr::new(10, 0, 20, 10), &[1, 3, 60, 66, 67][..]);
    let class = |data| DhcpOption { kind: 60, data };
    let ipxe = |data| DhcpOption { kind: 77, data };
    let options = |reply: &Reply| [60, 66, 67].map(|number| option(reply, number));
    let text = |text: &str| Some(text.as_bytes().to_vec());
    // A file of a server: as old clients read it, and as options if they are asked for.
    for classes in [&[][..], &[class(PXE)], &[class(PXE), ipxe(b"iPXE")]] {
        let told = boots(Some(web), "pxelinux.0", classes, all);
        assert_eq!(fields(&told), (web, "pxelinux.0".into()));
        assert_eq!(options(&told), [None, text("10.0.20.10"), text("pxelinux.0")]);
        let told = boots(Some(web), "pxelinux.0", classes, &[1, 3]);
        assert_eq!((fields(&told), options(&told)), ((web, "pxelinux.0".into()), [None, None, None]));
    }
    // A URL is for who takes it: iPXE, with the length before its name or without, and firmware that boots by HTTP, which believes who says that class only.
    for user in [&b"iPXE"[..], b"\x04iPXE"] {
        let told = boots(None, URL, &[class(PXE), ipxe(user)], all);
        assert_eq!((fields(&told), options(&told)), ((NOBODY, URL.into()), [None, None, text(URL)]));
    }
    let told = boots(None, URL, &[class(HTTP)], &[1, 3]);
    assert_eq!(
        (fields(&told), options(&told)),
        ((NOBODY, URL.into()), [text("HTTPClient"), None, text(URL)])
    );
    // Who cannot take it is told nothing of it: it goes on to what it boots else.
    for told in [
        boots(None, URL, &[class(PXE)], all),
        boots(Some(web), "pxelinux.0", &[class(HTTP)], all),
        boots(None, "tftp://10.0.20.10/boot.efi", &[class(HTTP)], all),
    ] {
        assert_eq!((fields(&told), options(&told)), ((NOBODY, String::new()), [None, None, None]));
    }
    // The longest name ends with a zero, and a refusal tells none.
    let long = "a".repeat(127);
    assert_eq!(fields(&boots(Some(web), &long, &[], all)).1, long);
    let boot = Some(Boot { server: Some(web), file: long });
    let wrong = message(1, DhcpMessageType::Request, |repr| repr.requested_ip = Some(ip(9)));
    let refused = ask(&mut serving(Said4 { boot, ..said() }), 1, 0, &wrong).expect("a refusal");
    assert_eq!((read(&refused).0, fields(&refused)), (DhcpMessageType::Nak, (NOBODY, String::new())));
}

/// 200 bytes of name servers, domains, routes and what is booted (T0920), a node's longest name, and an identifier of 20 bytes.
#[test]
fn what_a_file_may_say_fits_into_one_message() {
    let route = |n: u8| (Ipv4Net::new([192, 0, n, 0].into(), 24).expect("a network"), ip(9));
    let said = Said4 {
        dns: vec![OWN, ip(2)],
        domain: Some("d".repeat(50)),
        search: vec!["s".repeat(45), "t".repeat(46)],
        mtu: Some(1400),
        routes: (0..4).map(route).collect(),
        ..said()
    };
    // 2 and 8; 2 and 50; 2, and 2 for each of 45 and 46; 2, 8 for each of four, 5 for the default route.
    assert_eq!(10 + 52 + (2 + 47 + 48) + (2 + 4 * 8 + 5) + 2, 200, "and two that are left");
    let mut dhcp = Dhcp::default();
    let name = "n".repeat(31);
    dhcp.adopt("test", world(said).routing(), &[], &[(name.as_str(), Some(mac(1)))].into_iter());
    let options = [DhcpOption { kind: 61, data: &[7; 20] }];
    let asks = message(1, DhcpMessageType::Discover, |repr| {
        repr.parameter_request_list = Some(&[1, 3, 6, 12, 15, 26, 28, 119, 121]);
        repr.additional_options = &options;
    });
    let offer = ask(&mut dhcp, 1, 0, &asks).expect("an offer");
    for number in [1, 3, 6, 12, 15, 26, 28, 51, 54, 58, 59, 61, 119, 121] {
        assert!(option(&offer, number).is_some(), "option {number}: {}", offer.payload.len());
    }
    assert!(offer.payload.len() <= 548);
    // The longest file, its server, and the lab's own domain.
    assert_eq!((2 + 127) + (2 + 15) + (2 + 40) + 12, 200, "and twelve that are left for two name servers");
    for (server, file, class, told) in [
        (Some([255; 4].into()), "f".repeat(127), None, 66),
        (None, format!("http://{}", "f".repeat(120)), Some(&b"HTTPClient:Arch:00016"[..]), 60),
    ] {
        let (dns, boot) = (vec![OWN, ip(2)], Some(Boot { server, file }));
        let said = Said4 { dns, domain: Some("d".repeat(40)), search: vec![], boot, ..self::said() };
        let mut dhcp = Dhcp::default();
        dhcp.adopt("test", world(said).routing(), &[], &[(name.as_str(), Some(mac(1)))].into_iter());
        let class = class.map(|data| DhcpOption { kind: 60, data });
        let options: Vec<_> = options.iter().copied().chain(class).collect();
        let asks = message(1, DhcpMessageType::Discover, |repr| {
            repr.parameter_request_list = Some(&[1, 3, 6, 12, 15, 26, 28, 66, 67]);
            repr.additional_options = &options;
        });
        let offer = ask(&mut dhcp, 1, 0, &asks).expect("an offer");
        for number in [1, 3, 6, 12, 15, 26, 28, 51, 54, 58, 59, 61, 67, told] {
            assert!(option(&offer, number).is_some(), "option {number}: {}", offer.payload.len());
        }
        assert!(offer.payload.len() <= 548);
    }
}

#[test]
fn what_is_no_message_of_that_station_is_ignored() {
    let mut dhcp = server();
    let asks = message(1, DhcpMessageType::Discover, |_| {});
    let mut relayed = asks.clone();
    relayed[24..28].copy_from_slice(&[10, 0, 99, 1]);
    let mut reply = asks.clone();
    reply[0] = 2;
    let mut other = asks.clone();
    other[236] ^= 1;
    assert_eq!(dhcp.receive((vlan(), mac(2)), &asks, at(0), |_| None), None, "another's address");
    assert_eq!(dhcp.receive((VlanId::DEFAULT, mac(1)), &asks, at(0), |_| None), None, "no server there");
    for bytes in [&relayed[..], &reply, &other, &asks[..239], &[]] {
        assert_eq!(ask(&mut dhcp, 1, 0, bytes), None);
    }
    assert_eq!((dhcp.counts().ignored, dhcp.leases(at(0))), (7, vec![]));
}

#[test]
fn a_client_is_given_its_own_identifier_back() {
    let mut dhcp = server();
    let id = [255, 1, 2, 3, 4, 0, 2, 0, 0, 171, 17];
    let options = [DhcpOption { kind: 61, data: &id }, DhcpOption { kind: 12, data: b"PC-1.example" }];
    let asks = message(1, DhcpMessageType::Discover, |repr| repr.additional_options = &options);
    let offer = ask(&mut dhcp, 1, 0, &asks).expect("an offer");
    assert_eq!(option(&offer, 61).as_deref(), Some(&id[..]), "RFC 6842");
    assert_eq!(dhcp.leases(at(0))[0].name.as_deref(), Some("pc-1"), "what it calls itself");
    // By the name of a node nobody goes but the node; it does whatever it calls itself.
    for (n, name) in [(2, None), (8, Some("phone"))] {
        let mut dhcp = server();
        let options = [DhcpOption { kind: 12, data: b"old" }];
        let asks = message(n, DhcpMessageType::Discover, |repr| repr.additional_options = &options);
        let offer = ask(&mut dhcp, n, 0, &asks).expect("an offer");
        assert_eq!(dhcp.leases(at(0))[0].name.as_deref(), name);
        assert_eq!(option(&offer, 12).as_deref(), name.map(str::as_bytes));
    }
}

/// It gets an address, and calls itself so.
fn lease_as(dhcp: &mut Dhcp, n: u8, now: u64, name: &str) -> Option<String> {
    let options = [DhcpOption { kind: 12, data: name.as_bytes() }];
    let ask_as = |kind, wanted| {
        message(n, kind, |repr| (repr.requested_ip, repr.additional_options) = (wanted, &options))
    };
    let offer = ask(dhcp, n, now, &ask_as(DhcpMessageType::Discover, None)).expect("an offer");
    let address = read(&offer).1;
    let ack = ask(dhcp, n, now, &ask_as(DhcpMessageType::Request, Some(address))).expect("a grant");
    assert_eq!(read(&ack), (DhcpMessageType::Ack, address), "an address it gets, whatever it calls itself");
    dhcp.leases(at(now)).into_iter().find(|row| row.address == address).expect("it is bound").name
}

#[test]
fn names_that_mean_something_else_are_not_taken() {
    for name in
        ["localhost", "WPAD", "isatap", "gateway.lan", "internal", "10", "-a", "a-", "test", "old", "v10"]
    {
        let mut dhcp = Dhcp::default();
        dhcp.adopt("test", world(said()).routing(), &[], &[("old", None), ("v10", None)].into_iter());
        assert_eq!(lease_as(&mut dhcp, 1, 0, name), None, "{name}");
    }
    for name in ["wpad2", "10a", "a-b", "tests"] {
        assert_eq!(lease_as(&mut server(), 1, 0, name).as_deref(), Some(name));
    }
}

#[test]
fn a_name_is_that_clients_who_came_first_with_it() {
    let mut dhcp = server();
    assert_eq!(lease_as(&mut dhcp, 1, 0, "printer").as_deref(), Some("printer"));
    assert_eq!(lease_as(&mut dhcp, 2, 1, "Printer"), None);
    assert_eq!(lease_as(&mut dhcp, 1, 1800, "printer").as_deref(), Some("printer"), "it renews");
    assert_eq!(lease_as(&mut dhcp, 2, 3600, "printer"), None, "the first is bound still");
    assert_eq!(lease_as(&mut dhcp, 2, 5400, "printer").as_deref(), Some("printer"), "it is not any more");
    // Of two that wait at once it is the first to be answered.
    let mut dhcp = server();
    let options = [DhcpOption { kind: 12, data: b"printer" }];
    for (n, wanted) in [(1, ip(50)), (2, ip(52))] {
        let asks = message(n, DhcpMessageType::Request, |repr| {
            (repr.requested_ip, repr.additional_options) = (Some(wanted), &options);
        });
        assert_eq!(at_once(&mut dhcp, n, 0, &asks), Some(Next::Ask(wanted)));
    }
    assert_eq!(silence(&mut dhcp, at(1)).len(), 2);
    let names: Vec<_> = dhcp.leases(at(1)).into_iter().map(|row| row.name).collect();
    assert_eq!(names, [Some("printer".to_owned()), None]);
}

fn is_offer_of(next: Option<&Next>, address: Ipv4Addr) -> bool {
    matches!(next, Some(Next::Say(reply)) if read(reply) == (DhcpMessageType::Offer, address))
}

#[test]
fn rfc_2131_3_1_an_address_is_asked_for_before_it_is_promised() {
    let mut dhcp = server();
    let asks = message(1, DhcpMessageType::Discover, |repr| repr.requested_ip = Some(ip(52)));
    assert_eq!(at_once(&mut dhcp, 1, 0, &asks), Some(Next::Ask(ip(52))));
    // It asks again meanwhile: it waits no longer for that, and is answered once.
    assert_eq!(at_once(&mut dhcp, 1, 0, &asks), Some(Next::Wait));
    assert_eq!(dhcp.next_due(), Some(at(0) + Duration::from_millis(500)));
    assert_eq!(silence(&mut dhcp, at(0) + Duration::from_millis(499)), []);
    assert_eq!((dhcp.counts().offers, dhcp.leases(at(0))), (0, vec![]));
    // Whom it was given to says that it has it.
    assert_eq!(heard(&mut dhcp, ip(52), 1, 0), None);
    let told = silence(&mut dhcp, at(0) + Duration::from_millis(500));
    assert!(told.len() == 1 && is_offer_of(told.first(), ip(52)), "{told:?}");
    assert_eq!(dhcp.next_due(), None);
    // What is promised is promised: nobody is asked until that is over.
    assert!(is_offer_of(at_once(&mut dhcp, 1, 30, &asks).as_ref(), ip(52)));
    assert_eq!(take(&mut dhcp, 1, 31, ip(52)), Some((DhcpMessageType::Ack, ip(52))));
    assert!(is_offer_of(at_once(&mut dhcp, 1, 3000, &asks).as_ref(), ip(52)));
    assert_eq!(at_once(&mut dhcp, 1, 10_000, &asks), Some(Next::Ask(ip(52))));
    // What is stated is its host's, whoever claims it.
    let asks = message(7, DhcpMessageType::Discover, |_| {});
    assert!(is_offer_of(at_once(&mut dhcp, 7, 0, &asks).as_ref(), ip(51)));
    // Another lab gives other addresses.
    dhcp.adopt("test", world(Said4 { last: ip(51), ..said() }).routing(), &[], &std::iter::empty());
    assert_eq!(dhcp.next_due(), None);
}

#[test]
fn an_address_that_somebody_answers_for_is_not_offered_for_a_while() {
    let mut dhcp = server();
    let asks = message(1, DhcpMessageType::Discover, |repr| repr.requested_ip = Some(ip(52)));
    assert_eq!(at_once(&mut dhcp, 1, 0, &asks), Some(Next::Ask(ip(52))));
    assert_eq!(heard(&mut dhcp, ip(52), 9, 0), Some(Next::Ask(ip(50))), "then another");
    assert_eq!(heard(&mut dhcp, ip(52), 9, 0), None, "nobody waits for it");
    assert!(is_offer_of(silence(&mut dhcp, at(1)).first(), ip(50)));
    let row = dhcp.leases(at(1)).into_iter().find(|row| row.address == ip(52)).expect("it is shown");
    assert_eq!((row.mac, row.state, dhcp.counts().conflicts), (mac(9), LeaseState::InUse, 1));
    let discover = message(2, DhcpMessageType::Discover, |_| {});
    assert_eq!((at_once(&mut dhcp, 2, 2, &discover), dhcp.pools(at(2))[0].exhausted), (None, 1));
    assert_eq!(at_once(&mut dhcp, 2, 601, &discover), Some(Next::Ask(ip(50))), "its offer is over");
    assert_eq!(at_once(&mut dhcp, 3, 601, &asks_of(3)), Some(Next::Ask(ip(52))), "another's is looked at");
    // Who has a lease keeps it, whatever else it has.
    let mut dhcp = server();
    let one = lease(&mut dhcp, 1, 0);
    let other = if one == ip(50) { ip(52) } else { ip(50) };
    assert_eq!(at_once(&mut dhcp, 2, 1, &asks_of(2)), Some(Next::Ask(other)));
    assert_eq!((heard(&mut dhcp, other, 1, 1), dhcp.pools(at(1))[0].exhausted), (None, 1));
    let bound: Vec<_> = dhcp.leases(at(1)).into_iter().filter(|row| row.state == LeaseState::Bound).collect();
    assert_eq!((bound.len(), bound[0].address, bound[0].mac), (1, one, mac(1)));
}

#[test]
fn a_client_that_comes_again_with_an_address_that_another_has_is_refused() {
    let mut dhcp = server();
    let again = |n| message(n, DhcpMessageType::Request, |repr| repr.requested_ip = Some(ip(52)));
    assert_eq!(at_once(&mut dhcp, 1, 0, &again(1)), Some(Next::Ask(ip(52))));
    let Some(Next::Say(reply)) = heard(&mut dhcp, ip(52), 9, 0) else { panic!("it is told") };
    assert_eq!(read(&reply), (DhcpMessageType::Nak, NOBODY));
    // As with one that another client waits for.
    assert_eq!(at_once(&mut dhcp, 2, 0, &asks_of(2)), Some(Next::Ask(ip(50))));
    let asks = message(1, DhcpMessageType::Request, |repr| repr.requested_ip = Some(ip(50)));
    let next = at_once(&mut dhcp, 1, 0, &asks);
    assert!(matches!(next, Some(Next::Say(reply)) if read(&reply).0 == DhcpMessageType::Nak));
    // Who renews uses it already, and is answered at once.
    let renew = message(1, DhcpMessageType::Request, |repr| repr.client_ip = ip(50));
    let next = at_once(&mut dhcp, 1, 0, &renew);
    assert!(matches!(next, Some(Next::Say(reply)) if read(&reply) == (DhcpMessageType::Ack, ip(50))));
}

#[test]
fn who_answers_for_an_address_may_have_it_and_nobody_else() {
    // A client that has one which this server does not know of: it gave it in another life, or for less time.
    let renew = |n| message(n, DhcpMessageType::Request, |repr| repr.client_ip = ip(52));
    let wish = message(1, DhcpMessageType::Discover, |repr| repr.requested_ip = Some(ip(52)));
    for asks in [renew(9), asks_of(9)] {
        let mut dhcp = server();
        assert_eq!(at_once(&mut dhcp, 1, 0, &wish), Some(Next::Ask(ip(52))));
        assert_eq!(heard(&mut dhcp, ip(52), 9, 0), Some(Next::Ask(ip(50))));
        let refused = message(2, DhcpMessageType::Request, |repr| repr.requested_ip = Some(ip(52)));
        let reply = ask(&mut dhcp, 2, 1, &refused).expect("it is told");
        assert_eq!(read(&reply).0, DhcpMessageType::Nak);
        let Some(Next::Say(reply)) = at_once(&mut dhcp, 9, 1, &asks) else { panic!("nobody need be asked") };
        assert_eq!(read(&reply).1, ip(52));
    }
}

#[test]
fn who_renews_while_another_waits_for_its_address_keeps_it_whoever_else_speaks_for_it() {
    let mut dhcp = server();
    let wish = message(1, DhcpMessageType::Discover, |repr| repr.requested_ip = Some(ip(52)));
    assert_eq!(at_once(&mut dhcp, 1, 0, &wish), Some(Next::Ask(ip(52))));
    let renew = message(2, DhcpMessageType::Request, |repr| repr.client_ip = ip(52));
    let acknowledged =
        |next| matches!(next, Some(Next::Say(reply)) if read(&reply) == (DhcpMessageType::Ack, ip(52)));
    assert!(acknowledged(at_once(&mut dhcp, 2, 0, &renew)));
    assert_eq!(heard(&mut dhcp, ip(52), 9, 0), Some(Next::Ask(ip(50))), "another one for who waited");
    assert!(acknowledged(at_once(&mut dhcp, 2, 1, &renew)));
}

/// What a client says that wants any address.
fn asks_of(n: u8) -> Vec<u8> {
    message(n, DhcpMessageType::Discover, |_| {})
}

#[test]
fn clients_that_wait_are_as_many_as_may_and_each_for_an_address_of_its_own() {
    let mut dhcp = serving(Said4 { first: ip(2), last: ip(250), ..said() });
    let next: Vec<_> = (1..=200).map(|n| at_once(&mut dhcp, n, 0, &asks_of(n))).collect();
    let asked: BTreeSet<_> = next
        .iter()
        .filter_map(|next| if let Some(Next::Ask(address)) = next { Some(*address) } else { None })
        .collect();
    // Two of the clients have theirs stated, or none that may be.
    assert_eq!((asked.len(), next.iter().filter(|next| next.is_none()).count()), (probes::WAITING, 71));
    assert_eq!(silence(&mut dhcp, at(1)).len(), probes::WAITING);
    assert_eq!((dhcp.counts().ignored, dhcp.counts().offers), (71, probes::WAITING as u64 + 1));
    // Who was promised one is no stranger, though others wait: 2, who waited, and 7, whose address is stated.
    for n in 100..=240 {
        at_once(&mut dhcp, n, 1, &asks_of(n));
    }
    assert!(matches!(at_once(&mut dhcp, 2, 1, &asks_of(2)), Some(Next::Say(_))));
    assert!(matches!(at_once(&mut dhcp, 7, 1, &asks_of(7)), Some(Next::Say(_))));
    // One that finds all in use is told to try again.
    let mut dhcp = serving(Said4 { first: ip(2), last: ip(250), ..said() });
    let mut next = at_once(&mut dhcp, 1, 0, &asks_of(1));
    let mut asked = 0;
    while let Some(Next::Ask(address)) = next {
        asked += 1;
        next = heard(&mut dhcp, address, 9, 0);
    }
    assert_eq!((asked, next, dhcp.counts().conflicts, dhcp.next_due()), (4, None, 4, None));
}

proptest! {
    /// Whatever clients say, in whatever order: no two have one address, nobody has what is not his, and memory is bounded.
    #[test]
    fn no_two_clients_have_one_address(
        steps in prop::collection::vec((1u8..9, 0u8..6, 48u8..56, 0u64..2000, any::<bool>(), 0u8..4), 1..200),
    ) {
        let mut dhcp = server();
        let mut now = 0;
        let mut has: BTreeMap<Ipv4Addr, (u8, u64)> = BTreeMap::new();
        for (n, kind, wish, later, names_server, then) in steps {
            now += later;
            let kind = [DhcpMessageType::Discover, DhcpMessageType::Request, DhcpMessageType::Request,
                DhcpMessageType::Decline, DhcpMessageType::Release, DhcpMessageType::Inform][usize::from(kind)];
            // Two names for all.
            let name = ["one", "two"][usize::from(then % 2)];
            let options = [DhcpOption { kind: option::HOST_NAME, data: name.as_bytes() }];
            let bytes = message(n, kind, |repr| {
                repr.additional_options = &options;
                repr.requested_ip = Some(ip(wish));
                repr.server_identifier = names_server.then_some(OWN);
                if kind == DhcpMessageType::Release {
                    repr.client_ip = ip(wish);
                }
            });
            let mut next: Vec<_> = at_once(&mut dhcp, n, now, &bytes).into_iter().collect();
            let given_up = matches!(kind, DhcpMessageType::Release | DhcpMessageType::Decline);
            if given_up && has.get(&ip(wish)).is_some_and(|(owner, _)| *owner == n) {
                has.remove(&ip(wish));
            }
            // Somebody answers, nobody does, or others speak meanwhile.
            match (then, next.first()) {
                (0, Some(Next::Ask(address))) => next.extend(heard(&mut dhcp, *address, 9, now)),
                (0 | 1, _) => next.extend(silence(&mut dhcp, at(now) + probes::WAIT)),
                _ => {}
            }
            for reply in next {
                let Next::Say(reply) = reply else { continue };
                let (kind, address) = read(&reply);
                let n = DhcpPacket::new_unchecked(&reply.payload[..]).client_hardware_address().0[5];
                if kind == DhcpMessageType::Ack && !address.is_unspecified() {
                    let before = has.insert(address, (n, now + u64::from(LEASE)));
                    prop_assert!(before.is_none_or(|(owner, until)| owner == n || until <= now), "{address} twice");
                    has.retain(|other, (owner, _)| *owner != n || *other == address);
                }
                if !address.is_unspecified() {
                    prop_assert!((50..=52).contains(&address.octets()[3]));
                    prop_assert_eq!(address == ip(51), n == 7);
                }
            }
            // What is counted as free is what somebody who comes now may get.
            let free = dhcp.pools(at(now))[0].free;
            let waited_for = probes::waited_for(&dhcp.probes, vlan());
            let given = (dhcp.servers[&vlan()].pool).choose(mac(200), None, at(now), &waited_for, |_| true);
            let may = |n: &u8| {
                !waited_for.contains(&ip(*n)) && dhcp.servers[&vlan()].pool.can_have(mac(200), ip(*n), at(now))
            };
            prop_assert_eq!((free, given.is_some()), ((50..54).filter(may).count() as u64, free > 0));
            // A name is one client's at a time, and found by whoever asks for it.
            for name in ["one", "two", "web1", "phone"] {
                let rows = dhcp.leases(at(now)).into_iter().filter(|row| row.state == LeaseState::Bound);
                let named = rows.filter(|row| row.name.as_deref() == Some(name));
                let named: Vec<IpAddr> = named.map(|row| row.address.into()).collect();
                prop_assert!(named.len() <= 1, "{name}: {named:?}");
                let clients = dhcp.named(at(now));
                prop_assert_eq!(clients.addresses(vlan(), name), &named[..]);
                for address in named {
                    prop_assert_eq!(clients.name(vlan(), address), Some(name));
                }
            }
            let held: usize = dhcp.servers.values().map(|server| server.pool.held()).sum();
            prop_assert!(held <= 4, "{held}");
        }
    }

    #[test]
    fn any_bytes_are_answered_or_ignored(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut dhcp = server();
        ask(&mut dhcp, 1, 0, &bytes);
        let mut near = message(1, DhcpMessageType::Request, |repr| repr.requested_ip = Some(ip(50)));
        near.extend(&bytes);
        for (at, byte) in flips {
            let at = at.index(near.len());
            near[at] = byte;
        }
        if let Some(reply) = ask(&mut dhcp, 1, 0, &near) {
            prop_assert!((300..=548).contains(&reply.payload.len()));
        }
    }
}
