//! Ways out of a lab by nodes of kind `user`: a process makes ordinary sockets of this machine's of what routers send there. It needs
//! no rights, and gives up those that it has. It is passt where that is installed, else this executable again (the crate `way-out`).
//!
//! ```text
//! router -> stream port of the switch -> its listening socket <- a connection of ours, given to the process -> its sockets
//! ```
//!
//! It is given a connection, not a path: as root's child it becomes `nobody`, who cannot enter the lab's folder. It ends with that
//! connection, so none is left behind by a lab whose processes were killed.

use super::{child, ports, processes::Identity, rundir::LabDir, sockets};
use crate::{
    doctor,
    failure::{Context, Failure},
};
use std::{
    fs,
    net::IpAddr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Command,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, process::Child};
use topology::plan::{Interface, Node};

/// The program that makes sockets of frames.
const PASST: &str = "passt";

/// What the process is told of the link's MTU if the file says none.
const MTU: u16 = 1500;

/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// How it is if it is not by then.
const NOT_READY: &str = "does not become ready";

/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Makes standard input descriptor 3: passt of 2023 to 2025 takes no connection that has a lower number.
const AS_DESCRIPTOR_3: &str = r#"exec "$0" "$@" 3<&0 </dev/null"#;

/// What says that a process serves.
enum Readiness {
    /// That it confined itself.
    Filters,
    /// A word of its.
    Word(tokio::net::UnixStream),
}

/// Starts the process of a way out, has it written down by `born`, and waits until it is ready: its process, and in words how it runs.
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
    // Of a life before nothing is to be told.
    let log_begins = fs::metadata(dir.log(&node.name)).map_or(0, |log| log.len());
    let by_passt = doctor::is_installed(PASST);
    let (child, readiness) = match by_passt {
        true => (passt(node, interface, connected.into(), dir)?, Readiness::Filters),
        false => own(node, interface, connected.into(), dir)?,
    };
    let recorded = born(&child);
    let (mut child, ()) = child::kept(child, recorded).await?;
    let ready = tokio::select! {
        ready = is_ready(readiness, child.id()) => ready.map_err(str::to_owned),
        status = child.wait() => Err(status.map_or_else(|why| why.to_string(), child::ended)),
    };
    let program = if by_passt { PASST } else { "vnet" };
    let ready = ready.map_err(|how| {
        let said = child::last_words(&dir.log(&node.name), log_begins).unwrap_or_default();
        let failure = Failure::failed("way-out", format!("{}: {program} {how}{said}", node.name));
        let needs = "passt needs a default route of this machine, and to make a user namespace; man passt says more. Where it is not in PATH, vnet leads out by itself";
        if by_passt { failure.mend(needs) } else { failure }
    });
    let (child, ()) = child::kept(child, ready).await?;
    let served: Vec<_> = interface.gateways.iter().map(IpAddr::to_string).collect();
    let why = if by_passt { "" } else { "; passt is not in PATH" };
    Ok((child, format!("{program}: sockets of this machine's own, for {}{why}", served.join(" and "))))
}

/// passt, with the connection.
fn passt(node: &Node, interface: &Interface, connected: OwnedFd, dir: &LabDir) -> Result<Child, Failure> {
    let mut command = Command::new("sh");
    command.args(["-c", AS_DESCRIPTOR_3, PASST]).args(arguments(interface));
    command.stdin(connected).current_dir("/");
    child::spawn(command, &node.name, dir)
}

/// This executable as a way out, with the connection, and where it says that it is ready.
fn own(
    node: &Node,
    interface: &Interface,
    connected: OwnedFd,
    dir: &LabDir,
) -> Result<(Child, Readiness), Failure> {
    let mac = interface
        .mac
        .ok_or_else(|| Failure::failed("way-out", format!("{} has no MAC address", node.name)))?;
    let (ours, theirs) = UnixStream::pair().context("way-out", || "a socket".into())?;
    ours.set_nonblocking(true).context("way-out", || "a socket".into())?;
    let ours = tokio::net::UnixStream::from_std(ours).context("way-out", || "a socket".into())?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["way-out", &mac.to_string(), &interface.mtu.unwrap_or(MTU).to_string()]);
    command.args(interface.addresses.iter().map(ToString::to_string));
    command.stdin(connected).current_dir("/");
    let child = child::spawn_into(command, theirs.into(), &node.name, dir)?;
    Ok((child, Readiness::Word(ours)))
}

/// Waits until a process serves.
async fn is_ready(readiness: Readiness, process: Option<u32>) -> Result<(), &'static str> {
    match readiness {
        Readiness::Filters => is_confined(process).await,
        Readiness::Word(mut from) => match tokio::time::timeout(PATIENCE, from.read_u8()).await {
            Ok(Ok(_)) => Ok(()),
            // How it ended is for others to say.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => Err(NOT_READY),
        },
    }
}

/// Waits until a process has confined itself (seccomp(2)), which is the last that passt does before it serves.
async fn is_confined(process: Option<u32>) -> Result<(), &'static str> {
    let (end, own) = (Instant::now() + PATIENCE, filters("self"));
    let Some(process) = process.and_then(Identity::of) else { return std::future::pending().await };
    while filters(&process.pid.to_string()) <= own {
        if Instant::now() >= end {
            return Err(NOT_READY);
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
