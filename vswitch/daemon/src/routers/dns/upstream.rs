//! Questions for others: whom they came from, and under which port and number they were asked of a router's name servers (RFC 1035 §7.1, RFC 5452 §9).

use crate::routers::dns::PORT;
use simple_dns::{Packet, PacketFlag, RCODE};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};
use vswitch_core::{build::Addresses, clock::Instant, mac::MacAddr, vlan::VlanId};

/// Questions that are asked at a time, of all VLANs and of one.
const ASKED: usize = 1024;
const ASKED_BY_ONE: usize = 64;

/// Bytes of a question, at most.
const LONGEST: usize = 1232;

/// How long a name server is waited for.
const WAIT: Duration = Duration::from_secs(2);

/// The first of the ports that are nobody's (RFC 6335 §6): questions are asked from there.
const FIRST_PORT: u16 = 49152;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routers) struct Asker {
    pub(in crate::routers) vlan: VlanId,
    pub(in crate::routers) mac: MacAddr,
    /// Those of the answer: the gateway's, and the asker's.
    pub(in crate::routers) addresses: Addresses,
    pub(in crate::routers) port: u16,
}

/// A question under way.
#[derive(Debug)]
struct Question {
    asker: Asker,
    /// The asker's own number for it.
    id: [u8; 2],
    /// As it is asked, with a number of ours.
    message: Vec<u8>,
    /// Name servers that it was asked of, or could not be.
    tried: usize,
    due: Instant,
}

/// A question for a name server.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::routers) struct Asks<'q> {
    /// The port that it is asked from.
    pub(in crate::routers) port: u16,
    /// Which of the router's name servers it is for.
    pub(in crate::routers) server: usize,
    pub(in crate::routers) message: &'q [u8],
}

/// All questions under way, by the port that they are asked from.
#[derive(Debug, Default)]
pub(in crate::routers) struct Upstream {
    questions: BTreeMap<u16, Question>,
    /// Ports and numbers are what nobody can guess.
    random: RandomState,
    made: u64,
}

impl Upstream {
    /// Takes a question on, or, if it is under way, asks it again; where it is to be asked now. None if there are too many, or it is too long.
    pub(in crate::routers) fn take(
        &mut self,
        asker: Asker,
        message: &[u8],
        server: usize,
        now: Instant,
    ) -> Option<Asks<'_>> {
        let [high, low, rest @ ..] = message else { return None };
        let id = [*high, *low];
        let is_same = |question: &Question| question.asker == asker && question.id == id;
        let under_way = self.questions.iter().find(|(_, question)| is_same(question));
        let port = match under_way.map(|(port, _)| *port) {
            Some(port) => port,
            None => {
                let of_one = self.questions.values().filter(|question| question.asker.vlan == asker.vlan);
                if self.questions.len() >= ASKED || of_one.count() >= ASKED_BY_ONE || message.len() > LONGEST
                {
                    return None;
                }
                let (port, number) = self.draw();
                let message = [&number, rest].concat();
                let question = Question { asker, id, message, tried: server + 1, due: now + WAIT };
                self.questions.insert(port, question);
                port
            }
        };
        let question = self.questions.get(&port)?;
        Some(Asks { port, server: question.tried - 1, message: &question.message })
    }

    /// A port that nothing is asked from, and a number.
    fn draw(&mut self) -> (u16, [u8; 2]) {
        loop {
            self.made += 1;
            let drawn = self.random.hash_one(self.made);
            let [a, b, c, d, ..] = drawn.to_ne_bytes();
            let port = FIRST_PORT | u16::from_ne_bytes([a, b]);
            // There are more ports than questions.
            if !self.questions.contains_key(&port) {
                return (port, [c, d]);
            }
        }
    }

    /// When the next question was waited for long enough.
    pub(in crate::routers) fn next_due(&self) -> Option<Instant> {
        self.questions.values().map(|question| question.due).min()
    }

    /// A question whose time is over: whose it is.
    pub(in crate::routers) fn overdue(&self, now: Instant) -> Option<(u16, Asker)> {
        let due = self.questions.iter().find(|(_, question)| question.due <= now);
        due.map(|(port, question)| (*port, question.asker))
    }

    /// The question that is asked from this port goes on to the next name server, of so many.
    pub(in crate::routers) fn again(&mut self, port: u16, servers: usize, now: Instant) -> Option<Asks<'_>> {
        let question = self.questions.get_mut(&port).filter(|question| question.tried < servers)?;
        question.tried += 1;
        question.due = now + WAIT;
        Some(Asks { port, server: question.tried - 1, message: &question.message })
    }

    /// Nobody answered it: what its asker is told.
    pub(in crate::routers) fn give_up(&mut self, port: u16) -> Option<(Asker, Vec<u8>)> {
        let question = self.questions.remove(&port)?;
        let [_, _, rest @ ..] = &question.message[..] else { return None };
        Some((question.asker, failure(&[&question.id, rest].concat())?))
    }

    /// Whose question is asked from this port.
    pub(in crate::routers) fn asker(&self, port: u16) -> Option<Asker> {
        self.questions.get(&port).map(|question| question.asker)
    }

    /// What a name server said to the question asked from this port: what its asker is told. None if it is no answer to it: then it is waited on.
    pub(in crate::routers) fn answer(
        &mut self,
        port: u16,
        (from, servers): ((IpAddr, u16), &[IpAddr]),
        message: &[u8],
        now: Instant,
    ) -> Option<(Asker, Vec<u8>)> {
        let question = self.questions.get_mut(&port)?;
        let was_asked = servers.iter().take(question.tried).any(|server| (*server, PORT) == from);
        if !(was_asked && answers(&question.message, message)) {
            return None;
        }
        // Who cannot, or does not want to: perhaps the next one can.
        if matches!(message[3] & 0xf, 2 | 5) && question.tried < servers.len() {
            question.due = now;
            return None;
        }
        let question = self.questions.remove(&port)?;
        Some((question.asker, [&question.id, &message[2..]].concat()))
    }

    /// Forgets all.
    pub(in crate::routers) fn clear(&mut self) {
        self.questions.clear();
    }
}

/// What is said to a question that cannot be answered now.
pub(in crate::routers) fn failure(asked: &[u8]) -> Option<Vec<u8>> {
    let asked = Packet::parse(asked).ok()?;
    let mut reply = Packet::new_reply(asked.id());
    *reply.rcode_mut() = RCODE::ServerFailure;
    reply.set_flags(PacketFlag::RECURSION_DESIRED);
    reply.questions.clone_from(&asked.questions);
    reply.build_bytes_vec().ok()
}

/// Bytes in front of the questions of a message, and those of a question behind its name (RFC 1035 §4.1).
const HEADER: usize = 12;
const BEHIND_NAME: usize = 4;

/// Whether it is an answer to that: of the same number, to the same question (RFC 5452 §9.1).
fn answers(asked: &[u8], message: &[u8]) -> bool {
    let is_reply = message.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let same = |from: usize, to: usize| {
        asked.get(from..to).zip(message.get(from..to)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    // Its number, how many questions there are, and the one.
    is_reply && same(0, 2) && same(4, 6) && same(HEADER, HEADER + question_len(asked))
}

/// Bytes of the question of a message.
fn question_len(message: &[u8]) -> usize {
    let mut name = message.get(HEADER..).unwrap_or_default();
    let mut len = 1 + BEHIND_NAME;
    while let [label @ 1..=63, rest @ ..] = name {
        len += 1 + usize::from(*label);
        name = rest.get(usize::from(*label)..).unwrap_or_default();
    }
    len
}
