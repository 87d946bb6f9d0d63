//! Questions of resolvers; the library writes them and reads the answers.

use super::*;
use crate::routers::tests::lab::{gateway, vlan, world};
use proptest::prelude::*;
use vswitch_core::description::Router;

fn host(vlan_id: u16, name: &str, addresses: &[&str]) -> Host {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Host { vlan: vlan(vlan_id), name: name.into(), mac: None, addresses }
}

/// VLANs 10 and 20 of one router, and 30 of another with the same addresses as 10.
fn dns() -> Dns {
    let router = |name: &str, gateways| Router {
        name: name.into(),
        gateways,
        routes: vec![],
        nat: Vec::new(),
        nameservers: Vec::new(),
    };
    let one = vec![gateway(10, &["10.0.10.1/24", "fd10::1/64"]), gateway(20, &["10.0.20.1/24"])];
    let world = world(vec![router("default", one), router("red", vec![gateway(30, &["10.0.10.1/24"])])]);
    let hosts = [
        host(10, "pc1", &["10.0.10.7/24", "fd10::7/64"]),
        host(20, "web1", &["10.0.20.10/24"]),
        host(30, "pc1", &["10.0.10.9/24"]),
    ];
    let mut dns = Dns::default();
    dns.adopt("office", world.routing(), &hosts, |id| world.vlan_name(id).map(str::to_owned));
    dns
}

/// Names of clients of VLAN 10, and their addresses.
struct Clients(Vec<(&'static str, IpAddr)>);

impl Leased for Clients {
    fn addresses(&self, of: VlanId, name: &str) -> Vec<IpAddr> {
        let mine = self.0.iter().filter(|(own, _)| of == vlan(10) && *own == name);
        mine.map(|(_, address)| *address).collect()
    }

    fn name(&self, of: VlanId, address: IpAddr) -> Option<&str> {
        self.0.iter().find(|(_, own)| of == vlan(10) && *own == address).map(|(name, _)| *name)
    }
}

fn nobody() -> Clients {
    Clients(vec![])
}

fn leased() -> Clients {
    let leased = |name, n| (name, IpAddr::from([10, 0, 10, n]));
    Clients(vec![leased("laptop", 50), leased("web1", 51)])
}

fn query(name: &str, kind: QTYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(Name::new_unchecked(name), kind, CLASS::IN.into(), false));
    packet.build_bytes_vec().expect("a question")
}

/// What is said to a question that is answered here.
fn here(said: Option<Said>) -> Option<Vec<u8>> {
    said.map(|said| match said {
        Said::Here(bytes) => bytes,
        Said::Elsewhere => panic!("nobody else is there to be asked"),
    })
}

/// The code, and what was answered, in words.
fn ask(dns: &mut Dns, vlan_id: u16, name: &str, kind: TYPE) -> (RCODE, Vec<String>) {
    let said = dns.answer(vlan(vlan_id), &query(name, kind.into()), &leased());
    let bytes = here(said).expect("an answer");
    let reply = Packet::parse(&bytes).expect("a message");
    assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED) && reply.id() == 7);
    assert!(!reply.has_flags(PacketFlag::RECURSION_AVAILABLE), "it asks nobody else");
    assert_eq!(reply.questions[0].qname.to_string(), name, "as it was asked");
    let words = reply.answers.iter().map(|record| match &record.rdata {
        RData::A(A { address }) => std::net::Ipv4Addr::from_bits(*address).to_string(),
        RData::AAAA(AAAA { address }) => std::net::Ipv6Addr::from_bits(*address).to_string(),
        RData::PTR(PTR(name)) => name.to_string(),
        RData::SOA(SOA { mname, .. }) => format!("from {mname}"),
        other => panic!("{other:?}"),
    });
    let words: Vec<_> = words.collect();
    let is_of_zone = name.to_ascii_lowercase().ends_with("office.internal");
    let negative = words.is_empty() && is_of_zone && reply.rcode() != RCODE::Refused;
    assert_eq!(
        reply.name_servers.len(),
        usize::from(negative),
        "RFC 2308: how long it may be kept that there is none, from the zone above the name"
    );
    (reply.rcode(), words)
}

