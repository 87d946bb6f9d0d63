//! The captures that a worker takes frames for.

use crate::capture::Intake;
use vswitch_core::world::World;

/// All of them.
#[derive(Default)]
pub(super) struct Captures(Vec<Intake>);

impl Captures {
    pub(super) fn add(&mut self, intake: Intake) {
        self.0.push(intake);
    }

    /// Ends capture `number`, if it did not end yet.
    pub(super) fn end(&mut self, number: u32) {
        self.0.retain(|intake| intake.number != number);
    }

    /// Ends those of ports that are not in `world`.
    pub(super) fn adopt(&mut self, world: &World) {
        self.0.retain(|Intake { port, .. }| world.port(port.index()).is_some_and(|there| there.id == *port));
    }

    /// Whether there are any: all that a batch costs that nobody captures.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        !self.0.is_empty()
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those of the port in place `port`.
    pub(super) fn of(&mut self, port: u16) -> impl Iterator<Item = &mut Intake> {
        self.0.iter_mut().filter(move |intake| intake.port.index() == port)
    }
}
