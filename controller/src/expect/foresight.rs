//! What the file alone says becomes of a probe: the same decisions as the switch's, on a switch that has seen nothing yet.

use super::frames::{gateway, raw_frame};
use topology::plan::{Expectation, Plan};
use vswitch_core::{
    clock::Instant,
    decide::{Copy, Fate, Switch},
    fdb::Fdb,
    firewall::connections::{Config, Connections, Secret, Timeouts},
    head::{FrameView, HEAD_BYTES, LinkHeader},
    mac::MacAddr,
    route::Neighbours,
    trace::{NoTrace, Step},
    world::World,
};
use vswitchd::control::protocol::Journey;

/// Buckets of a table with room for all addresses that a file can state.
const BUCKETS: usize = 1 << 14;

/// A plan's switches before any frame.
pub(super) struct Foresight<'p> {
    plan: &'p Plan,
    world: World,
    fdb: Fdb,
    connections: Connections,
    neighbours: Neighbours,
}

impl<'p> Foresight<'p> {
    /// None if the switch would not take the plan.
    pub(super) fn new(plan: &'p Plan) -> Option<Self> {
        let world = World::compile(&plan.description).ok()?;
        let fdb = Fdb::new(0, BUCKETS);
        fdb.install(&world);
        // Nothing is opened where nothing is learned.
        let room = Config { capacity: 1, ports: 0, timeouts: Timeouts::DEFAULT };
        let connections = Connections::new(room, Secret::new([0; 16]));
        Some(Self { plan, world, fdb, connections, neighbours: Neighbours::new([0; 2]) })
    }

    /// What becomes of the first frame of a probe; none if that depends on addresses which the file does not say.
    pub(super) fn of(&self, expectation: &Expectation) -> Option<Journey> {
        let mac = |port| -> Option<MacAddr> {
            let mut interfaces = self.plan.nodes.iter().flat_map(|node| &node.interfaces);
            interfaces.find(|interface| interface.port == port)?.mac
        };
        let to = gateway(self.plan, expectation).or_else(|| mac(expectation.dst))?;
        let frame = raw_frame(expectation, mac(expectation.src)?, to);
        let len = u32::try_from(frame.len()).ok()?;
        let bytes = &frame[..frame.len().min(HEAD_BYTES)];
        let link = LinkHeader::parse(bytes, len).ok()?;
        let switch = Switch {
            world: &self.world,
            fdb: &self.fdb,
            connections: &self.connections,
            neighbours: &self.neighbours,
            now: Instant::ZERO,
            learning: false,
        };
        let mut copies: Vec<Copy> = Vec::new();
        let view = FrameView { link: &link, bytes, len, wire_len: len };
        let fate = switch.decide(expectation.src.index(), &view, &mut copies, &mut NoTrace);
        let sender = self.world.port(expectation.src.index());
        let answer = switch.answer(expectation.src.index(), &view, fate, &copies);
        let steps = answer.zip(sender).map(|(answer, to)| Step::answered(to, answer.kind()));
        let known = copies.iter().filter_map(|copy| Some((self.world.port(copy.to)?.id, copy.outcome.err())));
        let (copies, lost) = known.unzip();
        let dropped = if let Fate::Dropped(reason) = fate { Some(reason) } else { None };
        Some(Journey { steps: steps.into_iter().collect(), dropped, copies, lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use topology::plan::Verdict;

    #[test]
    fn what_a_router_passes_on_is_foreseen_where_the_file_states_who_is_there() {
        let text = include_str!("../../../topologies/routed.vnet.yaml");
        let plan = topology::load(text, "routed.vnet.yaml", Path::new("/")).expect("an example").plan;
        let foresight = Foresight::new(&plan).expect("a plan that compiles");
        assert!(plan.expectations.len() >= 7);
        for expectation in &plan.expectations {
            let journey = foresight.of(expectation).expect("stations");
            let arrives = journey.dropped.is_none() && journey.copies.contains(&expectation.dst);
            assert_eq!(arrives, expectation.verdict == Verdict::Allow, "{}: {journey:?}", expectation.text);
        }
    }
}
