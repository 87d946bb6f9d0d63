//! The real cloud-init in namespaces of its own: what the host has of it is read, and nothing of the host is written. It has its own hostname, a root that
//! lies over the host's and vanishes, and of devices four that are nothing.

use crate::{
    common::{Lab, left_out},
    process::eventually,
    routing::{ok, run},
};
use std::{fs, path::Path, process::Command};

/// The file states what `db` is; `web` gets an address by DHCP.
const OFFICE: &str = "version: 1
name: office
ssh-keys: [KEY all@office]
vlans:
  users: { id: 10, gateway: [10.0.10.1/24, \"2001:db8:10::1/64\"], dhcp: { range: 10.0.10.50-10.0.10.99 } }
switches: { sw1: {} }
nodes:
  db: { kind: netns, addresses: [10.0.10.7/24, \"2001:db8:10::7/64\"], ssh-keys: [KEY db@office] }
  web: { kind: netns }
links:
  - { endpoints: [db, sw1], vlan: { access: users } }
  - { endpoints: [web, sw1], vlan: { access: users } }
";

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFpbnQ1aGVyZUlzTm9LZXlBdEFsbDAxMjM0NTY3";

/// What a cloud image would have; users are root alone.
const CONFIG: &str = "datasource_list: [NoCloud]
datasource: { NoCloud: { fs_label: null } }
disable_root: false
users: []
cloud_init_modules: [set_hostname, ssh]
system_info: { distro: debian, network: { renderers: [networkd] } }
";

/// In a folder: says the hostname that cloud-init sets, root's keys, and what it writes for networkd. Its words of a kernel's command line stand in place of
/// a machine's serial number.
const SANDBOX: &str = "set -e
mount --make-rprivate /
mkdir $1/over
mount -t tmpfs none $1/over
cd $1/over
mkdir up work root
mount -t overlay none -o lowerdir=/,upperdir=$1/over/up,workdir=$1/over/work root
mkdir -p root/var/lib/cloud root/root/.ssh root/etc/systemd/network
for place in run tmp dev var/lib/cloud root/.ssh etc/cloud/cloud.cfg.d etc/systemd/network; do
  mount -t tmpfs none root/$place
done
chmod 700 root/root/.ssh
for node in 'null 3' 'zero 5' 'random 8' 'urandom 9'; do
  mknod -m 666 root/dev/${node% *} c 1 ${node#* }
done
mount -t proc none root/proc
mount -t sysfs -o ro none root/sys
cp $1/cloud.cfg root/etc/cloud/cloud.cfg
export DEBUG_PROC_CMDLINE='ds=nocloud-net;s=http://169.254.169.254/'
chroot root hostname nobody
chroot root cloud-init init >$1/log 2>&1
chroot root hostname
cat root/root/.ssh/authorized_keys root/etc/systemd/network/*
";

/// What udhcpc tells this script of a lease.
const LEASE: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route replace default via $router
";

/// cloud-init's own reading of the file that its later versions fetch.
const PARSE: &str = "import json, urllib.request, yaml
from cloudinit.net.network_state import parse_net_config_data
said = urllib.request.urlopen('http://169.254.169.254/network-config', timeout=5).read()
state = parse_net_config_data(yaml.safe_load(said))
for interface in state.iter_interfaces():
    told = [interface['name'], interface['mac_address']]
    for subnet in interface['subnets']:
        told += [subnet['type'], '{}/{}'.format(subnet.get('address'), subnet.get('prefix'))]
        told += [route['network'] + '>' + route['gateway'] for route in subnet.get('routes', [])]
    print(' '.join(told))
";

fn is_left_out() -> bool {
    let runs = |line: &str| {
        let ran = Command::new("sh").args(["-c", &format!("{line} >/dev/null 2>&1")]).status();
        ran.is_ok_and(|status| status.success())
    };
    let lacks: Vec<_> = [
        ("root", "[ $(id -u) = 0 ]"),
        ("cloud-init (Debian: cloud-init)", "command -v cloud-init"),
        ("busybox", "command -v busybox"),
        ("namespaces and overlayfs", "unshare -m -u -p -f true && grep -q overlay /proc/filesystems"),
    ]
    .into_iter()
    .filter(|(_, line)| !runs(line))
    .map(|(what, _)| what)
    .collect();
    if !lacks.is_empty() {
        left_out(&format!("cloud-init as a client: this machine lacks {}", lacks.join(", ")));
    }
    !lacks.is_empty()
}

/// What cloud-init makes of a node.
fn init(lab: &Lab, node: &str) -> String {
    let folder = lab.path(&format!("{node}-cloud"));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("cloud.cfg"), CONFIG).expect("a file");
    let script = lab.write("sandbox.sh", SANDBOX);
    let line = format!("timeout 120 unshare -m -u -p -f sh {} {}", script.display(), folder.display());
    let (good, said) = run(lab, node, &line);
    assert!(good, "{node}: {said}\n{}", fs::read_to_string(folder.join("log")).unwrap_or_default());
    said
}

#[test]
fn cloud_init_takes_hostname_keys_and_network_from_the_gateway() {
    if is_left_out() {
        return;
    }
    let of_the_host = || {
        let read = |path: &str| fs::read(Path::new(path)).ok();
        ["/proc/sys/kernel/hostname", "/etc/hostname", "/etc/hosts", "/root/.ssh/authorized_keys"].map(read)
    };
    let before = of_the_host();
    let lab = Lab::new();
    let file = lab.write("office.vnet.yaml", &OFFICE.replace("KEY", KEY));
    lab.expect(0, &["up", "-d", file.to_str().unwrap()]);
    let script = lab.write("lease.sh", LEASE);
    ok(&lab, "web", &format!("chmod +x {0}; busybox udhcpc -f -q -n -i eth0 -s {0}", script.display()));

    let db = init(&lab, "db");
    println!("cloud-init in db:\n{db}");
    let mac = ok(&lab, "db", "ip -br link show eth0 | tr -s ' ' | cut -d ' ' -f 3");
    let network =
        ["Address=10.0.10.7/24", &format!("MACAddress={}", mac.trim()), "Gateway=10.0.10.1", "DNS=10.0.10.1"];
    assert!(db.starts_with("db\n"), "{db}");
    // In an order of its own.
    let keys = [format!("{KEY} all@office"), format!("{KEY} db@office")];
    keys.iter().for_each(|key| assert!(db.lines().any(|said| said == key), "no {key}: {db}"));
    network.iter().for_each(|line| assert!(db.lines().any(|said| said == *line), "no {line}: {db}"));

    // Its own fallback, DHCP on the first interface, is what it is to do.
    let web = init(&lab, "web");
    assert!(web.starts_with(&format!("web\n{KEY} all@office\n")) && !web.contains("db@office"), "{web}");
    assert!(web.contains("DHCP=ipv4\n"), "{web}");

    let parse = lab.write("parse.py", PARSE);
    let parsed = |node| ok(&lab, node, &format!("/usr/bin/python3 {}", parse.display()));
    let stated = format!(
        "eth0 {} static 10.0.10.7/24 0.0.0.0>10.0.10.1 ::>2001:db8:10::1 static 2001:db8:10::7/64\n",
        mac.trim()
    );
    assert_eq!(parsed("db"), stated);
    assert!(parsed("web").ends_with(" dhcp4 None/None\n"));
    // Many one after the other, and all at once.
    let fetch = "busybox wget -q -O - http://169.254.169.254/meta-data";
    let told = ok(&lab, "web", &format!("for n in $(seq 50); do {fetch} || exit 1; done"));
    assert_eq!(told.matches("\"local-hostname\":\"web\"").count(), 50, "{told}");
    let told = eventually("four at once are told", || {
        let (good, told) = run(&lab, "web", &format!("for n in 1 2 3 4; do {fetch} & done; wait"));
        good.then_some(told).filter(|told| told.matches("\"local-hostname\":\"web\"").count() == 4)
    });
    assert!(!told.contains("db@office"));
    let (routes, _) = lab.expect(0, &["show", "routes"]);
    assert!(routes.contains("169.254.169.254/32"), "{routes}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
    assert_eq!(of_the_host(), before, "nothing of the host was changed");
}
