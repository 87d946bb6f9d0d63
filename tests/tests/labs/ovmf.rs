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

/// A virtual machine, until it is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("QEMU ends");
    }
}

#[test]
fn the_firmware_gets_an_address_from_its_gateway_and_fetches_a_file_of_another_vlan() {
    if !real_guests() {
        return;
    }
    let has_busybox = Command::new("busybox").arg("true").output().is_ok();
    if !Path::new(CODE).exists() || !has_busybox || !rustix::process::geteuid().is_root() {
        left_out(
            "OVMF behind a router: this needs root, for a namespace, busybox, and the firmware (Debian: ovmf)",
        );
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
    fs::copy(VARIABLES, lab.path("variables")).expect("the firmware's variables");
    let line = format!(
        "exec qemu-system-x86_64 -display none -machine q35,graphics=off -serial stdio -monitor none -m 256 \
         -drive if=pflash,format=raw,readonly=on,file={CODE} -drive if=pflash,format=raw,file={} \
         -drive if=none,id=disk,format=raw,file=fat:rw:{} -device virtio-blk-pci,drive=disk,bootindex=0 {}",
        lab.path("variables").display(),
        disk.display(),
        lab.expect(0, &["export", "qemu", "mine", "--memory", "256"]).0.trim(),
    );
    let console = File::create(lab.path("console")).expect("a file");
    let mut qemu = Command::new("sh");
    let qemu = qemu.args(["-c", &line]).stdin(Stdio::null()).stdout(console).spawn();
    let _machine = Machine(qemu.expect("QEMU starts"));
    let said = eventually("the firmware shows what it fetched", || {
        let said = fs::read(lab.path("console")).expect("a file");
        let said = String::from_utf8_lossy(&said).into_owned();
        said.contains("fetched by the firmware").then_some(said)
    });
    let (leases, _) = lab.expect(0, &["show", "leases"]);
    let own = leases.lines().find(|line| line.contains("mine") && line.contains("bound"));
    let own = own.and_then(|line| line.split_whitespace().find(|word| word.starts_with("10.0.10.")));
    let own = own.unwrap_or_else(|| panic!("no lease: {leases}"));
    // Between words it says how they are coloured.
    assert!(said.contains(own), "{own}: {said}");
    lab.assert_sound();
}
