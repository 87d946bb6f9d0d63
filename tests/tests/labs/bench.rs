//! `vnet bench`: a lab of its own, ports of a running lab, sockets of any switch; what it says agrees with what the switch
//! counted, and nothing is left behind. How fast anything is, is not asked here.

use crate::common::{Lab, topology};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use vswitchd::{control::protocol::PortCounters, counters::check_law};

/// What every row of a result has, and what must be 0 in a closed loop.
const FIELDS: [&str; 12] = [
    "frame_size",
    "mpps",
    "mpps_spread",
    "gbps",
    "cycles_per_frame",
    "ringcopy_mpps",
    "ratio_to_ringcopy",
    "memcpy_gbps",
    "ratio_to_memcpy",
    "latency_us",
    "steal_percent",
    "involuntary_switches",
];
const FAULTS: [&str; 6] = ["lost", "reordered", "duplicated", "corrupt", "strayed", "foreign"];
/// As short as it can be.
const SHORT: [&str; 7] = ["--frame-size", "64", "--seconds", "0.1", "--repeat", "1", "--no-limits"];

fn rows(report: &Value) -> &Vec<Value> {
    report["results"].as_array().expect("results")
}

/// Every field is there, frames moved, and none was lost or hurt.
fn assert_sound(report: &Value) {
    for row in rows(report) {
        for field in FIELDS {
            assert!(row.get(field).is_some(), "{field} is missing: {row}");
        }
        for fault in FAULTS {
            assert_eq!(row[fault], 0, "{fault}: {row}");
        }
        assert!(row["received"].as_u64().is_some_and(|frames| frames > 0), "{row}");
        assert!(row["latency_us"]["p99"].is_number() && row["latency_us"]["p50"].is_number(), "{row}");
    }
}

fn counters(lab: &Lab) -> Vec<(String, PortCounters)> {
    let ports = lab.json(&["show", "ports"]);
    let row = |row: &Value| {
        let counters = serde_json::from_value(row["counters"].clone()).expect("counters");
        (row["port"].as_str().expect("a name").to_owned(), counters)
    };
    ports.as_array().expect("rows").iter().map(row).collect()
}

#[test]
fn a_quick_benchmark_is_sound_and_leaves_nothing_behind() {
    let lab = Lab::new();
    let report = lab.json(&["bench", "--quick"]);
    assert_sound(&report);
    let row = &rows(&report)[0];
    assert!(
        row["cycles_per_frame"].as_f64().is_some_and(|cycles| cycles > 0.0),
        "the lab says its cost: {row}"
    );
    let limits = ["ringcopy_mpps", "ratio_to_ringcopy", "memcpy_gbps", "ratio_to_memcpy"];
    if report["machine"]["limits_cpu"].is_null() {
        assert!(report["left_out"].to_string().contains("one CPU"), "{report}");
    } else {
        assert!(limits.iter().all(|limit| row[limit].as_f64().is_some_and(|value| value > 0.0)), "{row}");
    }
    lab.assert_gone();
}

#[test]
fn many_stations_ports_and_sizes_arrive_whole_and_are_shown_as_a_table() {
    let lab = Lab::new();
    let variety = ["--ports", "5", "--macs", "300", "--vlans", "20", "--flows", "1000", "--directions", "2"];
    let sizes =
        ["--frame-size", "imix,9000", "--seconds", "0.1", "--repeat", "2", "--no-limits", "--mergeable"];
    let report = lab.json(&[&["bench"], &variety[..], &sizes[..]].concat());
    assert_sound(&report);
    assert_eq!((rows(&report).len(), &report["settings"]["busy_ports"]), (2, &4.into()));
    let (table, _) = lab
        .expect(0, &["bench", "--frame-size", "64", "--seconds", "0.1", "--rate", "5kpps", "--repeat", "1"]);
    assert!(table.contains("RINGCOPY") && table.contains("open loop"), "{table}");
    lab.assert_gone();
}

#[test]
fn what_is_left_to_the_switch_arrives_done_and_whole() {
    let lab = Lab::new();
    let short = ["--seconds", "0.1", "--repeat", "2", "--no-limits", "--dirty", "--read"];
    let report = lab.json(&[&["bench", "--offload", "none,checksum,segments"], &short[..]].concat());
    assert_sound(&report);
    let done: Vec<_> = rows(&report).iter().map(|row| row["offload"].as_str().expect("a word")).collect();
    assert_eq!(done, ["none", "checksum", "segments"]);
    assert!(rows(&report).iter().all(|row| row["frame_size"] == "65535"), "{report}");
    // Frames of one segment, and of a length that is odd.
    let lines = ["bench", "--offload", "checksum,segments", "--frame-size", "1000,1518,9001"];
    let report = lab.json(&[&lines, &short[..]].concat());
    assert_sound(&report);
    assert_eq!(rows(&report).len(), 6);
    let (table, _) = lab.expect(0, &[&["bench", "--offload", "segments"], &short[..]].concat());
    assert!(table.contains("65535 segments") && table.contains("once all of it arrived"), "{table}");
    lab.assert_gone();
}

