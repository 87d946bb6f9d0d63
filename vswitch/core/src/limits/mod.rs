//! How much an interface may send and get: rates, storm control, new connections, MAC addresses.
//!
//! What was taken from a limit is the one thing of a World that changes. It goes over to the next World if that has the same limits there,
//! so that no applied file is a way to have more.

mod bucket;

pub use bucket::Bucket;

use crate::{
    clock::Instant,
    description::{self, Rates, Storm},
    drop_reason::DropReason,
    firewall::policy::Direction,
    mac::MacAddr,
};
use std::{num::NonZeroU64, sync::Arc, time::Duration};

/// What may come at once of what is counted piece by piece, not as a stream: as much as in this time.
const PIECES: Duration = Duration::from_secs(1);

/// The limits of one interface.
#[derive(Debug)]
pub struct Limits {
    /// What the file says.
    pub said: description::Limits,
    buckets: Arc<Buckets>,
}

/// A bucket for each rate that is limited.
#[derive(Debug)]
struct Buckets {
    egress: OneWay,
    ingress: OneWay,
    broadcast: Option<Bucket>,
    multicast: Option<Bucket>,
    unknown_unicast: Option<Bucket>,
}

/// Those of one direction.
#[derive(Debug)]
struct OneWay {
    bits: Option<Bucket>,
    frames: Option<Bucket>,
    connections: Option<Bucket>,
}

/// When a limit is asked, and whether what it gives is taken: for a frame that is only imagined it is not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) now: Instant,
    pub(crate) takes: bool,
}

impl Asking {
    fn ask(self, bucket: Option<&Bucket>, amount: u64) -> bool {
        bucket.is_none_or(|bucket| {
            if self.takes { bucket.take(amount, self.now) } else { bucket.has(amount, self.now) }
        })
    }
}

impl OneWay {
    fn new(said: &Rates) -> Self {
        let burst = Duration::from_micros(said.burst_micros.into());
        Self {
            bits: said.bits.map(|rate| Bucket::new(rate, burst)),
            frames: said.frames.map(|rate| Bucket::of_pieces(rate, burst)),
            connections: said.connections.map(|rate| Bucket::of_pieces(rate, PIECES)),
        }
    }
}

impl Limits {
    /// The limits that are said; `before` are those that the interface had.
    pub(crate) fn new(said: &description::Limits, before: Option<&Self>) -> Self {
        let same = before.filter(|before| said.is_like(&before.said));
        let buckets = same.map(|before| before.buckets.clone()).unwrap_or_else(|| {
            let Storm { broadcast, multicast, unknown_unicast } = said.storm;
            let pieces = |rate: Option<NonZeroU64>| rate.map(|rate| Bucket::of_pieces(rate, PIECES));
            Arc::new(Buckets {
                egress: OneWay::new(&said.egress),
                ingress: OneWay::new(&said.ingress),
                broadcast: pieces(broadcast),
                multicast: pieces(multicast),
                unknown_unicast: pieces(unknown_unicast),
            })
        });
        Self { said: said.clone(), buckets }
    }

    /// Whether there is a limit that each frame has to be held against.
    pub(crate) fn asks_each_frame(&self) -> bool {
        let Buckets { egress, ingress, .. } = &*self.buckets;
        [egress, ingress].into_iter().any(|way| way.bits.is_some() || way.frames.is_some())
    }

    /// Whether a frame of `len` bytes may pass in that direction.
    pub(crate) fn let_frame(&self, direction: Direction, len: u32, asking: Asking) -> Result<(), DropReason> {
        let (way, too_many, too_much) = match direction {
            Direction::Egress => {
                (&self.buckets.egress, DropReason::FrameRateEgress, DropReason::BitRateEgress)
            }
            Direction::Ingress => {
                (&self.buckets.ingress, DropReason::FrameRateIngress, DropReason::BitRateIngress)
            }
        };
        if !asking.ask(way.frames.as_ref(), 1) {
            return Err(too_many);
        }
        if !asking.ask(way.bits.as_ref(), u64::from(len) * 8) {
            // A frame that does not pass takes nothing: else a sender of too much would get less than either limit.
            way.frames.iter().filter(|_| asking.takes).for_each(|frames| frames.give_back(1));
            return Err(too_much);
        }
        Ok(())
    }

    /// Whether a frame in that direction may open a connection.
    pub(crate) fn let_connection(&self, direction: Direction, asking: Asking) -> bool {
        asking.ask(self.way(direction).connections.as_ref(), 1)
    }

    /// Undoes what [`Self::let_connection`] took for a connection that then was not opened.
    pub(crate) fn give_connection_back(&self, direction: Direction) {
        self.way(direction).connections.iter().for_each(|connections| connections.give_back(1));
    }

    fn way(&self, direction: Direction) -> &OneWay {
        match direction {
            Direction::Egress => &self.buckets.egress,
            Direction::Ingress => &self.buckets.ingress,
        }
    }

    /// Whether a frame of the guest's to `dst` may be flooded.
    pub(crate) fn let_flood(&self, dst: MacAddr, asking: Asking) -> Result<(), DropReason> {
        let (bucket, reason) = if dst == MacAddr::BROADCAST {
            (&self.buckets.broadcast, DropReason::StormBroadcast)
        } else if dst.is_group() {
            (&self.buckets.multicast, DropReason::StormMulticast)
        } else {
            (&self.buckets.unknown_unicast, DropReason::StormUnknownUnicast)
        };
        if asking.ask(bucket.as_ref(), 1) { Ok(()) } else { Err(reason) }
    }

    /// What the file says, in its words, that makes an interface drop for this reason, if it is a limit's.
    pub(crate) fn words(&self, reason: DropReason, macs: u32) -> Option<String> {
        let description::Limits { egress, ingress, storm, sticky_macs, .. } = &self.said;
        let (part, key, value) = match reason {
            DropReason::BitRateEgress => ("egress", "rate", scaled(egress.bits?, "bit")),
            DropReason::BitRateIngress => ("ingress", "rate", scaled(ingress.bits?, "bit")),
            DropReason::FrameRateEgress => ("egress", "frame-rate", scaled(egress.frames?, "pps")),
            DropReason::FrameRateIngress => ("ingress", "frame-rate", scaled(ingress.frames?, "pps")),
            DropReason::ConnectionRateEgress => {
                ("egress", "new-connections", format!("{}/s", egress.connections?))
            }
            DropReason::ConnectionRateIngress => {
                ("ingress", "new-connections", format!("{}/s", ingress.connections?))
            }
            DropReason::StormBroadcast => ("storm-control", "broadcast", scaled(storm.broadcast?, "pps")),
            DropReason::StormMulticast => ("storm-control", "multicast", scaled(storm.multicast?, "pps")),
            DropReason::StormUnknownUnicast => {
                ("storm-control", "unknown-unicast", scaled(storm.unknown_unicast?, "pps"))
            }
            DropReason::MacLimit if *sticky_macs => {
                return Some(format!("limits: {{ macs: {macs}, sticky-macs: true }}"));
            }
            DropReason::MacLimit => return Some(format!("limits: {{ macs: {macs} }}")),
            _ => return None,
        };
        Some(format!("limits: {{ {part}: {{ {key}: {value} }} }}"))
    }
}

/// A rate as the file writes it: `10Mbit`.
fn scaled(rate: NonZeroU64, unit: &str) -> String {
    let scales = [(1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")];
    let (by, prefix) = scales.into_iter().find(|(by, _)| rate.get().is_multiple_of(*by)).unwrap_or((1, ""));
    format!("{}{prefix}{unit}", rate.get() / by)
}
