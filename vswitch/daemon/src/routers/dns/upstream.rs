//! Questions for others: whom they came from, and under which port and number they were asked of a router's name servers (RFC 1035 §7.1, RFC 5452 §9).

use crate::routers::dns::PORT;
use simple_dns::{Packet, PacketFlag, RCODE};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};
use vswitch_core::{build::Addresses, clock::Instant, mac::MacAddr, route::DYNAMIC_PORTS, vlan::VlanId};

/// Questions that are asked at a time: of all VLANs, of one, and of one station.
const ASKED: usize = 1024;
const ASKED_BY_VLAN: usize = 256;
const ASKED_BY_STATION: usize = 16;

/// Bytes of a question, at most.
const LONGEST: usize = 1232;

/// How long a name server is waited for.
const WAIT: Duration = Duration::from_secs(2);

/// After what time a question is asked once more that its asker repeats.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Ports that are drawn before a question is one too many.
const DRAWS: usize = 64;

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
    /// Name servers whose turn it was.
    tried: usize,
    /// Whether the last of these was asked.
    is_sent: bool,
    /// When it was taken, or asked for again.
    taken: Instant,
    due: Instant,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::routers) enum Taken {
    /// It is to be asked, from this port.
    Asks(u16),
    /// It is asked already.
    UnderWay,
    /// Its asker, or all together, have too many, or it is too long.
    TooMany,
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
    /// Takes a question on; one that is under way may be asked once more. `is_forwarded` tells the ports that lead elsewhere.
    pub(in crate::routers) fn take(
        &mut self,
        asker: Asker,
        message: &[u8],
        is_forwarded: impl Fn(u16) -> bool,
        now: Instant,
    ) -> Taken {
        let [high, low, rest @ ..] = message else { return Taken::TooMany };
        let id = [*high, *low];
        let is_same = |question: &Question| {
            question.asker == asker && question.id == id && question.message[2..] == *rest
        };
        if let Some((port, question)) = self.questions.iter_mut().find(|(_, question)| is_same(question)) {
            if now.since(question.taken) < ASK_AGAIN {
                return Taken::UnderWay;
            }
            question.taken = now;
            return Taken::Asks(*port);
        }
        let count = |is_alike: &dyn Fn(&Asker) -> bool| {
            self.questions.values().filter(|question| is_alike(&question.asker)).count()
        };
        let is_too_many = self.questions.len() >= ASKED
            || count(&|other| other.vlan == asker.vlan) >= ASKED_BY_VLAN
            || count(&|other| (other.vlan, other.mac) == (asker.vlan, asker.mac)) >= ASKED_BY_STATION;
        if is_too_many || message.len() > LONGEST {
            return Taken::TooMany;
        }
        let Some((port, number)) = self.draw(is_forwarded) else { return Taken::TooMany };
        let message = [&number, rest].concat();
        let question = Question { asker, id, message, tried: 1, is_sent: false, taken: now, due: now + WAIT };
        self.questions.insert(port, question);
        Taken::Asks(port)
    }

    /// A port that nothing is asked from, and a number.
    fn draw(&mut self, is_forwarded: impl Fn(u16) -> bool) -> Option<(u16, [u8; 2])> {
        // Most ports are nobody's.
        (0..DRAWS).find_map(|_| {
            self.made += 1;
            let [a, b, c, d, ..] = self.random.hash_one(self.made).to_ne_bytes();
            let port = DYNAMIC_PORTS | u16::from_ne_bytes([a, b]);
            (!self.questions.contains_key(&port) && !is_forwarded(port)).then_some((port, [c, d]))
        })
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

    /// It is the next name server's turn, of so many, for the question that is asked from this port. False: there is none.
    pub(in crate::routers) fn next(&mut self, port: u16, servers: usize, now: Instant) -> bool {
        let question = self.questions.get_mut(&port).filter(|question| question.tried < servers);
        question.is_some_and(|question| {
            (question.tried, question.is_sent, question.due) = (question.tried + 1, false, now + WAIT);
            true
        })
    }

    /// Whose turn it is cannot be asked: nobody waits for it.
    pub(in crate::routers) fn hurry(&mut self, port: u16, now: Instant) {
        if let Some(question) = self.questions.get_mut(&port) {
            question.due = now;
        }
    }

    /// Whose turn it is was asked.
    pub(in crate::routers) fn sent(&mut self, port: u16) {
        if let Some(question) = self.questions.get_mut(&port) {
            question.is_sent = true;
        }
    }

    /// Questions that wait until it is known who leads to the name server whose turn it is.
    pub(in crate::routers) fn unsent(&self) -> Vec<u16> {
        let unsent = self.questions.iter().filter(|(_, question)| !question.is_sent);
        unsent.map(|(port, _)| *port).collect()
    }

    /// Which of the router's name servers has its turn, and what it is asked.
    pub(in crate::routers) fn current(&self, port: u16) -> Option<(usize, &[u8])> {
        let question = self.questions.get(&port)?;
        Some((question.tried.checked_sub(1)?, &question.message))
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
        let is_from = |server: &IpAddr| (*server, PORT) == from;
        let place = servers.iter().take(question.tried).position(is_from)?;
        if !answers(&question.message, message) {
            return None;
        }
        // Who cannot, or does not want to: perhaps the next one can, or does already.
        let is_last = question.tried >= servers.len() && place + 1 == question.tried;
        if matches!(message[3] & 0xf, 2 | 4 | 5) && !is_last {
            if place + 1 == question.tried {
                question.due = now;
            }
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
    reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
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
