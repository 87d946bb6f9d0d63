//! What `bench` can be told, and which of it makes sense together.

use super::{
    super::args::Output,
    sweep::{Columns, Sweep, Swept, number},
};
use crate::{benching::variety, failure::Failure};
use bench::{
    Beside, Mode, Plan,
    frames::{FrameSize, Payload},
    machine,
    offload::Offload,
    path::{Path, Route},
    search::Goal,
    sweep::Value,
};
use clap::{
    Args,
    builder::{ArgPredicate, BoolishValueParser},
};
use std::{path::PathBuf, str::FromStr, time::Duration};
use vhost_net_backend::layout::RingSize;

/// The most ports that one switch is asked to have.
const MOST_PORTS: usize = 512;
/// The shortest frame of which something is left to the switch: TCP has more headers than the generator's UDP.
const LEAST_OFFLOADED: u16 = 128;
/// The most flows that are translated, two entries each: a quarter of what a lab's table of connections has room for.
const MOST_TRANSLATED: u64 = 1 << 15;
/// The most frames a second that can be asked for.
const MOST_RATE: f64 = 1e9;

/// How fast a switch is, beside how fast this machine could be.
#[derive(Debug, Clone, Args)]
pub(in super::super) struct BenchArgs {
    /// Five seconds in all, frames of 64 bytes.
    #[arg(long, env = "VNET_QUICK", value_parser = BoolishValueParser::new(), conflicts_with_all = ["frame_size", "seconds", "repeat"])]
    quick: bool,
    /// Sizes of frames: 64 to 1518 (with FCS, 60 to 1514 on the ring), up to 65535 (as on the ring), imix. With --offload the default is 65535.
    #[arg(
        long,
        env = "VNET_FRAME_SIZE",
        value_delimiter = ',',
        default_value = "64,1518",
        default_value_if("offload", ArgPredicate::IsPresent, "65535"),
        value_name = "SIZES"
    )]
    frame_size: Vec<FrameSize>,
    /// What is left to the switch with each frame, one row each: checksum (TCP frames whose checksum it completes), segments (which it cuts
    /// into frames of 1514 bytes, for a receiver with buffers of 2 KiB), none. No receiver takes any of it. A frame that is cut counts, with the
    /// bytes that were sent, once all of its segments came in order; headers and checksums are looked at in all, and one of 64 to its last byte.
    #[arg(long, env = "VNET_OFFLOAD", value_delimiter = ',', value_name = "WHAT",
        conflicts_with_all = ["quick", "directions", "flows", "macs", "vlans", "sweep", "beside", "wake"])]
    offload: Vec<Offload>,
    /// Entries of each ring [default: 1024; with frames over 2 KiB 256, over 16 KiB 64].
    #[arg(long, env = "VNET_RING_SIZE", value_name = "N")]
    ring_size: Option<u16>,
    /// Open loop: so many frames a second, of all streams together, as 1Mpps, 500kpps or 100pps; or a part of what a closed loop reaches
    /// just before, as 10%.
    #[arg(long, env = "VNET_RATE", conflicts_with_all = ["search", "window"])]
    rate: Option<Rate>,
    /// Look for the highest rate: ndr (no loss) or pdr (at most 1 frame in 1000).
    #[arg(long, env = "VNET_SEARCH", conflicts_with = "window", value_name = "GOAL")]
    search: Option<Goal>,
    /// Closed loop: frames of each stream on their way [default: 15/16 of the ring].
    #[arg(long, env = "VNET_WINDOW", value_name = "N")]
    window: Option<u32>,
    /// Flows of each stream, 1 to 1048576 [default: as many as MACs or VLANs].
    #[arg(long, env = "VNET_FLOWS", value_parser = number, value_name = "N")]
    flows: Option<u32>,
    /// MAC addresses behind each port, 1 to 1048576, also as 64k or 1M [default: 1].
    #[arg(long, env = "VNET_MACS", value_parser = number, value_name = "N")]
    macs: Option<u32>,
    /// Tagged frames in so many VLANs, from 1 on; 0: no tags [default: 0].
    #[arg(long, env = "VNET_VLANS", value_parser = number, value_name = "N")]
    vlans: Option<u32>,
    /// What the switch does with frames, in a lab of its own: switched, routed (into another VLAN) or nat (routed, and translated to the
    /// gateway's address). Through a gateway frames go one way, untagged, from one MAC address a port [default: switched].
    #[arg(long, env = "VNET_PATH", value_name = "PATH", conflicts_with_all = ["between", "sockets", "beside", "wake"])]
    path: Option<Path>,
    /// Ports attached, of a lab of its own [default: 2].
    #[arg(long, env = "VNET_PORTS", value_parser = number, value_name = "N", conflicts_with_all = ["between", "sockets"])]
    ports: Option<u32>,
    /// Ports with traffic, in pairs [default: all].
    #[arg(long, env = "VNET_BUSY_PORTS", value_name = "N")]
    busy_ports: Option<usize>,
    /// Whether frames go one way or both.
    #[arg(long, env = "VNET_DIRECTIONS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2), value_name = "1|2")]
    directions: u8,
    /// How long each repetition measures.
    #[arg(long, env = "VNET_SECONDS", default_value_t = 1.0, value_name = "S")]
    seconds: f64,
    /// Repetitions.
    #[arg(long, env = "VNET_REPEAT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    repeat: u32,
    /// The CPU of the generator, and that of the switch (on which the limits are measured) [default: the first two].
    #[arg(long, env = "VNET_CPUS", value_name = "GEN,SWITCH")]
    cpus: Option<Cpus>,
    /// The worker of a lab of its own never sleeps.
    #[arg(long, env = "VNET_POLL_ALWAYS", value_parser = BoolishValueParser::new(), conflicts_with_all = ["between", "sockets"])]
    poll_always: bool,
    /// Offer mergeable receive buffers (MRG_RXBUF).
    #[arg(long, env = "VNET_MERGEABLE", value_parser = BoolishValueParser::new())]
    mergeable: bool,
    /// Two ports of a running lab, of kind vhost-user: NODE or NODE:IF.
    #[arg(long, env = "VNET_BETWEEN", num_args = 2, value_names = ["PORT_A", "PORT_B"])]
    between: Option<Vec<String>>,
    /// Two vhost-user sockets of any switch; this side is the VMM.
    #[arg(long, env = "VNET_SOCKETS", num_args = 2, value_names = ["PATH_A", "PATH_B"], conflicts_with = "between")]
    sockets: Option<Vec<PathBuf>>,
    /// Listen on these sockets, for a switch that connects.
    #[arg(long, env = "VNET_LISTEN", value_parser = BoolishValueParser::new(), requires = "sockets")]
    listen: bool,
    /// Write the whole payload anew before each frame is sent, as a guest does that has something to say: it comes to the switch from
    /// the generator's cache. Else only the heads are written.
    #[arg(long, env = "VNET_DIRTY", value_parser = BoolishValueParser::new())]
    dirty: bool,
    /// Read all of each frame that arrives, not only its head.
    #[arg(long, env = "VNET_READ", value_parser = BoolishValueParser::new())]
    read: bool,
    /// A series: one lab for each of these values, measured in turn, in each repetition all of them: macs=1,1k,64k,1M, vlans=1,64,4094,
    /// ports=2,64,512 (two of them busy) or path=switched,routed,nat. This machine's limits are left out.
    #[arg(long, env = "VNET_SWEEP", value_name = "WHAT=VALUE,VALUE…", conflicts_with_all = ["between", "sockets", "poll_always", "search", "quick"])]
    sweep: Option<Sweep>,
    /// Isolation: one pair at half of its maximum, alone and beside a sender that floods, in turn: stalled (towards a guest that gives no
    /// buffer back), flood (towards one that takes all), or both.
    #[arg(long, env = "VNET_BESIDE", value_name = "stalled|flood|both",
        conflicts_with_all = ["between", "sockets", "sweep", "ports", "busy_ports", "directions", "rate", "search", "quick"])]
    beside: Option<Beside>,
    /// How long it takes to wake the switch: frames so far apart that it can sleep before each (before how many it did is told), beside the bare wake-up of a thread by an eventfd.
    #[arg(long, env = "VNET_WAKE", value_parser = BoolishValueParser::new(),
        conflicts_with_all = ["beside", "sweep", "poll_always", "directions", "rate", "search", "window", "quick"])]
    wake: bool,
    /// Leave out what this machine could do: ringcopy and memcpy.
    #[arg(long, env = "VNET_NO_LIMITS", value_parser = BoolishValueParser::new())]
    no_limits: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

