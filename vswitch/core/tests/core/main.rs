//! The switch core, tested without sockets, threads or sleep: one room a file.

mod connections;
mod conservation;
mod fdb;
mod fdb_growth;
mod filter;
mod firewall;
mod flow;
mod guarded;
mod head;
mod limits;
mod offload;
mod routing;
mod story;
mod support;
mod switches;
mod tables;
mod vlan;
mod world;
