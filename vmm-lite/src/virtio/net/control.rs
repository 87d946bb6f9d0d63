//! What a driver asks for by the control queue (virtio 1.2 §5.1.6.5), done by the vCPU that asks: a driver waits for the answer anyway, and of
//! the switch only who changes the number of queue pairs does.

use super::{
    Shared, State,
    command::{self, Command},
    offer::{MAC_OFFSET, QUEUE_SIZE, STATUS_OFFSET, carriers, mask},
};
use crate::{
    devices::lock,
    memory::Ram,
    virtio::{
        mmio,
        served::{self, Broken, Chain},
    },
};
use std::sync::MutexGuard;
use virtio_bindings::{
    virtio_net::{
        VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP,
    },
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};
use virtio_queue::{Queue, QueueT};

/// What an interface keeps of what its driver asks for, from a start to a reset.
pub(super) struct Control {
    /// The ring; none while there is no driver that uses it, and after one broke it.
    ring: Option<Queue>,
    /// Which of the interface's rings it is.
    index: usize,
    /// How many queue pairs the driver wants to be served by.
    pub(super) pairs: u16,
    /// How many of them the switch carries frames by, while it has the rings.
    pub(super) carried: u16,
    /// The driver is to tell the network where it is.
    announce: bool,
}

impl Control {
    /// Of a device that is reset.
    pub(super) const NONE: Self = Self { ring: None, index: 0, pairs: 1, carried: 0, announce: false };
}

impl State {
    /// A driver has started the interface, which has so many queue pairs.
    pub(super) fn start_control(&mut self, ram: &Ram, pairs: u16) -> Result<(), Broken> {
        let features = self.registers.features();
        let index = carriers(features, pairs);
        self.control = Control { index, ..Control::NONE };
        let asked = features & mask(&[VIRTIO_NET_F_CTRL_VQ]) != 0;
        let described = self.registers.queues().get(index).copied();
        if let Some(described) = described.filter(|described: &mmio::Queue| asked && described.ready) {
            let mut ring = served::queue(ram, described).ok_or(Broken::Place)?;
            ring.set_event_idx(features & mask(&[VIRTIO_RING_F_EVENT_IDX]) != 0);
            self.control.ring = Some(ring);
        }
        Ok(())
    }

    /// What was asked for ends with a reset.
    pub(super) fn stop_control(&mut self, mac: [u8; 6]) {
        self.control = Control::NONE;
        self.registers.set_config(MAC_OFFSET, &mac);
        self.show_status();
    }

    /// Asks the driver to tell the network where it is, if it can be asked; whether it is to be called.
    pub(super) fn ask_to_announce(&mut self) -> bool {
        let can = self.registers.features() & mask(&[VIRTIO_NET_F_GUEST_ANNOUNCE]) != 0;
        self.control.announce |= can && self.control.ring.is_some();
        self.show_status()
    }

    /// Puts `status` where the driver reads it (§5.1.4); whether that is news.
    pub(super) fn show_status(&mut self) -> bool {
        let link = if self.link_up { VIRTIO_NET_S_LINK_UP } else { 0 };
        let announce = if self.control.announce { VIRTIO_NET_S_ANNOUNCE } else { 0 };
        self.registers.set_config(STATUS_OFFSET, &((link | announce) as u16).to_le_bytes())
    }

    /// No more requests until the driver has reset the device, which it is to be told.
    pub(super) fn break_control(&mut self, why: Broken) {
        self.control.ring = None;
        self.complain(format_args!("the control queue: {why}"));
        self.registers.needs_reset();
    }

    /// What is asked for next; none of what it says if it cannot be done.
    fn next_asked<'a>(
        &mut self,
        ram: &'a Ram,
        most_pairs: u16,
    ) -> Result<Option<(Chain<'a>, Option<Command>)>, Broken> {
        let features = self.registers.features();
        let Some(ring) = self.control.ring.as_mut() else { return Ok(None) };
        let Some(request) = served::next(ram, ring)? else { return Ok(None) };
        let command = command::read(&request, features, most_pairs)?;
        Ok(Some((request, command)))
    }

    fn answer(&mut self, request: &Chain<'_>, done: bool) -> Result<(), Broken> {
        let written = command::answer(request, done)?;
        let Some(ring) = self.control.ring.as_mut() else { return Ok(()) };
        served::done(ring, request, written)
    }
}

impl Shared {
    /// The driver has rung for a ring, past KVM.
    pub(super) fn rung(&self, ring: usize) {
        let state = lock(&self.state);
        if state.control.ring.is_some() && state.control.index == ring {
            self.obey(state);
        } else if let Some(kick) = self.kicks.get(ring) {
            kick.ring();
        }
    }

    /// Does what the driver has asked for. Nobody resets the device meanwhile: this vCPU has it.
    fn obey(&self, mut state: MutexGuard<'_, State>) {
        // As many as a ring holds: who adds more rings for them.
        for _ in 0..QUEUE_SIZE {
            let (request, command) = match state.next_asked(self.vm.ram(), self.config.queues) {
                Ok(None) => return,
                Ok(Some(asked)) => asked,
                Err(why) => {
                    state.break_control(why);
                    self.call.ring();
                    return;
                }
            };
            let done = match command {
                None => false,
                Some(Command::Filter) => true,
                Some(Command::Mac(mac)) => {
                    state.registers.set_config(MAC_OFFSET, &mac);
                    true
                }
                Some(Command::Announced) => {
                    state.control.announce = false;
                    state.show_status();
                    true
                }
                Some(Command::Pairs(pairs)) => {
                    state.control.pairs = pairs;
                    self.news.ring();
                    // A switch that is gone fills no ring, and the next one is told the same.
                    state = self.wait_while(state, |state| {
                        state.lent && state.control.carried != state.control.pairs
                    });
                    // One that refused has another number.
                    state.control.pairs == pairs
                }
            };
            if let Err(why) = state.answer(&request, done) {
                state.break_control(why);
            }
            self.call.ring();
        }
    }
}
