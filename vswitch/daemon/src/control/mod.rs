//! The control socket: how the controller tells this process what to be and asks what it did.

pub mod client;
pub mod protocol;
pub mod server;