/// What is asked of the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// How fast it is.
    Speed,
    /// What a pair keeps beside neighbours.
    Isolation(Beside),
    /// How long it takes to wake it.
    Wake,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Device {
    /// A lab that is made for it.
    Own {
        /// Its worker never sleeps.
        poll_always: bool,
    },
    /// Ports of a running lab.
    Between([String; 2]),
    /// Sockets of any switch.
    Sockets {
        /// Where.
        paths: [PathBuf; 2],
        /// Whether the switch connects.
        listen: bool,
    },
}

/// Frames a second, with its unit, or a part of the closed loop's rate.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate(Mode);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(percent) = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()) {
            let part = Some(percent / 100.0).filter(|part| (0.0001..=1.0).contains(part));
            let part = part.map(|of_closed| Self(Mode::Part { of_closed }));
            return part.ok_or_else(|| format!("`{text}` is no part: say 0.01% to 100%"));
        }
        let units = [("Mpps", 1e6), ("kpps", 1e3), ("pps", 1.0)];
        let parsed = units.iter().find_map(|(unit, times)| {
            let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(number * times)
        });
        let rate = parsed
            .ok_or_else(|| format!("`{text}` is no rate: say for example 1Mpps, 500kpps, 100pps or 10%"))?;
        if !(1.0..=MOST_RATE).contains(&rate) {
            return Err(format!(
                "`{text}` is out of range: 1pps to {}Mpps can be asked for",
                MOST_RATE / 1e6
            ));
        }
        Ok(Self(Mode::Open { rate }))
    }
}

