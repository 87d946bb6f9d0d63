//! vhost-user messages as bytes: the header, and one closed enum of the requests that a net frontend may send.
//!
//! Layouts are those of the vhost-user specification ("Message format", "Front-end message types"); every number is
//! in the machine's own byte order, which is little endian wherever this runs.

use thiserror::Error;

/// Bytes of a message's header: request, flags, size of the payload (u32 each).
pub const HEADER_BYTES: usize = 12;
/// The largest payload that is read. The largest that is used is a table of 32 regions (1032 bytes).
pub const MAX_PAYLOAD: usize = 4096;
/// Regions in one SET_MEM_TABLE: what the daemon takes. The protocol demands 8 (VHOST_MEMORY_BASELINE_NREGIONS).
pub const MAX_TABLE_REGIONS: usize = 32;
/// Descriptors taken from one message, so that a table of too many regions can still be refused rather than cut off.
pub const MAX_FDS: usize = 2 * MAX_TABLE_REGIONS;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 0x3;
const FLAG_REPLY: u32 = 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;
/// In the payload of SET_VRING_KICK, CALL and ERR: no descriptor comes with the message.
const NO_FD: u64 = 1 << 8;

/// Request numbers ("Front-end message types").
pub mod code {
    #![expect(missing_docs, reason = "the names are those of the specification, without VHOST_USER_")]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
}

/// What is wrong with a message's form. After any of these the stream cannot be trusted any further.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Not version 1, a reply, or reserved flag bits.
    #[error("header flags {0:#x}: a request of version 1 has only the NEED_REPLY bit beside it")]
    Flags(u32),
    /// The payload is longer than any request of the protocol.
    #[error("a payload of {0} bytes is longer than the largest of the protocol ({MAX_PAYLOAD})")]
    TooLong(u32),
    /// The payload has not the length that its request demands.
    #[error("{request} cannot have a payload of {bytes} bytes")]
    Length {
        /// The request's name.
        request: &'static str,
        /// The length that came.
        bytes: usize,
    },
}

/// A message's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The request's number.
    pub code: u32,
    /// The frontend waits for an acknowledgement (if REPLY_ACK was negotiated).
    pub need_reply: bool,
    /// Bytes of payload that follow.
    pub size: usize,
}

impl Header {
    /// Reads and checks a request's header; nothing of the payload need have come.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let (code, flags, size) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8));
        if flags & !FLAG_NEED_REPLY != VERSION {
            return Err(WireError::Flags(flags));
        }
        if size as usize > MAX_PAYLOAD {
            return Err(WireError::TooLong(size));
        }
        Ok(Self { code, need_reply: flags & FLAG_NEED_REPLY != 0, size: size as usize })
    }

    /// The payload's size in a reply's header, or None if it is no reply.
    pub fn parse_reply(bytes: &[u8; HEADER_BYTES]) -> Option<usize> {
        let (flags, size) = (u32_at(bytes, 4), u32_at(bytes, 8) as usize);
        (flags & VERSION_MASK == VERSION && flags & FLAG_REPLY != 0 && size <= MAX_PAYLOAD).then_some(size)
    }
}

/// A request's bytes, asking for an acknowledgement.
pub fn request_bytes(code: u32, payload: &[u8]) -> Vec<u8> {
    message(code, VERSION | FLAG_NEED_REPLY, payload)
}

/// A reply's bytes.
pub fn reply_bytes(code: u32, payload: &[u8]) -> Vec<u8> {
    message(code, VERSION | FLAG_REPLY, payload)
}

fn message(code: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    for word in [code, flags, payload.len() as u32] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// One region of guest memory as the frontend describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// Address in the frontend's own address space, in which ring addresses are given.
    pub user: u64,
    /// Where the region starts in its file.
    pub offset: u64,
}

impl Region {
    /// Bytes of a region in a message.
    pub const BYTES: usize = 32;

    fn parse(bytes: &[u8]) -> Self {
        Self {
            guest: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
            user: u64_at(bytes, 16),
            offset: u64_at(bytes, 24),
        }
    }

