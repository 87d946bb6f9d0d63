//! `vnet station`: one process with all end stations of a lab, each with interfaces on real vhost-user rings.
//!
//! ```text
//! control socket -> control: Hello { name } -> end_station::Host: what is asked
//!                                                  | ^
//! vhost-user socket ---------------> port: frames -+-+
//! ```
//! One thread serves all: it sleeps until a ring signals, a message comes or a timer is due, and then turns only to the
//! stations concerned. Only a handshake with the switch, which may block, has a thread to itself.
//!
//! Files: `port` the connection to the switch, `control` the socket, `turns` the thread's loop. What a station is stands
//! in the crate `end-station`, for the bundled guest is one too.

mod control;
mod port;
mod turns;

#[cfg(test)]
mod tests;

use anyhow::{Context, ensure};
use end_station::MAX_ADDRESSES;
use ipnet::IpNet;
use probe::Mac;
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf};
use vswitch_core::mac::MacAddr;

/// The MTU where none is given.
const DEFAULT_MTU: u16 = 1500;
/// The least MTU: that of IPv6 (RFC 8200 §5).
const MIN_MTU: u16 = 1280;

/// All stations of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The stations; names differ.
    pub stations: Vec<StationSpec>,
    /// Where the control socket is to be.
    pub control: PathBuf,
}

/// One station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StationSpec {
    /// Its name, which `Hello` chooses it by.
    pub name: String,
    /// Its interfaces; of two that lead to the same place the first is taken.
    pub interfaces: Vec<InterfaceSpec>,
}

/// One interface of a station.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceSpec {
    /// What the station calls it.
    pub name: String,
    /// The switch's vhost-user socket.
    pub socket: PathBuf,
    /// Its MAC address: no group address, and not zero.
    pub mac: MacAddr,
    /// Its addresses with their subnets, seven at most; a link-local one comes besides.
    pub addresses: Vec<IpNet>,
    /// The default gateways on its link: of each family one at most.
    pub gateways: Vec<IpAddr>,
    /// The longest IP packet in bytes, 1280 at least; none: 1500.
    pub mtu: Option<u16>,
}

impl InterfaceSpec {
    fn mac(&self) -> Mac {
        Mac::new(self.mac.octets())
    }

    fn mtu(&self) -> u16 {
        self.mtu.unwrap_or(DEFAULT_MTU)
    }

    fn check(&self) -> anyhow::Result<()> {
        let mac = self.mac;
        ensure!(!mac.is_group() && !mac.is_zero(), "{mac} is no MAC address of an interface");
        ensure!(self.mtu() >= MIN_MTU, "an MTU of {} is less than {MIN_MTU}", self.mtu());
        ensure!(
            self.addresses.len() <= MAX_ADDRESSES,
            "{} addresses are more than {MAX_ADDRESSES}",
            self.addresses.len()
        );
        let of_v4 = self.gateways.iter().filter(|gateway| gateway.is_ipv4()).count();
        ensure!(of_v4 <= 1 && self.gateways.len() - of_v4 <= 1, "two default gateways of one family");
        for address in &self.addresses {
            let addr = address.addr();
            let broadcast =
                matches!(address, IpNet::V4(net) if net.prefix_len() < 31 && net.addr() == net.broadcast());
            ensure!(
                !addr.is_multicast()
                    && !addr.is_unspecified()
                    && !broadcast
                    && addr != std::net::Ipv4Addr::BROADCAST,
                "{address} is no address of an interface"
            );
        }
        Ok(())
    }
}

impl Spec {
    fn check(&self) -> anyhow::Result<()> {
        for (at, station) in self.stations.iter().enumerate() {
            let twice = self.stations[..at].iter().any(|other| other.name == station.name);
            ensure!(!twice, "two stations are called {}", station.name);
            for (at, interface) in station.interfaces.iter().enumerate() {
                let place = || format!("{}:{}", station.name, interface.name);
                interface.check().with_context(place)?;
                let twice = station.interfaces[..at].iter().any(|other| other.mac == interface.mac);
                ensure!(
                    !twice,
                    "{}: {} is the MAC address of another interface of it",
                    place(),
                    interface.mac
                );
            }
        }
        Ok(())
    }
}

/// Runs all stations, for ever. The control socket is there before anything is connected.
///
/// # Errors
/// The specification contradicts itself, or the control socket cannot be made; later, if the kernel refuses to wait.
pub fn run(spec: Spec) -> anyhow::Result<()> {
    spec.check()?;
    let control = control::Control::bind(&spec.control)?;
    turns::Turns::new(spec.stations, control)?.run()
}
