//! What this machine lacks for a lab, each with the command that mends it. Probes look; [`judge`] decides; nothing prints.

use crate::{lab::rundir::Runtime, vm::accel};
use rustix::{
    fs::{Access, access},
    process::geteuid,
};
use serde::Serialize;
use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

/// One line of the doctor's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was looked for.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen, and what follows for labs.
    pub detail: String,
    /// The command that mends it; none if there is nothing to mend or no command does.
    pub mend: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Labs run, but slower or with less.
    Degraded,
    /// Something that labs may name does not work at all.
    Missing,
}

/// What the probes saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The CPU flags show vmx or svm.
    pub virtualises: bool,
    /// /dev/kvm.
    pub kvm: Device,
    /// KVM runs a guest's own kernel, and not the bundled guest alone.
    pub runs_kernels: bool,
    /// /dev/net/tun.
    pub tun: Device,
    /// Which of [`PROGRAMS`] are in PATH.
    pub programs: Vec<&'static str>,
    /// Huge pages, in all and free.
    pub huge_pages: (u64, u64),
    /// Where labs live.
    pub runtime_dir: RuntimeDir,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// This user is root.
    pub root: bool,
}

/// The folder of this user's labs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeDir {
    /// Nobody else may enter it, or it will be made so.
    Private(PathBuf),
    /// The environment names one that is not this user's alone.
    Shared(PathBuf),
    /// The environment names none; this one, under /tmp, serves instead.
    Fallback(PathBuf),
}

/// A device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// There is none.
    Absent,
    /// This user must not open it.
    NoRights,
    /// It can be opened.
    Usable,
}

/// The programs that labs use, with the Debian package of each, how it is without, and what it is for.
pub const PROGRAMS: [(&str, &str, State, &str); 6] = [
    (
        "qemu-system-x86_64",
        "qemu-system-x86",
        State::Missing,
        "nodes of kind `vm` that vmm-lite cannot run need it",
    ),
    ("qemu-img", "qemu-utils", State::Missing, "nodes with a `disk:` need it"),
    (
        "apt-get",
        "apt",
        State::Missing,
        "`image: debian` is built with it; without it give `kernel:` and `initrd:`",
    ),
    (
        "dpkg",
        "dpkg",
        State::Missing,
        "`image: debian` is built with it; without it give `kernel:` and `initrd:`",
    ),
    ("ip", "iproute2", State::Missing, "nodes of kind `netns` need it, and root"),
    (
        "passt",
        "passt",
        State::Degraded,
        "vnet itself leads out of nodes of kind `user`, less confined than passt",
    ),
];

/// Looks at this machine; changes nothing.
pub fn probe() -> Machine {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    Machine {
        virtualises: read("/proc/cpuinfo").split_ascii_whitespace().any(|word| matches!(word, "vmx" | "svm")),
        kvm: device(Path::new("/dev/kvm")),
        runs_kernels: accel::for_kernels() == accel::Why::Usable,
        tun: device(Path::new("/dev/net/tun")),
        programs: PROGRAMS.iter().map(|&(name, ..)| name).filter(|name| is_installed(name)).collect(),
        huge_pages: huge_pages(&read("/proc/meminfo")),
        runtime_dir: runtime_dir(),
        cpus: thread::available_parallelism().map_or(1, usize::from),
        root: geteuid().is_root(),
    }
}

/// Whether a program is in PATH.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| access(folder.join(program), Access::EXEC_OK).is_ok())
}

fn device(path: &Path) -> Device {
    match (path.exists(), access(path, Access::READ_OK | Access::WRITE_OK)) {
        (false, _) => Device::Absent,
        (true, Err(_)) => Device::NoRights,
        (true, Ok(())) => Device::Usable,
    }
}

fn runtime_dir() -> RuntimeDir {
    let path = Runtime::of_environment().path().to_owned();
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let named = set("VNET_RUNTIME_DIR") || set("XDG_RUNTIME_DIR");
    match fs::symlink_metadata(&path) {
        Ok(there) if !private(&there) => RuntimeDir::Shared(path),
        _ if named || geteuid().is_root() => RuntimeDir::Private(path),
        _ => RuntimeDir::Fallback(path),
    }
}

