//! The lab that is made to be measured: one switch, and nothing on it but ports, and gateways where frames are routed.

use crate::{api::types::TopologyFile, failure::Failure};
use bench::{Plan, path::Path};
use std::{fmt::Write, path::PathBuf};
use vswitch_core::mac::MacAddr;

/// The VLANs of senders and receivers where frames are routed, with the addresses that frames have there.
const ROUTED: &str = "vlans:
  senders: { id: 10, gateway: 198.18.255.254/16 }
  receivers: { id: 20, gateway: 198.19.255.254/16 }
";
/// What comes from senders has the gateway's address.
const TRANSLATED: &str = "routers: { default: { nat: [{ masquerade: receivers }] } }\n";

/// The topology of a lab for `plan`.
pub(super) fn lab(plan: &Plan, poll_always: bool) -> String {
    let mut text = String::from("version: 1\nname: bench\ndatapath: { workers: 1");
    if let Some(cpu) = plan.switch_cpu {
        let _ = write!(text, ", cpus: [{cpu}]");
    }
    let poll = if poll_always { "always" } else { "adaptive" };
    let _ = writeln!(text, ", poll: {poll} }}\nswitches: {{ sw: {{ mac-aging: 3600s }} }}");
    let vlans = plan.variety.vlans;
    let names: Vec<_> =
        (1..=vlans).map(|id| if id == 1 { "default".into() } else { format!("v{id}") }).collect();
    if vlans > 1 {
        text.push_str("vlans:\n");
        (2..=vlans).for_each(|id| writeln!(text, "  v{id}: {{ id: {id} }}").unwrap_or_default());
    }
    let path = plan.route.path;
    text.push_str(if path == Path::Switched { "" } else { ROUTED });
    text.push_str(if path == Path::Nat { TRANSLATED } else { "" });
    text.push_str("nodes:\n");
    let macs = plan.variety.stations();
    let port = |port| writeln!(text, "  p{port}: {{ kind: vhost-user, limits: {{ macs: {macs} }} }}");
    (0..plan.ports).map(port).for_each(Result::unwrap_or_default);
    text.push_str("links:\n");
    for port in 0..plan.ports {
        let vlan = match path {
            Path::Switched if vlans > 0 => format!(", vlan: {{ trunk: [{}] }}", names.join(", ")),
            Path::Switched => String::new(),
            Path::Routed | Path::Nat => {
                format!(", vlan: {{ access: {} }}", if port % 2 == 0 { "senders" } else { "receivers" })
            }
        };
        let _ = writeln!(text, "  - {{ endpoints: [p{port}, sw]{vlan} }}");
    }
    text
}

/// That topology as a file that a controller takes.
pub(super) fn file(plan: &Plan, poll_always: bool) -> TopologyFile {
    let text = lab(plan, poll_always);
    TopologyFile { text, name: "bench".into(), base: PathBuf::from("/"), private_copy: true }
}

/// The MAC address that the gateways of the plan's lab will have, which is a copy and so has the name in its file; zeros where it needs none.
pub(super) fn gateway(plan: &Plan, file: &TopologyFile) -> Result<[u8; 6], Failure> {
    if plan.route.path == Path::Switched {
        return Ok([0; 6]);
    }
    let loaded = topology::load(&file.text, &file.name, &file.base)
        .map_err(|report| Failure::failed("bench", report.render(false)))?;
    let lab = loaded.plan.description;
    let mac = lab.routing.and_then(|routing| lab.ports.get(usize::from(routing.port.index()))?.as_ref()?.mac);
    mac.map(MacAddr::octets).ok_or_else(|| Failure::failed("bench", "the lab to be measured has no gateway"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bench::{
        Mode,
        frames::{FrameSize, Payload, Variety},
        offload::Offload,
        path::Route,
    };
    use std::time::Duration;

    fn plan(ports: usize, macs: u32, vlans: u16) -> Plan {
        Plan {
            device: String::new(),
            sizes: vec![FrameSize::Fixed(64)],
            offloads: vec![Offload::None],
            ring_size: None,
            variety: Variety { flows: macs.max(vlans.into()), macs, vlans },
            route: Route::default(),
            payload: Payload::default(),
            ports,
            busy_ports: 2,
            two_directions: false,
            mode: Mode::Closed { window: None },
            measured: Duration::from_secs(1),
            repetitions: 1,
            limits: false,
            mergeable: false,
            generator_cpu: 0,
            switch_cpu: Some(1),
        }
    }

    #[test]
    fn every_lab_that_is_made_is_a_good_one() {
        for (ports, macs, vlans) in [(2, 1, 0), (3, 300, 1), (2, 1, 4094), (512, 1 << 20, 0)] {
            let text = lab(&plan(ports, macs, vlans), vlans > 0);
            let loaded = topology::load(&text, "bench", std::path::Path::new("/"))
                .map_err(|report| report.render(false));
            let loaded = loaded.unwrap_or_else(|report| panic!("{ports} ports, {vlans} VLANs: {report}"));
            let cpus: Vec<_> = loaded.plan.datapath.cpus.iter().map(|cpu| cpu.number).collect();
            assert_eq!((loaded.plan.nodes.len(), cpus), (ports, vec![1]));
            assert_eq!(loaded.plan.datapath.always_poll, vlans > 0);
            let limits = loaded.plan.description.ports.iter().flatten().map(|port| port.mac_limit);
            assert!(
                limits.into_iter().all(|limit| limit == macs.max(vlans.into())),
                "every station is learned"
            );
        }
    }

    #[test]
    fn a_lab_of_gateways_is_a_good_one_and_says_where_they_are() {
        let mut plan = plan(4, 1, 0);
        assert_eq!(gateway(&plan, &file(&plan, false)).expect("none is needed"), [0; 6]);
        for path in [Path::Routed, Path::Nat] {
            plan.route.path = path;
            let file = file(&plan, false);
            let loaded =
                topology::load(&file.text, "bench", &file.base).map_err(|report| report.render(false));
            let ports = loaded.unwrap_or_else(|report| panic!("{path}: {report}")).plan.description.ports;
            let macs: Vec<_> = ports.iter().flatten().filter_map(|port| port.mac).collect();
            let gateway = gateway(&plan, &file).expect("it has one");
            assert_eq!(macs, [MacAddr::new(gateway)], "only the routers' port has one");
        }
    }
}
