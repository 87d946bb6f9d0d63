//! `vnet`: see the crate `controller`, of which this is the thin binary.

fn main() -> std::process::ExitCode {
    controller::main()
}
