//! The grammar of the command line.

use super::bench::BenchArgs;
use crate::{api::why::WhyRequest, lab::name::LabName};
use clap::{
    ArgAction, Args as ClapArgs, Command, CommandFactory, Parser, Subcommand, ValueEnum,
    builder::BoolishValueParser,
};
use ipnet::IpNet;
use std::{ffi::OsStr, ops::RangeInclusive, path::PathBuf};
use vswitch_core::mac::MacAddr;

/// How much memory a guest may be said to have, in MiB: up to the 16 TiB that QEMU's x86 machines can address.
const MEMORY_MIB: RangeInclusive<u64> = 1..=16 << 20;

/// What else is in the environment.
const ENVIRONMENT: &str =
    "Environment: every flag has a variable (VNET_NAME, VNET_FORMAT, …; empty: not set); further:
  VNET_RUNTIME_DIR  the folder of this user's labs, instead of vnet in XDG_RUNTIME_DIR (or in /tmp)
  VNET_STATE_DIR    the folder of what labs keep while they are down (leases), instead of vnet in XDG_STATE_HOME
  VNET_LOG          what the processes of a lab log: error, warn, info, debug or trace
  NO_COLOR          no colours";

/// Virtual machines on virtual networks, from one topology file.
#[derive(Debug, Parser)]
#[command(name = "vnet", version, after_help = ENVIRONMENT)]
pub(super) struct Args {
    /// Which lab; not needed while one runs.
    #[arg(long, global = true, env = "VNET_NAME", value_name = "LAB")]
    pub(super) name: Option<LabName>,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// The grammar, in which a variable that is empty is as if it were not there, and so is one that says no to a flag: else
/// the flag would collide with what it cannot be said with.
pub(super) fn grammar() -> Command {
    without_empty_variables(Args::command())
}

fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let flag = matches!(arg.get_action(), ArgAction::SetTrue);
        match value {
            Some(value) if value.is_empty() || flag && says_no(&value) => arg.env(None::<&str>),
            _ => arg,
        }
    });
    command.mut_subcommands(without_empty_variables)
}

