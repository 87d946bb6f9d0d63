//! Small labs said in a few words, and a bench to put frames into them.

use vswitch_core::{
    build::{self, Ethernet},
    clock::Instant,
    decide::{Copy, Fate, Switch, TagEdit},
    description::{self, Description, Link, Membership, Origin, Port, Trunk, Via, Vlan},
    drop_reason::DropReason,
    fdb::Fdb,
    firewall::{
        connections::{Config, Connections, Secret, Timeouts},
        policy::{GroupId, Rule, SecurityGroup},
    },
    head::{FrameView, HEAD_BYTES, LinkHeader},
    id::{Epoch, PortId, SwitchId},
    mac::MacAddr,
    route::Neighbours,
    trace::Recorder,
    vlan::{Tci, VlanId, VlanSet},
    world::World,
};

use ipnet::IpNet;
use std::net::IpAddr;

/// A VLAN's id.
pub(crate) fn vlan(number: u16) -> VlanId {
    VlanId::new(number).expect("tests use ids from 1 to 4094")
}

/// The `n`th station's address.
pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

/// An access port's membership.
pub(crate) fn access(number: u16) -> Membership {
    Membership::Access(vlan(number))
}

/// A trunk's membership.
pub(crate) fn trunk(numbers: &[u16], native: Option<u16>) -> Membership {
    Membership::Trunk { vlans: set(numbers), native: native.map(vlan) }
}

/// A set of VLANs.
pub(crate) fn set(numbers: &[u16]) -> VlanSet {
    numbers.iter().copied().map(vlan).collect()
}

