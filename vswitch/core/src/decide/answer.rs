//! Who is told that a rule rejects a frame.

use super::{Copy, Examined, Fate, Switch, admit::Admitted, admit::admit, vlan_on_wire};
use crate::{
    drop_reason::DropReason,
    firewall::{
        answer::{Answer, AnswerKind},
        policy::Direction,
    },
    head::{FrameView, LinkHeader},
    trace::NoTrace,
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
            Fate::Dropped(DropReason::RejectEgress) => false,
            // Who merely overhears a flood has no say in whether its receiver is there.
            Fate::Unicast | Fate::Flooded => {
                let mut rejected =
                    copies.iter().filter(|copy| copy.outcome == Err(DropReason::RejectIngress));
                let is_receiver = |copy: &Copy| {
                    let port = self.world.port(copy.to);
                    fate == Fate::Unicast || port.is_some_and(|port| port.mac == Some(frame.link.dst))
                };
                rejected.find(|copy| is_receiver(copy))?;
                true
            }
            _ => return None,
        };
        let answer = Answer::to(frame, &frame.head())?;
        if left && self.learning && answer.kind() == AnswerKind::Reset {
            self.note_reset(self.world.port(port_index)?, &answer);
        }
        Some(answer)
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
        // It could read the connection's own frames too, so its answer passes, whatever this says.
        let view = FrameView { link: &link, bytes: answer.bytes(), len, wire_len: len };
        let _ = self.filter((port, firewall), vlan, Direction::Ingress, &Examined::new(&view), &mut NoTrace);
    }
}
