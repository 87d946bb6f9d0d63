//! How QEMU is started for one node of a plan: its command line, and where its sockets are.

use super::accel::Accel;
use crate::image::Image;
use std::{
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use topology::plan::{Boot, Interface, Model, Vm};
use vswitch_core::mac::MacAddr;

/// QEMU's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// What x86 Linux reads of its command line, the final NUL included (COMMAND_LINE_SIZE).
const COMMAND_LINE_SIZE: usize = 2048;

/// What interfaces say of their speed, in Mbit/s, full duplex: LACP aggregates links of known speeds (IEEE 802.1AX §6.3.4).
const LINK_MBIT: u32 = 10_000;

/// Where cloud-init in a disk of the user's learns of its node: its data source NoCloud reads this as the machine's serial number.
const SEED: &str = "ds=nocloud-net;s=http://169.254.169.254/";

/// What every kernel is told, whoever runs it.
pub(super) const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1";

/// Entries of a guest's receive ring: QEMU's most. Of its own it takes 256, which one burst of TCP fills before a busy
/// guest comes to look.
pub(super) const RX_QUEUE_SIZE: u16 = 1024;

/// Files of a guest, by name in its run directory. Its VMM works in that directory and is given these relative names, so
/// the length of the directory's path never meets the 107 bytes of a socket's address.
pub(super) mod names {
    pub(in super::super) const CONSOLE: &str = "console.sock";
    pub(in super::super) const LOG: &str = "console.log";
    pub(in super::super) const PROBE: &str = "probe.sock";
    pub(in super::super) const CONTROL: &str = "control.sock";
    pub(super) const QMP: &str = "qmp.sock";
    pub(super) const OVERLAY: &str = "disk.qcow2";
}

/// The run directory of one guest: the files that it and we meet at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDirectory(PathBuf);

impl RunDirectory {
    /// The directory at `path`, an absolute path. Whoever starts the guest makes it, with mode 0700.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether a file of this name in such a directory is one of those below.
    pub fn holds(name: &str) -> bool {
        let interface =
            |name: &str| Some(name.strip_prefix("net")?.strip_suffix(".sock")?.parse::<usize>().is_ok());
        [names::CONSOLE, names::LOG, names::PROBE, names::CONTROL, names::QMP, names::OVERLAY].contains(&name)
            || interface(name) == Some(true)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket of ttyS0, on which QEMU listens; one client at a time.
    pub fn console(&self) -> PathBuf {
        self.0.join(names::CONSOLE)
    }

    /// All that ttyS0 said, with or without a client.
    pub fn log(&self) -> PathBuf {
        self.0.join(names::LOG)
    }

    /// The socket of ttyS1, at whose other end the probe agent is; QEMU listens.
    pub fn probe(&self) -> PathBuf {
        self.0.join(names::PROBE)
    }

    /// The control socket of a guest under vmm-lite.
    pub fn control(&self) -> PathBuf {
        self.0.join(names::CONTROL)
    }

    /// QEMU's control socket ([`super::qmp`]); QEMU listens.
    pub fn qmp(&self) -> PathBuf {
        self.0.join(names::QMP)
    }

    /// The private overlay of the node's disk ([`super::disk::create_overlay`]).
    pub fn overlay(&self) -> PathBuf {
        self.0.join(names::OVERLAY)
    }

    /// The vhost-user socket of the interface in place `index`. QEMU listens and the switch connects: so a restarted
    /// switch is back as soon as it asks, and QEMU needs no timer.
    pub fn interface(&self, index: usize) -> PathBuf {
        self.0.join(interface_socket(index))
    }
}

fn interface_socket(index: usize) -> String {
    format!("net{index}.sock")
}

/// The netdev of the interface in place `index`, as QMP's `set_link` calls it.
pub fn netdev_id(index: usize) -> String {
    format!("net{index}")
}

/// A guest that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Where its sockets will be.
    pub run: RunDirectory,
    /// QEMU's arguments, without the program.
    pub arguments: Vec<OsString>,
}

/// Why a guest cannot be started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The kernel would cut its command line.
    #[error(
        "the guest's kernel reads {limit} bytes of its command line, and this one has {0}: give it fewer interfaces or \
         addresses, or a shorter `cmdline:`",
        limit = COMMAND_LINE_SIZE - 1
    )]
    CommandLine(usize),
    /// An interface has no MAC address; a plan gives one to each interface of a `vm`.
    #[error("the interface {0} has no MAC address")]
    NoMac(String),
    /// The bundled guest is for the VMM that is part of vnet ([`super::lite`]).
    #[error("QEMU cannot boot the bundled guest")]
    Bundled,
    /// The plan names an image, and none was given.
    #[error("the node boots the image `{0}`, which was not built")]
    NoImage(String),
}

