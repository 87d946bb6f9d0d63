//! What else a running lab is asked through its nodes and its switch: `pingall`, `trace`, `exec`.

use super::{
    frames::{frame_of_size, gateway_of, raw_frame},
    judge::{Outcome, why_not},
    run::{NoWay, Running},
    words,
};
use crate::{
    api::types::{
        ExecReply, ExecRequest, PingCell, PingallReport, Reaches, TestResult, TraceRequest, TraceView,
    },
    failure::Failure,
    probing::Line,
};
use ipnet::IpNet;
use probe::{Answer, Request, answer::End, ask};
use std::{net::IpAddr, time::Duration};
use topology::plan::{Addresses, Expectation, Interface, Node, NodeKind, Plan, Probe, Verdict};
use vswitch_core::{
    description::{Gateway, Link, Membership, Nat, NatRule, Origin, Router},
    id::PortId,
    mac::MacAddr,
    vlan::VlanId,
};
use vswitchd::control::{
    client::Client,
    protocol::{Journey, LeaseState, PortState, Sighting},
};

/// How long a command in a node may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// An interface, and whose it is.
type Owner<'a> = (&'a Node, &'a Interface);

impl Running {
    /// Pings every address from every interface of the nodes that can ping. An answer counts if the switch delivered the
    /// request to the interface that has the address.
    ///
    /// # Errors
    /// The switch does not answer.
    pub async fn pingall(&self) -> Result<PingallReport, Failure> {
        let mut cells = Vec::new();
        for src in self.plan.nodes.iter().filter(|src| self.lines.contains_key(&src.name)) {
            for from in &src.interfaces {
                for dst in self.plan.nodes.iter().filter(|dst| dst.name != src.name) {
                    self.ping_node((src, from), dst, &mut cells).await?;
                }
            }
        }
        Ok(PingallReport { cells })
    }

    /// Pings every address of a node.
    async fn ping_node(
        &self,
        (src, from): (&Node, &Interface),
        dst: &Node,
        cells: &mut Vec<PingCell>,
    ) -> Result<(), Failure> {
        for to in &dst.interfaces {
            for address in &to.addresses {
                let (rtt_micros, error) = self.ping(from, to, address.addr()).await?;
                cells.push(PingCell {
                    src: format!("{}:{}", src.name, from.name),
                    dst: format!("{}:{}", dst.name, to.name),
                    address: address.addr(),
                    rtt_micros,
                    error,
                });
            }
        }
        Ok(())
    }

    /// One echo request: its round trip in microseconds, or why there was none.
    async fn ping(
        &self,
        from: &Interface,
        to: &Interface,
        dst: IpAddr,
    ) -> Result<(Option<u64>, Option<String>), Failure> {
        let family = |address: &IpAddr| address.is_ipv4() == dst.is_ipv4();
        let Some(src) = from.addresses.iter().map(ipnet::IpNet::addr).find(family) else {
            return Ok((None, Some("the file states no address of that family for it".into())));
        };
        let expectation = expectation(from, to, Some(Addresses { src, dst }), Probe::Icmp);
        let proof = self.prove(&expectation, NoWay::GiveUp).await?;
        Ok(match (proof.judgement.result, proof.outcome, proof.unsent) {
            (TestResult::Pass, Outcome::Answered(micros), _) => (Some(micros), None),
            (_, _, Some(why)) => (None, Some(why)),
            (_, _, None) => (None, Some(proof.judgement.proof)),
        })
    }

