//! What is known of a connection, as values: its control word, and what TCP's ends have sent.

use super::{Direction, state::State};
use crate::id::PortId;

/// What a control word says beside the numbers in it. Those that come in pairs are for the end that sends
/// [`Direction::Egress`]; the next higher bit is for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(u64);

impl Flag {
    /// The end outside opened it.
    pub(super) const OPENED_OUTSIDE: Self = Self(1);
    /// The opener's SYN had a Window Scale option.
    pub(super) const SCALES: Self = Self(1 << 1);
    /// It was running when it was first seen: its windows are guessed.
    pub(super) const PICKED_UP: Self = Self(1 << 2);
    /// The opener sent another SYN, which is noted beside.
    pub(super) const SYN_AGAIN: Self = Self(1 << 3);
    /// The responder challenged a SYN: its `ack` is what a RST has to carry then.
    pub(super) const CHALLENGED: Self = Self(1 << 4);

    /// This end has acknowledged the other's SYN.
    pub(super) const fn answered(by: Direction) -> Self {
        Self(1 << 5 << by.index())
    }

    /// This end has sent its FIN.
    pub(super) const fn fin(by: Direction) -> Self {
        Self(1 << 7 << by.index())
    }

    /// This end has acknowledged the other's FIN.
    pub(super) const fn fin_acked(by: Direction) -> Self {
        Self(1 << 9 << by.index())
    }
}

/// ```text
/// 63          32 31     28 27      24 23    12 11      4 3     0
/// | port, gen.  | scale in | scale out | flags | version | state |
/// ```
/// The version is another one for each connection that the entry holds: a change that comes too late changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control(pub(super) u64);

impl Control {
    const STATE: u64 = 0xf;
    const FLAGS: u32 = 12;

    pub(super) const fn new(owner: PortId, state: State, opener: Direction) -> Self {
        let owner = (owner.index() as u64) << 48 | (owner.generation() as u64) << 32;
        let control = Self(owner | state as u64);
        match opener {
            Direction::Egress => control,
            Direction::Ingress => control.set(Flag::OPENED_OUTSIDE),
        }
    }

    /// What was seen of a connection, as that of another table has it, for one that is opened here.
    pub(super) const fn seen_by(self, other: Self) -> Self {
        let seen = 0xff << 24 | 0xfff << Self::FLAGS & !(Flag::OPENED_OUTSIDE.0 << Self::FLAGS);
        Self(self.0 & !seen | other.0 & seen)
    }

    /// The one that follows on `before` in the same entry.
    pub(super) const fn after(self, before: Self) -> Self {
        let version = (before.0 >> 4).wrapping_add(1) & 0xff;
        Self(self.0 & !(0xff << 4) | version << 4)
    }

    #[inline]
    pub(super) fn state(self) -> State {
        State::from_bits(self.0 & Self::STATE)
    }

    pub(super) const fn is(self, state: State) -> bool {
        self.0 & Self::STATE == state as u64
    }

    pub(super) const fn with_state(self, state: State) -> Self {
        Self(self.0 & !Self::STATE | state as u64)
    }

    pub(super) const fn has(self, flag: Flag) -> bool {
        self.0 >> Self::FLAGS & flag.0 != 0
    }

    pub(super) const fn set(self, flag: Flag) -> Self {
        Self(self.0 | flag.0 << Self::FLAGS)
    }

    pub(super) const fn clear(self, flag: Flag) -> Self {
        Self(self.0 & !(flag.0 << Self::FLAGS))
    }

    /// The same without all that was seen of a connection: only whose it is and who opened it.
    pub(super) const fn forgetful(self) -> Self {
        Self(self.0 & !(0xfff << Self::FLAGS | 0xff << 24) | self.0 & Flag::OPENED_OUTSIDE.0 << Self::FLAGS)
    }

    /// Who opened it.
    #[inline]
    pub(super) const fn opener(self) -> Direction {
        if self.has(Flag::OPENED_OUTSIDE) { Direction::Ingress } else { Direction::Egress }
    }

    /// By how much the windows of whoever sends in this direction are shifted.
    #[inline]
    pub(super) const fn scale(self, of: Direction) -> u32 {
        (self.0 >> Self::scale_at(of)) as u32 & 0xf
    }

    pub(super) const fn with_scale(self, of: Direction, scale: u8) -> Self {
        let at = Self::scale_at(of);
        Self(self.0 & !(0xf << at) | (scale as u64 & 0xf) << at)
    }

