//! A process with many guests that come and go at random, until somebody kills it: one share of the churn.

use super::{half_way, random::Random};
use crate::lab::{frame, socket};
use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};
use vhost_net_backend::{
    driver::{Config, Driver, MemoryConfig},
    features,
    layout::RingSize,
};
use vswitch_core::mac::MacAddr;

/// What guests did, by name, and how often.
pub(super) type Deeds = BTreeMap<String, u64>;

/// What a herd is told before it begins.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Orders {
    /// Its ports.
    pub(super) places: Range<usize>,
    /// What decides its random numbers.
    pub(super) seed: u64,
    /// Where it writes down what it did; that is true or a moment ahead of the truth, whenever it is killed.
    pub(super) diary: PathBuf,
}

/// How long a port may take to serve a guest: one whose connections ended early pauses for up to a second before the next.
const PATIENCE: Duration = Duration::from_secs(60);

/// The station address of the guest at port `place`.
fn station(place: usize) -> MacAddr {
    let [high, low] = (place as u16).to_be_bytes();
    MacAddr::new([2, 2, 0, 0, high, low])
}

/// Reads its orders from standard input, attaches a guest to each of its ports, and lets them come and go from the next line on.
pub(super) fn run(folder: &Path) {
    let line = || io::stdin().lines().next().expect("somebody commands the herd").expect("a line");
    let Orders { places, seed, diary } = serde_json::from_str(&line()).unwrap();
    let guests = places.clone().map(|_| None).collect();
    let mut herd = Herd {
        folder: folder.into(),
        diary,
        first: places.start,
        guests,
        random: Random(seed),
        done: Deeds::new(),
    };
    for at in 0..places.len() {
        while herd.guests[at].is_none() {
            herd.attach(at);
        }
    }
    line();
    loop {
        herd.act();
    }
}

struct Herd {
    folder: PathBuf,
    diary: PathBuf,
    first: usize,
    guests: Vec<Option<Driver>>,
    random: Random,
    done: Deeds,
}

impl Herd {
    /// One guest, whichever, does something.
    fn act(&mut self) {
        let at = self.random.below(self.guests.len());
        match (self.guests[at].take(), self.random.below(4)) {
            (None, 0) => self.hang_up_half_way(at),
            (None, _) => self.attach(at),
            (Some(mut guest), _) => {
                self.talk(at, &mut guest);
                self.guests[at] = self.change(guest);
            }
        }
    }

    /// Writes down what is about to be done.
    fn note(&mut self, deed: &str) {
        *self.done.entry(deed.into()).or_default() += 1;
        let next = self.diary.with_extension("next");
        fs::write(&next, serde_json::to_vec(&self.done).unwrap()).unwrap();
        fs::rename(next, &self.diary).unwrap();
    }

    fn connect(&self, at: usize) -> UnixStream {
        UnixStream::connect(socket(&self.folder, self.first + at)).expect("the switch lives")
    }

    /// A guest comes, of one kind or another. It may be turned away while the one before it is being seen off.
    fn attach(&mut self, at: usize) {
        let without = [0, features::NET_MRG_RXBUF, features::IN_ORDER, features::EVENT_IDX];
        let config = Config {
            features: Config::default().features & !without[self.random.below(4)],
            ring_size: RingSize::new([64, 128, 256][self.random.below(3)]).unwrap(),
            memory: MemoryConfig {
                sealed: self.random.below(2) == 0,
                regions: 1 + self.random.below(3) as u16,
                ..MemoryConfig::default()
            },
            timeout: PATIENCE,
            ..Config::default()
        };
        match Driver::connect(self.connect(at), &config) {
            Ok(guest) => {
                self.note("attached");
                self.guests[at] = Some(guest);
            }
            Err(_) => self.note("turned away"),
        }
    }

    /// A VMM that goes away in the middle of its handshake, or of a message.
    fn hang_up_half_way(&mut self, at: usize) {
        self.note("hung up half-way");
        half_way::hang_up(self.connect(at), &mut self.random);
    }

    /// It takes what came, and sends to others: stations that may be there or not, and now and then to all.
    fn talk(&mut self, at: usize, guest: &mut Driver) {
        let from = station(self.first + at);
        let to = match self.random.below(8) {
            0 => MacAddr::BROADCAST,
            _ => station(super::CHURNED.start + self.random.below(super::CHURNED.len())),
        };
        let pair = guest.pair();
        pair.receive(|_, _| {});
        let sent = frame(to, from, 60 + self.random.below(1400), 0);
        (0..self.random.below(16)).take_while(|_| pair.transmit(&sent)).for_each(drop);
        pair.flush();
    }

    /// It goes, or changes its rings or memory and stays.
    fn change(&mut self, mut guest: Driver) -> Option<Driver> {
        let answered = "the device answers a driver that did nothing wrong";
        match self.random.below(12) {
            0 | 1 => {
                self.note("left");
                guest.stop().expect(answered);
                None
            }
            2 => {
                self.note("reset and left");
                guest.reset().expect(answered);
                None
            }
            3 => {
                self.note("hung up");
                None
            }
            4 => self.lose_memory(guest),
            5 | 6 => {
                self.note("shared its memory again");
                guest.share_memory_again().expect(answered);
                Some(guest)
            }
            7 | 8 => {
                self.note("started elsewhere");
                guest.start_elsewhere().expect(answered);
                Some(guest)
            }
            9 => {
                self.note("paused");
                guest.enable(0, false).expect(answered);
                guest.enable(0, true).expect(answered);
                Some(guest)
            }
            _ => Some(guest),
        }
    }

    /// Its memory vanishes behind frames that wait to be taken. From then on nobody here touches it.
    fn lose_memory(&mut self, guest: Driver) -> Option<Driver> {
        if guest.memory().truncate(0).is_err() {
            return Some(guest);
        }
        self.note("lost its memory");
        None
    }
}
