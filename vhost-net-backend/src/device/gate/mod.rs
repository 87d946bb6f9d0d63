//! The gate: judges every message of a frontend before `vhost-user-backend`'s daemon sees it.
//!
//! [`Gate`] is a pure state machine: a shadow of the session, complete messages in, verdicts out. Messages go through
//! in lock step, each forwarded one acknowledged by the daemon before the next is read; so the shadow changes
//! only with what really happened, and the daemon (which ends the connection at anything that it dislikes) is
//! given nothing that it could dislike. [`link`] is the I/O half, [`descriptor`] looks at file descriptors.
//!
//! What the daemon cannot do by itself, and the gate does for it: SET_VRING_ENABLE before SET_FEATURES is held and replayed
//! (QEMU sends it at attach and after each reset of a driver), memory tables are sorted, RESET_OWNER disables the rings.

pub mod descriptor;
pub mod link;
mod memory_table;
mod ring_shadow;
#[cfg(test)]
mod tests;
pub mod wire;

use descriptor::Descriptor;
use memory_table::{MAX_SLOTS, MemoryTable};
use ring_shadow::{Addresses, RingShadow};
use wire::{Notifier, Region, Request, RingAddresses, code, state_payload, table_payload};

use super::fault::PortFault;
use crate::features;
use crate::layout::RingSize;

/// Protocol features ("Protocol features" of the vhost-user specification) that a port may offer: MQ, REPLY_ACK, RESET_DEVICE, CONFIGURE_MEM_SLOTS.
pub const PROTOCOL_OFFERED: u64 = 1 | REPLY_ACK | 1 << 13 | CONFIGURE_MEM_SLOTS;
const REPLY_ACK: u64 = 1 << 3;
const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;

/// What a port offers, fixed for its life.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// Virtio features.
    pub features: u64,
    /// Rings: two for each queue pair.
    pub rings: u16,
    /// The largest ring.
    pub max_ring_size: u16,
    /// Bytes of guest memory that may be mapped.
    pub memory_quota: u64,
}

impl Offer {
    /// Protocol features. QEMU (7.2) adds each region of memory once for each queue pair, where it can add any; it sends whole tables once.
    fn protocol(&self) -> u64 {
        if self.rings > 2 { PROTOCOL_OFFERED & !CONFIGURE_MEM_SLOTS } else { PROTOCOL_OFFERED }
    }
}

/// A message for the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The request's number.
    pub code: u32,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Which of the received descriptors go with it, in order.
    pub fds: Vec<usize>,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// To the daemon, in this order; then [`Gate::commit`]. The first one's reply is the frontend's.
    Forward(Vec<Frame>),
    /// Done without the daemon, or held for later: acknowledge, then [`Gate::commit`].
    Acknowledge,
    /// Answer with this value.
    Value(u64),
    /// NACK and change nothing; close where the frontend expects no acknowledgement.
    Refuse(PortFault),
    /// End the connection.
    Close(PortFault),
}

/// The shadow of one session.
#[derive(Debug, Clone)]
pub struct Gate {
    offer: Offer,
    owned: bool,
    protocol: u64,
    features: Option<u64>,
    memory: MemoryTable,
    rings: Vec<RingShadow>,
}

impl Gate {
    /// A session in which nothing was said yet.
    pub fn new(offer: Offer) -> Self {
        Self {
            offer,
            owned: false,
            protocol: 0,
            features: None,
            memory: MemoryTable::default(),
            rings: vec![RingShadow::default(); usize::from(offer.rings)],
        }
    }

    /// Whether a message that asks for it gets an acknowledgement.
    pub fn acknowledges(&self) -> bool {
        self.protocol & REPLY_ACK != 0
    }

    /// The virtio features that the driver took.
    pub fn features(&self) -> Option<u64> {
        self.features
    }

    /// Judges a message; changes nothing.
    pub fn judge(&self, code: u32, request: &Request, fds: &[Descriptor]) -> Verdict {
        match fd_count(request, fds.len()) {
            Ok(()) => self.decide(code, request, fds).unwrap_or_else(Verdict::Refuse),
            Err(what) => Verdict::Close(protocol(code, &what)),
        }
    }

