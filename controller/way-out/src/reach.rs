//! Where a packet may go: to whoever this machine's user may reach, but for what listens for this machine alone.

use crate::Resolver;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where this machine says whom it asks for names.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of name servers.
pub(crate) const DNS: u16 = 53;

/// What becomes of what is sent to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A socket of this machine's leads there.
    To(SocketAddr),
    /// The sender is told that nobody listens.
    Refused,
    /// It is to many, who are not there, or to no address, and nobody is told (RFC 1122 §3.2.2).
    Lost,
}

/// Its own addresses, and whom it asks for names.
pub(crate) struct Reach {
    own: Vec<IpNet>,
    resolver: Resolver,
}

impl Reach {
    pub(crate) fn new(own: Vec<IpNet>, resolver: Resolver) -> Self {
        Self { own, resolver }
    }

    /// Whether it answers for this address.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        self.own.iter().any(|own| own.addr() == address)
    }

    /// The way to an address and port. Of its own address there is that of names alone.
    pub(crate) fn way(&self, dst: SocketAddr) -> Way {
        match self.host(dst.ip()) {
            Way::To(_) if dst.port() == 0 => Way::Refused,
            Way::To(_) => Way::To(dst),
            Way::Refused if self.is_own(dst.ip()) && dst.port() == DNS => {
                (self.resolver)().map_or(Way::Refused, Way::To)
            }
            other => other,
        }
    }

    /// The way to an address, port 0.
    pub(crate) fn host(&self, address: IpAddr) -> Way {
        let of_all = |own: &IpNet| matches!(own, IpNet::V4(net) if net.prefix_len() < 31 && address == net.broadcast());
        match address {
            _ if self.is_own(address) => Way::Refused,
            _ if address.is_unspecified() || address.is_multicast() || self.own.iter().any(of_all) => {
                Way::Lost
            }
            IpAddr::V4(v4) if v4.is_broadcast() => Way::Lost,
            IpAddr::V4(v4) if is_this_machines_v4(v4) => Way::Refused,
            IpAddr::V6(v6) if is_this_machines_v6(v6) => Way::Refused,
            _ => Way::To(SocketAddr::new(address, 0)),
        }
    }
}

/// The loopback network, "this host" (which connects to the loopback interface), link-local addresses, and what is nobody's.
fn is_this_machines_v4(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_link_local() || matches!(address.octets()[0], 0 | 240..)
}

/// The same of IPv6, and all that has an IPv4 address in it which the kernel, or a translator beside it, would take for that.
fn is_this_machines_v6(address: Ipv6Addr) -> bool {
    let within = |network: [u16; 6]| address.segments()[..6] == network;
    let translated = within([0; 6]) || within([0, 0, 0, 0, 0, 0xffff]) || within([0, 0, 0, 0, 0xffff, 0]);
    address.is_loopback() || address.is_unicast_link_local() || translated
}

/// The first name server of a resolv.conf(5) that has an address without a zone.
pub(crate) fn name_server(text: &str) -> Option<SocketAddr> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let address = lines.find_map(|mut words| {
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    })?;
    Some(SocketAddr::new(address, DNS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach() -> Reach {
        let own = ["192.0.2.1/24", "2001:db8::1/64"].map(|own| own.parse().expect("an address"));
        Reach::new(own.into(), Box::new(|| name_server("nameserver 127.0.0.53\n")))
    }

    #[test]
    fn nothing_that_listens_for_this_machine_alone_has_a_way() {
        for closed in [
            "127.0.0.1",
            "127.255.0.1",
            "0.1.2.3",
            "169.254.169.254",
            "240.0.0.1",
            "192.0.2.1",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:203.0.113.5",
            "::ffff:0:127.0.0.1",
            "fe80::1",
            "febf::1",
            "2001:db8::1",
        ] {
            let address: IpAddr = closed.parse().expect("an address");
            for port in [1, 22, 80, 65_535] {
                assert_eq!(reach().way(SocketAddr::new(address, port)), Way::Refused, "{closed}");
            }
            assert!(!matches!(reach().host(address), Way::To(_)), "{closed}");
        }
        for many in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "192.0.2.255",
            "ff02::1",
            "ff0e::5",
        ] {
            let address = many.parse().expect("an address");
            assert_eq!(reach().way(SocketAddr::new(address, 80)), Way::Lost, "{many}");
        }
    }

    #[test]
    fn everything_else_has_one_and_its_own_address_that_of_names() {
        for open in [
            "10.0.0.1",
            "192.168.1.1",
            "203.0.113.80",
            "192.0.2.7",
            "2001:db8:80::80",
            "fd00::1",
            "64:ff9b::7f00:1",
        ] {
            let dst = SocketAddr::new(open.parse().expect("an address"), 80);
            assert_eq!(reach().way(dst), Way::To(dst));
            assert_eq!(reach().way(SocketAddr::new(dst.ip(), 0)), Way::Refused);
        }
        let resolver = "127.0.0.53:53".parse().expect("an address");
        for own in ["192.0.2.1", "2001:db8::1"] {
            let dst = SocketAddr::new(own.parse().expect("an address"), DNS);
            assert_eq!(reach().way(dst), Way::To(resolver));
        }
        // Of other addresses the same port is as any other.
        let loopback = "127.0.0.53:53".parse().expect("an address");
        assert_eq!(reach().way(loopback), Way::Refused);
        let nobody = Reach { resolver: Box::new(|| None), ..reach() };
        assert_eq!(nobody.way("192.0.2.1:53".parse().expect("an address")), Way::Refused);
    }

    #[test]
    fn the_first_name_server_with_an_address_is_asked() {
        let text = "# nameserver 1.1.1.1\nsearch example.com\nnameserver fe80::1%eth0\n nameserver\t2001:db8::53 # ours\nnameserver 9.9.9.9\n";
        assert_eq!(name_server(text), Some("[2001:db8::53]:53".parse().expect("an address")));
        assert_eq!(name_server("nameserver\noptions edns0\n"), None);
    }
}
