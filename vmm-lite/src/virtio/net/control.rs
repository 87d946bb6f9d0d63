//! What a driver asks for by the control queue (virtio 1.2 §5.1.6.5), done. It is asked here, and not of the switch: what the switch is to
//! know of it, the interface's thread tells it before the driver is answered.

use super::{
    Shared, State,
    command::{self, Command},
    frontend::Lost,
    offer::{MAC_OFFSET, STATUS_OFFSET, carriers, mask},
};
use crate::{
    devices::lock,
    event::Event,
    memory::Ram,
    virtio::{
        mmio,
        served::{self, Broken, Chain},
    },
};
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
    /// The driver is to tell the network where it is.
    announce: bool,
}

impl Control {
    /// Of a device that is reset.
    pub(super) const NONE: Self = Self { ring: None, index: 0, pairs: 1, announce: false };
}

impl State {
    /// A driver has started the interface, which has so many queue pairs.
    pub(super) fn start_control(&mut self, ram: &Ram, pairs: u16) {
        let features = self.registers.features();
        let index = carriers(features, pairs);
        self.control = Control { index, ..Control::NONE };
        let asked = features & mask(&[VIRTIO_NET_F_CTRL_VQ]) != 0;
        let described = self.registers.queues().get(index).copied();
        if let Some(described) = described.filter(|described: &mmio::Queue| asked && described.ready) {
            match served::queue(ram, described) {
                Some(mut ring) => {
                    ring.set_event_idx(features & mask(&[VIRTIO_RING_F_EVENT_IDX]) != 0);
                    self.control.ring = Some(ring);
                }
                None => self.break_control(Broken::Place),
            }
        }
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

    fn break_control(&mut self, why: Broken) {
        self.control.ring = None;
        self.complain(format_args!("the control queue: {why}"));
        self.registers.needs_reset();
    }
}

/// What was asked, and in which of the driver's lives.
struct Asked<'a> {
    life: u64,
    request: Chain<'a>,
    /// None: nothing that can be done.
    command: Option<Command>,
}

impl Shared {
    /// What the driver rings when it asks for something; none if it cannot.
    pub(super) fn control_kick(&self) -> Option<&Event> {
        let state = lock(&self.state);
        state.control.ring.as_ref().and_then(|_| self.kicks.get(state.control.index))
    }

    /// Does all that the driver has asked for. `tell` tells the switch by how many queue pairs it is to serve: when it returns the switch
    /// fills no others, be it that it has heard it or that it is gone.
    pub(super) fn obey(&self, mut tell: impl FnMut(u16) -> Result<(), Lost>) -> Result<(), Lost> {
        if let Some(kick) = self.control_kick() {
            kick.drain();
        }
        let mut told = Ok(());
        while let Some(asked) = self.next_asked() {
            if let Some(Command::Pairs(pairs)) = asked.command {
                told = told.and_then(|()| tell(pairs));
            }
            self.answer(&asked);
        }
        told
    }

    /// What is asked for next. But for the number of queue pairs, which the switch is yet to hear of, it is done.
    fn next_asked(&self) -> Option<Asked<'_>> {
        let mut state = lock(&self.state);
        if state.over {
            return None;
        }
        let features = state.registers.features();
        let request = served::next(self.vm.ram(), state.control.ring.as_mut()?);
        let read = |request: &Chain<'_>| command::read(request, features, self.config.queues);
        let asked = request.and_then(|request| match request {
            Some(request) => read(&request).map(|command| Some((request, command))),
            None => Ok(None),
        });
        match asked {
            Ok(asked) => asked.map(|(request, command)| {
                match command {
                    Some(Command::Mac(mac)) => {
                        state.registers.set_config(MAC_OFFSET, &mac);
                    }
                    Some(Command::Announced) => {
                        state.control.announce = false;
                        state.show_status();
                    }
                    Some(Command::Pairs(pairs)) => state.control.pairs = pairs,
                    Some(Command::Filter) | None => {}
                }
                Asked { life: state.life, request, command }
            }),
            Err(why) => {
                state.break_control(why);
                self.call.ring();
                None
            }
        }
    }

    /// Answers the driver, if it is still the one that asked: nobody writes to the memory of one that has reset its device.
    fn answer(&self, asked: &Asked<'_>) {
        let mut state = lock(&self.state);
        let life = state.life;
        let Some(ring) = state.control.ring.as_mut().filter(|_| life == asked.life) else { return };
        let written = command::answer(&asked.request, asked.command.is_some());
        if let Err(why) = written.and_then(|written| served::done(ring, &asked.request, written)) {
            state.break_control(why);
        }
        self.call.ring();
    }
}