impl Launch {
    /// The guest `name` of a plan.
    ///
    /// `image` is what [`Boot::Image`] names, built. A disk that is not written to must have its overlay in `run`.
    pub fn new(
        name: &str,
        vm: &Vm,
        interfaces: &[Interface],
        image: Option<&Image>,
        accel: Accel,
        run: RunDirectory,
    ) -> Result<Self, LaunchError> {
        let mut arguments = Arguments::default();
        let shared = interfaces.iter().any(|interface| interface.model.is_virtio());
        arguments.machine(name, vm, accel, shared);
        arguments.boot(name, vm, interfaces, image)?;
        arguments.serials();
        for (index, interface) in interfaces.iter().enumerate() {
            arguments.interface(index, interface, accel, vm.boot == Boot::Network)?;
        }
        Ok(Self { run, arguments: arguments.0 })
    }

    /// The command to spawn: it works in the run directory, has no standard input and, until the caller says otherwise,
    /// the caller's output for what QEMU itself complains about.
    ///
    /// QEMU opens its console, probe and control sockets first and then waits, at each interface in turn, for the switch
    /// to connect: until then the guest does not run and QMP does not answer.
    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(&self.arguments).current_dir(self.run.path()).stdin(Stdio::null());
        command
    }
}

/// A command line in the making.
#[derive(Debug, Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.extend([option.into(), value.into()]);
    }

    /// `shared`: the switch moves frames in the guest's memory.
    fn machine(&mut self, name: &str, vm: &Vm, accel: Accel, shared: bool) {
        self.0.extend(["-nodefaults", "-no-user-config"].map(OsString::from));
        self.add("-display", "none");
        self.add("-name", name);
        // Firmware writes to the serial line only where the firmware is what boots.
        let firmware = matches!(vm.boot, Boot::Disk { .. } | Boot::Network);
        let graphics = if firmware { ",graphics=off" } else { "" };
        let backend = if shared { ",memory-backend=mem" } else { "" };
        self.add("-machine", format!("q35{backend}{graphics}"));
        self.add("-accel", accel.as_str());
        let cpu = match accel {
            Accel::Kvm => "host",
            Accel::Tcg => "max",
        };
        self.add("-cpu", cpu);
        self.add("-smp", vm.cpus.max(1).to_string());
        // Whole MiB: the backend's size and the machine's must be equal, and QEMU rounds only one of them.
        let memory = vm.memory.div_ceil(1 << 20).max(1);
        if shared {
            self.add("-object", format!("memory-backend-memfd,id=mem,size={memory}M,share=on"));
        }
        self.add("-m", format!("{memory}M"));
    }

    fn boot(
        &mut self,
        name: &str,
        vm: &Vm,
        interfaces: &[Interface],
        image: Option<&Image>,
    ) -> Result<(), LaunchError> {
        match &vm.boot {
            Boot::Image(wanted) => {
                let image = image.ok_or_else(|| LaunchError::NoImage(wanted.clone()))?;
                self.add("-kernel", image.kernel());
                self.add("-initrd", image.initrd());
                self.add("-append", kernel_command_line(name, interfaces, None)?);
            }
            Boot::Kernel { kernel, initrd, cmdline } => {
                self.add("-kernel", kernel);
                if let Some(initrd) = initrd {
                    self.add("-initrd", initrd);
                }
                self.add("-append", kernel_command_line(name, interfaces, cmdline.as_deref())?);
            }
            Boot::Disk { path, write } => {
                let disk = if *write { path.as_path() } else { Path::new(names::OVERLAY) };
                let qcow2 = !*write || path.extension().is_some_and(|e| e == "qcow2");
                let format = if qcow2 { "qcow2" } else { "raw" };
                let mut drive = OsString::from(format!("if=none,id=disk,format={format},file="));
                drive.push(escape_commas(disk));
                self.add("-drive", drive);
                self.add("-device", "virtio-blk-pci,drive=disk,bootindex=0");
                if vm.metadata {
                    self.add("-smbios", format!("type=1,serial={SEED}"));
                }
            }
            Boot::Network => self.add("-boot", "n"),
            Boot::Bundled => return Err(LaunchError::Bundled),
        }
        Ok(())
    }

    /// ttyS0 and ttyS1 in this order, and the control socket.
    fn serials(&mut self) {
        self.add(
            "-chardev",
            format!("socket,id=console,path={},server=on,wait=off,logfile={}", names::CONSOLE, names::LOG),
        );
        self.add("-serial", "chardev:console");
        self.add("-chardev", format!("socket,id=probe,path={},server=on,wait=off", names::PROBE));
        self.add("-serial", "chardev:probe");
        self.add("-chardev", format!("socket,id=qmp,path={},server=on,wait=off", names::QMP));
        self.add("-mon", "chardev=qmp,mode=control");
    }

    fn interface(
        &mut self,
        index: usize,
        interface: &Interface,
        accel: Accel,
        netboot: bool,
    ) -> Result<(), LaunchError> {
        let mac = interface.mac.ok_or_else(|| LaunchError::NoMac(interface.name.clone()))?;
        let netdev = netdev_id(index);
        let socket = interface_socket(index);
        let mut device = if interface.model.is_virtio() {
            self.add("-chardev", format!("socket,id=char-{netdev},path={socket},server=on,wait=off"));
            self.add("-netdev", netdev_option(&netdev, interface.queues));
            let mut device = device_option(&netdev, Some(mac), interface.queues, accel);
            if let Some(mtu) = interface.mtu {
                let _ = write!(device, ",host_mtu={mtu}");
            }
            // Writing to a String cannot fail.
            let _ = write!(device, ",speed={LINK_MBIT},duplex=full");
            device
        } else {
            self.add("-netdev", stream_option(&netdev, &socket, true));
            card_option(interface.model, &netdev, Some(mac))
        };
        // Without its boot ROM an interface costs firmware nothing, and needs no package with ROMs.
        if !netboot {
            device.push_str(",romfile=");
        }
        self.add("-device", device);
        Ok(())
    }
}

