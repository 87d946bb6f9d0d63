//! OVMF, a third driver: the UEFI firmware of virtual machines, whose shell does what a script on its disk says.

use crate::{
    common::{Lab, left_out, real_guests},
    ipxe::ROUTED,
    process::eventually,
    ways_out::Server,
};
use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// It shows what it fetched.
const SCRIPT: &str = "connect -r\r\nifconfig -s eth0 dhcp\r\nstall 8000000\r\nifconfig -l eth0\r\n\
    http http://10.0.20.10/file fs0:\\got\r\ntype fs0:\\got\r\n";

/// Its own driver and its own network stack: else it takes iPXE, the ROM of the network card.
const OWN_DRIVER: &str = "-global virtio-net-pci.romfile= -global virtio-net-pci.disable-legacy=on";

/// It does not try PXE for a minute before HTTP.
const NO_PXE: &str = "-fw_cfg name=opt/org.tianocore/IPv4PXESupport,string=n \
    -fw_cfg name=opt/org.tianocore/IPv6PXESupport,string=n";

/// A virtual machine, until it is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("QEMU ends");
    }
}

/// QEMU with that firmware and these arguments, whose console is a file of the test's.
fn start(lab: &Lab, arguments: &str) -> Machine {
    fs::copy(VARIABLES, lab.path("variables")).expect("the firmware's variables");
    let line = format!(
        "exec qemu-system-x86_64 -display none -machine q35,graphics=off -serial stdio -monitor none -m 256 \
         -drive if=pflash,format=raw,readonly=on,file={CODE} -drive if=pflash,format=raw,file={} {arguments} {}",
        lab.path("variables").display(),
        lab.expect(0, &["export", "qemu", "mine", "--memory", "256"]).0.trim(),
    );
    let console = File::create(lab.path("console")).expect("a file");
    let mut qemu = Command::new("sh");
    let qemu = qemu.args(["-c", &line]).stdin(Stdio::null()).stdout(console).spawn();
    Machine(qemu.expect("QEMU starts"))
}

/// All that it said, once that is in it.
fn says(lab: &Lab, wanted: &str) -> String {
    eventually(wanted, || {
        let said = fs::read(lab.path("console")).expect("a file");
        let said = String::from_utf8_lossy(&said).into_owned();
        said.contains(wanted).then_some(said)
    })
}

/// Whether it can be played here, with a namespace beside it.
fn is_left_out() -> bool {
    if !real_guests() {
        return true;
    }
    let has_busybox = Command::new("busybox").arg("true").output().is_ok();
    let is_left_out = !Path::new(CODE).exists() || !has_busybox || !rustix::process::geteuid().is_root();
    if is_left_out {
        left_out(
            "OVMF behind a router: this needs root, for a namespace, busybox, and the firmware (Debian: ovmf)",
        );
    }
    is_left_out
}

#[test]
fn the_firmware_boots_what_dhcp_says() {
    if is_left_out() {
        return;
    }
    for (name, first, boot, wanted) in [
        // By HTTP, which it tries behind PXE for all addresses: it has no more to do than to be fetched.
        (
            "fw-url",
            NO_PXE,
            "{ file: \"http://10.0.20.10/boot.efi\" }",
            ["URI: http://10.0.20.10/boot.efi", "File Size: 70000 Bytes"],
        ),
        // By PXE, of a server that does not speak TFTP.
        (
            "fw-name",
            "",
            "{ server: web, file: boot/grubx64.efi }",
            ["Server IP address is 10.0.20.10", "NBP filename is boot/grubx64.efi"],
        ),
    ] {
        let lab = Lab::new();
        let text = ROUTED.replace("name: boot", &format!("name: {name}"));
        let text = text.replace("10.0.10.99 }", &format!("10.0.10.99, boot: {boot} }}"));
        lab.expect(0, &["up", "-d", lab.write("boot.vnet.yaml", &text).to_str().expect("a path of ASCII")]);
        let _web = Server::start(&lab, "web", &[]);
        fs::write(lab.path("web-web").join("boot.efi"), vec![7; 70_000]).expect("a file");
        let _machine = start(&lab, &format!("{OWN_DRIVER} {first}"));
        for wanted in wanted {
            println!("{}", says(&lab, wanted));
        }
        lab.assert_sound();
    }
}

#[test]
fn the_firmware_gets_an_address_from_its_gateway_and_fetches_a_file_of_another_vlan() {
    if is_left_out() {
        return;
    }
    let lab = Lab::new();
    // Namespaces are named after their lab, and the ROM's test may run beside this one.
    let file = lab.write("boot.vnet.yaml", &ROUTED.replace("name: boot", "name: firmware"));
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of ASCII")]);
    let _web = Server::start(&lab, "web", b"fetched by the firmware\n");
    let disk = lab.path("disk");
    fs::create_dir(&disk).expect("a folder");
    fs::write(disk.join("startup.nsh"), SCRIPT).expect("a file");
    let disk = format!("-drive if=none,id=disk,format=raw,file=fat:rw:{}", disk.display());
    let _machine = start(&lab, &format!("{disk} -device virtio-blk-pci,drive=disk,bootindex=0"));
    let said = says(&lab, "fetched by the firmware");
    let (leases, _) = lab.expect(0, &["show", "leases"]);
    let own = leases.lines().find(|line| line.contains("mine") && line.contains("bound"));
    let own = own.and_then(|line| line.split_whitespace().find(|word| word.starts_with("10.0.10.")));
    let own = own.unwrap_or_else(|| panic!("no lease: {leases}"));
    // Between words it says how they are coloured.
    assert!(said.contains(own), "{own}: {said}");
    lab.assert_sound();
}
