//! How a benchmark looks: a bar while it runs, on a terminal, and a table of its result.

use super::super::render::{Show, or_dash, table};
use bench::{
    Progress,
    beside::{BesideReport, Kept},
    frames::Payload,
    machine::{Disturbance, Machine},
    offload::Offload,
    path::Path,
    report::Settings,
    report::{Report, Row},
    sweep::{Series, SweepReport},
    wake::{WakeReport, Woken},
};
use std::io::{self, IsTerminal, Write};

/// Characters of a bar.
const BAR: usize = 24;
/// More steal than this, in percent, and a figure says little.
const STEAL: f64 = 1.0;
/// A smaller share than this of frames before which the switch slept, and its latencies are not those of waking up.
const ASLEEP: f64 = 0.9;
/// A greater share than this of what was due and not sent, and the rate asked for was not offered.
const NOT_SENT: f64 = 1e-3;

impl Show for Report {
    fn table(&self) -> String {
        let header = [
            "FRAME", "MODE", "OFFERED", "MPPS", "SPREAD", "GBIT/S", "CYCLES", "RINGCOPY", "OF IT", "MEMCPY",
            "OF IT", "LOST", "P50 µs", "P99 µs",
        ];
        let rows = self.results.iter().map(|row| {
            let percent = |share: Option<f64>| or_dash(share.map(|share| format!("{:.0} %", share * 100.0)));
            [
                kind(row),
                row.mode.clone(),
                or_dash(row.offered_mpps.map(|mpps| format!("{mpps:.3}"))),
                if row.repetitions.is_empty() { "none".into() } else { format!("{:.3}", row.mpps) },
                or_dash(row.mpps_spread.map(|spread| format!("±{:.0} %", spread * 50.0))),
                format!("{:.2}", row.gbps),
                or_dash(row.cycles_per_frame.map(|cycles| format!("{cycles:.0}"))),
                or_dash(row.ringcopy_mpps.map(|mpps| format!("{mpps:.3}"))),
                percent(row.ratio_to_ringcopy),
                or_dash(row.memcpy_gbps.map(|gbps| format!("{gbps:.1}"))),
                percent(row.ratio_to_memcpy),
                row.lost.to_string(),
                format!("{:.1}", row.latency_us.p50),
                format!("{:.1}", row.latency_us.p99),
            ]
        });
        [table(header, rows), about(self)].join("\n\n")
    }
}

impl Show for BesideReport {
    fn table(&self) -> String {
        let header = [
            "FRAME",
            "SOLO MAX",
            "OFFERED",
            "SOLO",
            "BESIDE",
            "KEPT",
            "P50 µs SOLO",
            "BESIDE",
            "P99 µs SOLO",
            "BESIDE",
            "RATIO",
            "LOST",
            "NEIGHBOURS",
        ];
        let rows = self.results.iter().map(|row| {
            let [solo, beside] = [row.solo_latency_us, row.beside_latency_us];
            [
                row.frame_size.clone(),
                format!("{:.3}", row.solo_max_mpps),
                format!("{:.3}", row.offered_mpps),
                format!("{:.3}", row.solo_mpps),
                format!("{:.3}", row.beside_mpps),
                format!("{:.1} %", row.kept * 100.0),
                format!("{:.1}", solo.p50),
                format!("{:.1}", beside.p50),
                format!("{:.1}", solo.p99),
                format!("{:.1}", beside.p99),
                format!("{:.2}", row.p99_ratio),
                format!("{} + {}", row.solo_lost, row.beside_lost),
                format!("{:.3}", row.neighbours_sent_mpps),
            ]
        });
        let mut lines = vec![format!(
            "a pair at half of its maximum, alone and beside: {}; Mpps; lost alone + beside; neighbours: what they sent",
            self.beside
        )];
        lines.extend(self.results.iter().map(|row| {
            let [solo, beside] = [row.solo_round_us, row.beside_round_us];
            format!(
                "frames of {}: the generator, one thread for all ports, comes by every {:.1} µs (p99 {:.1}) alone, {:.1} (p99 {:.1}) beside: latencies contain it",
                row.frame_size, solo.p50, solo.p99, beside.p50, beside.p99
            )
        }));
        lines.push(where_it_ran(&self.machine, &self.settings));
        lines.extend(not_bound(&self.machine));
        lines.extend(self.results.iter().flat_map(|row| {
            let told = |when: &str, not_sent, sent| {
                not_all_sent(
                    &format!("frames of {}, {when}", row.frame_size),
                    row.offered_mpps,
                    not_sent,
                    sent,
                )
            };
            let solo = told("alone", row.solo_not_sent, row.solo_sent);
            solo.into_iter().chain(told("beside", row.beside_not_sent, row.beside_sent))
        }));
        let told = |row: &Kept| disturbed_ratio(&row.frame_size, row.disturbance, row.kept > 1.0);
        lines.extend(self.results.iter().filter_map(told));
        [table(header, rows), lines.join("\n")].join("\n\n")
    }
}

