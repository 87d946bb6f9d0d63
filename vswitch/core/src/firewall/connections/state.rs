//! The states of a connection, how long each lasts without a frame, and what each is worth when room is short.

use serde::{Deserialize, Serialize};

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum State {
    /// TCP: the opener's SYN was seen.
    SynSent,
    /// TCP: both ends sent a SYN (RFC 9293 §3.5, simultaneous open).
    SynBoth,
    /// TCP: a SYN was answered.
    SynReceived,
    /// TCP: both SYNs are acknowledged.
    Established,
    /// TCP: one end sent its FIN.
    HalfClosed,
    /// TCP: both did.
    Closing,
    /// TCP: both FINs are acknowledged.
    TimeWait,
    /// TCP: ended by a RST.
    Reset,
    /// UDP, seen in one direction.
    Unreplied,
    /// UDP, seen in both.
    Replied,
    /// An ICMP query.
    Asked,
    /// One that was answered.
    Answered,
    /// Any other protocol, seen in one direction.
    OtherUnreplied,
    /// The same, seen in both.
    OtherReplied,
}

/// What a connection is worth: its port gives up the cheapest when it may not have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is over.
    Over,
    /// Only one end has been heard so far, or the handshake is not complete.
    Opening,
    /// Both ends use it.
    Settled,
}

impl State {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::SynSent,
        Self::SynBoth,
        Self::SynReceived,
        Self::Established,
        Self::HalfClosed,
        Self::Closing,
        Self::TimeWait,
        Self::Reset,
        Self::Unreplied,
        Self::Replied,
        Self::Asked,
        Self::Answered,
        Self::OtherUnreplied,
        Self::OtherReplied,
    ];

    /// The state with this number.
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self::ALL[(bits as usize & 0xf).min(Self::ALL.len() - 1)]
    }

    /// Its name, as `docs/connections.md` and JSON have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynBoth => "syn-both",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::HalfClosed => "half-closed",
            Self::Closing => "closing",
            Self::TimeWait => "time-wait",
            Self::Reset => "reset",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::OtherUnreplied => "other-unreplied",
            Self::OtherReplied => "other-replied",
        }
    }

    /// Whether it is one of TCP's.
    pub const fn is_tcp(self) -> bool {
        (self as u8) <= Self::Reset as u8
    }

    pub(super) const fn worth(self) -> Worth {
        match self {
            Self::Closing | Self::TimeWait | Self::Reset => Worth::Over,
            Self::SynSent | Self::SynBoth | Self::SynReceived => Worth::Opening,
            Self::Unreplied | Self::Asked | Self::OtherUnreplied => Worth::Opening,
            Self::Established | Self::HalfClosed => Worth::Settled,
            Self::Replied | Self::Answered | Self::OtherReplied => Worth::Settled,
        }
    }
}

/// How many seconds each state lasts without a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts([u32; 16]);

impl Timeouts {
    /// What is used unless somebody knows better; `docs/connections.md` says why each is what it is.
    pub const DEFAULT: Self = {
        let mut seconds = [0; 16];
        seconds[State::SynSent as usize] = 120;
        seconds[State::SynBoth as usize] = 120;
        seconds[State::SynReceived as usize] = 60;
        seconds[State::Established as usize] = 5 * 24 * 3600;
        seconds[State::HalfClosed as usize] = 240;
        seconds[State::Closing as usize] = 60;
        seconds[State::TimeWait as usize] = 120;
        seconds[State::Reset as usize] = 10;
        seconds[State::Unreplied as usize] = 30;
        seconds[State::Replied as usize] = 120;
        seconds[State::Asked as usize] = 60;
        seconds[State::Answered as usize] = 60;
        seconds[State::OtherUnreplied as usize] = 60;
        seconds[State::OtherReplied as usize] = 600;
        Self(seconds)
    };

    /// The same, but for one state.
    pub const fn with(mut self, state: State, seconds: u32) -> Self {
        self.0[state as usize] = seconds;
        self
    }

    /// Seconds that `state` lasts.
    #[inline]
    pub const fn of(&self, state: State) -> u32 {
        self.0[state as usize & 0xf]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_number_and_a_time() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(State::from_bits(number as u64), state);
            assert!(Timeouts::DEFAULT.of(state) > 0);
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.name()));
        }
    }
}
