//! `vswitchd`: the datapath process as a binary of its own (`vnet vswitchd` is the same).

fn main() {}
