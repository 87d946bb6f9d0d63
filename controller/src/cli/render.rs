//! How answers look: tables for people, JSON for programs.

use super::{args::Format, out};
use crate::{
    api::types::{
        DatapathView, DropRow, ExitCount, ExitsRow, LinkRow, NodeRow, PingallReport, PortRow, Reaches,
        TestReport, TestResult, TraceView, TransferReport, VlanRow,
    },
    failure::{Context, Failure},
};
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;
use std::{collections::BTreeSet, fmt::Write, io::IsTerminal};
use vswitchd::control::protocol::FdbTable;

/// Whether standard error is a terminal that wants colours (no-color.org: `NO_COLOR` is not empty) and knows them.
pub(super) fn colour() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let plain = set("NO_COLOR").is_some() || set("TERM").is_none_or(|terminal| terminal == "dumb");
    std::io::stderr().is_terminal() && !plain
}

/// An answer that can be shown as a table.
pub(super) trait Show: Serialize {
    /// The table.
    fn table(&self) -> String;
}

/// Prints an answer.
pub(super) fn print(answer: &impl Show, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let json = serde_json::to_string(answer).context("json", || "the answer".into())?;
            out::say(json);
        }
        Format::Table => out::say(answer.table()),
    }
    Ok(())
}

pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

/// `some` or a dash.
pub(super) fn or_dash(some: Option<impl ToString>) -> String {
    some.map_or_else(|| "-".into(), |some| some.to_string())
}

fn word(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

impl Show for Vec<PortRow> {
    fn table(&self) -> String {
        let header = [
            "PORT",
            "LINK",
            "VLAN",
            "STATE",
            "POLICY",
            "FROM PORT",
            "DROPPED",
            "TO PORT",
            "DROPPED",
            "DETAIL",
        ];
        table(
            header,
            self.iter().map(|row| {
                let (from, to) = (&row.counters.from_port, &row.counters.to_port);
                [
                    row.port.clone(),
                    or_dash(row.link.as_ref()),
                    row.vlan.clone(),
                    word(row.state),
                    row.policy.clone(),
                    from.frames.to_string(),
                    from.dropped.values().sum::<u64>().to_string(),
                    to.delivered.to_string(),
                    to.dropped.values().sum::<u64>().to_string(),
                    row.detail.clone(),
                ]
            }),
        )
    }
}

impl Show for Vec<NodeRow> {
    fn table(&self) -> String {
        table(
            ["NODE", "KIND", "STATE", "PID", "HOST", "ADDRESSES", "DETAIL"],
            self.iter().map(|row| {
                let addresses: Vec<_> = row.interfaces.values().flatten().map(ToString::to_string).collect();
                let host = Some(row.host.join(" ")).filter(|names| !names.is_empty());
                [
                    row.node.clone(),
                    row.kind.clone(),
                    word(row.state),
                    or_dash(row.pid),
                    or_dash(host),
                    addresses.join(" "),
                    row.detail.clone(),
                ]
            }),
        )
    }
}

impl Show for Vec<ExitsRow> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "the lab has no virtual machines".into();
        }
        let rows = self.iter().flat_map(|row| {
            let count = |exit: &ExitCount| {
                let mean = exit.nanoseconds.checked_div(exit.count);
                let mean = mean.map(|mean| format!("{}.{:02} us", mean / 1000, mean % 1000 / 10));
                [row.node.clone(), exit.kind.clone(), exit.count.to_string(), or_dash(mean)]
            };
            let none = [row.node.clone(), "-".into(), "-".into(), "-".into()];
            row.exits.as_ref().map_or_else(|| vec![none], |exits| exits.iter().map(count).collect())
        });
        table(["NODE", "EXIT", "COUNT", "MEAN"], rows)
    }
}

impl Show for Vec<LinkRow> {
    fn table(&self) -> String {
        let rows = self
            .iter()
            .map(|row| [row.ends[0].clone(), row.ends[1].clone(), row.vlan.clone(), row.said.clone()]);
        table(["END", "END", "VLAN", "SAID"], rows)
    }
}

impl Show for TransferReport {
    fn table(&self) -> String {
        let seconds = self.elapsed_micros as f64 / 1e6;
        let rate = self.received.bytes as f64 * 8.0 / 1e6 / seconds.max(1e-6);
        let segments = match (self.segments_sent, self.segments_retransmitted) {
            (Some(sent), Some(again)) => format!("{sent} segments, {again} of them sent again"),
            _ => "its sender does not count segments".into(),
        };
        format!(
            "{} -> {} ({}): {} bytes in {seconds:.2} s, {rate:.0} Mbit/s\nchecksum {:016x} at both ends; {segments}",
            self.src, self.dst, self.address, self.received.bytes, self.received.checksum
        )
    }
}

impl Show for FdbTable {
    fn table(&self) -> String {
        let rows = table(
            ["SWITCH", "VLAN", "MAC", "PORT", "AGE"],
            self.rows.iter().map(|row| {
                let age = match (row.is_static, row.is_sticky) {
                    (true, _) => "static".into(),
                    (_, true) => "sticky".into(),
                    _ => format!("{}s", row.age_secs),
                };
                [row.switch.clone(), row.vlan.to_string(), row.mac.to_string(), row.port.clone(), age]
            }),
        );
        match self.entries.saturating_sub(self.rows.len() as u64) {
            0 => rows,
            more => format!("{rows}\nand {more} more: {} in all", self.entries),
        }
    }
}

