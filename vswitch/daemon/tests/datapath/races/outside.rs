//! Addresses that lead out of memory, for the moment between two stores: a switch that looked twice at a descriptor would check the one
//! and use the other, and be killed by the fence around the guest's memory.

use super::{ATTACKER, Attacker, offer_burst};
use crate::{
    lab::{DEADLINE, access, description, frame, mac, vlan},
    rig::Rig,
};
use std::time::Instant;
use vhost_net_backend::{
    device::fault::PortFault,
    driver::{Config, Descriptor},
    layout::DESC_WRITE,
    net_header,
};

/// Descriptors of the attacker's ring; each is a chain.
const HEADS: u16 = 128;

/// Guests that have to be caught at it.
const CAUGHT: usize = 40;

/// The attacker's transmitq or receiveq (ring 1 or 0) leads outside, again and again, until it was caught often enough.
fn leads_outside(ring: u16) {
    let (mut caught, mut moved, end) = (0, 0, Instant::now() + DEADLINE);
    while caught < CAUGHT {
        let mut rig = Rig::new(&description(&[access(10), access(10)]), &Config::default());
        [0, 1].into_iter().for_each(|place| rig.teach(place, vlan(10), mac(place.into())));
        let memory = rig.guests[ATTACKER].memory.clone();
        let (first, behind) = (memory.guest_address(0), memory.guest_address(memory.len()));
        // Behind the last byte, before the first, and across the end.
        let outside = [behind, first - 2048, behind - 20];
        let [own, attacked] = [ring; 2].map(|index| rig.guests[ATTACKER].raw_ring(index).unwrap());
        let (len, flags) = if ring == 1 { (72, 0) } else { (2048, DESC_WRITE) };
        let message = [&[0; net_header::LEN], frame(mac(1), mac(ATTACKER), 60, 1).as_slice()].concat();
        let answer = frame(mac(ATTACKER), mac(1), 60, 1);
        let inside = move |index| Descriptor { addr: own.buffer(index), len, flags, next: 0 };
        for index in 0..HEADS {
            attacked.fill(index, &message);
            attacked.set_descriptor(index, inside(index));
        }
        let driver = rig.guests[ATTACKER].raw_ring(ring).unwrap();
        let attacker = Attacker::start(move |round| {
            for index in 0..HEADS {
                let addr = outside[(round % 3) as usize];
                attacked.set_descriptor(index, Descriptor { addr, ..inside(index) });
                attacked.set_descriptor(index, inside(index));
            }
        });
        while rig.fault_of(ATTACKER).is_none() {
            assert!(Instant::now() < end, "{caught} were caught, {moved} frames moved");
            if ring == 1 {
                offer_burst(&driver, HEADS);
            } else {
                driver.set_avail_index(driver.used_index().wrapping_add(HEADS));
                let pair = &mut rig.guests[1].pair;
                (0..64).for_each(|_| {
                    pair.transmit(&answer);
                });
                pair.flush();
            }
            rig.turn();
            rig.guests[1].pair.receive(|_, _| {});
        }
        attacker.end();
        let why = rig.fault_of(ATTACKER);
        let what = "a buffer lies outside of guest memory";
        assert_eq!(why, Some(PortFault::Ring { ring, what }));
        rig.lawful();
        moved += [0, 1].map(|place| rig.counters_of(place).to_port.delivered).into_iter().sum::<u64>();
        caught += 1;
    }
    assert!(moved > 0, "most looks found what is inside");
}

#[test]
fn transmit_buffers_that_lead_outside_for_a_moment_are_never_read() {
    leads_outside(1);
}

#[test]
fn receive_buffers_that_lead_outside_for_a_moment_are_never_written() {
    leads_outside(0);
}
