//! The asking side of the control socket: one request, one reply, each before a deadline.

use super::protocol::{
    Attachment, CaptureSettings, ConnectionTable, DatapathSettings, FdbTable, Journey, Kept, KeptLease,
    LeaseTable, NeighbourTable, Records, RecordsWanted, Reply, Request, RouteRow, RuleHits, Sighting,
    Snapshot, VERSION, Watch,
};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use std::{
    fs::File,
    io::{self, IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};
use vswitch_core::{description::Description, id::PortId};

/// The longest reply that is taken: a snapshot of a few thousand ports is a few MiB.
const MAX_REPLY: u32 = 64 << 20;

/// The most descriptors that one message of the socket carries (SCM_MAX_FD, unix(7)).
const DESCRIPTORS_PER_MESSAGE: usize = 253;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed, ended, or the deadline passed; it is of no further use.
    #[error("the switch process does not answer on its control socket: {0}")]
    Io(#[from] io::Error),
    /// The deadline passed; the connection is of no further use.
    #[error("the switch process does not answer on its control socket: no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// What came is not a reply of this protocol; the connection is of no further use.
    #[error("the switch process answered something that is not a reply: {0}")]
    Garbled(String),
    /// The switch process refused, and changed nothing.
    #[error("the switch process refused: {0}")]
    Refused(String),
}

/// A connection to one switch process.
///
/// After any error but [`ClientError::Refused`] request and reply may be out of step, so every later request fails at
/// once.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    pid: u32,
    deadline: Duration,
    broken: bool,
}

impl Client {
    /// Shakes hands on `stream`. `deadline` holds for each wait of this and of every later request.
    ///
    /// # Errors
    /// The other side does not answer in time, or is of another version.
    pub fn new(stream: UnixStream, deadline: Duration) -> Result<Self, ClientError> {
        stream.set_read_timeout(Some(deadline))?;
        stream.set_write_timeout(Some(deadline))?;
        let mut client = Self { stream, pid: 0, deadline, broken: false };
        match client.ask(&Request::Hello { version: VERSION }, &[])? {
            Reply::Hello { version: VERSION, pid } => client.pid = pid,
            Reply::Hello { version, .. } => {
                return Err(ClientError::Garbled(format!(
                    "it speaks version {version}, this is version {VERSION}"
                )));
            }
            other => return Err(unexpected(&other)),
        }
        Ok(client)
    }

    /// The process id of the other side, as it said.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Makes the switch become `description`. `descriptors` are those of the attachments that have one, in order.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn apply(
        &mut self,
        description: &Description,
        attachments: Vec<Attachment>,
        descriptors: &[BorrowedFd<'_>],
        datapath: DatapathSettings,
    ) -> Result<(), ClientError> {
        let sealed = sealed_json(description)?;
        let mut all = vec![sealed.as_fd()];
        all.extend_from_slice(descriptors);
        self.done(&Request::Apply { attachments, datapath }, &all)
    }

