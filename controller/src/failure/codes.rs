//! What the codes of failures mean, for `vnet explain`.

/// Code and meaning, sorted.
pub const CODES: &[(&str, &str)] = &[
    (
        "api",
        "the controller answered something that is no answer to the question; `vnet logs controller` says more",
    ),
    ("apply", "the lab runs with another file; take it down (`vnet down`) and bring it up anew"),
    (
        "bad-request",
        "the controller does not understand the request: the two `vnet` are of different versions",
    ),
    (
        "bad-size",
        "a size is of packets of icmp and udp/PORT: room for their headers, and 65,535 bytes at most",
    ),
    ("bad-span", "a span of time is a number and its unit: ms, s, m or h"),
    (
        "bench",
        "the measurement could not be made or ended early; the message says what the switch or the machine did",
    ),
    (
        "bench-busy",
        "two benchmarks of one lab at once would measure each other; try again when the other is done",
    ),
    ("busy", "another command changes the lab, or it has a controller already; try again when that is done"),
    (
        "capture",
        "the capture could not begin, since the switch runs as many as it can, or it broke off with the switch or the lab",
    ),
    ("console", "the serial line of the guest broke; `vnet show nodes` says whether the guest runs"),
    ("control", "vmm-lite could not be asked whether its machine runs; a fault of vnet's own"),
    (
        "controller-ended",
        "the controller ended before it could answer; its last words are shown, the rest is in its log",
    ),
    ("cpus", "the CPUs of this process cannot be asked for, or there is none"),
    ("disk", "the guest's disk image, or the copy-on-write overlay on it, cannot be used"),
    (
        "exec",
        "the node cannot run commands, or its answer made no sense: virtual machines that vnet starts and network namespaces can",
    ),
    ("export", "what another VMM is to be told cannot be said for this node"),
    ("file", "the file, or the folder it lies in, cannot be read"),
    ("filter", "a word of the capture filter is not known; the message lists those that are"),
    ("generator", "the generator of `vnet bench` could not start, or failed by a fault of vnet's own"),
    ("going-down", "the lab is being taken down; wait until `vnet ls` no longer shows it"),
    ("held", "a process that is not in the list of the lab holds its folder; the help says how to find it"),
    ("image", "the guest image cannot be built, listed or removed; the message says at which step"),
    ("init", "the file cannot be written; one that is there is never overwritten"),
    ("internal", "a fault of vnet's own; please report it with the output of `vnet logs controller`"),
    ("interrupted", "Ctrl-C or a signal ended it; what was begun is taken down again"),
    ("invalid-file", "the topology file has errors; each is shown with its place and what to do"),
    ("json", "an answer cannot be written as JSON"),
    (
        "lab-changed",
        "the file has changed since the lab came up, and a running lab is not changed; down and up again",
    ),
    (
        "lab-name",
        "a lab's name is a plain word, since its folder has it too; up to 63 lower-case letters, digits and dashes",
    ),
    ("labs", "the labs cannot be looked at; a fault of vnet's own"),
    (
        "link",
        "only a virtual machine that vnet started, and that runs, has a link that can be set (`vnet show nodes`)",
    ),
    ("log", "the log file cannot be read or written"),
    ("netns", "the network namespace of a node cannot be made or furnished; the message says at which step"),
    ("netns-not-permitted", "a network namespace needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run vnet as root"),
    (
        "nic",
        "an interface of the host cannot be opened: there is none of that name, or CAP_NET_RAW is missing",
    ),
    ("no-addresses", "the two interfaces have no addresses of one family; trace `l2`, which needs none"),
    ("no-console", "only a virtual machine that vnet started has a console, for one visitor at a time"),
    ("no-file", "this folder has no *.vnet.yaml; name a file, or write one: vnet init"),
    ("no-iproute", "`ip` of iproute2 is not installed; `vnet doctor` says how to get it"),
    (
        "no-kvm",
        "the guest needs /dev/kvm, or one that runs kernels; `vnet doctor` says what is wrong with it, the help what runs without",
    ),
    ("no-mac", "neither the file nor what the switch has learned says the interface's MAC address"),
    ("no-qemu", "QEMU is not installed; `vnet doctor` says how to get it"),
    (
        "no-socket",
        "nothing listens there; start the switch first, or say --listen if it is the one that connects",
    ),
    (
        "no-such-cpu",
        "the file pins a worker to a CPU that this machine does not have, or that may not be used; the help lists those that there are",
    ),
    ("no-such-group", "the file names a group that this machine does not have"),
    ("no-such-image", "there is no image of that name; there are: debian, debian-generic"),
    ("no-such-interface", "the lab has no such interface; say a node, or node:interface (`vnet show ports`)"),
    ("no-such-log", "nothing of that name has a log; the help lists those that have"),
    ("no-such-node", "the lab has no such node (`vnet show nodes`)"),
    ("no-such-port", "the lab has no such port (`vnet show ports`)"),
    ("no-such-probe", "say icmp, tcp/PORT, udp/PORT, arp or l2"),
    ("no-such-resource", "the controller has no such thing: the two `vnet` are of different versions"),
    (
        "node-ended",
        "the process of a node ended while it was asked; `vnet show nodes` says its state, `vnet logs NODE` more",
    ),
    (
        "not-a-lab",
        "a folder of that name is there and vnet did not make it, so vnet leaves it alone; take another name",
    ),
    ("not-asked", "the node cannot be asked: it is not ready, or vnet did not start it (`vnet show nodes`)"),
    ("not-running", "no lab of that name runs (`vnet ls`); start one: vnet up FILE"),
    ("not-up", "the lab is starting or going down; wait until `vnet ls` says running"),
    ("orphaned", "the lab's controller is gone; `vnet down` cleans up"),
    ("output", "what the verb had to say could not be written (a full disk?); what it had to do is done"),
    ("output-cut", "the command wrote more than 24 KiB; the rest was cut. Ask for less, or in parts"),
    (
        "pcap",
        "a capture file of a node cannot be replayed or recorded to; the place in the file is said, which and why",
    ),
    (
        "port-not-free",
        "the port has a guest already; take one of kind `vhost-user` to which no VMM is attached",
    ),
    ("port-not-up", "a port did not come up; `vnet show ports` says why"),
    ("qemu-img", "qemu-img failed; it makes the overlay on a guest's disk"),
    ("qmp", "QEMU could not be asked whether its machine runs; a fault of vnet's own"),
    (
        "run-directory",
        "the folder of the labs cannot be used: it must be this user's alone; set VNET_RUNTIME_DIR",
    ),
    ("runtime", "the event loop cannot start: this machine lacks a facility, or a limit is reached"),
    ("same-node", "bytes go from one node to another: say two"),
    ("same-port", "frames go from one port to another: say two"),
    ("signals", "signals cannot be received: this machine lacks a facility, or a limit is reached"),
    (
        "silent-node",
        "the node does not answer its probe line: `vnet show nodes` says its state, `vnet logs NODE` more",
    ),
    ("socket", "the socket cannot be made at that path"),
    (
        "socket-group",
        "the socket cannot be given to the group that the file names; you must be in that group",
    ),
    (
        "socket-in-use",
        "another process listens on the socket that the file names; end it, or name another socket",
    ),
    ("socket-mode", "the socket cannot be given the mode that the file states"),
    ("socket-path", "the socket cannot be made at that path"),
    ("spawn", "a process of the lab did not start, or ended at once; its last words are shown"),
    ("station", "the process of the lab's stations failed; `vnet logs station` says more"),
    (
        "still-there",
        "the controller said that the lab is down and left its folder; `vnet down` once more ends what is left",
    ),
    ("switch", "the process of the switch failed; `vnet logs vswitchd` says more"),
    ("switch-silent", "the switch does not answer; `vnet logs vswitchd` says more, and `vnet down` ends it"),
    ("tap", "the tap cannot be made or used"),
    ("tap-not-permitted", "opening a tap needs CAP_NET_ADMIN, or one that was made for this user before"),
    ("terminal", "the settings of this terminal cannot be read or changed"),
    ("timed-out", "the command took longer than it may, and was killed"),
    (
        "transfer-broken",
        "no connection stood, or it broke; `vnet trace SRC DST tcp/49152` says how far frames get",
    ),
    (
        "transfer-damaged",
        "what arrived is not what was sent; please report it with the output of `vnet show ports`",
    ),
    ("transfer-refused", "one of the nodes cannot take part in a transfer, or its port is taken"),
    (
        "unbootable",
        "a guest's kernel, initrd or disk cannot be read, or it has too little memory; the place in the file is said",
    ),
    ("unknown-code", "the name is none that vnet gives"),
    ("unreadable-file", "the file cannot be read, is no text, or is too long"),
    ("usage", "the command line makes no sense; see --help"),
    ("vm", "the virtual machine could not be started"),
    ("vm-ended", "the VMM ended before the guest answered; `vnet logs NODE` says what it said"),
    (
        "vmm",
        "the virtual machine could not be started, or ended by itself; the message says why, its console says more",
    ),
    (
        "way-out",
        "the way out of a node of kind `user` did not start; what it said is shown, `vnet logs NODE` says more",
    ),
    ("which-file", "several topology files are here: name one"),
    ("which-lab", "several labs run: say which with --name (`vnet ls`)"),
    ("which-port", "the node has several interfaces: say node:interface"),
    ("why", "the lab that runs could not be compiled again to tell its lines; a fault of vnet's own"),
];

