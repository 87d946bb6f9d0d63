//! How a guest is started in the VMM that is part of vnet, for one node of a plan: this executable again as `vnet vmm`.

use super::qemu::{KERNEL_WORDS, RunDirectory, names};
use crate::image::Image;
use std::{
    borrow::Cow,
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use topology::plan::{Asks, Boot, Interface, Vm};
use vmm_lite::{CpuCount, layout};

/// What of the environment is for a `vnet vmm` that the user starts, and would add to what a node says.
const USERS: [&str; 5] =
    ["VNET_VMM_KERNEL", "VNET_VMM_INITRD", "VNET_VMM_NET", "VNET_VMM_DISK", "VNET_VMM_RNG"];

/// The least MTU: that of IPv6 (RFC 8200 §5), which every bundled guest speaks.
const MIN_MTU: u16 = 1280;

/// What of a node vmm-lite cannot do, a sentence each. The file of a kernel is read for it.
pub fn problems(vm: &Vm, interfaces: &[Interface]) -> Vec<String> {
    let mut problems = Vec::new();
    let memory = layout::RamSize::new(vm.memory);
    if memory.is_none() {
        let (least, most) = (layout::RamSize::LEAST >> 20, layout::RamSize::MOST >> 30);
        problems.push(format!("a guest of vmm-lite has {least}M to {most}G of memory, in whole pages of 4K"));
    }
    if CpuCount::new(vm.cpus).is_none() {
        problems.push(format!("a guest of vmm-lite has 1 to {} CPUs, not {}", CpuCount::MOST, vm.cpus));
    }
    // Who has a kernel of its own gets random bytes from a device as well.
    let most = layout::MAX_VIRTIO - usize::from(vm.boot != Boot::Bundled);
    if interfaces.len() > most {
        problems.push(format!("a guest of vmm-lite has at most {most} interfaces, not {}", interfaces.len()));
    }
    match (&vm.boot, memory) {
        (Boot::Bundled, _) => problems.extend(interfaces.iter().flat_map(bundled_problems)),
        (Boot::Disk { .. } | Boot::Network, _) => {
            problems.push("vmm-lite has no firmware, which is what boots disks and networks".into());
        }
        (Boot::Kernel { kernel, .. }, Some(memory)) => {
            problems.extend(vmm_lite::bootable(kernel, memory).err().map(|why| format!("vmm-lite: {why}")));
        }
        (Boot::Kernel { .. } | Boot::Image(_), _) => {}
    }
    let emulated = interfaces.iter().filter(|interface| !interface.model.is_virtio());
    problems.extend(emulated.map(|Interface { name, model, .. }| {
        format!("{name}: a card of model {} is emulated by QEMU alone", model.word())
    }));
    problems
}

fn bundled_problems(interface: &Interface) -> Vec<String> {
    let Interface { name, addresses, mtu, .. } = interface;
    let mut problems = Vec::new();
    if let Some(mtu) = mtu.filter(|mtu| *mtu < MIN_MTU) {
        problems.push(format!("{name}: the MTU of a bundled guest is at least {MIN_MTU}, not {mtu}"));
    }
    let (most, count) = (end_station::MAX_ADDRESSES, addresses.len());
    if count > most {
        problems.push(format!("{name}: a bundled guest has room for {most} addresses, not {count}"));
    }
    problems
}

/// What a guest with a kernel of its own is given to boot.
struct Linux<'a> {
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    cmdline: Option<&'a str>,
}

/// None: the bundled guest, and what only firmware boots.
fn linux<'a>(vm: &'a Vm, image: Option<&Image>) -> Option<Linux<'a>> {
    match &vm.boot {
        Boot::Image(_) => {
            image.map(|image| Linux { kernel: image.kernel(), initrd: Some(image.initrd()), cmdline: None })
        }
        Boot::Kernel { kernel, initrd, cmdline } => {
            Some(Linux { kernel: kernel.clone(), initrd: initrd.clone(), cmdline: cmdline.as_deref() })
        }
        Boot::Bundled | Boot::Disk { .. } | Boot::Network => None,
    }
}

