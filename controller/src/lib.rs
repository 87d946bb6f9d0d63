//! The controller: it loads a topology file, starts what it names, keeps it running, and answers what is asked of it.

pub mod api;
pub mod expect;
pub mod failure;
pub mod lab;

/// Runs `vnet` with the process's arguments.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
