//! `Send`: a bulk transfer, made as it is sent, with what the stack counted on the way.

use super::contact;
use crate::{deadline::Deadline, origin::Origin, sys};
use probe::{
    Answer,
    answer::{Bulk, Refusal, SendFailed, Sent},
    ask::Send,
    bulk::{Checksum, Pattern},
};
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::Instant,
};

/// How much is made at a time: few calls, and it stays in a core's cache.
const CHUNK: usize = 256 * 1024;

/// Sends all of it, and waits until the receiver closes.
pub(crate) fn send(ask: Send) -> Result<Answer, Refusal> {
    let deadline = Deadline::after(ask.timeout);
    let mut connection = match contact::tcp(ask.dst, &Origin::find(ask.from)?, deadline)? {
        Ok(connection) => connection,
        Err(contact) => return Ok(Answer::Sent(Err(SendFailed::NotConnected(contact)))),
    };
    let began = Instant::now();
    let mut checksum = Checksum::new();
    let mut taken = 0;
    let result = transfer(&mut connection, ask, deadline, &mut checksum, &mut taken);
    let elapsed = began.elapsed();
    if result.is_err() {
        return Ok(Answer::Sent(Err(SendFailed::Broken { after: taken })));
    }
    let counts = sys::tcp_counts(&connection).ok();
    Ok(Answer::Sent(Ok(Sent {
        bulk: Bulk { bytes: ask.bytes, checksum: checksum.value() },
        elapsed,
        segments_sent: counts.map(|counts| counts.sent),
        segments_retransmitted: counts.map(|counts| counts.retransmitted),
    })))
}

/// Sends the pattern through a connection that does not block, and reads until its end. `taken` counts what the stack took.
fn transfer(
    connection: &mut TcpStream,
    ask: Send,
    deadline: Deadline,
    checksum: &mut Checksum,
    taken: &mut u64,
) -> io::Result<()> {
    let mut pattern = Pattern::new(ask.seed);
    let mut buffer = vec![0; CHUNK];
    let mut left = ask.bytes;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let Some(mut chunk) = buffer.get_mut(..len).map(|chunk| {
            pattern.fill(chunk);
            checksum.update(chunk);
            &*chunk
        }) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        left -= len as u64;
        while !chunk.is_empty() {
            match connection.write(chunk) {
                Ok(len) => {
                    chunk = chunk.get(len..).unwrap_or_default();
                    *taken += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(connection, PollFlags::OUT, deadline)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    connection.shutdown(Shutdown::Write)?;
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return Ok(()),
            // A sink says nothing; an echo service at that port does, and must be heard to its end.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(connection, PollFlags::IN, deadline)?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn wait(connection: &TcpStream, event: PollFlags, deadline: Deadline) -> io::Result<()> {
    let left = deadline.left().ok_or(io::ErrorKind::TimedOut)?;
    match poll(&mut [PollFd::new(connection, event)], Some(&left))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
