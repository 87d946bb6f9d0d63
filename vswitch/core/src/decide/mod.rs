//! What becomes of a frame: admit, firewall, learn, then forward or flood, from switch to switch, and each copy's firewall.

mod admit;
mod answer;
mod edit;
mod filter;
mod gates;
mod guard;
mod ingress;
mod nat;
mod relay;
mod route;
mod routes;
mod suppress;
mod tag;
mod translated;

pub(crate) use admit::Classified;
pub use admit::Tagging;
pub use edit::{Change, Edit, Untagged};
pub use ingress::{GLANCE, Ingress, Rows, Way};
pub use route::{AtRouter, Packet, Routers, Waits, packet};
pub use tag::TagEdit;

use crate::{
    clock::Instant,
    drop_reason::DropReason,
    fdb::{Fdb, Learned},
    firewall::{connections::Connections, policy::Direction},
    head::{FrameView, LinkHeader},
    id::SwitchId,
    limits::Asking,
    route::{Neighbours, Rewrite, Translation},
    trace::{Step, Tracer},
    vlan::VlanId,
    world::{Port, World},
};
use admit::{Admitted, admit};
use filter::{Examined, vlan_on_wire};
use relay::Relay;

/// The switches of one World with what they have learned, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Switch<'a> {
    /// The configuration.
    pub world: &'a World,
    /// What was learned.
    pub fdb: &'a Fdb,
    /// What firewalls have allowed.
    pub connections: &'a Connections,
    /// Whom routers know.
    pub neighbours: &'a Neighbours,
    /// The moment.
    pub now: Instant,
    /// Whether source addresses are learned, connections opened and limits used up; not for a frame that is only imagined.
    pub learning: bool,
}

/// One copy of a frame, for one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// The port's place.
    pub to: u16,
    /// How it leaves, or why it does not.
    pub outcome: Result<TagEdit, DropReason>,
}

/// What became of a frame. Each has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// One copy, to where its destination is.
    Unicast,
    /// One copy or more, to all that may hear it.
    Flooded,
    /// For the switch itself.
    Consumed,
    /// No copy.
    Dropped(DropReason),
}

/// What a switch made of a source address that it did not know where it saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lesson {
    /// The switch.
    pub switch: SwitchId,
    /// The frame's VLAN.
    pub vlan: VlanId,
    /// What was made of it; never [`Learned::Known`].
    pub learned: Learned,
}

/// A frame's fate, and what it taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Its fate.
    pub fate: Fate,
    /// What the first switch on its way made of a source that was new there. None: the source was known on the whole way, so that the same
    /// frame again would change nothing.
    pub lesson: Option<Lesson>,
    /// What a router changes in it, for all its copies; what it translates has no number yet.
    pub rewrite: Option<Rewrite>,
    /// What it translates.
    pub translation: Option<Translation>,
}

impl Decision {
    /// A fate that taught nothing.
    pub const fn plain(fate: Fate) -> Self {
        Self { fate, lesson: None, rewrite: None, translation: None }
    }
}

