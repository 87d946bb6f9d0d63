//! The table of neighbours.

use super::*;
use std::{collections::BTreeMap, time::Duration};
use vswitch_core::{clock::Instant, route::Neighbours};

fn find(table: &Neighbours, vlan_id: u16, address: impl Into<IpAddr>) -> Option<u8> {
    table.find(vlan(vlan_id), address.into(), Instant::ZERO, false).map(|mac| mac.octets()[5])
}

#[test]
fn a_neighbour_is_known_in_its_vlan_by_its_last_address_until_it_is_forgotten() {
    let table = Neighbours::new([5, 6]);
    let address = v4(10, 1);
    assert_eq!(find(&table, 10, address), None);
    table.set(vlan(10), address.into(), mac(1), Instant::ZERO);
    table.set(vlan(20), address.into(), mac(2), Instant::ZERO);
    // The mapped address is the same word: no frame has it, and nobody asks.
    table.set(vlan(10), v6(10, 1).into(), mac(3), Instant::ZERO);
    assert_eq!(
        [(10, address.into()), (20, address.into()), (10, IpAddr::from(v6(10, 1)))]
            .map(|(vlan, address)| find(&table, vlan, address)),
        [Some(1), Some(2), Some(3)]
    );
    table.set(vlan(10), address.into(), mac(4), Instant::ZERO);
    assert_eq!(find(&table, 10, address), Some(4));
    table.forget(vlan(10), address.into());
    table.forget(vlan(30), address.into());
    assert_eq!([10, 20].map(|vlan| find(&table, vlan, address)), [None, Some(2)]);
}

#[test]
fn what_was_heard_and_used_is_told() {
    let table = Neighbours::new([5, 6]);
    let at = |secs| Instant::ZERO + Duration::from_secs(secs);
    table.set(vlan(10), v4(10, 1).into(), mac(1), at(5));
    let told = |now| {
        table
            .list(at(now))
            .into_iter()
            .map(|row| (row.address, row.heard_secs, row.used_secs))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(8), [(v4(10, 1).into(), 3, None)]);
    assert!(table.find(vlan(10), v4(10, 1).into(), at(9), false).is_some());
    assert_eq!(told(10), [(v4(10, 1).into(), 5, None)], "to look is not to use");
    assert!(table.find(vlan(10), v4(10, 1).into(), at(9), true).is_some());
    assert_eq!(told(10), [(v4(10, 1).into(), 5, Some(1))]);
    table.set(vlan(10), v4(10, 1).into(), mac(1), at(12));
    assert_eq!(told(12), [(v4(10, 1).into(), 0, None)], "since it was heard nothing went to it");
}

/// However many addresses somebody answers for, memory is bounded, and who is used stays.
#[test]
fn a_flood_of_neighbours_is_bounded_and_pushes_out_nobody_who_is_used() {
    let table = Neighbours::new([5, 6]);
    let at = |secs| Instant::ZERO + Duration::from_secs(secs);
    table.set(vlan(10), v4(10, 1).into(), mac(1), at(1));
    assert!(table.find(vlan(10), v4(10, 1).into(), at(2), true).is_some());
    for n in 0..200_000u32 {
        table.set(vlan(20), Ipv4Addr::from_bits(0x0a14_0000 | n).into(), mac(2), at(3));
    }
    let known = table.list(at(4)).len();
    assert!((12_000..=16_384).contains(&known), "{known}");
    assert_eq!(find(&table, 10, v4(10, 1)), Some(1));
}

/// Whoever reads meanwhile gets a whole answer or none.
#[test]
fn a_neighbour_that_changes_is_read_whole_or_not_at_all() {
    let table = Neighbours::new([5, 6]);
    let addresses: Vec<IpAddr> = (0..64).map(|n| v4(10, n).into()).collect();
    let owner: BTreeMap<IpAddr, u8> = (0..).zip(&addresses).map(|(n, address)| (*address, n)).collect();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut found = 0;
            while found < 100_000 {
                for (address, n) in &owner {
                    let mac = find(&table, 10, *address);
                    assert!(mac.is_none_or(|mac| mac == *n), "{address} is at {mac:?}");
                    found += usize::from(mac.is_some());
                }
            }
        });
        while !reader.is_finished() {
            for (n, address) in (0..).zip(&addresses) {
                table.set(vlan(10), *address, mac(n), Instant::ZERO);
                if n % 3 == 0 {
                    table.forget(vlan(10), *address);
                }
            }
        }
    });
}
