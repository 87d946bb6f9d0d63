//! The control socket of a running machine: a line of words asks, a line answers. `ok`, or what was asked for, or
//! `error: ` and why not.
//!
//! ```text
//! state                 running, or paused
//! exits                 KIND=COUNT/NANOSECONDS...: what vCPUs left the guest for, and how long they were here
//! pause, resume         no vCPU runs; all do again
//! link NUMBER up|down   what the driver of that interface, counted from 0, sees of its link
//! power-off             the power button is pressed: a guest that listens to it shuts down
//! kill                  the machine ends now
//! ```

use crate::{
    event::Event,
    machine::{Asked, Remote},
    socket::{ListenError, Listener},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
};

/// The most visitors at a time; one more, and the first has to go.
const MOST_VISITORS: usize = 16;
/// How long nobody is let in if the process has no descriptor left.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// What can be asked.
const USAGE: &str = "state, exits, pause, resume, link NUMBER up|down, power-off, or kill";
/// The longest line that asks anything.
const LONGEST: usize = 128;

/// The socket.
pub(crate) struct Control(Listener);

/// One visitor, and what of a line was read so far.
struct Visitor {
    stream: UnixStream,
    line: Vec<u8>,
}

impl Control {
    /// Listens.
    pub(crate) fn open(path: &Path) -> Result<Self, ListenError> {
        Listener::open(path).map(Self)
    }

    /// Answers until `over` is rung.
    pub(crate) fn serve(self, remote: &Remote, over: &Event) {
        let mut visitors: Vec<Visitor> = Vec::new();
        loop {
            let mut polled = vec![PollFd::new(over, PollFlags::IN)];
            polled.extend(visitors.iter().map(|visitor| PollFd::new(&visitor.stream, PollFlags::IN)));
            polled.push(PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN));
            if poll(&mut polled, None).is_err() {
                continue;
            }
            let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
            if ready[0] {
                return;
            }
            let mut turn = ready.iter().skip(1);
            visitors.retain_mut(|visitor| !turn.next().is_some_and(|ready| *ready) || visitor.turn(remote));
            if !turn.next().is_some_and(|ready| *ready) {
                continue;
            }
            // Who came first and said nothing since keeps nobody out; and without him there is a descriptor, too.
            if visitors.len() == MOST_VISITORS {
                visitors.remove(0);
            }
            if let Ok((stream, _)) = self.0.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    visitors.push(Visitor { stream, line: Vec::new() });
                }
            } else if visitors.is_empty() {
                // The listener stays ready, so that looking again at once would only spin.
                let _ = poll(&mut [PollFd::new(over, PollFlags::IN)], Some(&PAUSE));
            } else {
                visitors.remove(0);
            }
        }
    }
}

impl Visitor {
    /// Reads what is there, and answers what is asked; false if the visit is over.
    fn turn(&mut self, remote: &Remote) -> bool {
        let mut bytes = [0; LONGEST];
        let read = match self.stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(why) => return [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&why.kind()),
        };
        for byte in &bytes[..read] {
            if *byte != b'\n' {
                self.line.push(*byte);
                if self.line.len() > LONGEST {
                    return false;
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let answer = answer(&String::from_utf8_lossy(&line), remote);
            let answer = answer.unwrap_or_else(|why| format!("error: {why}"));
            // Who does not read the answers has no more questions.
            if self.stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
                return false;
            }
        }
        true
    }
}

fn answer(line: &str, remote: &Remote) -> Result<String, String> {
    if line.trim() == "kill" {
        remote.kill();
        return Ok("ok".into());
    }
    remote.ask(parse(line)?)
}

fn parse(line: &str) -> Result<Asked, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["state"] => Ok(Asked::State),
        ["exits"] => Ok(Asked::Exits),
        ["pause"] => Ok(Asked::Pause),
        ["resume"] => Ok(Asked::Resume),
        ["power-off"] => Ok(Asked::PowerOff),
        ["link", number, state @ ("up" | "down")] => {
            let interface = number.parse().map_err(|_| format!("`{number}` is no number of an interface"))?;
            Ok(Asked::Link { interface, up: state == "up" })
        }
        _ => Err(USAGE.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_asks_one_thing() {
        assert_eq!(parse("pause\r"), Ok(Asked::Pause));
        assert_eq!(parse(" link  1 down"), Ok(Asked::Link { interface: 1, up: false }));
        for wrong in ["", "link", "link 0", "link 0 sideways", "link 0 up now", "state state"] {
            assert_eq!(parse(wrong), Err(USAGE.into()));
        }
        assert_eq!(parse("link -1 up"), Err("`-1` is no number of an interface".into()));
    }
}
