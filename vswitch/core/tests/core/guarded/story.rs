//! Frames' ways through firewalls told step by step, word for word.

use super::{ACK, H1, PC1, SYN_ACK, WEB1, link, open_office, outcome, segment, syn, to_all, udp, v4};
use crate::support::lab::mac;
use insta::assert_snapshot;
use vswitch_core::{build, drop_reason::DropReason, mac::MacAddr};

#[test]
fn nobody_enters_unless_a_rule_says_so() {
    let mut bench = open_office();
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4000, 22)))), Err(DropReason::PolicyIngress));
    assert_snapshot!(bench.story(), @r#"
    came in at h1:eth0 (line 9), 54 bytes, 02:00:00:00:00:03 -> 02:00:00:00:00:01, IPv4 10.0.0.3 > 10.0.0.1 TCP 4000 > 22 SYN
    admitted by sw1 to VLAN users (10) as untagged
    FDB of sw1: 02:00:00:00:00:01 is on web1:eth0
    was stopped by the firewall of web1:eth0 (line 7) to its guest: no rule allows it; would pass with `- { direction: ingress, protocol: tcp, port: 22, remote-ip-prefix: 10.0.0.3/32 }` in a security group of web1:eth0 (web)
    lost at web1:eth0 (line 7): policy-ingress - the receiver's security groups do not let the frame enter; mend: add an ingress rule for it to a security group of the receiver; `vnet trace` names the rule that decided
    "#);
    assert_eq!(outcome(bench.send(H1, &syn(3, 1, (4000, 80)))), Ok(()));
    assert_snapshot!(bench.story(), @r#"
    came in at h1:eth0 (line 9), 54 bytes, 02:00:00:00:00:03 -> 02:00:00:00:00:01, IPv4 10.0.0.3 > 10.0.0.1 TCP 4000 > 80 SYN
    admitted by sw1 to VLAN users (10) as untagged
    FDB of sw1: 02:00:00:00:00:01 is on web1:eth0
    passed the firewall of web1:eth0 (line 7) to its guest: group web allows it (line 2)
    "#);
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, (4000, 22)))), Ok(()));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 8), 54 bytes, 02:00:00:00:00:02 -> 02:00:00:00:00:01, IPv4 10.0.0.2 > 10.0.0.1 TCP 4000 > 22 SYN
    admitted by sw1 to VLAN users (10) as untagged
    passed the firewall of pc1:eth0 (line 8) from its guest: no rule forbids it
    FDB of sw1: 02:00:00:00:00:01 is on web1:eth0
    passed the firewall of web1:eth0 (line 7) to its guest: group web allows it (line 3)
    "#);
}