/// Two CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cpus {
    generator: u16,
    switch: u16,
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let both =
            text.split_once(',').and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
        match both {
            Some((generator, switch)) if generator != switch => Ok(Self { generator, switch }),
            _ => Err(format!("`{text}` is not two CPUs: say for example 0,1")),
        }
    }
}

/// What `demo` measures: the same as `bench --quick`.
pub(super) fn quick_plan() -> Result<(Plan, Device), Failure> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }
    let line = <Line as clap::Parser>::try_parse_from(["bench", "--quick"]);
    line.map_err(|error| Failure::invalid("usage", error))?.args.plan()
}

fn wrong(what: impl std::fmt::Display, mend: &str) -> Failure {
    Failure::invalid("usage", what).mend(mend)
}

impl BenchArgs {
    /// Whether ports of a lab that runs are measured.
    pub(in super::super) const fn is_of_a_running_lab(&self) -> bool {
        self.between.is_some()
    }

    /// A series, if one is asked for.
    pub(super) fn series(&self) -> Result<Option<Columns>, Failure> {
        let Some(sweep) = &self.sweep else { return Ok(None) };
        let column = |swept: &Swept| {
            let mut args = Self { no_limits: true, ..self.clone() };
            let said = match *swept {
                Swept::Macs(macs) => args.macs.replace(macs).map(Value::Number),
                Swept::Vlans(vlans) => args.vlans.replace(vlans).map(Value::Number),
                Swept::Ports(ports) => {
                    args.busy_ports = args.busy_ports.or(Some(2));
                    args.ports.replace(ports).map(Value::Number)
                }
                Swept::Path(path) => args.path.replace(path).map(Value::Path),
            };
            if let Some(said) = said {
                let message = format!("--{0} {said} contradicts --sweep {0}=…", sweep.what);
                return Err(wrong(message, "say it once: the series has all values"));
            }
            Ok((swept.value(), args.plan()?.0))
        };
        let plans = sweep.values.iter().map(column).collect::<Result<_, Failure>>()?;
        Ok(Some(Columns { what: sweep.what, plans }))
    }

    /// What is asked.
    pub(super) fn question(&self) -> Question {
        match self.beside {
            Some(beside) => Question::Isolation(beside),
            None if self.wake => Question::Wake,
            None => Question::Speed,
        }
    }

    /// What to do; an error says which argument cannot be, alone or beside another.
    pub(super) fn plan(self) -> Result<(Plan, Device), Failure> {
        let allowed = machine::cpus().map_err(|error| Failure::lacking("cpus", error))?;
        self.plan_on(&allowed)
    }

