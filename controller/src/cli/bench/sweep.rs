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
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
};

/// The most values of a series: each is a lab that is up.
const MOST: usize = 8;

/// What a lab of a series differs from the others in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// Stations behind each port.
    Macs(u32),
    /// VLANs.
    Vlans(u32),
    /// Ports attached.
    Ports(u32),
    /// What is done with frames.
    Path(Path),
}

impl Swept {
    /// As a report has it.
    pub(super) const fn value(self) -> Value {
        match self {
            Self::Macs(number) | Self::Vlans(number) | Self::Ports(number) => Value::Number(number),
            Self::Path(path) => Value::Path(path),
        }
    }
}

/// What is swept, and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    /// Its name: that of the option which says one value.
    pub(super) what: &'static str,
    pub(super) values: Vec<Swept>,
}

/// A series to be measured.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) what: &'static str,
    /// What to do for each value.
    pub(super) plans: Vec<(Value, Plan)>,
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        type Read = fn(&str) -> Result<Swept, String>;
        let all: [(&str, Read); 4] = [
            ("macs", |text| number(text).map(Swept::Macs)),
            ("vlans", |text| number(text).map(Swept::Vlans)),
            ("ports", |text| number(text).map(Swept::Ports)),
            ("path", |text| text.parse().map(Swept::Path)),
        ];
        let parsed = text.split_once('=').and_then(|(what, values)| {
            let (what, read) = all.into_iter().find(|(name, _)| *name == what)?;
            let values: Vec<_> = values.split(',').map(read).collect::<Result<_, _>>().ok()?;
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
        plan.route.gateway = devices::gateway(&plan, &file)?;
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
        bench::sweep::sweep(what, &mut columns, say, &stop)
    };
    let report = on_a_thread(work, &cancel, interrupts).await?;
    report.ok_or_else(|| Failure::invalid("usage", "a series of no values"))
}