/// The value of `-netdev` for a vhost-user interface over the chardev `char-NETDEV`.
pub(super) fn netdev_option(netdev: &str, queues: u16) -> String {
    format!("vhost-user,id={netdev},chardev=char-{netdev},queues={}", queues.max(1))
}

/// The value of `-device` for a vhost-user interface.
pub(super) fn device_option(netdev: &str, mac: Option<MacAddr>, queues: u16, accel: Accel) -> String {
    let mut device = format!("virtio-net-pci,netdev={netdev}");
    // Writing to a String cannot fail.
    if let Some(mac) = mac {
        let _ = write!(device, ",mac={mac}");
    }
    // QEMU tells a guest that it turned receive offloads off for it (Linux asks for that to run XDP), but no vhost-user device learns of
    // it: better that no guest can ask.
    device.push_str(",ctrl_guest_offloads=off");
    if queues > 1 {
        device.push_str(",mq=on");
    }
    let _ = write!(device, ",rx_queue_size={RX_QUEUE_SIZE}");
    match accel {
        // QEMU 7.2 under TCG crashes when vhost-user meets MSI-X (msix_set_vector_notifiers): line interrupts only.
        Accel::Tcg => device.push_str(",vectors=0"),
        // One for each ring, one for the control queue, one for configuration changes.
        Accel::Kvm if queues > 1 => {
            let _ = write!(device, ",vectors={}", 2 * u32::from(queues) + 2);
        }
        Accel::Kvm => {}
    }
    device
}

/// The value of `-netdev` for frames on a stream socket, whose path has no comma but doubled ones.
pub(super) fn stream_option(netdev: &str, path: &str, listens: bool) -> String {
    let server = if listens { "on" } else { "off" };
    format!("stream,id={netdev},server={server},addr.type=unix,addr.path={path}")
}

/// The value of `-device` for a card whose frames QEMU itself carries.
pub(super) fn card_option(model: Model, netdev: &str, mac: Option<MacAddr>) -> String {
    let device = match model {
        Model::Virtio => "virtio-net-pci",
        emulated => emulated.word(),
    };
    let mac = mac.map(|mac| format!(",mac={mac}")).unwrap_or_default();
    format!("{device},netdev={netdev}{mac}")
}