    fn plan_on(self, allowed: &[u16]) -> Result<(Plan, Device), Failure> {
        let (generator_cpu, switch_cpu) = self.cpus_of(allowed)?;
        let (sizes, seconds, repetitions) = if self.quick {
            (vec![FrameSize::Fixed(64)], 0.4, 3)
        } else {
            (self.frame_size.clone(), self.seconds, self.repeat)
        };
        if !(0.01..=3600.0).contains(&seconds) {
            return Err(Failure::invalid("usage", format!("--seconds {seconds} is not within 0.01 to 3600")));
        }
        let ports = self.beside.map_or(self.ports.unwrap_or(2) as usize, Beside::ports);
        let busy_ports = if self.beside.is_some() { 2 } else { self.busy_ports.unwrap_or(ports & !1) };
        let ring_size = self.ring()?;
        let offloads = if self.offload.is_empty() { vec![Offload::None] } else { self.offload };
        let too_short = |size: &&FrameSize| !matches!(size, FrameSize::Fixed(LEAST_OFFLOADED..));
        if let Some(size) = sizes.iter().find(too_short).filter(|_| offloads != [Offload::None]) {
            let message =
                format!("--frame-size {size}: with --offload frames have {LEAST_OFFLOADED} bytes or more");
            return Err(wrong(message, "say for example --frame-size 65535"));
        }
        let device = match (self.between, self.sockets) {
            (Some(ports), _) => Device::Between(two(ports)?),
            (_, Some(paths)) => Device::Sockets { paths: two(paths)?, listen: self.listen },
            _ => Device::Own { poll_always: self.poll_always },
        };
        if !(2..=MOST_PORTS).contains(&ports) {
            let message = format!("--ports {ports} is not within 2 to {MOST_PORTS}");
            return Err(Failure::invalid("usage", message));
        }
        if busy_ports % 2 == 1 || !(2..=ports).contains(&busy_ports) {
            let message = format!("--busy-ports {busy_ports} is no even number from 2 to the {ports} ports");
            return Err(wrong(message, "frames go from one port to the next, in pairs"));
        }
        let path = self.path.unwrap_or_default();
        let variety = variety(self.flows, self.macs.unwrap_or(1), self.vlans.unwrap_or(0))?;
        if path != Path::Switched && (variety.macs, variety.vlans, self.directions) != (1, 0, 1) {
            let message = format!(
                "--path {path}: through a gateway frames go one way, untagged, from one MAC address a port"
            );
            return Err(wrong(message, "leave out --macs, --vlans and --directions"));
        }
        let flows = u64::from(variety.flows) * (busy_ports as u64 / 2);
        if path == Path::Nat && flows > MOST_TRANSLATED {
            let message = format!(
                "--path nat: {flows} flows of all ports together are more than {MOST_TRANSLATED}, which that lab's router translates"
            );
            return Err(wrong(message, "say fewer --flows or --busy-ports"));
        }
        if path == Path::Nat && offloads != [Offload::None] {
            let message = "--path nat: what is left to the switch is TCP without its first segments, which no router translates";
            return Err(wrong(message, "leave out --offload, or say --path routed"));
        }
        let plan = Plan {
            device: device.to_string(),
            sizes,
            offloads,
            ring_size,
            variety,
            // The gateway's address follows from the lab's file.
            route: Route { path, ..Route::default() },
            payload: Payload { dirty: self.dirty, read: self.read },
            ports,
            busy_ports,
            two_directions: self.directions == 2,
            mode: match (self.rate, self.search) {
                (Some(Rate(mode)), _) => mode,
                (_, Some(goal)) => Mode::Search(goal),
                _ => Mode::Closed { window: self.window },
            },
            measured: Duration::from_secs_f64(seconds),
            repetitions,
            limits: !self.no_limits && self.beside.is_none() && !self.wake,
            mergeable: self.mergeable,
            generator_cpu,
            switch_cpu,
        };
        Ok((plan, device))
    }

