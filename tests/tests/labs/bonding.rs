//! Two Debian guests with two wires between them: LACP makes one link of both, and goes on when one of them fails.

use crate::common::{Lab, real_guests};

/// Nothing on the way but wires: LACP's frames must cross the switch as they are.
const TOPOLOGY: &str = "\
version: 1
name: bond
nodes:
  left: { kind: vm, image: debian }
  right: { kind: vm, image: debian }
links:
  - [\"left:eth0\", \"right:eth0\"]
  - [\"left:eth1\", \"right:eth1\"]
";

/// What Linux does for a bond by IEEE 802.3ad, by sysfs alone; LACP's fast rate, so that a link is heard of every second.
fn bond(lab: &Lab, node: &str, address: &str) {
    let line = format!(
        "set -e; modprobe bonding; cd /sys/class/net/bond0/bonding
         echo 802.3ad > mode; echo 100 > miimon; echo fast > lacp_rate
         for link in eth0 eth1; do ip link set $link down; echo +$link > slaves; done
         ip addr add {address}/24 dev bond0; ip link set bond0 up"
    );
    lab.expect(0, &["exec", node, "--", "sh", "-c", &line]);
}

fn shell(lab: &Lab, node: &str, line: &str) -> String {
    lab.expect(0, &["exec", node, "--", "sh", "-c", line]).0
}

#[test]
fn two_wires_become_one_link_by_lacp() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    let file = lab.write("bond.vnet.yaml", TOPOLOGY);
    lab.expect(0, &["up", "-d", file.to_str().expect("a path of text")]);
    for (node, address) in [("left", "10.5.0.1"), ("right", "10.5.0.2")] {
        bond(&lab, node, address);
    }
    // Linux says itself how many links aggregate, and with whom (Documentation/networking/bonding.rst).
    for node in ["left", "right"] {
        let ports = "cat /sys/class/net/bond0/bonding/ad_num_ports";
        shell(&lab, node, &format!("until [ \"$({ports})\" = 2 ]; do :; done"));
        let partner = shell(&lab, node, "cat /sys/class/net/bond0/bonding/ad_partner_mac");
        let own =
            shell(&lab, if node == "left" { "right" } else { "left" }, "cat /sys/class/net/bond0/address");
        assert_eq!(partner, own);
        println!("{}", shell(&lab, node, "cat /proc/net/bonding/bond0"));
    }
    shell(&lab, "left", "ping -q -c 20 -i 0.05 -W 5 10.5.0.2");
    // The guest sees one of its links go, and the other carries what there is.
    lab.expect(0, &["link", "left:eth0", "down"]);
    lab.expect(0, &["link", "right:eth0", "down"]);
    shell(&lab, "left", "until [ \"$(cat /sys/class/net/bond0/bonding/ad_num_ports)\" = 1 ]; do :; done");
    shell(&lab, "left", "ping -q -c 20 -i 0.05 -W 5 10.5.0.2");
    lab.assert_sound();
}