fn private(m: &fs::Metadata) -> bool {
    m.is_dir() && m.uid() == geteuid().as_raw() && m.mode() & 0o077 == 0
}

fn huge_pages(meminfo: &str) -> (u64, u64) {
    let value = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    };
    (value("HugePages_Total:"), value("HugePages_Free:"))
}

/// The report on a machine, in the order in which a newcomer meets the things.
pub fn judge(machine: &Machine) -> Vec<Row> {
    let mut rows =
        vec![cpus(machine.cpus), judge_runtime_dir(&machine.runtime_dir), kvm(machine), tun(machine)];
    rows.extend(PROGRAMS.map(|(name, package, without, purpose)| {
        let there = machine.programs.contains(&name);
        let mend = install(machine, package);
        if there {
            ok(name, "found")
        } else {
            row(name, without, &format!("not in PATH; {purpose}"), Some(mend))
        }
    }));
    rows.push(match machine.huge_pages {
        (0, _) => row(
            "huge-pages",
            State::Ok,
            "none reserved; vnet needs none, DPDK peers do",
            Some(as_root(machine, "sysctl vm.nr_hugepages=512")),
        ),
        (total, free) => ok("huge-pages", &format!("{free} of {total} free; vnet needs none, DPDK peers do")),
    });
    rows
}

fn row(name: &'static str, state: State, detail: &str, mend: Option<String>) -> Row {
    Row { name, state, detail: detail.to_owned(), mend }
}

fn ok(name: &'static str, detail: &str) -> Row {
    row(name, State::Ok, detail, None)
}

/// A command that needs root, as this user types it.
fn as_root(machine: &Machine, command: &str) -> String {
    if machine.root { command.to_owned() } else { format!("sudo {command}") }
}

fn cpus(cpus: usize) -> Row {
    let detail = format!("{cpus} usable");
    match cpus {
        0 | 1 => row("cpus", State::Degraded, &(detail + "; switch and guests take turns on it"), None),
        _ => ok("cpus", &detail),
    }
}

fn judge_runtime_dir(folder: &RuntimeDir) -> Row {
    let own = "mkdir -p -m 700 ~/.vnet && export VNET_RUNTIME_DIR=~/.vnet # in every terminal";
    match folder {
        RuntimeDir::Private(path) => ok("runtime-dir", &format!("{} is this user's alone", path.display())),
        RuntimeDir::Shared(path) => {
            let detail = format!("{} is not a folder of this user's alone; no lab can start", path.display());
            row("runtime-dir", State::Missing, &detail, Some(own.to_owned()))
        }
        RuntimeDir::Fallback(path) => {
            let detail =
                format!("neither VNET_RUNTIME_DIR nor XDG_RUNTIME_DIR is set; {} serves", path.display());
            row("runtime-dir", State::Degraded, &detail, Some(own.to_owned()))
        }
    }
}

/// How the Debian package of a program is installed; without apt, only its name helps.
fn install(machine: &Machine, package: &str) -> String {
    match (machine.programs.contains(&"apt-get"), package) {
        (true, _) => as_root(machine, &format!("apt-get install {package}")),
        (false, "apt" | "dpkg") => {
            "give the node `kernel:` and `initrd:`; only Debian and its kin have apt".into()
        }
        (false, _) => format!("install what Debian calls {package} with this system's package manager"),
    }
}

fn kvm(machine: &Machine) -> Row {
    let degraded =
        |detail: &str, mend| row("kvm", State::Degraded, &format!("{detail}; QEMU emulates the CPU"), mend);
    match (machine.kvm, machine.virtualises) {
        (Device::Usable, _) if machine.runs_kernels => {
            ok("kvm", "/dev/kvm is usable; vmm-lite runs bundled guests, images and kernels")
        }
        (Device::Usable, _) => degraded(
            "/dev/kvm is a paravirtual one (tried): vmm-lite runs bundled guests, and nothing else",
            None,
        ),
        // What is there needs no more than rights: a paravirtual KVM shows no flags.
        (Device::NoRights, _) => {
            let mend = as_root(machine, "usermod -aG kvm $USER") + " # and log in again";
            degraded("/dev/kvm is there, but this user must not open it", Some(mend))
        }
        (Device::Absent, false) => degraded(
            "there is no /dev/kvm, and the CPU shows neither vmx nor svm (off in the firmware, or not passed to this guest)",
            None,
        ),
        (Device::Absent, true) => {
            let mend = as_root(machine, "modprobe -a kvm_intel kvm_amd");
            degraded("there is no /dev/kvm", Some(mend))
        }
    }
}

