//! What the words of gateways and routers mean: to the switch, and to the nodes behind it.

use ipnet::IpNet;
use proptest::prelude::*;
use std::path::Path;
use topology::{Report, codes::Code, load, mac_for, plan::Plan};
use vswitch_core::{
    description::{Boot, Dhcp, Link, Port, Routing, Via},
    vlan::VlanId,
    world::World,
};

fn try_plan(text: &str) -> Result<Plan, Report> {
    load(text, "some.vnet.yaml", Path::new("/lab")).map(|loaded| loaded.plan)
}

fn plan(text: &str) -> Plan {
    let plan = try_plan(text).unwrap_or_else(|report| panic!("{report}"));
    World::compile(&plan.description).unwrap_or_else(|error| panic!("{error}"));
    plan
}

fn routing(plan: &Plan) -> &Routing {
    plan.description.routing.as_ref().expect("routers")
}

fn nets(said: &[&str]) -> Vec<IpNet> {
    said.iter().map(|net| net.parse().expect("a network")).collect()
}

/// The lab with these routes of router `default`.
fn with_routes(routes: &str) -> String {
    format!(
        "version: 1\nvlans: {{ a: {{ id: 10, gateway: [10.0.10.1/24, \"2001:db8:10::1/64\"] }} }}\n\
         routers: {{ default: {{ routes: [{routes}] }} }}\nswitches: {{ sw: {{}} }}\nnodes:\n  \
         n: {{ kind: station, addresses: [10.0.10.7/24] }}\nlinks: [{{ endpoints: [n, sw], vlan: {{ access: a }} }}]\n"
    )
}

