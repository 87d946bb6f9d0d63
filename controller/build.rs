//! Builds the guest's probe agent as a small static executable and tells the crate where it is (`VNET_AGENT`).
//!
//! A nested cargo has a target folder of its own (the outer one is locked) and none of the outer build's settings: flags
//! meant for the host's programs, wrappers and target folders would change what it makes or where.

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

/// What the agent is made of, relative to this package.
const SOURCES: [&str; 5] =
    ["agent", "../vmm-lite/probe/src", "../vmm-lite/probe/Cargo.toml", "../Cargo.toml", "../Cargo.lock"];

/// Settings of the outer build that must not reach the inner one.
const CLEARED: [&str; 9] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_TARGET_DIR",
];

fn main() -> Result<(), Box<dyn Error>> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let agent = build(&PathBuf::from(env::var("OUT_DIR")?).join("agent"), &env::var("TARGET")?)?;
    println!("cargo::rustc-env=VNET_AGENT={}", agent.display());
    Ok(())
}

/// Builds the agent in `folder` and returns its path.
fn build(folder: &Path, target: &str) -> Result<PathBuf, Box<dyn Error>> {
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("cargo sets CARGO for build scripts")?);
    cargo.args(["build", "--quiet", "--locked", "--release", "--package", "vnet-agent"]);
    // A target that is named keeps RUSTFLAGS away from procedural macros, which cannot be static.
    cargo.args(["--target", target]).arg("--target-dir").arg(folder);
    for setting in ["opt-level=\"s\"", "strip=true", "lto=\"thin\"", "panic=\"abort\""] {
        cargo.arg("--config").arg(format!("profile.release.{setting}"));
    }
    for variable in CLEARED {
        cargo.env_remove(variable);
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the nested build of the probe agent failed: {status}").into());
    }
    Ok(folder.join(target).join("release").join("vnet-agent"))
}