impl Show for WakeReport {
    fn table(&self) -> String {
        let header = [
            "FRAME",
            "SLEPT",
            "P50 µs",
            "P99 µs",
            "EVENTFD P50",
            "EVENTFD P99",
            "P50 ABOVE",
            "P99 ABOVE",
            "LOST",
        ];
        let rows = self.results.iter().map(|row| {
            let micros = |micros: f64| format!("{micros:.1}");
            [
                row.frame_size.clone(),
                or_dash(row.slept.map(|share| format!("{:.0} %", share * 100.0))),
                micros(row.latency_us.p50),
                micros(row.latency_us.p99),
                micros(row.eventfd_us.p50),
                micros(row.eventfd_us.p99),
                format!("{:+.1}", row.p50_above_us),
                format!("{:+.1}", row.p99_above_us),
                row.lost.to_string(),
            ]
        });
        let mut lines = vec![format!(
            "{} frames a second; slept: before how many of them the switch did; beside it a thread that an eventfd wakes",
            self.rate
        )];
        lines.extend(self.results.iter().filter_map(awake));
        lines.push(where_it_ran(&self.machine, &self.settings));
        lines.extend(not_bound(&self.machine));
        lines.extend(self.results.iter().filter_map(|row| disturbed(&row.frame_size, row.disturbance)));
        [table(header, rows), lines.join("\n")].join("\n\n")
    }
}

/// That the switch was not, or may not have been, asleep.
fn awake(row: &Woken) -> Option<String> {
    let size = &row.frame_size;
    match row.slept {
        None => Some(format!(
            "frames of {size}: whether the switch slept is not known: it does not say; if it polls, no wake-up was measured"
        )),
        Some(share) if share < ASLEEP => Some(format!(
            "frames of {size}: the switch slept before {:.0} % only: the rest were no wake-ups",
            share * 100.0
        )),
        Some(_) => None,
    }
}

/// Repetitions and CPUs.
fn where_it_ran(machine: &Machine, settings: &Settings) -> String {
    format!(
        "{} × {} s in turn; {}, generator on CPU {}, {}",
        settings.repetitions,
        settings.seconds,
        machine.cpu,
        machine.generator_cpu,
        of_the_switch(machine)
    )
}

/// Where the switch runs, as far as it says.
fn of_the_switch(machine: &Machine) -> String {
    let Some(cpus) = &machine.switch_cpus else { return "the switch's CPU is not known".into() };
    let bound: Vec<_> = cpus.iter().flatten().map(u16::to_string).collect();
    match bound.len() {
        0 => "the switch bound to no CPU".into(),
        some if some < cpus.len() => {
            format!("{some} of {} workers of the switch on CPU {}", cpus.len(), bound.join(", "))
        }
        _ => format!("switch on CPU {}", bound.join(", ")),
    }
}

