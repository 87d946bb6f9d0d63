//! What to measure, and what follows from it: rings, buffers, memory.

use crate::{
    frames::{FrameSize, Payload, Variety},
    large::Large,
    load::{Pace, Trial},
    offload::{Kind, Offload},
    path::Route,
    report::Settings,
    search::Goal,
};
use std::time::Duration;
use vhost_net_backend::{
    driver::{Config, MemoryConfig},
    features,
    layout::RingSize,
    net_header,
};

/// Buffers are no smaller: what guests post.
const SMALLEST_BUFFER: usize = 2048;
/// A ring's buffers are to stay in the cache of one core: with larger frames the default ring is smaller.
const DEFAULT_RINGS: [(usize, u16); 3] = [(2048, 1024), (16 << 10, 256), (usize::MAX, 64)];
/// Entries of a ring of segments where nothing is said: what QEMU gives a guest.
const SEGMENT_RING: u16 = 256;
/// The part of a repetition that warms up.
pub(crate) const WARM_UP: f64 = 0.2;

/// What to measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What the switch is, in words.
    pub device: String,
    /// Sizes of frames, one row each.
    pub sizes: Vec<FrameSize>,
    /// What is left to the switch, one row of each size for each.
    pub offloads: Vec<Offload>,
    /// Entries of each ring; none: 1024, with frames over 2 KiB 256, over 16 KiB 64.
    pub ring_size: Option<RingSize>,
    /// How frames differ.
    pub variety: Variety,
    /// What the switch does with frames. Where it is more than switching they go one way, of one MAC address a port, and have no tags.
    pub route: Route,
    /// What is done with what stands behind their heads.
    pub payload: Payload,
    /// Ports attached, 2 or more.
    pub ports: usize,
    /// Ports with traffic, in pairs: 2 to `ports`.
    pub busy_ports: usize,
    /// Whether frames go both ways.
    pub two_directions: bool,
    /// What is looked for.
    pub mode: Mode,
    /// How long a trial measures.
    pub measured: Duration,
    /// Repetitions, 1 or more.
    pub repetitions: u32,
    /// Whether this machine's limits are measured, too.
    pub limits: bool,
    /// Whether receive buffers can be merged (MRG_RXBUF).
    pub mergeable: bool,
    /// The CPU of generator and sink.
    pub generator_cpu: u16,
    /// The CPU of the switch, on which the limits are measured; none: there is only one.
    pub switch_cpu: Option<u16>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// The rate that sets itself.
    Closed {
        /// Frames of each stream on their way; none: a sixteenth less than the ring holds.
        window: Option<u32>,
    },
    /// What comes through at a rate.
    Open {
        /// Frames a second, of all streams together.
        rate: f64,
    },
    /// What comes through at a part of the rate that a closed loop reaches just before.
    Part {
        /// Above 0, up to 1.
        of_closed: f64,
    },
    /// The highest rate that is borne.
    Search(Goal),
}