fn found(words: &[&str]) -> (RCODE, Vec<String>) {
    (RCODE::NoError, words.iter().map(ToString::to_string).collect())
}

#[test]
fn nodes_have_addresses_of_both_versions_in_their_routers_networks() {
    let mut dns = dns();
    for name in ["web1", "WEB1", "web1.office.internal", "Web1.Office.Internal"] {
        assert_eq!(ask(&mut dns, 10, name, TYPE::A), found(&["10.0.20.10"]));
    }
    assert_eq!(ask(&mut dns, 20, "pc1", TYPE::AAAA), found(&["fd10::7"]));
    assert_eq!(ask(&mut dns, 20, "web1", TYPE::AAAA), found(&[]), "it is there, without that");
    assert_eq!(ask(&mut dns, 20, "web1", TYPE::MX), found(&[]));
    assert_eq!(ask(&mut dns, 30, "pc1", TYPE::A), found(&["10.0.10.9"]), "another tenant's");
    assert_eq!(ask(&mut dns, 30, "web1", TYPE::A), (RCODE::NameError, vec![]));
    assert_eq!(ask(&mut dns, 20, "gateway.v10.office.internal", TYPE::A), found(&["10.0.10.1"]));
    assert_eq!(
        ask(&mut dns, 20, "v10.office.internal", TYPE::A),
        found(&[]),
        "a name is below it (RFC 8020)"
    );
    assert_eq!(ask(&mut dns, 20, "office.internal", TYPE::A), found(&[]));
    assert_eq!(ask(&mut dns, 20, "Office.internal", TYPE::SOA), found(&["from office.internal"]));
    assert_eq!(ask(&mut dns, 20, "web1.office.internal", TYPE::SOA), found(&[]));
}

#[test]
fn clients_that_were_given_an_address_have_the_name_that_they_gave_unless_the_file_has_it() {
    let mut dns = dns();
    assert_eq!(ask(&mut dns, 20, "laptop", TYPE::A), found(&["10.0.10.50"]));
    assert_eq!(ask(&mut dns, 20, "web1", TYPE::A), found(&["10.0.20.10"]));
    assert_eq!(ask(&mut dns, 30, "laptop", TYPE::A), (RCODE::NameError, vec![]));
    assert_eq!(ask(&mut dns, 20, "50.10.0.10.in-addr.arpa", TYPE::PTR), found(&["laptop.office.internal"]));
}

