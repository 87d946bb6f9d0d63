//! Runs expectations in a lab that is up: watch, probe, gather what the switch saw, judge.

use super::{
    foresight::Foresight,
    frames::{DATAGRAM, ECHO_PAYLOAD, Probed, Role, Seen, gateway, raw_frame},
    judge::{Evidence, Judgement, Outcome, is_foreseen, is_with_routers, judge},
    words,
};
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
    collections::{BTreeMap, BTreeSet},
    iter,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use topology::plan::{Addresses, Expectation, Interface, Node, Plan, Probe};
use vswitch_core::{head::Head, id::PortId, mac::MacAddr};
use vswitchd::control::{
    client::{Client, ClientError},
    protocol::{Journey, PortState, Sighting, Watch},
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
    /// The ports of the virtual machines' interfaces whose links are set down.
    pub links_down: BTreeSet<PortId>,
    /// The nodes of a private copy that have nobody behind them, though in the lab itself somebody may be there.
    pub nobody_at: BTreeSet<String>,
}

/// What is done where the sender has no way to send the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoWay {
    /// It sends the probe as a raw frame, whose fate says enough.
    SendRaw,
    /// Nothing.
    GiveUp,
}

/// What a probe's sender said.
struct Said {
    outcome: Outcome,
    /// Why the probe could not be sent as such.
    unsent: Option<String>,
    /// The raw frame, if one was sent.
    raw: Option<Vec<u8>>,
    /// The destination serves the port for the probe only.
    opened: bool,
}

