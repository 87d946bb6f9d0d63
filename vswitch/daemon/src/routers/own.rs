//! Packets for a router itself: it answers echoes, and says of all else that nobody is there (RFC 1122 §3.2.2, §4.1.3.1; RFC 4443; RFC 9293 §3.5.2).

use super::{Heard, Lost, Speaker, dns};
use std::net::IpAddr;
use vswitch_core::{
    build::{self, Addresses},
    checksum::Sum,
    clock::Instant,
    firewall::answer::Answer,
    head::{Network, TcpFlags, Transport},
    route::DYNAMIC_PORTS,
};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// "No Next Header" (RFC 8200 §4.7): there is nothing to be said about.
const NOTHING: u8 = 59;

/// Hops of what a router says itself.
pub(super) const HOPS: u8 = 64;

/// Where the checksum stands in a message of ICMP.
const CHECKSUM_AT: usize = 2;

/// Bytes of a packet that an error quotes: so that the error has 576 (RFC 1812 §4.3.2.3), or 1280 (RFC 4443 §3.1).
const QUOTED_V4: usize = 576 - 20 - 8;
const QUOTED_V6: usize = 1280 - 40 - 8;

/// What is wrong with a packet.
#[derive(Clone, Copy)]
enum Wrong {
    /// No neighbour has the address that it is for.
    Host,
    /// Nobody listens at the port.
    Port,
    /// Nobody speaks the protocol, whose number stands there in an IPv6 packet.
    Protocol { at: u8 },
}

/// What an IP packet carries, to its end; none if that was not reached.
pub(super) fn payload<'a>(heard: &Heard<'a>) -> Option<&'a [u8]> {
    heard.frame.get(usize::from(heard.head.transport_at?)..end(heard)?)
}

/// The IP packet, without what is padding; none if its end was not reached.
pub(super) fn packet<'a>(heard: &Heard<'a>) -> Option<&'a [u8]> {
    heard.frame.get(usize::from(heard.head.link.len)..end(heard)?)
}

/// Where the packet ends: what follows is padding.
fn end(heard: &Heard<'_>) -> Option<usize> {
    let at = usize::from(heard.head.link.len);
    match heard.head.network {
        Network::Ipv4(ip) => Some(at + usize::from(ip.total_len)),
        Network::Ipv6(ip) => Some(at + 40 + usize::from(ip.payload_len)),
        Network::Arp(_) | Network::Other | Network::Unparsed(_) => None,
    }
}

/// Source and destination, and the protocol.
fn parties(heard: &Heard<'_>) -> Option<(Addresses, u8)> {
    match heard.head.network {
        Network::Ipv4(ip) => Some((Addresses::V4(ip.src, ip.dst), ip.protocol)),
        Network::Ipv6(ip) => Some((Addresses::V6(ip.src, ip.dst), ip.protocol)),
        Network::Arp(_) | Network::Other | Network::Unparsed(_) => None,
    }
}

const fn swapped(addresses: Addresses) -> Addresses {
    match addresses {
        Addresses::V4(src, dst) => Addresses::V4(dst, src),
        Addresses::V6(src, dst) => Addresses::V6(dst, src),
    }
}

/// Whether the checksum over a whole TCP segment, datagram or ICMP message is right.
pub(super) fn is_sound(heard: &Heard<'_>) -> bool {
    let (Some(payload), Some((addresses, protocol))) = (payload(heard), parties(heard)) else { return false };
    let pseudo = match addresses {
        // RFC 792: summed by itself.
        Addresses::V4(..) if protocol == ICMP => Sum::ZERO,
        Addresses::V4(src, dst) => Sum::ZERO.add_bytes(&src.octets()).add_bytes(&dst.octets()),
        Addresses::V6(src, dst) => Sum::ZERO.add_bytes(&src.octets()).add_bytes(&dst.octets()),
    };
    let pseudo = match (addresses, protocol) {
        (Addresses::V4(..), ICMP) => pseudo,
        // RFC 768: a datagram of IPv4 may have none.
        (Addresses::V4(..), 17) if payload.get(6..8) == Some(&[0, 0]) => return true,
        // No packet is longer than 16 bits of length say.
        _ => pseudo.add_word(protocol.into()).add_word(payload.len() as u16),
    };
    pseudo.add_bytes(payload).checksum() == [0, 0]
}