#[test]
fn a_pair_is_measured_beside_neighbours_and_a_switch_that_sleeps() {
    let lab = Lab::new();
    let short = ["--frame-size", "64", "--seconds", "0.05", "--repeat", "2"];
    let report = lab.json(&[&["bench", "--beside", "both"], &short[..]].concat());
    let row = &rows(&report)[0];
    let is_some = |field: &str| row[field].as_f64().is_some_and(|value| value > 0.0);
    for field in ["solo_max_mpps", "offered_mpps", "kept", "p99_ratio", "neighbours_sent_mpps"] {
        assert!(is_some(field), "{field}: {row}");
    }
    assert_eq!((&report["beside"], &row["faults"]), (&"both".into(), &0.into()));
    let received = row["neighbours_received_mpps"].as_f64();
    assert!(received < row["neighbours_sent_mpps"].as_f64(), "one of the receivers is stalled: {row}");
    let report = lab.json(&[&["bench", "--wake"], &short[..]].concat());
    let row = &rows(&report)[0];
    assert!(
        row["slept"].as_f64().is_some_and(|share| share > 0.0),
        "a switch that has nothing to do sleeps: {row}"
    );
    assert!(row["eventfd_us"]["p50"].as_f64() > Some(0.0) && row["p99_above_us"].is_number(), "{row}");
    let (table, _) = lab.expect(0, &[&["bench", "--rate", "10%", "--no-limits"], &short[..]].concat());
    assert!(table.contains("10 % of the closed loop's rate"), "{table}");
    lab.assert_gone();
}

