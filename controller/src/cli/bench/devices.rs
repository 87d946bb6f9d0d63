//! The lab that is made to be measured: one switch, and nothing on it but ports.

use crate::api::types::TopologyFile;
use bench::Plan;
use std::{fmt::Write, path::PathBuf};

/// The topology of a lab for `plan`: one switch, and nothing on it but ports.
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
    text.push_str("nodes:\n");
    let macs = plan.variety.stations();
    let port = |port| writeln!(text, "  p{port}: {{ kind: vhost-user, limits: {{ macs: {macs} }} }}");
    (0..plan.ports).map(port).for_each(Result::unwrap_or_default);
    text.push_str("links:\n");
    for port in 0..plan.ports {
        let vlan =
            if vlans > 0 { format!(", vlan: {{ trunk: [{}] }}", names.join(", ")) } else { String::new() };
        let _ = writeln!(text, "  - {{ endpoints: [p{port}, sw]{vlan} }}");
    }
    text
}

/// That topology as a file that a controller takes.
pub(super) fn file(plan: &Plan, poll_always: bool) -> TopologyFile {
    let text = lab(plan, poll_always);
    TopologyFile { text, name: "bench".into(), base: PathBuf::from("/"), private_copy: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bench::{
        Mode,
        frames::{FrameSize, Payload, Variety},
        offload::Offload,
    };
    use std::{path::Path, time::Duration};

    fn plan(ports: usize, macs: u32, vlans: u16) -> Plan {
        Plan {
            device: String::new(),
            sizes: vec![FrameSize::Fixed(64)],
            offloads: vec![Offload::None],
            ring_size: None,
            variety: Variety { flows: macs.max(vlans.into()), macs, vlans },
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
            let loaded =
                topology::load(&text, "bench", Path::new("/")).map_err(|report| report.render(false));
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
}