    fn decide(&self, code: u32, request: &Request, fds: &[Descriptor]) -> Result<Verdict, PortFault> {
        let forward =
            |payload: Vec<u8>| Verdict::Forward(vec![Frame { code, payload, fds: (0..fds.len()).collect() }]);
        let wrong = |what: String| protocol(code, &what);
        Ok(match request {
            Request::GetFeatures => Verdict::Value(self.offer.features),
            Request::GetProtocolFeatures => Verdict::Value(self.offer.protocol()),
            Request::GetQueueNum => Verdict::Value(u64::from(self.offer.rings)),
            Request::GetMaxMemSlots => Verdict::Value(MAX_SLOTS as u64),
            Request::SetFeatures(bits) => self.set_features(*bits).map_err(wrong)?,
            Request::SetProtocolFeatures(bits) if bits & !self.offer.protocol() != 0 => {
                return Err(wrong(format!("bits {:#x} were not offered", bits & !self.offer.protocol())));
            }
            Request::SetProtocolFeatures(_) => Verdict::Acknowledge,
            // The daemon takes an owner once; after RESET_OWNER it is asked again.
            Request::SetOwner if self.owned => Verdict::Acknowledge,
            Request::SetOwner => forward(Vec::new()),
            Request::ResetOwner => self.disable_all(),
            Request::ResetDevice => forward(Vec::new()),
            Request::SetMemTable(regions) => self.set_mem_table(regions, fds)?,
            Request::AddMemReg(region) => {
                self.memory.add(*region, fds, self.offer.memory_quota).map_err(PortFault::Memory)?;
                forward(region_payload(region))
            }
            Request::RemMemReg(region) => {
                let memory = self.memory.remove(region).map_err(PortFault::Memory)?;
                self.check_rings(&memory)?;
                // A descriptor that comes with it is closed unused (the specification allows for such frontends).
                Verdict::Forward(vec![Frame { code, payload: region_payload(region), fds: Vec::new() }])
            }
            Request::VringNum { ring, size } => {
                self.vring_num(*ring, *size).map_err(wrong)?;
                forward(state_payload(*ring, *size))
            }
            Request::VringAddr { ring, at } => {
                self.ring(u64::from(*ring))
                    .and_then(|shadow| shadow.place(at, &self.memory))
                    .map_err(wrong)?;
                forward(address_payload(*ring, at))
            }
            Request::VringBase { ring, base } => {
                self.vring_base(*ring, *base).map_err(wrong)?;
                forward(state_payload(*ring, *base))
            }
            Request::GetVringBase { ring } => {
                self.ring(u64::from(*ring)).map_err(wrong)?;
                forward(state_payload(*ring, 0))
            }
            Request::VringFd { ring, notifier, has_fd } => {
                self.vring_fd(*ring, *notifier, fds).map_err(wrong)?;
                forward((ring | if *has_fd { 0 } else { 1 << 8 }).to_ne_bytes().to_vec())
            }
            Request::VringEnable { ring, enable } => self.vring_enable(*ring, *enable).map_err(wrong)?,
            Request::Other(_) => return Err(wrong("it was not offered".to_owned())),
        })
    }

    /// Takes over what the daemon did (or, for [`Verdict::Acknowledge`], what needs no daemon).
    pub fn commit(&mut self, request: &Request, fds: &[Descriptor]) {
        match request {
            Request::SetOwner => self.owned = true,
            Request::SetFeatures(bits) => {
                self.features = Some(*bits);
                for ring in &mut self.rings {
                    ring.enabled =
                        ring.enabled.or((bits & features::VHOST_USER_PROTOCOL == 0).then_some(true));
                }
            }
            Request::SetProtocolFeatures(bits) => self.protocol = *bits,
            Request::ResetOwner => self.rings.iter_mut().for_each(|ring| ring.enabled = Some(false)),
            Request::ResetDevice => {
                self.features = None;
                self.rings.fill(RingShadow::default());
            }
            Request::SetMemTable(_) | Request::AddMemReg(_) | Request::RemMemReg(_) => {
                self.commit_memory(request, fds);
            }
            Request::VringNum { ring, size } => {
                self.change(*ring, |shadow, memory| {
                    shadow.resize(u16::try_from(*size).ok().and_then(RingSize::new), memory);
                });
            }
            Request::VringAddr { ring, at } => self.change(*ring, |shadow, memory| {
                shadow.addresses = shadow.place(at, memory).map_or(Addresses::Unset, Addresses::Set);
            }),
            Request::GetVringBase { ring } => self.change(*ring, |shadow, _| shadow.kicked = false),
            Request::VringFd { ring, notifier: Notifier::Kick, .. } => {
                self.change(*ring as u32, |shadow, _| shadow.kicked = true);
            }
            Request::VringEnable { ring, enable } => {
                self.change(*ring, |shadow, _| shadow.enabled = Some(*enable == 1));
            }
            _ => {}
        }
    }