/// What the guest's kernel and the image's init are told; the user's words stand last, so they win.
fn kernel_command_line(
    name: &str,
    interfaces: &[Interface],
    more: Option<&str>,
) -> Result<String, LaunchError> {
    let mut line = format!("{KERNEL_WORDS} vnet.hostname={name}");
    for interface in interfaces {
        let mac = interface.mac.ok_or_else(|| LaunchError::NoMac(interface.name.clone()))?;
        // Writing to a String cannot fail.
        let _ = write!(line, " vnet.if={mac},{}", interface.name);
        for address in &interface.addresses {
            let _ = write!(line, ",{address}");
        }
        for gateway in &interface.gateways {
            let _ = write!(line, ",gateway={gateway}");
        }
        for word in interface.asks.words() {
            let _ = write!(line, ",{word}");
        }
        if let Some(mtu) = interface.mtu {
            let _ = write!(line, ",mtu={mtu}");
        }
    }
    if let Some(more) = more {
        line.push(' ');
        line.push_str(more);
    }
    if line.len() < COMMAND_LINE_SIZE { Ok(line) } else { Err(LaunchError::CommandLine(line.len())) }
}

/// A path as a value within an option of QEMU, where a comma ends a value unless it is doubled.
pub(super) fn escape_commas(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        escaped.extend(std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Manifest;
    use topology::plan::Vmm;
    use vswitch_core::id::PortId;

    fn interface(name: &str, last: u8, addresses: &[&str]) -> Interface {
        Interface {
            name: name.into(),
            port: PortId::new(0, 0),
            mac: Some(MacAddr::new([2, 0, 0, 0, 0, last])),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            gateways: vec![],
            asks: topology::plan::Asks::default(),
            mtu: None,
            queues: 1,
            model: Model::Virtio,
            sealed_memory: false,
            link_down: false,
        }
    }

    fn vm(boot: Boot) -> Vm {
        Vm { vmm: Vmm::Qemu, boot, memory: 256 << 20, cpus: 1, metadata: false }
    }

    fn lines(launch: &Launch) -> String {
        let words = launch.arguments.iter().map(|a| a.to_string_lossy());
        words.fold(String::new(), |text, word| {
            let joint = if text.is_empty() {
                ""
            } else if word.starts_with('-') {
                "\n"
            } else {
                " "
            };
            text + joint + &word
        })
    }

    fn image() -> Image {
        let manifest = Manifest {
            name: "debian".into(),
            kernel: "6.1".into(),
            recipe: "0".into(),
            packages: vec![],
            bytes: 0,
        };
        Image { folder: "/cache/debian".into(), manifest }
    }

    #[test]
    fn an_image_under_tcg() {
        let mut eth1 = interface("eth1", 2, &[]);
        eth1.mtu = Some(1400);
        let mut eth0 = interface("eth0", 1, &["10.0.0.1/24", "fd00::1/64"]);
        eth0.gateways = ["10.0.0.254", "fd00::fe"].map(|gateway| gateway.parse().unwrap()).into();
        let interfaces = [eth0, eth1];
        let boot = vm(Boot::Image("debian".into()));
        let run = RunDirectory::new("/run/lab/pc1");
        let launch = Launch::new("pc1", &boot, &interfaces, Some(&image()), Accel::Tcg, run).unwrap();
        insta::assert_snapshot!(lines(&launch), @r"
        -nodefaults
        -no-user-config
        -display none
        -name pc1
        -machine q35,memory-backend=mem
        -accel tcg
        -cpu max
        -smp 1
        -object memory-backend-memfd,id=mem,size=256M,share=on
        -m 256M
        -kernel /cache/debian/vmlinuz
        -initrd /cache/debian/initrd
        -append console=ttyS0 quiet panic=-1 vnet.hostname=pc1 vnet.if=02:00:00:00:00:01,eth0,10.0.0.1/24,fd00::1/64,gateway=10.0.0.254,gateway=fd00::fe vnet.if=02:00:00:00:00:02,eth1,mtu=1400
        -chardev socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log
        -serial chardev:console
        -chardev socket,id=probe,path=probe.sock,server=on,wait=off
        -serial chardev:probe
        -chardev socket,id=qmp,path=qmp.sock,server=on,wait=off
        -mon chardev=qmp,mode=control
        -chardev socket,id=char-net0,path=net0.sock,server=on,wait=off
        -netdev vhost-user,id=net0,chardev=char-net0,queues=1
        -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,ctrl_guest_offloads=off,rx_queue_size=1024,vectors=0,speed=10000,duplex=full,romfile=
        -chardev socket,id=char-net1,path=net1.sock,server=on,wait=off
        -netdev vhost-user,id=net1,chardev=char-net1,queues=1
        -device virtio-net-pci,netdev=net1,mac=02:00:00:00:00:02,ctrl_guest_offloads=off,rx_queue_size=1024,vectors=0,host_mtu=1400,speed=10000,duplex=full,romfile=
        ");
        assert_eq!(launch.run.interface(1), Path::new("/run/lab/pc1/net1.sock"));
    }

    #[test]
    fn a_disk_under_kvm_with_four_queues() {
        let mut eth0 = interface("eth0", 1, &["10.0.0.1/24"]);
        eth0.queues = 4;
        let mut boot = vm(Boot::Disk { path: "/labs/a,b.img".into(), write: true });
        boot.metadata = true;
        let launch = Launch::new("fw1", &boot, &[eth0], None, Accel::Kvm, RunDirectory::new("/r")).unwrap();
        insta::assert_snapshot!(lines(&launch), @r"
        -nodefaults
        -no-user-config
        -display none
        -name fw1
        -machine q35,memory-backend=mem,graphics=off
        -accel kvm
        -cpu host
        -smp 1
        -object memory-backend-memfd,id=mem,size=256M,share=on
        -m 256M
        -drive if=none,id=disk,format=raw,file=/labs/a,,b.img
        -device virtio-blk-pci,drive=disk,bootindex=0
        -smbios type=1,serial=ds=nocloud-net;s=http://169.254.169.254/
        -chardev socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log
        -serial chardev:console
        -chardev socket,id=probe,path=probe.sock,server=on,wait=off
        -serial chardev:probe
        -chardev socket,id=qmp,path=qmp.sock,server=on,wait=off
        -mon chardev=qmp,mode=control
        -chardev socket,id=char-net0,path=net0.sock,server=on,wait=off
        -netdev vhost-user,id=net0,chardev=char-net0,queues=4
        -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01,ctrl_guest_offloads=off,mq=on,rx_queue_size=1024,vectors=10,speed=10000,duplex=full,romfile=
        ");
    }

    #[test]
    fn an_emulated_card_comes_by_a_stream_and_shares_no_memory() {
        let mut eth0 = interface("eth0", 1, &["10.0.0.1/24"]);
        eth0.model = Model::E1000;
        let boot = vm(Boot::Image("debian-generic".into()));
        let launch =
            Launch::new("old1", &boot, &[eth0], Some(&image()), Accel::Tcg, RunDirectory::new("/r")).unwrap();
        let lines = lines(&launch);
        assert!(!lines.contains("memory-backend") && !lines.contains("vhost-user"), "{lines}");
        let card: Vec<_> = lines.lines().filter(|line| line.contains("net0")).collect();
        insta::assert_snapshot!(card.join("\n"), @r"
        -netdev stream,id=net0,server=on,addr.type=unix,addr.path=net0.sock
        -device e1000,netdev=net0,mac=02:00:00:00:00:01,romfile=
        ");
    }

    #[test]
    fn the_network_is_booted_by_the_interface_rom() {
        let interfaces = [interface("eth0", 1, &[])];
        let launch =
            Launch::new("pxe", &vm(Boot::Network), &interfaces, None, Accel::Tcg, RunDirectory::new("/r"))
                .unwrap();
        assert!(lines(&launch).contains("-boot n"));
        assert!(!lines(&launch).contains("romfile="), "the ROM is what boots");
    }

    #[test]
    fn what_linux_would_cut_is_an_error() {
        let addresses: Vec<String> = (0..200).map(|n| format!("10.0.0.{n}/24")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let interfaces = [interface("eth0", 1, &addresses)];
        let boot = vm(Boot::Image("debian".into()));
        let error =
            Launch::new("pc1", &boot, &interfaces, Some(&image()), Accel::Tcg, RunDirectory::new("/r"));
        assert!(matches!(error, Err(LaunchError::CommandLine(2048..))));
    }
}
