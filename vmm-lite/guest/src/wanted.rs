//! What the command line says of interfaces: `vnet.if=MAC,NAME[,ADDRESS/LENGTH]...[,gateway=ADDRESS]...[,mtu=BYTES]`, as the Linux image
//! reads it too.

use crate::console::say;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use end_station::MAX_ADDRESSES;
use ipnet::IpNet;
use smoltcp::wire::EthernetAddress;

/// The MTU of an interface of which none is said.
pub(crate) const DEFAULT_MTU: u16 = 1500;

/// One interface as it is wanted.
pub(crate) struct Wanted<'a> {
    pub(crate) mac: [u8; 6],
    pub(crate) name: &'a str,
    pub(crate) addresses: Vec<IpNet>,
    /// The default gateways, of each family one at most.
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) mtu: Option<u16>,
}

impl<'a> Wanted<'a> {
    /// Reads what stands behind `vnet.if=`; none if it is not of that form. Addresses that no interface can have are said
    /// and left out.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(',');
        let mac = words.next()?.parse::<EthernetAddress>().ok()?.0;
        let (name, mut addresses, mut mtu) = (words.next()?, Vec::new(), None);
        let mut gateways: Vec<IpAddr> = Vec::new();
        for word in words {
            match word.split_once('=') {
                Some(("mtu", bytes)) => mtu = Some(bytes.parse().ok()?),
                Some(("gateway", gateway)) => {
                    let gateway: IpAddr = gateway.parse().ok()?;
                    gateways.retain(|other| other.is_ipv4() != gateway.is_ipv4());
                    gateways.push(gateway);
                }
                Some(_) => return None,
                None => addresses.push(word.parse::<IpNet>().ok()?),
            }
        }
        addresses.retain(|address| {
            let unicast = is_unicast(address.addr());
            if !unicast {
                say!("{name}: {address} is no address of an interface");
            }
            unicast
        });
        for address in addresses.iter().skip(MAX_ADDRESSES) {
            say!("{name}: no room for {address}");
        }
        addresses.truncate(MAX_ADDRESSES);
        Some(Self { mac, name, addresses, gateways, mtu })
    }
}

fn is_unicast(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && address != Ipv4Addr::BROADCAST
}
