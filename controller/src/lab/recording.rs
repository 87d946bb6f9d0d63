//! Files that ports record to: opened so that nothing is lost that is not a recording.

use crate::failure::{Context, Failure};
use rustix::{
    fs::{OFlags, SeekFrom},
    io::Errno,
};
use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};
use topology::plan::{NodeKind, Plan};

/// How capture files begin: pcapng's section header, and pcap in both byte orders, in microseconds and nanoseconds.
const BEGINNINGS: [[u8; 4]; 5] = [
    [0x0a, 0x0d, 0x0d, 0x0a],
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x4d, 0x3c, 0xb2, 0xa1],
];

/// Opens the file at `path`, which is made if there is none; what is in it stays until [`empty`]. A file that is no recording, or
/// that a node of `plan` replays, is refused.
pub(super) fn open(node: &str, path: &Path, plan: &Plan) -> Result<File, Failure> {
    let said = || format!("node {node}: {} cannot be recorded to", path.display());
    // Of a pipe the open would wait for somebody to read.
    let how = OFlags::NONBLOCK.bits().cast_signed();
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(how).open(path);
    let mut file = file.context("pcap", said)?;
    let there = file.metadata().context("pcap", said)?;
    let refused = |why: &str| {
        Err(Failure::invalid("pcap", format!("{}: {why}", said())).mend("give `record:` another name"))
    };
    if !there.is_file() {
        return refused("it is no file");
    }
    let replayed = plan.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Pcap { replay: Some(path), .. } => fs::metadata(path).ok(),
        _ => None,
    });
    if replayed.into_iter().any(|other| (other.dev(), other.ino()) == (there.dev(), there.ino())) {
        return refused("it is replayed");
    }
    let mut beginning = [0; 4];
    if there.len() > 0 && (file.read_exact(&mut beginning).is_err() || !BEGINNINGS.contains(&beginning)) {
        return refused("it is there, and no capture file");
    }
    Ok(file)
}

/// Takes away what was recorded there before.
pub(super) fn empty(file: impl AsFd) -> Result<(), Errno> {
    rustix::fs::ftruncate(&file, 0)?;
    rustix::fs::seek(&file, SeekFrom::Start(0)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use topology::plan::Datapath;
    use vswitch_core::{
        description::{Description, Origin},
        id::Epoch,
    };

    fn plan(replay: &Path) -> Plan {
        let description = Description {
            lab: "lab".into(),
            file: "lab.vnet.yaml".into(),
            epoch: Epoch::new(1),
            vlans: vec![],
            switches: vec![],
            ports: vec![],
            trunks: vec![],
        };
        let kind = NodeKind::Pcap { replay: Some(replay.to_owned()), record: None, fast: false };
        let origin = Origin { line: 1, column: 1 };
        let node = topology::plan::Node { name: "source".into(), kind, interfaces: vec![], origin };
        let datapath = Datapath { workers: 1, cpus: vec![], always_poll: false };
        Plan { description, datapath, nodes: vec![node], expectations: vec![] }
    }

    #[test]
    fn what_is_no_recording_or_replayed_is_not_recorded_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let plan = plan(&at("in.pcap"));
        let refusal = |path: &Path| open("sink", path, &plan).unwrap_err().message;
        fs::write(at("in.pcap"), [0xd4, 0xc3, 0xb2, 0xa1]).unwrap();
        std::os::unix::fs::symlink(at("in.pcap"), at("link")).unwrap();
        assert!(refusal(&at("link")).contains("replayed"));
        fs::write(at("notes"), "do not lose me").unwrap();
        assert!(refusal(&at("notes")).contains("no capture file"));
        assert_eq!(fs::read(at("notes")).unwrap(), b"do not lose me");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(refusal(&at("pipe")).contains("no file"));
        assert!(refusal(&at("nowhere/out")).contains("cannot be recorded to"));

        fs::write(at("old"), [0x0a, 0x0d, 0x0d, 0x0a, 1]).unwrap();
        for fresh in ["old", "new"] {
            let mut file = open("sink", &at(fresh), &plan).unwrap();
            empty(&file).unwrap();
            file.write_all(b"x").unwrap();
            assert_eq!(fs::read(at(fresh)).unwrap(), b"x");
        }
    }
}
