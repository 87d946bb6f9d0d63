//! One station: its interfaces, and what it is asked to do.

use crate::ask::{Asker, Job, Task};
use crate::frames::{ETHERNET, Path};
use crate::nic::{Nic, Wire};
use crate::stack::Stack;
use alloc::collections::VecDeque;
use alloc::{string::String, vec, vec::Vec};
use core::net::IpAddr;
use ipnet::IpNet;
use probe::answer::{InterfaceName, InterfaceReport, Ready, Received, Refusal, Unreachable};
use probe::ask::{MAX_MARKERS, Marker, SendFrame, Source};
use probe::{Answer, Ask, FromGuest, Mac, Request, VERSION};
use smoltcp::time::Instant;

/// Requests under way at most; more are told `Busy`.
const MAX_TASKS: usize = 1024;

/// One interface as it is to be.
#[derive(Debug)]
pub struct Interface<W> {
    /// What the station calls it.
    pub name: String,
    /// Its MAC address: no group address, and not zero.
    pub mac: Mac,
    /// The longest IP packet, in bytes.
    pub mtu: u16,
    /// Its unicast addresses with their subnets, [`MAX_ADDRESSES`](crate::MAX_ADDRESSES) at most.
    pub addresses: Vec<IpNet>,
    /// The default gateways on its link: of each family one at most.
    pub gateways: Vec<IpAddr>,
    /// What its frames travel on.
    pub wire: W,
}

/// A marker that is expected, and how often it came on each interface.
struct Expected {
    marker: Marker,
    frames: Vec<u64>,
}

/// One station.
pub struct Host<W> {
    name: String,
    interfaces: Vec<String>,
    stacks: Vec<Stack<W>>,
    tasks: Vec<Task>,
    expected: VecDeque<Expected>,
}

