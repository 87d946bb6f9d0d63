//! What the vCPUs of a lab left their guests for, and what that cost: each VMM is asked at its control socket.

use super::{guests::vm_directory, rundir::LabDir, sockets};
use crate::api::types::{ExitCount, ExitsRow};
use std::{io, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};
use topology::plan::{NodeKind, Plan};

/// How long a VMM may take to answer: it counts all the time, and only has to say so.
const PATIENCE: Duration = Duration::from_secs(1);

/// `show nodes --exits`: the virtual machines of the lab.
pub(super) async fn rows(plan: &Plan, dir: &LabDir) -> Vec<ExitsRow> {
    let mut rows = Vec::new();
    for node in plan.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Vm(_))) {
        let control = vm_directory(&node.name, dir).control();
        // QEMU has no such socket, and a guest that has ended none any more.
        let answer = timeout(PATIENCE, ask(&control)).await;
        let exits = answer.ok().and_then(Result::ok).and_then(|answer| counts(&answer));
        rows.push(ExitsRow { node: node.name.clone(), exits });
    }
    rows
}

async fn ask(control: &Path) -> io::Result<String> {
    let stream = sockets::connect(control)?;
    stream.set_nonblocking(true)?;
    let mut stream = BufReader::new(UnixStream::from_std(stream)?);
    stream.write_all(b"exits\n").await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok(answer)
}

/// `KIND=COUNT/NANOSECONDS`, separated by blanks; none if it is not of that form.
fn counts(answer: &str) -> Option<Vec<ExitCount>> {
    let count = |word: &str| {
        let (kind, rest) = word.split_once('=')?;
        let (count, nanoseconds) = rest.split_once('/')?;
        Some(ExitCount {
            kind: kind.into(),
            count: count.parse().ok()?,
            nanoseconds: nanoseconds.parse().ok()?,
        })
    };
    let counts: Option<Vec<_>> = answer.split_ascii_whitespace().map(count).collect();
    counts.filter(|counts| !counts.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counts_by_kind_or_none() {
        let count = |kind: &str, count, nanoseconds| ExitCount { kind: kind.into(), count, nanoseconds };
        assert_eq!(counts("port=2/1400 wait=0/0\n"), Some(vec![count("port", 2, 1400), count("wait", 0, 0)]));
        for wrong in ["", "\n", "error: state, pause", "port=2", "port=x/1", "port=1/1 wait"] {
            assert_eq!(counts(wrong), None, "{wrong}");
        }
    }
}
