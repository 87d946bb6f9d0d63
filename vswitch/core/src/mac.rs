//! 48-bit MAC addresses (IEEE 802-2014 §8).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A 48-bit MAC address, in the order in which it is transmitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address with these octets.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets, in the order in which they are transmitted.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The address as the low 48 bits of a number, first octet highest.
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The address in the low 48 bits of `bits`; the rest is ignored.
    pub const fn from_u64(bits: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Group bit set: multicast or broadcast (IEEE 802-2014 §8.2.2).
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// All octets zero: nobody's address.
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }

    /// 01-80-c2-00-00-00 to -0f: never forwarded by a bridge (IEEE 802.1D-2004 table 7-10, 802.1Q-2018 table 8-1).
    pub const fn is_reserved_group(self) -> bool {
        self.to_u64() & !0xf == 0x0180_c200_0000
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six pairs of hexadecimal digits joined by `:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAMac;

impl fmt::Display for NotAMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six pairs of hexadecimal digits joined by ':', like 02:00:00:00:00:01")
    }
}

impl std::error::Error for NotAMac {}

impl FromStr for MacAddr {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(pair.ok_or(NotAMac)?, 16).map_err(|_| NotAMac)?;
        }
        if pairs.next().is_some() { Err(NotAMac) } else { Ok(Self(octets)) }
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = NotAMac;

    fn try_from(text: String) -> Result<Self, NotAMac> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_number_round_trip() {
        let mac: MacAddr = "02:1a:00:ff:10:0b".parse().unwrap();
        assert_eq!(mac.to_string(), "02:1a:00:ff:10:0b");
        assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
        for wrong in [
            "",
            "02:00",
            "02:00:00:00:00:0",
            "02:00:00:00:00:00:00",
            "0g:00:00:00:00:00",
            "+2:00:00:00:00:00",
        ] {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reserved_group_is_sixteen_addresses() {
        assert!(MacAddr::new([1, 0x80, 0xc2, 0, 0, 0]).is_reserved_group());
        assert!(MacAddr::new([1, 0x80, 0xc2, 0, 0, 0xf]).is_reserved_group());
        assert!(!MacAddr::new([1, 0x80, 0xc2, 0, 0, 0x10]).is_reserved_group());
    }
}
