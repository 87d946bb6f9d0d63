//! Routes and neighbours as the kernel sees them: which way a destination lies, and who answers there.

use crate::{
    deadline::Deadline,
    netlink::{self, Message, Netlink, push_attribute},
    origin::Origin,
};
use probe::{Mac, answer::Unreachable};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use std::{io, net::IpAddr};

/// Lengths of `struct rtmsg` and `struct ndmsg`, which stand before the attributes.
const ROUTE: usize = 12;
const NEIGHBOUR: usize = 12;

/// A neighbour in one of these states has answered, or needs not to.
const RESOLVED: u16 = libc::NUD_REACHABLE
    | libc::NUD_STALE
    | libc::NUD_DELAY
    | libc::NUD_PROBE
    | libc::NUD_PERMANENT
    | libc::NUD_NOARP;

/// The first step towards a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NextHop {
    interface: u32,
    address: IpAddr,
    /// It is this host itself: there is nobody to resolve.
    local: bool,
}

/// What keeps `dst` from being reached, if anything on this host does: no route, or nobody answering at the next hop.
pub(crate) fn hindrance(dst: IpAddr, origin: &Origin) -> io::Result<Option<Unreachable>> {
    let Some(hop) = next_hop(dst, origin)? else { return Ok(Some(Unreachable::NoRoute)) };
    if hop.local || state_of(hop)?.is_some_and(|state| state & RESOLVED != 0) {
        return Ok(None);
    }
    Ok(Some(Unreachable::NoNeighbour))
}

/// Asks by ARP or ND who has `dst`, whatever was known before, and waits for the answer.
pub(crate) fn resolve(dst: IpAddr, origin: &Origin, deadline: Deadline) -> io::Result<Option<Mac>> {
    let interface = match origin.interface() {
        Some(index) => index,
        None => match next_hop(dst, origin)? {
            Some(hop) if !hop.local => hop.interface,
            _ => return Ok(None),
        },
    };
    forget(interface, dst)?;
    // After the old entry's end, lest that be taken for the answer; before the question, lest the answer be missed.
    let mut changes = Netlink::subscribe(libc::RTMGRP_NEIGH as u32)?;
    // NTF_USE has the kernel treat the entry as used, so it asks at once, and no datagram of ours needs to be sent.
    let question = neighbour(interface, dst, libc::NTF_USE);
    Netlink::ask(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE, &question)?;
    loop {
        let Some(left) = deadline.left() else { return Ok(None) };
        if poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&left))? == 0 {
            return Ok(None);
        }
        for change in changes.receive()?.iter().filter(|change| is_of(change, interface, dst)) {
            let state = change.u16(8).unwrap_or(0);
            if state & RESOLVED != 0 {
                let mac = change.attribute(NEIGHBOUR, libc::NDA_LLADDR).and_then(|mac| mac.try_into().ok());
                return Ok(mac.map(Mac::new));
            }
            if state & libc::NUD_FAILED != 0 {
                return Ok(None);
            }
        }
    }
}

/// Takes an entry out of the neighbour table, if it stands there.
fn forget(interface: u32, dst: IpAddr) -> io::Result<()> {
    match Netlink::ask(libc::RTM_DELNEIGH, 0, &neighbour(interface, dst, 0)) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
        other => other.map(drop),
    }
}

/// The next hop towards `dst`; none: no route leads there.
fn next_hop(dst: IpAddr, origin: &Origin) -> io::Result<Option<NextHop>> {
    let dst_octets = netlink::octets(dst);
    let mut body = vec![0; ROUTE];
    body[0] = netlink::family(dst);
    body[1] = (dst_octets.len() * 8) as u8;
    push_attribute(&mut body, libc::RTA_DST, &dst_octets);
    if let Some(source) = origin.address() {
        let source = netlink::octets(source);
        body[2] = (source.len() * 8) as u8;
        push_attribute(&mut body, libc::RTA_SRC, &source);
    }
    if let Some(interface) = origin.interface() {
        push_attribute(&mut body, libc::RTA_OIF, &interface.to_ne_bytes());
    }
    let routes = match Netlink::ask(libc::RTM_GETROUTE, 0, &body) {
        Ok(routes) => routes,
        Err(error) => {
            return match Errno::from_io_error(&error) {
                // No route; one that says unreachable, prohibit or blackhole; no such source; an interface that is gone.
                Some(
                    Errno::NETUNREACH
                    | Errno::HOSTUNREACH
                    | Errno::ACCESS
                    | Errno::INVAL
                    | Errno::NODEV
                    | Errno::NETDOWN,
                ) => Ok(None),
                _ => Err(error),
            };
        }
    };
    let read = |route: &Message| {
        let kind = route.u8(7)?;
        // IPv6 answers with a route of type `unreachable` where IPv4 answers with an error.
        if !matches!(kind, libc::RTN_UNICAST | libc::RTN_LOCAL) {
            return None;
        }
        let interface = route.attribute(ROUTE, libc::RTA_OIF)?.try_into().map(u32::from_ne_bytes).ok()?;
        let gateway = route.attribute(ROUTE, libc::RTA_GATEWAY).and_then(netlink::address);
        Some(NextHop { interface, address: gateway.unwrap_or(dst), local: kind == libc::RTN_LOCAL })
    };
    Ok(routes.iter().filter(|message| message.kind == libc::RTM_NEWROUTE).find_map(read))
}

/// The state (NUD_…) of the next hop in the neighbour table, if it stands there.
fn state_of(hop: NextHop) -> io::Result<Option<u16>> {
    let mut body = [0; NEIGHBOUR];
    body[0] = netlink::family(hop.address);
    let neighbours = Netlink::ask(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, &body)?;
    let entry = neighbours.iter().find(|entry| is_of(entry, hop.interface, hop.address));
    Ok(entry.and_then(|entry| entry.u16(8)))
}

fn is_of(entry: &Message, interface: u32, address: IpAddr) -> bool {
    entry.kind == libc::RTM_NEWNEIGH
        && entry.u32(4) == Some(interface)
        && entry.attribute(NEIGHBOUR, libc::NDA_DST).and_then(netlink::address) == Some(address)
}

/// A message about one neighbour.
fn neighbour(interface: u32, address: IpAddr, flags: u8) -> Vec<u8> {
    let mut body = vec![0; NEIGHBOUR];
    body[0] = netlink::family(address);
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    body[10] = flags;
    push_attribute(&mut body, libc::NDA_DST, &netlink::octets(address));
    body
}
