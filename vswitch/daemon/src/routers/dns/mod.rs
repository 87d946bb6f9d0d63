//! The name server of gateways (RFC 1034, RFC 1035): the names of the lab's nodes, and those that clients of its DHCP server give themselves.
//!
//! A node is `NAME.LAB.internal`, or only `NAME`; a gateway `gateway.VLAN.LAB.internal`. Who asks is told the addresses that are in networks of its own
//! router: two tenants with the same names stay apart. What is not of the lab is asked of the router's own name servers, or refused.

pub(super) mod upstream;
mod zone;

#[cfg(test)]
mod tests;

use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, OPT, PTR, RData, SOA},
};
use std::net::IpAddr;
use vswitch_core::{description::Host, route::Routing, vlan::VlanId};
use zone::{Found, Zone};

/// The UDP port of name servers.
pub const PORT: u16 = 53;

/// For how many seconds an answer may be kept: a lab changes under its guests.
const TTL: u32 = 10;

/// Bytes of an answer to who does not say that it takes more (RFC 1035 §4.2.1), and those that we say we take.
const PLAIN: usize = 512;
const EXTENDED: u16 = 1232;

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It is answered so.
    Here(Vec<u8>),
    /// It is to be asked of the router's name servers.
    Elsewhere,
}

/// The names of a lab.
#[derive(Debug, Default)]
pub struct Dns {
    domain: String,
    zones: Vec<Zone>,
    counts: Counts,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Questions that were answered with an address or a name.
    pub answered: u64,
    /// Questions for names that are not, or not of that kind.
    pub absent: u64,
    /// Questions that are not ours to answer.
    pub refused: u64,
    /// Questions that are others' to answer.
    pub elsewhere: u64,
    /// What was no question.
    pub ignored: u64,
}

/// Clients that have an address and a name which the topology file does not join.
pub trait Leased {
    /// The addresses of whom is called so in a VLAN.
    fn addresses(&self, vlan: VlanId, name: &str) -> Vec<IpAddr>;

    /// What the client is called that has this address in a VLAN.
    fn name(&self, vlan: VlanId, address: IpAddr) -> Option<&str>;
}

/// The domain of a lab: under the one that is for private use.
pub fn domain(lab: &str) -> String {
    format!("{lab}.internal")
}

/// A domain as DNS writes it (RFC 1035 §3.1), uncompressed.
pub(super) fn labels(domain: &str) -> impl Iterator<Item = u8> {
    let labels = domain.split('.').filter(|label| (1..=63).contains(&label.len()));
    labels.flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes())).chain([0])
}

impl Dns {
    /// Answers for the nodes of this lab from now on; `names` tells those of VLANs.
    pub fn adopt(
        &mut self,
        lab: &str,
        routing: Option<&Routing>,
        hosts: &[Host],
        names: impl Fn(VlanId) -> Option<String>,
    ) {
        self.domain = domain(lab);
        let routers = routing.into_iter().flat_map(|routing| {
            let zone = |router| Zone::of(routing, router, hosts, &names);
            routing.routers().iter().map(zone)
        });
        self.zones = routers.collect();
    }

