//! Builds the bundled guest and tells the crate where it is (`VNET_GUEST`).
//!
//! A nested cargo has a target folder of its own (the outer one is locked) and none of the outer build's settings: flags
//! meant for the host's programs, wrappers and target folders would change what it makes or where.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

/// What the guest is made of.
const SOURCES: [&str; 6] =
    ["guest/src", "guest/build.rs", "guest/link.ld", "guest/Cargo.toml", "guest/Cargo.lock", "src/ports.rs"];

/// Settings of the outer build that must not reach the inner one.
const CLEARED: [&str; 11] = [
    "RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
];

fn main() -> Result<(), Box<dyn Error>> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let guest = build(&PathBuf::from(env::var("OUT_DIR")?).join("guest"))?;
    println!("cargo::rustc-env=VNET_GUEST={}", guest.display());
    Ok(())
}

/// Builds the guest in `folder` and returns its path. It is for this machine's own target: there is no std in it, so
/// nothing of the system either.
fn build(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("guest/Cargo.toml");
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo sets CARGO for build scripts")?);
    cargo.args(["build", "--quiet", "--locked", "--release", "--target", "x86_64-unknown-linux-gnu"]);
    cargo.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(folder);
    for variable in CLEARED {
        cargo.env_remove(variable);
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the nested build of the bundled guest failed: {status}").into());
    }
    Ok(folder.join("x86_64-unknown-linux-gnu/release/guest"))
}
