//! What happens to a lab, as it happens: a bounded history that every watcher reads from its start.

use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::Notify;

/// How many events are kept: a lab of a few hundred nodes comes up within this.
const KEPT: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, counting from 0.
    pub number: u64,
    /// Milliseconds since the controller started.
    pub millis: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// The lab begins to come up.
    Starting {
        /// Its topology file.
        file: String,
    },
    /// What an earlier controller left was cleaned up.
    CleanedUp {
        /// How many processes.
        processes: usize,
    },
    /// The switch process runs and took its configuration.
    SwitchReady {
        /// Its process.
        pid: u32,
    },
    /// The switch process ended, and is started again.
    SwitchLost {
        /// How it ended.
        why: String,
        /// The how-manieth restart this is.
        restarts: u32,
    },
    /// A port's socket can be connected to.
    Listening {
        /// `node:interface`.
        port: String,
        /// Where.
        socket: String,
    },
    /// A node's process was started.
    NodeStarted {
        /// The node.
        node: String,
        /// With what.
        how: String,
    },
    /// A node answered its probe.
    NodeReady {
        /// The node.
        node: String,
        /// Milliseconds since it was started.
        after: u64,
    },
    /// A node's process ended.
    NodeEnded {
        /// The node.
        node: String,
        /// How, in words.
        status: String,
    },
    /// Something that a person should know.
    Note {
        /// In a sentence.
        text: String,
    },
    /// The lab is up.
    Ready,
    /// The lab goes down.
    Stopping,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting { file } => write!(f, "starting {file}"),
            Self::CleanedUp { processes } => {
                write!(f, "cleaned up what an earlier run left ({processes} processes)")
            }
            Self::SwitchReady { pid } => write!(f, "switch runs (pid {pid})"),
            Self::SwitchLost { why, restarts } => write!(f, "switch {why}; restart {restarts}"),
            Self::Listening { port, socket } => write!(f, "{port} listens on {socket}"),
            Self::NodeStarted { node, how } => write!(f, "{node} started: {how}"),
            Self::NodeReady { node, after } => {
                write!(f, "{node} answers after {}.{:01} s", after / 1000, after % 1000 / 100)
            }
            Self::NodeEnded { node, status } => write!(f, "{node} ended: {status}"),
            Self::Note { text } => f.write_str(text),
            Self::Ready => f.write_str("ready"),
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

/// Where events are told and read. Clones are the same.
#[derive(Debug, Clone)]
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    history: Mutex<History>,
    told: Notify,
}

#[derive(Debug, Default)]
struct History {
    events: VecDeque<Event>,
    next: u64,
    closed: bool,
}

impl Default for Events {
    fn default() -> Self {
        let shared = Shared { origin: Instant::now(), history: Mutex::default(), told: Notify::new() };
        Self { shared: Arc::new(shared) }
    }
}

impl Events {
    /// The number of the next event.
    pub fn next(&self) -> u64 {
        self.history().next
    }

    /// Tells `what` to everybody, and to the log.
    pub fn tell(&self, what: What) {
        tracing::info!("{what}");
        let millis = u64::try_from(self.shared.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        {
            let mut history = self.history();
            let number = history.next;
            history.next += 1;
            if history.events.len() == KEPT {
                history.events.pop_front();
            }
            history.events.push_back(Event { number, millis, what });
        }
        self.shared.told.notify_waiters();
    }

    /// Says that nothing will happen any more: readers end.
    pub fn close(&self) {
        self.history().closed = true;
        self.shared.told.notify_waiters();
    }

    /// The first event from `number` on, waiting for it if need be; none if there will be none.
    pub async fn from(&self, number: u64) -> Option<Event> {
        loop {
            // Registered before looking, so that what is told in between is not missed.
            let told = self.shared.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            {
                let history = self.history();
                let first = history.events.front().map_or(history.next, |event| event.number);
                let index = usize::try_from(number.max(first) - first).unwrap_or(usize::MAX);
                if let Some(event) = history.events.get(index) {
                    return Some(event.clone());
                }
                if history.closed {
                    return None;
                }
            }
            told.await;
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // The history is whole between any two statements, so a panic elsewhere cannot have torn it.
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_reader_hears_everything_and_ends_when_the_lab_does() {
        let events = Events::default();
        events.tell(What::Starting { file: "a.vnet.yaml".into() });
        let reader = tokio::spawn({
            let events = events.clone();
            async move {
                let mut heard = vec![];
                while let Some(event) = events.from(heard.len() as u64).await {
                    heard.push(event.what);
                }
                heard
            }
        });
        tokio::task::yield_now().await;
        events.tell(What::Ready);
        events.close();
        assert_eq!(reader.await.unwrap(), [What::Starting { file: "a.vnet.yaml".into() }, What::Ready]);
    }

    #[tokio::test]
    async fn the_history_is_bounded_and_a_reader_behind_it_goes_on_with_the_oldest() {
        let events = Events::default();
        for _ in 0..KEPT + 10 {
            events.tell(What::Ready);
        }
        assert_eq!(events.from(0).await.unwrap().number, 10);
    }
}