/// The command to spawn for the guest `name`; `image` is what [`Boot::Image`] names, built. It works in the run directory and is given
/// names relative to it, so that the length of the directory's path never meets the 107 bytes of a socket's address.
/// `socket` is that of an interface, where the switch listens.
pub fn command<'a>(
    name: &str,
    vm: &Vm,
    image: Option<&Image>,
    interfaces: impl Iterator<Item = (&'a Interface, &'a Path)>,
    run: &RunDirectory,
) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("vmm").current_dir(run.path()).stdin(Stdio::null());
    command.args(["--memory", &vm.memory.to_string(), "--cpus", &vm.cpus.to_string()]);
    let mut cmdline = format!("vnet.hostname={name}");
    let is_bundled = matches!(vm.boot, Boot::Bundled);
    if let Some(linux) = linux(vm, image) {
        command.arg("--kernel").arg(linux.kernel).arg("--rng");
        if let Some(initrd) = linux.initrd {
            command.arg("--initrd").arg(initrd);
        }
        cmdline = format!("{KERNEL_WORDS} {cmdline}");
        if let Some(more) = linux.cmdline {
            cmdline = format!("{cmdline} {more}");
        }
    }
    command.args(["--cmdline", &cmdline]);
    command.arg("--console").arg(format!("socket={},log={}", names::CONSOLE, names::LOG));
    command.arg("--probe").arg(format!("socket={}", names::PROBE));
    command.args(["--control", names::CONTROL]);
    for (interface, socket) in interfaces {
        let mut interface = Cow::Borrowed(interface);
        if is_bundled {
            // It asks nobody: what it is comes from the file.
            interface.to_mut().asks = Asks::default();
        }
        command.arg("--net").arg(net(&interface, socket));
    }
    for variable in USERS {
        command.env_remove(variable);
    }
    command
}

