//! The vhost-user handshake, as a VMM's net code speaks it (vhost-user: "Front-end message types").

use super::arena::Arena;
use super::doorbell::Doorbell;
use super::error::DriverError;
use super::patience::Patience;
use super::ring::RingPlaces;
use crate::features::{VERSION_1, VHOST_USER_PROTOCOL};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

/// The protocol features that the driver takes where they are offered.
const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::RESET_DEVICE);

/// A connection to a device on which features are settled.
pub(super) struct Session {
    frontend: Frontend,
    stream: UnixStream,
    features: u64,
    protocol: VhostUserProtocolFeatures,
    patience: Patience,
}

impl Session {
    /// SET_OWNER up to SET_FEATURES. Takes what both want; `required` must be offered. A device that does not answer
    /// before `patience` ends is an error, here and later.
    pub(super) fn negotiate(
        stream: UnixStream,
        wanted: u64,
        required: u64,
        rings: u16,
        patience: Patience,
    ) -> Result<Self, DriverError> {
        stream.set_nonblocking(false)?;
        // Whoever had the socket before may have wanted less, and `vhost` would spin then.
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let mut frontend = Frontend::from_stream(stream.try_clone()?, u64::from(rings));
        patience.step("SET_OWNER", &stream, || frontend.set_owner())?;
        let offered = patience.step("GET_FEATURES", &stream, || frontend.get_features())?;
        let features = offered & wanted;
        let missing = (required | VERSION_1) & !features;
        if missing != 0 {
            return Err(DriverError::Features { missing });
        }
        let mut protocol = VhostUserProtocolFeatures::empty();
        if features & VHOST_USER_PROTOCOL != 0 {
            protocol = patience
                .step("GET_PROTOCOL_FEATURES", &stream, || frontend.get_protocol_features())?
                & PROTOCOL_FEATURES;
            patience.step("SET_PROTOCOL_FEATURES", &stream, || frontend.set_protocol_features(protocol))?;
            if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
        }
        if rings > 2 {
            let offered = patience.step("GET_QUEUE_NUM", &stream, || frontend.get_queue_num())?;
            if offered < u64::from(rings) {
                return Err(DriverError::Rings { offered, wanted: rings });
            }
        }
        patience.step("SET_FEATURES", &stream, || frontend.set_features(features))?;
        Ok(Self { frontend, stream, features, protocol, patience })
    }

    pub(super) fn features(&self) -> u64 {
        self.features
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// SET_MEM_TABLE.
    pub(super) fn share(&self, memory: &Arena) -> Result<(), DriverError> {
        let regions = memory.regions().iter().map(|region| VhostUserMemoryRegionInfo {
            guest_phys_addr: region.guest_address,
            memory_size: region.len as u64,
            userspace_addr: memory.user_address(region.offset),
            mmap_offset: region.offset as u64,
            mmap_handle: memory.as_fd().as_raw_fd(),
        });
        let regions: Vec<_> = regions.collect();
        self.step("SET_MEM_TABLE", || self.frontend.set_mem_table(&regions)).map(drop)
    }

    /// All of one ring but its enabling; the device goes on at `base`.
    pub(super) fn start_ring(
        &self,
        index: usize,
        memory: &Arena,
        places: &RingPlaces,
        base: u16,
        (kick, call): (&Doorbell, &Doorbell),
    ) -> Result<(), DriverError> {
        let frontend = &self.frontend;
        let size = places.size.entries();
        let config = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: memory.user_address(places.desc),
            used_ring_addr: memory.user_address(places.used),
            avail_ring_addr: memory.user_address(places.avail),
            log_addr: None,
        };
        self.step("SET_VRING_NUM", || frontend.set_vring_num(index, size))?;
        self.step("SET_VRING_BASE", || frontend.set_vring_base(index, base))?;
        self.step("SET_VRING_ADDR", || frontend.set_vring_addr(index, &config))?;
        let (kick, call) = (kick.to_event_fd()?, call.to_event_fd()?);
        self.step("SET_VRING_KICK", || frontend.set_vring_kick(index, &kick))?;
        self.step("SET_VRING_CALL", || frontend.set_vring_call(index, &call))
    }

    /// SET_VRING_ENABLE; without protocol features a ring is enabled as soon as it is started.
    pub(super) fn enable(&mut self, index: usize, on: bool) -> Result<(), DriverError> {
        if self.features & VHOST_USER_PROTOCOL == 0 {
            return Ok(());
        }
        let Self { frontend, stream, patience, .. } = self;
        patience.step("SET_VRING_ENABLE", stream, || frontend.set_vring_enable(index, on))
    }

    /// GET_VRING_BASE: stops the ring; the avail index that the device would go on from.
    pub(super) fn stop_ring(&self, index: usize) -> Result<u16, DriverError> {
        let base = self.step("GET_VRING_BASE", || self.frontend.get_vring_base(index))?;
        u16::try_from(base).map_err(|_| DriverError::Handshake {
            step: "GET_VRING_BASE",
            source: vhost::Error::VhostUserProtocol(vhost::vhost_user::Error::InvalidMessage),
        })
    }

    /// RESET_DEVICE where it was taken: the device forgets features and rings. False where it was not.
    pub(super) fn reset(&mut self) -> Result<bool, DriverError> {
        let can = self.protocol.contains(VhostUserProtocolFeatures::RESET_DEVICE);
        if can {
            let Self { frontend, stream, patience, .. } = self;
            patience.step("RESET_DEVICE", stream, || frontend.reset_device())?;
        }
        Ok(can)
    }

    /// Whether the device's end of the socket is still open.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(!fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
    }

    fn step<T>(
        &self,
        step: &'static str,
        message: impl FnOnce() -> vhost::Result<T>,
    ) -> Result<T, DriverError> {
        self.patience.step(step, &self.stream, message)
    }
}