    const fn scale_at(of: Direction) -> u32 {
        28 - 4 * of.index() as u32
    }

    /// The place of the port whose firewall tracks it.
    pub(super) const fn owner(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// When a frame was last seen, and under which policy the connection was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// In seconds.
    pub(super) seen: u32,
    /// The low half of the policy's epoch.
    pub(super) epoch: u32,
}

impl Stamp {
    pub(super) const fn from_word(word: u64) -> Self {
        Self { seen: (word >> 32) as u32, epoch: word as u32 }
    }

    pub(super) const fn word(self) -> u64 {
        (self.seen as u64) << 32 | self.epoch as u64
    }
}

/// What one end of a TCP connection has sent and offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Side {
    /// Behind the last sequence number that it sent.
    pub(super) end: u32,
    /// The last that it acknowledged. Of an opener that waits for the answer: the first number behind its SYN.
    pub(super) ack: u32,
    /// Behind the last sequence number that it ever allowed the other to send. Of an opener that waits: the window of its SYN.
    pub(super) edge: u32,
    /// The largest window that it ever offered, and no less than [`MIN_WINDOW`](super::window::MIN_WINDOW): how far back is old.
    pub(super) window: u32,
}

impl Side {
    #[inline]
    pub(super) const fn from_words([first, second]: [u64; 2]) -> Self {
        Self {
            end: (first >> 32) as u32,
            ack: first as u32,
            edge: (second >> 32) as u32,
            window: second as u32,
        }
    }

    #[inline]
    pub(super) const fn words(self) -> [u64; 2] {
        [(self.end as u64) << 32 | self.ack as u64, (self.edge as u64) << 32 | self.window as u64]
    }
}

/// Where a TCP connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) control: Control,
    /// In the order of [`Direction::index`].
    pub(super) sides: [Side; 2],
}

impl Track {
    pub(super) fn side(&self, of: Direction) -> &Side {
        &self.sides[of.index()]
    }

    pub(super) fn side_mut(&mut self, of: Direction) -> &mut Side {
        &mut self.sides[of.index()]
    }
}

/// A SYN of the opener in what looks like a running connection: it counts if the other end answers it (RFC 5961 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SynAgain {
    /// Behind the SYN.
    pub(super) end: u32,
    pub(super) window: u16,
    pub(super) scale: Option<u8>,
}

impl SynAgain {
    pub(super) fn from_word(word: u64) -> Self {
        let scale = (word >> 16) as u8;
        Self { end: (word >> 32) as u32, window: word as u16, scale: (scale < 0xff).then_some(scale) }
    }

    pub(super) fn word(self) -> u64 {
        u64::from(self.end) << 32 | u64::from(self.scale.unwrap_or(0xff)) << 16 | u64::from(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_control_word_touches_another() {
        let owner = PortId::new(0xefff, 0xffff);
        let full = Control(0xfff << 12 | 0xff << 4).after(Control(0xff0));
        assert_eq!(full.0 >> 4 & 0xff, 0, "the version wraps");
        let control = Control::new(owner, State::OtherReplied, Direction::Ingress)
            .with_scale(Direction::Egress, 14)
            .with_scale(Direction::Ingress, 3);
        let all = [Flag::SCALES, Flag::PICKED_UP, Flag::SYN_AGAIN, Flag::CHALLENGED].into_iter().chain(
            [Direction::Egress, Direction::Ingress]
                .into_iter()
                .flat_map(|by| [Flag::answered(by), Flag::fin(by), Flag::fin_acked(by)]),
        );
        for flag in all {
            let set = control.set(flag);
            assert!(set.has(flag) && !control.has(flag));
            assert_eq!(set.clear(flag), control);
            assert_eq!(
                (set.owner(), set.state(), set.opener()),
                (0xefff, State::OtherReplied, Direction::Ingress)
            );
            assert_eq!((set.scale(Direction::Egress), set.scale(Direction::Ingress)), (14, 3));
        }
        assert_eq!(control.with_state(State::SynSent).with_state(State::OtherReplied), control);
    }

    #[test]
    fn a_second_syn_keeps_its_facts() {
        for scale in [None, Some(0), Some(14)] {
            let syn = SynAgain { end: 0xffff_fff0, window: 0xfffe, scale };
            assert_eq!(SynAgain::from_word(syn.word()), syn);
        }
    }
}