    /// What would become of a frame now, with what the switch has learned.
    ///
    /// # Errors
    /// The request names no interface, or the switch does not answer.
    pub async fn trace(&self, request: &TraceRequest) -> Result<TraceView, Failure> {
        let src = self.interface(&request.src)?;
        let probe = parse_probe(&request.what)?;
        let from = self.known_mac(src.1, &request.src).await?;
        let known = self.known().await?;
        let sender = self.living(src.1, from, &known);
        let (dst, addresses) = self.whom_to_trace(&sender, &request.dst, &known).await?;
        if addresses.is_none() && probe != Probe::L2 {
            let message = format!("{} and {} have no addresses of one family", request.src, request.dst);
            return Err(Failure::invalid("no-addresses", message)
                .mend("what DHCP or SLAAC gave counts once the gateway knows it; `l2` needs none"));
        }
        // Of an address that nobody in the lab has, nothing but the address is asked.
        let expectation = expectation(src.1, dst.map_or(src.1, |dst| dst.1), addresses, probe);
        let to = match (gateway_of(&self.plan, &sender, &expectation), dst) {
            (Some(routers), _) => routers,
            (None, Some((_, dst))) => self.known_mac(dst, &request.dst).await?,
            (None, None) => self.routers_own(&expectation).ok_or_else(|| {
                let message = format!("nobody has {} in the network of {}", request.dst, request.src);
                Failure::invalid("no-such-interface", message)
                    .mend("say a node, node:interface, or an address that a gateway leads to")
            })?,
        };
        let frame = match request.size {
            None => raw_frame(&expectation, from, to),
            Some(size) => frame_of_size(&expectation, (from, to), size.into()).ok_or_else(|| {
                Failure::invalid("bad-size", format!("no packet of `{}` has {size} bytes", request.what))
                    .mend("a size is for icmp and udp/PORT, and leaves room for their headers")
            })?,
        };
        let port = src.1.port;
        let sent = frame.clone();
        let journey = self.switch(move |switch| switch.trace(port, sent)).await?;
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let reaches = match dst {
            Some(dst) => Some(self.reaches((port, dst), &journey).await?),
            None => None,
        };
        let view = self.trace_of(&Sighting { port, at_nanos: 0, head: frame, len, journey });
        Ok(TraceView { reaches, ..view })
    }

    /// Whether a frame from a port came to an interface, and if not, why.
    async fn reaches(
        &self,
        (src, dst): (PortId, (&Node, &Interface)),
        journey: &Journey,
    ) -> Result<Reaches, Failure> {
        let why_not = match why_not(&self.plan.description, (src, dst.1.port), journey) {
            why_not if journey.copies.contains(&dst.1.port) => self.not_up(dst).await?.or(why_not),
            why_not => why_not,
        };
        Ok(Reaches { destination: format!("{}:{}", dst.0.name, dst.1.name), why_not })
    }

    /// The MAC address of an interface that was `said`.
    async fn known_mac(&self, interface: &Interface, said: &str) -> Result<MacAddr, Failure> {
        self.macs(interface).await?.first().copied().ok_or_else(|| {
            Failure::invalid("no-mac", format!("{said} has no MAC address that we know"))
                .mend("let it send a frame, so that the switch learns it, or state `mac:` on its interface")
        })
    }

    /// Who has which address as far as gateways know: what DHCP gave, and whom they have heard.
    async fn known(&self) -> Result<Vec<(VlanId, IpAddr, MacAddr)>, Failure> {
        if self.plan.description.routing.is_none() {
            return Ok(Vec::new());
        }
        let (leases, neighbours) = self.switch(|switch| Ok((switch.leases()?, switch.neighbours()?))).await?;
        let leased = leases.rows.into_iter().filter(|row| row.state == LeaseState::Bound);
        let leased = leased.map(|row| (row.vlan, row.address.into(), row.mac));
        let heard = neighbours.rows.into_iter().filter_map(|row| Some((row.vlan, row.address, row.mac?)));
        Ok(leased.chain(heard).collect())
    }

    /// An interface with the addresses that it has now beside those that the file states, and its gateways for these.
    fn living(&self, interface: &Interface, mac: MacAddr, known: &[(VlanId, IpAddr, MacAddr)]) -> Interface {
        let mut living = interface.clone();
        let Some(gateway) = self.gateway_at(interface) else { return living };
        for (_, address, _) in known.iter().filter(|(vlan, _, its)| (*vlan, *its) == (gateway.vlan, mac)) {
            let own = gateway.addresses.iter().find(|own| own.contains(address));
            let Some(own) = own.filter(|_| living.addresses.iter().all(|its| its.addr() != *address)) else {
                continue;
            };
            living.addresses.extend(IpNet::new(*address, own.prefix_len()));
            if living.gateways.iter().all(|router| router.is_ipv4() != address.is_ipv4()) {
                living.gateways.push(own.addr());
            }
        }
        living
    }