#[test]
fn what_answers_comes_back_and_what_answers_nothing_does_not() {
    let mut bench = open_office();
    let ports = (4000, 80);
    assert_eq!(outcome(bench.send(PC1, &syn(2, 1, ports))), Ok(()));
    let answer = segment(syn(1, 2, (80, 4000)), SYN_ACK, 5000, 1001);
    assert_eq!(outcome(bench.send(WEB1, &answer)), Ok(()));
    assert_snapshot!(bench.story(), @r#"
    came in at web1:eth0 (line 7), 54 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:02, IPv4 10.0.0.1 > 10.0.0.2 TCP 80 > 4000 SYN ACK
    admitted by sw1 to VLAN users (10) as untagged
    passed the firewall of web1:eth0 (line 7) from its guest: it belongs to a connection that was opened from outside (syn-received)
    FDB of sw1: 02:00:00:00:00:02 is on pc1:eth0
    passed the firewall of pc1:eth0 (line 8) to its guest: it belongs to a connection that its guest opened (syn-received)
    "#);
    assert_eq!(outcome(bench.send(PC1, &segment(syn(2, 1, ports), ACK, 1001, 5001))), Ok(()));
    let stray = segment(syn(1, 2, (81, 4000)), ACK, 5000, 1001);
    assert_eq!(outcome(bench.send(WEB1, &stray)), Err(DropReason::InvalidEgress));
    assert_snapshot!(bench.story(), @r#"
    came in at web1:eth0 (line 7), 54 bytes, 02:00:00:00:00:01 -> 02:00:00:00:00:02, IPv4 10.0.0.1 > 10.0.0.2 TCP 81 > 4000 ACK
    admitted by sw1 to VLAN users (10) as untagged
    was stopped by the firewall of web1:eth0 (line 7) from its guest: it belongs to no connection, or contradicts it
    dropped: invalid-egress - the frame belongs to no connection that the sender's firewall knows, or does not fit its state; line 7 guards it by security groups web; mend: open the connection anew; if frames of it take another way, let stateless rules allow them
    "#);
    assert_eq!(
        outcome(bench.send(H1, &segment(syn(3, 1, ports), ACK, 1, 1))),
        Err(DropReason::InvalidIngress)
    );
    assert_eq!(outcome(bench.send(PC1, &udp(2, 3, (53, 53)))), Ok(()), "egress is allowed");
    assert_eq!(outcome(bench.send(H1, &udp(3, 2, (53, 53)))), Ok(()), "its answer");
    assert_eq!(outcome(bench.send(H1, &udp(3, 2, (53, 54)))), Err(DropReason::PolicyIngress));
}

#[test]
fn every_copy_of_a_flood_is_judged_by_its_own_receiver() {
    let mut bench = open_office();
    bench.send(H1, &build::arp_request(to_all(3), v4(3), v4(1)));
    assert_snapshot!(bench.story(), @r#"
    came in at h1:eth0 (line 9), 42 bytes, 02:00:00:00:00:03 -> ff:ff:ff:ff:ff:ff, ARP who has 10.0.0.1, tell 10.0.0.3
    admitted by sw1 to VLAN users (10) as untagged
    sw1 flooded it to 3 ports (group address): web1:eth0, pc1:eth0, pc2:eth0
    passed the firewall of web1:eth0 (line 7) to its guest: what a link needs (ARP, neighbour discovery, group membership, DHCP) takes no rule
    passed the firewall of pc1:eth0 (line 8) to its guest: what a link needs (ARP, neighbour discovery, group membership, DHCP) takes no rule
    passed the firewall of pc2:eth0 (line 10) to its guest: what a link needs (ARP, neighbour discovery, group membership, DHCP) takes no rule
    "#);
    let all = build::udp(to_all(3), build::Addresses::V4(v4(3), [10, 0, 0, 255].into()), (9, 9), b"hello");
    bench.send(H1, &all);
    assert_snapshot!(bench.story(), @r#"
    came in at h1:eth0 (line 9), 47 bytes, 02:00:00:00:00:03 -> ff:ff:ff:ff:ff:ff, IPv4 10.0.0.3 > 10.0.0.255 UDP 9 > 9
    admitted by sw1 to VLAN users (10) as untagged
    sw1 flooded it to 3 ports (group address): web1:eth0, pc1:eth0, pc2:eth0
    was stopped by the firewall of web1:eth0 (line 7) to its guest: no rule allows it; would pass with `- { direction: ingress, protocol: udp, port: 9, remote-ip-prefix: 10.0.0.3/32 }` in a security group of web1:eth0 (web)
    lost at web1:eth0 (line 7): policy-ingress - the receiver's security groups do not let the frame enter; mend: add an ingress rule for it to a security group of the receiver; `vnet trace` names the rule that decided
    was stopped by the firewall of pc1:eth0 (line 8) to its guest: no rule allows it; would pass with `- { direction: ingress, protocol: udp, port: 9, remote-ip-prefix: 10.0.0.3/32 }` in a security group of pc1:eth0 (admin)
    lost at pc1:eth0 (line 8): policy-ingress - the receiver's security groups do not let the frame enter; mend: add an ingress rule for it to a security group of the receiver; `vnet trace` names the rule that decided
    was stopped by the firewall of pc2:eth0 (line 10) to its guest: no rule allows it; would pass with `- { direction: ingress, protocol: udp, port: 9, remote-ip-prefix: 10.0.0.3/32 }` in a security group of pc2:eth0 (none)
    lost at pc2:eth0 (line 10): policy-ingress - the receiver's security groups do not let the frame enter; mend: add an ingress rule for it to a security group of the receiver; `vnet trace` names the rule that decided
    "#);
}

#[test]
fn a_liar_is_not_even_learned() {
    let mut bench = open_office();
    let lie = build::arp_reply(link(2, 3), v4(1), v4(3));
    assert_eq!(outcome(bench.send(PC1, &lie)), Err(DropReason::AntiSpoof));
    assert_snapshot!(bench.story(), @r#"
    came in at pc1:eth0 (line 8), 42 bytes, 02:00:00:00:00:02 -> 02:00:00:00:00:03, ARP 10.0.0.1 is at 02:00:00:00:00:02
    admitted by sw1 to VLAN users (10) as untagged
    dropped: anti-spoof - the frame names a MAC or IP address as its sender's that is not the interface's; line 8 guards it by security groups admin; mend: if the guest may use it, add it to the interface's `allowed-addresses`, or set `anti-spoof: false`
    "#);
    let lie =
        build::raw(build::Ethernet { src: mac(9), dst: MacAddr::BROADCAST, tag: None }, 0x88b5, &[0; 46]);
    assert_eq!(outcome(bench.send(PC1, &lie)), Err(DropReason::AntiSpoof));
    assert!(!bench.story().contains("learned"));
}
