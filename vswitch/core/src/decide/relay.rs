//! An admitted frame's way through the switches: learn, then forward or flood, hop by hop.

use super::{Decision, Fate, Lesson, Switch, TagEdit, admit::Classified, filter::Examined};
use crate::{
    drop_reason::DropReason,
    fdb::{Key, Learned, Refusal, Target},
    id::SwitchId,
    route::{Rewrite, Translation},
    trace::{Step, ToRouter, Tracer},
    world::{Domain, HopId, MAX_SWITCHES, Port, Role},
};

/// One frame in its VLAN.
pub(super) struct Relay<'a> {
    pub(super) switch: &'a Switch<'a>,
    pub(super) port: &'a Port,
    pub(super) frame: &'a Examined<'a>,
    pub(super) class: Classified,
}

/// What one switch makes of the frame.
#[derive(Clone, Copy)]
enum Onward<'a> {
    /// It is for one port of this switch.
    Port(&'a Port),
    /// It is for one neighbour.
    Trunk(HopId),
    /// It asks for a neighbour, and a router answers at this port of its.
    Answered(&'a Port),
    /// It is for all in the VLAN.
    Flood(Option<&'a Domain>),
    /// It is for where it came from.
    Back,
    /// A limit of the port where it came in keeps it back.
    Refused(DropReason),
}

/// What was decided so far.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) flooded: bool,
    went_back: bool,
    /// Why a limit keeps it back, or a router does not pass it on.
    pub(super) refused: Option<DropReason>,
    /// What a router changes in it.
    pub(super) rewrite: Option<Rewrite>,
    /// What it translates.
    pub(super) translation: Option<Translation>,
    /// What the first switch that did not know the source there made of it.
    lesson: Option<Lesson>,
    /// The source address was refused at the port: no other switch may learn it either, else the port's cap and the
    /// static entries would hold on one switch only.
    unlearned: bool,
}

/// Switches that a flood has yet to reach. Trunks form no loop, so each is reached once and the list never overflows.
struct Worklist {
    hops: [HopId; MAX_SWITCHES],
    len: usize,
}

impl<'a> Relay<'a> {
    /// The frame's fate, and what it taught on its way.
    #[inline]
    pub(super) fn run<T: Tracer>(&self, copies: &mut Vec<super::Copy>, tracer: &mut T) -> Decision {
        let before = copies.len();
        // What routers say themselves teaches nothing: where they are is the topology file's.
        let is_routers = matches!(self.port.role, Role::Routers { .. });
        let mut progress = Progress { unlearned: is_routers, ..Progress::default() };
        let mut arrival = (self.class.switch, Target::Port(self.port.id));
        loop {
            match self.at_switch(arrival, &mut progress, tracer) {
                Onward::Trunk(hop) => arrival = self.cross(hop, tracer),
                Onward::Flood(Some(domain)) if has_onward(self.switch, domain, arrival.1) => {
                    self.flood_all(arrival, domain, &mut progress, copies, tracer);
                    break;
                }
                last => {
                    self.finish(last, arrival, &mut progress, copies, tracer);
                    break;
                }
            }
        }
        let fate = match (copies.len() > before, progress.flooded) {
            (true, true) => Fate::Flooded,
            (true, false) => Fate::Unicast,
            (false, _) if progress.went_back => Fate::Dropped(DropReason::SamePort),
            (false, _) => Fate::Dropped(progress.refused.unwrap_or(DropReason::NoReceiver)),
        };
        let Progress { lesson, rewrite, translation, .. } = progress;
        Decision { fate, lesson, rewrite, translation }
    }

    /// Learns the source where the frame arrived, and looks up its destination.
    #[inline]
    fn at_switch<T: Tracer>(
        &self,
        (switch, from): (SwitchId, Target),
        progress: &mut Progress,
        tracer: &mut T,
    ) -> Onward<'a> {
        let Switch { world, fdb, now, learning, .. } = *self.switch;
        let vlan = self.class.vlan;
        let source = Key::new(switch, vlan, self.frame.view.link.src);
        if learning && !progress.unlearned {
            let learned = fdb.learn(source, from, self.port, now);
            progress.unlearned = matches!(learned, Learned::Refused(why) if why != Refusal::Busy);
            if learned != Learned::Known {
                progress.lesson.get_or_insert(Lesson { switch, vlan, learned });
                tracer.step(|| Step::learned(world, switch, self.frame.view.link.src, from, learned));
                if self.is_kept_out(source, from, learned) {
                    return Onward::Refused(DropReason::MacLimit);
                }
            }
        } else if !learning
            && !progress.unlearned
            && self.is_kept_out(source, from, Learned::Refused(Refusal::Busy))
        {
            return Onward::Refused(DropReason::MacLimit);
        }
        let key = Key::new(switch, vlan, self.frame.view.link.dst);
        let found = if self.frame.view.link.dst.is_group() { None } else { fdb.lookup(world, key, now) };
        if let Some(target) = found {
            tracer.step(|| {
                Step::found(world, switch, self.frame.view.link.dst, target, fdb.is_static(key, now))
            });
            // What waited at the routers' port is for routers still.
            let is_routers = matches!(self.port.role, Role::Routers { .. });
            let onward = match target {
                _ if target == from && !is_routers => Some(Onward::Back),
                Target::Port(id) => world.port(id.index()).map(Onward::Port),
                Target::Trunk(neighbour) => world.hop_to(switch, neighbour, vlan).map(Onward::Trunk),
            };
            if let Some(onward) = onward {
                return onward;
            }
        }
        if !progress.flooded
            && self.frame.view.link.dst.is_group()
            && let Some((port, router, address)) = self.answered()
        {
            tracer.step(|| Step::to_router(router, ToRouter::AnswersFor(address)));
            return Onward::Answered(port);
        }
        // Once a frame, wherever on its way it is flooded first.
        if !progress.flooded
            && let Some(limits) = &self.port.limits
            && let Err(reason) = limits.let_flood(self.frame.view.link.dst, self.switch.asking())
        {
            return Onward::Refused(reason);
        }
        Onward::Flood(world.domain(switch, vlan))
    }

    /// Whether the port where the frame came in keeps it out for its source address, of which this was made where it was seen.
    #[cold]
    fn is_kept_out(&self, source: Key, seen: Target, learned: Learned) -> bool {
        let refusal = match learned {
            // Nothing was tried to be learned, or in vain: what would have come of it decides.
            Learned::Refused(Refusal::Busy) => self.switch.fdb.would_refuse(source, self.port),
            Learned::Refused(why) => Some(why),
            Learned::Known | Learned::New | Learned::Moved { .. } => None,
        };
        seen == Target::Port(self.port.id) && refusal.is_some_and(|why| self.port.keeps_out(why))
    }

    /// Where the frame arrives behind a trunk.
    fn cross<T: Tracer>(&self, hop: HopId, tracer: &mut T) -> (SwitchId, Target) {
        let world = self.switch.world;
        tracer.step(|| Step::crossed(world, hop));
        let hop = world.hop(hop);
        (hop.to, Target::Trunk(hop.from))
    }

    /// What needs no further switch.
    fn finish<T: Tracer>(
        &self,
        onward: Onward<'_>,
        (switch, _): (SwitchId, Target),
        progress: &mut Progress,
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) {
        match onward {
            Onward::Port(port) if matches!(port.role, Role::Routers { .. }) => {
                self.route((port, switch), progress, copies, tracer);
            }
            Onward::Port(port) | Onward::Answered(port) => self.send(port, switch, copies, tracer),
            Onward::Back => progress.went_back = true,
            Onward::Refused(reason) => progress.refused = Some(reason),
            Onward::Flood(Some(domain)) => self.flood_here(switch, domain, progress, copies, tracer),
            Onward::Flood(None) | Onward::Trunk(_) => {}
        }
    }

    /// A flood that leaves its switch. Kept apart: the worklist is 8 KiB of stack, and most frames need none.
    #[inline(never)]
    fn flood_all<T: Tracer>(
        &self,
        arrival: (SwitchId, Target),
        domain: &Domain,
        progress: &mut Progress,
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) {
        let mut worklist = Worklist { hops: [HopId::default(); MAX_SWITCHES], len: 0 };
        self.flood_here(arrival.0, domain, progress, copies, tracer);
        worklist.add(self.onward_hops(domain, arrival.1));
        while let Some(hop) = worklist.take() {
            let arrival = self.cross(hop, tracer);
            match self.at_switch(arrival, progress, tracer) {
                Onward::Trunk(hop) => worklist.add(std::iter::once(hop)),
                Onward::Flood(Some(domain)) => {
                    self.flood_here(arrival.0, domain, progress, copies, tracer);
                    worklist.add(self.onward_hops(domain, arrival.1));
                }
                last => self.finish(last, arrival, progress, copies, tracer),
            }
        }
    }

    fn onward_hops<'d>(&self, domain: &'d Domain, from: Target) -> impl Iterator<Item = HopId> + use<'d, 'a> {
        let world = self.switch.world;
        domain.hops.iter().copied().filter(move |hop| Target::Trunk(world.hop(*hop).to) != from)
    }

    /// To every port of this switch that carries the VLAN, but not where the frame came in (IEEE 802.1Q-2018 §8.6.1).
    fn flood_here<T: Tracer>(
        &self,
        switch: SwitchId,
        domain: &Domain,
        progress: &mut Progress,
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) {
        progress.flooded = true;
        let world = self.switch.world;
        let others = || domain.ports.iter().filter(|index| **index != self.port.id.index());
        let ports = || others().filter_map(|index| world.port(*index));
        tracer.step(|| Step::flooded(world, switch, self.frame.view.link.dst, ports()));
        for port in ports() {
            self.send(port, switch, copies, tracer);
        }
    }

    #[inline]
    pub(super) fn send<T: Tracer>(
        &self,
        port: &Port,
        switch: SwitchId,
        copies: &mut Vec<super::Copy>,
        tracer: &mut T,
    ) {
        if let Some(egress) = port.egress(switch, self.class.vlan) {
            let edit = TagEdit::on_egress(
                egress,
                self.class.vlan,
                self.class.tag,
                self.frame.view.link.hides_c_tag(),
            );
            copies.push(self.switch.deliver(port, self.class.vlan, self.frame, edit, tracer));
        }
    }
}

fn has_onward(switch: &Switch<'_>, domain: &Domain, from: Target) -> bool {
    domain.hops.iter().any(|hop| Target::Trunk(switch.world.hop(*hop).to) != from)
}

impl Worklist {
    fn add(&mut self, hops: impl Iterator<Item = HopId>) {
        for (place, hop) in self.hops[self.len..].iter_mut().zip(hops) {
            *place = hop;
            self.len += 1;
        }
    }

    fn take(&mut self) -> Option<HopId> {
        self.len = self.len.checked_sub(1)?;
        Some(self.hops[self.len])
    }
}