/// What a code means; none: it is not one of ours.
pub fn explain(code: &str) -> Option<&'static str> {
    let place = CODES.binary_search_by_key(&code, |(name, _)| name).ok()?;
    CODES.get(place).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// Every code that the sources below `folder` give to a failure.
    fn given(folder: &Path, codes: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                given(&entry.path(), codes);
            } else if entry.path().extension().is_some_and(|kind| kind == "rs") {
                let source = fs::read_to_string(entry.path()).unwrap();
                // Tests fail with names of their own.
                let source = source.split("#[cfg(test)]").next().unwrap();
                for begin in ["Failure::invalid(", "Failure::failed(", "Failure::lacking(", ".context("] {
                    codes.extend(source.split(begin).skip(1).filter_map(quoted));
                }
                let full = source.split("Failure::new(").skip(1);
                codes.extend(full.filter_map(|rest| quoted(rest.split_once(',')?.1)));
            }
        }
    }

    fn quoted(rest: &str) -> Option<String> {
        let quoted = rest.trim_start().strip_prefix('"')?.split('"').next()?;
        // A sentence is the context of another kind of error.
        (!quoted.contains(' ')).then(|| quoted.into())
    }

    #[test]
    fn every_code_that_a_verb_can_fail_with_is_explained() {
        assert!(CODES.is_sorted_by_key(|(name, _)| name));
        let mut codes = Vec::new();
        given(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut codes);
        assert!(codes.len() > 50, "the sources were not found: {codes:?}");
        let unknown: Vec<_> = codes.iter().filter(|code| explain(code).is_none()).collect();
        assert_eq!(unknown, [""; 0]);
    }
}