    /// The gateway of the VLAN in which an interface speaks untagged.
    fn gateway_at(&self, interface: &Interface) -> Option<&Gateway> {
        let Plan { description, .. } = &*self.plan;
        let port = description.ports.get(usize::from(interface.port.index()))?.as_ref()?;
        let Link::Switch {
            vlans: Membership::Access(vlan) | Membership::Trunk { native: Some(vlan), .. },
            ..
        } = &port.link
        else {
            return None;
        };
        let mut gateways = description
            .routing
            .iter()
            .flat_map(|routing| &routing.routers)
            .flat_map(|router| &router.gateways);
        gateways.find(|gateway| gateway.vlan == *vlan)
    }

    /// Whom `said` means: an interface, or an address, whoever has it. With it the addresses of a packet there, if it can be of one family.
    async fn whom_to_trace(
        &self,
        src: &Interface,
        said: &str,
        known: &[(VlanId, IpAddr, MacAddr)],
    ) -> Result<(Option<Owner<'_>>, Option<Addresses>), Failure> {
        let Ok(address) = said.parse::<IpAddr>() else {
            let dst = self.interface(said)?;
            let mac = self.macs(dst.1).await?.first().copied();
            let living = mac.map(|mac| self.living(dst.1, mac, known));
            return Ok((Some(dst), common(src, living.as_ref().unwrap_or(dst.1))));
        };
        let interfaces =
            self.plan.nodes.iter().flat_map(|node| node.interfaces.iter().map(move |its| (node, its)));
        let has = |interface: &Interface| {
            let living = interface.mac.map(|mac| self.living(interface, mac, known));
            let has = living.as_ref().unwrap_or(interface);
            has.addresses.iter().any(|own| own.addr() == address)
        };
        let mut own = src.addresses.iter().map(ipnet::IpNet::addr);
        let own = own.find(|own| own.is_ipv4() == address.is_ipv4());
        let mut owners = interfaces.filter(|(_, interface)| has(interface));
        // Tenants may have the same addresses: then it is nobody's in particular.
        let owner = owners.next().filter(|_| owners.next().is_none());
        Ok((owner, own.map(|src| Addresses { src, dst: address })))
    }

    /// The routers' MAC address, if what is expected goes to an address of theirs in the network of its source.
    fn routers_own(&self, expectation: &Expectation) -> Option<MacAddr> {
        let Addresses { src, dst } = expectation.addresses?;
        let mut routers = self.plan.description.routing.iter().flat_map(|routing| &routing.routers);
        let is_own = |router: &Router| {
            let networks = router.gateways.iter().flat_map(|gateway| &gateway.addresses);
            let mut here = networks.filter(|own| own.contains(&src) && own.contains(&dst));
            let is_outside =
                |nat: &Nat| matches!(nat.rule, NatRule::Static { outside, .. } if outside == dst);
            here.any(|own| own.addr() == dst || router.nat.iter().any(is_outside))
        };
        self.plan.routers().filter(|_| routers.any(is_own))?.mac
    }

    /// Why nothing is heard behind the port of an interface; none: it is up.
    async fn not_up(&self, (node, interface): (&Node, &Interface)) -> Result<Option<String>, Failure> {
        if self.links_down.contains(&interface.port) {
            return Ok(Some(words::link_set_down(node, interface)));
        }
        let snapshot = self.switch(Client::snapshot).await?;
        let view = snapshot.ports.into_iter().find(|view| view.port == interface.port);
        let view = view.filter(|view| view.state != PortState::Up);
        Ok(view.map(|view| format!("its port is not up: {}", view.detail)))
    }