/// The value of `--net`.
fn net(interface: &Interface, socket: &Path) -> OsString {
    let mut keys = String::new();
    // Writing to a String cannot fail.
    if let Some(mac) = interface.mac {
        let _ = write!(keys, ",mac={mac}");
    }
    let _ = write!(keys, ",name={}", interface.name);
    if let Some(mtu) = interface.mtu {
        let _ = write!(keys, ",mtu={mtu}");
    }
    if interface.queues > 1 {
        let _ = write!(keys, ",queues={}", interface.queues);
    }
    if interface.link_down {
        keys.push_str(",link=down");
    }
    for address in &interface.addresses {
        let _ = write!(keys, ",address={address}");
    }
    for gateway in &interface.gateways {
        let _ = write!(keys, ",gateway={gateway}");
    }
    for word in interface.asks.words() {
        let _ = write!(keys, ",ask={word}");
    }
    let mut value = OsString::from("socket=");
    value.push(socket);
    value.push(keys);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use topology::plan::{Boot, Vmm};
    use vswitch_core::{id::PortId, mac::MacAddr};

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        Interface {
            name: name.into(),
            port: PortId::new(0, 0),
            mac: Some(MacAddr::new([2, 0, 0, 0, 0, 1])),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            gateways: vec![],
            asks: topology::plan::Asks::default(),
            mtu: Some(1400),
            queues: 1,
            model: topology::plan::Model::Virtio,
            sealed_memory: false,
            link_down: false,
        }
    }

    const VM: Vm = Vm { vmm: Vmm::VmmLite, boot: Boot::Bundled, memory: 64 << 20, cpus: 2, metadata: false };

    fn words(command: &Command) -> Vec<&str> {
        command.get_args().map(|word| word.to_str().unwrap()).collect()
    }

    #[test]
    fn the_vmm_understands_what_it_is_given() {
        let gateways = ["10.0.0.254", "fd00::fe"].map(|gateway| gateway.parse().unwrap()).into();
        let interface = Interface { gateways, ..interface("lan", &["10.0.0.1/24", "fd00::1/64"]) };
        let interfaces = [(&interface, Path::new("../pc1.lan.sock"))];
        let command = command("pc1", &VM, None, interfaces.into_iter(), &RunDirectory::new("/run/lab/pc1"));
        insta::assert_snapshot!(words(&command).join("\n"), @r"
        vmm
        --memory
        67108864
        --cpus
        2
        --cmdline
        vnet.hostname=pc1
        --console
        socket=console.sock,log=console.log
        --probe
        socket=probe.sock
        --control
        control.sock
        --net
        socket=../pc1.lan.sock,mac=02:00:00:00:00:01,name=lan,mtu=1400,address=10.0.0.1/24,address=fd00::1/64,gateway=10.0.0.254,gateway=fd00::fe
        ");
        assert_eq!(command.get_current_dir(), Some(Path::new("/run/lab/pc1")));
        let config = vmm_lite::Args::try_parse_from(words(&command)).unwrap().config().unwrap();
        let told = "vnet.hostname=pc1 vnet.if=02:00:00:00:00:01,lan,10.0.0.1/24,fd00::1/64,gateway=10.0.0.254,gateway=fd00::fe,mtu=1400";
        assert_eq!((config.command_line.as_str(), config.cpus.get()), (told, 2));
    }

    #[test]
    fn a_kernel_is_told_the_same_as_under_qemu() {
        let boot = Boot::Kernel {
            kernel: "/labs/vmlinuz".into(),
            initrd: Some("/labs/initrd".into()),
            cmdline: Some("debug".into()),
        };
        let vm = Vm { boot, ..VM };
        let eth0 = Interface { mtu: None, queues: 4, ..interface("eth0", &[]) };
        let interfaces = [(&eth0, Path::new("../fw1.eth0.sock"))];
        let command = command("fw1", &vm, None, interfaces.into_iter(), &RunDirectory::new("/run/lab/fw1"));
        let config = vmm_lite::Args::try_parse_from(words(&command)).unwrap().config().unwrap();
        assert_eq!(config.kernel, vmm_lite::Kernel::File("/labs/vmlinuz".into()));
        assert_eq!(config.initrd, Some("/labs/initrd".into()));
        assert!(config.rng);
        assert_eq!(config.nets[0].queues, 4);
        let told = "console=ttyS0 quiet panic=-1 vnet.hostname=fw1 debug vnet.if=02:00:00:00:00:01,eth0";
        assert_eq!(config.command_line, told);
    }

    #[test]
    fn what_it_cannot_have_is_said() {
        let addresses: Vec<String> = (1..9).map(|n| format!("10.0.0.{n}/24")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let interfaces = vec![interface("eth0", &addresses); 20];
        let vm = Vm { memory: 100 << 30, cpus: 17, ..VM };
        let found = problems(&vm, &interfaces);
        assert_eq!(found.len(), 3 + 20, "{found:?}");
        assert!(problems(&VM, &interfaces[..0]).is_empty());

        let image = Vm { boot: Boot::Image("debian".into()), ..VM };
        assert!(problems(&image, &[interface("eth0", &addresses)]).is_empty(), "Linux has room for them");
        let disk = Vm { boot: Boot::Disk { path: "/a.img".into(), write: false }, ..VM };
        assert!(problems(&disk, &[])[0].contains("no firmware"));
    }

    #[test]
    fn what_is_no_kernel_is_told_before_anything_starts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh\n").unwrap();
        let boot = Boot::Kernel { kernel: file.path().into(), initrd: None, cmdline: None };
        let found = problems(&Vm { boot, ..VM }, &[]);
        assert!(found.len() == 1 && found[0].contains("cannot be booted"), "{found:?}");
    }
}
