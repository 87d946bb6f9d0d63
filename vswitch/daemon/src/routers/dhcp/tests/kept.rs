//! A server that follows another, and is told what that one has given: by somebody who may have it wrong.

use super::*;
use crate::control::protocol::{KEPT_LEASES, KeptLease, LeaseState};

fn kept(n: u8, mac_n: u8, name: Option<&str>, left_secs: u64) -> KeptLease {
    KeptLease { vlan: vlan(), address: ip(n), mac: mac(mac_n), name: name.map(str::to_owned), left_secs }
}

/// A server that was told so, a thousand seconds after it began.
fn after(leases: Vec<KeptLease>) -> Dhcp {
    let mut dhcp = server();
    dhcp.remember(leases, at(1000));
    dhcp
}

/// Whose each address is, and for how long.
fn rows(dhcp: &Dhcp, now: u64) -> Vec<(Ipv4Addr, MacAddr, Option<String>, u64)> {
    let rows = dhcp.leases(at(now)).into_iter().filter(|row| row.state == LeaseState::Bound);
    rows.map(|row| (row.address, row.mac, row.name, row.left_secs)).collect()
}

/// Who is called what, and found by that.
fn names(dhcp: &Dhcp, now: u64) -> Vec<(String, IpAddr)> {
    let named = rows(dhcp, now).into_iter().filter_map(|(address, _, name, _)| Some((name?, address.into())));
    let named: Vec<(String, IpAddr)> = named.collect();
    for (name, address) in &named {
        assert_eq!(dhcp.named(at(now)).addresses(vlan(), name), [*address]);
    }
    named
}

#[test]
fn a_server_goes_on_where_the_one_before_it_ended() {
    let mut first = server();
    assert_eq!(lease_as(&mut first, 1, 0, "phone1").as_deref(), Some("phone1"));
    let other = lease(&mut first, 2, 600);
    let one = first.leases(at(600)).iter().find(|row| row.mac == mac(1)).expect("its lease").address;
    let before = first.kept(at(600));
    let mut dhcp = after(before.leases.clone());
    assert_eq!((dhcp.kept(at(1000)), dhcp.kept(at(1000)).forgotten), (before, 0));
    let mut expected = [(one, mac(1), Some("phone1".into()), 3000), (other, mac(2), None, 3600)];
    expected.sort_by_key(|row| row.0);
    assert_eq!(rows(&dhcp, 1000), expected);
    assert_eq!(names(&dhcp, 1000), [("phone1".to_owned(), one.into())], "it is found at once");
    // All that may be given is somebody's: a third gets nothing, also if it says that it had it.
    assert_eq!(at_once(&mut dhcp, 3, 1001, &asks_of(3)), None);
    let again = |n, address| message(n, DhcpMessageType::Request, |repr| repr.requested_ip = Some(address));
    let refused = at_once(&mut dhcp, 3, 1001, &again(3, one));
    assert!(matches!(refused, Some(Next::Say(reply)) if read(&reply).0 == DhcpMessageType::Nak));
    // Who had it has it still: nobody is asked.
    let granted = at_once(&mut dhcp, 1, 1001, &again(1, one));
    assert!(matches!(granted, Some(Next::Say(reply)) if read(&reply) == (DhcpMessageType::Ack, one)));
    assert!(is_offer_of(at_once(&mut dhcp, 2, 1001, &asks_of(2)).as_ref(), other));
    // A lease ends when it would have ended.
    assert_eq!(rows(&after(first.kept(at(600)).leases), 4000).len(), 1);
}

#[test]
fn what_was_over_is_its_clients_before_it_is_anothers() {
    let mut dhcp = after(vec![kept(52, 1, Some("phone1"), 0), kept(50, 2, None, 0)]);
    assert_eq!((rows(&dhcp, 1000), names(&dhcp, 1000).len(), dhcp.pools(at(1000))[0].free), (vec![], 0, 2));
    assert_eq!((lease(&mut dhcp, 1, 1001), lease(&mut dhcp, 2, 1001)), (ip(52), ip(50)));
    let mut dhcp = after(vec![kept(52, 1, None, 0), kept(50, 2, None, 100)]);
    assert_eq!(lease(&mut dhcp, 3, 1001), ip(52), "nobody else is left");
    // What is over stays so, and is remembered again.
    let over = vec![kept(50, 2, None, 0), kept(52, 1, None, 0)];
    assert_eq!(after(over.clone()).kept(at(9000)).leases, over);
}