    /// Runs a command in a node.
    ///
    /// # Errors
    /// The node does not answer, or cannot run commands.
    pub async fn exec(&self, request: &ExecRequest) -> Result<ExecReply, Failure> {
        let line = self.line(&request.node)?;
        let exec = ask::Exec { argv: request.command.clone(), stdin: Vec::new(), timeout: COMMAND_PATIENCE };
        match line.ask(Request::Exec(exec)).await {
            Ok(Answer::Exec(done)) => Ok(ExecReply {
                status: match done.end {
                    End::Exited(status) => status,
                    // As a shell says it.
                    End::Killed(signal) => 128 + signal,
                    End::TimedOut => 124,
                },
                timed_out_after: (done.end == End::TimedOut).then_some(COMMAND_PATIENCE.as_secs()),
                stdout: done.stdout,
                stderr: done.stderr,
                cut: done.cut,
            }),
            Ok(other) => {
                let message = format!("{} runs no commands: {}", request.node, words::unexpected(&other));
                Err(Failure::invalid("exec", message))
            }
            Err(why) => Err(Failure::failed("silent-node", why)),
        }
    }

    /// The probe line of a node that is named by a user.
    fn line(&self, name: &str) -> Result<&Line, Failure> {
        if let Some(line) = self.lines.get(name) {
            return Ok(line);
        }
        Err(match self.plan.nodes.iter().find(|node| node.name == name) {
            None => Failure::invalid("no-such-node", format!("there is no node `{name}`"))
                .mend("`vnet show nodes` lists them"),
            Some(Node { kind: NodeKind::Station | NodeKind::Vm(_) | NodeKind::Netns { .. }, .. }) => {
                Failure::failed("silent-node", format!("{name} does not answer now"))
                    .mend(format!("`vnet show nodes` says its state, `vnet logs {name}` what it said last"))
            }
            Some(_) => {
                Failure::invalid("exec", format!("{name} is not started by vnet and runs no commands"))
                    .mend("virtual machines that vnet starts and network namespaces run commands")
            }
        })
    }

    /// `node` (its first interface) or `node:interface`.
    pub(crate) fn interface(&self, said: &str) -> Result<(&Node, &Interface), Failure> {
        let (name, wanted) =
            said.split_once(':').map_or((said, None), |(node, interface)| (node, Some(interface)));
        let node = self.plan.nodes.iter().find(|node| node.name == name);
        let found = node.and_then(|node| {
            let interface = match wanted {
                Some(wanted) => node.interfaces.iter().find(|interface| interface.name == wanted),
                None => node.interfaces.first(),
            };
            Some((node, interface?))
        });
        found.ok_or_else(|| {
            let nodes: Vec<_> = self.plan.nodes.iter().map(|node| node.name.as_str()).collect();
            Failure::invalid("no-such-interface", format!("there is no interface `{said}`"))
                .mend(format!("say a node, or node:interface; the nodes are {}", nodes.join(", ")))
        })
    }
}

/// What is asked of two interfaces besides what the file expects.
const fn expectation(
    src: &Interface,
    dst: &Interface,
    addresses: Option<Addresses>,
    probe: Probe,
) -> Expectation {
    Expectation {
        text: String::new(),
        src: src.port,
        dst: dst.port,
        addresses,
        probe,
        verdict: Verdict::Allow,
        origin: Origin { line: 1, column: 1 },
    }
}

/// The addresses of two interfaces, of the first family that both have.
pub(super) fn common(src: &Interface, dst: &Interface) -> Option<Addresses> {
    src.addresses.iter().map(ipnet::IpNet::addr).find_map(|from| {
        let same = |to: &IpAddr| to.is_ipv4() == from.is_ipv4();
        dst.addresses.iter().map(ipnet::IpNet::addr).find(same).map(|to| Addresses { src: from, dst: to })
    })
}

/// `icmp`, `tcp/N`, `udp/N`, `arp` or `l2`.
fn parse_probe(what: &str) -> Result<Probe, Failure> {
    let wrong = || {
        Failure::invalid("no-such-probe", format!("`{what}` is nothing that can be traced"))
            .mend("say icmp, tcp/PORT, udp/PORT, arp or l2")
    };
    match what.split_once('/') {
        None => match what {
            "icmp" => Ok(Probe::Icmp),
            "arp" => Ok(Probe::Arp),
            "l2" => Ok(Probe::L2),
            _ => Err(wrong()),
        },
        Some((transport, port)) => {
            let port = port.parse().map_err(|_| wrong())?;
            match transport {
                "tcp" => Ok(Probe::Tcp(port)),
                "udp" => Ok(Probe::Udp(port)),
                _ => Err(wrong()),
            }
        }
    }
}
