//! `demo`: the best lab that this machine can, its picture, its expectations proved, one dropped frame explained.

use super::{
    bench,
    interrupt::{Interrupts, interrupted},
    out,
    render::Show,
    up,
};
use crate::{
    api::{
        types::{TestResult, TraceRequest},
        why::WhyRequest,
    },
    doctor,
    failure::{Exit, Failure},
    image,
    vm::{
        accel::{self, Why},
        qemu,
    },
};
use std::path::{Path, PathBuf};

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

const VMS: Lab = Lab {
    name: "topologies/vms.vnet.yaml",
    text: include_str!("../../../topologies/vms.vnet.yaml"),
    dropped: ("vm1", "vm3", "icmp"),
};

const LINUX: Lab = Lab {
    name: "topologies/linux.vnet.yaml",
    text: include_str!("../../../topologies/linux.vnet.yaml"),
    dropped: ("vm3", "vm2", "l2"),
};

/// Runs the demonstration.
pub(super) async fn demo() -> Result<Exit, Failure> {
    let lab = best();
    out::say(format_args!("{}\n", picture(lab.text)));
    let mut checked = up::check_text(lab.text.into(), lab.name, PathBuf::from("/"))?;
    checked.file.private_copy = true;
    let name = format!("demo-{}", std::process::id()).parse()?;
    let mut interrupts = Interrupts::new()?;
    let (brought, _) = up::bring_up(&name, &checked.file, &mut interrupts).await?;
    let shown = tokio::select! {
        shown = show(&brought, &lab) => shown,
        () = interrupts.next() => Err(interrupted("is down")),
    };
    brought.down().await?;
    let exit = shown?;
    let fast = bench::quick(interrupts).await?;
    out::say(format_args!("\nhow fast (vnet bench --quick):\n{fast}"));
    out::say(format_args!("{}", next_steps(&lab)));
    Ok(exit)
}

async fn show(brought: &up::Brought, lab: &Lab) -> Result<Exit, Failure> {
    let report: crate::api::types::TestReport = brought.api.act("test").await?;
    out::say(format_args!("\n{}\n", report.table()));
    let (src, dst, what) = lab.dropped;
    let request = TraceRequest { src: src.into(), dst: dst.into(), what: what.into(), size: None };
    let view = brought.api.trace(&request).await?;
    out::say(format_args!(
        "why {src} does not reach {dst} (vnet trace {src} {dst} {what}):\n{}",
        view.table()
    ));
    let request = WhyRequest { src: Some(src.into()), dst: Some(dst.into()), last: None };
    let mut remembered = brought.api.why(&request).await?;
    remembered.groups.truncate(1);
    out::say(format_args!(
        "\nwhat became of the frames that the proof sent (vnet why {src} {dst}):\n{}",
        remembered.table()
    ));
    Ok(if report.rows.iter().all(|row| row.result == TestResult::Pass) { Exit::Done } else { report.exit() })
}

/// Bundled guests where there is KVM; Debian guests where QEMU is there and their image is built (so that nobody waits for
/// a download); else stations.
fn best() -> Lab {
    if accel::for_bundled() == Why::Usable {
        return VMS;
    }
    if doctor::is_installed(qemu::PROGRAM) && image::is_built(image::Name::Debian) { LINUX } else { HELLO }
}

/// The drawing at the head of a topology file.
fn picture(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    lines
        .map(|line| line.trim_start_matches('#').strip_prefix(' ').unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Commands that work as they stand: by the name that this program was called by, and in this folder.
fn next_steps(lab: &Lab) -> String {
    let called = std::env::args().next().unwrap_or_else(|| "vnet".into());
    let mut steps = vec![];
    if lab.name == HELLO.name {
        steps.push((
            format!("{called} image build debian && {called} demo"),
            "the same with Debian guests under QEMU",
        ));
    }
    let linux = LINUX.name;
    if lab.name == VMS.name && Path::new(linux).exists() {
        steps.push((format!("{called} test {linux}"), "Debian guests; the first time builds their image"));
    }
    steps.push((
        format!("{called} init && {called} up lab.vnet.yaml"),
        "a lab of your own; Ctrl-C takes it down",
    ));
    if Path::new(lab.name).exists() {
        steps.push((format!("{called} up -d {} && {called} show ports", lab.name), "this lab, to look at"));
    }
    steps.push((format!("{called} doctor"), "what this machine lacks"));
    let lines: Vec<_> = steps.iter().map(|(command, what)| format!("  {command}\n      {what}")).collect();
    format!("\ntry next:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lab_that_is_shown_has_a_picture_and_its_dropped_frame_is_expected_to_be_denied() {
        for lab in [HELLO, VMS, LINUX] {
            assert!(picture(lab.text).contains("sw1"), "{}", lab.name);
            let (src, dst, what) = lab.dropped;
            let expected = format!("{src} -> {dst} {what} deny because vlan");
            assert!(lab.text.contains(&expected), "{}: {expected}", lab.name);
        }
    }
}