/// That the switch may be anywhere, also where the generator is.
fn not_bound(machine: &Machine) -> Option<String> {
    let free = machine.switch_cpus.as_ref()?.contains(&None);
    let taken = machine.generator_cpu;
    machine.limits_cpu.filter(|_| free).map(|other| {
        format!(
            "the switch's worker is bound to no CPU: it may share CPU {taken} with the generator, and that says little; bind it in the lab's file, as datapath: {{ cpus: [{other}] }}"
        )
    })
}

impl Show for SweepReport {
    fn table(&self) -> String {
        let series = self.series.iter().map(|series| of_sizes(&self.swept, series));
        let (machine, settings) = (&self.machine, &self.settings);
        let mut lines = vec![format!(
            "{} rounds of {} s, every column in each; ± is half the range over the rounds; {}, generator on CPU {}, {}",
            settings.repetitions,
            settings.seconds,
            machine.cpu,
            machine.generator_cpu,
            of_the_switch(machine)
        )];
        lines.extend(not_bound(machine));
        let rows = || self.series.iter().flat_map(|series| &series.columns);
        let told = |tell: fn(&Row) -> Option<String>| {
            rows().filter_map(move |column| {
                Some(format!("{} {}: {}", column.value, self.swept, tell(&column.row)?))
            })
        };
        lines.extend(told(wrong).chain(told(row_disturbed)));
        lines.extend(self.remarks.iter().cloned());
        series.chain([lines.join("\n")]).collect::<Vec<_>>().join("\n\n")
    }
}

/// One row for each value of what is swept.
fn of_sizes(swept: &str, series: &Series) -> String {
    let what = swept.to_uppercase();
    let header = [
        "FRAME",
        &what,
        "MPPS",
        "MPPS OF THE FIRST",
        "SPREAD",
        "CYCLES",
        "CYCLES OF THE FIRST",
        "SPREAD",
        "MORE",
        "LOST",
        "FLOODED",
    ];
    let percent = |ratio: Option<f64>| or_dash(ratio.map(|ratio| format!("{:.1} %", ratio * 100.0)));
    let half_range = |spread: Option<f64>| or_dash(spread.map(|spread| format!("±{:.1} %", spread * 50.0)));
    let rows = series.columns.iter().map(|column| {
        let row = &column.row;
        [
            series.frame_size.clone(),
            column.value.to_string(),
            format!("{:.3}", row.mpps),
            percent(column.mpps_ratio),
            half_range(column.mpps_ratio_spread),
            or_dash(row.cycles_per_frame.map(|cycles| format!("{cycles:.0}"))),
            percent(column.cycles_ratio),
            half_range(column.cycles_ratio_spread),
            or_dash(column.cycles_more.map(|cycles| format!("{cycles:+.0}"))),
            row.lost.to_string(),
            or_dash(row.flooded),
        ]
    });
    table(header, rows)
}

/// What is said below the table.
fn about(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    let generator = machine.generator_cpu;
    let cpus = match machine.limits_cpu {
        Some(cpu) if report.hand_over_ns.is_some() => {
            format!("generator on CPU {generator}, {}, limits on CPU {cpu}", of_the_switch(machine))
        }
        Some(_) => format!("generator on CPU {generator}, {}", of_the_switch(machine)),
        None => "everything on one CPU".into(),
    };
    let mut lines = vec![
        format!(
            "{}: {} ports ({} busy, {} direction{}), {} flows, {} MACs, {} VLANs; {} × {} s",
            settings.device,
            settings.ports,
            settings.busy_ports,
            settings.directions,
            if settings.directions == 1 { "" } else { "s" },
            settings.flows,
            settings.macs,
            settings.vlans,
            settings.repetitions,
            settings.seconds
        ),
        format!("{}, {} CPUs, TSC {:.0} MHz; {cpus}", machine.cpu, machine.cpus, machine.tsc_mhz),
    ];
    lines.extend(of_the_path(settings.path).map(str::to_owned));
    lines.extend(not_bound(machine));
    if report.results.iter().any(|row| row.memcpy_gbps.is_some()) {
        lines.push(against(settings.payload).into());
    }
    if report.results.iter().any(|row| row.offload != Offload::None) {
        lines.push(
            "checksum, segments: what the switch did with each frame; MPPS and GBIT/S count what was sent, once all of it arrived; ringcopy and memcpy copy frames as they are"
                .into(),
        );
    }
    lines.extend(report.hand_over_ns.map(|ns| format!("a cache line takes {ns:.0} ns from core to core")));
    lines.extend(report.results.iter().filter_map(not_found));
    lines.extend(report.results.iter().filter_map(not_offered));
    lines.extend(report.results.iter().filter_map(wrong));
    lines.extend(report.results.iter().filter_map(row_disturbed));
    lines.extend(report.remarks.iter().cloned());
    lines.extend(report.left_out.iter().map(|what| format!("left out: {what}")));
    lines.join("\n")
}

