//! Who is told that a rule rejects a frame.

use super::{Copy, Fate, Switch, admit::Admitted, admit::admit, vlan_on_wire};
use crate::{
    drop_reason::DropReason,
    firewall::{
        answer::{Answer, AnswerKind},
        connections::{Facts, Scope},
        policy::Direction,
    },
    head::{FrameView, LinkHeader, Network},
    world::Port,
};

impl Switch<'_> {
    /// What the sender of a frame that came in on the port in place `port_index` is to be told of its fate; none: nothing. To be put into
    /// its own ring, and counted as originated. `copies` are those of this frame.
    pub fn answer(
        &self,
        port_index: u16,
        frame: &FrameView<'_>,
        fate: Fate,
        copies: &[Copy],
    ) -> Option<Answer> {
        let left = match fate {
            Fate::Dropped(DropReason::TtlExceeded) => {
                return self.route_error(port_index, frame, AnswerKind::TimeExceeded);
            }
            Fate::Dropped(DropReason::NoRoute) => {
                return self.route_error(port_index, frame, AnswerKind::NoRoute);
            }
            Fate::Dropped(DropReason::RejectEgress) => false,
            // Who merely overhears a flood has no say in whether its receiver is there.
            Fate::Unicast if copies.iter().any(|copy| copy.outcome == Err(DropReason::RejectIngress)) => true,
            _ => {
                let mtu = self.too_small(frame, copies)?;
                return self.route_error(port_index, frame, AnswerKind::TooBig { mtu });
            }
        };
        let answer = Answer::to(frame, &frame.head())?;
        if left && self.learning && answer.kind() == AnswerKind::Reset {
            self.note_reset(self.world.port(port_index)?, &answer);
        }
        Some(answer)
    }

    /// What a router tells the sender of a frame that it does not pass on.
    #[cold]
    fn route_error(&self, port_index: u16, frame: &FrameView<'_>, kind: AnswerKind) -> Option<Answer> {
        let Ok(Admitted::Vlan(class)) = admit(self.world.port(port_index)?, frame.link) else { return None };
        let head = frame.head();
        let src = match head.network {
            Network::Ipv4(ip) => ip.src.into(),
            Network::Ipv6(ip) => ip.src.into(),
            _ => return None,
        };
        let from = self.world.routing()?.interface(class.vlan)?.source(src)?;
        Answer::error(frame, &head, Some(from), kind)
    }

    /// The bytes that a packet may have where a router passes this one on, if that is too few, and nobody may cut it on its way (RFC 791 §3.1, RFC 8200 §5).
    fn too_small(&self, frame: &FrameView<'_>, copies: &[Copy]) -> Option<u16> {
        let routed = self.world.routing().is_some_and(|routing| routing.mac == frame.link.dst);
        let [Copy { to, outcome: Err(DropReason::MtuExceeded) }] = copies else { return None };
        let whole = match frame.head().network {
            Network::Ipv4(ip) => ip.dont_fragment,
            Network::Ipv6(_) => true,
            _ => false,
        };
        self.world.port(*to).filter(|_| routed && whole)?.mtu
    }

    /// Lets the sender's own firewall know that the connection is over which it let begin.
    fn note_reset(&self, port: &Port, answer: &Answer) {
        let Some(firewall) = &port.firewall else { return };
        let len = answer.bytes().len() as u32;
        let Ok(link) = LinkHeader::parse(answer.bytes(), len) else { return };
        let vlan = match admit(port, &link) {
            Ok(Admitted::Vlan(class)) => class.vlan,
            Ok(Admitted::Wire { .. }) => vlan_on_wire(&link),
            Err(_) => return,
        };
        let view = FrameView { link: &link, bytes: answer.bytes(), len, wire_len: len };
        let facts = Facts::read(&view.head(), view.bytes, Scope { port: port.id, vlan }, Direction::Ingress);
        // No rule is asked of what the switch says itself: it passes, whatever this says.
        if let Facts::Of(key, event) = facts {
            let digest = self.connections.digest(&key);
            self.connections.look_up(digest, Direction::Ingress, &event, firewall.epoch, self.now);
        }
    }
}