/// What [`BoolishValueParser`] reads as no.
fn says_no(value: &OsStr) -> bool {
    ["n", "no", "f", "false", "off", "0"].iter().any(|no| value.eq_ignore_ascii_case(no))
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Bring up the best lab that this machine can, test it, and explain a dropped frame.
    Demo,
    /// Check a topology file; nothing is started.
    Validate {
        /// The file, or `-` for standard input; not needed if this folder has one `*.vnet.yaml`.
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Bring a lab up; Ctrl-C takes it down. Where it is up already, what ended is started again.
    Up {
        /// The file; not needed if this folder has one `*.vnet.yaml`.
        file: Option<PathBuf>,
        /// Return as soon as the lab is up, and leave it running.
        #[arg(long, short, env = "VNET_DETACH", value_parser = BoolishValueParser::new())]
        detach: bool,
    },
    /// Take a lab down, or clean up what a killed one left.
    Down,
    /// List the labs: running, or orphaned by a killed controller.
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Bring up a copy of a lab, prove its expectations, and take it down. Exit code 6: one does not hold.
    ///
    /// An expectation is about the network: for tcp/N and udp/N a station or a guest that vnet started opens the port when
    /// it is probed, and the row says so. One that could not be proved, since an end of it is not up, is counted apart, and
    /// the exit code is 6 too.
    #[command(override_usage = "vnet test [OPTIONS] [FILE]\n       vnet test [OPTIONS] --running")]
    Test {
        /// The file; not needed if this folder has one `*.vnet.yaml`.
        file: Option<PathBuf>,
        /// Test the lab that runs instead.
        #[arg(long, env = "VNET_RUNNING", value_parser = BoolishValueParser::new(), conflicts_with = "file")]
        running: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Ping every address from every interface; no other node's answer counts. Exit code 6: nobody answers.
    Pingall {
        #[command(flatten)]
        output: Output,
    },
    /// Show a part of a running lab.
    Show {
        /// Which part.
        what: View,
        /// Of rules and connections: those of this node or node:interface only.
        interface: Option<String>,
        /// Of nodes: what the vCPUs of virtual machines left their guests for, how often, and what it cost on average.
        #[arg(long, env = "VNET_EXITS")]
        exits: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Say what would become of a frame now, step by step. Nothing is sent.
    Trace {
        /// From: node or node:interface.
        src: String,
        /// To: node, node:interface or IP address.
        dst: String,
        /// icmp, tcp/PORT, udp/PORT, arp or l2.
        what: String,
        /// How long its packet is, of icmp and udp.
        #[arg(long, env = "VNET_SIZE", value_name = "BYTES")]
        size: Option<u16>,
        #[command(flatten)]
        output: Output,
    },
    /// Say what was lost, learned or changed in the last while, why, and what mends it.
    ///
    /// The switch always records it. A flood is recorded in part and counted as a whole, and what is older than the recorder holds is
    /// forgotten: the last line says what the answer can vouch for.
    Why {
        /// From: node, node:interface or address; alone: from or to.
        src: Option<String>,
        /// To: the same.
        dst: Option<String>,
        /// How far back, like 10s or 5m.
        #[arg(long, env = "VNET_LAST", value_name = "SPAN", default_value = WhyRequest::LAST)]
        last: String,
        #[command(flatten)]
        output: Output,
    },
    /// Print what is counted, in the text format of Prometheus.
    Metrics,
    /// Copy the frames of an interface into a pcapng file, or print them, a line each; Ctrl-C ends it.
    ///
    /// Both ways are captured: what the guest sends, with the reason if the switch drops it, and what it gets, with the tag
    /// that it gets. What its sender left to the switch is not done there: a large frame is one, and its checksum is to come.
    /// The guests never wait for a capture: frames that come faster than they are read are not captured, and counted at
    /// the end.
    Capture(CaptureArgs),
    /// Measure how fast a switch is, beside how fast this machine could be.
    Bench(Box<BenchArgs>),
    /// Say what a drop reason or an error code means, and what to do about it. Without one: list all.
    Explain {
        /// What stands in the brackets of an error[...], or a drop reason.
        code: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List what this machine lacks, each with the command that mends it.
    Doctor {
        #[command(flatten)]
        output: Output,
    },
    /// Print the log of the controller, the switch, the stations or a node; without a name, list what has one.
    Logs {
        /// `controller`, `switch`, `stations` or a node.
        of: Option<String>,
    },
    /// Join the serial console of a virtual machine; Ctrl-] leaves it.
    Console {
        /// The node.
        node: String,
    },
    /// Set the link of a virtual machine's interface up or down, as its guest sees it.
    Link {
        /// Of which interface: node or node:interface.
        interface: String,
        /// What it is to be.
        state: LinkState,
    },
    /// Run a command in a virtual machine that vnet started or in a network namespace, and end with its exit status.
    ///
    /// As a shell has it, 127 is a command that is not there, and 128 and more a signal. The command has no terminal, and
    /// nothing to read: standard input is not passed on. It may take 60 seconds (then it is killed: 124), and of each of
    /// its outputs 24 KiB are kept, byte by byte; if more was cut, that is said and the exit code is not 0. For dialogues
    /// there is `vnet console`.
    Exec {
        /// The node.
        node: String,
        /// The command, behind `--`.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Send bytes over TCP from one node to another, and compare what left with what arrived.
    Transfer {
        /// From: node or node:interface.
        src: String,
        /// To: node or node:interface.
        dst: String,
        /// How much, in MiB.
        #[arg(long, env = "VNET_SIZE", value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
        size: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Build, list or remove guest images.
    Image {
        #[command(subcommand)]
        what: ImageVerb,
    },
    /// Print what another VMM needs to attach to a port of a running lab.
    Export {
        /// For which VMM.
        vmm: ExportTo,
        /// The node, of kind `vhost-user`, `stream` or `dgram`.
        node: String,
        /// The guest's memory, in MiB: as given to QEMU with -m.
        #[arg(long, env = "VNET_MEMORY", value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(MEMORY_MIB))]
        memory: u64,
    },
    /// Write a topology file to start from.
    Init {
        /// Its name.
        #[arg(default_value = "lab.vnet.yaml")]
        file: PathBuf,
    },
    /// The controller of one lab.
    #[command(hide = true)]
    Serve {
        /// The process that started it, whose end is the lab's too.
        owner: Option<u32>,
    },
    /// The switch of one lab.
    #[command(hide = true)]
    Vswitchd,
    /// The stations of one lab.
    #[command(hide = true)]
    Station,
    /// A way out of one lab: its standard input is the connection to the switch.
    #[command(hide = true)]
    WayOut {
        /// Its MAC address.
        mac: MacAddr,
        /// The longest IP packet of its link.
        mtu: u16,
        /// Its own addresses, with their networks.
        addresses: Vec<IpNet>,
    },
    /// One virtual machine.
    #[command(hide = true)]
    Vmm(vmm_lite::Args),
}

impl Verb {
    /// Whether `--name` says something to it.
    pub(super) const fn takes_a_name(&self) -> bool {
        match self {
            Self::Up { .. }
            | Self::Down
            | Self::Test { running: true, .. }
            | Self::Pingall { .. }
            | Self::Show { .. }
            | Self::Trace { .. }
            | Self::Why { .. }
            | Self::Metrics
            | Self::Capture(_)
            | Self::Transfer { .. }
            | Self::Logs { .. }
            | Self::Console { .. }
            | Self::Exec { .. }
            | Self::Link { .. }
            | Self::Export { .. }
            | Self::Serve { .. } => true,
            Self::Bench(args) => args.is_of_a_running_lab(),
            Self::Demo
            | Self::Validate { .. }
            | Self::Test { running: false, .. }
            | Self::Ls { .. }
            | Self::Explain { .. }
            | Self::Doctor { .. }
            | Self::Image { .. }
            | Self::Init { .. }
            | Self::Vswitchd
            | Self::Station
            | Self::WayOut { .. }
            | Self::Vmm(_) => false,
        }
    }
}

/// What is captured, and where to.
#[derive(Debug, ClapArgs)]
pub(super) struct CaptureArgs {
    /// Of which interface: node or node:interface.
    pub(super) interface: String,
    /// Which frames, in words of tcpdump's: arp, icmp, icmp6, ip, ip6, tcp, udp, port N, host ADDRESS, ether host MAC, vlan N,
    /// combined by and, or, not and parentheses.
    pub(super) filter: Vec<String>,
    /// The file to write, or `-` for standard output (`vnet capture h1 -w - | wireshark -k -i -`); without it, lines are printed.
    #[arg(short, long, env = "VNET_WRITE", value_name = "FILE")]
    pub(super) write: Option<PathBuf>,
    /// How many bytes of a frame to keep at most; else whole frames.
    #[arg(long, env = "VNET_SNAPLEN", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_550))]
    pub(super) snaplen: Option<u32>,
    /// End after this many frames.
    #[arg(long, short, env = "VNET_COUNT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// End after this many seconds.
    #[arg(long, env = "VNET_SECONDS", value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) seconds: Option<u32>,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(super) struct Output {
    /// How to print it.
    #[arg(long, env = "VNET_FORMAT", value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

/// What a link can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LinkState {
    /// Frames can pass.
    Up,
    /// As if the cable were pulled.
    Down,
}

/// The parts of a lab that can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// Interfaces: state, VLANs, what was counted.
    Ports,
    /// Nodes: what they are and whether they answer.
    Nodes,
    /// Links, and the lines that say so.
    Links,
    /// Addresses that were learned or given.
    Fdb,
    /// VLANs, switch by switch.
    Vlans,
    /// What was dropped, where and why.
    Drops,
    /// Rules of security groups, and how often each decided.
    Rules,
    /// Connections that firewalls have allowed, and where they stand.
    Connections,
    /// Routes of routers, and the lines that say them.
    Routes,
    /// Whom routers know in the VLANs of their gateways.
    Neighbours,
    /// Addresses that gateways have given (DHCP).
    Leases,
    /// Workers and their cost.
    Datapath,
}

impl View {
    /// Whether it can be shown of one interface.
    pub(super) const fn is_of_interfaces(self) -> bool {
        matches!(self, Self::Rules | Self::Connections)
    }
}

/// What is done with images.
#[derive(Debug, Subcommand)]
pub(super) enum ImageVerb {
    /// List those in the cache.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Build one anew.
    Build {
        /// `debian` or `debian-generic`.
        // The lab's name is an argument of every verb.
        #[arg(id = "image", value_name = "NAME")]
        name: String,
    },
    /// Remove one from the cache.
    Rm {
        /// `debian` or `debian-generic`.
        // The lab's name is an argument of every verb.
        #[arg(id = "image", value_name = "NAME")]
        name: String,
    },
}

/// For whom something is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportTo {
    /// Arguments for qemu-system-x86_64.
    Qemu,
    /// A libvirt domain's parts.
    Libvirt,
}

/// How to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs: snake_case JSON.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_no_guest_has_and_names_that_mean_nothing_are_told_apart() {
        let parsed = |words: &str| Args::try_parse_from(words.split(' '));
        assert!(parsed("vnet export qemu ext1 --memory 512").is_ok());
        for wrong in ["0", "99999999999999999", "16777217", "lots"] {
            assert!(parsed(&format!("vnet export qemu ext1 --memory {wrong}")).is_err(), "{wrong}");
        }
        for (words, takes) in
            [("vnet test --running", true), ("vnet test", false), ("vnet down", true), ("vnet ls", false)]
        {
            assert_eq!(parsed(words).unwrap().verb.takes_a_name(), takes, "{words}");
        }
    }

    #[test]
    fn the_grammar_is_consistent_and_every_flag_has_an_environment_variable() {
        let mut command = Args::command();
        command.build();
        command.clone().debug_assert();
        let all = command.get_subcommands().chain([&command]).flat_map(clap::Command::get_arguments);
        for flag in all.filter(|arg| arg.get_long().is_some_and(|name| !matches!(name, "help" | "version"))) {
            let name = flag.get_env().and_then(|name| name.to_str());
            assert!(name.is_some_and(|name| name.starts_with("VNET_")), "{:?}", flag.get_long());
        }
    }
}
