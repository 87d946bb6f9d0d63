//! The firewall's rules: compiled as they were said, at a cost that does not depend on how many there are.

mod differential;
mod large;
mod naive;
mod policies;
mod random;
mod rules;
mod sets;
