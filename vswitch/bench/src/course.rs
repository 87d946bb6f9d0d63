//! Frames of one kind on one switch: attached, taught, and measured once in each repetition.

use crate::{
    frames::FrameSize,
    load::{Load, LoadError, Outcome, Pace, Way, ways},
    machine::{self, Clock, Machine, Watch},
    memcpy,
    neighbours::Neighbour,
    offload::Kind,
    path::Route,
    plan::{Mode, Plan, WARM_UP},
    report::{self, Repetition, Row, Subject},
    ringcopy::{RingCopy, Work},
    run::{BenchError, Dropped, Switch, take_cpu},
    search::{Found, Search},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use vhost_net_backend::driver::{Config, Driver, DriverError};

/// A search begins so far above what a closed loop reached.
const HEADROOM: f64 = 1.1;
/// How long a port may turn connections away.
const TURNED_AWAY: Duration = Duration::from_secs(2);
/// So often a switch that floods still is taught at most. The first time it floods; a table that grows meanwhile misses some.
const LESSONS: u32 = 5;

/// What all courses of a plan have in common.
pub(crate) struct Rig<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) clock: Clock,
    pub(crate) huge_pages: bool,
    pub(crate) cancel: &'a Arc<AtomicBool>,
}

/// One kind of frames on one switch.
pub(crate) struct Course {
    pub(crate) kind: Kind,
    pub(crate) load: Load,
    limit: Option<Limit>,
    /// What the switch had dropped before.
    dropped: Option<Vec<Dropped>>,
    repetitions: Vec<Repetition>,
    remarks: Vec<String>,
}

impl Course {
    /// What was measured so far.
    pub(crate) fn repetitions(&self) -> &[Repetition] {
        &self.repetitions
    }

    /// The same error, and where nothing came through what the switch dropped since the beginning.
    pub(crate) fn explained(&self, error: BenchError, switch: &mut dyn Switch) -> BenchError {
        let BenchError::Silent { sent, dropped: None } = error else { return error };
        let before = |one: &Dropped| {
            let same = |old: &&Dropped| (&old.port, &old.reason) == (&one.port, &one.reason);
            self.dropped.iter().flatten().find(same).map_or(0, |old| old.frames)
        };
        let dropped = switch.dropped().map(|all| {
            let since =
                all.into_iter().map(|one| Dropped { frames: one.frames.saturating_sub(before(&one)), ..one });
            since.filter(|one| one.frames > 0).collect()
        });
        BenchError::Silent { sent, dropped }
    }
}

/// The copier, and the generator that drives it.
struct Limit {
    load: Load,
    copier: RingCopy,
}

impl<'a> Rig<'a> {
    /// The one for all that `plan` asks of one switch at a time: the calling thread takes the generator's CPU. Also what machine this is.
    pub(crate) fn take(
        plan: &'a Plan,
        switch: &mut dyn Switch,
        cancel: &'a Arc<AtomicBool>,
    ) -> Result<(Self, Machine), BenchError> {
        let (clock, machine) = take_cpu(plan, switch)?;
        let huge_pages = plan.huge_bytes() * 2 <= machine::free_huge_bytes();
        Ok((Self { plan, clock, huge_pages, cancel }, machine))
    }
}

