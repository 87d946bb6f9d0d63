//! The one small protocol in which a guest is asked to ping, connect, listen and report.
//!
//! Spoken by the bundled guest, by the agent inside a Linux image and by the stations, so that whoever asks need not
//! know which of them answers. It runs over any stream of bytes: a Unix socket, or a serial line on which a kernel may
//! print as well.
//!
//! ```text
//! asker                                      guest
//!   |                      FromGuest::Ready    |   at its start
//!   |<-----------------------------------------|
//!   |  Ask { id: 1, Hello } · Ask { id: 2, .. }|   several may be under way
//!   |----------------------------------------->|
//!   |         Answer { id: 2, .. } · { id: 1 } |   as they are done
//!   |<-----------------------------------------|
//! ```
//!
//! What is asked: [`ask`]. What is answered: [`answer`]. How both travel: [`frame`]. The bytes of a bulk transfer:
//! [`bulk`].

#![no_std]

extern crate alloc;

pub mod answer;
pub mod ask;
pub mod bulk;
pub mod frame;
mod mac;

pub use answer::{Answer, FromGuest};
pub use ask::{Ask, AskId, Request};
pub use frame::{Decoder, FrameError, encode};
pub use mac::Mac;

/// The version of the protocol. It changes with every change to a message; [`ask::Hello`] alone keeps its form.
pub const VERSION: u16 = 2;

/// The port of the echo service (RFC 862), which every guest serves over TCP and UDP from its start.
pub const ECHO_PORT: u16 = 7;

/// The EtherType of raw probe frames: local experimental (IEEE 802-2014 §9.2.3).
pub const ETHERTYPE: u16 = 0x88b5;
