//! Runs expectations in a lab that is up: watch, probe, gather what the switch saw, judge.

use super::judge::{Evidence, Outcome, judge};
use crate::{
    api::types::{TestResult, TestRow, TraceView},
    failure::Failure,
    probing::{Line, ProbeError},
};
use probe::{
    Answer, Request,
    answer::{Contact, Unreachable},
    ask,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use topology::plan::{Addresses, Expectation, Interface, Node, Plan, Probe};
use vswitch_core::{
    build::{self, Ethernet},
    head::{Head, ethertype},
    id::PortId,
    mac::MacAddr,
};
use vswitchd::control::{
    client::{Client, ClientError},
    protocol::{PortState, Sighting, Watch},
};

/// How long a probe waits for its answer. A lab under emulation needs tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the switch is asked whether it saw a frame that a guest says it sent.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// How long to wait before the switch is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A lab that is up, as far as probing needs it.
#[derive(Debug, Clone)]
pub struct Running {
    /// What runs.
    pub plan: Arc<Plan>,
    /// The probe lines of the nodes that have one.
    pub lines: BTreeMap<String, Line>,
    /// The switch.
    pub switch: Arc<Mutex<Client>>,
}

/// What a probe's sender said, and whether it took a raw frame.
struct Said {
    outcome: Outcome,
    raw: bool,
}

impl Running {
    /// Asks the switch without holding up the event loop.
    ///
    /// # Errors
    /// The switch does not answer.
    pub async fn switch<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Client) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, Failure> {
        let switch = self.switch.clone();
        let asked = tokio::task::spawn_blocking(move || {
            ask(&mut switch.lock().unwrap_or_else(PoisonError::into_inner)).map_err(|why| why.to_string())
        });
        asked
            .await
            .map_err(|why| why.to_string())
            .and_then(|answer| answer)
            .map_err(|why| Failure::new(crate::failure::Exit::Failed, "switch-silent", why))
    }

    /// Probes and judges every expectation, in file order.
    ///
    /// # Errors
    /// The switch does not answer.
    pub async fn test(&self) -> Result<Vec<TestRow>, Failure> {
        let mut rows = Vec::new();
        for expectation in &self.plan.expectations {
            rows.push(self.test_one(expectation).await?);
        }
        Ok(rows)
    }

    async fn test_one(&self, expectation: &Expectation) -> Result<TestRow, Failure> {
        let begin = Instant::now();
        let snapshot = self.switch(Client::snapshot).await?;
        let destination_up =
            snapshot.ports.iter().any(|port| port.port == expectation.dst && port.state == PortState::Up);
        let said = match self.end(expectation.src) {
            Some((node, interface)) if destination_up => self.watched(expectation, node, interface).await?,
            _ => None,
        };
        let (said, sightings) = match said {
            Some((said, sightings)) => (Some(said), sightings),
            None => (None, Vec::new()),
        };
        let evidence = Evidence {
            source_ready: said.is_some() || !destination_up,
            destination_up,
            outcome: said.as_ref().map_or(Outcome::Silent, |said| said.outcome),
            raw: said.as_ref().is_some_and(|said| said.raw),
            sightings: &sightings,
        };
        let judgement = judge(&self.plan.description, expectation, &evidence);
        let trace = judgement
            .decided_by
            .filter(|_| judgement.result != TestResult::Pass)
            .map(|place| self.trace_of(&sightings[place]));
        Ok(TestRow {
            expectation: title(expectation),
            said: format!("{}:{}", self.plan.description.file, expectation.origin.line),
            result: judgement.result,
            proof: judgement.proof,
            trace,
            millis: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Probes under a watch. None: the source does not answer its probe line.
    async fn watched(
        &self,
        expectation: &Expectation,
        node: &Node,
        interface: &Interface,
    ) -> Result<Option<(Said, Vec<Sighting>)>, Failure> {
        let (Some(line), Some(src)) = (self.lines.get(&node.name), interface.mac) else { return Ok(None) };
        let Some((to_node, to)) = self.end(expectation.dst) else { return Ok(None) };
        // An address that nobody knows is flooded, and so is a broadcast.
        let dst = self.mac(to_node, to).await?.unwrap_or(MacAddr::BROADCAST);
        let watch = Watch { port: Some(expectation.src), src: Some(src), ..Watch::default() };
        let watch = self.switch(move |switch| switch.watch(watch)).await?;
        let said = match self.send(expectation, line, src, dst).await {
            Ok(said) => said,
            Err(_) => {
                self.switch(move |switch| switch.unwatch(watch)).await?;
                return Ok(None);
            }
        };
        let mut sightings = Vec::new();
        let end = Instant::now() + SEEN_WITHIN;
        loop {
            let (seen, _) = self.switch(move |switch| switch.sightings(watch)).await?;
            sightings.extend(seen.into_iter().filter(|seen| belongs(seen, dst, expectation.addresses)));
            if !sightings.is_empty() || Instant::now() >= end {
                break;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        self.switch(move |switch| switch.unwatch(watch)).await?;
        Ok(Some((said, sightings)))
    }

    async fn send(
        &self,
        expectation: &Expectation,
        line: &Line,
        src: MacAddr,
        dst: MacAddr,
    ) -> Result<Said, ProbeError> {
        if let Some(service) = service(expectation.probe)
            && let Some((node, _)) = self.end(expectation.dst)
            && let Some(destination) = self.lines.get(&node.name)
        {
            destination.ask(Request::Listen(service)).await?;
        }
        let request = request(expectation, src);
        let said = match request {
            Some(request) => outcome(&line.ask(request).await?),
            None => None,
        };
        if let Some(outcome) = said {
            return Ok(Said { outcome, raw: false });
        }
        let frame = raw_frame(expectation, src, dst);
        line.ask(Request::SendFrame(ask::SendFrame { interface: probe::Mac::new(src.octets()), frame }))
            .await?;
        let outcome = if expectation.probe == Probe::L2 { Outcome::Unanswerable } else { Outcome::Silent };
        Ok(Said { outcome, raw: expectation.probe != Probe::L2 })
    }

    /// The MAC address of an interface: what the plan says, or else (a tap) what the switch learned at its port.
    ///
    /// # Errors
    /// The switch does not answer.
    pub(super) async fn mac(&self, node: &Node, interface: &Interface) -> Result<Option<MacAddr>, Failure> {
        if interface.mac.is_some() {
            return Ok(interface.mac);
        }
        let port = format!("{}:{}", node.name, interface.name);
        let learned = self.switch(Client::fdb).await?.into_iter().filter(|row| row.port == port);
        Ok(learned.min_by_key(|row| row.age_secs).map(|row| row.mac))
    }

    fn end(&self, port: PortId) -> Option<(&Node, &Interface)> {
        self.plan.nodes.iter().find_map(|node| {
            node.interfaces.iter().find(|interface| interface.port == port).map(|interface| (node, interface))
        })
    }

    pub(super) fn trace_of(&self, sighting: &Sighting) -> TraceView {
        let name = |port: &PortId| {
            let described =
                self.plan.description.ports.get(usize::from(port.index())).and_then(Option::as_ref);
            described.map_or_else(|| port.to_string(), vswitch_core::description::Port::name)
        };
        let journey = &sighting.journey;
        let copies: Vec<_> = journey.copies.iter().map(name).collect();
        TraceView {
            frame: Head::parse(&sighting.head, sighting.len).map_or_else(
                |reason| format!("{} bytes, {reason}", sighting.len),
                |head| format!("{} bytes, {head}", sighting.len),
            ),
            live: true,
            steps: journey.steps.iter().map(ToString::to_string).collect(),
            fate: match journey.dropped {
                Some(reason) => format!("dropped: {reason}"),
                None => format!("sent to {}", copies.join(", ")),
            },
            dropped: journey.dropped,
            copies,
        }
    }
}

/// The expectation, with its addresses where they tell two rows apart.
fn title(expectation: &Expectation) -> String {
    match expectation.addresses {
        Some(Addresses { dst, .. }) => format!("{} [{dst}]", expectation.text),
        None => expectation.text.clone(),
    }
}

/// Whether a sighting is a frame of the probe: to the destination, or asking for its address.
fn belongs(sighting: &Sighting, dst: MacAddr, addresses: Option<Addresses>) -> bool {
    let asks = |wanted: &[u8]| sighting.head.windows(wanted.len()).any(|bytes| bytes == wanted);
    let Ok(head) = Head::parse(&sighting.head, sighting.len) else { return false };
    head.dst == dst
        || addresses.is_some_and(|addresses| match addresses.dst {
            IpAddr::V4(address) => head.ethertype == ethertype::ARP && asks(&address.octets()),
            IpAddr::V6(address) => asks(&address.octets()),
        })
}

/// The service that the destination must run for this probe; the echo port is always there.
fn service(probe: Probe) -> Option<ask::Service> {
    let (transport, port) = match probe {
        Probe::Tcp(port) => (ask::Transport::Tcp, port),
        Probe::Udp(port) => (ask::Transport::Udp, port),
        Probe::Icmp | Probe::Arp | Probe::L2 => return None,
    };
    (port != probe::ECHO_PORT).then_some(ask::Service { transport, port })
}

/// What the source is asked; none for a probe that is a raw frame by nature.
fn request(expectation: &Expectation, src: MacAddr) -> Option<Request> {
    let Addresses { dst, .. } = expectation.addresses?;
    let from = ask::Source::Interface(probe::Mac::new(src.octets()));
    let timeout = PATIENCE;
    Some(match expectation.probe {
        Probe::Icmp => {
            Request::Ping(ask::Ping { dst, from, count: 1, payload: 32, interval: Duration::ZERO, timeout })
        }
        Probe::Tcp(port) => Request::Connect(ask::Connect { dst: SocketAddr::new(dst, port), from, timeout }),
        Probe::Udp(port) => {
            let payload = b"vnet probe".to_vec();
            Request::UdpEcho(ask::UdpEcho { dst: SocketAddr::new(dst, port), from, payload, timeout })
        }
        Probe::Arp => Request::Resolve(ask::Resolve { dst, from, timeout }),
        Probe::L2 => return None,
    })
}

/// What an answer means; none: the probe could not be sent, for want of a route or a neighbour.
fn outcome(answer: &Answer) -> Option<Outcome> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    match answer {
        Answer::Ping(Ok(echoes)) => {
            Some(echoes.min().map_or(Outcome::Silent, |time| Outcome::Answered(micros(time))))
        }
        Answer::Connect(contact) | Answer::UdpEcho(contact) => match contact {
            Contact::Answered(time) => Some(Outcome::Answered(micros(*time))),
            Contact::Refused => Some(Outcome::Refused),
            Contact::TimedOut => Some(Outcome::Silent),
            Contact::Unreachable(why) => unreachable_outcome(*why),
        },
        Answer::Ping(Err(why)) => unreachable_outcome(*why),
        Answer::Resolved(Some(_)) => Some(Outcome::Answered(0)),
        Answer::Resolved(None) => Some(Outcome::Silent),
        _ => None,
    }
}

fn unreachable_outcome(why: Unreachable) -> Option<Outcome> {
    match why {
        Unreachable::NoRoute | Unreachable::NoNeighbour => None,
        Unreachable::Rejected => Some(Outcome::Refused),
    }
}

/// The probe as a frame straight to the destination's address.
pub(super) fn raw_frame(expectation: &Expectation, src: MacAddr, dst: MacAddr) -> Vec<u8> {
    let link = Ethernet { src, dst, tag: None };
    let marker: &[u8] = b"vnet probe: does this frame arrive where it was sent to?";
    let Some(addresses) = expectation.addresses.and_then(pair) else {
        return build::raw(link, probe::ETHERTYPE, marker);
    };
    let ports = |port| (49_152, port);
    match (expectation.probe, addresses) {
        (Probe::L2, _) => build::raw(link, probe::ETHERTYPE, marker),
        (Probe::Tcp(port), _) => build::tcp_syn(link, addresses, ports(port), 1),
        (Probe::Udp(port), _) => build::udp(link, addresses, ports(port), marker),
        (Probe::Arp, build::Addresses::V4(src, dst)) => {
            build::arp_request(Ethernet { dst: MacAddr::BROADCAST, ..link }, src, dst)
        }
        (Probe::Arp, build::Addresses::V6(src, dst)) => build::neighbour_solicitation(link, src, dst),
        (Probe::Icmp, _) => build::echo(link, addresses, build::Echo::Request, 1, 1, marker),
    }
}

fn pair(addresses: Addresses) -> Option<build::Addresses> {
    match (addresses.src, addresses.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Some(build::Addresses::V4(src, dst)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some(build::Addresses::V6(src, dst)),
        _ => None,
    }
}
