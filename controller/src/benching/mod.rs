//! A benchmark between two ports of a running lab, made by its controller (`POST /v1/labs/{lab}/bench`), and what `vnet bench`
//! shares with it: the switches that can be measured, what is too much, and how a failure is told.

pub(crate) mod ends;

use crate::{
    api::{client::Client, types::BenchRequest},
    failure::{Exit, Failure},
};
use bench::{
    BenchError, Dropped, Mode, Plan,
    frames::{FrameSize, MOST, Payload, Variety},
    machine,
    offload::Offload,
    path::Route,
    report::Report,
};
use ends::Ends;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::{OwnedMutexGuard, oneshot};

/// VLANs of IEEE 802.1Q.
const MOST_VLANS: u16 = 4094;
/// The longest that a controller measures, all repetitions together.
const LONGEST: Duration = Duration::from_secs(60);
/// What comes on top of what is measured: warm-up, and the limits of the machine.
const AROUND: f64 = 3.0;

/// Ends the generator when nobody waits for it any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Measures between two ports of the lab behind `api`. `only` is held until the generator is done; it ends early if the answer is
/// waited for no longer.
///
/// # Errors
/// The request makes no sense, a port is not free, the switch lets nothing through, or the machine lacks something.
pub(crate) async fn between(
    api: Client,
    request: &BenchRequest,
    only: OwnedMutexGuard<()>,
) -> Result<Report, Failure> {
    let cpus = machine::cpus().map_err(|error| Failure::lacking("cpus", error))?;
    let plan = plan(request, &cpus)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let _asked = CancelOnDrop(cancel.clone());
    let mut ends = Ends::between(api, &request.between, cancel.clone()).await?;
    let (tell, told) = oneshot::channel();
    let stop = cancel.clone();
    // Its own thread, since the generator binds the one that it runs on to a CPU.
    let generator = thread::Builder::new().name("generator".into()).spawn(move || {
        let outcome = bench::run(&plan, &mut ends, &mut |_| {}, &stop);
        // Who is told may ask for the next one at once.
        drop(only);
        // Whoever asked may be gone: then nobody is told.
        let _ = tell.send(outcome);
    });
    generator.map_err(|error| Failure::failed("generator", error))?;
    match tokio::time::timeout(LONGEST.mul_f64(AROUND), told).await {
        Ok(Ok(Ok(report))) => Ok(report),
        Ok(Ok(Err(error))) => Err(failure(&error, false)),
        Ok(Err(_)) => Err(Failure::failed("generator", "the generator panicked")),
        Err(_) => Err(Failure::failed("bench", "the measurement took far longer than it was to take")),
    }
}

/// What is asked for; an error says what of it cannot be.
fn plan(request: &BenchRequest, cpus: &[u16]) -> Result<Plan, Failure> {
    let wrong = |what: String| Failure::invalid("usage", what);
    let sizes: Vec<FrameSize> =
        request.frame_sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>().map_err(wrong)?;
    let measured = Duration::from_millis(request.milliseconds.into());
    let all = measured.saturating_mul(request.repetitions).saturating_mul(sizes.len() as u32);
    if sizes.is_empty() || request.milliseconds < 10 || request.repetitions == 0 || all > LONGEST {
        return Err(wrong(format!(
            "{} frame sizes, {} repetitions of {measured:?}: at least one of each, of 10 ms, and {LONGEST:?} in all at most",
            sizes.len(),
            request.repetitions
        )));
    }
    if !(1..=2).contains(&request.directions) {
        return Err(wrong(format!("{} directions: there are 1 and 2", request.directions)));
    }
    let mode = match request.rate {
        None => Mode::Closed { window: None },
        Some(rate @ 1..=1_000_000_000) => Mode::Open { rate: rate as f64 },
        Some(rate) => return Err(wrong(format!("{rate} frames a second: 1 to 1000000000 can be asked for"))),
    };
    Ok(Plan {
        device: format!("{} to {}", request.between[0], request.between[1]),
        sizes,
        offloads: vec![Offload::None],
        ring_size: None,
        variety: variety(request.flows, request.macs, request.vlans.into())?,
        route: Route::default(),
        payload: Payload { dirty: request.dirty, read: request.read },
        ports: 2,
        busy_ports: 2,
        two_directions: request.directions == 2,
        mode,
        measured,
        repetitions: request.repetitions,
        limits: request.limits,
        mergeable: false,
        generator_cpu: *cpus.first().ok_or_else(|| Failure::lacking("cpus", "no CPU may be used"))?,
        switch_cpu: cpus.get(1).copied(),
    })
}

