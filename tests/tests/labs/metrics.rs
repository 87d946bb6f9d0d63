//! What a collector of metrics reads is what `show ports` says, and no counter goes back while the switch lives.

use crate::{
    common::{Lab, topology},
    process::{eventually, kill},
};
use controller::api::types::PortRow;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

/// The samples of a scrape, by series.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').expect("a series and a value");
        (series.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

fn scrape(lab: &Lab) -> BTreeMap<String, f64> {
    samples(&lab.expect(0, &["metrics"]).0)
}

/// The sum of all series of this metric that have this label.
fn sum(samples: &BTreeMap<String, f64>, name: &str, label: &str) -> f64 {
    let metric = samples.range(format!("{name}{{")..).take_while(|(series, _)| series.starts_with(name));
    metric.filter(|(series, _)| series.contains(label)).map(|(_, value)| value).sum()
}

/// What a collector gets that asks for `path` on the API's socket: header and body.
fn get(lab: &Lab, path: &str) -> (String, String) {
    let mut socket = UnixStream::connect(lab.runtime().join("hello/api.sock")).expect("the API listens");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: vnet\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    let (header, body) = answer.split_once("\r\n\r\n").expect("a header and a body");
    (header.to_lowercase(), body.into())
}

/// Asserts that the scrape says what these rows say.
fn assert_same(samples: &BTreeMap<String, f64>, ports: &BTreeMap<String, PortRow>) {
    for row in ports.values() {
        let (node, interface) = row.port.split_once(':').expect("node:interface");
        let of = |name: &str, direction: &str| {
            let labels =
                format!("direction=\"{direction}\",interface=\"{interface}\",lab=\"hello\",node=\"{node}\"");
            sum(samples, name, &labels) as u64
        };
        let (from, to) = (&row.counters.from_port, &row.counters.to_port);
        assert_eq!(of("vnet_frames_total", "from_port"), from.frames, "{node}");
        assert_eq!(of("vnet_frames_total", "to_port"), to.delivered, "{node}");
        assert_eq!(of("vnet_bytes_total", "from_port"), from.bytes, "{node}");
        assert_eq!(of("vnet_bytes_total", "to_port"), to.bytes, "{node}");
        assert_eq!(of("vnet_drops_total", "from_port"), from.dropped.values().sum::<u64>(), "{node}");
        assert_eq!(of("vnet_drops_total", "to_port"), to.dropped.values().sum::<u64>(), "{node}");
        let originated = format!(
            "vnet_frames_originated_total{{interface=\"{interface}\",lab=\"hello\",node=\"{node}\"}}"
        );
        assert_eq!(samples[&originated] as u64, from.originated, "{node}");
    }
}

#[test]
fn a_scrape_says_what_the_ports_say_and_goes_back_only_with_the_switch() {
    let lab = Lab::new();
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    lab.json(&["pingall"]);
    // Stations may still answer each other: the counters are at rest when a scrape lies between two alike.
    let (before, first) = eventually("the lab is at rest", || {
        let ports = lab.ports();
        let scraped = scrape(&lab);
        let counted =
            |rows: &BTreeMap<_, PortRow>| rows.values().map(|row| row.counters.clone()).collect::<Vec<_>>();
        (counted(&lab.ports()) == counted(&ports)).then_some((ports, scraped))
    });
    assert_same(&first, &before);
    assert!(sum(&first, "vnet_frames_total", "from_port") > 0.0);
    assert!(sum(&first, "vnet_worker_busy_seconds_total", "worker=\"0\"") > 0.0);
    assert_eq!(sum(&first, "vnet_port_up", ""), before.len() as f64);
    assert_eq!(sum(&first, "vnet_applies_total", "done"), 1.0);
    assert_eq!(sum(&first, "vnet_frames_held", ""), 0.0);
    assert!(!first.keys().any(|series| series.starts_with("vnet_connections")), "nobody has a firewall");
    let known = lab.json(&["show", "fdb"])["entries"].as_u64().expect("entries");
    assert_eq!(sum(&first, "vnet_fdb_entries", ""), known as f64);

    lab.json(&["pingall"]);
    lab.expect(0, &["up", "-d", &topology("hello.vnet.yaml")]);
    let second = scrape(&lab);
    let back = first.iter().filter(|(series, value)| series.contains("_total") && second[*series] < **value);
    assert_eq!(back.count(), 0, "a counter went back: {first:?} {second:?}");
    assert_eq!(sum(&second, "vnet_applies_total", "done"), 2.0);

    for path in ["/metrics", "/v1/labs/hello/metrics"] {
        let (header, body) = get(&lab, path);
        assert!(header.starts_with("http/1.1 200"), "{header}");
        assert!(header.contains("content-type: text/plain; version=0.0.4"), "{header}");
        assert!(Vec::from_iter(samples(&body).keys()) == Vec::from_iter(second.keys()), "{body}");
    }
    assert!(get(&lab, "/v1/labs/other/metrics").0.starts_with("http/1.1 404"));

    let pid = lab.json(&["show", "datapath"])["pid"].as_u64().expect("a process id");
    kill(pid.try_into().expect("a process id"));
    // While it is started again a scrape does not fail; then what the switch counts has begun anew.
    let third = eventually("the switch is back", || {
        let scraped = scrape(&lab);
        let up = sum(&scraped, "vnet_port_up", "");
        (up == before.len() as f64).then_some(scraped)
    });
    let bytes = |samples| sum(samples, "vnet_bytes_total", "");
    assert!(bytes(&third) < bytes(&second), "{third:?}");
    assert_eq!(sum(&third, "vnet_applies_total", "done"), 2.0, "the controller lived on");
}
