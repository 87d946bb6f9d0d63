//! MAC addresses that the file does not state: a stable hash, so that a lab has the same ones each time it starts.

use vswitch_core::mac::MacAddr;

/// The address of an interface: FNV-1a (64 bits) over `lab/node/interface`, folded to 48 bits by exclusive or of the upper
/// 16, then made locally administered and individual with first octet 02 (IEEE 802-2014 §8.2).
pub fn mac_for(lab: &str, node: &str, interface: &str) -> MacAddr {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = [lab, "/", node, "/", interface].into_iter().flat_map(str::bytes);
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let folded = hash ^ hash >> 48;
    MacAddr::from_u64(0x0200_0000_0000 | folded & 0x00ff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        let mac = mac_for("hello", "alice", "eth0");
        assert_eq!(mac, mac_for("hello", "alice", "eth0"));
        assert_eq!(mac.octets()[0], 2);
        assert_ne!(mac, mac_for("hello", "alice", "eth1"));
        assert_ne!(mac, mac_for("hell", "oalice", "eth0"));
    }
}
