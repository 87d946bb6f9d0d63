//! Labs end to end, by the `vnet` that a user runs: what every verb says, how it ends, and that nothing is left behind.

mod asker;
mod bench;
mod capture;
mod cleanup;
mod common;
mod examples;
mod folders;
mod guests;
mod hello;
mod ipxe;
mod kills;
mod linux;
mod metrics;
mod namespaces;
mod neighbours;
mod nested;
mod output;
mod process;
mod readme;
mod reconnect;
mod reflector;
mod vmm;
mod vms;
mod wild;
