//! `bench --sweep`: one lab for each value, all up at once and measured in turn.

use super::{allow_many_descriptors, devices, on_a_thread, unless_interrupted};
use crate::{
    benching::ends::Ends,
    cli::{
        interrupt::Interrupts,
        up::{self, Brought},
    },
    failure::Failure,
};
use bench::{
    Plan, Switch,
    path::Path,
    sweep::{SweepReport, Value},
};
use std::{
    fmt,
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
};

/// The most values of a series: each is a lab that is up.
const MOST: usize = 8;

/// What the labs of a series differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// Stations behind each port.
    Macs,
    /// VLANs.
    Vlans,
    /// Ports attached.
    Ports,
    /// What is done with frames.
    Path,
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Macs => "macs",
            Self::Vlans => "vlans",
            Self::Ports => "ports",
            Self::Path => "path",
        })
    }
}

/// What is swept, and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) what: Swept,
    pub(super) values: Vec<Value>,
}

/// A series to be measured.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) what: Swept,
    /// What to do for each value.
    pub(super) plans: Vec<(Value, Plan)>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('=').and_then(|(what, values)| {
            let all = [Swept::Macs, Swept::Vlans, Swept::Ports, Swept::Path];
            let what = all.into_iter().find(|each| each.to_string() == what)?;
            let value = |text: &str| match what {
                Swept::Path => text.parse::<Path>().map(Value::Path),
                Swept::Macs | Swept::Vlans | Swept::Ports => number(text).map(Value::Number),
            };
            let values: Vec<_> = values.split(',').map(value).collect::<Result<_, _>>().ok()?;
            (values.len() <= MOST).then_some(Self { what, values })
        });
        parsed.ok_or_else(|| {
            format!("`{text}` is no series: say for example macs=1,1k,64k,1M, vlans=1,64,4094, ports=2,64,512 or path=switched,routed,nat; {MOST} values at most")
        })
    }
}

/// A number, of thousands (`k`) or millions (`M`) if it says so.
pub(super) fn number(text: &str) -> Result<u32, String> {
    let units = [("k", 1000), ("M", 1_000_000)];
    let unit = units.iter().find_map(|(unit, times)| Some((text.strip_suffix(unit)?, *times)));
    let (digits, times) = unit.unwrap_or((text, 1));
    let number = digits.parse::<u32>().ok().and_then(|digits| digits.checked_mul(times));
    number.ok_or_else(|| format!("`{text}` is no number: say for example 100, 64k or 1M"))
}

/// Brings a lab up for each plan, measures them, and takes all down, whatever came of it.
pub(super) async fn measure(columns: Columns, mut interrupts: Interrupts) -> Result<SweepReport, Failure> {
    allow_many_descriptors();
    let mut brought = Vec::new();
    let report = in_labs(columns, &mut brought, &mut interrupts).await;
    let mut downs = Vec::new();
    for lab in &brought {
        downs.push(lab.down().await);
    }
    let report = report?;
    downs.into_iter().collect::<Result<(), _>>()?;
    Ok(report)
}

async fn in_labs(
    Columns { what, plans }: Columns,
    brought: &mut Vec<Brought>,
    interrupts: &mut Interrupts,
) -> Result<SweepReport, Failure> {
    let cancel = Arc::new(AtomicBool::new(false));
    let mut labs = Vec::new();
    for (place, (value, mut plan)) in plans.into_iter().enumerate() {
        let name = format!("bench-{}-{place}", std::process::id()).parse()?;
        let file = devices::file(&plan, false);
        plan.route.gateway = devices::gateway(&file);
        let (lab, _) = up::bring_up(&name, &file, interrupts).await?;
        let api = lab.api.clone();
        brought.push(lab);
        labs.push((
            value,
            plan.clone(),
            unless_interrupted(Ends::of_own_lab(api, plan.ports, cancel.clone()), interrupts).await?,
        ));
    }
    let stop = cancel.clone();
    let work = move |say: &mut dyn FnMut(_)| {
        let mut columns: Vec<_> = labs
            .iter_mut()
            .map(|(value, plan, ends)| (*value, plan.clone(), ends as &mut dyn Switch))
            .collect();
        bench::sweep::sweep(&what.to_string(), &mut columns, say, &stop)
    };
    let report = on_a_thread(work, &cancel, interrupts).await?;
    report.ok_or_else(|| Failure::invalid("usage", "a series of no values"))
}