impl<W: Wire> Host<W> {
    /// A station of this name with these interfaces; `seed` is for sequence numbers and ports.
    pub fn new(name: String, interfaces: Vec<Interface<W>>, seed: u64, now: Instant) -> Self {
        let names = interfaces.iter().map(|interface| interface.name.clone()).collect();
        let stacks = interfaces.into_iter().zip(seed..).map(|(interface, seed)| {
            let nic = Nic::new(interface.wire, interface.mac, interface.mtu);
            Stack::new(nic, (interface.addresses, interface.gateways), seed, now)
        });
        let stacks = stacks.collect();
        Self { name, interfaces: names, stacks, tasks: Vec::new(), expected: VecDeque::new() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The wires of its interfaces, in their order.
    pub fn wires_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.stacks.iter_mut().map(|stack| stack.nic.wire_mut())
    }

    /// The same, to look at.
    pub fn wires(&self) -> impl Iterator<Item = &W> {
        self.stacks.iter().map(|stack| stack.nic.wire())
    }

    /// Who it is.
    pub fn ready(&self) -> Ready {
        let name =
            |(name, stack): (&String, &Stack<W>)| InterfaceName { name: name.clone(), mac: stack.nic.mac() };
        let interfaces = self.interfaces.iter().zip(&self.stacks).map(name).collect();
        Ready { version: VERSION, name: self.name.clone(), interfaces }
    }

    /// Takes a question: the answer, if it needs no time.
    pub fn ask(&mut self, asker: Asker, ask: Ask, now: Instant) -> Option<Answer> {
        let job = match ask.request {
            Request::Ping(ping) => Job::Ping(ping),
            Request::Connect(connect) => Job::Connect(connect),
            Request::UdpEcho(echo) => Job::UdpEcho(echo),
            Request::Resolve(resolve) => Job::Resolve(resolve),
            Request::Send(send) => Job::Send(send),
            request => return Some(self.at_once(request).unwrap_or_else(Answer::Refused)),
        };
        if self.tasks.len() >= MAX_TASKS {
            return Some(Answer::Refused(Refusal::Busy));
        }
        // Only those on a link say who they are.
        let on_link = matches!(job, Job::Resolve(_));
        let way = |stack: &Stack<W>, dst| if on_link { stack.path(dst) } else { stack.way(dst) };
        let (link, path) = match self.route(job.dst(), job.source(), way) {
            Ok(Some(way)) => way,
            Ok(None) => return Some(job.unreachable(Unreachable::NoRoute)),
            Err(refusal) => return Some(Answer::Refused(refusal)),
        };
        let stack = &mut self.stacks[link];
        if let Err(refusal) = job.check(path, stack.nic.mtu()) {
            return Some(Answer::Refused(refusal));
        }
        self.tasks.push(Task::new((asker, ask.id), job, (link, path), stack, now));
        None
    }

    /// The interface and addresses to use, of the ways that interfaces have. What is on no link of theirs has no route, unless one has a
    /// default gateway.
    fn route(
        &self,
        dst: IpAddr,
        from: Source,
        way: impl Fn(&Stack<W>, IpAddr) -> Option<(Path, u8)>,
    ) -> Result<Option<(usize, Path)>, Refusal> {
        let stacks = self.stacks.iter().enumerate();
        Ok(match from {
            Source::Any => {
                let ways = stacks.filter_map(|(link, stack)| Some((link, way(stack, dst)?)));
                // Of equal prefixes the first interface's.
                let best = ways.rev().max_by_key(|(_, (_, prefix))| *prefix);
                best.map(|(link, (path, _))| (link, path))
            }
            Source::Interface(mac) => {
                let (link, stack) =
                    { stacks }.find(|(_, stack)| stack.nic.mac() == mac).ok_or(Refusal::NoSuchInterface)?;
                way(stack, dst).map(|(path, _)| (link, path))
            }
            Source::Address(src) => {
                let (link, stack) =
                    { stacks }.find(|(_, stack)| stack.owns(src)).ok_or(Refusal::NoSuchInterface)?;
                way(stack, dst).and_then(|_| Some((link, Path::new(src, dst)?)))
            }
        })
    }

    fn at_once(&mut self, request: Request) -> Result<Answer, Refusal> {
        match request {
            Request::Hello(hello) if hello.version != VERSION => return Err(Refusal::OtherVersion(VERSION)),
            Request::Hello(_) => return Ok(Answer::Ready(self.ready())),
            Request::Report => return Ok(Answer::Report(self.report())),
            Request::Listen(service) => {
                self.each(|stack| stack.services.listen(service, &mut stack.sockets))?;
            }
            Request::Unlisten(service) => {
                self.each(|stack| stack.services.unlisten(service, &mut stack.sockets))?;
            }
            Request::Serve { port } => self.each(|stack| stack.services.serve(port, &mut stack.sockets))?,
            Request::Served { port } => {
                let mut latest = None;
                for stack in &self.stacks {
                    latest = latest
                        .max(stack.services.served(port)?.map(|(at, bulk)| (at, bulk.bytes, bulk.checksum)));
                }
                let bulk = |(_, bytes, checksum)| probe::answer::Bulk { bytes, checksum };
                return Ok(Answer::Served(latest.map(bulk)));
            }
            Request::SendFrame(send) => self.send_frame(send)?,
            Request::Expect(marker) => self.expect(marker)?,
            Request::ReceivedFrames(marker) => return self.received(&marker),
            // It has no operating system: it runs no programs, and how it ends is for who owns it to say.
            _ => return Err(Refusal::Unsupported),
        }
        Ok(Answer::Done)
    }

    /// All interfaces offer the same, so the first one's refusal is that of all.
    fn each(&mut self, change: impl FnMut(&mut Stack<W>) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.stacks.iter_mut().try_for_each(change)
    }

    fn report(&self) -> Vec<InterfaceReport> {
        let report = |(name, stack): (&String, &Stack<W>)| InterfaceReport {
            name: name.clone(),
            mac: stack.nic.mac(),
            addresses: stack.addresses().to_vec(),
            link_up: stack.nic.is_up(),
            counters: stack.nic.counters(),
        };
        self.interfaces.iter().zip(&self.stacks).map(report).collect()
    }

    fn send_frame(&mut self, send: SendFrame) -> Result<(), Refusal> {
        let stack = self.stacks.iter_mut().find(|stack| stack.nic.mac() == send.interface);
        let stack = stack.ok_or(Refusal::NoSuchInterface)?;
        if send.frame.len() < ETHERNET {
            return Err(Refusal::OutOfBounds);
        }
        stack.nic.send(send.frame);
        Ok(())
    }

    fn expect(&mut self, marker: Marker) -> Result<(), Refusal> {
        if !(1..=64).contains(&marker.bytes.len()) {
            return Err(Refusal::OutOfBounds);
        }
        self.expected.retain(|expected| expected.marker != marker);
        if self.expected.len() >= MAX_MARKERS {
            self.expected.pop_front();
        }
        self.expected.push_back(Expected { marker, frames: vec![0; self.stacks.len()] });
        Ok(())
    }

    fn received(&self, marker: &Marker) -> Result<Answer, Refusal> {
        let expected = self.expected.iter().find(|expected| expected.marker == *marker);
        let frames = &expected.ok_or(Refusal::NotExpected)?.frames;
        let received =
            |(stack, frames): (&Stack<W>, &u64)| Received { interface: stack.nic.mac(), frames: *frames };
        Ok(Answer::Received(self.stacks.iter().zip(frames).map(received).collect()))
    }

    /// One round: takes what came, goes on with what is under way, sends what is due. Gives what is answered.
    pub fn step(&mut self, now: Instant) -> Vec<(Asker, FromGuest)> {
        let mut events = Vec::new();
        for (link, stack) in self.stacks.iter_mut().enumerate() {
            stack.ingress(now, &mut events, &mut |frame| count(&mut self.expected, link, frame));
            for event in events.drain(..) {
                let tasks = self.tasks.iter_mut().filter(|task| task.link == link);
                tasks.for_each(|task| task.event(event, now));
            }
        }
        let mut answers = Vec::new();
        self.tasks.retain_mut(|task| {
            let answer = task.advance(&mut self.stacks[task.link], now);
            let going_on = answer.is_none();
            answers.extend(answer.map(|answer| (task.asker, FromGuest::Answer { id: task.id, answer })));
            going_on
        });
        self.stacks.iter_mut().for_each(|stack| stack.egress(now));
        answers
    }

    /// Nobody waits for these answers any more.
    pub fn forget(&mut self, asker: Asker) {
        self.tasks.retain_mut(|task| {
            let stays = task.asker != asker;
            if !stays {
                task.cancel(&mut self.stacks[task.link]);
            }
            stays
        });
    }

    /// When it has something to do without a frame.
    pub fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let tasks = self.tasks.iter().map(Task::poll_at).min();
        self.stacks.iter_mut().filter_map(|stack| stack.poll_at(now)).chain(tasks).min()
    }
}

fn count(expected: &mut VecDeque<Expected>, link: usize, frame: &[u8]) {
    for Expected { marker, frames } in expected {
        if frame[ETHERNET..].windows(marker.bytes.len()).any(|window| window == marker.bytes) {
            frames[link] += 1;
        }
    }
}
