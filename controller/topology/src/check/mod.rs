//! From said to checked: every reference resolved, every rule of the file kept, each violation told once.

pub(crate) mod addresses;
pub(crate) mod datapath;
pub(crate) mod expect;
pub(crate) mod groups;
pub(crate) mod guards;
pub(crate) mod hosts;
pub(crate) mod interfaces;
pub(crate) mod limits;
pub(crate) mod links;
pub(crate) mod models;
pub(crate) mod names;
pub(crate) mod nat;
pub(crate) mod neighbours;
pub(crate) mod nodes;
pub(crate) mod routers;
pub(crate) mod routes;
pub(crate) mod rules;
pub(crate) mod services;
pub(crate) mod shadows;
pub(crate) mod vlans;
pub(crate) mod ways_out;
