//! How control threads reach a worker: a message is left, the worker is woken, and it answers at a turn's end.

use super::{letterbox::Letterbox, ports::Healths};
use crate::capture::Intake;
use crate::control::protocol::{Sighting, Watch};
use crate::counters::Counters;
use crate::recorder::{Piece, Record};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};
use vhost_net_backend::device::ring::RunningRing;
use vswitch_core::{clock::Instant, firewall::connections::Connections, id::PortId, world::World};

/// How long a worker may take to answer. One that does not is stuck in our own bug: the process gives up, and is
/// started anew by the controller (DESIGN §4).
const PATIENCE: Duration = Duration::from_secs(1);

/// What a worker can be told.
pub(crate) enum Message {
    /// Serve this ring.
    Attach { port: PortId, ring: RunningRing },
    /// Give that ring back.
    Detach { port: PortId, index: u16, answer: Sender<Option<RunningRing>> },
    /// Decide by this World, which has these ports, with these connections, from the next turn on.
    Adopt { world: Arc<World>, connections: Arc<Connections>, healths: Healths, answer: Sender<()> },
    /// What was counted so far.
    Count { answer: Sender<Tally> },
    /// Note frames like these.
    Watch { number: u32, watch: Watch, answer: Sender<()> },
    /// What was noted; `end` drops the watch.
    Sightings { number: u32, end: bool, answer: Sender<Option<(Vec<Sighting>, u64)>> },
    /// Copy frames like these from the next batch on.
    Capture { intake: Box<Intake>, answer: Sender<()> },
    /// Copy no more of them.
    EndCapture { number: u32 },
    /// What was recorded, from record number `from` on and not before `since`, into the room that `records` has.
    Records { from: u64, since: Instant, records: Vec<Record>, answer: Sender<Piece> },
    /// Fail inside at the next frame of this port, to prove that the failure stays there.
    #[cfg(feature = "injection")]
    Panic { port: PortId, answer: Sender<()> },
    /// End the thread.
    Stop,
}

/// What a worker counted, consistent between two turns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) ports: BTreeMap<PortId, PortTally>,
    pub(crate) busy_turns: u64,
    pub(crate) frames: u64,
    pub(crate) busy_cycles: u64,
    pub(crate) busy: Duration,
    pub(crate) sleeps: u64,
    pub(crate) panics: u64,
    pub(crate) captures: usize,
}

/// One port's part of a [`Tally`].
#[derive(Debug, Clone, Default)]
pub(crate) struct PortTally {
    pub(crate) counters: Counters,
    /// Entries of the transmitqs that this worker serves, by ring index.
    pub(crate) sources: BTreeMap<u16, u16>,
    /// Entries of the receiveqs that it delivers to, by ring index.
    pub(crate) destinations: BTreeMap<u16, u16>,
}

impl PortTally {
    /// Entries of the rings that run, by ring index.
    pub(crate) fn rings(&self) -> BTreeMap<u16, u16> {
        self.sources.iter().chain(&self.destinations).map(|(index, entries)| (*index, *entries)).collect()
    }
}

/// The worker's letter box.
pub(crate) struct Mailbox {
    messages: Letterbox<Message>,
    waker: mio::Waker,
}

impl Mailbox {
    /// A box whose worker sleeps on `poll` and is woken by `token`.
    pub(crate) fn new(poll: &mio::Poll, token: mio::Token) -> io::Result<Self> {
        let waker = mio::Waker::new(poll.registry(), token)?;
        Ok(Self { messages: Letterbox::new(), waker })
    }

    /// Leaves a message and wakes the worker.
    pub(crate) fn send(&self, message: Message) {
        self.messages.leave(message);
        if let Err(why) = self.waker.wake() {
            tracing::error!("a worker cannot be woken: {why}");
        }
    }

    /// Leaves the message that `make` builds around an answering end, and waits for the answer.
    pub(crate) fn ask<T>(&self, make: impl FnOnce(Sender<T>) -> Message) -> T {
        self.question(make).wait()
    }

    /// The same without waiting yet.
    pub(crate) fn question<T>(&self, make: impl FnOnce(Sender<T>) -> Message) -> Answer<T> {
        let (answer, answered) = mpsc::channel();
        self.send(make(answer));
        Answer(answered)
    }

    /// Whether there is a message.
    #[inline(always)]
    pub(crate) fn waiting(&self) -> bool {
        self.messages.waiting()
    }

    /// All messages, oldest first.
    pub(crate) fn take(&self) -> Vec<Message> {
        self.messages.take()
    }
}

/// An answer that a worker owes.
pub(crate) struct Answer<T>(Receiver<T>);

impl<T> Answer<T> {
    /// Waits for it.
    pub(crate) fn wait(self) -> T {
        match self.0.recv_timeout(PATIENCE) {
            Ok(value) => value,
            Err(_) => {
                tracing::error!("a worker did not answer within {PATIENCE:?}; giving up, to be started anew");
                std::process::abort()
            }
        }
    }
}