    fn change(&mut self, ring: u32, edit: impl FnOnce(&mut RingShadow, &MemoryTable)) {
        if let Some(shadow) = self.rings.get_mut(ring as usize) {
            edit(shadow, &self.memory);
        }
    }

    fn commit_memory(&mut self, request: &Request, fds: &[Descriptor]) {
        let quota = self.offer.memory_quota;
        let memory = match request {
            Request::SetMemTable(regions) => {
                MemoryTable::replace(regions, fds, quota).map(|(table, _)| table)
            }
            Request::AddMemReg(region) => self.memory.add(*region, fds, quota),
            Request::RemMemReg(region) => self.memory.remove(region),
            _ => return,
        };
        if let Ok(memory) = memory {
            self.memory = memory;
        }
        for ring in &mut self.rings {
            ring.follow(&self.memory);
        }
    }

    fn ring(&self, ring: u64) -> Result<&RingShadow, String> {
        let known = usize::try_from(ring).ok().and_then(|ring| self.rings.get(ring));
        known.ok_or_else(|| format!("there is no ring {ring}; this port has {}", self.offer.rings))
    }

    /// The daemon is always told the protocol bit: it takes SET_VRING_ENABLE only then. For a driver that did
    /// not take it, rings start enabled ("Ring states" of the specification), and the gate says so itself.
    fn set_features(&self, bits: u64) -> Result<Verdict, String> {
        if bits & !self.offer.features != 0 {
            return Err(format!("bits {:#x} were not offered", bits & !self.offer.features));
        }
        if bits & features::VERSION_1 == 0 {
            return Err("the driver must take VIRTIO_F_VERSION_1 (legacy virtio is not supported)".to_owned());
        }
        match self.features {
            Some(same) if same == bits => return Ok(Verdict::Acknowledge),
            Some(_) if self.rings.iter().any(RingShadow::started) => {
                return Err("features cannot change while rings are started".to_owned());
            }
            _ => {}
        }
        let default = (bits & features::VHOST_USER_PROTOCOL == 0).then_some(true);
        let payload = (bits | features::VHOST_USER_PROTOCOL).to_ne_bytes().to_vec();
        let mut frames = vec![Frame { code: code::SET_FEATURES, payload, fds: Vec::new() }];
        let enabled = self.rings.iter().map(|ring| ring.enabled.or(default));
        frames.extend((0..).zip(enabled).filter_map(|(ring, on)| on.map(|on| enable_frame(ring, on))));
        Ok(Verdict::Forward(frames))
    }

    /// RESET_OWNER: "to disable all rings", the reading that the specification recommends.
    fn disable_all(&self) -> Verdict {
        match self.features {
            Some(_) => Verdict::Forward(
                (0..u32::from(self.offer.rings)).map(|ring| enable_frame(ring, false)).collect(),
            ),
            None => Verdict::Acknowledge,
        }
    }

    fn set_mem_table(&self, regions: &[Region], fds: &[Descriptor]) -> Result<Verdict, PortFault> {
        let (memory, order) =
            MemoryTable::replace(regions, fds, self.offer.memory_quota).map_err(PortFault::Memory)?;
        self.check_rings(&memory)?;
        let sorted: Vec<Region> = order.iter().map(|&at| regions[at]).collect();
        Ok(Verdict::Forward(vec![Frame {
            code: code::SET_MEM_TABLE,
            payload: table_payload(&sorted),
            fds: order,
        }]))
    }