fn tun(machine: &Machine) -> Row {
    match (machine.tun, machine.root) {
        (Device::Usable, true) => ok("tun", "/dev/net/tun is usable"),
        (Device::Usable, false) => row(
            "tun",
            State::Degraded,
            "this user may attach to a tap that exists, but not make one",
            Some("sudo ip tuntap add dev tap0 mode tap user $USER".to_owned()),
        ),
        (Device::NoRights, _) => row(
            "tun",
            State::Missing,
            "this user must not open /dev/net/tun; nodes of kind `tap` need it",
            Some(as_root(machine, "chmod 666 /dev/net/tun")),
        ),
        (Device::Absent, _) => row(
            "tun",
            State::Missing,
            "there is no /dev/net/tun; nodes of kind `tap` need it",
            Some(as_root(machine, "modprobe tun")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Machine {
        Machine {
            virtualises: true,
            kvm: Device::Usable,
            runs_kernels: true,
            tun: Device::Usable,
            programs: PROGRAMS.iter().map(|&(name, ..)| name).collect(),
            huge_pages: (64, 60),
            runtime_dir: RuntimeDir::Private("/run/user/1000/vnet".into()),
            cpus: 8,
            root: true,
        }
    }

    fn find(machine: &Machine, name: &str) -> Row {
        judge(machine).into_iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn a_whole_machine_has_nothing_to_mend() {
        assert!(judge(&whole()).iter().all(|row| row.state == State::Ok && row.mend.is_none()));
    }

    #[test]
    fn a_paravirtual_kvm_is_no_kvm_and_no_command_mends_it() {
        let row = find(&Machine { virtualises: false, runs_kernels: false, ..whole() }, "kvm");
        assert_eq!((row.state, row.mend), (State::Degraded, None));
    }

    #[test]
    fn each_lack_names_its_mend_as_this_user_types_it() {
        let bare = Machine {
            kvm: Device::NoRights,
            tun: Device::Absent,
            programs: vec!["apt-get", "dpkg"],
            runtime_dir: RuntimeDir::Fallback("/tmp/vnet-1000".into()),
            cpus: 1,
            root: false,
            ..whole()
        };
        assert_eq!(find(&bare, "qemu-img").mend.unwrap(), "sudo apt-get install qemu-utils");
        assert_eq!(find(&bare, "qemu-img").state, State::Missing);
        for virtualises in [true, false] {
            let kvm = find(&Machine { virtualises, ..bare.clone() }, "kvm");
            assert_eq!(kvm.mend.unwrap(), "sudo usermod -aG kvm $USER # and log in again");
            assert!(kvm.detail.starts_with("/dev/kvm is there, but this user must not open it"));
        }
        assert_eq!(find(&bare, "tun").mend.unwrap(), "sudo modprobe tun");
        assert_eq!(find(&bare, "cpus").state, State::Degraded);
        assert_eq!(find(&bare, "dpkg").state, State::Ok);
        assert_eq!(find(&bare, "passt").state, State::Degraded);
        assert!(find(&bare, "runtime-dir").mend.unwrap().contains("VNET_RUNTIME_DIR"));
        let no_apt = Machine { programs: vec![], runtime_dir: RuntimeDir::Shared("/tmp".into()), ..bare };
        assert_eq!(find(&no_apt, "runtime-dir").state, State::Missing);
        for program in PROGRAMS {
            assert!(!find(&no_apt, program.0).mend.unwrap().contains("apt-get install"), "{}", program.0);
        }
    }

    #[test]
    fn huge_pages_are_counted() {
        assert_eq!(
            huge_pages("MemTotal: 1 kB\nHugePages_Total:     512\nHugePages_Free:      500\n"),
            (512, 500)
        );
        assert_eq!(huge_pages(""), (0, 0));
    }
}
