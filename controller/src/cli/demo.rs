//! `demo`: the best lab that this machine can, its picture, its expectations proved, one dropped frame explained.

use super::{
    interrupt::{Interrupts, interrupted},
    render::Show,
    up,
};
use crate::{
    api::types::{TestResult, TraceRequest},
    doctor,
    failure::{Exit, Failure},
    image,
};
use std::path::PathBuf;

/// A lab that is shown.
struct Lab {
    name: &'static str,
    text: &'static str,
    /// A frame that the lab drops: source, destination, what.
    dropped: (&'static str, &'static str, &'static str),
}

const HELLO: Lab = Lab {
    name: "topologies/hello.vnet.yaml",
    text: include_str!("../../../topologies/hello.vnet.yaml"),
    dropped: ("web", "bob", "icmp"),
};

const LINUX: Lab = Lab {
    name: "topologies/linux.vnet.yaml",
    text: include_str!("../../../topologies/linux.vnet.yaml"),
    dropped: ("vm3", "vm2", "l2"),
};

/// Runs the demonstration.
pub(super) async fn demo() -> Result<Exit, Failure> {
    let lab = best();
    println!("{}\n", picture(lab.text));
    let mut checked = up::check_text(lab.text.into(), lab.name, PathBuf::from("/"))?;
    checked.file.private_copy = true;
    let name = format!("demo-{}", std::process::id());
    let mut interrupts = Interrupts::new()?;
    let (brought, _) = up::bring_up(&name, &checked.file, &mut interrupts).await?;
    let shown = tokio::select! {
        shown = show(&brought, &lab) => shown,
        () = interrupts.next() => Err(interrupted()),
    };
    brought.down().await?;
    let exit = shown?;
    println!("{}", next_steps(&lab));
    Ok(exit)
}

async fn show(brought: &up::Brought, lab: &Lab) -> Result<Exit, Failure> {
    let report: crate::api::types::TestReport = brought.api.act("test").await?;
    println!("\n{}\n", report.table());
    let (src, dst, what) = lab.dropped;
    let request = TraceRequest { src: src.into(), dst: dst.into(), what: what.into() };
    let view = brought.api.trace(&request).await?;
    println!("why {src} does not reach {dst} (vnet trace {src} {dst} {what}):\n{}", view.table());
    Ok(if report.rows.iter().all(|row| row.result == TestResult::Pass) { Exit::Done } else { report.exit() })
}

/// Debian guests where QEMU is there and their image is built (so that nobody waits for a download); else stations.
fn best() -> Lab {
    let qemu = doctor::probe().programs.contains(&"qemu-system-x86_64");
    let built = image::list().is_ok_and(|images| !images.is_empty());
    if qemu && built { LINUX } else { HELLO }
}

/// The drawing at the head of a topology file.
fn picture(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    lines
        .map(|line| line.trim_start_matches('#').strip_prefix(' ').unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

fn next_steps(lab: &Lab) -> String {
    let linux = if lab.name == HELLO.name {
        "  vnet image build debian && vnet demo        the same with Debian guests under QEMU\n"
    } else {
        ""
    };
    format!(
        "\ntry next:\n{linux}  vnet init && vnet up                        a lab of your own; Ctrl-C takes it down\n  \
         vnet up {} -d && vnet show ports\n  vnet doctor                                 what this machine lacks",
        lab.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lab_that_is_shown_has_a_picture_and_its_dropped_frame_is_expected_to_be_denied() {
        for lab in [HELLO, LINUX] {
            assert!(picture(lab.text).contains("sw1"), "{}", lab.name);
            let (src, dst, what) = lab.dropped;
            let expected = format!("{src} -> {dst} {what} deny because vlan");
            assert!(lab.text.contains(&expected), "{}: {expected}", lab.name);
        }
    }
}
