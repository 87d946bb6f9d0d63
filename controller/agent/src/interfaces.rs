//! The guest's Ethernet interfaces as they are at this moment: drivers come and go, so nothing is remembered.

use crate::netlink::{self, Message, Netlink};
use ipnet::IpNet;
use probe::{
    Mac,
    answer::{Counters, InterfaceName, InterfaceReport},
};
use std::{io, net::IpAddr};

/// Lengths of `struct ifinfomsg` and `struct ifaddrmsg`, which stand before the attributes.
const LINK: usize = 16;
const ADDRESS: usize = 8;
/// Attributes of links and addresses (linux/if_link.h, linux/if_addr.h).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_STATS64: u16 = 23;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// One Ethernet interface.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    /// Its number in this kernel; a driver that is loaded again gets another.
    pub(crate) index: u32,
    name: String,
    /// Its MAC address.
    pub(crate) mac: Mac,
    link_up: bool,
    counters: Counters,
}

impl Interface {
    /// Its two names.
    pub(crate) fn name(self) -> InterfaceName {
        InterfaceName { name: self.name, mac: self.mac }
    }

    fn read(message: &Message) -> Option<Self> {
        if message.u16(2)? != libc::ARPHRD_ETHER {
            return None;
        }
        let running = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
        let name = message.attribute(LINK, IFLA_IFNAME)?.split(|byte| *byte == 0).next()?;
        Some(Self {
            index: message.u32(4)?,
            name: String::from_utf8_lossy(name).into_owned(),
            mac: Mac::new(message.attribute(LINK, IFLA_ADDRESS)?.try_into().ok()?),
            link_up: message.u32(8)? & running == running,
            counters: message.attribute(LINK, IFLA_STATS64).and_then(counters).unwrap_or_default(),
        })
    }
}

/// The Ethernet interfaces in the kernel's order.
pub(crate) fn list() -> io::Result<Vec<Interface>> {
    let links = Netlink::ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; LINK])?;
    Ok(links.iter().filter(|message| message.kind == libc::RTM_NEWLINK).filter_map(Interface::read).collect())
}

/// The interface of this MAC address.
pub(crate) fn find(mac: Mac) -> io::Result<Option<Interface>> {
    Ok(list()?.into_iter().find(|interface| interface.mac == mac))
}

/// The index of the interface that has this address; loopback counts.
pub(crate) fn index_of(address: IpAddr) -> io::Result<Option<u32>> {
    Ok(addresses()?.into_iter().find(|(_, net)| net.addr() == address).map(|(index, _)| index))
}

/// All of them with their addresses.
pub(crate) fn report() -> io::Result<Vec<InterfaceReport>> {
    let addresses = addresses()?;
    let report = |interface: Interface| InterfaceReport {
        addresses: addresses
            .iter()
            .filter(|(index, _)| *index == interface.index)
            .map(|(_, net)| *net)
            .collect(),
        name: interface.name,
        mac: interface.mac,
        link_up: interface.link_up,
        counters: interface.counters,
    };
    Ok(list()?.into_iter().map(report).collect())
}

/// Every address of this host, with the index of its interface.
fn addresses() -> io::Result<Vec<(u32, IpNet)>> {
    let messages = Netlink::ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS])?;
    let read = |message: &Message| {
        // On a point-to-point link IFA_ADDRESS is the other end's.
        let own =
            message.attribute(ADDRESS, IFA_LOCAL).or_else(|| message.attribute(ADDRESS, IFA_ADDRESS))?;
        let net = IpNet::new(netlink::address(own)?, message.u8(1)?).ok()?;
        Some((message.u32(4)?, net))
    };
    Ok(messages.iter().filter(|message| message.kind == libc::RTM_NEWADDR).filter_map(read).collect())
}

/// Reads `struct rtnl_link_stats64`: frames, bytes, errors and drops, each received before sent.
fn counters(stats: &[u8]) -> Option<Counters> {
    let number = |at: usize| Some(u64::from_ne_bytes(*stats.get(at * 8..)?.first_chunk()?));
    Some(Counters {
        received_frames: number(0)?,
        sent_frames: number(1)?,
        received_bytes: number(2)?,
        sent_bytes: number(3)?,
        received_drops: number(6)?,
        sent_drops: number(7)?,
    })
}
