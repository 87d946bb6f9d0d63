//! What is counted of a lab, in the text format of Prometheus (version 0.0.4): the names are a contract (DESIGN §7).
//!
//! Nothing is counted here: a scrape asks the switch once, and what it says is written down. So a counter begins anew at
//! zero only where the switch process does.

use crate::failure::{Context, Exit, Failure};
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector};
use std::collections::BTreeMap;
use vswitch_core::{
    description::Description,
    drop_reason::{DropReason, Side},
};
use vswitchd::control::protocol::{PortCounters, PortState, PortView, Snapshot};

/// The labels that say which interface, and seen from the switch which way.
const INTERFACE: [&str; 3] = ["lab", "node", "interface"];
const DIRECTED: [&str; 4] = ["lab", "node", "interface", "direction"];
const FROM_PORT: &str = "from_port";
const TO_PORT: &str = "to_port";

/// How often the lab was told what to be, by what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Applies {
    done: u64,
    refused: u64,
    failed: u64,
}

impl Applies {
    /// One more.
    pub(super) fn count(&mut self, applied: &Result<(), Failure>) {
        match applied {
            Ok(()) => self.done += 1,
            Err(Failure { exit: Exit::Failed, .. }) => self.failed += 1,
            Err(_) => self.refused += 1,
        }
    }
}

/// All metrics of `lab`. Without a snapshot (no switch runs) its ports are down, and what only the switch knows is left out.
///
/// # Errors
/// A fault of ours in a name.
pub(super) fn text(
    lab: &str,
    description: Option<&Description>,
    snapshot: Option<&Snapshot>,
    applies: Applies,
) -> Result<String, Failure> {
    let gathered = gather(lab, description, snapshot, applies);
    gathered.context("internal", || "the metrics".into())
}

