//! `Connect` and `UdpEcho`: is the service there?

use crate::{
    deadline::Deadline,
    origin::{Origin, system},
    sys,
};
use probe::{
    Answer,
    answer::{Contact, Refusal},
    ask::{Connect, MAX_PAYLOAD, UdpEcho},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{self, SocketType, sockopt},
};
use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Instant,
};

/// A TCP connection that is closed as soon as it stands.
pub(crate) fn connect(ask: Connect) -> Result<Answer, Refusal> {
    let began = Instant::now();
    let contact = match tcp(ask.dst, &Origin::find(ask.from)?, Deadline::after(ask.timeout))? {
        Ok(_connection) => Contact::Answered(began.elapsed()),
        Err(contact) => contact,
    };
    Ok(Answer::Connect(contact))
}

/// A connection to `dst` that does not block, or why there is none.
pub(crate) fn tcp(
    dst: SocketAddr,
    origin: &Origin,
    deadline: Deadline,
) -> Result<Result<TcpStream, Contact>, Refusal> {
    let socket = origin.socket(dst.ip(), SocketType::STREAM, None)?;
    match net::connect(&socket, &origin.scoped(dst)) {
        Ok(()) => return Ok(Ok(socket.into())),
        Err(Errno::INPROGRESS) => {}
        Err(errno) => return origin.contact(errno, dst.ip()).map(Err),
    }
    let ready = match deadline.left() {
        Some(left) => poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&left)),
        None => Ok(0),
    };
    if ready.map_err(|errno| system("wait for the connection", errno))? == 0 {
        return origin.silence(dst.ip()).map(Err);
    }
    match sockopt::socket_error(&socket).map_err(|errno| system("read the socket's error", errno))? {
        Ok(()) => Ok(Ok(socket.into())),
        Err(errno) => origin.contact(errno, dst.ip()).map(Err),
    }
}

/// A datagram that is expected back as it was.
pub(crate) fn udp_echo(ask: &UdpEcho) -> Result<Answer, Refusal> {
    if ask.payload.len() > usize::from(MAX_PAYLOAD) {
        return Err(Refusal::OutOfBounds);
    }
    let origin = Origin::find(ask.from)?;
    let deadline = Deadline::after(ask.timeout);
    let socket = origin.socket(ask.dst.ip(), SocketType::DGRAM, None)?;
    sys::report_errors(&socket, ask.dst.ip()).map_err(|error| system("ask for ICMP errors", error))?;
    let began = Instant::now();
    if let Err(errno) = net::connect(&socket, &origin.scoped(ask.dst)) {
        return origin.contact(errno, ask.dst.ip()).map(Answer::UdpEcho);
    }
    let socket = UdpSocket::from(socket);
    let contact = match exchange(&socket, &ask.payload, deadline) {
        Ok(true) => Contact::Answered(began.elapsed()),
        Ok(false) => origin.silence(ask.dst.ip())?,
        Err(errno) => origin.contact(errno, ask.dst.ip())?,
    };
    Ok(Answer::UdpEcho(contact))
}

/// Sends `payload` and waits until the same comes back; false: it did not in time.
fn exchange(socket: &UdpSocket, payload: &[u8], deadline: Deadline) -> Result<bool, Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    socket.send(payload).map_err(errno)?;
    // One byte more than expected, so that a longer datagram does not look like the one sent.
    let mut answer = vec![0; payload.len() + 1];
    loop {
        let Some(left) = deadline.left() else { return Ok(false) };
        if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left))? == 0 {
            return Ok(false);
        }
        match socket.recv(&mut answer) {
            Ok(len) if answer.get(..len) == Some(payload) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(errno(error)),
        }
    }
}