impl Speaker {
    /// Hears a packet for one of the router's own addresses.
    pub(super) fn hear_own(&mut self, heard: Heard<'_>, now: Instant) -> Result<(), Lost> {
        let (fragment, headers) = match heard.head.network {
            Network::Ipv4(ip) => (ip.fragment, 0),
            Network::Ipv6(ip) => (ip.fragment, ip.extensions),
            Network::Arp(_) | Network::Other | Network::Unparsed(_) => return Err(Lost::Malformed),
        };
        // One that is a whole packet is none (RFC 6946).
        if fragment.is_some_and(|fragment| fragment.more || fragment.offset > 0) {
            return Err(Lost::Fragment);
        }
        let (addresses, protocol) = parties(&heard).ok_or(Lost::Malformed)?;
        let sound = || if is_sound(&heard) { Ok(()) } else { Err(Lost::Malformed) };
        match heard.head.transport {
            Transport::Icmpv4 { kind: 8, code: 0 } | Transport::Icmpv6 { kind: 128, code: 0 } => {
                sound()?;
                self.echo(heard, (addresses, protocol), now)
            }
            Transport::Icmpv4 { .. } | Transport::Icmpv6 { .. } => Err(Lost::NotOurs),
            Transport::Tcp { flags, .. } => {
                sound()?;
                // What began before this switch did may be a host's inside, that has not spoken since.
                let goes_on = !flags.contains(TcpFlags::SYN) && self.connections.picks_up(now);
                if goes_on && heard.router().nat().is_some_and(|nat| nat.masquerades(heard.vlan)) {
                    return Err(Lost::NotOurs);
                }
                if self.hear_metadata(&heard, now) {
                    return Ok(());
                }
                let reset = Answer::to(&heard.view(), heard.head).ok_or(Lost::NotOurs)?;
                self.answer((heard.vlan, heard.head.link.src), reset.bytes().to_vec(), now)
            }
            // Who is outside is told no names.
            Transport::Udp { src, dst: dns::PORT }
                if !heard.router().nat().is_some_and(|nat| nat.masquerades(heard.vlan)) =>
            {
                self.hear_dns(heard, src, now)
            }
            Transport::Udp { src: dns::PORT, dst: port @ DYNAMIC_PORTS.. } => {
                self.hear_name_server(heard, port, now)
            }
            Transport::Udp { .. } => {
                sound()?;
                self.tell(heard, Wrong::Port, now)
            }
            Transport::Sctp { .. } | Transport::Other if protocol != NOTHING && headers == 0 => {
                // The Next Header field of the IPv6 header (RFC 4443 §3.4).
                self.tell(heard, Wrong::Protocol { at: 6 }, now)
            }
            Transport::Sctp { .. } | Transport::Other => Err(Lost::NotOurs),
            Transport::None | Transport::LaterFragment | Transport::Unparsed(_) => Err(Lost::Malformed),
        }
    }

    /// Says the same again (RFC 1122 §3.2.2.6, RFC 4443 §4.2).
    fn echo(
        &mut self,
        heard: Heard<'_>,
        (addresses, protocol): (Addresses, u8),
        now: Instant,
    ) -> Result<(), Lost> {
        let mut message = payload(&heard).ok_or(Lost::Malformed)?.to_vec();
        let [kind, code, sum @ ..] = message.first_chunk_mut::<4>().ok_or(Lost::Malformed)?;
        (*kind, *code, *sum) = (if protocol == ICMP { 0 } else { 129 }, 0, [0, 0]);
        let frame = build::ip(heard.back(), swapped(addresses), protocol, HOPS, message, CHECKSUM_AT);
        self.answer((heard.vlan, heard.head.link.src), frame, now)
    }

    /// Tells the sender of a frame that the neighbour which it is for does not answer, if it may be told.
    pub(super) fn tell_unreachable(&mut self, heard: Heard<'_>, now: Instant) {
        // That it is lost is counted, whether it may be told or not.
        let _ = self.tell(heard, Wrong::Host, now);
    }

    /// Tells the sender of a packet what is wrong with it.
    fn tell(&mut self, heard: Heard<'_>, wrong: Wrong, now: Instant) -> Result<(), Lost> {
        // RFC 1122 §3.2.2, RFC 4443 §2.4 (e): nothing about errors and later fragments. That its source is a host, and that it came to
        // one, was looked at.
        match heard.head.transport {
            Transport::Icmpv4 { kind: 3 | 4 | 5 | 11 | 12, .. }
            | Transport::Icmpv6 { kind: 0..=127 | 137, .. }
            | Transport::LaterFragment
            | Transport::Unparsed(_) => return Err(Lost::NotOurs),
            _ => {}
        }
        let (addresses, _) = parties(&heard).ok_or(Lost::Malformed)?;
        let at = usize::from(heard.head.link.len);
        let end = end(&heard).ok_or(Lost::Malformed)?.min(heard.frame.len());
        let packet = heard.frame.get(at..end).ok_or(Lost::Malformed)?;
        let own = |peer| match wrong {
            Wrong::Host => heard.interface.source(peer),
            // Who was asked answers.
            Wrong::Port | Wrong::Protocol { .. } => None,
        };
        let (addresses, protocol, mut message, quoted) = match addresses {
            Addresses::V4(src, dst) => {
                let Some(IpAddr::V4(from)) = own(src.into()).or(Some(dst.into())) else { return Ok(()) };
                let code = match wrong {
                    Wrong::Host => 1,
                    Wrong::Protocol { .. } => 2,
                    Wrong::Port => 3,
                };
                (Addresses::V4(from, src), ICMP, vec![3, code, 0, 0, 0, 0, 0, 0], QUOTED_V4)
            }
            Addresses::V6(src, dst) => {
                let Some(IpAddr::V6(from)) = own(src.into()).or(Some(dst.into())) else { return Ok(()) };
                let message = match wrong {
                    Wrong::Host => vec![1, 3, 0, 0, 0, 0, 0, 0],
                    Wrong::Port => vec![1, 4, 0, 0, 0, 0, 0, 0],
                    Wrong::Protocol { at } => vec![4, 1, 0, 0, 0, 0, 0, at],
                };
                (Addresses::V6(from, src), ICMPV6, message, QUOTED_V6)
            }
        };
        let segment = self.segments.get(&heard.vlan).ok_or(Lost::NoGateway)?;
        if !segment.errors.take(heard.head.link.src, now) {
            return Err(Lost::Rate);
        }
        message.extend(&packet[..packet.len().min(quoted)]);
        let frame = build::ip(heard.back(), addresses, protocol, HOPS, message, CHECKSUM_AT);
        self.counts.errors += u64::from(self.say(frame));
        Ok(())
    }
}
