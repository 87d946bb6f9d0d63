//! `vnet`, built in this package so that these tests always run the one they were built with.

fn main() -> std::process::ExitCode {
    controller::main()
}
