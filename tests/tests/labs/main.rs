//! Labs end to end, by the `vnet` that a user runs: what every verb says, how it ends, and that nothing is left behind.

mod common;
mod examples;
mod hello;
