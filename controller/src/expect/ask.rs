//! What else a running lab is asked through its nodes and its switch: `pingall`, `trace`, `exec`.

use super::{
    frames::{gateway, raw_frame},
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
use probe::{Answer, Request, answer::End, ask};
use std::{net::IpAddr, time::Duration};
use topology::plan::{Addresses, Expectation, Interface, Node, NodeKind, Probe, Verdict};
use vswitch_core::{description::Origin, mac::MacAddr};
use vswitchd::control::{
    client::Client,
    protocol::{PortState, Sighting},
};

/// How long a command in a node may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

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
            return Ok((None, Some("it has no address of that family".into())));
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
        let (src, dst) = (self.interface(&request.src)?, self.interface(&request.dst)?);
        let probe = parse_probe(&request.what)?;
        let known = |mac: Option<MacAddr>, said: &str| {
            mac.ok_or_else(|| {
                Failure::invalid("no-mac", format!("{said} has no MAC address that we know")).mend(
                    "let it send a frame, so that the switch learns it, or state `mac:` on its interface",
                )
            })
        };
        let from = known(self.macs(src.1).await?.first().copied(), &request.src)?;
        let addresses = common(src.1, dst.1);
        if addresses.is_none() && probe != Probe::L2 {
            let message = format!("{} and {} have no addresses of one family", request.src, request.dst);
            return Err(Failure::invalid("no-addresses", message).mend("trace `l2` needs none"));
        }
        let expectation = expectation(src.1, dst.1, addresses, probe);
        let to = match gateway(&self.plan, &expectation) {
            Some(routers) => routers,
            None => known(self.macs(dst.1).await?.first().copied(), &request.dst)?,
        };
        let frame = raw_frame(&expectation, from, to);
        let port = src.1.port;
        let sent = frame.clone();
        let journey = self.switch(move |switch| switch.trace(port, sent)).await?;
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let way = (port, dst.1.port);
        let why_not = match why_not(&self.plan.description, way, &journey) {
            why_not if journey.copies.contains(&dst.1.port) => self.not_up(dst).await?.or(why_not),
            why_not => why_not,
        };
        let reaches = Reaches { destination: format!("{}:{}", dst.0.name, dst.1.name), why_not };
        let view = self.trace_of(&Sighting { port, at_nanos: 0, head: frame, len, journey });
        Ok(TraceView { reaches: Some(reaches), ..view })
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
