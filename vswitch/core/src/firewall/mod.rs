//! The firewall of a virtual NIC: what may enter and leave an interface that has security groups.
//!
//! ```text
//! file:  security-groups -> policy (said, checked) -> classify (compiled once a World)
//! frame: head -> fragments: its first one passed, and it passes
//!            `-> connections: known, and it passes
//!                `-> new: tuple -> classify::Classifier -> the first rule that matches, or the default
//! ```
//!
//! Rules are asked when a frame belongs to no connection that is known, and only then. Directions are the guest's, as
//! in OpenStack: ingress is towards it.

pub mod answer;
pub mod classify;
pub mod connections;
#[cfg(test)]
mod flood;
pub mod fragments;
pub mod hits;
pub mod interface;
pub mod log;
pub mod mend;
pub mod policies;
pub mod policy;
pub mod tuple;
pub mod words;