    /// The region as it stands in a message.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip([self.guest, self.size, self.user, self.offset]) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// Where the three parts of a ring lie, in the frontend's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAddresses {
    /// VHOST_VRING_F_LOG and nothing else is defined.
    pub flags: u32,
    /// Descriptor table.
    pub desc: u64,
    /// Used ring.
    pub used: u64,
    /// Avail ring.
    pub avail: u64,
}

/// Which of a ring's three eventfds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notifier {
    /// Driver to device: buffers were made available.
    Kick,
    /// Device to driver: buffers were used.
    Call,
    /// Device to driver: the ring failed.
    Err,
}

/// A request whose form is right; whether it is allowed now is the gate's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are a ring's index and the value that the variant names")]
pub enum Request {
    /// What virtio features are offered?
    GetFeatures,
    /// The virtio features that the driver took.
    SetFeatures(u64),
    /// The session begins.
    SetOwner,
    /// Disable all rings (deprecated).
    ResetOwner,
    /// The whole of guest memory.
    SetMemTable(Vec<Region>),
    /// A ring's size.
    VringNum { ring: u32, size: u32 },
    /// A ring's addresses.
    VringAddr { ring: u32, at: RingAddresses },
    /// The avail index from which a ring goes on.
    VringBase { ring: u32, base: u32 },
    /// Stop the ring; how far was it?
    GetVringBase { ring: u32 },
    /// One of a ring's eventfds, or that there is none.
    VringFd { ring: u64, notifier: Notifier, has_fd: bool },
    /// What protocol features are offered?
    GetProtocolFeatures,
    /// The protocol features that the frontend took.
    SetProtocolFeatures(u64),
    /// How many rings are there?
    GetQueueNum,
    /// Let the ring pass frames, or not.
    VringEnable { ring: u32, enable: u32 },
    /// Disable all rings and forget what the driver set.
    ResetDevice,
    /// How many regions of memory can there be?
    GetMaxMemSlots,
    /// One more region.
    AddMemReg(Region),
    /// One region less.
    RemMemReg(Region),
    /// Anything else: not offered, or not known.
    Other(u32),
}

impl Request {
    /// Reads the payload of the request `code`.
    pub fn parse(code: u32, payload: &[u8]) -> Result<Self, WireError> {
        let exactly = |bytes: usize| match payload.len() == bytes {
            true => Ok(()),
            false => Err(WireError::Length { request: name(code), bytes: payload.len() }),
        };
        let value = || exactly(8).map(|()| u64_at(payload, 0));
        let state = || exactly(8).map(|()| (u32_at(payload, 0), u32_at(payload, 4)));
        let region = || exactly(8 + Region::BYTES).map(|()| Region::parse(&payload[8..]));
        let bare = |request: Self| exactly(0).map(|()| request);
        let fd =
            |notifier| value().map(|v| Self::VringFd { ring: v & !NO_FD, notifier, has_fd: v & NO_FD == 0 });
        match code {
            code::GET_FEATURES => bare(Self::GetFeatures),
            code::SET_FEATURES => value().map(Self::SetFeatures),
            code::SET_OWNER => bare(Self::SetOwner),
            code::RESET_OWNER => bare(Self::ResetOwner),
            code::SET_MEM_TABLE => parse_table(payload),
            code::SET_VRING_NUM => state().map(|(ring, size)| Self::VringNum { ring, size }),
            code::SET_VRING_ADDR => exactly(40).map(|()| parse_addresses(payload)),
            code::SET_VRING_BASE => state().map(|(ring, base)| Self::VringBase { ring, base }),
            code::GET_VRING_BASE => state().map(|(ring, _)| Self::GetVringBase { ring }),
            code::SET_VRING_KICK => fd(Notifier::Kick),
            code::SET_VRING_CALL => fd(Notifier::Call),
            code::SET_VRING_ERR => fd(Notifier::Err),
            code::GET_PROTOCOL_FEATURES => bare(Self::GetProtocolFeatures),
            code::SET_PROTOCOL_FEATURES => value().map(Self::SetProtocolFeatures),
            code::GET_QUEUE_NUM => bare(Self::GetQueueNum),
            code::SET_VRING_ENABLE => state().map(|(ring, enable)| Self::VringEnable { ring, enable }),
            code::RESET_DEVICE => bare(Self::ResetDevice),
            code::GET_MAX_MEM_SLOTS => bare(Self::GetMaxMemSlots),
            code::ADD_MEM_REG => region().map(Self::AddMemReg),
            code::REM_MEM_REG => region().map(Self::RemMemReg),
            other => Ok(Self::Other(other)),
        }
    }

