//! The answering side of the control socket: one connection, to the controller that started us.

use super::protocol::{Reply, Request, VERSION};
use crate::datapath::Datapath;
use anyhow::{Context, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::{
    io::{IoSliceMut, Write},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
};
use vswitch_core::description::Description;

/// The longest request that is taken; an Apply of some thousand attachments is well below a MiB.
const MAX_REQUEST: usize = 16 << 20;

/// The most descriptors that one request may bring.
const MAX_DESCRIPTORS: usize = 65_536;

/// Bytes of ancillary data that one `recvmsg` can take: the 253 descriptors that one message may carry.
const ANCILLARY: usize = rustix::cmsg_space!(ScmRights(253));

/// Answers requests on `stream` until the other side asks to stop (true) or closes it (false).
///
/// # Errors
/// The other side does not speak the protocol.
pub fn serve(stream: &UnixStream, datapath: &mut Datapath) -> anyhow::Result<bool> {
    while let Some((request, descriptors)) = read_request(stream)? {
        let stop = request == Request::Stop;
        let reply = answer(datapath, request, descriptors)
            .unwrap_or_else(|why| Reply::Refused { why: format!("{why:#}") });
        write_reply(stream, &reply)?;
        if stop {
            return Ok(true);
        }
    }
    Ok(false)
}

fn answer(datapath: &mut Datapath, request: Request, descriptors: Vec<OwnedFd>) -> anyhow::Result<Reply> {
    Ok(match request {
        Request::Hello { version: VERSION } => Reply::Hello { version: VERSION, pid: std::process::id() },
        Request::Hello { version } => bail!("version {version} was asked for, this is version {VERSION}"),
        Request::Apply { attachments, datapath: settings } => {
            let mut descriptors = descriptors.into_iter();
            let described = descriptors.next().context("no description came along")?;
            let description = read_description(described)?;
            datapath.apply(&description, attachments, descriptors.collect(), settings)?;
            Reply::Done
        }
        Request::Snapshot => Reply::Snapshot(datapath.snapshot()?),
        Request::Fdb { port } => Reply::Fdb(datapath.fdb(port)?),
        Request::RuleHits => Reply::RuleHits(datapath.rule_hits()?),
        Request::Connections { ports } => Reply::Connections(datapath.connections(&ports)?),
        Request::Neighbours => Reply::Neighbours(datapath.neighbours()?),
        Request::Routes => Reply::Routes(datapath.routes()?),
        Request::Leases => Reply::Leases(datapath.leases()?),
        Request::Remember(leases) => {
            let bell = descriptors.into_iter().next().context("no descriptor came along")?;
            datapath.remember(leases, bell)?;
            Reply::Done
        }
        Request::Kept => Reply::Kept(datapath.kept()?),
        Request::Trace { port, frame } => Reply::Trace(datapath.trace(port, &frame)?),
        Request::Resume => {
            datapath.resume();
            Reply::Done
        }
        Request::Watch(watch) => Reply::Watching { watch: datapath.watch(&watch)? },
        Request::Sightings { watch } => sightings(datapath, watch, false)?,
        Request::Unwatch { watch } => sightings(datapath, watch, true)?,
        Request::Capture(settings) => {
            let to = descriptors.into_iter().next().context("no socket came along")?;
            Reply::Capturing { capture: datapath.capture(&settings, to)? }
        }
        Request::EndCapture { capture } => {
            datapath.end_capture(capture)?;
            Reply::Done
        }
        Request::Records(wanted) => Reply::Records(datapath.records(&wanted)?),
        Request::Stop => Reply::Done,
    })
}

fn sightings(datapath: &Datapath, watch: u32, end: bool) -> anyhow::Result<Reply> {
    let (sightings, lost) = datapath.sightings(watch, end)?;
    Ok(if end { Reply::Done } else { Reply::Sightings { sightings, lost } })
}

/// Reads a Description from its sealed memfd, from the start whatever the sender's offset.
fn read_description(file: OwnedFd) -> anyhow::Result<Description> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(file);
    let len = usize::try_from(file.metadata()?.len())?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).context("the description cannot be read")?;
    serde_json::from_slice(&bytes).context("the description is garbled")
}

fn read_request(stream: &UnixStream) -> anyhow::Result<Option<(Request, Vec<OwnedFd>)>> {
    let mut descriptors = Vec::new();
    let mut length = [0; 4];
    if !read_exact(stream, &mut length, &mut descriptors)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_REQUEST {
        bail!("a request of {length} bytes");
    }
    let mut body = vec![0; length];
    if !read_exact(stream, &mut body, &mut descriptors)? {
        bail!("the connection ended within a request");
    }
    Ok(Some((serde_json::from_slice(&body).context("a request is garbled")?, descriptors)))
}

/// Fills `buffer`, collecting the descriptors that come along. False: the other side closed before the first byte.
fn read_exact(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> anyhow::Result<bool> {
    let mut at = 0;
    while at < buffer.len() {
        let mut space = [MaybeUninit::uninit(); ANCILLARY];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slice = [IoSliceMut::new(&mut buffer[at..])];
        let received = match recvmsg(stream, &mut slice, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            received => received?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                descriptors.extend(more);
            }
        }
        if descriptors.len() > MAX_DESCRIPTORS {
            bail!("a request brings more than {MAX_DESCRIPTORS} descriptors");
        }
        if received.bytes == 0 {
            if at == 0 {
                return Ok(false);
            }
            bail!("the connection ended within a message");
        }
        at += received.bytes;
    }
    Ok(true)
}

fn write_reply(mut stream: &UnixStream, reply: &Reply) -> anyhow::Result<()> {
    let body = serde_json::to_vec(reply)?;
    let length = u32::try_from(body.len()).context("a reply is too long")?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}