fn gather(
    lab: &str,
    description: Option<&Description>,
    snapshot: Option<&Snapshot>,
    applies: Applies,
) -> prometheus::Result<String> {
    let all = All(Registry::new());
    let build = all.gauges("vnet_build_info", "The version of vnet that runs; always 1.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let help =
        "Times that the lab was told what to be: done, refused (nothing changed) or failed (rolled back).";
    let counts = all.counters("vnet_applies_total", help, &["lab", "result"])?;
    for (result, count) in [("done", applies.done), ("refused", applies.refused), ("failed", applies.failed)]
    {
        counts.with_label_values(&[lab, result]).inc_by(count);
    }
    let up = all.gauges("vnet_port_up", "Whether frames can flow both ways on the interface.", &INTERFACE)?;
    for port in description.iter().flat_map(|description| description.ports.iter().flatten()) {
        up.with_label_values(&[lab, &port.node, &port.interface]).set(0);
    }
    if let Some(snapshot) = snapshot {
        for port in &snapshot.ports {
            let is_up = i64::from(port.state == PortState::Up);
            up.with_label_values(&[lab, &port.node, &port.interface]).set(is_up);
        }
        count_ports(&all, lab, &snapshot.ports)?;
        count_connections(&all, lab, &snapshot.ports)?;
        count_datapath(&all, lab, snapshot)?;
    }
    TextEncoder::new().encode_to_string(&all.0.gather())
}

/// What each interface moved and lost.
fn count_ports(all: &All, lab: &str, ports: &[PortView]) -> prometheus::Result<()> {
    let frames = all.counters(
        "vnet_frames_total",
        "Frames that the switch received from an interface (from_port), or delivered to it (to_port).",
        &DIRECTED,
    )?;
    let bytes = all.counters(
        "vnet_bytes_total",
        "Bytes of those frames, from the destination address on, without the virtio-net header.",
        &DIRECTED,
    )?;
    let drops = all.counters(
        "vnet_drops_total",
        "Frames from an interface, or copies of frames for it, that were dropped; `vnet explain REASON` says why.",
        &["lab", "node", "interface", "direction", "reason"],
    )?;
    let originated = all.counters(
        "vnet_frames_originated_total",
        "Frames that the switch itself sent to an interface, in answer to frames of its that it rejected.",
        &INTERFACE,
    )?;
    for PortView { node, interface, counters: PortCounters { from_port, to_port, .. }, .. } in ports {
        originated.with_label_values(&[lab, node, interface]).inc_by(from_port.originated);
        let sides = [
            (FROM_PORT, Side::Ingress, from_port.frames, from_port.bytes, &from_port.dropped),
            (TO_PORT, Side::Egress, to_port.delivered, to_port.bytes, &to_port.dropped),
        ];
        for (direction, side, frame_count, byte_count, dropped) in sides {
            let labels = [lab, node, interface, direction];
            frames.with_label_values(&labels).inc_by(frame_count);
            bytes.with_label_values(&labels).inc_by(byte_count);
            for (reason, count) in drops_of(side, dropped) {
                let labels = [lab, node, interface, direction, reason.name()];
                drops.with_label_values(&labels).inc_by(count);
            }
        }
    }
    Ok(())
}

/// The connections of each interface that has a firewall.
fn count_connections(all: &All, lab: &str, ports: &[PortView]) -> prometheus::Result<()> {
    let help = "Connections that the interface's firewall tracks, with those whose time is over but that were not swept yet.";
    let held = all.gauges("vnet_connections", help, &INTERFACE)?;
    let opened = "Connections of the interface that its rules allowed and that were opened.";
    let opened = all.counters("vnet_connections_opened_total", opened, &INTERFACE)?;
    let ended = "Connections of the interface that ended, for whatever reason.";
    let ended = all.counters("vnet_connections_ended_total", ended, &INTERFACE)?;
    let evicted = "Connections of the interface that were ended to make room for another one.";
    let evicted = all.counters("vnet_connections_evicted_total", evicted, &INTERFACE)?;
    let refused =
        "Connections of the interface that its rules allowed and that were refused for want of room.";
    let refused = all.counters("vnet_connections_refused_total", refused, &INTERFACE)?;
    for port in ports {
        let Some(counts) = &port.connections else { continue };
        let labels = [lab, &port.node, &port.interface];
        held.with_label_values(&labels).set(i64::try_from(counts.held).unwrap_or(i64::MAX));
        for (counter, count) in [
            (&opened, counts.opened),
            (&ended, counts.ended),
            (&evicted, counts.evicted),
            (&refused, counts.refused),
        ] {
            counter.with_label_values(&labels).inc_by(count);
        }
    }
    Ok(())
}

/// Every reason that exists on this side, also those that did not happen: a series that begins at its first drop hides
/// that drop from `rate()`.
fn drops_of(side: Side, dropped: &BTreeMap<DropReason, u64>) -> impl Iterator<Item = (DropReason, u64)> {
    DropReason::ALL.iter().filter_map(move |reason| match dropped.get(reason) {
        Some(count) => Some((*reason, *count)),
        None => (reason.side() == side).then_some((*reason, 0)),
    })
}

/// Workers and tables.
fn count_datapath(all: &All, lab: &str, snapshot: &Snapshot) -> prometheus::Result<()> {
    let busy = all.register(CounterVec::new(
        Opts::new(
            "vnet_worker_busy_seconds_total",
            "Seconds that a worker spent in turns that moved at least one frame.",
        ),
        &["lab", "worker"],
    )?)?;
    for worker in &snapshot.workers {
        let seconds = worker.busy_nanos as f64 / 1e9;
        busy.with_label_values(&[lab, &worker.worker.to_string()]).inc_by(seconds);
    }
    let help = "Addresses that the switch knows, learned or static, and that are not aged out.";
    let entries = all.gauges("vnet_fdb_entries", help, &["lab", "switch"])?;
    for (switch, count) in &snapshot.fdb.by_switch {
        entries.with_label_values(&[lab, switch]).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    // What is taken off a ring is delivered or dropped within its turn: nothing is held between two, and a snapshot is
    // taken there.
    let help = "Frames that the switch holds back; 0 as long as nothing in it delays frames.";
    all.gauges("vnet_frames_held", help, &["lab"])?.with_label_values(&[lab]).set(0);
    Ok(())
}

/// Everything that is to be written down.
struct All(Registry);

impl All {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn register<C: Collector + Clone + 'static>(&self, metrics: C) -> prometheus::Result<C> {
        self.0.register(Box::new(metrics.clone()))?;
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use vswitch_core::{firewall::connections::Counts, id::PortId};
    use vswitchd::control::protocol::{FdbView, FromPort, ToPort, WorkerView};

    /// A sample as another program reads it: name, labels, value.
    type Sample = (String, BTreeMap<String, String>, f64);

    /// Reads the text format (version 0.0.4) by its grammar: HELP and TYPE stand once before each metric's samples.
    fn read(text: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
        let (mut helped, mut types, mut samples) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        assert!(text.ends_with('\n'), "the last line has an end");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap();
                assert!(helped.contains(name) && types.contains_key(name), "{line}");
                samples.push((name.into(), read_labels(labels), value.parse().unwrap()));
            }
        }
        (types, samples)
    }

    fn read_labels(mut rest: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        while rest != "}" {
            let (name, quoted) = rest.split_once("=\"").unwrap();
            let (mut value, mut chars) = (String::new(), quoted.char_indices());
            rest = loop {
                match chars.next().unwrap() {
                    (at, '"') => break &quoted[at + 1..],
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (_, other) => value.push(other),
                }
            };
            labels.insert(name.trim_start_matches(',').to_owned(), value);
        }
        labels
    }

    fn port(place: u16, node: &str, counters: PortCounters) -> PortView {
        PortView {
            port: PortId::new(place, 0),
            node: node.into(),
            interface: "eth0".into(),
            state: if place == 0 { PortState::Up } else { PortState::Waiting },
            detail: String::new(),
            features: 0,
            rings: BTreeMap::new(),
            ring_frames: BTreeMap::new(),
            counters,
            connections: None,
        }
    }

    fn snapshot() -> Snapshot {
        let sent = FromPort {
            frames: 7,
            bytes: 700,
            unicast: 4,
            originated: 2,
            dropped: [(DropReason::BadSource, 3)].into(),
            ..FromPort::default()
        };
        let got = ToPort { copies: 4, delivered: 3, bytes: 300, dropped: [(DropReason::NoBuffer, 1)].into() };
        let worker = WorkerView {
            worker: 0,
            cpu: None,
            rings: 1,
            busy_turns: 2,
            frames: 7,
            busy_cycles: 1,
            busy_nanos: 1_500_000_000,
            cycles_per_frame: 0.1,
            sleeps: 0,
            panics: 0,
            captures: 0,
        };
        let tracked = Counts { held: 5, opened: 9, ended: 4, evicted: 3, refused: 1, busy: 8 };
        let guarded = port(1, "h2", PortCounters { to_port: got, ..PortCounters::default() });
        Snapshot {
            epoch: None,
            ports: vec![
                port(0, "h1", PortCounters { from_port: sent, ..PortCounters::default() }),
                PortView { connections: Some(tracked), ..guarded },
            ],
            workers: vec![worker],
            fdb: FdbView { entries: 5, by_switch: [("sw1".into(), 5)].into(), ..FdbView::default() },
        }
    }

    fn value(samples: &[Sample], name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let is = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(name, value)| labels.get(*name).is_some_and(|is| is == value))
        };
        let mut found = samples.iter().filter(|(named, labels, _)| named == name && is(labels));
        let first = found.next().map(|(_, _, value)| *value);
        assert!(found.next().is_none(), "{name} {wanted:?} stands there twice");
        first
    }

    #[test]
    fn every_name_of_the_contract_is_there_with_its_type_and_what_the_switch_counted() {
        let applies = Applies { done: 2, ..Applies::default() };
        let (types, samples) = read(&text("office", None, Some(&snapshot()), applies).unwrap());
        let contract = [
            ("vnet_applies_total", "counter"),
            ("vnet_build_info", "gauge"),
            ("vnet_bytes_total", "counter"),
            ("vnet_connections", "gauge"),
            ("vnet_connections_ended_total", "counter"),
            ("vnet_connections_evicted_total", "counter"),
            ("vnet_connections_opened_total", "counter"),
            ("vnet_connections_refused_total", "counter"),
            ("vnet_drops_total", "counter"),
            ("vnet_fdb_entries", "gauge"),
            ("vnet_frames_held", "gauge"),
            ("vnet_frames_originated_total", "counter"),
            ("vnet_frames_total", "counter"),
            ("vnet_port_up", "gauge"),
            ("vnet_worker_busy_seconds_total", "counter"),
        ];
        assert_eq!(types, contract.map(|(name, kind)| (name.into(), kind.into())).into());
        let from = [("lab", "office"), ("node", "h1"), ("interface", "eth0"), ("direction", "from_port")];
        let to = [("lab", "office"), ("node", "h2"), ("interface", "eth0"), ("direction", "to_port")];
        assert_eq!(value(&samples, "vnet_frames_total", &from), Some(7.0));
        assert_eq!(value(&samples, "vnet_bytes_total", &from), Some(700.0));
        assert_eq!(value(&samples, "vnet_frames_total", &to), Some(3.0));
        assert_eq!(value(&samples, "vnet_bytes_total", &to), Some(300.0));
        let dropped = |side: &[(&'static str, &'static str)], reason| {
            value(&samples, "vnet_drops_total", &[side, &[("reason", reason)]].concat())
        };
        assert_eq!(dropped(&from, "bad-source"), Some(3.0));
        assert_eq!(dropped(&from, "runt"), Some(0.0), "what may happen is there before it does");
        assert_eq!(dropped(&to, "no-buffer"), Some(1.0));
        assert_eq!(dropped(&to, "runt"), None, "no copy is ever dropped as a runt");
        let of =
            |name, node| value(&samples, name, &[("lab", "office"), ("node", node), ("interface", "eth0")]);
        assert_eq!(of("vnet_frames_originated_total", "h1"), Some(2.0));
        assert_eq!(of("vnet_frames_originated_total", "h2"), Some(0.0));
        for (name, count) in [
            ("vnet_connections", 5.0),
            ("vnet_connections_opened_total", 9.0),
            ("vnet_connections_ended_total", 4.0),
            ("vnet_connections_evicted_total", 3.0),
            ("vnet_connections_refused_total", 1.0),
        ] {
            assert_eq!(of(name, "h2"), Some(count), "{name}");
            assert_eq!(of(name, "h1"), None, "without a firewall nothing is tracked: {name}");
        }
        assert_eq!(value(&samples, "vnet_port_up", &[("node", "h1")]), Some(1.0));
        assert_eq!(value(&samples, "vnet_port_up", &[("node", "h2")]), Some(0.0));
        assert_eq!(value(&samples, "vnet_worker_busy_seconds_total", &[("worker", "0")]), Some(1.5));
        assert_eq!(value(&samples, "vnet_fdb_entries", &[("switch", "sw1")]), Some(5.0));
        assert_eq!(value(&samples, "vnet_applies_total", &[("result", "done")]), Some(2.0));
        assert_eq!(value(&samples, "vnet_applies_total", &[("result", "failed")]), Some(0.0));
    }

    #[test]
    fn a_label_says_what_it_said_whatever_stands_in_it() {
        let mut strange = snapshot();
        strange.ports[0].node = "a\"b\\c\nd".into();
        let (_, samples) = read(&text("o", None, Some(&strange), Applies::default()).unwrap());
        assert_eq!(value(&samples, "vnet_port_up", &[("node", "a\"b\\c\nd")]), Some(1.0));
    }

    #[test]
    fn without_a_switch_nothing_is_made_up() {
        let (types, _) = read(&text("o", None, None, Applies::default()).unwrap());
        assert_eq!(Vec::from_iter(types.keys()), ["vnet_applies_total", "vnet_build_info"]);
    }

    #[test]
    fn an_apply_is_counted_by_what_came_of_it() {
        let mut applies = Applies::default();
        applies.count(&Ok(()));
        applies.count(&Err(Failure::failed("vm", "x")));
        applies.count(&Err(Failure::invalid("invalid-file", "x")));
        applies.count(&Err(Failure::new(Exit::Busy, "busy", "x")));
        assert_eq!(applies, Applies { done: 1, failed: 1, refused: 2 });
    }
}
