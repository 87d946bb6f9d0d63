//! The virtual-NIC firewall: what an interface with security groups lets in and out.
//!
//! ```text
//! file: security-groups -> policy (said, checked) -> classify (compiled once a World)
//! frame: head::Head -> tuple::Tuple -> classify::Classifier -> the first rule that matches, or the default
//! ```
//!
//! Rules are asked when a frame belongs to no connection that is known, and only then. Directions are the guest's, as
//! in OpenStack: ingress is towards it.

pub mod classify;
pub mod policies;
pub mod policy;
pub mod tuple;