    /// A running ring must not be left without memory.
    fn check_rings(&self, memory: &MemoryTable) -> Result<(), PortFault> {
        match self.rings.iter().position(|ring| !ring.clone().follow(memory)) {
            Some(ring) => {
                Err(PortFault::Memory(format!("ring {ring} runs in memory that the new table takes away")))
            }
            None => Ok(()),
        }
    }

    fn vring_num(&self, ring: u32, size: u32) -> Result<(), String> {
        let shadow = self.ring(u64::from(ring))?;
        let max = self.offer.max_ring_size;
        let known = u16::try_from(size).ok().filter(|&size| size <= max).and_then(RingSize::new);
        let size =
            known.ok_or_else(|| format!("a ring cannot have {size} entries (a power of two up to {max})"))?;
        if shadow.started() {
            return Err(format!("ring {ring} is started; its size cannot change"));
        }
        shadow.check_size(size, &self.memory)
    }

    fn vring_base(&self, ring: u32, base: u32) -> Result<(), String> {
        if self.ring(u64::from(ring))?.started() {
            return Err(format!("ring {ring} is started; its index cannot be set"));
        }
        if base > 0xffff {
            return Err(format!("{base:#x} is no index of a split ring (16 bits)"));
        }
        Ok(())
    }

    fn vring_fd(&self, ring: u64, notifier: Notifier, fds: &[Descriptor]) -> Result<(), String> {
        let shadow = self.ring(ring)?;
        match fds.first() {
            Some(Descriptor::Unfit(what)) => {
                return Err(format!("{what} was given where an eventfd belongs"));
            }
            Some(Descriptor::Memory(_) | Descriptor::Foreign(_)) => {
                return Err("a file was given where an eventfd belongs".to_owned());
            }
            Some(Descriptor::Eventfd) | None => {}
        }
        if notifier == Notifier::Kick && shadow.enabled == Some(true) && shadow.stale() {
            return Err(format!(
                "ring {ring} lies in memory that is gone, or does not fit there any more; send SET_VRING_ADDR first"
            ));
        }
        Ok(())
    }

    fn vring_enable(&self, ring: u32, enable: u32) -> Result<Verdict, String> {
        let shadow = self.ring(u64::from(ring))?;
        if enable > 1 {
            return Err(format!("a ring is enabled by 1 and disabled by 0, not by {enable}"));
        }
        if enable == 1 && shadow.kicked && shadow.stale() {
            return Err(format!(
                "ring {ring} lies in memory that is gone, or does not fit there any more; send SET_VRING_ADDR first"
            ));
        }
        Ok(match self.features {
            Some(_) => Verdict::Forward(vec![enable_frame(ring, enable == 1)]),
            // Held: `commit` notes it, SET_FEATURES replays it.
            None => Verdict::Acknowledge,
        })
    }
}

fn enable_frame(ring: u32, on: bool) -> Frame {
    Frame { code: code::SET_VRING_ENABLE, payload: state_payload(ring, u32::from(on)), fds: Vec::new() }
}

fn region_payload(region: &Region) -> Vec<u8> {
    [[0; 8].as_slice(), &region.bytes()].concat()
}

fn address_payload(ring: u32, at: &RingAddresses) -> Vec<u8> {
    let mut payload = state_payload(ring, at.flags);
    for address in [at.desc, at.used, at.avail, 0] {
        payload.extend_from_slice(&address.to_ne_bytes());
    }
    payload
}

fn protocol(code: u32, what: &str) -> PortFault {
    PortFault::Protocol(format!("{}: {what}", wire::name(code)))
}

/// Descriptors that a message must bring, no more and no fewer. A table without any is judged by its content.
fn fd_count(request: &Request, given: usize) -> Result<(), String> {
    let allowed = match request {
        Request::SetMemTable(regions) if given == 0 || given == regions.len() => return Ok(()),
        Request::SetMemTable(regions) => regions.len(),
        Request::AddMemReg(_) if given == 0 => return Ok(()),
        Request::AddMemReg(_) => 1,
        Request::RemMemReg(_) if given <= 1 => return Ok(()),
        Request::VringFd { has_fd, .. } => usize::from(*has_fd),
        _ => 0,
    };
    match given == allowed {
        true => Ok(()),
        false => Err(format!("{given} descriptors came with it instead of {allowed}")),
    }
}