/// How frames differ: without `flows` as many as are needed.
pub(crate) fn variety(flows: Option<u32>, macs: u32, vlans: u32) -> Result<Variety, Failure> {
    let least = macs.max(vlans).max(1);
    let flows = flows.unwrap_or(least);
    let wrong = [
        (!(1..=MOST).contains(&macs), format!("--macs {macs} is not within 1 to {MOST}")),
        (vlans > u32::from(MOST_VLANS), format!("--vlans {vlans} is not within 0 to {MOST_VLANS}")),
        (!(1..=MOST).contains(&flows), format!("--flows {flows} is not within 1 to {MOST}")),
    ];
    if let Some((_, message)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
        return Err(Failure::invalid("usage", message));
    }
    if flows < least {
        return Err(Failure::invalid("usage", format!("--flows {flows} are fewer than its MACs or VLANs"))
            .mend("each flow has one station at either end and one VLAN: say at least as many flows"));
    }
    // Just seen to be one of 4094 at most.
    Ok(Variety { flows, macs, vlans: u16::try_from(vlans).unwrap_or(MOST_VLANS) })
}

/// A benchmark's failure; `interrupted` if it was asked to end.
pub(crate) fn failure(error: &BenchError, interrupted: bool) -> Failure {
    match error {
        _ if interrupted => Failure::failed("interrupted", "interrupted"),
        BenchError::Cpu { .. } | BenchError::Limits(_) => Failure::lacking("bench", error),
        BenchError::Socket { source, .. } => {
            let mend = match source.kind() {
                io::ErrorKind::ConnectionRefused => {
                    "nobody listens there any more: start the switch first, or say --listen if it is the one that connects"
                }
                io::ErrorKind::TimedOut => "is the switch running, and not busy with another connection?",
                _ => "look at the path, and at who may use it",
            };
            Failure::new(Exit::NothingRunning, "bench", error).mend(mend)
        }
        BenchError::Silent { dropped: Some(dropped), .. } if !dropped.is_empty() => {
            let Dropped { port, reason, .. } = &dropped[0];
            Failure::failed("bench", error).mend(format!(
                "`vnet explain {reason}` says what to do, and while the lab runs `vnet why {port}` which line of its file decided it"
            ))
        }
        BenchError::Silent { .. } => Failure::failed("bench", error)
            .mend("`vnet show ports` and `vnet show drops` say what became of them"),
        _ => Failure::failed("bench", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut BenchRequest)) -> BenchRequest {
        let mut request =
            serde_json::from_str(r#"{ "between": ["a", "b"] }"#).expect("the rest has defaults");
        change(&mut request);
        request
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let plan = plan(&request(|_| {}), &[3, 5]).expect("good");
        assert_eq!((plan.sizes.len(), plan.repetitions, plan.measured), (2, 3, Duration::from_secs(1)));
        assert_eq!((plan.generator_cpu, plan.switch_cpu, plan.limits), (3, Some(5), false));
        let unknown = serde_json::from_str::<BenchRequest>(r#"{ "between": ["a", "b"], "frames": 3 }"#);
        assert!(unknown.expect_err("a misspelt key").to_string().contains("frames"));
    }

    #[test]
    fn a_socket_that_nobody_listens_on_any_more_says_what_to_do() {
        let refused =
            BenchError::Socket { port: "a.sock".into(), source: io::ErrorKind::ConnectionRefused.into() };
        let failure = failure(&refused, false);
        assert!(failure.exit == Exit::NothingRunning && failure.message.starts_with("a.sock: "), "{failure}");
        assert!(failure.mend.is_some_and(|mend| mend.contains("start the switch first")));
    }

    #[test]
    fn what_is_too_much_or_nothing_is_refused() {
        type Change = fn(&mut BenchRequest);
        let wrong: [(Change, &str); 7] = [
            (|request| request.frame_sizes = vec!["63".into()], "no frame size"),
            (|request| request.frame_sizes.clear(), "at least one"),
            (|request| request.milliseconds = 9, "10 ms"),
            (|request| request.repetitions = u32::MAX, "60s in all"),
            (|request| request.directions = 3, "1 and 2"),
            (|request| request.rate = Some(0), "frames a second"),
            (|request| (request.flows, request.macs) = (Some(1), 2), "fewer than"),
        ];
        for (change, sentence) in wrong {
            let failure = plan(&request(change), &[0, 1]).expect_err(sentence);
            assert!(failure.exit == Exit::Invalid && failure.message.contains(sentence), "{failure}");
        }
    }
}