/// What became of a probe.
pub(super) struct Proof {
    pub(super) judgement: Judgement,
    pub(super) outcome: Outcome,
    /// Why the probe could not be sent as such.
    pub(super) unsent: Option<String>,
    /// What to do where nothing could be proved since an end is not up.
    help: Option<String>,
    seen: Vec<Seen>,
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
            ask(&mut switch.lock().unwrap_or_else(PoisonError::into_inner))
        });
        asked.await.map_err(|why| Failure::failed("internal", why))?.map_err(|why| {
            let failure = Failure::failed("switch-silent", &why);
            match why {
                ClientError::Refused(_) => failure,
                _ => failure.mend("`vnet down` cleans up; `vnet logs vswitchd` says what it did last"),
            }
        })
    }

    /// Probes and judges every expectation, in file order.
    ///
    /// # Errors
    /// The switch does not answer.
    pub async fn test(&self) -> Result<Vec<TestRow>, Failure> {
        let mut rows = Vec::new();
        let foreseen: Vec<Option<Journey>> = {
            let foresight = Foresight::new(&self.plan);
            let of = |expectation| foresight.as_ref().and_then(|foresight| foresight.of(expectation));
            self.plan.expectations.iter().map(of).collect()
        };
        for (expectation, foreseen) in self.plan.expectations.iter().zip(foreseen) {
            rows.push(self.test_one(expectation, foreseen).await?);
        }
        Ok(rows)
    }

    async fn test_one(
        &self,
        expectation: &Expectation,
        foreseen: Option<Journey>,
    ) -> Result<TestRow, Failure> {
        let begin = Instant::now();
        let Proof { mut judgement, seen, help, .. } = self.prove(expectation, NoWay::SendRaw).await?;
        let agrees =
            foreseen.and_then(|foreseen| is_foreseen(&self.plan.description, expectation, &foreseen, &seen));
        if let Some(Err(both)) = &agrees {
            judgement.result = TestResult::Error;
            judgement.proof = format!("{both}: one of them is wrong, and that is a bug of vnet's");
        }
        let trace = judgement
            .decided_by
            .filter(|_| judgement.result != TestResult::Pass)
            .and_then(|place| Some(self.trace_of(&seen.get(place)?.sighting)));
        Ok(TestRow {
            expectation: title(expectation),
            said: format!("{}:{}", self.plan.description.file, expectation.origin.line),
            result: judgement.result,
            proof: judgement.proof,
            help,
            foreseen: matches!(agrees, Some(Ok(()))),
            trace,
            millis: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Probes once, watches what the switch does with the probe, and judges.
    ///
    /// # Errors
    /// The switch does not answer.
    pub(super) async fn prove(&self, expectation: &Expectation, no_way: NoWay) -> Result<Proof, Failure> {
        let snapshot = self.switch(Client::snapshot).await?;
        // Behind a link that is set down the rings may still be there, and nobody listens.
        let destination_up = !self.links_down.contains(&expectation.dst)
            && snapshot.ports.iter().any(|port| port.port == expectation.dst && port.state == PortState::Up);
        let ends = self.end(expectation.src).zip(self.end(expectation.dst));
        let watched = match ends {
            Some((src, (_, dst))) if destination_up => self.watched(expectation, src, dst, no_way).await?,
            _ => None,
        };
        let source_ready = watched.is_some() || !destination_up;
        let not_up = if !source_ready {
            ends.map(|(source, _)| source)
        } else {
            ends.map(|(_, destination)| destination).filter(|_| !destination_up)
        };
        let help = not_up.map(|(node, interface)| match self.links_down.contains(&interface.port) {
            true => words::link_set_down(node, interface),
            false if self.nobody_at.contains(&node.name) => words::nobody_at(node),
            false => words::bring_up(node),
        });
        let nothing = Said { outcome: Outcome::Silent, unsent: None, raw: None, opened: false };
        let silent = || (nothing, Vec::new(), Vec::new());
        let (said, macs, seen) = watched.unwrap_or_else(silent);
        let raw = said.raw.is_some() && said.unsent.is_some();
        let evidence = Evidence {
            source_ready,
            destination_up,
            outcome: said.outcome,
            raw,
            opened: said.opened,
            macs: &macs,
            seen: &seen,
        };
        let judgement = judge(&self.plan.description, expectation, &evidence);
        Ok(Proof { judgement, outcome: said.outcome, unsent: said.unsent, help, seen })
    }

    /// Probes under a watch: what was said, the destination's MAC addresses, and the probe's frames. None: the source
    /// does not answer its probe line.
    async fn watched(
        &self,
        expectation: &Expectation,
        (node, interface): (&Node, &Interface),
        to: &Interface,
        no_way: NoWay,
    ) -> Result<Option<(Said, Vec<MacAddr>, Vec<Seen>)>, Failure> {
        let (Some(line), Some(src)) = (self.lines.get(&node.name), interface.mac) else { return Ok(None) };
        let gateway = gateway(&self.plan, expectation);
        // An address that nobody knows is flooded, and so is a broadcast.
        let own = self.macs(to).await?.first().copied();
        let dst = gateway.or(own).unwrap_or(MacAddr::BROADCAST);
        // A busy source must not crowd the probe out.
        let addresses = expectation.addresses.filter(|_| expectation.probe != Probe::L2);
        let contains = addresses.map(|addresses| octets(addresses.dst));
        // A router keeps the first of them while it asks for its neighbour, and passes it on itself.
        let routers = self.plan.routers().filter(|_| gateway.is_some());
        let passed =
            routers.map(|port| Watch { port: Some(port.id), contains: contains.clone(), ..Watch::default() });
        let asks = Watch { port: Some(expectation.src), src: Some(src), contains, ..Watch::default() };
        let contains = addresses.map(|addresses| octets(addresses.src));
        let back = Some(gateway.unwrap_or(src));
        let answers = Watch { port: Some(expectation.dst), dst: back, contains, ..Watch::default() };
        let mut asked = vec![self.switch(move |switch| switch.watch(asks)).await?];
        if let Some(passed) = passed {
            asked.push(self.switch(move |switch| switch.watch(passed)).await?);
        }
        let answers = self.switch(move |switch| switch.watch(answers)).await?;
        let said = self.send(expectation, (line, interface), (src, dst), no_way).await;
        let seen = match said {
            Ok(said) => self.seen((expectation, gateway), to, (&asked, answers), said).await.map(Some),
            Err(_) => Ok(None),
        };
        for watch in asked.into_iter().chain([answers]) {
            self.switch(move |switch| switch.unwatch(watch)).await?;
        }
        seen
    }

    /// Gathers the probe's frames and their answers; waits for the switch to have seen the probe, if its sender says that it was sent.
    async fn seen(
        &self,
        (expectation, gateway): (&Expectation, Option<MacAddr>),
        to: &Interface,
        (asked, answers): (&[u32], u32),
        said: Said,
    ) -> Result<(Said, Vec<MacAddr>, Vec<Seen>), Failure> {
        // Asked again: whoever answered was learned.
        let macs = self.macs(to).await?;
        let probed = Probed { expectation, to: &macs, gateway, raw: said.raw.clone() };
        let mut seen: Vec<Seen> = Vec::new();
        let end = Instant::now() + SEEN_WITHIN;
        loop {
            for watch in asked.iter().copied() {
                let (sightings, _) = self.switch(move |switch| switch.sightings(watch)).await?;
                seen.extend(
                    sightings
                        .into_iter()
                        .filter_map(|sighting| probed.role(&sighting).map(|role| Seen { sighting, role })),
                );
            }
            let sent = said.unsent.is_none() || said.raw.is_some();
            let itself = seen.iter().any(|seen| {
                (seen.role == Role::Asks) == (expectation.probe == Probe::Arp)
                    && !is_with_routers(&self.plan.description, &seen.sighting)
            });
            if !sent || itself || Instant::now() >= end {
                break;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        seen.sort_by_key(|seen| seen.sighting.at_nanos);
        let (sightings, _) = self.switch(move |switch| switch.sightings(answers)).await?;
        let answers = sightings.into_iter().filter(|sighting| probed.is_answer(sighting));
        seen.extend(answers.map(|sighting| Seen { sighting, role: Role::Answers }));
        Ok((said, macs, seen))
    }

    async fn send(
        &self,
        expectation: &Expectation,
        (line, interface): (&Line, &Interface),
        (src, dst): (MacAddr, MacAddr),
        no_way: NoWay,
    ) -> Result<Said, ProbeError> {
        let destination = self.end(expectation.dst).and_then(|(node, _)| self.lines.get(&node.name));
        let opened = match (service(expectation.probe), destination) {
            (Some(service), Some(destination)) => destination.listen(service).await?,
            _ => false,
        };
        let (silence, unsent) = match request(expectation, src) {
            Some(_) if asks_beyond_its_links(expectation, interface) => {
                (Outcome::Silent, Some(words::unreachable(Unreachable::NoRoute).into()))
            }
            Some(request) => match outcome(&line.ask(request).await?) {
                Ok(outcome) => return Ok(Said { outcome, unsent: None, raw: None, opened }),
                Err(why) => (Outcome::Silent, Some(why)),
            },
            None if expectation.probe == Probe::L2 => (Outcome::Unanswerable, None),
            None => (Outcome::Silent, Some("the two have no addresses of one family".into())),
        };
        if unsent.is_some() && no_way == NoWay::GiveUp {
            return Ok(Said { outcome: silence, unsent, raw: None, opened });
        }
        let frame = raw_frame(expectation, src, dst);
        let send = ask::SendFrame { interface: probe::Mac::new(src.octets()), frame: frame.clone() };
        line.ask(Request::SendFrame(send)).await?;
        Ok(Said { outcome: silence, unsent, raw: Some(frame), opened })
    }

    /// The MAC addresses of an interface: what the plan says, or else (a tap, a foreign guest) what the switch learned at
    /// its port, the latest first.
    ///
    /// # Errors
    /// The switch does not answer.
    pub(crate) async fn macs(&self, interface: &Interface) -> Result<Vec<MacAddr>, Failure> {
        if let Some(mac) = interface.mac {
            return Ok(vec![mac]);
        }
        let port = interface.port;
        let mut learned = self.switch(move |client| client.fdb(Some(port))).await?.rows;
        learned.sort_by_key(|row| row.age_secs);
        Ok(learned.into_iter().map(|row| row.mac).collect())
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
        let fates = || journey.copies.iter().zip(journey.lost.iter().chain(iter::repeat(&None)));
        let copies: Vec<_> = fates().filter(|copy| copy.1.is_none()).map(|copy| name(copy.0)).collect();
        let lost =
            fates().filter_map(|(port, lost)| lost.map(|why| format!("lost before {}: {why}", name(port))));
        let sent = (!copies.is_empty()).then(|| format!("sent to {}", copies.join(", ")));
        TraceView {
            frame: Head::parse(&sighting.head, sighting.len).map_or_else(
                |reason| format!("{} bytes, {reason}", sighting.len),
                |head| format!("{} bytes, {head}", sighting.len),
            ),
            live: true,
            steps: journey
                .steps
                .iter()
                .map(|step| words::below_a_trace(&step.to_string()).to_owned())
                .collect(),
            fate: match journey.dropped {
                Some(reason) => format!("dropped: {reason}"),
                None => sent.into_iter().chain(lost).collect::<Vec<_>>().join("; "),
            },
            dropped: journey.dropped,
            copies,
            file: self.plan.description.file.clone(),
            reaches: None,
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

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
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
        Probe::Icmp => Request::Ping(ask::Ping {
            dst,
            from,
            count: 1,
            payload: ECHO_PAYLOAD,
            interval: Duration::ZERO,
            timeout,
        }),
        Probe::Tcp(port) => Request::Connect(ask::Connect { dst: SocketAddr::new(dst, port), from, timeout }),
        Probe::Udp(port) => {
            let payload = DATAGRAM.to_vec();
            Request::UdpEcho(ask::UdpEcho { dst: SocketAddr::new(dst, port), from, payload, timeout })
        }
        Probe::Arp => Request::Resolve(ask::Resolve { dst, from, timeout }),
        Probe::L2 => return None,
    })
}

/// Whether the probe asks for the MAC address of a host that is on no link of its sender's: a host asks its router's
/// instead (RFC 1122 section 3.3.1.1), and one without a router asks nobody.
fn asks_beyond_its_links(expectation: &Expectation, interface: &Interface) -> bool {
    let on_link = |dst| interface.addresses.iter().any(|network| network.contains(&dst));
    expectation.probe == Probe::Arp && expectation.addresses.is_some_and(|addresses| !on_link(addresses.dst))
}

/// What an answer means, or why the probe could not be sent.
fn outcome(answer: &Answer) -> Result<Outcome, String> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ok(match answer {
        Answer::Ping(Ok(echoes)) => {
            echoes.min().map_or(Outcome::Silent, |time| Outcome::Answered(micros(time)))
        }
        Answer::Connect(contact) | Answer::UdpEcho(contact) => match contact {
            Contact::Answered(time) => Outcome::Answered(micros(*time)),
            Contact::Refused => Outcome::Refused,
            Contact::TimedOut => Outcome::Silent,
            Contact::Unreachable(why) => unreachable_outcome(*why)?,
        },
        Answer::Ping(Err(why)) => unreachable_outcome(*why)?,
        Answer::Resolved(Some(mac)) => Outcome::Resolved(MacAddr::new(mac.octets())),
        Answer::Resolved(None) => Outcome::Silent,
        other => return Err(words::unexpected(other)),
    })
}

fn unreachable_outcome(why: Unreachable) -> Result<Outcome, String> {
    match why {
        Unreachable::NoRoute | Unreachable::NoNeighbour => Err(words::unreachable(why).into()),
        Unreachable::Rejected => Ok(Outcome::Rejected),
    }
}
