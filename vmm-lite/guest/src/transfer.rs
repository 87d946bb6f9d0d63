//! Bulk transfers that are asked for on the console, or from the start: bytes over TCP to a sink, and what a sink got.

use crate::console::say;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use probe::{
    Answer, Request,
    answer::{Bulk, Sent},
    ask::{Send, Source},
};

/// How long a transfer may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// `ADDRESS PORT BYTES`, apart by spaces or commas.
pub(crate) fn send(what: &str) -> Option<Request> {
    let mut words = what.split([' ', ',']);
    let address: IpAddr = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    let bytes = words.next()?.parse().ok()?;
    let dst = SocketAddr::new(address, port);
    let send = Send { dst, from: Source::Any, bytes, seed: 0, timeout: PATIENCE };
    words.next().is_none().then_some(Request::Send(send))
}

/// Says how it ended.
pub(crate) fn say_end(answer: &Answer) {
    match answer {
        Answer::Sent(Ok(Sent { bulk: Bulk { bytes, checksum }, elapsed, .. })) => {
            let micros = elapsed.as_micros().max(1) as u64;
            let rate = bytes.saturating_mul(8) / micros;
            say!("sent {bytes} bytes (checksum {checksum:016x}) in {micros} us: {rate} Mbit/s");
        }
        Answer::Sent(Err(why)) => say!("not sent: {why:?}"),
        Answer::Served(Some(Bulk { bytes, checksum })) => {
            say!("got {bytes} bytes (checksum {checksum:016x})");
        }
        Answer::Served(None) => say!("nothing has come to its end yet"),
        Answer::Refused(why) => say!("refused: {why:?}"),
        _ => say!("done"),
    }
}
