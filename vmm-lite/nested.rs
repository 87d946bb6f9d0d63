//! A cargo within a build script, for what is built to run in guests: those build scripts compile this very file.
//!
//! A nested cargo has a target folder of its own (the outer one is locked) and none of the outer build's settings: flags
//! meant for the host's programs, wrappers and target folders would change what it makes or where.

use std::{env, error::Error, path::PathBuf, process::Command};

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

/// Has the build script run again when one of these paths, relative to its package, has changed.
pub(crate) fn watch(sources: &[&str]) {
    for source in sources {
        println!("cargo::rerun-if-changed={source}");
    }
}

/// Builds the program `name` for `target`, as `tell` tells cargo besides, and returns its path.
pub(crate) fn build(
    name: &str,
    target: &str,
    tell: impl FnOnce(&mut Command),
) -> Result<PathBuf, Box<dyn Error>> {
    let folder = PathBuf::from(env::var("OUT_DIR")?).join(name);
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo sets CARGO for build scripts")?);
    for variable in CLEARED {
        cargo.env_remove(variable);
    }
    cargo.args(["build", "--quiet", "--locked", "--release", "--target", target]);
    cargo.arg("--target-dir").arg(&folder);
    tell(&mut cargo);
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the nested build of `{name}` failed: {status}").into());
    }
    Ok(folder.join(target).join("release").join(name))
}