    /// Whether the request is answered by a value of its own, so that an acknowledgement cannot stand in for it.
    pub fn wants_value(&self) -> bool {
        matches!(
            self,
            Self::GetFeatures
                | Self::GetProtocolFeatures
                | Self::GetQueueNum
                | Self::GetVringBase { .. }
                | Self::GetMaxMemSlots
        )
    }
}

/// The count, and as many regions as fill the payload; the count itself may be as wrong as it likes.
fn parse_table(payload: &[u8]) -> Result<Request, WireError> {
    let wrong = || WireError::Length { request: name(code::SET_MEM_TABLE), bytes: payload.len() };
    let regions = payload.get(8..).ok_or_else(wrong)?;
    if regions.len() != u32_at(payload, 0) as usize * Region::BYTES {
        return Err(wrong());
    }
    Ok(Request::SetMemTable(regions.chunks_exact(Region::BYTES).map(Region::parse).collect()))
}

fn parse_addresses(payload: &[u8]) -> Request {
    let at = RingAddresses {
        flags: u32_at(payload, 4),
        desc: u64_at(payload, 8),
        used: u64_at(payload, 16),
        avail: u64_at(payload, 24),
    };
    Request::VringAddr { ring: u32_at(payload, 0), at }
}

/// SET_MEM_TABLE's payload.
pub fn table_payload(regions: &[Region]) -> Vec<u8> {
    let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
    for region in regions {
        payload.extend_from_slice(&region.bytes());
    }
    payload
}

/// The payload of the requests that take a ring and a number.
pub fn state_payload(ring: u32, value: u32) -> Vec<u8> {
    [ring.to_ne_bytes(), value.to_ne_bytes()].concat()
}

/// A request's name, for messages to people.
pub fn name(code: u32) -> &'static str {
    const NAMES: [&str; 45] = [
        "request 0",
        "GET_FEATURES",
        "SET_FEATURES",
        "SET_OWNER",
        "RESET_OWNER",
        "SET_MEM_TABLE",
        "SET_LOG_BASE",
        "SET_LOG_FD",
        "SET_VRING_NUM",
        "SET_VRING_ADDR",
        "SET_VRING_BASE",
        "GET_VRING_BASE",
        "SET_VRING_KICK",
        "SET_VRING_CALL",
        "SET_VRING_ERR",
        "GET_PROTOCOL_FEATURES",
        "SET_PROTOCOL_FEATURES",
        "GET_QUEUE_NUM",
        "SET_VRING_ENABLE",
        "SEND_RARP",
        "NET_SET_MTU",
        "SET_BACKEND_REQ_FD",
        "IOTLB_MSG",
        "SET_VRING_ENDIAN",
        "GET_CONFIG",
        "SET_CONFIG",
        "CREATE_CRYPTO_SESSION",
        "CLOSE_CRYPTO_SESSION",
        "POSTCOPY_ADVISE",
        "POSTCOPY_LISTEN",
        "POSTCOPY_END",
        "GET_INFLIGHT_FD",
        "SET_INFLIGHT_FD",
        "GPU_SET_SOCKET",
        "RESET_DEVICE",
        "VRING_KICK",
        "GET_MAX_MEM_SLOTS",
        "ADD_MEM_REG",
        "REM_MEM_REG",
        "SET_STATUS",
        "GET_STATUS",
        "GET_SHARED_OBJECT",
        "SET_DEVICE_STATE_FD",
        "CHECK_DEVICE_STATE",
        "GET_SHMEM_CONFIG",
    ];
    NAMES.get(code as usize).copied().unwrap_or("an unknown request")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_ne_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}