/// What a gateway does with frames, if there is one.
fn of_the_path(path: Path) -> Option<&'static str> {
    match path {
        Path::Switched => None,
        Path::Routed => {
            Some("routed: into another VLAN, by its gateway; ringcopy and memcpy copy frames as they are")
        }
        Path::Nat => Some(
            "nat: routed, with the gateway's address for the sender's; ringcopy and memcpy copy frames as they are",
        ),
    }
}

/// What frames they are.
fn kind(row: &Row) -> String {
    match row.offload {
        Offload::None => row.frame_size.clone(),
        offload => format!("{} {offload}", row.frame_size),
    }
}

/// What a share of memcpy is a share of.
fn against(payload: Payload) -> &'static str {
    if payload.dirty {
        "memcpy copies what the other core has just written, and so does the switch (--dirty)"
    } else {
        "memcpy copies what the other core has just written; of a frame that is its head only (--dirty: all of it), which flatters large frames"
    }
}

/// That a search came to nothing.
fn not_found(row: &Row) -> Option<String> {
    let all = row.no_rate_held as usize + row.repetitions.len();
    (row.no_rate_held > 0).then(|| {
        format!(
            "frames of {}: in {} of {all} searches no rate held, not the lowest either: on a disturbed machine say pdr, or a longer --seconds",
            kind(row),
            row.no_rate_held
        )
    })
}

/// That the rate asked for was not offered.
fn not_offered(row: &Row) -> Option<String> {
    let offered = row.offered_mpps?;
    not_all_sent(&format!("frames of {}", kind(row)), offered, row.not_sent, row.sent)
}

/// The same of any frames: what was not sent is neither lost nor late, and still did not go through.
fn not_all_sent(what: &str, offered: f64, not_sent: u64, sent: u64) -> Option<String> {
    let share = not_sent as f64 / (not_sent + sent).max(1) as f64;
    (share > NOT_SENT).then(|| {
        format!(
            "{what}: {:.1} % of the {offered:.3} Mpps asked for were not sent: the generator was not that fast, or the switch did not take them; lost and latencies are of what was sent",
            share * 100.0
        )
    })
}

/// What a switch must not do to frames, if it did.
fn wrong(row: &Row) -> Option<String> {
    let found = [
        (row.corrupt, "damaged"),
        (row.duplicated, "came twice"),
        (row.reordered, "came behind a later one"),
        (row.strayed, "came to a port that they were not for"),
        (row.flooded.unwrap_or(0), "were flooded: what was measured is flooding"),
    ];
    let found: Vec<_> =
        found.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} frames {what}")).collect();
    (!found.is_empty()).then(|| format!("frames of {}: {}", kind(row), found.join(", ")))
}

fn row_disturbed(row: &Row) -> Option<String> {
    let above = [row.ratio_to_ringcopy, row.ratio_to_memcpy].into_iter().flatten().any(|ratio| ratio > 1.0);
    disturbed_ratio(&kind(row), row.disturbance, above)
}

/// The same of a row that has ratios; some `above` 1.
fn disturbed_ratio(frame_size: &str, disturbance: Disturbance, above: bool) -> Option<String> {
    let said = disturbed(frame_size, disturbance)?;
    Some(if above { format!("{said}; more than 100 % is of that, and not of the switch") } else { said })
}

