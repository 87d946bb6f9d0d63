//! DHCP messages (RFC 2131 §2, RFC 2132), as a server reads and writes them.

use smoltcp::wire::{DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpOptionWriter, DhcpPacket};
use std::net::Ipv4Addr;
use vswitch_core::{description::Boot, mac::MacAddr};

/// Options (RFC 2132; 77: RFC 3004; 119: RFC 3397; 121: RFC 3442).
pub(super) mod option {
    pub(crate) const SUBNET_MASK: u8 = 1;
    pub(crate) const ROUTER: u8 = 3;
    pub(crate) const DNS_SERVERS: u8 = 6;
    pub(crate) const HOST_NAME: u8 = 12;
    pub(crate) const DOMAIN_NAME: u8 = 15;
    pub(crate) const MTU: u8 = 26;
    pub(crate) const BROADCAST: u8 = 28;
    pub(crate) const REQUESTED_IP: u8 = 50;
    pub(crate) const LEASE_TIME: u8 = 51;
    pub(crate) const MESSAGE_TYPE: u8 = 53;
    pub(crate) const SERVER_ID: u8 = 54;
    pub(crate) const PARAMETERS: u8 = 55;
    pub(crate) const MESSAGE: u8 = 56;
    pub(crate) const RENEWAL_TIME: u8 = 58;
    pub(crate) const REBINDING_TIME: u8 = 59;
    pub(crate) const VENDOR_CLASS: u8 = 60;
    pub(crate) const CLIENT_ID: u8 = 61;
    pub(crate) const TFTP_SERVER: u8 = 66;
    pub(crate) const BOOT_FILE: u8 = 67;
    pub(crate) const USER_CLASS: u8 = 77;
    pub(crate) const DOMAIN_SEARCH: u8 = 119;
    pub(crate) const CLASSLESS_ROUTES: u8 = 121;
}

/// What stands before the options: fixed fields and the magic number.
const FIXED: usize = 240;
/// A message has at least as many bytes: older clients and relays expect those of BOOTP (RFC 1542 §2.1).
const LEAST: usize = 300;
/// A client takes at least as many, less the headers of IP and UDP (RFC 2131 §2).
const MOST: usize = 548;

/// What stands in the place of the server's and the file's name before the options (RFC 2131 §2).
const FILE: std::ops::Range<usize> = 108..236;

/// The class of firmware that boots by HTTP, and of who tells it what (UEFI 2.10 §24.7.3.1).
pub(super) const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) kind: DhcpMessageType,
    pub(super) transaction: u32,
    pub(super) mac: MacAddr,
    /// Its own address, where it has one that works; else unspecified.
    pub(super) client: Ipv4Addr,
    /// The relay between it and us; else unspecified.
    pub(super) relay: Ipv4Addr,
    /// It cannot take unicast before it has an address.
    pub(super) broadcast: bool,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    /// Its own name for itself, which is given back (RFC 6842).
    pub(super) id: Option<Vec<u8>>,
    /// The options that it wants, in its order.
    pub(super) parameters: Vec<u8>,
    /// The name that it gives itself.
    pub(super) host_name: Option<String>,
    /// What it boots from the network.
    pub(super) boots: Boots,
}

/// What a client takes that boots from the network: a URL, the name of a file on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boots {
    /// Both: it does not say that it boots, or it is iPXE.
    Any,
    /// The name of a file (PXE 2.1 §2.2).
    Names,
    /// A URL of HTTP (UEFI 2.10 §24.7).
    Http,
}

