//! Echo messages of ICMP (RFC 792) and ICMPv6 (RFC 4443), and the errors that quote them, as bytes.

/// An echo message: type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
const IPV6_HEADER: usize = 40;
const PROTOCOL_ICMP: u8 = 1;
const NEXT_HEADER_ICMPV6: u8 = 58;
const NEXT_HEADER_FRAGMENT: u8 = 44;

/// Types of messages of one version of IP.
struct Types {
    request: u8,
    reply: u8,
    /// Destination unreachable, time exceeded, parameter problem.
    errors: [u8; 3],
}

const V4: Types = Types { request: 8, reply: 0, errors: [3, 11, 12] };
const V6: Types = Types { request: 128, reply: 129, errors: [1, 3, 4] };

/// What came back for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The echo.
    Echo {
        /// Of the request.
        sequence: u16,
    },
    /// An ICMP error that quotes the request.
    Error {
        /// Of the request.
        sequence: u16,
    },
}

impl Reply {
    /// The sequence number of the request that it is for.
    pub(crate) fn sequence(self) -> u16 {
        match self {
            Self::Echo { sequence } | Self::Error { sequence } => sequence,
        }
    }
}

/// An echo request with `payload` bytes behind its header. Of ICMPv6 the kernel makes the checksum.
pub(crate) fn request(v6: bool, identifier: u16, sequence: u16, payload: usize) -> Vec<u8> {
    let mut message = vec![0; HEADER + payload];
    message[0] = if v6 { V6.request } else { V4.request };
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    for (place, byte) in message[HEADER..].iter_mut().enumerate() {
        *byte = place as u8;
    }
    if !v6 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// What a raw socket received, if it is about a request of this identifier. IPv4 comes with its header, IPv6 without.
pub(crate) fn read(v6: bool, received: &[u8], identifier: u16) -> Option<Reply> {
    let types = if v6 { V6 } else { V4 };
    let message = if v6 { received } else { behind_ipv4(received)? };
    let kind = *message.first()?;
    if kind == types.reply {
        return Some(Reply::Echo { sequence: sequence_of(message, identifier)? });
    }
    if !types.errors.contains(&kind) {
        return None;
    }
    let quoted = message.get(HEADER..)?;
    let quoted = if v6 { behind_ipv6(quoted)? } else { behind_ipv4(quoted)? };
    if *quoted.first()? != types.request {
        return None;
    }
    Some(Reply::Error { sequence: sequence_of(quoted, identifier)? })
}

/// What follows an IPv4 header, if it is ICMP.
fn behind_ipv4(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    (*packet.get(9)? == PROTOCOL_ICMP).then(|| packet.get(header..))?
}

/// What follows an IPv6 header, if it is ICMPv6, perhaps behind the fragment header of our own long requests.
fn behind_ipv6(packet: &[u8]) -> Option<&[u8]> {
    match *packet.get(6)? {
        NEXT_HEADER_ICMPV6 => packet.get(IPV6_HEADER..),
        NEXT_HEADER_FRAGMENT if *packet.get(IPV6_HEADER)? == NEXT_HEADER_ICMPV6 => {
            packet.get(IPV6_HEADER + 8..)
        }
        _ => None,
    }
}

fn sequence_of(message: &[u8], identifier: u16) -> Option<u16> {
    let [.., i1, i2, s1, s2] = *message.first_chunk::<HEADER>()?;
    (u16::from_be_bytes([i1, i2]) == identifier).then(|| u16::from_be_bytes([s1, s2]))
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header without options before `payload`.
    fn ipv4(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[9] = PROTOCOL_ICMP;
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn a_request_sums_up_to_zero() {
        for payload in [0, 1, 56, 1473] {
            assert_eq!(checksum(&request(false, 0xbeef, 7, payload)), 0, "{payload} bytes");
        }
    }

    #[test]
    fn a_reply_is_known_by_its_identifier() {
        let mut reply = request(false, 5, 9, 4);
        reply[0] = V4.reply;
        assert_eq!(read(false, &ipv4(&reply), 5), Some(Reply::Echo { sequence: 9 }));
        assert_eq!(read(false, &ipv4(&reply), 6), None);
    }

    #[test]
    fn a_request_is_no_reply() {
        assert_eq!(read(false, &ipv4(&request(false, 5, 9, 4)), 5), None);
        assert_eq!(read(true, &request(true, 5, 9, 4), 5), None);
    }

    #[test]
    fn an_error_is_for_the_request_that_it_quotes() {
        let mut error = vec![3, 13, 0, 0, 0, 0, 0, 0];
        error.extend(ipv4(&request(false, 5, 9, 0)));
        assert_eq!(read(false, &ipv4(&error), 5), Some(Reply::Error { sequence: 9 }));
        let mut error = vec![1, 1, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, NEXT_HEADER_ICMPV6, 64];
        error.resize(HEADER + IPV6_HEADER, 0);
        error.extend(request(true, 5, 9, 0));
        assert_eq!(read(true, &error, 5), Some(Reply::Error { sequence: 9 }));
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
        error.extend(ipv4(&request(false, 5, 9, 0)));
        let whole = ipv4(&error);
        for len in 0..whole.len() {
            assert_eq!(read(false, &whole[..len], 5), None, "{len} bytes");
        }
    }
}
