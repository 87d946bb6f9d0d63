//! The HTTP API over the lab's Unix socket: both ends, and what is said between them.

pub mod capture;
pub mod client;
pub mod problem;
pub mod server;
pub mod types;
pub mod why;

#[cfg(test)]
mod tests;
