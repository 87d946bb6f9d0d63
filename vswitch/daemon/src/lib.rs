//! The datapath process: it moves frames between its ports' rings as `vswitch-core` decides.

pub mod control;
