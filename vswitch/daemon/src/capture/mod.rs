//! Captures: frames of one port, copied by the workers that move them and written as pcapng to whoever asked.
//!
//! ```text
//! worker: batch -> filter -> intake (a ring of bytes; full: the frame is not captured, and counted)
//! writer: a thread of each capture: ring -> pcapng blocks -> descriptor, as fast as its other end reads
//! ```
//!
//! Nothing here ever makes a worker wait.

mod intake;
pub mod pcapng;
pub mod reader;
mod record;
mod writer;

pub(crate) use intake::{Intake, Taken};
pub(crate) use record::Direction;

use crate::{
    control::protocol::CaptureSettings,
    worker::mailbox::{Mailbox, Message},
};
use anyhow::{Context, bail};
use pcapng::Interface;
use record::records;
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};
use vswitch_core::head::MAX_FRAME_LEN;
use writer::Writer;

/// How many captures run at a time: each holds a buffer.
const MAX_CAPTURES: usize = 8;

/// The captures of a datapath that may still run.
#[derive(Default)]
pub(crate) struct Captures {
    running: Vec<JoinHandle<()>>,
    last: u32,
}

impl Captures {
    /// Captures frames of a port that users call `name` into `to`, until [`Captures::end`], or until `to` is closed at its
    /// other end. Returns the capture's number. `origin` is the moment from which the worker's time counts.
    ///
    /// # Errors
    /// Too many run already, or this machine lacks a descriptor or a thread.
    pub(crate) fn start(
        &mut self,
        settings: &CaptureSettings,
        name: String,
        to: OwnedFd,
        workers: &[Arc<Mailbox>],
        origin: Instant,
    ) -> anyhow::Result<u32> {
        self.running.retain(|writer| !writer.is_finished());
        if self.running.len() >= MAX_CAPTURES {
            bail!("{MAX_CAPTURES} captures run already; end one of them");
        }
        self.last += 1;
        let number = self.last;
        let (senders, receiver) = records(workers.len()).context("no event descriptor for a capture")?;
        let told = workers.to_vec();
        let end = move || told.iter().for_each(|worker| worker.send(Message::EndCapture { number }));
        let snap_len = settings.snap_len.clamp(1, MAX_FRAME_LEN);
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let writer = Writer {
            to: UnixStream::from(to),
            interface: Interface { name, filter: settings.filter.to_string(), snap_len },
            origin: since_1970.saturating_sub(origin.elapsed()),
            count: settings.count,
            deadline: settings.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into())),
            records: receiver,
        };
        let thread = std::thread::Builder::new().name(format!("capture-{number}"));
        let running = thread.spawn(move || writer.run(end)).context("no thread for a capture")?;
        self.running.push(running);
        for (worker, sender) in workers.iter().zip(senders) {
            let intake = Intake::new(number, settings.port, settings.filter.clone(), snap_len, sender);
            worker.ask(|answer| Message::Capture { intake: Box::new(intake), answer });
        }
        Ok(number)
    }
}