impl Switch<'_> {
    /// Decides about a frame that came in on the port in place `port_index`. Appends its copies to `copies`, and tells
    /// `tracer` each step.
    pub fn decide<T: Tracer>(
        &self,
        port_index: u16,
        frame: &FrameView<'_>,
        copies: &mut Vec<Copy>,
        tracer: &mut T,
    ) -> Fate {
        self.judge(port_index, frame, copies, tracer).fate
    }

    /// As [`Switch::decide`]; also what the frame taught.
    #[inline]
    pub fn judge<T: Tracer>(
        &self,
        port_index: u16,
        frame: &FrameView<'_>,
        copies: &mut Vec<Copy>,
        tracer: &mut T,
    ) -> Decision {
        let Some(port) = self.world.port(port_index) else {
            tracer.step(|| Step::dropped(DropReason::Unlinked, None));
            return Decision::plain(Fate::Dropped(DropReason::Unlinked));
        };
        tracer.step(|| Step::arrived(port, frame));
        let frame = &Examined::new(frame);
        let decision = match admit(port, frame.view.link) {
            Err(reason) => Decision::plain(Fate::Dropped(reason)),
            Ok(Admitted::Vlan(_)) if self.claims_gateway(port, frame.view.link) => {
                Decision::plain(Fate::Dropped(DropReason::GatewaySource))
            }
            Ok(Admitted::Wire { peer }) => {
                Decision::plain(self.over_wire((port, peer), frame, copies, tracer))
            }
            Ok(Admitted::Vlan(class)) => {
                tracer.step(|| Step::admitted(self.world, &class));
                match self.lets_from(port, class.vlan, frame, tracer) {
                    Ok(()) => Relay { switch: self, port, frame, class }.run(copies, tracer),
                    Err(reason) => Decision::plain(Fate::Dropped(reason)),
                }
            }
        };
        if let Fate::Dropped(reason) = decision.fate {
            tracer.step(|| Step::dropped(reason, Some((self.world, port))));
        }
        decision
    }

    /// Whether a station says that it is the routers.
    #[inline]
    fn claims_gateway(&self, port: &Port, link: &LinkHeader) -> bool {
        self.world.routing().is_some_and(|routing| routing.mac == link.src && routing.port != port.id)
    }

    /// Everything passes a wire, and as it is: reserved groups, any tags, any source. Unless an end of it has a firewall.
    fn over_wire<T: Tracer>(
        &self,
        (from, peer): (&Port, u16),
        frame: &Examined<'_>,
        copies: &mut Vec<Copy>,
        tracer: &mut T,
    ) -> Fate {
        let vlan = vlan_on_wire(frame.view.link);
        if let Err(reason) = self.lets_from(from, vlan, frame, tracer) {
            return Fate::Dropped(reason);
        }
        let Some(port) = self.world.port(peer) else { return Fate::Dropped(DropReason::NoReceiver) };
        tracer.step(|| Step::wired(port));
        copies.push(self.deliver(port, vlan, frame, TagEdit::Keep, tracer));
        Fate::Unicast
    }

    /// Whether the limits and the firewall of the port where the frame came in let it pass.
    #[inline(always)]
    fn lets_from<T: Tracer>(
        &self,
        port: &Port,
        vlan: VlanId,
        frame: &Examined<'_>,
        tracer: &mut T,
    ) -> Result<(), DropReason> {
        if port.is_plain {
            return Ok(());
        }
        // First: who sends too much takes no more of the switch than this.
        self.within_limits(port, Direction::Egress, frame)?;
        match &port.firewall {
            None => Ok(()),
            Some(firewall) => self.filter((port, firewall), vlan, Direction::Egress, frame, tracer),
        }
    }

    /// Whether the firewall and the limits of a port let a copy go to it.
    fn lets_to<T: Tracer>(
        &self,
        port: &Port,
        vlan: VlanId,
        frame: &Examined<'_>,
        tracer: &mut T,
    ) -> Result<(), DropReason> {
        if let Some(firewall) = &port.firewall {
            self.filter((port, firewall), vlan, Direction::Ingress, frame, tracer)?;
        }
        // Last: what rules keep away takes nothing from what is let in.
        self.within_limits(port, Direction::Ingress, frame)
    }

    /// Whether the rates of a port let one more frame pass in that direction.
    fn within_limits(
        &self,
        port: &Port,
        direction: Direction,
        frame: &Examined<'_>,
    ) -> Result<(), DropReason> {
        match &port.limits {
            None => Ok(()),
            Some(limits) => limits.let_frame(direction, frame.view.len, self.asking()),
        }
    }

    /// How limits are asked: nothing is taken for a frame that is only imagined.
    fn asking(&self) -> Asking {
        Asking { now: self.now, takes: self.learning }
    }

    /// A copy for `port` of a frame in `vlan`, if the port takes it.
    #[inline]
    fn deliver<T: Tracer>(
        &self,
        port: &Port,
        vlan: VlanId,
        frame: &Examined<'_>,
        edit: TagEdit,
        tracer: &mut T,
    ) -> Copy {
        let payload = frame.view.wire_len.saturating_sub(frame.view.link.len.into());
        let outcome = if !port.up {
            Err(DropReason::PortDown)
        } else if port.mtu.is_some_and(|mtu| payload > mtu.into()) {
            Err(DropReason::MtuExceeded)
        } else if port.is_plain {
            Ok(edit)
        } else {
            // Last: a copy that is lost anyway opens no connection.
            self.lets_to(port, vlan, frame, tracer).map(|()| edit)
        };
        match outcome {
            Ok(TagEdit::Keep) => {}
            Ok(edit) => tracer.step(|| Step::retagged(port, edit)),
            Err(reason) => tracer.step(|| Step::lost(port, reason)),
        }
        Copy { to: port.id.index(), outcome }
    }
}