impl Plan {
    /// One for each row.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let each = |size: &FrameSize| {
            let size = *size;
            self.offloads.iter().map(move |offload| Kind { size, offload: *offload })
        };
        self.sizes.iter().flat_map(each).collect()
    }

    /// Entries of a ring of whole frames.
    pub(crate) fn ring_size(&self, size: FrameSize) -> RingSize {
        self.ring_size.unwrap_or_else(|| {
            let buffer = buffer_size(size);
            let entries =
                DEFAULT_RINGS.iter().find(|(most, _)| buffer <= *most).map_or(64, |(_, ring)| *ring);
            RingSize::new(entries).expect("the table holds powers of two")
        })
    }

    pub(crate) fn limits_run(&self) -> bool {
        self.limits && self.switch_cpu.is_some()
    }

    /// The driver of port `port`, if frames go to those with odd numbers.
    pub(crate) fn driver(&self, kind: Kind, port: usize, huge_pages: bool) -> Config {
        let base = Config::default();
        let left = kind.offload.features();
        let merge = if self.mergeable || left > 0 { features::NET_MRG_RXBUF } else { 0 };
        let (ring_size, buffer_size) = match kind.offload {
            Offload::Segments if port % 2 == 1 => (self.segment_ring(kind), SMALLEST_BUFFER),
            _ => (self.ring_size(kind.size), buffer_size(kind.size)),
        };
        Config {
            features: base.features & !features::NET_MRG_RXBUF | merge | left,
            ring_size,
            memory: MemoryConfig { huge_pages, shaped_bytes: 0, ..MemoryConfig::default() },
            buffer_size: buffer_size as u32,
            ..base
        }
    }

    /// Entries of a ring of segments, each in a buffer of its own: at least two frames' of them.
    fn segment_ring(&self, kind: Kind) -> RingSize {
        let asked = self.ring_size.map_or(SEGMENT_RING, RingSize::entries);
        let segments = Large::parts(kind.size.longest_on_ring(), kind.offload) as u16;
        RingSize::new(asked.max((2 * segments).next_power_of_two())).expect("two powers of two")
    }

    /// Bytes of the memory of all guests, about, if it is of huge pages; those of ringcopy count too.
    pub(crate) fn huge_bytes(&self) -> u64 {
        let bytes = |size: &FrameSize| {
            let entries = u64::from(self.ring_size(*size).entries());
            // Two rings of buffers, their strides, and what is rounded up.
            2 * entries * (buffer_size(*size) as u64 + 256) + (8 << 20)
        };
        (self.ports as u64 + 2) * self.sizes.iter().map(bytes).max().unwrap_or(0)
    }

    pub(crate) fn settings(&self, huge_pages: bool) -> Settings {
        Settings {
            device: self.device.clone(),
            ports: self.ports,
            busy_ports: self.busy_ports,
            directions: if self.two_directions { 2 } else { 1 },
            flows: self.variety.flows,
            macs: self.variety.macs,
            vlans: self.variety.vlans,
            path: self.route.path,
            payload: self.payload,
            mergeable: self.mergeable,
            huge_pages,
            seconds: self.measured.as_secs_f64(),
            repetitions: self.repetitions,
        }
    }

    pub(crate) fn left_out(&self) -> Vec<String> {
        let mut left_out = Vec::new();
        if self.switch_cpu.is_none() {
            left_out.push(
                "this machine's limits (ringcopy, memcpy): with one CPU, generator and switch take turns on it, and no \
                 rate says much"
                    .into(),
            );
        } else if !self.limits {
            left_out.push("this machine's limits (ringcopy, memcpy): not asked for".into());
        }
        left_out
    }

    /// Frames of each stream on their way in a closed loop: a sixteenth less than rings hold, of the receiver's as well as of the sender's.
    pub(crate) fn window(&self, kind: Kind) -> u32 {
        if let Mode::Closed { window: Some(window) } = self.mode {
            return window;
        }
        let most = |ring: RingSize| u32::from(ring.entries()) - u32::from(ring.entries()) / 16;
        let whole = most(self.ring_size(kind.size));
        let window = match kind.offload {
            Offload::Segments => {
                let segments = Large::parts(kind.size.longest_on_ring(), kind.offload) as u32;
                whole.min(most(self.segment_ring(kind)) / segments)
            }
            Offload::None | Offload::Checksum => whole,
        };
        window.max(1)
    }

    /// What is looked for, in words.
    pub(crate) fn mode_in_words(&self, kind: Kind) -> String {
        match self.mode {
            Mode::Closed { .. } => format!("closed loop, window {}", self.window(kind)),
            Mode::Open { rate } => format!("open loop, {} Mpps", rate / 1e6),
            Mode::Part { of_closed } => {
                format!("open loop, {} % of the closed loop's rate", of_closed * 100.0)
            }
            Mode::Search(goal) => goal.to_string(),
        }
    }

    pub(crate) fn trial(&self, pace: Pace) -> Trial {
        Trial { pace, warm_up: self.measured.mul_f64(WARM_UP), measured: self.measured }
    }
}

fn buffer_size(size: FrameSize) -> usize {
    (size.longest_on_ring() + net_header::LEN).max(SMALLEST_BUFFER)
}