impl Rig<'_> {
    /// Attaches every port and introduces every station.
    pub(crate) fn begin(&self, kind: Kind, switch: &mut dyn Switch) -> Result<Course, BenchError> {
        let dropped = switch.dropped();
        let limit = if self.plan.limits_run() { Some(self.limit(kind.size.into())?) } else { None };
        let load = self.attach(kind, switch)?;
        let mut course = Course { kind, load, limit, dropped, repetitions: Vec::new(), remarks: Vec::new() };
        self.teach(&mut course, switch)?;
        Ok(course)
    }

    /// The same of a pair that has `neighbours`; of the machine's limits none is measured.
    pub(crate) fn begin_beside(
        &self,
        size: FrameSize,
        neighbours: &[(Way, bool)],
        switch: &mut dyn Switch,
    ) -> Result<Course, BenchError> {
        let dropped = switch.dropped();
        let kind = Kind::from(size);
        let mut load = self.attach(kind, switch)?;
        let variety = self.plan.variety;
        load.add_neighbours(neighbours.iter().map(|neighbour| Neighbour::new(*neighbour, size, variety)));
        let mut course =
            Course { kind, load, limit: None, dropped, repetitions: Vec::new(), remarks: Vec::new() };
        self.teach(&mut course, switch)?;
        Ok(course)
    }

    /// Measures once: the switch, and what this machine could do.
    pub(crate) fn repeat(
        &self,
        course: &mut Course,
        switch: &mut dyn Switch,
        say: &mut dyn FnMut(f64),
    ) -> Result<(), BenchError> {
        let kind = course.kind;
        let measured = self
            .switch_trial(kind, &mut course.load, switch, say)
            .map_err(|error| course.explained(error, switch))?;
        say(0.6);
        let ringcopy =
            course.limit.as_mut().map(|limit| self.limit_trial(kind.size.into(), limit)).transpose()?;
        let memcpy = if self.plan.limits_run() { Some(self.memcpy(kind.size)?) } else { None };
        course.repetitions.push(Repetition { ringcopy, memcpy, ..measured });
        Ok(())
    }

    /// Sums up; also what else is to be known.
    pub(crate) fn end(&self, course: Course) -> (Row, Vec<String>) {
        let subject = Subject {
            kind: course.kind,
            ring_size: self.plan.ring_size(course.kind.size).entries(),
            mode: self.plan.mode_in_words(course.kind),
        };
        (report::row(subject, &course.repetitions, self.clock), course.remarks)
    }

    /// Introduces all stations until nothing is flooded any more, or no less than the last time.
    fn teach(&self, course: &mut Course, switch: &mut dyn Switch) -> Result<(), BenchError> {
        let mut last = u64::MAX;
        for _ in 0..LESSONS {
            let (refused, flooded) = (switch.refused(), switch.flooded());
            course.load.teach(self.cancel)?;
            let since = |before: Option<u64>, now: Option<u64>| Some(now?.saturating_sub(before?));
            course.remarks = refusals(course.kind.size, since(refused, switch.refused()));
            match since(flooded, switch.flooded()) {
                Some(flooded) if flooded > 0 && flooded < last => last = flooded,
                _ => break,
            }
        }
        Ok(())
    }

    /// Attaches all ports of the switch.
    fn attach(&self, kind: Kind, switch: &mut dyn Switch) -> Result<Load, BenchError> {
        let left = kind.offload.features();
        let port = |port| {
            let config = self.driver(kind, port);
            let begin = Instant::now();
            loop {
                let stream = match switch.connect(port) {
                    Ok(stream) => stream,
                    Err(_) if self.cancel.load(Ordering::Relaxed) => {
                        return Err(LoadError::Interrupted.into());
                    }
                    Err(source) => return Err(BenchError::Socket { port: switch.name(port), source }),
                };
                match Driver::connect(stream, &config) {
                    Ok(driver) if driver.features() & config.features & left == left => return Ok(driver),
                    Ok(_) => {
                        return Err(BenchError::NoOffload { port: switch.name(port), offload: kind.offload });
                    }
                    // A switch that has not seen yet that the last connection ended turns the next one away.
                    Err(DriverError::Handshake { .. }) if begin.elapsed() < TURNED_AWAY => {}
                    Err(DriverError::Cancelled { .. }) => return Err(LoadError::Interrupted.into()),
                    Err(source) => return Err(BenchError::Driver { port: switch.name(port), source }),
                }
            }
        };
        let ports = (0..self.plan.ports).map(port).collect::<Result<_, _>>()?;
        Ok(self.load(kind, ports, self.plan.busy_ports, self.plan.route))
    }

    fn limit(&self, kind: Kind) -> Result<Limit, BenchError> {
        let (copier, ends) = RingCopy::start(self.plan.switch_cpu).map_err(BenchError::Limits)?;
        let config = self.driver(kind, 0);
        let connect = |stream| {
            Driver::connect(stream, &config)
                .map_err(|source| BenchError::Driver { port: "the copier".into(), source })
        };
        let ports = ends.into_iter().map(connect).collect::<Result<_, _>>()?;
        // Nothing is between the ends: what arrives is what was sent.
        let mut load = self.load(kind, ports, 2, Route::default());
        copier.set_running(true);
        load.teach(self.cancel)?;
        copier.set_running(false);
        Ok(Limit { load, copier })
    }

    /// The driver of each port; a wait of its handshake ends when the benchmark is to end.
    fn driver(&self, kind: Kind, port: usize) -> Config {
        Config { cancel: Some(self.cancel.clone()), ..self.plan.driver(kind, port, self.huge_pages) }
    }

    fn load(&self, kind: Kind, ports: Vec<Driver>, busy: usize, route: Route) -> Load {
        let plan = self.plan;
        let ways = ways(busy, plan.two_directions);
        let ring_size = plan.ring_size(kind.size).entries();
        let frames = (kind, plan.variety, plan.payload);
        Load::new(ports, &ways, (frames, route), ring_size, (self.clock, plan.switch_cpu.is_none()))
    }

    /// The trial whose figures are reported; what leads to its rate is no part of them.
    fn switch_trial(
        &self,
        kind: Kind,
        load: &mut Load,
        switch: &mut dyn Switch,
        say: &mut dyn FnMut(f64),
    ) -> Result<Repetition, BenchError> {
        let closed = Pace::Closed { window: self.plan.window(kind) };
        let measured = match self.plan.mode {
            Mode::Closed { .. } => self.trial(closed, load, switch)?,
            Mode::Open { rate } => self.trial(Pace::Open { rate }, load, switch)?,
            Mode::Part { of_closed } => {
                let rate = heard(load.run(&self.plan.trial(closed), self.cancel)?)?.rate() * of_closed;
                self.trial(Pace::Open { rate }, load, switch)?
            }
            Mode::Search(goal) => {
                let ceiling = heard(load.run(&self.plan.trial(closed), self.cancel)?)?.rate() * HEADROOM;
                let found = Search::new(goal, ceiling).run(|rate, progress| {
                    say(progress / 2.0);
                    let measured = self.trial(Pace::Open { rate }, load, switch)?;
                    Ok::<_, BenchError>((measured.outcome.loss_ratio(), measured))
                })?;
                return Ok(match found {
                    Found::Borne(measured) => measured,
                    Found::None => Repetition { no_rate_held: true, ..Repetition::default() },
                });
            }
        };
        Ok(Repetition { outcome: heard(measured.outcome)?, ..measured })
    }

    /// One trial, and what the switch did and what disturbed it from its beginning to its end.
    fn trial(&self, pace: Pace, load: &mut Load, switch: &mut dyn Switch) -> Result<Repetition, BenchError> {
        let (work, flooded) = (switch.work(), switch.flooded());
        let watch = Watch::start();
        let outcome = load.run(&self.plan.trial(pace), self.cancel)?;
        let disturbance = watch.end();
        let offered = match pace {
            Pace::Open { rate } => Some(rate),
            Pace::Closed { .. } => None,
        };
        let work = work.zip(switch.work()).map(|(before, after)| after.since(before));
        let flooded = flooded.zip(switch.flooded()).map(|(before, after)| after.saturating_sub(before));
        Ok(Repetition { outcome, offered, work, flooded, disturbance, ..Repetition::default() })
    }

    fn limit_trial(&self, kind: Kind, limit: &mut Limit) -> Result<(Outcome, Work), BenchError> {
        let before = limit.copier.work();
        limit.copier.set_running(true);
        let trial = self.plan.trial(Pace::Closed { window: self.plan.window(kind) });
        let outcome = limit.load.run(&trial, self.cancel);
        limit.copier.set_running(false);
        Ok((outcome?, limit.copier.work().since(before)))
    }

    fn memcpy(&self, size: FrameSize) -> Result<f64, BenchError> {
        let bytes = size.mean_on_ring() as usize;
        let time = self.plan.measured.mul_f64(WARM_UP);
        memcpy::measure(bytes, self.plan.switch_cpu, time, self.clock).map_err(BenchError::Limits)
    }
}

/// The outcome, if anything came through.
fn heard(outcome: Outcome) -> Result<Outcome, BenchError> {
    if outcome.tally.received == 0 && outcome.sent > 0 {
        return Err(BenchError::Silent { sent: outcome.sent, dropped: None });
    }
    Ok(outcome)
}

/// What is said of stations that were refused in the last lesson.
fn refusals(size: FrameSize, refused: Option<u64>) -> Vec<String> {
    let told = refused.filter(|refused| *refused > 0).map(|refused| {
        format!(
            "frames of {size}: the switch refused {refused} times to learn a station: frames to those are flooded"
        )
    });
    told.into_iter().collect()
}
