//! `why`: what the switch recorded, gathered from its process, put together and told in the words of the topology file.

mod end;
mod group;
mod routed;
mod words;

use crate::{
    api::why::{WhyRequest, WhySpan, WhyView},
    expect::run::Running,
    failure::{Context, Failure},
};
use end::{About, End};
use std::{collections::HashSet, time::Duration};
use vswitch_core::{clock::Instant, world::World};
use vswitchd::{
    control::protocol::{Records, RecordsWanted},
    recorder::Record,
};

/// How many groups one answer has at most.
const GROUPS: usize = 50;

/// How often the switch is asked at most for one answer: more than all that its recorders hold.
const PAGES: usize = 2048;

impl Running {
    /// What was recorded.
    ///
    /// # Errors
    /// The request names no interface or no time, or the switch does not answer.
    pub async fn why(&self, request: &WhyRequest) -> Result<WhyView, Failure> {
        let last = span(request.last.as_deref().unwrap_or(WhyRequest::LAST))?;
        let about = About {
            src: self.whom(request.src.as_ref()).await?,
            dst: self.whom(request.dst.as_ref()).await?,
        };
        let (now, whole_since, records) = self.records(last, &about).await?;
        let world = World::compile(&self.plan.description).context("why", || "the lab".into())?;
        let mine: Vec<_> = records.into_iter().filter(|record| about.covers(record)).collect();
        let capped: HashSet<_> =
            mine.iter().filter(|record| record.more > 0).map(|record| record.event).collect();
        let groups = group::groups(mine);
        let left_out = groups.len().saturating_sub(GROUPS);
        let words = words::Words { plan: &self.plan, world: &world, now, links_down: &self.links_down };
        Ok(WhyView {
            about: about.to_string(),
            last_bits: about.compares_last_bits(),
            span: WhySpan {
                asked_millis: millis(last),
                held_millis: millis(now.since(whole_since)),
                since_start: whole_since.as_nanos() == 0,
                capped: capped.len(),
            },
            groups: groups.iter().take(GROUPS).map(|group| words.tell(group)).collect(),
            left_out,
        })
    }

    async fn whom(&self, said: Option<&String>) -> Result<Option<End>, Failure> {
        let Some(said) = said else { return Ok(None) };
        let mut end = End::find(&self.plan, said)?;
        // A foreign guest's address is known by what it sent.
        let unsaid: Vec<_> = end.interfaces(&self.plan).map(|(_, interface)| interface).collect();
        for interface in unsaid.into_iter().filter(|interface| interface.mac.is_none()) {
            end.macs.extend(self.macs(interface).await?);
        }
        Ok(Some(end))
    }

    /// All records of that span, and at which moment from when on they are all.
    async fn records(
        &self,
        last: Duration,
        about: &About,
    ) -> Result<(Instant, Instant, Vec<Record>), Failure> {
        let last_nanos = u64::try_from(last.as_nanos()).unwrap_or(u64::MAX);
        let mut wanted = RecordsWanted { last_nanos, ports: about.ports(), from: Vec::new() };
        let (mut begin, mut all) = (None, Vec::new());
        for _ in 0..PAGES {
            let page = wanted.clone();
            let Records { now, whole_since, records, next } =
                self.switch(move |switch| switch.records(page)).await?;
            // What happens while we ask is of no interest; what is forgotten meanwhile is.
            let (asked, _) = begin.unwrap_or((now, whole_since));
            begin = Some((asked, whole_since));
            all.extend(records.into_iter().filter(|record| record.at <= asked));
            match next {
                Some(next) => wanted.from = next,
                None => break,
            }
        }
        let (now, whole_since) = begin.unwrap_or_default();
        Ok((now, whole_since, all))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A span of time with its unit, as the topology file writes one.
fn span(said: &str) -> Result<Duration, Failure> {
    let digits = said.len() - said.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = said.split_at(digits);
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        _ => None,
    };
    let span = number.parse::<u64>().ok().zip(millis).and_then(|(number, unit)| number.checked_mul(unit));
    span.filter(|millis| *millis > 0).map(Duration::from_millis).ok_or_else(|| {
        Failure::invalid("bad-span", format!("`{said}` is no span of time")).mend("say 10s, 5m, 1h or 500ms")
    })
}

#[cfg(test)]
mod tests;
