//! What else a running lab is asked through its nodes and its switch: `pingall`, `trace`, `exec`.

use super::run::{Running, raw_frame};
use crate::{
    api::types::{ExecReply, ExecRequest, PingCell, PingallReport, TraceRequest, TraceView},
    failure::Failure,
    probing::Line,
};
use probe::{
    Answer, Request,
    answer::{End, Refusal, Unreachable},
    ask,
};
use std::{net::IpAddr, time::Duration};
use topology::plan::{Addresses, Expectation, Interface, Node, Probe, Verdict};
use vswitch_core::{description::Origin, mac::MacAddr};
use vswitchd::control::protocol::Sighting;

/// How long a command in a node may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

impl Running {
    /// Pings every address from every node that can ping.
    pub async fn pingall(&self) -> PingallReport {
        let mut cells = Vec::new();
        for src in &self.plan.nodes {
            let Some(line) = self.lines.get(&src.name) else { continue };
            let from = src.interfaces.first().map(|interface| interface.name.as_str()).unwrap_or_default();
            for dst in self.plan.nodes.iter().filter(|dst| dst.name != src.name) {
                for interface in &dst.interfaces {
                    for address in &interface.addresses {
                        let (rtt_micros, error) = ping(line, address.addr()).await;
                        cells.push(PingCell {
                            src: format!("{}:{from}", src.name),
                            dst: format!("{}:{}", dst.name, interface.name),
                            address: address.addr(),
                            rtt_micros,
                            error,
                        });
                    }
                }
            }
        }
        PingallReport { cells }
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
        let from = known(self.mac(src.0, src.1).await?, &request.src)?;
        let to = known(self.mac(dst.0, dst.1).await?, &request.dst)?;
        let addresses = common(src.1, dst.1);
        if addresses.is_none() && probe != Probe::L2 {
            let message = format!("{} and {} have no addresses of one family", request.src, request.dst);
            return Err(Failure::invalid("no-addresses", message).mend("trace `l2` needs none"));
        }
        let expectation = Expectation {
            text: String::new(),
            src: src.1.port,
            dst: dst.1.port,
            addresses,
            probe,
            verdict: Verdict::Allow,
            origin: Origin { line: 1, column: 1 },
        };
        let frame = raw_frame(&expectation, from, to);
        let port = src.1.port;
        let sent = frame.clone();
        let journey = self.switch(move |switch| switch.trace(port, sent)).await?;
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        Ok(self.trace_of(&Sighting { port, at_nanos: 0, head: frame, len, journey, lost: Vec::new() }))
    }

    /// Runs a command in a node.
    ///
    /// # Errors
    /// The node does not answer, or cannot run commands.
    pub async fn exec(&self, request: &ExecRequest) -> Result<ExecReply, Failure> {
        let line = self.lines.get(&request.node).ok_or_else(|| {
            Failure::invalid("no-such-node", format!("there is no node `{}` that can be asked", request.node))
                .mend("`vnet show nodes` lists them; stations, taps and foreign VMs run no commands")
        })?;
        let exec = ask::Exec { argv: request.command.clone(), stdin: Vec::new(), timeout: COMMAND_PATIENCE };
        match line.ask(Request::Exec(exec)).await {
            Ok(Answer::Exec(done)) => Ok(ExecReply {
                status: match done.end {
                    End::Exited(status) => status,
                    // As a shell says it.
                    End::Killed(signal) => 128 + signal,
                    End::TimedOut => 124,
                },
                stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
            }),
            Ok(other) => {
                let message = format!("{} runs no commands: {}", request.node, unexpected(&other));
                Err(Failure::invalid("exec", message))
            }
            Err(why) => Err(Failure::failed("silent-node", why)),
        }
    }

    /// `node` (its first interface) or `node:interface`.
    pub(super) fn interface(&self, said: &str) -> Result<(&Node, &Interface), Failure> {
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

/// One echo request: its round trip in microseconds, or why there was none.
async fn ping(line: &Line, dst: IpAddr) -> (Option<u64>, Option<String>) {
    let timeout = Duration::from_secs(1);
    let ping =
        ask::Ping { dst, from: ask::Source::Any, count: 1, payload: 32, interval: Duration::ZERO, timeout };
    match line.ask(Request::Ping(ping)).await {
        Ok(Answer::Ping(Ok(echoes))) => {
            (echoes.min().and_then(|time| u64::try_from(time.as_micros()).ok()), None)
        }
        Ok(Answer::Ping(Err(why))) => (None, Some(unreachable(why).into())),
        Ok(other) => (None, Some(unexpected(&other))),
        Err(why) => (None, Some(why.to_string())),
    }
}

/// Why there is no way to a destination, in words.
pub(super) const fn unreachable(why: Unreachable) -> &'static str {
    match why {
        Unreachable::NoRoute => "no route",
        Unreachable::NoNeighbour => "no ARP or ND answer",
        Unreachable::Rejected => "rejected by an ICMP error",
    }
}

/// An answer that was not asked for, in words.
pub(super) fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Refused(Refusal::Unsupported) => "this kind of node does not do it".into(),
        Answer::Refused(Refusal::System(why)) => why.clone(),
        other => format!("it answers {other:?}"),
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
