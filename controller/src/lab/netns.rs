//! Network namespaces of nodes: made and furnished with iproute2, entered by threads of their own.

use super::rundir::LabDir;
use crate::failure::{Context, Failure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::fd::AsFd,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
};
use topology::plan::{Interface, Node};

/// Where iproute2 keeps namespaces by name (ip-netns(8)).
const FOLDER: &str = "/var/run/netns";

/// The largest MTU of a tap: what one read or write takes, without the Ethernet header.
const MOST_MTU: u16 = 65_521;

/// The least MTU that a link with IPv6 may have (RFC 8200 section 5).
const LEAST_IPV6_MTU: u16 = 1280;

/// The namespace of a node: the one that is `given`, or the one that we make.
pub(super) fn name(node: &Node, given: Option<&str>, dir: &LabDir) -> String {
    let lab = dir.path().file_name().unwrap_or_default().to_string_lossy();
    given.map_or_else(|| format!("{lab}-{}", node.name), str::to_owned)
}

/// Makes the namespace `name`. It is noted in `dir` before, so that it goes with the lab's folder, whoever removes that. One
/// that an earlier controller of the lab left is made anew.
///
/// # Errors
/// There is one that is not this lab's, this user must not make one, or there is no `ip`.
pub(super) fn make(name: &str, dir: &LabDir) -> Result<(), Failure> {
    if Path::new(FOLDER).join(name).exists() {
        if !dir.noted_namespaces().iter().any(|noted| noted == name) {
            let what = format!("there is a network namespace {name} already, and this lab did not make it");
            return Err(Failure::lacking("netns", what)
                .mend(format!("ip netns del {name}; or use it as it is: `netns: {name}` at the node")));
        }
        remove(name)?;
    }
    dir.note_namespace(name)?;
    ip(&["netns", "add", name], "")
}

/// Removes the namespace `name`, if it is there.
pub(super) fn remove(name: &str) -> Result<(), Failure> {
    if Path::new(FOLDER).join(name).exists() { ip(&["netns", "del", name], "") } else { Ok(()) }
}

/// Does `work` on a thread that is in the namespace `name`; what it starts is there, too.
///
/// # Errors
/// There is no such namespace, or this user must not enter it.
pub(super) fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    let path = Path::new(FOLDER).join(name);
    let namespace = File::open(&path).map_err(|why| {
        Failure::lacking("netns", format!("the network namespace {name} cannot be opened: {why}"))
            .mend(format!("make it: ip netns add {name}; or leave `netns` out, and vnet makes one"))
    })?;
    let entered = thread::scope(|scope| {
        let entering = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok::<_, rustix::io::Errno>(work())
        });
        entering.join()
    });
    let entered = entered.map_err(|_| Failure::failed("internal", format!("a thread in {name} panicked")))?;
    entered.map_err(|why| not_permitted(format!("the network namespace {name} cannot be entered: {why}")))
}

/// Gives `interfaces` of a node in the namespace `name` their addresses and default gateways, and sets them up, and the loopback interface.
///
/// # Errors
/// The kernel does not take one.
pub(super) fn furnish(interfaces: &[Interface], name: &str) -> Result<(), Failure> {
    let mut script = String::from("link set dev lo up\n");
    for interface in interfaces {
        let dev = &interface.name;
        if let Some(mac) = interface.mac {
            script += &format!("link set dev {dev} address {mac}\n");
        }
        if let Some(mtu) = interface.mtu {
            script += &format!("link set dev {dev} mtu {mtu}\n");
        }
        script += &format!("link set dev {dev} up\n");
        for address in &interface.addresses {
            // Nobody else has it: the file was checked for that, and probes are not to wait.
            let at_once = if address.addr().is_ipv6() { " nodad" } else { "" };
            script += &format!("address add {address} dev {dev}{at_once}\n");
        }
        for gateway in &interface.gateways {
            let everywhere = if gateway.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            script += &format!("route replace {everywhere} via {gateway} dev {dev}\n");
        }
    }
    within(name, || ip(&["-batch", "-"], &script))?.map_err(|failure| blame(failure, &script, interfaces))
}

/// Says what a failure of `ip -batch` was at: `ip` tells the line of `script` by its number.
fn blame(failure: Failure, script: &str, interfaces: &[Interface]) -> Failure {
    let told = failure.message.split_once("Command failed -:");
    let Some((said, line)) = told.and_then(|(said, number)| {
        let number: usize = number.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()?;
        Some((said, script.lines().nth(number.checked_sub(1)?)?))
    }) else {
        return failure;
    };
    let said = said.trim_start_matches("ip -batch -: ").trim_end_matches([';', ' ']);
    let dev = line.split(' ').skip_while(|word| *word != "dev").nth(1);
    let own = interfaces.iter().find(|own| dev == Some(own.name.as_str()));
    let mtu = own.and_then(|own| own.mtu);
    let mend = match (own, mtu) {
        (Some(own), Some(mtu)) if line.contains(" mtu ") => {
            Some(format!("{}: `mtu: {mtu}` is not one of a tap's, which are 68 to {MOST_MTU}", own.name))
        }
        (Some(own), Some(mtu @ ..LEAST_IPV6_MTU)) if line.contains(" nodad") => {
            Some(format!("{}: `mtu: {mtu}` has no room for IPv6: give at least {LEAST_IPV6_MTU}", own.name))
        }
        _ => None,
    };
    let message = format!("ip {line}: {said}");
    Failure { message, mend: mend.or(failure.mend.clone()), ..failure }
}

/// Runs `ip` with `input`.
fn ip(arguments: &[&str], input: &str) -> Result<(), Failure> {
    let run = || {
        let mut command = Command::new("ip");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends before it read all says why below.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    match run() {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { stderr, .. }) => {
            let said = String::from_utf8_lossy(&stderr);
            let text = format!("ip {}: {}", arguments.join(" "), said.trim().replace('\n', "; "));
            let denied = ["Operation not permitted", "Permission denied"].iter().any(|no| said.contains(no));
            Err(if denied { not_permitted(text) } else { Failure::failed("netns", text) })
        }
        Err(why) if why.kind() == ErrorKind::NotFound => {
            Err(Failure::lacking("no-iproute", "`ip` is not in PATH")
                .mend("install it: apt-get install iproute2"))
        }
        Err(why) => Err(why).context("netns", || "ip".into()),
    }
}

fn not_permitted(what: String) -> Failure {
    Failure::lacking("netns-not-permitted", what)
        .mend("run vnet as root: a network namespace needs CAP_NET_ADMIN and CAP_SYS_ADMIN")
}
