//! virtio-net over vhost-user, both sides of the rings.
//!
//! [`device`] is what a switch is to its guests: it accepts or connects to a VMM, maps the guest's memory and hands
//! running rings, as values, to a worker. [`driver`] is the guest's side of the same rings (what DPDK calls
//! virtio-user), for stations, adapters, generators and tests. Neither knows anything of switching.
//!
//! What both share stands beside them: [`features`], the split ring's [`layout`], the [`net_header`].
//! rx and tx are meant in virtio's sense here: the guest receives from the receiveq and transmits on the transmitq.

pub mod cycles;
pub mod device;
pub mod driver;
pub mod features;
pub mod layout;
pub mod net_header;
mod prefetch;