#[test]
fn what_fits_the_file_no_more_is_forgotten() {
    let elsewhere = KeptLease { vlan: VlanId::new(20).expect("an id"), ..kept(50, 1, None, 60) };
    let nobody = |octets| KeptLease { mac: MacAddr::new(octets), ..kept(50, 1, None, 60) };
    for wrong in [
        kept(1, 1, None, 60),  // the gateway's own
        kept(51, 1, None, 60), // stated for another
        kept(53, 1, None, 60), // stated for whoever has it
        kept(52, 7, None, 60), // by one who has another stated
        kept(60, 1, None, 60), // out of the range
        elsewhere,
        nobody([0; 6]),
        nobody([0xff; 6]),
        nobody([1, 0, 0, 0, 0, 1]),
    ] {
        let dhcp = after(vec![wrong.clone(), kept(52, 2, None, 60)]);
        assert_eq!(rows(&dhcp, 1000), [(ip(52), mac(2), None, 60)], "{wrong:?}");
        assert_eq!(dhcp.kept(at(1000)).forgotten, 1, "{wrong:?}");
    }
    // What the file states now is its host's own.
    assert_eq!(rows(&after(vec![kept(51, 7, None, 60)]), 1000).len(), 1);
}

#[test]
fn of_two_that_cannot_both_be_the_longer_holds() {
    let dhcp = after(vec![kept(50, 1, None, 60), kept(50, 2, None, 90), kept(52, 2, None, 70)]);
    assert_eq!((rows(&dhcp, 1000), dhcp.kept(at(1000)).forgotten), (vec![(ip(50), mac(2), None, 90)], 2));
    // A name is one client's in all VLANs of a router.
    let dhcp = after(vec![kept(50, 1, Some("phone1"), 60), kept(52, 2, Some("phone1"), 90)]);
    assert_eq!((rows(&dhcp, 1000).len(), names(&dhcp, 1000)), (2, vec![("phone1".into(), ip(52).into())]));
    // What this server has given itself holds, whatever it is told then.
    let mut dhcp = server();
    let (one, other) = (lease(&mut dhcp, 1, 0), lease(&mut dhcp, 2, 0));
    let before = dhcp.kept(at(0)).leases;
    let last = |address: Ipv4Addr| address.octets()[3];
    dhcp.remember(vec![kept(last(one), 3, None, 9999), kept(last(other), 1, None, 9999)], at(0));
    assert_eq!(dhcp.kept(at(0)).leases, before);
}

#[test]
fn no_client_is_called_what_none_may_call_itself() {
    let long = "a".repeat(64);
    for name in ["wpad", "localhost", "7", "", "-a", "a.b", "Phone1", "a b", "web1", "old", "test", &long] {
        let dhcp = after(vec![kept(50, 1, Some(name), 60)]);
        assert_eq!((names(&dhcp, 1000), rows(&dhcp, 1000).len()), (vec![], 1), "{name:?}");
    }
}

#[test]
fn only_what_was_granted_is_remembered_and_each_change_is_told() {
    let mut dhcp = server();
    let changes = |dhcp: &Dhcp| dhcp.counts().changes;
    let began = changes(&dhcp);
    let offered = discover(&mut dhcp, 1, 0).expect("an offer");
    assert_eq!((dhcp.kept(at(0)).leases, changes(&dhcp)), (vec![], began), "an offer is no lease");
    take(&mut dhcp, 1, 0, offered);
    let last = offered.octets()[3];
    assert_eq!((dhcp.kept(at(100)).leases, changes(&dhcp)), (vec![kept(last, 1, None, 3500)], began + 1));
    // Refused, asked for what is no address, given back by who never had it.
    take(&mut dhcp, 2, 0, offered);
    ask(&mut dhcp, 2, 0, &message(2, DhcpMessageType::Inform, |repr| repr.client_ip = ip(200)));
    let release = |n| message(n, DhcpMessageType::Release, |repr| repr.client_ip = offered);
    ask(&mut dhcp, 2, 100, &release(2));
    assert_eq!(changes(&dhcp), began + 1);
    // Given back, and that once.
    ask(&mut dhcp, 1, 100, &release(1));
    ask(&mut dhcp, 1, 200, &release(1));
    assert_eq!((dhcp.kept(at(200)).leases, changes(&dhcp)), (vec![kept(last, 1, None, 0)], began + 2));
    take(&mut dhcp, 1, 300, offered);
    let decline = message(1, DhcpMessageType::Decline, |repr| repr.requested_ip = Some(offered));
    ask(&mut dhcp, 1, 400, &decline);
    assert_eq!((dhcp.kept(at(400)).leases, changes(&dhcp)), (vec![], began + 4));
    // Of another file all may be other.
    dhcp.adopt("test", world(said()).routing(), &[], &std::iter::empty());
    assert_eq!(changes(&dhcp), began + 5);
}