    /// Everything countable.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn snapshot(&mut self) -> Result<Snapshot, ClientError> {
        match self.ask(&Request::Snapshot, &[])? {
            Reply::Snapshot(snapshot) => Ok(snapshot),
            other => Err(unexpected(&other)),
        }
    }

    /// The learned and static addresses; with `port` only those that are there.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn fdb(&mut self, port: Option<PortId>) -> Result<FdbTable, ClientError> {
        match self.ask(&Request::Fdb { port }, &[])? {
            Reply::Fdb(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// How often rules decided.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn rule_hits(&mut self) -> Result<RuleHits, ClientError> {
        match self.ask(&Request::RuleHits, &[])? {
            Reply::RuleHits(hits) => Ok(hits),
            other => Err(unexpected(&other)),
        }
    }

    /// The connections that the firewalls of these ports have allowed; of all, if there are none.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn connections(&mut self, ports: Vec<PortId>) -> Result<ConnectionTable, ClientError> {
        match self.ask(&Request::Connections { ports }, &[])? {
            Reply::Connections(table) => Ok(table),
            other => Err(unexpected(&other)),
        }
    }

    /// The neighbours that routers know.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn neighbours(&mut self) -> Result<NeighbourTable, ClientError> {
        match self.ask(&Request::Neighbours, &[])? {
            Reply::Neighbours(table) => Ok(table),
            other => Err(unexpected(&other)),
        }
    }

    /// The addresses that gateways have given.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn leases(&mut self) -> Result<LeaseTable, ClientError> {
        match self.ask(&Request::Leases, &[])? {
            Reply::Leases(table) => Ok(table),
            other => Err(unexpected(&other)),
        }
    }

    /// Says, before the first lab, what is to be remembered of leases; into `bell`, a stream socket, a byte is sent whenever that changes.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn remember(&mut self, leases: Vec<KeptLease>, bell: BorrowedFd<'_>) -> Result<(), ClientError> {
        self.done(&Request::Remember(leases), &[bell])
    }

    /// What is to be remembered of leases; none: that is not known yet.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn kept(&mut self) -> Result<Option<Kept>, ClientError> {
        match self.ask(&Request::Kept, &[])? {
            Reply::Kept(kept) => Ok(kept),
            other => Err(unexpected(&other)),
        }
    }

    /// The routes of all routers.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn routes(&mut self) -> Result<Vec<RouteRow>, ClientError> {
        match self.ask(&Request::Routes, &[])? {
            Reply::Routes(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// What would become of `frame` if it came in on `port` now.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn trace(&mut self, port: PortId, frame: Vec<u8>) -> Result<Journey, ClientError> {
        match self.ask(&Request::Trace { port, frame }, &[])? {
            Reply::Trace(journey) => Ok(journey),
            other => Err(unexpected(&other)),
        }
    }

    /// Notes frames that match from now on; returns the watch's number.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn watch(&mut self, watch: Watch) -> Result<u32, ClientError> {
        match self.ask(&Request::Watch(watch), &[])? {
            Reply::Watching { watch } => Ok(watch),
            other => Err(unexpected(&other)),
        }
    }

    /// What a watch saw so far, and how many frames there was no room for.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn sightings(&mut self, watch: u32) -> Result<(Vec<Sighting>, u64), ClientError> {
        match self.ask(&Request::Sightings { watch }, &[])? {
            Reply::Sightings { sightings, lost } => Ok((sightings, lost)),
            other => Err(unexpected(&other)),
        }
    }

    /// Drops a watch.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn unwatch(&mut self, watch: u32) -> Result<(), ClientError> {
        self.done(&Request::Unwatch { watch }, &[])
    }

    /// Says, before the first lab, that a switch before this one had it: connections that run already are picked up for a while, if the rules allow
    /// them to be opened.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn resume(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Resume, &[])
    }

    /// Captures frames of a port, as pcapng, into the stream socket `to`, until [`Client::end_capture`], or until the other end
    /// of `to` is closed; returns the capture's number.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn capture(&mut self, settings: CaptureSettings, to: BorrowedFd<'_>) -> Result<u32, ClientError> {
        match self.ask(&Request::Capture(settings), &[to])? {
            Reply::Capturing { capture } => Ok(capture),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a capture, if it did not end yet: what it has is still written.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn end_capture(&mut self, capture: u32) -> Result<(), ClientError> {
        self.done(&Request::EndCapture { capture }, &[])
    }

    /// Some of what was recorded.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn records(&mut self, wanted: RecordsWanted) -> Result<Records, ClientError> {
        match self.ask(&Request::Records(wanted), &[])? {
            Reply::Records(records) => Ok(records),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the process in order.
    ///
    /// # Errors
    /// Refused, or the connection failed.
    pub fn stop(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Stop, &[])
    }

    fn done(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        match self.ask(request, descriptors)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks once. A refusal is an error that leaves the connection usable.
    fn ask(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, ClientError> {
        if self.broken {
            let text = "it left an earlier request without an answer";
            return Err(io::Error::new(io::ErrorKind::NotConnected, text).into());
        }
        self.broken = true;
        let reply = self.exchange(request, descriptors).map_err(|why| match why {
            // What a socket with a timeout says when it is over (socket(7), SO_RCVTIMEO).
            ClientError::Io(why) if why.kind() == io::ErrorKind::WouldBlock => {
                ClientError::Silent(self.deadline)
            }
            why => why,
        })?;
        self.broken = false;
        match reply {
            Reply::Refused { why } => Err(ClientError::Refused(why)),
            reply => Ok(reply),
        }
    }

    fn exchange(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, ClientError> {
        let body = serde_json::to_vec(request).map_err(|e| ClientError::Garbled(e.to_string()))?;
        let length = u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let message = [&length.to_le_bytes(), body.as_slice()].concat();
        send(&self.stream, &message, descriptors)?;
        receive(&self.stream)
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    let text = format!("{reply:?}");
    ClientError::Garbled(text.chars().take(80).collect())
}

/// The JSON of `description` in memory that nobody can change any more.
fn sealed_json(description: &Description) -> Result<OwnedFd, ClientError> {
    let memory = memfd_create("vnet-description", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(io::Error::from)?;
    let mut file = File::from(memory);
    let json = serde_json::to_vec(description).map_err(|e| ClientError::Garbled(e.to_string()))?;
    file.write_all(&json)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)
        .map_err(io::Error::from)?;
    Ok(file.into())
}

/// Sends `message`, its descriptors with the first byte. More than fit one socket message go on with the next bytes,
/// in order.
fn send(mut stream: &UnixStream, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut rest = message;
    for some in descriptors.chunks(DESCRIPTORS_PER_MESSAGE) {
        let (byte, behind) =
            rest.split_first_chunk::<1>().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(stream, &[IoSlice::new(byte)], &mut ancillary, SendFlags::NOSIGNAL)?;
        rest = behind;
    }
    stream.write_all(rest)
}

fn receive(mut stream: &UnixStream) -> Result<Reply, ClientError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_REPLY {
        return Err(ClientError::Garbled(format!("{length} bytes")));
    }
    let mut body = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut body)?;
    if body.len() as u64 != u64::from(length) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    serde_json::from_slice(&body).map_err(|e| ClientError::Garbled(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::protocol::{NeighbourRow, NeighbourState, RouteKind},
        routers::{Counts, Lost},
    };
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::{io::IoSliceMut, thread};
    use vswitch_core::{id::Epoch, vlan::VlanId};

    const SOON: Duration = Duration::from_secs(5);

    /// Reads one request and the descriptors that came with it.
    fn take(stream: &UnixStream) -> (Request, Vec<OwnedFd>) {
        let mut message = Vec::new();
        let mut descriptors = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let mut space =
                vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let got =
                recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                    .unwrap();
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = message {
                    descriptors.extend(some);
                }
            }
            message.extend_from_slice(&bytes[..got.bytes]);
            if let Some((length, body)) = message.split_first_chunk::<4>()
                && body.len() == u32::from_le_bytes(*length) as usize
            {
                return (serde_json::from_slice(body).unwrap(), descriptors);
            }
        }
    }

    fn give(mut stream: &UnixStream, reply: &Reply) {
        let body = serde_json::to_vec(reply).unwrap();
        stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).unwrap();
        stream.write_all(&body).unwrap();
    }

    fn answering(answer: impl FnOnce(&UnixStream) + Send + 'static) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            assert_eq!(take(&theirs).0, Request::Hello { version: VERSION });
            give(&theirs, &Reply::Hello { version: VERSION, pid: 7 });
            answer(&theirs);
        });
        Client::new(ours, SOON).unwrap()
    }

    #[test]
    fn apply_carries_a_sealed_description_and_more_descriptors_than_one_message_holds() {
        let description = Description {
            lab: "lab".into(),
            file: "lab.vnet.yaml".into(),
            epoch: Epoch::new(1),
            vlans: vec![],
            switches: vec![],
            ports: vec![],
            groups: Vec::new(),
            trunks: vec![],
            routing: None,
        };
        let sent = description.clone();
        let mut client = answering(move |stream| {
            let (request, mut descriptors) = take(stream);
            assert!(matches!(request, Request::Apply { .. }));
            assert_eq!(descriptors.len(), 301);
            let mut file = File::from(descriptors.remove(0));
            assert!(file.write_all(b"x").is_err(), "the seal forbids a change");
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
            assert_eq!(serde_json::from_reader::<_, Description>(&mut file).unwrap(), sent);
            give(stream, &Reply::Done);
        });
        let (a, _b) = UnixStream::pair().unwrap();
        let settings = DatapathSettings::default();
        client.apply(&description, vec![], &[a.as_fd(); 300], settings).unwrap();
        assert_eq!(client.pid(), 7);
    }

    #[test]
    fn neighbours_and_routes_come_as_they_are_said() {
        let vlan = VlanId::new(10).unwrap();
        let neighbour = NeighbourRow {
            vlan,
            address: [10, 0, 10, 7].into(),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
            age_secs: 31,
            used_secs: None,
            state: NeighbourState::Stale,
        };
        let counts = Counts { asked: 3, lost: [(Lost::NoRoute, 1)].into(), ..Counts::default() };
        let table = NeighbourTable { rows: vec![neighbour], counts };
        let route = RouteRow {
            router: "default".into(),
            to: "2001:db8::/32".parse().unwrap(),
            kind: RouteKind::Static,
            via: Some("2001:db8:10::9".parse().unwrap()),
            vlan: Some(vlan),
            line: 12,
        };
        let (said, way) = (table.clone(), route.clone());
        let mut client = answering(move |stream| {
            assert_eq!(take(stream).0, Request::Neighbours);
            give(stream, &Reply::Neighbours(said));
            assert_eq!(take(stream).0, Request::Routes);
            give(stream, &Reply::Routes(vec![way]));
        });
        assert_eq!(client.neighbours().unwrap(), table);
        assert_eq!(client.routes().unwrap(), [route]);
    }

    #[test]
    fn a_switch_that_is_stopped_has_its_deadline_named() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let why = Client::new(ours, Duration::from_millis(1)).unwrap_err();
        assert!(matches!(why, ClientError::Silent(_)), "{why}");
        let why = ClientError::Silent(Duration::from_secs(10)).to_string();
        assert!(why.ends_with("no answer within 10 s"), "{why}");
        drop(theirs);
    }

    #[test]
    fn a_refusal_leaves_the_connection_usable_and_silence_does_not() {
        let mut client = answering(|stream| {
            take(stream);
            give(stream, &Reply::Refused { why: "no such port".into() });
            take(stream);
            give(stream, &Reply::Fdb(FdbTable::default()));
            take(stream);
        });
        assert!(matches!(client.unwatch(1), Err(ClientError::Refused(why)) if why == "no such port"));
        assert_eq!(client.fdb(None).unwrap(), FdbTable::default());
        assert!(matches!(client.fdb(None), Err(ClientError::Io(_))), "the other side went away");
        assert!(
            matches!(client.fdb(None), Err(ClientError::Io(e)) if e.kind() == io::ErrorKind::NotConnected)
        );
    }
}