const TENANTS: &str = "version: 1
name: tenants
vlans:
  red: { id: 30, gateway: 10.0.10.1/24, router: red }
  users: { id: 20, gateway: [10.0.10.1/24, 10.0.11.1/24, \"2001:db8:10::1/64\", \"fe80::1/64\"] }
  servers: { id: 10, gateway: [10.0.20.1/24, \"fe80::1/64\"] }
  quiet: { id: 40 }
  blue: { id: 50, gateway: 10.0.10.1/24, router: blue }
routers:
  red: {}
  blue: { routes: [{ to: default, via: 10.0.10.254 }] }
switches: { sw: {} }
nodes:
  pc: { kind: station, addresses: [10.0.11.7/24, 10.0.10.7/24, \"2001:db8:10::7/64\", \"fe80::7/64\"] }
  tenant: { kind: station, addresses: [10.0.10.7/24] }
  other: { kind: vhost-user, addresses: [10.0.10.7/24] }
  both:
    kind: station
    interfaces: { eth0: { addresses: [192.168.0.7/24] }, eth1: { addresses: [10.0.20.8/24] }, eth2: { addresses: [10.0.11.8/24, \"2001:db8:10::8/64\"] } }
  wide: { kind: station, addresses: [10.0.10.9/24] }
  tagged: { kind: station, addresses: [10.0.10.10/24] }
  silent: { kind: station }
links:
  - { endpoints: [pc, sw], vlan: { access: users } }
  - { endpoints: [tenant, sw], vlan: { access: red } }
  - { endpoints: [other, sw], vlan: { access: blue } }
  - { endpoints: [\"both:eth0\", sw], vlan: { access: quiet } }
  - { endpoints: [\"both:eth1\", sw], vlan: { access: servers } }
  - { endpoints: [\"both:eth2\", sw], vlan: { access: users } }
  - { endpoints: [wide, sw], vlan: { trunk: [servers], native: users } }
  - { endpoints: [tagged, sw], vlan: { trunk: [users, servers] } }
  - { endpoints: [silent, sw], vlan: { access: users } }
";

#[test]
fn routers_come_by_name_behind_the_default_with_their_gateways_in_file_order() {
    let plan = plan(TENANTS);
    let routing = routing(&plan);
    let told: Vec<_> = routing
        .routers
        .iter()
        .map(|router| {
            let gateways = router.gateways.iter().map(|gateway| (gateway.vlan.number(), gateway.origin.line));
            (router.name.as_str(), gateways.collect::<Vec<_>>(), router.routes.len())
        })
        .collect();
    assert_eq!(
        told,
        [("default", vec![(20, 5), (10, 6)], 0), ("blue", vec![(50, 8)], 1), ("red", vec![(30, 4)], 0)]
    );
    let addresses = &routing.routers[0].gateways[0].addresses;
    assert_eq!(*addresses, nets(&["10.0.10.1/24", "10.0.11.1/24", "2001:db8:10::1/64", "fe80::1/64"]));
}

#[test]
fn routers_have_a_port_of_their_own_behind_those_of_all_nodes() {
    let plan = plan(TENANTS);
    let ports: Vec<&Port> = plan.description.ports.iter().flatten().collect();
    let own = ports.last().expect("a port");
    let interfaces: usize = plan.nodes.iter().map(|node| node.interfaces.len()).sum();
    assert_eq!((ports.len(), usize::from(own.id.index())), (interfaces + 1, interfaces));
    assert_eq!((own.id, &own.link, own.up), (routing(&plan).port, &Link::Routers, true));
    assert_eq!(own.name(), "@routers:vlans");
    assert_eq!(own.mac, Some(mac_for("tenants", "@routers", "vlans")));
    assert_eq!((own.mtu, own.queues, own.firewall.is_none(), own.link_origin), (None, 1, true, None));
    assert_eq!(own.origin.line, 4);
    assert!(plan.nodes.iter().all(|node| node.name != own.node));
}

/// A lab without a gateway is as it was before there were any.
#[test]
fn without_a_gateway_there_are_no_routers() {
    let text = with_routes("").replace(", gateway: [10.0.10.1/24, \"2001:db8:10::1/64\"]", "");
    let plan = plan(&text);
    assert_eq!(plan.description.routing, None);
    assert!(plan.description.ports.iter().flatten().all(|port| port.link != Link::Routers));
}

#[test]
fn hosts_are_the_interfaces_that_speak_untagged_with_stated_addresses() {
    let plan = plan(TENANTS);
    let hosts: Vec<_> = routing(&plan)
        .hosts
        .iter()
        .map(|host| (host.name.as_str(), host.vlan.number(), host.addresses.len(), host.mac.is_some()))
        .collect();
    assert_eq!(
        hosts,
        [
            ("pc", 20, 4, true),
            ("tenant", 30, 1, true),
            ("other", 50, 1, false),
            ("both", 40, 1, true),
            ("both", 10, 1, true),
            ("both", 20, 2, true),
            ("wide", 20, 1, true)
        ]
    );
}

#[test]
fn a_nodes_gateway_of_each_family_is_that_of_its_first_interface_that_has_one() {
    let plan = plan(TENANTS);
    let gateways = |node: &str| -> Vec<Vec<String>> {
        let node = plan.nodes.iter().find(|found| found.name == node).expect("a node");
        let of = |interface: &topology::plan::Interface| {
            interface.gateways.iter().map(ToString::to_string).collect()
        };
        node.interfaces.iter().map(of).collect()
    };
    assert_eq!(gateways("pc"), [["10.0.11.1", "2001:db8:10::1"]]);
    assert_eq!(gateways("both"), [vec![], vec!["10.0.20.1"], vec!["2001:db8:10::1"]]);
    assert_eq!(gateways("wide"), [["10.0.10.1"]]);
    assert_eq!(gateways("tagged"), [Vec::<String>::new()]);
    assert_eq!(gateways("silent"), [Vec::<String>::new()]);
}

#[test]
fn a_route_says_what_it_says() {
    let routers = |via: &[&str]| Via::Routers(via.iter().map(|via| via.parse().expect("one")).collect());
    for (said, to, via) in [
        ("{ to: default, via: 10.0.10.254 }", "0.0.0.0/0", routers(&["10.0.10.254"])),
        ("{ to: default, via: \"2001:db8:10::fe\" }", "::/0", routers(&["2001:db8:10::fe"])),
        (
            "{ to: 10.0.0.0/8, via: [10.0.10.3, 10.0.10.2] }",
            "10.0.0.0/8",
            routers(&["10.0.10.3", "10.0.10.2"]),
        ),
        ("{ to: 10.9.0.1, via: 10.0.10.3 }", "10.9.0.1/32", routers(&["10.0.10.3"])),
        ("{ to: \"::/0\", via: blackhole }", "::/0", Via::Blackhole),
        ("{ to: 10.0.10.128/25, via: blackhole }", "10.0.10.128/25", Via::Blackhole),
    ] {
        let plan = plan(&with_routes(said));
        let route = &routing(&plan).routers[0].routes[0];
        assert_eq!((route.to, &route.via), (to.parse().expect("a network"), &via), "{said}");
        assert_eq!((route.origin.line, route.origin.column), (3, 32), "{said}");
    }
}

#[test]
fn what_is_wrong_with_a_route_is_told_once() {
    for (said, told) in [
        ("{ to: default, via: 10.0.20.254 }", Code::NextHop),
        ("{ to: default, via: 10.0.10.1 }", Code::NextHop),
        ("{ to: default, via: 10.0.10.0 }", Code::BadAddress),
        ("{ to: default, via: blackhole }", Code::RouteForm),
        ("{ to: \"::/0\", via: 10.0.10.254 }", Code::RouteForm),
        ("{ to: 10.0.0.1/8, via: 10.0.10.254 }", Code::HostBits),
        ("{ to: 10.0.0.0/8, via: 10.0.10.254/24 }", Code::Malformed),
        ("{ to: 10.0.10.0/24, via: 10.0.10.254 }", Code::RouteTwice),
        ("{ to: 10.0.0.0/8, next-hop: 10.0.10.254 }", Code::UnknownKey),
    ] {
        let report = try_plan(&with_routes(said)).expect_err("it is wrong");
        let codes: Vec<_> = report.errors.iter().map(|error| error.code).collect();
        assert_eq!(codes, [told], "{said}");
    }
}

/// Networks that lie near each other, so that some overlap.
fn network() -> impl Strategy<Value = IpNet> {
    (0u8..2, 0u8..4, 14u8..=24).prop_map(|(a, b, length)| {
        let address = std::net::Ipv4Addr::new(10, a, b << 4, 1);
        IpNet::new(address.into(), length).expect("a prefix length")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two networks of one router that have an address in common are told, others are not; and each gateway is its router's.
    #[test]
    fn networks_of_one_router_never_overlap(said in prop::collection::vec((network(), any::<bool>()), 1..6)) {
        let vlans: String = said
            .iter()
            .enumerate()
            .map(|(at, (net, other))| {
                let router = if *other { ", router: other" } else { "" };
                format!("  v{at}: {{ id: {}, gateway: {net}{router} }}\n", at + 10)
            })
            .collect();
        let text = format!(
            "version: 1\nvlans:\n{vlans}routers: {{ other: {{}} }}\nswitches: {{ sw: {{}} }}\nnodes: {{ n: {{ kind: station }} }}\nlinks: [[n, sw]]\n"
        );
        let overlap = said.iter().enumerate().any(|(at, (one, of))| {
            said[..at].iter().any(|(two, beside)| of == beside && (one.contains(&two.network()) || two.contains(&one.network())))
        });
        match try_plan(&text) {
            Err(report) => {
                prop_assert!(overlap, "{report}");
                prop_assert!(report.errors.iter().all(|error| error.code == Code::NetworksOverlap), "{report}");
            }
            Ok(plan) => {
                prop_assert!(!overlap);
                let world = World::compile(&plan.description).expect("a good file");
                let routing = world.routing().expect("routers");
                for (at, (net, other)) in said.iter().enumerate() {
                    let vlan = VlanId::new(at as u16 + 10).expect("an id");
                    let interface = routing.interface(vlan).expect("a gateway");
                    prop_assert!(interface.has(net.addr()));
                    prop_assert_eq!(&routing.router(interface).name, if *other { "other" } else { "default" });
                }
            }
        }
    }
}

/// What the gateway of VLAN `a` gives, with these words.
fn given(words: &str) -> Option<Dhcp> {
    let text = format!(
        "version: 1\nvlans: {{ a: {{ id: 10, gateway: [10.0.10.1/24, 10.0.11.1/24], dhcp: {words} }} }}\nswitches: {{ sw: {{}} }}\nnodes: {{ n: \
         {{ kind: station, addresses: [10.0.10.7/24] }} }}\nlinks: [{{ endpoints: [n, sw], vlan: {{ access: a }} }}]\n"
    );
    routing(&plan(&text)).routers[0].gateways[0].dhcp.clone()
}

#[test]
fn what_clients_are_told_is_as_it_is_said() {
    let usual = Dhcp {
        first: [10, 0, 10, 1].into(),
        last: [10, 0, 10, 254].into(),
        lease_secs: 12 * 3600,
        dns: vec![],
        domain: None,
        search: vec![],
        mtu: None,
        routes: vec![],
        boot: None,
    };
    assert_eq!(given("false"), None);
    assert_eq!(given("true"), Some(usual.clone()));
    assert_eq!(given("{}"), Some(usual.clone()));
    let words = "{ range: 10.0.11.50-10.0.11.99, lease: 1h, dns: [10.0.11.1, 9.9.9.9], domain: Lab.Example, search: [lab.example, example], mtu: 1400, \
                 routes: [{ to: 192.0.2.0/24, via: 10.0.11.9 }, { to: 198.51.100.7, via: 10.0.11.1 }] }";
    let told = Dhcp {
        first: [10, 0, 11, 50].into(),
        last: [10, 0, 11, 99].into(),
        lease_secs: 3600,
        dns: vec![[10, 0, 11, 1].into(), [9, 9, 9, 9].into()],
        domain: Some("lab.example".into()),
        search: vec!["lab.example".into(), "example".into()],
        mtu: Some(1400),
        routes: vec![
            ("192.0.2.0/24".parse().expect("a network"), [10, 0, 11, 9].into()),
            ("198.51.100.7/32".parse().expect("a network"), [10, 0, 11, 1].into()),
        ],
        boot: None,
    };
    assert_eq!(given(words), Some(told));
    assert_eq!(given("{ search: example }"), Some(Dhcp { search: vec!["example".into()], ..usual }));
    // An address, a node, or a URL that says it.
    let boot =
        |words: &str| given(&format!("{{ boot: {words} }}")).expect("it gives").boot.expect("and boots");
    let named = |server: [u8; 4]| Boot { server: Some(server.into()), file: "pxelinux.0".into() };
    assert_eq!(boot("{ server: 192.0.2.7, file: pxelinux.0 }"), named([192, 0, 2, 7]));
    assert_eq!(boot("{ server: n, file: pxelinux.0 }"), named([10, 0, 10, 7]));
    assert_eq!(boot("{ server: \"n:eth0\", file: pxelinux.0 }"), named([10, 0, 10, 7]));
    let url = "http://boot.example/x.efi";
    assert_eq!(boot(&format!("{{ file: \"{url}\" }}")), Boot { server: None, file: url.into() });
    // Short names are the lab's also where another domain is said.
    let search = |words: &str| given(words).expect("it gives").search;
    assert_eq!(search("{ domain: corp.example }"), ["corp.example", "some.internal"]);
    assert_eq!(search("{ domain: some.internal }"), ["some.internal"]);
    let longest = format!("{}.{}", "d".repeat(37), "e".repeat(38));
    assert_eq!(
        search(&format!("{{ domain: {longest} }}"))[0],
        longest,
        "200 bytes with that of a lab of 31 letters"
    );
    assert_eq!(search("{ domain: corp.example, search: example }"), ["example"]);
}

#[test]
fn only_a_gateway_can_answer_for_neighbours() {
    let file = |gateway: &str| {
        format!(
            "version: 1\nvlans: {{ a: {{ id: 10, {gateway} neigh-suppress: true }} }}\nswitches: {{ sw: {{}} }}\nnodes: {{ n: {{ kind: station }} }}\n\
             links: [{{ endpoints: [n, sw], vlan: {{ access: a }} }}]\n"
        )
    };
    assert!(routing(&plan(&file("gateway: 10.0.10.1/24,"))).routers[0].gateways[0].neigh_suppress);
    let report = try_plan(&file("")).expect_err("nobody would answer");
    assert_eq!(report.errors[0].code, Code::NeedsKey, "{report}");
}

#[test]
fn a_lab_that_is_called_otherwise_has_that_name_in_its_domain_and_its_mac_addresses() {
    let text = with_routes("");
    let named =
        |name| topology::load_as(name, &text, "lab.vnet.yaml", Path::new("/")).expect("it is well said").plan;
    let (own, other) = (named(None), named(Some("other")));
    assert_eq!((own.description.lab == "other", &other.description.lab[..]), (false, "other"));
    let macs =
        |plan: &Plan| -> Vec<_> { plan.description.ports.iter().flatten().map(|port| port.mac).collect() };
    let (own, other) = (macs(&own), macs(&other));
    assert!(own.iter().flatten().count() > 0 && own.iter().all(|mac| mac.is_none() || !other.contains(mac)));
}