#[test]
fn ports_of_a_running_lab_count_what_the_benchmark_says() {
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("attach.vnet.yaml")]);
    let report =
        lab.json(&[&["bench", "--between", "mine", "other:eth0", "--directions", "2"], &SHORT[..]].concat());
    assert_sound(&report);
    assert_eq!(report["machine"]["switch_cpus"], json!([null]), "this lab binds its worker to no CPU");
    let (sent, received) = (rows(&report)[0]["sent"].as_u64(), rows(&report)[0]["received"].as_u64());
    let (sent, received) = (sent.expect("a number"), received.expect("a number"));
    let counted = counters(&lab);
    let ours = || counted.iter().filter(|(port, _)| ["mine:eth0", "other:eth0"].contains(&port.as_str()));
    let from: u64 = ours().map(|(_, counters)| counters.from_port.frames).sum();
    let to: u64 = ours().map(|(_, counters)| counters.to_port.delivered).sum();
    // Each side introduced itself before; more than once if it was not heard.
    let lessons = from - sent;
    assert!((2..100).contains(&lessons), "{from} frames came in, {sent} were sent");
    assert!(
        (received + 1..=received + lessons).contains(&to),
        "{to} frames went out, {received} were received"
    );
    assert_eq!(check_law(counted.iter().map(|(_, counters)| counters)), Ok(()));

    let (_, err) =
        lab.expect(1, &[&["bench", "--between", "mine", "other", "--vlans", "2"], &SHORT[..]].concat());
    assert!(err.contains("at mine:eth0: tagged-on-access") && err.contains("vnet why mine:eth0"), "{err}");
    let (_, err) = lab.expect(2, &["bench", "--between", "mine", "nobody"]);
    assert!(err.contains("no port `nobody`") && err.contains("other:eth0"), "{err}");
    let (_, err) = lab.expect(2, &["bench", "--between", "mine", "st1"]);
    assert!(err.contains("a guest of its own"), "{err}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

/// The status and the body of the answer to `POST /v1/labs/{lab}/bench`.
fn post_bench(lab: &Lab, name: &str, body: &Value) -> (u16, Value) {
    let mut stream = UnixStream::connect(lab.runtime().join(name).join("api.sock")).expect("the API listens");
    let body = body.to_string();
    let request = format!(
        "POST /v1/labs/{name}/bench HTTP/1.1\r\nhost: vnet\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

#[test]
fn a_running_lab_is_measured_over_its_api_once_at_a_time() {
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("attach.vnet.yaml")]);
    let request = |milliseconds: u32| {
        json!({
            "between": ["mine", "other"], "frame_sizes": ["64"], "milliseconds": milliseconds, "repetitions": 1,
            "macs": 300, "dirty": true, "read": true
        })
    };
    let (status, report) = post_bench(&lab, "attach", &request(100));
    assert_eq!(status, 200, "{report}");
    assert_sound(&report);
    assert_eq!(
        (&rows(&report)[0]["flooded"], &report["settings"]["payload"]["dirty"]),
        (&0.into(), &true.into())
    );

    thread::scope(|scope| {
        let long = scope.spawn(|| post_bench(&lab, "attach", &request(3000)));
        // It is under way when the ports are no longer free.
        let end = Instant::now() + Duration::from_secs(30);
        while lab
            .json(&["show", "ports"])
            .as_array()
            .is_none_or(|rows| !rows.iter().any(|row| row["state"] == "up" && row["port"] == "mine:eth0"))
        {
            assert!(Instant::now() < end, "no benchmark began");
        }
        let (status, problem) = post_bench(&lab, "attach", &request(100));
        assert_eq!(
            (status, &problem["code"], &problem["exit"]),
            (409, &"bench-busy".into(), &"busy".into()),
            "{problem}"
        );
        assert_eq!(long.join().expect("it answers").0, 200);
    });
    let (status, problem) = post_bench(&lab, "attach", &json!({ "between": ["mine", "nobody"] }));
    assert!(status == 422 && problem.to_string().contains("no port `nobody`"), "{status} {problem}");
    let (status, problem) = post_bench(&lab, "attach", &request(60_001));
    assert!(status == 422 && problem.to_string().contains("in all at most"), "{status} {problem}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_series_compares_labs_that_differ_in_one_thing() {
    let lab = Lab::new();
    for (sweep, last) in [("macs=1,1k,40k", 40_000), ("vlans=1,4094", 4094), ("ports=2,40", 40)] {
        let report =
            lab.json(&["bench", "--sweep", sweep, "--frame-size", "64", "--seconds", "0.1", "--repeat", "2"]);
        let columns = report["series"][0]["columns"].as_array().expect("columns").clone();
        assert_eq!(columns.last().map(|column| &column["value"]), Some(&last.into()), "{report}");
        for column in columns {
            for fault in FAULTS {
                assert_eq!(column["row"][fault], 0, "{sweep}: {fault}: {column}");
            }
            assert!(column["cycles_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{column}");
            assert!(
                column["cycles_ratio_spread"].is_number() && column["row"]["flooded"].is_number(),
                "{column}"
            );
        }
    }
    let (table, _) = lab.expect(
        0,
        &["bench", "--sweep", "macs=1,2", "--frame-size", "64", "--seconds", "0.1", "--repeat", "1"],
    );
    assert!(table.contains("OF THE FIRST") && table.contains("100.0 %") && !table.contains("±0"), "{table}");
    lab.assert_gone();
}

#[test]
fn frames_are_routed_and_translated_and_all_of_them_arrive_as_they_should() {
    let lab = Lab::new();
    let short = ["--seconds", "0.1", "--repeat", "2", "--no-limits"];
    let series =
        ["bench", "--sweep", "path=switched,routed,nat", "--frame-size", "64,imix", "--flows", "300"];
    let report = lab.json(&[&series[..], &short[..4]].concat());
    for series in report["series"].as_array().expect("two sizes") {
        let columns = series["columns"].as_array().expect("columns");
        let paths: Vec<_> = columns.iter().map(|column| &column["value"]).collect();
        assert_eq!(paths, ["switched", "routed", "nat"]);
        for column in columns {
            for fault in FAULTS {
                assert_eq!(column["row"][fault], 0, "{fault}: {column}");
            }
            assert!(column["mpps_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{column}");
            assert_eq!(
                column["row"]["flooded"], 0,
                "gateways' own announcements are no frames of the generator's: {column}"
            );
        }
    }
    let offloads = ["bench", "--path", "routed", "--offload", "checksum,segments", "--frame-size", "9000"];
    let report = lab.json(&[&offloads[..], &short].concat());
    assert_eq!(report["settings"]["path"], "routed");
    assert_sound(&report);
    lab.assert_gone();
}

#[test]
fn any_two_sockets_are_measured_as_their_vmm_connecting_or_listening() {
    let lab = Lab::new();
    let text = "version: 1\nname: other\nswitches: { sw: {} }\nnodes:\n  \
                a: { kind: vhost-user, connect: ./a.sock }\n  b: { kind: vhost-user, connect: ./b.sock }\n  \
                c: { kind: vhost-user, listen: ./c.sock }\n  d: { kind: vhost-user, listen: ./d.sock }\n\
                links: [[a, sw], [b, sw], [c, sw], [d, sw]]\n";
    let file = lab.write("other.vnet.yaml", text);
    let socket = |name: &str| file.with_file_name(name).display().to_string();
    lab.expect(0, &["up", "-d", &file.display().to_string()]);
    let [a, b, c, d] = ["a.sock", "b.sock", "c.sock", "d.sock"].map(socket);
    let listening = lab.json(&[&["bench", "--listen", "--sockets", &a, &b], &SHORT[..]].concat());
    let connecting = lab.json(&[&["bench", "--sockets", &c, &d], &SHORT[..]].concat());
    for report in [listening, connecting] {
        assert_sound(&report);
        assert!(report["machine"]["switch_cpus"].is_null(), "nor where it runs: {report}");
        assert!(rows(&report)[0]["cycles_per_frame"].is_null(), "a foreign switch does not say its cost");
    }
    let (_, err) = lab.expect(3, &["bench", "--sockets", &a, &b]);
    assert!(err.contains("--listen"), "{err}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn ctrl_c_ends_a_benchmark_and_takes_its_lab_down() {
    let lab = Lab::new();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_vnet"))
        .args(["bench", "--seconds", "600", "--no-limits"])
        .env("VNET_RUNTIME_DIR", lab.runtime())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("vnet starts");
    let end = Instant::now() + Duration::from_secs(60);
    let moves = || {
        let said = lab.vnet(&["show", "datapath", "--format", "json"]).stdout;
        let view: Option<Value> = serde_json::from_slice(&said).ok();
        view.and_then(|view| view["workers"][0]["frames"].as_u64()).is_some_and(|frames| frames > 1000)
    };
    while !moves() {
        assert!(Instant::now() < end, "no frame moved");
    }
    kill_process(Pid::from_child(&bench), Signal::INT).expect("it runs");
    assert_eq!(bench.wait().expect("it ended").code(), Some(1));
    lab.assert_gone();
}

/// `vnet bench` with these arguments, and what it says on standard error.
fn begin_bench(lab: &Lab, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnet"));
    command.arg("bench").args(arguments).env("VNET_RUNTIME_DIR", lab.runtime());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("vnet starts")
}

/// A peer that hears and never answers ends nothing by itself before the time that is promised: an interrupt does, at once.
#[test]
fn ctrl_c_ends_the_wait_for_a_silent_switch_and_the_wait_is_told() {
    let lab = Lab::new();
    let [a, b] = ["a.sock", "b.sock"].map(|name| lab.path(name).display().to_string());
    let silent = UnixListener::bind(&a).expect("a free path");
    let _other = UnixListener::bind(&b).expect("a free path");
    let interrupted = |mut bench: Child, said: &mut BufReader<ChildStderr>| {
        let begin = Instant::now();
        kill_process(Pid::from_child(&bench), Signal::INT).expect("it runs");
        assert_eq!(bench.wait().expect("it ended").code(), Some(1));
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("text");
        assert!(rest.contains("interrupted"), "{rest}");
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    };
    let mut bench = begin_bench(&lab, &["--sockets", &a, &b]);
    let mut said = BufReader::new(bench.stderr.take().expect("a pipe"));
    let (mut peer, _) = silent.accept().expect("it connects");
    // The first message: it waits for an answer now.
    peer.read_exact(&mut [0; 12]).expect("a header");
    interrupted(bench, &mut said);

    drop(silent);
    for path in [&a, &b] {
        std::fs::remove_file(path).expect("still there");
    }
    let mut bench = begin_bench(&lab, &["--listen", "--sockets", &a, &b]);
    let mut said = BufReader::new(bench.stderr.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says so");
    assert!(line.contains("waiting for the switch to connect") && line.contains(&a), "{line}");
    let mut peer = UnixStream::connect(&a).expect("it listens");
    peer.read_exact(&mut [0; 12]).expect("a header");
    interrupted(bench, &mut said);
}

#[test]
fn a_switch_that_stays_silent_is_an_error_that_names_its_socket() {
    let lab = Lab::new();
    let [a, b] = ["a.sock", "b.sock"].map(|name| lab.path(name).display().to_string());
    let _silent = [&a, &b].map(|path| UnixListener::bind(path).expect("a free path"));
    let (_, err) = lab.expect(1, &["bench", "--sockets", &a, &b]);
    assert!(err.contains(&a) && err.contains("GET_FEATURES within 5 s"), "{err}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_before_anything_starts() {
    let lab = Lab::new();
    let wrong: [(&[&str], &str); 3] = [
        (&["bench", "--frame-size", "10"], "no frame size"),
        (&["bench", "--ring-size", "100"], "power of two"),
        (&["bench", "--flows", "1", "--macs", "2"], "at least as many flows"),
    ];
    for (arguments, sentence) in wrong {
        let (_, err) = lab.expect(2, arguments);
        assert!(err.contains(sentence), "{err}");
    }
    assert!(!lab.runtime().exists());
}
