//! Builds the bundled guest and tells the crate where it is (`VNET_GUEST`).

mod nested;

use std::error::Error;

/// What the guest is made of.
const SOURCES: [&str; 13] = [
    "guest/src",
    "guest/build.rs",
    "guest/link.ld",
    "guest/Cargo.toml",
    "guest/Cargo.lock",
    "src/ports.rs",
    "probe/src",
    "probe/Cargo.toml",
    "end-station/src",
    "end-station/Cargo.toml",
    // What those two inherit.
    "../Cargo.toml",
    "build.rs",
    "nested.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    nested::watch(&SOURCES);
    // For this machine's own target: there is no std in it, so nothing of the system either.
    let guest = nested::build("guest", "x86_64-unknown-linux-gnu", |cargo| {
        cargo.args(["--manifest-path", "guest/Cargo.toml"]);
    })?;
    println!("cargo::rustc-env=VNET_GUEST={}", guest.display());
    Ok(())
}