    fn cpus_of(&self, allowed: &[u16]) -> Result<(u16, Option<u16>), Failure> {
        let Some(Cpus { generator, switch }) = self.cpus else {
            let first = allowed.first().ok_or_else(|| Failure::lacking("cpus", "no CPU may be used"))?;
            return Ok((*first, allowed.get(1).copied()));
        };
        match [generator, switch].into_iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => {
                Err(wrong(format!("CPU {cpu} cannot be used here"), &format!("there are: {allowed:?}")))
            }
            None => Ok((generator, Some(switch))),
        }
    }

    fn ring(&self) -> Result<Option<RingSize>, Failure> {
        let ring = self.ring_size.map(|entries| {
            let ring = RingSize::new(entries).filter(|_| (16..=4096).contains(&entries));
            ring.ok_or_else(|| {
                let message = format!("--ring-size {entries} is no power of two from 16 to 4096");
                Failure::invalid("usage", message)
            })
        });
        let ring = ring.transpose()?;
        // What is not said is the largest that a ring of vnet's choice has.
        let most = ring.map_or(1024, |ring| u32::from(ring.entries()));
        match self.window {
            Some(0) => Err(Failure::invalid("usage", "--window 0 lets no frame go: 1 or more is needed")),
            Some(window) if window > most => Err(wrong(
                format!("--window {window} is more than the {most} entries of a ring"),
                "a receiver that has no buffer loses frames: say less, or a larger --ring-size",
            )),
            _ => Ok(ring),
        }
    }
}

