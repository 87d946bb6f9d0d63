//! `transfer`: bytes over TCP from one node to another, and whether they arrived as they left.

use super::{
    ask::common,
    run::Running,
    words::{unexpected, unreachable},
};
use crate::{
    api::types::{TransferEnd, TransferReport, TransferRequest},
    failure::Failure,
    probing::Line,
};
use probe::{
    Answer, Request,
    answer::{Bulk, Contact, Refusal, SendFailed},
    ask,
};
use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};
use topology::plan::{Interface, Node};

/// Where the receiver takes transfers: a port that IANA leaves to whoever wants one (RFC 6335 §6).
const PORT: u16 = 49_152;

/// How long a transfer may take whatever its size, and how much longer for each MiB: a guest under emulation does more.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_PER_MIB: Duration = Duration::from_secs(1);

impl Running {
    /// Sends bytes over TCP from one node to another. Each end takes a checksum of what it saw.
    ///
    /// # Errors
    /// A node cannot be asked, no connection stands, it breaks, or what arrived is not what was sent.
    pub async fn transfer(&self, request: &TransferRequest) -> Result<TransferReport, Failure> {
        let (src, dst) = (self.interface(&request.src)?, self.interface(&request.dst)?);
        if src.0.name == dst.0.name {
            let message = format!("{} is both ends: nothing would cross the switch", src.0.name);
            return Err(Failure::invalid("same-node", message).mend("say two nodes"));
        }
        let addresses = common(src.1, dst.1).ok_or_else(|| {
            let message = format!("{} and {} have no addresses of one family", request.src, request.dst);
            Failure::invalid("no-addresses", message).mend("give both `addresses` in the topology file")
        })?;
        let (sender, receiver) = (self.line_of(&request.src, src)?, self.line_of(&request.dst, dst)?);
        match ask(receiver, Request::Serve { port: PORT }).await? {
            // It is open since an earlier transfer; if it is another's, `Served` says so.
            Answer::Done | Answer::Refused(Refusal::PortTaken) => {}
            other => return Err(refused(&request.dst, &other)),
        }
        let mebibytes = u32::try_from(request.bytes >> 20).unwrap_or(u32::MAX);
        let send = ask::Send {
            dst: SocketAddr::new(addresses.dst, PORT),
            from: ask::Source::Address(addresses.src),
            bytes: request.bytes,
            seed: seed(),
            timeout: PATIENCE + PATIENCE_PER_MIB * mebibytes,
        };
        let sent = match ask(sender, Request::Send(send)).await? {
            Answer::Sent(Ok(sent)) => sent,
            Answer::Sent(Err(why)) => {
                let message = format!("from {} to {}: {}", request.src, send.dst, broken(why));
                return Err(Failure::failed("transfer-broken", message));
            }
            other => return Err(refused(&request.src, &other)),
        };
        let received = match ask(receiver, Request::Served { port: PORT }).await? {
            Answer::Served(Some(received)) => received,
            other => return Err(refused(&request.dst, &other)),
        };
        if received != sent.bulk {
            let message = format!(
                "{} sent {}, and {} received {}",
                request.src,
                words(sent.bulk),
                request.dst,
                words(received)
            );
            return Err(Failure::failed("transfer-damaged", message));
        }
        Ok(TransferReport {
            src: format!("{}:{}", src.0.name, src.1.name),
            dst: format!("{}:{}", dst.0.name, dst.1.name),
            address: addresses.dst,
            sent: end(sent.bulk),
            received: end(received),
            elapsed_micros: u64::try_from(sent.elapsed.as_micros()).unwrap_or(u64::MAX),
            segments_sent: sent.segments_sent,
            segments_retransmitted: sent.segments_retransmitted,
        })
    }

    fn line_of(&self, said: &str, (node, _): (&Node, &Interface)) -> Result<&Line, Failure> {
        self.lines.get(&node.name).ok_or_else(|| {
            Failure::invalid("not-asked", format!("{said} cannot be asked to send or receive"))
                .mend("`vnet show nodes` lists the nodes; those that are ready can")
        })
    }
}

async fn ask(line: &Line, request: Request) -> Result<Answer, Failure> {
    line.ask(request).await.map_err(|why| Failure::failed("silent-node", why))
}

fn refused(node: &str, answer: &Answer) -> Failure {
    Failure::failed("transfer-refused", format!("{node}: {}", unexpected(answer)))
}

/// Another one each time, so that what arrived earlier cannot be taken for this transfer.
fn seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(since.subsec_nanos()))
}

const fn end(bulk: Bulk) -> TransferEnd {
    TransferEnd { bytes: bulk.bytes, checksum: bulk.checksum }
}

fn words(bulk: Bulk) -> String {
    format!("{} bytes with checksum {:016x}", bulk.bytes, bulk.checksum)
}

/// Why a transfer did not end well, in words.
fn broken(why: SendFailed) -> String {
    match why {
        SendFailed::NotConnected(Contact::Unreachable(why)) => unreachable(why).into(),
        SendFailed::NotConnected(Contact::Refused) => "the connection was refused".into(),
        SendFailed::NotConnected(Contact::TimedOut | Contact::Answered(_)) => {
            "no connection stood in time".into()
        }
        SendFailed::Broken { after } => format!("the connection broke, or time ran out, after {after} bytes"),
    }
}
