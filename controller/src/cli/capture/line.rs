//! A captured frame as a line for people.

use super::value;
use pcap_parser::{Block, pcapng::EnhancedPacketBlock};
use vswitch_core::head::{HEAD_BYTES, Head};

/// Nanoseconds of a day.
const DAY: u64 = 86_400_000_000_000;

/// Turns blocks into lines.
#[derive(Default)]
pub(super) struct Lines {
    /// Of which interface the frames are.
    interface: String,
}

impl Lines {
    /// The line of a block, if it is a frame.
    pub(super) fn line(&mut self, block: &Block<'_>) -> Option<String> {
        match block {
            Block::InterfaceDescription(described) => {
                let name = value(&described.options, 2).unwrap_or_default();
                self.interface = String::from_utf8_lossy(name).into_owned();
                None
            }
            Block::EnhancedPacket(packet) => Some(self.frame(packet)),
            _ => None,
        }
    }

    /// `12:00:00.000123 from h1:eth0 02:… > ff:…, ARP who has 10.0.0.2, tell 10.0.0.1, 42 bytes`; the time is UTC.
    fn frame(&self, packet: &EnhancedPacketBlock<'_>) -> String {
        let nanos = (u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)) % DAY;
        let (seconds, micros) = (nanos / 1_000_000_000, nanos % 1_000_000_000 / 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        // epb_flags: the lower two bits are 1 for inbound, which is from the guest.
        let inbound = value(&packet.options, 2).and_then(<[u8]>::first).is_some_and(|flags| flags & 3 == 1);
        let way = if inbound { "from" } else { "to" };
        let bytes = &packet.data[..packet.data.len().min(packet.caplen as usize).min(HEAD_BYTES)];
        let what = match Head::parse(bytes, packet.origlen) {
            Ok(head) => format!("{} > {}, {head}", head.link.src, head.link.dst),
            Err(reason) => reason.what().into(),
        };
        let comment = value(&packet.options, 1).map(String::from_utf8_lossy);
        let comment = comment.map(|comment| format!(" [{comment}]")).unwrap_or_default();
        format!(
            "{hour:02}:{minute:02}:{second:02}.{micros:06} {way} {} {what}, {} bytes{comment}",
            self.interface, packet.origlen
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::capture::for_each_block;
    use std::time::Duration;
    use vswitch_core::{
        build::{self, Ethernet},
        mac::MacAddr,
    };
    use vswitchd::capture::pcapng::{self, Interface, Packet, Way};

    #[test]
    fn a_line_says_when_which_way_what_and_what_became_of_it() {
        let src = MacAddr::new([2, 0, 0, 0, 0, 1]);
        let link = Ethernet { src, dst: MacAddr::BROADCAST, tag: None };
        let arp = build::arp_request(link, [10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let at = Duration::from_secs(3 * 86_400 + 12 * 3600 + 61) + Duration::from_micros(123);
        let dropped = Some("dropped: tagged-on-access");
        let arp =
            Packet { at, bytes: &arp, len: arp.len() as u32, way: Way::Outbound, missed: 0, comment: None };
        let runt = Packet { bytes: &[1, 2], len: 2, way: Way::Inbound, comment: dropped, ..arp };
        let mut file = Vec::new();
        pcapng::begin(&mut file, &Interface { name: "h1:eth0".into(), filter: String::new(), snap_len: 100 });
        pcapng::packet(&mut file, &arp);
        pcapng::packet(&mut file, &runt);
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        for_each_block(&file, |block| said.extend(lines.line(block)));
        assert_eq!(
            said,
            [
                format!(
                    "12:01:01.000123 to h1:eth0 {src} > ff:ff:ff:ff:ff:ff, ARP who has 10.0.0.2, tell 10.0.0.1, {} bytes",
                    arp.len
                ),
                "12:01:01.000123 from h1:eth0 the frame is shorter than its Ethernet header (14 bytes, 18 with a VLAN tag), 2 \
                 bytes [dropped: tagged-on-access]"
                    .into(),
            ]
        );
    }
}
