//! `datapath:`: where its words belong together.

use crate::{codes::Code, report::Sink, said::lab::Lab};

/// Refuses CPUs that are not one for each worker, each its own.
pub(crate) fn check(lab: &Lab, sink: &mut Sink) {
    let Some(datapath) = &lab.datapath else { return };
    let said = datapath.workers.as_ref();
    let workers = said.map_or(1, |workers| usize::from(workers.value.0));
    let cpus = datapath.cpus.as_deref().unwrap_or_default();
    for (place, cpu) in cpus.iter().enumerate() {
        if let Some(earlier) = cpus[..place].iter().find(|earlier| earlier.value == cpu.value) {
            let what = format!("CPU {} is given twice", cpu.value.0);
            sink.error(Code::CpuTwice, cpu.span, what).label(earlier.span, "here first");
        }
    }
    let what = format!("{} for {}", count(cpus.len(), "CPU"), count(workers, "worker"));
    if let Some(surplus) = cpus.get(workers) {
        let told = sink.error(Code::CpusAndWorkers, surplus.span, what);
        if let Some(said) = said {
            told.label(said.span, "so many workers");
        }
    } else if let (Some(last), Some(said)) = (cpus.last(), said)
        && cpus.len() < workers
    {
        sink.error(Code::CpusAndWorkers, said.span, what).label(last.span, "the last CPU");
    }
}

/// Connections that an interface with security groups has at least: as many as leave it a place for datagrams in fragments in each direction.
const MIN_EACH: usize = 64;

/// Refuses fewer connections than so many interfaces with security groups can share.
pub(crate) fn check_room(lab: &Lab, guarded: usize, sink: &mut Sink) {
    let said = lab.datapath.as_ref().and_then(|datapath| datapath.connections.as_ref());
    let Some(said) = said.filter(|said| (said.value.0 as usize) < MIN_EACH * guarded) else { return };
    let what = format!(
        "{} connections for {guarded} interfaces with security groups: fewer than {MIN_EACH} each",
        said.value.0
    );
    sink.error(Code::TooFewConnections, said.span, what)
        .help(format!("write {} or more", MIN_EACH * guarded));
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
