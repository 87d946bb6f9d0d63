//! The topology file (`*.vnet.yaml`): said, checked, compiled. It cannot start anything, by construction.

pub mod plan;
