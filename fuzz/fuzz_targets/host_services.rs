//! Any messages for the DHCP server and the name server of a gateway: nothing panics, answers are no longer than their protocol lets them be, and addresses
//! that are given are those that the gateway may give.
//!
//! ```text
//! input: (what u8 | length u16, big-endian | a message)*        what: even to DHCP, odd to DNS; 2: somebody has the address; 4: a second passes
//! ```
#![no_main]

#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../../vswitch/daemon/src/routers/tests/lab.rs"]
mod lab;

use lab::{serving, vlan};
use libfuzzer_sys::fuzz_target;
use std::{sync::Arc, time::Duration};
use vswitch_core::{clock::Instant, mac::MacAddr, world::World};
use vswitchd::routers::{
    dhcp::{Dhcp, Next},
    dns::{Dns, Said},
};

thread_local! {
    static WORLD: Arc<World> = serving();
}

fuzz_target!(|input: &[u8]| {
    let (mut dhcp, mut dns) = (Dhcp::default(), Dns::default());
    WORLD.with(|world| {
        dhcp.adopt("test", world.routing(), &[], &std::iter::empty());
        dns.adopt("test", world.routing(), &[], |_| None);
    });
    let mut now = Instant::ZERO;
    let mut left = input;
    while let [what, high, low, rest @ ..] = left {
        let (message, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
        left = after;
        if what % 2 == 1 {
            let answer = dns.answer(vlan(10), message, &dhcp.named(now));
            assert!(!matches!(answer, Some(Said::Here(answer)) if answer.len() > 1232));
            continue;
        }
        // A client speaks from its own address.
        let mac = message.get(28..34).map_or([2, 0, 0, 0, 0, 1], |mac| mac.try_into().expect("six"));
        let mut next: Vec<Next> =
            dhcp.receive((vlan(10), MacAddr::new(mac)), message, now, |_| None).into_iter().collect();
        if let (Some(Next::Ask(address)), true) = (next.first(), what & 2 != 0) {
            next.extend(dhcp.heard((vlan(10), *address), MacAddr::new([2, 0, 0, 0, 0, 9]), now, |_| None));
        }
        if what & 4 != 0 {
            now = now + Duration::from_secs(1);
            next.extend(dhcp.tick(now, |_, _| None).into_iter().map(|(_, next)| next));
        }
        for next in next {
            let given = match next {
                Next::Say(reply) => {
                    assert!((300..=548).contains(&reply.payload.len()));
                    reply.payload[16..20].try_into().expect("four")
                }
                Next::Ask(address) => address.octets(),
                Next::Wait => continue,
            };
            assert!(given == [0; 4] || given[..3] == [10, 0, 10] && (50..=99).contains(&given[3]));
        }
    }
});