impl Show for Vec<VlanRow> {
    fn table(&self) -> String {
        table(
            ["VLAN", "NAME", "SWITCH", "UNTAGGED", "TAGGED"],
            self.iter().map(|row| {
                let (untagged, tagged) = (row.untagged.join(" "), row.tagged.join(" "));
                [row.id.to_string(), row.name.clone(), row.switch.clone(), untagged, tagged]
            }),
        )
    }
}

impl Show for Vec<DropRow> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "nothing was dropped".into();
        }
        table(
            ["PORT", "DIRECTION", "REASON", "FRAMES", "WHAT"],
            self.iter().map(|row| {
                let (reason, frames) = (row.reason.to_string(), row.frames.to_string());
                [row.port.clone(), row.direction.clone(), reason, frames, row.what.clone()]
            }),
        )
    }
}

impl Show for DatapathView {
    fn table(&self) -> String {
        let rows = self.workers.iter().map(|worker| {
            [
                worker.worker.to_string(),
                or_dash(worker.cpu),
                worker.rings.to_string(),
                worker.frames.to_string(),
                format!("{:.0}", worker.cycles_per_frame),
                worker.busy_turns.to_string(),
                worker.sleeps.to_string(),
                worker.panics.to_string(),
                worker.captures.to_string(),
            ]
        });
        let header = [
            "WORKER",
            "CPU",
            "RINGS",
            "FRAMES",
            "CYCLES/FRAME",
            "BUSY TURNS",
            "SLEEPS",
            "PANICS",
            "CAPTURES",
        ];
        let fdb = &self.fdb;
        format!(
            "switch process {} (restarted {} times), configuration {}\n{}\nFDB: {} entries, {} learned, {} moves, {} refused",
            self.pid,
            self.restarts,
            or_dash(self.epoch),
            table(header, rows),
            fdb.entries,
            fdb.learned,
            fdb.moves,
            fdb.refused
        )
    }
}

impl Show for PingallReport {
    fn table(&self) -> String {
        let sources: BTreeSet<_> = self.cells.iter().map(|cell| cell.src.clone()).collect();
        let mut rows = Vec::new();
        for src in sources {
            for cell in self.cells.iter().filter(|cell| cell.src == src) {
                let answer = match (cell.rtt_micros, &cell.error) {
                    (Some(micros), _) => format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10),
                    (None, Some(why)) => why.clone(),
                    (None, None) => "no answer".into(),
                };
                rows.push([src.clone(), cell.dst.clone(), cell.address.to_string(), answer]);
            }
        }
        table(["FROM", "TO", "ADDRESS", "ANSWER"], rows)
    }
}

impl Show for TraceView {
    fn table(&self) -> String {
        let mut text = format!("{}\n", self.frame);
        for step in &self.steps {
            // A string takes what is written to it.
            let _ = writeln!(text, "  | {step}");
        }
        let _ = write!(text, "  = {} (lines are of {})", self.fate, self.file);
        if let Some(Reaches { destination, why_not }) = &self.reaches {
            let _ = match why_not {
                None => write!(text, "\nreaches {destination}"),
                Some(why) => write!(text, "\ndoes not reach {destination}: {why}"),
            };
        }
        text
    }
}

impl Show for TestReport {
    fn table(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let result = match row.result {
                TestResult::Pass => "PASS ",
                TestResult::Fail => "FAIL ",
                TestResult::Error => "ERROR",
            };
            let live = if row.foreseen { "" } else { " *" };
            let _ = writeln!(text, "{result} {}{live}\n        {}", row.expectation, row.proof);
            if let Some(help) = &row.help {
                let _ = writeln!(text, "        help: {help}");
            }
        }
        let count = |result| self.rows.iter().filter(|row| row.result == result).count();
        let _ = write!(text, "{} of {} expectations hold", count(TestResult::Pass), self.rows.len());
        match count(TestResult::Error) {
            0 => {}
            unproved => {
                let _ = write!(text, ", {unproved} could not be proved");
            }
        }
        let foreseen = self.rows.iter().filter(|row| row.foreseen).count();
        let _ = write!(text, "; the file alone says the same of {foreseen}");
        if foreseen < self.rows.len() {
            let _ = write!(text, ", and does not decide those marked *");
        }
        for row in &self.rows {
            let how = match row.result {
                TestResult::Pass => continue,
                TestResult::Fail => "does not hold",
                TestResult::Error => "could not be proved",
            };
            let _ = write!(text, "\n\n{}: {} {how}", row.said, row.expectation);
            if let Some(trace) = &row.trace {
                let _ = write!(text, "\n{}", trace.table());
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::TestRow;

    #[test]
    fn expectations_that_the_file_alone_does_not_decide_are_marked() {
        let row = |expectation: &str, foreseen| TestRow {
            expectation: expectation.into(),
            said: "lab.vnet.yaml:9".into(),
            result: TestResult::Pass,
            proof: "answered in 0.10 ms".into(),
            help: None,
            foreseen,
            trace: None,
            millis: 1,
        };
        let text = |rows| TestReport { lab: "lab".into(), file: "lab.vnet.yaml".into(), rows }.table();
        let told = text(vec![row("a -> b icmp allow", true), row("a -> c icmp allow", false)]);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!((lines[0], lines[2]), ("PASS  a -> b icmp allow", "PASS  a -> c icmp allow *"));
        assert!(lines[4].ends_with("says the same of 1, and does not decide those marked *"), "{told}");
        assert!(text(vec![row("a -> b icmp allow", true)]).ends_with("says the same of 1"));
    }
}
