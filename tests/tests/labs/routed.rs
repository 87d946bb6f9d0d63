//! Labs with routers: what is in another VLAN is reached by its gateway, and by no other router's.

use crate::common::{Lab, topology};

/// The same networks at two routers, a rule that lets nothing in, and a route that leads nowhere.
const TENANTS: &str = "version: 1
vlans:
  users: { id: 10, gateway: 10.0.10.1/24 }
  servers: { id: 20, gateway: 10.0.20.1/24 }
  quiet: { id: 40 }
  blue: { id: 30, gateway: 10.0.10.1/24, router: blue }
routers: { blue: {}, default: { routes: [{ to: 10.9.0.0/16, via: blackhole }] } }
security-groups: { shut: [] }
switches: { sw1: {} }
nodes:
  pc: { kind: station, addresses: [10.0.10.7/24] }
  web: { kind: station, addresses: [10.0.20.7/24] }
  shut: { kind: station, addresses: [10.0.20.8/24], security-groups: [shut] }
  far: { kind: station, addresses: [10.9.0.7/24] }
  tenant: { kind: station, addresses: [10.0.10.7/24] }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [web, sw1], vlan: { access: servers } }
  - { endpoints: [shut, sw1], vlan: { access: servers } }
  - { endpoints: [far, sw1], vlan: { access: quiet } }
  - { endpoints: [tenant, sw1], vlan: { access: blue } }
expect:
  - pc -> web icmp allow
  - shut -> pc tcp/80 allow
  - pc -> shut icmp deny because policy
  - tenant -> web icmp deny because no-route
  - pc -> far icmp deny because blackhole
  - pc -> web arp deny
";

#[test]
fn what_is_in_another_vlan_is_reached_by_the_gateway_as_the_file_alone_says() {
    let lab = Lab::new();
    let file = topology("routed.vnet.yaml");
    let (told, _) = lab.expect(0, &["test", &file]);
    assert!(told.contains("9 of 9 expectations hold; the file alone says the same of 9"), "{told}");
    lab.expect(0, &["up", "-d", &file]);
    let (told, _) = lab.expect(0, &["trace", "pc1", "web1", "icmp"]);
    assert!(told.contains("router default: the route to 10.0.20.0/24 (line "), "{told}");
    assert!(told.contains("reaches web1:eth0"), "{told}");
    let (ports, _) = lab.expect(0, &["show", "ports"]);
    assert!(ports.contains("@routers:vlans"), "{ports}");
    let (nodes, _) = lab.expect(0, &["show", "nodes"]);
    assert!(!nodes.contains("@routers"), "{nodes}");
    lab.expect(0, &["pingall"]);
    lab.expect(0, &["down"]);
    lab.assert_gone();
}

#[test]
fn a_router_passes_on_what_its_routes_lead_to_and_nothing_else() {
    let lab = Lab::new();
    let file = lab.write("tenants.vnet.yaml", TENANTS);
    let (told, _) = lab.expect(0, &["test", file.to_str().unwrap()]);
    assert!(told.contains("6 of 6 expectations hold; the file alone says the same of 6"), "{told}");
    lab.assert_gone();
}
