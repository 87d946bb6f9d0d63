//! Builds the guest's probe agent as a small static executable and tells the crate where it is (`VNET_AGENT`).

#[path = "../vmm-lite/nested.rs"]
mod nested;

use std::{env, error::Error};

/// What the agent is made of, relative to this package.
const SOURCES: [&str; 7] = [
    "agent",
    "../vmm-lite/probe/src",
    "../vmm-lite/probe/Cargo.toml",
    "../Cargo.toml",
    "../Cargo.lock",
    "build.rs",
    "../vmm-lite/nested.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    nested::watch(&SOURCES);
    // A target that is named keeps RUSTFLAGS away from procedural macros, which cannot be static.
    let agent = nested::build("vnet-agent", &env::var("TARGET")?, |cargo| {
        cargo.args(["--package", "vnet-agent"]);
        for setting in ["opt-level=\"s\"", "strip=true", "lto=\"thin\"", "panic=\"abort\""] {
            cargo.arg("--config").arg(format!("profile.release.{setting}"));
        }
        cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    })?;
    println!("cargo::rustc-env=VNET_AGENT={}", agent.display());
    Ok(())
}