/// A lab with VLANs users (10), servers (20) and guests (30). The first thing said is on line 1, the next on line 2, …
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) description: Description,
    line: u32,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let vlans = [(1, "default"), (10, "users"), (20, "servers"), (30, "guests")].map(|(id, name)| Vlan {
            id: vlan(id),
            name: name.into(),
            origin: None,
        });
        let description = Description {
            lab: "test".into(),
            file: "test.vnet.yaml".into(),
            epoch: Epoch::new(1),
            vlans: vlans.into(),
            switches: vec![],
            ports: vec![],
            groups: Vec::new(),
            trunks: vec![],
            routing: None,
        };
        Self { description, line: 0 }
    }

    fn next_line(&mut self) -> Origin {
        self.line += 1;
        Origin { line: self.line, column: 1 }
    }

    /// One more switch; it forgets after 300 seconds.
    pub(crate) fn switch(mut self, name: &str) -> Self {
        let origin = self.next_line();
        let id = SwitchId::new(self.description.switches.len() as u16);
        let switch = description::Switch { id, name: name.into(), mac_aging_secs: 300, origin };
        self.description.switches.push(switch);
        self
    }

    /// One more port on the `switch`th switch.
    pub(crate) fn port(self, node: &str, switch: u16, vlans: Membership) -> Self {
        self.linked(node, Link::Switch { switch: SwitchId::new(switch), vlans })
    }

    /// One more port, linked to this.
    pub(crate) fn linked(mut self, node: &str, link: Link) -> Self {
        let origin = self.next_line();
        self.description.ports.push(Some(Port {
            id: PortId::new(self.description.ports.len() as u16, 0),
            node: node.into(),
            interface: "eth0".into(),
            mac: None,
            mtu: None,
            queues: 1,
            firewall: None,
            limits: None,
            mac_limit: 1000,
            sealed_memory: false,
            way_out: false,
            up: true,
            link,
            origin,
            link_origin: Some(origin),
        }));
        self
    }

    /// One more security group.
    pub(crate) fn group(mut self, name: &str, rules: &[Rule]) -> Self {
        let origin = self.next_line();
        let rules = rules.iter().map(|rule| Rule { origin: self.next_line(), ..rule.clone() }).collect();
        self.description.groups.push(SecurityGroup { name: name.into(), rules, origin });
        self
    }

    /// The port that was said last has these groups, and is the `n`th station with the addresses 10.0.0.n and fd00::n.
    pub(crate) fn guarded(self, n: u8, groups: &[u16]) -> Self {
        let addresses = [IpAddr::from([10, 0, 0, n]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()])];
        let groups = groups.iter().copied().map(GroupId::new).collect();
        self.but(|port| {
            port.firewall = Some(description::Firewall {
                groups,
                addresses: addresses.into(),
                identity: Some(description::Identity {
                    mac: mac(n),
                    addresses: addresses.map(IpNet::from).into(),
                    others: vec![],
                }),
                dhcp_server: false,
                router: false,
                origin: port.origin,
            });
        })
    }

    /// The port that was said last has limits: none, but for what `change` says.
    pub(crate) fn limited(self, change: impl FnOnce(&mut description::Limits)) -> Self {
        self.but(|port| {
            let mut limits = no_limits(port.origin);
            change(&mut limits);
            port.limits = Some(limits);
        })
    }

    /// Changes the port that was said last.
    pub(crate) fn but(mut self, change: impl FnOnce(&mut Port)) -> Self {
        change(self.description.ports.last_mut().and_then(Option::as_mut).expect("a port was said"));
        self
    }

    /// The last port is that of routers, with the address of station 99: a `default` one, to which `say` adds.
    pub(crate) fn routed(self, say: impl FnOnce(&mut description::Routing)) -> Self {
        let port = PortId::new(self.description.ports.len() as u16, 0);
        let mut routing = description::Routing { port, routers: vec![], hosts: vec![], ssh_keys: vec![] };
        say(&mut routing);
        let mut lab = self.linked("@routers", Link::Routers).but(|port| port.mac = Some(mac(99)));
        lab.description.routing = Some(routing);
        lab
    }

    /// One more trunk between two switches.
    pub(crate) fn join(mut self, a: u16, b: u16, vlans: Membership) -> Self {
        let origin = self.next_line();
        self.description.trunks.push(Trunk { ends: [SwitchId::new(a), SwitchId::new(b)], vlans, origin });
        self
    }

    /// Its World, on a bench.
    pub(crate) fn bench(&self) -> Bench {
        self.bench_of(1024)
    }

    /// The same with a table of so many buckets: in one of few, unlike addresses stand side by side.
    pub(crate) fn bench_of(&self, buckets: usize) -> Bench {
        let world = World::compile(&self.description).expect("the lab is sound");
        let fdb = Fdb::new(42, buckets);
        fdb.install(&world);
        let connections = connections(&world);
        let neighbours = Neighbours::new([3, 4]);
        Bench { world, fdb, connections, neighbours, now: Instant::ZERO, learning: true, steps: vec![] }
    }
}

/// A router with gateways in these VLANs, and these routes: `10.0.0.0/8 via 10.0.10.7`, by several `via 10.0.10.7,10.0.10.8`, `via blackhole`.
pub(crate) fn router(name: &str, gateways: &[(u16, &[&str])], routes: &[&str]) -> description::Router {
    let origin = |line| Origin { line, column: 1 };
    let net = |text: &str| text.parse::<IpNet>().expect("an address with its prefix");
    let gateway = |line, vlan_id, addresses: &[&str]| description::Gateway {
        vlan: vlan(vlan_id),
        addresses: addresses.iter().map(|text| net(text)).collect(),
        dhcp: None,
        ra: false,
        neigh_suppress: false,
        origin: origin(line),
    };
    let route = |line, text: &str| {
        let (to, via) = text.split_once(" via ").expect("a way");
        let routers = || via.split(',').map(|router| router.parse().expect("an address")).collect();
        let via = if via == "blackhole" { Via::Blackhole } else { Via::Routers(routers()) };
        description::Route { to: net(to), via, origin: origin(line) }
    };
    description::Router {
        name: name.into(),
        gateways: (101..).zip(gateways).map(|(line, (vlan, said))| gateway(line, *vlan, said)).collect(),
        routes: (201..).zip(routes).map(|(line, text)| route(line, text)).collect(),
        nat: Vec::new(),
        nameservers: Vec::new(),
    }
}

