//! Real guests: what `exec` passes on and how it ends, and an answer from the wrong guest, which proves nothing.

use crate::common::{Lab, real_guests};

/// Two guests and a station in one VLAN.
const LAB: &str = "version: 1
vlans: { users: { id: 10 } }
switches: { sw1: {} }
nodes:
  vm1: { kind: vm, image: debian, memory: 256M, addresses: [10.0.10.1/24] }
  vm2: { kind: vm, image: debian, memory: 256M, addresses: [10.0.10.2/24] }
  st1: { kind: station, addresses: [10.0.10.9/24] }
links:
  - { endpoints: [vm1, sw1], vlan: { access: users } }
  - { endpoints: [vm2, sw1], vlan: { access: users } }
  - { endpoints: [st1, sw1], vlan: { access: users } }
expect:
  - st1 -> vm2 icmp allow
  - st1 -> vm2 arp allow
  - st1 -> vm2 tcp/7 allow
  - st1 -> vm2 icmp deny
";

#[test]
fn what_a_guest_says_is_passed_on_and_an_answer_from_another_guest_is_told() {
    if !real_guests() {
        return;
    }
    let lab = Lab::new();
    let file = lab.write("guests.vnet.yaml", LAB).display().to_string();
    lab.expect(0, &["up", "-d", &file]);
    commands_end_as_they_ended(&lab);

    let (said, _) = lab.expect(6, &["test", "--running"]);
    assert_eq!(said.matches("PASS").count(), 3, "{said}");
    assert!(said.contains("FAIL  st1 -> vm2 icmp deny"), "{said}");

    lab.expect(0, &["exec", "vm2", "--", "ip", "addr", "del", "10.0.10.2/24", "dev", "eth0"]);
    lab.expect(0, &["exec", "vm1", "--", "ip", "addr", "add", "10.0.10.2/24", "dev", "eth0"]);
    let (said, _) = lab.expect(6, &["test", "--running"]);
    assert!(!said.contains("PASS"), "vm1 answers for vm2: {said}");
    assert!(said.contains("the probe went to vm1:eth0, not to vm2:eth0"), "{said}");
    assert!(said.contains("not vm2:eth0 but"), "{said}");
    assert!(said.contains("ERROR st1 -> vm2 icmp deny"), "{said}");
    let (pinged, _) = lab.expect(0, &["pingall"]);
    let row = pinged.lines().find(|row| row.contains("st1:eth0") && row.contains("10.0.10.2"));
    assert!(row.is_some_and(|row| row.contains("not from vm2:eth0")), "{pinged}");
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

fn commands_end_as_they_ended(lab: &Lab) {
    let (said, _) = lab.expect(0, &["exec", "vm1", "--", "uname"]);
    assert_eq!(said, "Linux\n");
    let (_, complaint) = lab.expect(127, &["exec", "vm1", "--", "nosuch"]);
    assert_eq!(complaint, "nosuch: not found\n");
    lab.expect(137, &["exec", "vm1", "--", "sh", "-c", "kill -9 $$"]);
    let binary = lab.vnet(&["exec", "vm1", "--", "printf", "\\377\\000x"]);
    assert_eq!(binary.stdout, [0xff, 0, b'x']);
    let cut = lab.vnet(&["exec", "vm1", "--", "head", "-c", "100000", "/dev/zero"]);
    let complaint = String::from_utf8_lossy(&cut.stderr).into_owned();
    assert_eq!((cut.status.code(), cut.stdout.len()), (Some(1), 24 * 1024), "{complaint}");
    assert!(complaint.contains("75424 more bytes"), "{complaint}");
    let (_, complaint) = lab.expect(2, &["exec", "nobody", "--", "true"]);
    assert!(complaint.contains("there is no node `nobody`"), "{complaint}");
}
