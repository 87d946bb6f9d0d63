//! What routers say and hear themselves, behind their port.

pub mod dhcp;
pub mod dns;