impl Asked {
    /// None if it is no message of a client on Ethernet.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(payload).ok()?;
        if packet.opcode() != DhcpOpCode::Request
            || u16::from(packet.hardware_type()) != 1
            || packet.hardware_len() != 6
            || packet.magic_number() != 0x6382_5363
        {
            return None;
        }
        let mac = MacAddr::new(packet.client_hardware_address().0);
        let mut asked = Self {
            kind: DhcpMessageType::Unknown(0),
            transaction: packet.transaction_id(),
            mac,
            client: packet.client_ip(),
            relay: packet.relay_agent_ip(),
            broadcast: packet.flags().contains(DhcpFlags::BROADCAST),
            requested: None,
            server: None,
            id: None,
            parameters: Vec::new(),
            host_name: None,
            boots: Boots::Any,
        };
        let mut is_ipxe = false;
        let address = |data: &[u8]| data.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets));
        for DhcpOption { kind, data } in packet.options() {
            match (kind, data) {
                (option::MESSAGE_TYPE, &[kind]) => asked.kind = kind.into(),
                (option::REQUESTED_IP, data) => asked.requested = address(data),
                (option::SERVER_ID, data) => asked.server = address(data),
                (option::CLIENT_ID, data) => asked.id = Some(data.to_vec()),
                (option::PARAMETERS, data) => asked.parameters = data.to_vec(),
                (option::HOST_NAME, data) => asked.host_name = host_name(data),
                (option::VENDOR_CLASS, data) if data.starts_with(b"PXEClient") => asked.boots = Boots::Names,
                (option::VENDOR_CLASS, data) if data.starts_with(HTTP_CLIENT) => asked.boots = Boots::Http,
                // With the length of RFC 3004, or without.
                (option::USER_CLASS, data) => is_ipxe = data.ends_with(b"iPXE"),
                _ => {}
            }
        }
        // It calls itself what firmware does.
        if is_ipxe {
            asked.boots = Boots::Any;
        }
        (!mac.is_group() && !mac.is_zero()).then_some(asked)
    }

    /// Whether it wants that option; one that names none wants all.
    pub(super) fn wants(&self, option: u8) -> bool {
        self.parameters.is_empty() || self.parameters.contains(&option)
    }
}

/// Names that mean something else to who asks for them: itself, what gives it a proxy (WPAD) or a tunnel (ISATAP), its router, the domain above the lab's.
const RESERVED: [&str; 5] = ["localhost", "wpad", "isatap", "gateway", "internal"];

/// A name that a host may give itself (RFC 1123 §2.1), its first label: none that could be taken for a number or means something else.
pub(super) fn host_name(data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data).ok()?.trim_end_matches('\0');
    let label = text.split('.').next().filter(|label| (1..=63).contains(&label.len()))?;
    let is_sound = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_number = label.bytes().all(|byte| byte.is_ascii_digit());
    let is_sound = is_sound && !is_number && !label.starts_with('-') && !label.ends_with('-');
    Some(label.to_ascii_lowercase()).filter(|label| is_sound && !RESERVED.contains(&label.as_str()))
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) kind: DhcpMessageType,
    /// The address that is given; else unspecified.
    pub(super) yours: Ipv4Addr,
    /// In this order, as far as there is room; what a client cannot do without first.
    pub(super) options: Vec<(u8, Vec<u8>)>,
    /// What it boots.
    pub(super) boot: Option<Boot>,
}

impl Said {
    /// The message that answers `asked`.
    pub(super) fn write(&self, asked: &Asked) -> Vec<u8> {
        let mut bytes = vec![0; MOST];
        let kind: u8 = self.kind.into();
        let head = [(option::MESSAGE_TYPE, vec![kind])];
        let id = asked.id.iter().map(|id| (option::CLIENT_ID, id.clone()));
        let mut end = FIXED;
        for (kind, data) in head.into_iter().chain(self.options.iter().cloned()).chain(id) {
            // One byte is left for the end.
            if data.len() <= 255 && end + 2 + data.len() < MOST {
                let mut writer = DhcpOptionWriter::new(&mut bytes[end..]);
                if writer.emit(DhcpOption { kind, data: &data }).is_ok() {
                    end += 2 + data.len();
                }
            }
        }
        bytes[end] = 255;
        bytes.truncate((end + 1).max(LEAST));
        if let Some(Boot { file, .. }) = &self.boot {
            // The rest is zero, the last byte always.
            for (place, byte) in bytes[FILE][..FILE.len() - 1].iter_mut().zip(file.bytes()) {
                *place = byte;
            }
        }
        let mut packet = DhcpPacket::new_unchecked(bytes);
        packet.set_opcode(DhcpOpCode::Reply);
        packet.set_hardware_type(1.into());
        packet.set_hardware_len(6);
        packet.set_transaction_id(asked.transaction);
        packet.set_client_hardware_address(smoltcp::wire::EthernetAddress(asked.mac.octets()));
        packet.set_client_ip(match self.kind {
            DhcpMessageType::Ack => asked.client,
            _ => Ipv4Addr::UNSPECIFIED,
        });
        packet.set_your_ip(self.yours);
        let server = self.boot.as_ref().and_then(|boot| boot.server);
        packet.set_server_ip(server.unwrap_or(Ipv4Addr::UNSPECIFIED));
        packet.set_relay_agent_ip(asked.relay);
        packet.set_flags(if asked.broadcast { DhcpFlags::BROADCAST } else { DhcpFlags::empty() });
        packet.set_magic_number(0x6382_5363);
        packet.into_inner()
    }
}
