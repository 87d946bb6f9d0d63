//! Ports that are no guest: adapters that drive the other end of a port's rings.

pub(crate) mod tap;