    /// What is said to a question that came in this VLAN; none: nothing, for it is none.
    pub fn answer(&mut self, vlan: VlanId, payload: &[u8], leased: &impl Leased) -> Option<Said> {
        let zone = self.zones.iter().find(|zone| zone.has_vlan(vlan));
        let (Some(zone), Some(asked)) = (zone, Asked::read(payload)) else {
            self.counts.ignored += 1;
            return None;
        };
        let Asked::Of { packet, question } = asked else {
            self.counts.ignored += 1;
            let Asked::Wrong { id, code } = asked else { return None };
            let mut reply = Packet::new_reply(id);
            *reply.rcode_mut() = code;
            return reply.build_bytes_vec().ok().map(Said::Here);
        };
        let found = zone.find(&self.domain, &question.qname.to_string(), leased);
        // Of one label the lab has addresses; what else there is of it, as of all domains of the first level, others know.
        let is_address = matches!(question.qtype, QTYPE::ANY | QTYPE::TYPE(TYPE::A | TYPE::AAAA));
        let is_others = found.is_none()
            || !is_address && question.qname.get_labels().len() == 1 && found == Some(Found::Nobody);
        if is_others && zone.asks_others() && packet.has_flags(PacketFlag::RECURSION_DESIRED) {
            self.counts.elsewhere += 1;
            return Some(Said::Elsewhere);
        }
        let mut reply = Packet::new_reply(packet.id());
        if packet.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if zone.asks_others() {
            reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        }
        reply.questions.push(question.clone());
        let room = packet.opt().map_or(PLAIN, |opt| usize::from(opt.udp_packet_size.clamp(512, EXTENDED)));
        if packet.opt().is_some() {
            *reply.opt_mut() = Some(OPT { opt_codes: vec![], udp_packet_size: EXTENDED, version: 0 });
        }
        match found {
            None => {
                self.counts.refused += 1;
                *reply.rcode_mut() = RCODE::Refused;
            }
            Some(found) => {
                reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
                if matches!(found, Found::Nobody) {
                    *reply.rcode_mut() = RCODE::NameError;
                }
                reply.answers = records(&question, &found);
                let asked = question.qname.to_string().to_ascii_lowercase();
                let is_of_zone = asked
                    .strip_suffix(&self.domain)
                    .is_some_and(|above| above.is_empty() || above.ends_with('.'));
                if asked == self.domain && matches!(question.qtype, QTYPE::ANY | QTYPE::TYPE(TYPE::SOA)) {
                    reply.answers.push(authority(&self.domain));
                }
                if reply.answers.is_empty() {
                    self.counts.absent += 1;
                    // RFC 2308: for how long the answer may be kept that there is none. Of names elsewhere (reverse ones, short ones) there is no zone to say it.
                    reply.name_servers.extend(is_of_zone.then(|| authority(&self.domain)));
                } else {
                    self.counts.answered += 1;
                }
            }
        }
        let bytes = reply.build_bytes_vec_compressed().ok()?;
        if bytes.len() <= room {
            return Some(Said::Here(bytes));
        }
        reply.answers.clear();
        reply.set_flags(PacketFlag::TRUNCATION);
        reply.build_bytes_vec_compressed().ok().map(Said::Here)
    }

    /// What was counted.
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}

/// What stands in a datagram.
enum Asked<'p> {
    /// One question.
    Of { packet: Packet<'p>, question: Question<'p> },
    /// No question that can be answered.
    Wrong { id: u16, code: RCODE },
}

impl<'p> Asked<'p> {
    /// None if nothing must be said: two servers would talk to each other without end.
    fn read(payload: &'p [u8]) -> Option<Self> {
        let &[high, low, flags, ..] = payload.first_chunk::<12>()?;
        // The bit of replies (RFC 1035 §4.1.1).
        if flags & 0x80 != 0 {
            return None;
        }
        let id = u16::from_be_bytes([high, low]);
        let wrong = |code| Some(Self::Wrong { id, code });
        let Ok(packet) = Packet::parse(payload) else { return wrong(RCODE::FormatError) };
        if packet.opcode() != OPCODE::StandardQuery {
            return wrong(RCODE::NotImplemented);
        }
        let [question] = &packet.questions[..] else { return wrong(RCODE::FormatError) };
        if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
            return wrong(RCODE::Refused);
        }
        let question = question.clone();
        Some(Self::Of { packet, question })
    }
}

/// What of it was asked for.
fn records<'q>(question: &Question<'q>, found: &Found) -> Vec<ResourceRecord<'q>> {
    let is_asked = |kind| matches!(question.qtype, QTYPE::ANY) || question.qtype == QTYPE::TYPE(kind);
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
    match found {
        Found::Addresses(addresses) => (addresses.iter())
            .filter_map(|address| match address {
                IpAddr::V4(address) if is_asked(TYPE::A) => Some(RData::A(A { address: address.to_bits() })),
                IpAddr::V6(address) if is_asked(TYPE::AAAA) => {
                    Some(RData::AAAA(AAAA { address: address.to_bits() }))
                }
                _ => None,
            })
            .map(record)
            .collect(),
        Found::Names(names) if is_asked(TYPE::PTR) => (names.iter())
            .filter_map(|name| Name::new(name).ok().map(Name::into_owned))
            .map(|name| record(RData::PTR(PTR(name))))
            .collect(),
        Found::Names(_) | Found::Nobody => Vec::new(),
    }
}

/// The beginning of the lab's zone.
fn authority(domain: &str) -> ResourceRecord<'static> {
    let name = Name::new(domain).map_or_else(|_| Name::new_unchecked("internal"), Name::into_owned);
    let rdata = RData::SOA(SOA {
        mname: name.clone(),
        rname: name.clone(),
        serial: 1,
        refresh: 3600,
        retry: 600,
        expire: 86_400,
        minimum: TTL,
    });
    ResourceRecord::new(name, CLASS::IN, TTL, rdata)
}
