//! Who is on the link: the table of one interface, a pure core with the time as an argument.
//!
//! smoltcp asks for one neighbour a second and interface (`neighbor::Cache::SILENT_TIME`), and throws away what made it
//! ask. So a station asks itself, before anything enters a socket, and then tells smoltcp the answer.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use probe::Mac;
use smoltcp::time::{Duration, Instant};

/// How long an answer is believed (Linux: `base_reachable_time`).
const REACHABLE: Duration = Duration::from_secs(30);

/// How long smoltcp is relied on to remember what it was told: half of its 60 s.
const TOLD: Duration = Duration::from_secs(30);

/// When a request is sent again, in ms after the first, and when there is nobody.
const AGAIN: [u64; 4] = [50, 150, 400, 900];
const NOBODY: Duration = Duration::from_millis(1_500);

/// Neighbours that are kept at most; then the one heard of longest ago goes.
const MAX_NEIGHBOURS: usize = 1024;

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Neighbour {
    Known(Mac),
    /// It is being asked for.
    Asked,
    /// It was asked for, or never, and nobody answered.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    mac: Mac,
    heard: Instant,
    /// When smoltcp was told so.
    told: Option<Instant>,
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
struct Request {
    since: Instant,
    sent: usize,
}

impl Request {
    /// When the next frame goes out, or when to give up.
    fn due(&self) -> Instant {
        match self.sent {
            0 => self.since,
            sent => self.since + AGAIN.get(sent - 1).map_or(NOBODY, |ms| Duration::from_millis(*ms)),
        }
    }

    fn is_last(&self) -> bool {
        self.sent > AGAIN.len()
    }
}

/// The table of one interface.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    answers: BTreeMap<IpAddr, Answer>,
    requests: BTreeMap<IpAddr, Request>,
}

impl Neighbours {
    /// What is known of `addr` now.
    pub(crate) fn lookup(&self, addr: IpAddr, now: Instant) -> Neighbour {
        if self.requests.contains_key(&addr) {
            return Neighbour::Asked;
        }
        match self.answers.get(&addr) {
            Some(answer) if now < answer.heard + REACHABLE => Neighbour::Known(answer.mac),
            _ => Neighbour::Unknown,
        }
    }

    /// Asks for `addr`, whatever is known of it, unless that is under way; [`Self::due`] gives the requests to send.
    pub(crate) fn ask(&mut self, addr: IpAddr, now: Instant) {
        self.requests.entry(addr).or_insert(Request { since: now, sent: 0 });
    }

    /// The same from the first request on, whatever is under way: of an older question perhaps none is left to send.
    pub(crate) fn ask_anew(&mut self, addr: IpAddr, now: Instant) {
        self.requests.insert(addr, Request { since: now, sent: 0 });
    }

