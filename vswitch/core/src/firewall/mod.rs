//! The firewall of a virtual NIC: what may enter and leave an interface that has security groups.

pub mod connections;