fn two<T>(values: Vec<T>) -> Result<[T; 2], Failure> {
    values.try_into().map_err(|_| wrong("one port is not enough", "say two"))
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own { .. } => f.write_str("a lab of its own"),
            Self::Between([one, other]) => write!(f, "{one} to {other}"),
            Self::Sockets { paths: [one, other], .. } => {
                write!(f, "{} to {}", one.display(), other.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bench::frames::Variety;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn plan(line: &str) -> Result<(Plan, Device), String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        // The rule stands in the error's own line.
        parsed.args.plan_on(&[0, 1, 2]).map_err(|failure| failure.message)
    }

    #[test]
    fn what_is_said_is_what_is_measured() {
        let (own, device) = plan("").expect("the defaults");
        assert_eq!(own.sizes, [FrameSize::Fixed(64), FrameSize::Fixed(1518)]);
        assert_eq!(
            (own.mode, own.generator_cpu, own.switch_cpu),
            (Mode::Closed { window: None }, 0, Some(1))
        );
        assert_eq!(device, Device::Own { poll_always: false });
        let line = "--frame-size 64,imix --rate 2.5Mpps --macs 1000 --vlans 10 --cpus 2,1 --ports 8 --busy-ports 4 --directions 2";
        let (plan_, _) = plan(line).expect("good");
        assert_eq!(
            (plan_.mode, plan_.busy_ports, plan_.two_directions),
            (Mode::Open { rate: 2.5e6 }, 4, true)
        );
        assert_eq!(plan_.variety, Variety { flows: 1000, macs: 1000, vlans: 10 });
        let (_, device) = plan("--sockets ./a ./b --listen").expect("good");
        assert_eq!(device, Device::Sockets { paths: ["./a".into(), "./b".into()], listen: true });
        let (thousands, _) = plan("--macs 64k --flows 1M").expect("as in a series");
        assert_eq!(thousands.variety, Variety { flows: 1_000_000, macs: 64_000, vlans: 0 });
        let (dirty, _) = plan("--dirty --read").expect("good");
        assert_eq!((dirty.payload, own.payload), (Payload { dirty: true, read: true }, Payload::default()));
        let (left, _) = plan("--offload none,checksum,segments").expect("good");
        assert_eq!(left.sizes, [FrameSize::Fixed(65535)]);
        assert_eq!(left.offloads, [Offload::None, Offload::Checksum, Offload::Segments]);
        assert_eq!(own.offloads, [Offload::None]);
        let (tenth, _) = plan("--rate 10%").expect("good");
        assert_eq!(tenth.mode, Mode::Part { of_closed: 0.1 });
        let (both, _) = plan("--beside both").expect("good");
        assert_eq!((both.ports, both.busy_ports, both.limits), (6, 2, false));
        let quick = plan("--quick").expect("good").0;
        assert_eq!((quick.sizes.len(), quick.repetitions), (1, 3));
    }

    #[test]
    fn a_series_differs_in_what_is_swept_and_in_nothing_else() {
        let series = |line: &str| {
            let words = ["bench"].into_iter().chain(line.split_whitespace());
            Line::try_parse_from(words).expect(line).args.series()
        };
        let Columns { what, plans } =
            series("--sweep macs=1,1k,1M --seconds 0.5").expect("good").expect("a series");
        let macs: Vec<_> = plans.iter().map(|(value, plan)| (*value, plan.variety.macs)).collect();
        let told = [1, 1000, 1_000_000].map(|number| (Value::Number(number), number));
        assert_eq!((what, macs), ("macs", told.to_vec()));
        let same =
            |(_, plan): &(Value, Plan)| Plan { variety: plans[0].1.variety, ..plan.clone() } == plans[0].1;
        assert!(plans.iter().all(same) && !plans[0].1.limits);
        let Columns { plans, .. } = series("--sweep ports=2,512").expect("good").expect("a series");
        let ports: Vec<_> = plans.iter().map(|(_, plan)| (plan.ports, plan.busy_ports)).collect();
        assert_eq!(ports, [(2, 2), (512, 2)]);
        let Columns { plans, .. } = series("--sweep path=switched,nat").expect("good").expect("a series");
        let paths: Vec<_> = plans.iter().map(|(value, plan)| (*value, plan.route.path)).collect();
        assert_eq!(paths, [Path::Switched, Path::Nat].map(|path| (Value::Path(path), path)));
        assert!(series("--sweep vlans=70000").is_err() && series("--sweep ports=1").is_err());
        assert!(series("").expect("good").is_none());
        let twice = series("--sweep macs=1,2 --macs 5").expect_err("a contradiction");
        assert_eq!(twice.message, "--macs 5 contradicts --sweep macs=…");
    }

    #[test]
    fn what_cannot_be_is_said_in_a_sentence() {
        let wrong = [
            ("--frame-size 63", "no frame size"),
            ("--rate 5", "1Mpps"),
            ("--rate 1Mpps --search ndr", "cannot be used with"),
            ("--rate 200%", "0.01% to 100%"),
            ("--rate 2000Mpps", "1pps to 1000Mpps"),
            ("--rate 0pps", "1pps to 1000Mpps"),
            ("--macs 10000000", "--macs 10000000 is not within 1 to 1048576"),
            ("--macs 64q", "64k or 1M"),
            ("--beside nobody", "stalled, flood or both"),
            ("--beside flood --ports 8", "cannot be used with"),
            ("--wake --rate 1kpps", "cannot be used with"),
            ("--search best", "ndr"),
            ("--ring-size 100", "power of two"),
            ("--ring-size 256 --window 300", "the 256 entries of a ring"),
            ("--window 0", "1 or more"),
            ("--offload udp", "checksum, segments or none"),
            ("--offload checksum --frame-size 1518,64", "--frame-size 64: with --offload"),
            ("--offload checksum --frame-size imix", "--frame-size imix: with --offload"),
            ("--offload segments --vlans 2", "cannot be used with"),
            ("--flows 5 --macs 10", "fewer than its MACs"),
            ("--path bridged", "switched, routed or nat"),
            ("--path nat --macs 10", "--path nat: through a gateway"),
            ("--path routed --directions 2", "one way"),
            ("--path nat --flows 40k", "40000 flows of all ports together"),
            ("--path nat --wake", "cannot be used with"),
            ("--path nat --offload checksum", "which no router translates"),
            ("--path routed --sockets a b", "cannot be used with"),
            ("--sweep path=1,2", "path=switched,routed,nat"),
            ("--sweep macs=routed", "macs=1,1k,64k,1M"),
            ("--macs 0", "1 to 1048576"),
            ("--vlans 4095", "4094"),
            ("--vlans 70k", "--vlans 70000 is not within 0 to 4094"),
            ("--ports 1", "2 to 512"),
            ("--ports 4 --busy-ports 3", "even number"),
            ("--directions 3", "1..=2"),
            ("--seconds 0", "0.01"),
            ("--cpus 0,0", "two CPUs"),
            ("--cpus 0,7", "CPU 7"),
            ("--between a:eth0", "2 values"),
            ("--listen", "--sockets"),
            ("--sweep macs", "macs=1,1k,64k,1M"),
            ("--sweep flows=1,2", "macs=1,1k,64k,1M"),
            ("--sweep vlans=1,x", "macs=1,1k,64k,1M"),
            ("--sweep macs=1,2 --search ndr", "cannot be used with"),
            ("--between a b --sockets c d", "cannot be used with"),
            ("--quick --seconds 3", "cannot be used with"),
        ];
        for (line, sentence) in wrong {
            let said = plan(line).expect_err(line);
            assert!(said.contains(sentence), "{line}: {said}");
        }
    }
}