#[test]
fn addresses_have_names() {
    let mut dns = dns();
    assert_eq!(ask(&mut dns, 10, "10.20.0.10.in-addr.arpa", TYPE::PTR), found(&["web1.office.internal"]));
    assert_eq!(
        ask(&mut dns, 10, "1.10.0.10.in-addr.arpa", TYPE::PTR),
        found(&["gateway.v10.office.internal"])
    );
    let six = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.d.f.ip6.arpa";
    assert_eq!(ask(&mut dns, 10, six, TYPE::PTR), found(&["pc1.office.internal"]));
    assert_eq!(ask(&mut dns, 10, "99.10.0.10.in-addr.arpa", TYPE::PTR), (RCODE::NameError, vec![]));
    for elsewhere in
        ["8.8.8.8.in-addr.arpa", "10.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "300.0.0.10.in-addr.arpa"]
    {
        assert_eq!(ask(&mut dns, 10, elsewhere, TYPE::PTR), (RCODE::Refused, vec![]), "{elsewhere}");
    }
}

#[test]
fn what_is_not_of_the_lab_is_refused_and_what_is_not_there_is_said_to_be_absent() {
    let mut dns = dns();
    for name in ["example.com", "internal", "other.internal", "notoffice.internal"] {
        let expected = if name == "internal" { RCODE::NameError } else { RCODE::Refused };
        assert_eq!(ask(&mut dns, 10, name, TYPE::A), (expected, vec![]), "{name}");
    }
    for name in ["nobody", "nobody.office.internal", "a.web1.office.internal"] {
        assert_eq!(ask(&mut dns, 10, name, TYPE::A), (RCODE::NameError, vec![]), "{name}");
    }
    let Counts { answered, absent, refused, elsewhere, ignored } = dns.counts();
    assert_eq!((answered, absent, refused, elsewhere, ignored), (0, 4, 3, 0, 0));
}

#[test]
fn what_is_no_question_is_said_to_be_none_or_nothing_is_said() {
    let mut dns = dns();
    let mut code = |bytes: &[u8]| {
        let reply = here(dns.answer(vlan(10), bytes, &nobody()))?;
        Some(Packet::parse(&reply).expect("a message").rcode())
    };
    let sound = query("web1", TYPE::A.into());
    let with = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(code(&with(2, 0x81)), None, "an answer");
    assert_eq!(code(&with(2, 0x10)), Some(RCODE::NotImplemented), "server status");
    assert_eq!(code(&with(5, 0)), Some(RCODE::FormatError), "no question");
    assert_eq!(code(&sound[..20]), Some(RCODE::FormatError), "half a question");
    assert_eq!(code(&sound[..11]), None, "no header");
    let last = sound.len() - 1;
    assert_eq!(code(&with(last, 3)), Some(RCODE::Refused), "of class CHAOS");
    assert_eq!(dns.answer(vlan(77), &sound, &nobody()), None, "no gateway there");
}

#[test]
fn rfc_6891_who_takes_more_says_so_and_is_told_the_same() {
    let mut dns = dns();
    let mut packet = Packet::new_query(7);
    packet.questions.push(Question::new(
        Name::new_unchecked("web1"),
        TYPE::A.into(),
        CLASS::IN.into(),
        false,
    ));
    *packet.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: 4096, version: 0 });
    let said = dns.answer(vlan(10), &packet.build_bytes_vec().expect("one"), &nobody());
    let reply = here(said).expect("an answer");
    let reply = Packet::parse(&reply).expect("a message");
    assert_eq!(reply.opt().map(|opt| opt.udp_packet_size), Some(EXTENDED));
    // Who would take signatures (the DO bit, RFC 3225 §3) is told the same: there are none. Its last bytes are flags, and the length of no options.
    let mut bytes = packet.build_bytes_vec().expect("one");
    let at = bytes.len() - 4;
    bytes[at] = 0x80;
    let reply = here(dns.answer(vlan(10), &bytes, &nobody())).expect("an answer");
    let reply = Packet::parse(&reply).expect("a message");
    assert_eq!((reply.rcode(), reply.questions.len(), reply.answers.len()), (RCODE::NoError, 1, 1));
}

#[test]
fn what_does_not_fit_is_cut_and_says_so() {
    let mut dns = dns();
    let many = |count: u8| Clients((0..count).map(|n| ("crowd", IpAddr::from([10, 0, 10, n]))).collect());
    let question = query("crowd", TYPE::A.into());
    let bytes = here(dns.answer(vlan(10), &question, &many(100))).expect("an answer");
    let reply = Packet::parse(&bytes).expect("a message");
    assert!(bytes.len() <= PLAIN && reply.has_flags(PacketFlag::TRUNCATION) && reply.answers.is_empty());
    let bytes = here(dns.answer(vlan(10), &question, &many(20))).expect("an answer");
    assert_eq!(Packet::parse(&bytes).expect("a message").answers.len(), 20);
}

proptest! {
    #[test]
    fn any_bytes_are_answered_or_ignored(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut dns = dns();
        let mut near = query("web1.office.internal", QTYPE::ANY);
        for (at, byte) in flips {
            let at = at.index(near.len());
            near[at] = byte;
        }
        for bytes in [bytes, near] {
            if let Some(reply) = here(dns.answer(vlan(10), &bytes, &leased())) {
                prop_assert!(reply.len() <= usize::from(EXTENDED));
                prop_assert!(reply[2] & 0x80 != 0 && reply[..2] == bytes[..2]);
            }
        }
    }
}
