//! Ways out of a lab by nodes of kind `user`: passt makes ordinary sockets of this machine's of what routers send there. It needs no
//! rights, and gives up those that it has.
//!
//! ```text
//! router -> stream port of the switch -> its listening socket <- a connection of ours, given to passt -> sockets of passt's
//! ```
//!
//! It is given a connection, not a path: as root's child it becomes `nobody`, who cannot enter the lab's folder. It ends with that
//! connection, so none is left behind by a lab whose processes were killed.

use super::{child, ports, processes::Identity, rundir::LabDir, sockets};
use crate::failure::{Context, Failure};
use std::{
    fs,
    net::IpAddr,
    os::fd::OwnedFd,
    process::Command,
    time::{Duration, Instant},
};
use tokio::process::Child;
use topology::plan::{Interface, Node};

/// The program that makes sockets of frames.
pub(super) const PROGRAM: &str = "passt";

/// What it is told of the link's MTU if the file says none.
const MTU: u16 = 1500;

/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Makes standard input descriptor 3: passt of 2023 to 2025 takes no connection that has a lower number.
const AS_DESCRIPTOR_3: &str = r#"exec "$0" "$@" 3<&0 </dev/null"#;

/// Starts the passt of a way out, has it written down by `born`, and waits until it is ready: its process, and in words how it runs.
///
/// # Errors
/// It cannot be started, or ends at once.
pub(super) async fn start(
    node: &Node,
    dir: &LabDir,
    born: impl FnOnce(&Child) -> Result<(), Failure>,
) -> Result<(Child, String), Failure> {
    let interface = node.interfaces.first();
    let socket = interface.and_then(|interface| Some((interface, ports::socket(node, interface, dir)?.1)));
    let (interface, socket) =
        socket.ok_or_else(|| Failure::failed("way-out", format!("{} has no interface", node.name)))?;
    let connected = sockets::connect(&socket).context("way-out", || socket.display().to_string())?;
    let mut command = Command::new("sh");
    command.args(["-c", AS_DESCRIPTOR_3, PROGRAM]).args(arguments(interface));
    command.stdin(OwnedFd::from(connected)).current_dir("/");
    // Of a life before nothing is to be told.
    let log_begins = fs::metadata(dir.log(&node.name)).map_or(0, |log| log.len());
    let child = child::spawn(command, &node.name, dir)?;
    let recorded = born(&child);
    let (mut child, ()) = child::kept(child, recorded).await?;
    let ready = tokio::select! {
        ready = is_confined(child.id()) => ready.map_err(str::to_owned),
        status = child.wait() => Err(status.map_or_else(|why| why.to_string(), child::ended)),
    };
    let ready = ready.map_err(|how| {
        let said = child::last_words(&dir.log(&node.name), log_begins).unwrap_or_default();
        Failure::failed("way-out", format!("{}: {PROGRAM} {how}{said}", node.name)).mend(
            "passt needs a default route of this machine, and to make a user namespace; man passt says more",
        )
    });
    let (child, ()) = child::kept(child, ready).await?;
    let served: Vec<_> = interface.gateways.iter().map(IpAddr::to_string).collect();
    Ok((child, format!("{PROGRAM}: sockets of this machine's own, for {}", served.join(" and "))))
}

/// Waits until a process has confined itself (seccomp(2)), which is the last that passt does before it serves.
async fn is_confined(process: Option<u32>) -> Result<(), &'static str> {
    let (end, own) = (Instant::now() + PATIENCE, filters("self"));
    let Some(process) = process.and_then(Identity::of) else { return std::future::pending().await };
    while filters(&process.pid.to_string()) <= own {
        if Instant::now() >= end {
            return Err("does not become ready");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// The filters of system calls that a process has (proc_pid_status(5)); it may be born with some.
fn filters(process: &str) -> u32 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// What passt is told: whom it serves, and that addresses, routes and names are given by our gateways and not by it.
fn arguments(interface: &Interface) -> Vec<String> {
    let mtu = interface.mtu.unwrap_or(MTU).to_string();
    let words = ["-f", "-F", "3", "-m", &mtu, "--no-dhcp", "--no-dhcpv6", "--no-ra"];
    // Nothing of this machine's loopback is reached from the lab, and no port of it leads in.
    let closed = ["--no-map-gw", "-t", "none", "-u", "none"];
    let mut all: Vec<String> = words.iter().chain(&closed).map(|&word| word.to_owned()).collect();
    let mut tell = |option: &str, value: String| all.extend([option.to_owned(), value]);
    if let Some(mac) = interface.mac {
        tell("-M", mac.to_string());
    }
    let mut families = [false; 2];
    for own in &interface.addresses {
        let is_v4 = own.addr().is_ipv4();
        families[usize::from(is_v4)] = true;
        if let Some(router) = interface.gateways.iter().find(|router| router.is_ipv4() == is_v4) {
            tell("-a", router.to_string());
        }
        if is_v4 {
            tell("-n", own.prefix_len().to_string());
        }
        tell("-g", own.addr().to_string());
        // Whoever asks it for names is answered by this machine's resolver.
        tell("--dns-forward", own.addr().to_string());
    }
    match families {
        [false, true] => all.push("-4".into()),
        [true, false] => all.push("-6".into()),
        _ => {}
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use topology::plan::NodeKind;

    fn told(gateway: &str, addresses: &str) -> String {
        let text = format!(
            "version: 1\nvlans: {{ wan: {{ id: 99, gateway: {gateway} }} }}\nrouters: {{ default: {{ nat: [{{ masquerade: wan }}] }} }}\n\
             switches: {{ sw1: {{}} }}\nnodes: {{ up: {{ kind: user, mac: \"02:00:00:00:00:77\", {addresses} }} }}\n\
             links: [{{ endpoints: [up, sw1], vlan: {{ access: wan }} }}]\n"
        );
        let plan = topology::load(&text, "lab.vnet.yaml", Path::new("/")).expect("it is well said").plan;
        assert_eq!(plan.nodes[0].kind, NodeKind::User);
        arguments(&plan.nodes[0].interfaces[0]).join(" ")
    }

    #[test]
    fn passt_serves_the_router_and_nothing_of_this_machines_leads_in() {
        let common =
            "-f -F 3 -m 1500 --no-dhcp --no-dhcpv6 --no-ra --no-map-gw -t none -u none -M 02:00:00:00:00:77";
        let v4 = "-a 192.0.2.2 -n 24 -g 192.0.2.1 --dns-forward 192.0.2.1";
        let v6 = "-a 2001:db8::2 -g 2001:db8::1 --dns-forward 2001:db8::1";
        assert_eq!(told("192.0.2.2/24", "addresses: [192.0.2.1/24]"), format!("{common} {v4} -4"));
        let only_v6 = told("\"2001:db8::2/64\"", "addresses: [\"2001:db8::1/64\"]");
        assert_eq!(only_v6, format!("{common} {v6} -6"));
        let both = "addresses: [192.0.2.1/24, \"2001:db8::1/64\"], mtu: 1400";
        let common = common.replace("1500", "1400");
        assert_eq!(told("[192.0.2.2/24, \"2001:db8::2/64\"]", both), format!("{common} {v4} {v6}"));
    }
}