#[test]
fn of_too_many_those_are_remembered_that_end_last() {
    let served = |number: u16, network: [u8; 2]| {
        let at = |third, fourth| Ipv4Addr::new(network[0], network[1], third, fourth);
        let dhcp = Some(Said4 { first: at(0, 2), last: at(255, 254), ..said() });
        Gateway { dhcp, ..gateway(number, &[&format!("{}/16", at(0, 1))]) }
    };
    let routers = vec![Router {
        name: "default".into(),
        gateways: vec![served(10, [10, 10]), served(20, [10, 20])],
        routes: vec![],
        nat: Vec::new(),
        nameservers: Vec::new(),
    }];
    let mut dhcp = Dhcp::default();
    dhcp.adopt("test", lab::world(routers).routing(), &[], &std::iter::empty());
    let lease = |number: u16, second: u8, n: u32| KeptLease {
        vlan: VlanId::new(number).expect("an id"),
        address: Ipv4Addr::from_bits(u32::from_be_bytes([10, second, 0, 0]) + n),
        mac: MacAddr::from_u64(0x0200_0000_0000 + (u64::from(number) << 20) + u64::from(n)),
        name: None,
        left_secs: u64::from(n),
    };
    let all = (2..40_002).flat_map(|n| [lease(10, 10, n), lease(20, 20, n)]).collect();
    dhcp.remember(all, at(0));
    let kept = dhcp.kept(at(0)).leases;
    assert_eq!((kept.len(), kept.iter().map(|lease| lease.left_secs).min()), (KEPT_LEASES, Some(7234)));
    assert!(kept.is_sorted_by_key(|lease| (lease.vlan, lease.address)));
    let most = serde_json::to_vec(&kept).expect("JSON").len() + 66 * kept.len();
    assert!(most < 16 << 20, "with the longest names a request has {most} bytes");
}

proptest! {
    /// Whatever a server is told: nobody has what is not his or another's, and who is told the same by it says the same.
    #[test]
    fn whatever_was_kept_no_two_have_one_address(
        told in prop::collection::vec((9u8..12, 48u8..56, 0u8..10, prop::option::of("[a-c]{0,2}"), 0u64..5), 0..40),
        own in prop::collection::vec(1u8..6, 0..4),
    ) {
        let told: Vec<_> = told.into_iter().map(|(number, n, mac_n, name, left)| KeptLease {
            vlan: VlanId::new(number.into()).expect("an id"),
            left_secs: left * 100,
            ..kept(n, mac_n, name.as_deref(), 0)
        }).collect();
        let mut dhcp = server();
        for n in own {
            // There may be none left.
            let address = discover(&mut dhcp, n, 0);
            address.and_then(|address| take(&mut dhcp, n, 0, address));
        }
        let given = dhcp.kept(at(0)).leases;
        dhcp.remember(told.clone(), at(0));
        let after = dhcp.kept(at(0));
        prop_assert!(given.iter().all(|lease| after.leases.contains(lease)), "{given:?} {after:?}");
        prop_assert_eq!(after.leases.len() + after.forgotten as usize, given.len() + told.len());
        let pool = &dhcp.servers[&vlan()].pool;
        prop_assert!(after.leases.iter().all(|lease| pool.may_have(lease.mac, lease.address)));
        let distinct = |of: fn(&KeptLease) -> String| after.leases.iter().map(of).collect::<BTreeSet<_>>().len();
        prop_assert_eq!(distinct(|lease| lease.mac.to_string()), after.leases.len());
        prop_assert_eq!(distinct(|lease| lease.address.to_string()), after.leases.len());
        let names: Vec<_> = names(&dhcp, 0).into_iter().map(|(name, _)| name).collect();
        prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let mut next = server();
        next.remember(after.leases.clone(), at(77));
        prop_assert_eq!(next.kept(at(77)).leases, after.leases);
        prop_assert!(pool.held() <= 4);
    }
}
