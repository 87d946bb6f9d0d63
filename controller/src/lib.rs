//! The controller: it loads a topology file, starts what it names, keeps it running, and answers what is asked of it.

// Printing can fail, and then it panics: `cli::out` writes.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
mod benching;
mod cli;
pub mod doctor;
pub mod expect;
pub mod failure;
pub mod image;
pub mod lab;
pub mod probing;
pub mod station;
pub mod vm;
mod why;

pub use cli::main;
