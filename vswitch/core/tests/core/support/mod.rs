//! What the rooms of this suite share.

pub(crate) mod differential;
pub(crate) mod frames;
pub(crate) mod lab;
