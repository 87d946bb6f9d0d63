//! What the file says, exactly as it is written: nothing is resolved, nothing is filled in.

pub(crate) mod dhcp;
pub(crate) mod lab;
pub(crate) mod nat;
pub(crate) mod read;
pub(crate) mod route;
pub(crate) mod rule;
pub(crate) mod scalar;
pub(crate) mod tree;