fn disturbed(frame_size: &str, disturbance: Disturbance) -> Option<String> {
    let (steal, switches) = (disturbance.steal_percent, disturbance.involuntary_switches);
    (steal > STEAL || switches > 0).then(|| {
        format!(
            "frames of {frame_size}: disturbed: {steal:.1} % of the CPUs were stolen, the generator had to wait {switches} times"
        )
    })
}

/// The result in one line, for `demo`.
pub(super) fn in_one_line(report: &Report) -> String {
    let Some(row) = report.results.first() else { return "nothing was measured".into() };
    let limit = match (row.ratio_to_ringcopy, row.ringcopy_mpps) {
        (Some(ratio), Some(mpps)) => {
            format!("{:.0} % of the {mpps:.1} that this machine copies without a switch", ratio * 100.0)
        }
        _ => "of what this machine could do nothing is known: it has one CPU".into(),
    };
    let lost = if row.lost == 0 { "none lost".into() } else { format!("{} lost", row.lost) };
    let [mpps, p50] = [row.mpps, row.latency_us.p50];
    format!(
        "frames of {} bytes: {mpps:.2} million a second, {limit}; {lost}, median {p50:.1} µs (vnet bench)",
        row.frame_size
    )
}

/// A bar on standard error, if that is a terminal.
#[derive(Debug)]
pub(super) struct Bar {
    shown: bool,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, progress: &Progress) {
        if self.shown {
            let _ = write!(io::stderr(), "\r{}\x1b[K", line(progress));
        }
    }

    pub(super) fn clear(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(progress: &Progress) -> String {
    let done = progress.done.clamp(0.0, 1.0);
    let full = (done * BAR as f64) as usize;
    let (full, empty) = ("#".repeat(full), ".".repeat(BAR - full));
    format!("[{full}{empty}] {:3.0} %  {}", done * 100.0, progress.doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_offered_is_said() {
        let said = not_all_sent("frames of 64", 900.0, 900, 100).expect("most was not sent");
        assert!(said.contains("90.0 % of the 900.000 Mpps asked for were not sent"), "{said}");
        assert_eq!(not_all_sent("frames of 64", 1.0, 1, 999), None, "a thousandth is a hiccup");
    }

    #[test]
    fn of_the_switchs_cpu_is_said_what_is_known_and_no_more() {
        let machine = |switch_cpus| Machine {
            cpu: String::new(),
            cpus: 2,
            tsc_mhz: 1.0,
            generator_cpu: 0,
            limits_cpu: Some(1),
            switch_cpus,
        };
        let said = |cpus: Option<&[Option<u16>]>| {
            let machine = machine(cpus.map(<[_]>::to_vec));
            (of_the_switch(&machine), not_bound(&machine).unwrap_or_default())
        };
        assert_eq!(said(None), ("the switch's CPU is not known".into(), String::new()));
        assert_eq!(said(Some(&[Some(3), Some(4)])), ("switch on CPU 3, 4".into(), String::new()));
        let (where_, remark) = said(Some(&[None]));
        assert!(
            where_ == "the switch bound to no CPU" && remark.contains("datapath: { cpus: [1] }"),
            "{remark}"
        );
    }

    #[test]
    fn a_share_above_all_of_it_is_explained_where_the_machine_was_disturbed() {
        let (quiet, busy) =
            (Disturbance::default(), Disturbance { steal_percent: 5.0, involuntary_switches: 2 });
        assert_eq!(disturbed_ratio("64", quiet, true), None);
        assert!(disturbed_ratio("64", busy, true).is_some_and(|said| said.contains("more than 100 %")));
        assert!(disturbed_ratio("64", busy, false).is_some_and(|said| !said.contains("more than 100 %")));
    }

    #[test]
    fn a_bar_fills_and_never_overflows() {
        let line = |done| line(&Progress { done, doing: "frames of 64".into() });
        assert_eq!(line(0.5), format!("[{}{}]  50 %  frames of 64", "#".repeat(12), ".".repeat(12)));
        assert!(line(7.0).contains("100 %") && line(-1.0).contains("  0 %"));
    }
}
