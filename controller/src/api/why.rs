//! What is said over the API about what was recorded: `why`.

use serde::{Deserialize, Serialize};
use vswitch_core::drop_reason::DropReason;

/// Which records are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WhyRequest {
    /// Node, `node:interface` or address that frames came from; with no `dst`, or that they were for.
    pub src: Option<String>,
    /// The same, that they were for.
    pub dst: Option<String>,
    /// How far back: `10s`, `5m`. None: [`WhyRequest::LAST`].
    pub last: Option<String>,
}

impl WhyRequest {
    /// How far back if nothing is said.
    pub const LAST: &str = "60s";
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyView {
    /// What was asked for, in words: `from web to bob`.
    pub about: String,
    /// Whether that names an IPv6 address, of which the last 32 bits are compared: frames of others that end so are told, too.
    pub last_bits: bool,
    /// What the answer can vouch for.
    pub span: WhySpan,
    /// Alike records together: first what was lost, then what else happened; each the latest first.
    pub groups: Vec<WhyGroup>,
    /// How many more groups there are.
    pub left_out: usize,
}

/// What span an answer covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhySpan {
    /// What was asked for, in milliseconds.
    pub asked_millis: u64,
    /// How far back nothing was forgotten, in milliseconds.
    pub held_millis: u64,
    /// Whether that is all since the switch process started.
    pub since_start: bool,
    /// Of how many causes (a reason at a port) not every frame was recorded, but the rest counted.
    pub capped: usize,
}

/// Records of one cause at one port, or between two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyGroup {
    /// What happened.
    pub kind: WhyKind,
    /// How many records.
    pub count: u64,
    /// How many more of that cause were only counted.
    pub more: u64,
    /// When the first was, in milliseconds before the answer.
    pub first_millis_ago: u64,
    /// When the last was.
    pub last_millis_ago: u64,
    /// Where: `node:interface`.
    pub port: Option<String>,
    /// Where a copy was to go.
    pub to: Option<String>,
    /// A few of its frames, the latest first; none if it is about no frame, or about such that were too short to have addresses.
    pub frames: Vec<WhyFrame>,
    /// How many more kinds of frames there are.
    pub frames_left_out: usize,
    /// Why it was lost.
    pub reason: Option<DropReason>,
    /// What became of it, in a sentence.
    pub fate: String,
    /// The line of the topology file that decided it, or else the one that says the port: `file:line`. None if the file changed since.
    pub said: Option<String>,
    /// What that line does.
    pub rule: Option<String>,
    /// What to do about it.
    pub mend: Option<String>,
    /// If it is about an address that moved back and forth: how often it moved in all; else 0.
    pub flaps: u64,
    /// The configuration that decided it, if it is not the one in force.
    pub old_epoch: Option<u64>,
}

/// Frames that differ by no more than their moment, length and source port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyFrame {
    /// The last of them, in words.
    pub frame: String,
    /// How many were recorded.
    pub count: u64,
    /// If rules dropped them: which one did, or that none allows it. The headers that were recorded are judged again under the same
    /// configuration. None also if it is not known any more: the file changed, or too little of an IPv6 address was kept.
    pub decided: Option<String>,
    /// With `decided`: what would let it pass.
    pub mend: Option<String>,
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyKind {
    /// A frame was dropped.
    Dropped,
    /// A copy of a frame was lost.
    Lost,
    /// An address was not learned.
    NotLearned,
    /// An address was learned, or moved.
    Learned,
    /// A port came up, went down or was stopped.
    Link,
    /// A configuration came into force.
    Applied,
}

impl WhyKind {
    /// Whether something did not get where it was to go.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::Dropped | Self::Lost | Self::NotLearned)
    }
}