/// Limits that say nothing.
pub(crate) fn no_limits(origin: Origin) -> description::Limits {
    description::Limits {
        egress: description::Rates::default(),
        ingress: description::Rates::default(),
        storm: description::Storm::default(),
        drops_other_macs: false,
        sticky_macs: false,
        origin,
    }
}

/// A World at work.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) fdb: Fdb,
    pub(crate) connections: Connections,
    pub(crate) neighbours: Neighbours,
    pub(crate) now: Instant,
    pub(crate) learning: bool,
    /// The last frame's way, in words.
    pub(crate) steps: Vec<String>,
}

/// A table in which each port may have 100 connections, and those with a firewall have equal parts of 512 datagrams in fragments.
pub(crate) fn connections(world: &World) -> Connections {
    let config = Config { capacity: 4096, ports: 64, timeouts: Timeouts::DEFAULT };
    let connections = Connections::new(config, Secret::new([7; 16]));
    world.ports().for_each(|port| connections.admit(port.id, 100));
    let guarded: Vec<PortId> =
        world.ports().filter(|port| port.firewall.is_some()).map(|port| port.id).collect();
    connections.fragments().share(&guarded);
    connections
}

impl Bench {
    /// The switch at this moment.
    pub(crate) fn switch(&self) -> Switch<'_> {
        let Self { world, fdb, connections, neighbours, now, learning, .. } = self;
        Switch { world, fdb, connections, neighbours, now: *now, learning: *learning }
    }

    /// Goes on with another World, as a datapath does that applies a changed file.
    pub(crate) fn adopt(&mut self, lab: &Lab) {
        self.world = World::compile_after(&lab.description, &self.world).expect("the lab is sound");
        self.fdb.install(&self.world);
    }

    /// What becomes of `frame` if it comes in on that port.
    pub(crate) fn send(&mut self, port: u16, frame: &[u8]) -> (Fate, Vec<Copy>) {
        let len = frame.len() as u32;
        let bytes = &frame[..frame.len().min(HEAD_BYTES)];
        let link = match LinkHeader::parse(bytes, len) {
            Ok(link) => link,
            Err(reason) => return (Fate::Dropped(reason), vec![]),
        };
        let switch = self.switch();
        let (mut copies, mut recorder) = (vec![], Recorder::default());
        let fate = switch.decide(
            port,
            &FrameView { link: &link, bytes, len, wire_len: len },
            &mut copies,
            &mut recorder,
        );
        self.steps = recorder.steps.iter().map(ToString::to_string).collect();
        (fate, copies)
    }

    /// As [`Bench::send`], a small frame from one station to another.
    pub(crate) fn pass(&mut self, port: u16, src: u8, dst: u8, tag: Option<u16>) -> (Fate, Vec<Copy>) {
        self.send(port, &frame(mac(src), mac(dst), tag))
    }

    /// Where the copies of a broadcast go.
    pub(crate) fn broadcast(&mut self, port: u16, src: u8, tag: Option<u16>) -> Vec<u16> {
        let (_, copies) = self.send(port, &frame(mac(src), MacAddr::BROADCAST, tag));
        copies.iter().map(|copy| copy.to).collect()
    }

    /// The last frame's way, as one text.
    pub(crate) fn story(&self) -> String {
        self.steps.join("\n")
    }
}

/// A small frame of an experimental EtherType.
pub(crate) fn frame(src: MacAddr, dst: MacAddr, tag: Option<u16>) -> Vec<u8> {
    build::raw(Ethernet { src, dst, tag: tag.map(Tci::from_bits) }, 0x88b5, &[0; 46])
}

/// A copy that leaves.
pub(crate) fn copy(to: u16, edit: TagEdit) -> Copy {
    Copy { to, outcome: Ok(edit) }
}

/// A frame that is dropped.
pub(crate) fn dropped(reason: DropReason) -> (Fate, Vec<Copy>) {
    (Fate::Dropped(reason), vec![])
}