    /// Who is to be asked now. Requests that nobody answered end here.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<IpAddr> {
        let answers = &mut self.answers;
        self.requests.retain(|addr, request| {
            let over = request.is_last() && request.due() <= now;
            if over {
                answers.remove(addr);
            }
            !over
        });
        let due = self.requests.iter_mut().filter(|(_, request)| request.due() <= now);
        due.map(|(addr, request)| {
            request.sent += 1;
            *addr
        })
        .collect()
    }

    /// When [`Self::due`] has something to do.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.requests.values().map(Request::due).min()
    }

    /// ARP or ND say who has `addr`. As RFC 826 has it, news about a stranger that is not `for_us` are passed over.
    pub(crate) fn resolved(&mut self, addr: IpAddr, mac: Mac, for_us: bool, now: Instant) {
        let asked = self.requests.remove(&addr).is_some();
        if asked || for_us || self.answers.contains_key(&addr) {
            self.insert(addr, mac, now);
        }
    }

    /// A packet came from `addr`: enough to answer it, and no more than that.
    pub(crate) fn heard(&mut self, addr: IpAddr, mac: Mac, now: Instant) {
        match self.answers.get_mut(&addr) {
            Some(answer) if answer.mac == mac => answer.heard = now,
            Some(answer) if now < answer.heard + REACHABLE => {}
            _ => self.insert(addr, mac, now),
        }
    }

    /// What smoltcp must be told before it can send to `addr`; told is told.
    pub(crate) fn untold(&mut self, addr: IpAddr, now: Instant) -> Option<Mac> {
        let answer = self.answers.get_mut(&addr)?;
        let stale = answer.told.is_none_or(|told| told + TOLD <= now);
        stale.then(|| {
            answer.told = Some(now);
            answer.mac
        })
    }

    fn insert(&mut self, addr: IpAddr, mac: Mac, now: Instant) {
        if self.answers.len() >= MAX_NEIGHBOURS && !self.answers.contains_key(&addr) {
            let oldest = self.answers.iter().min_by_key(|(_, answer)| answer.heard).map(|(addr, _)| *addr);
            if let Some(oldest) = oldest {
                self.answers.remove(&oldest);
            }
        }
        let before = self.answers.get(&addr).filter(|answer| answer.mac == mac);
        let told = before.and_then(|answer| answer.told);
        self.answers.insert(addr, Answer { mac, heard: now, told });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2));
    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    fn ms(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn nobody_is_asked_five_times_and_then_given_up() {
        let mut table = Neighbours::default();
        table.ask(PEER, ms(0));
        let mut times = Vec::new();
        while let Some(at) = table.poll_at() {
            times.push((at.total_millis(), table.due(at).len()));
        }
        assert_eq!(times, [(0, 1), (50, 1), (150, 1), (400, 1), (900, 1), (1500, 0)]);
        assert_eq!(table.lookup(PEER, ms(1500)), Neighbour::Unknown);
    }

    #[test]
    fn who_asks_anew_sends_a_question_though_an_older_one_has_no_answer_yet() {
        let mut table = Neighbours::default();
        table.ask(PEER, ms(0));
        for at in [0, 50, 150, 400, 900] {
            assert_eq!(table.due(ms(at)), [PEER]);
        }
        table.ask(PEER, ms(1000));
        assert!(table.due(ms(1000)).is_empty(), "it is asked for already");
        table.ask_anew(PEER, ms(1000));
        assert_eq!(table.due(ms(1000)), [PEER]);
        assert_eq!(table.poll_at(), Some(ms(1050)));
    }

    #[test]
    fn an_answer_is_believed_for_a_while_and_told_once() {
        let mut table = Neighbours::default();
        table.resolved(PEER, MAC, false, ms(0));
        assert_eq!(table.lookup(PEER, ms(0)), Neighbour::Unknown, "a stranger's news");
        table.ask(PEER, ms(0));
        table.resolved(PEER, MAC, false, ms(5));
        assert_eq!(table.lookup(PEER, ms(5)), Neighbour::Known(MAC));
        assert_eq!(table.untold(PEER, ms(5)), Some(MAC));
        assert_eq!(table.untold(PEER, ms(6)), None);
        assert_eq!(table.lookup(PEER, ms(30_005)), Neighbour::Unknown);
    }

    #[test]
    fn a_mere_packet_cannot_take_a_neighbour_over_but_arp_can() {
        let other = Mac::new([2, 0, 0, 0, 0, 9]);
        let mut table = Neighbours::default();
        table.heard(PEER, MAC, ms(0));
        table.heard(PEER, other, ms(1));
        assert_eq!(table.lookup(PEER, ms(1)), Neighbour::Known(MAC));
        assert_eq!(table.untold(PEER, ms(1)), Some(MAC));
        table.resolved(PEER, other, false, ms(2));
        assert_eq!(table.untold(PEER, ms(2)), Some(other), "the change is told");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Neighbours::default();
        for number in 0..5_000_u32 {
            table.heard(IpAddr::V4(number.into()), MAC, ms(i64::from(number)));
        }
        assert_eq!(table.answers.len(), MAX_NEIGHBOURS);
        assert_eq!(table.lookup(IpAddr::V4(4_999.into()), ms(4_999)), Neighbour::Known(MAC));
    }
}
