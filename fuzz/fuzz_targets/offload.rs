//! Any net header before any frame: if it is found fair, completing and cutting change nothing that the switch judged, lose no byte,
//! and leave frames whose lengths and checksums are right.
#![no_main]

use checksum::Sum;
use libfuzzer_sys::fuzz_target;
use vswitch_core::{
    head::{HEAD_BYTES, Head, Network},
    offload::{Abilities, Asked, Offload, Work},
};

const ALL: Abilities =
    Abilities { checksum: true, tcp4: true, tcp6: true, ecn: true, udp4: true, udp6: true };

fuzz_target!(|input: &[u8]| {
    let Some((header, frame)) = input.split_first_chunk::<9>() else { return };
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let asked = Asked {
        needs_checksum: header[0] & 1 != 0,
        gso_type: header[1],
        gso_size: half(2),
        checksum_start: half(4),
        checksum_offset: half(6),
        header_len: 0,
    };
    // A large frame of few bytes: what was given is repeated.
    let frame: Vec<u8> =
        frame.iter().copied().cycle().take(frame.len() * usize::from(header[8] >> 4)).collect();
    let (head, len) = (&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32);
    let Some(offload) = Offload::judge(&asked, head, len, ALL) else { return };
    match offload.work(Abilities::default()) {
        Work::Nothing => panic!("it asks, and nobody was to do it"),
        Work::Checksum => complete(&asked, &offload, &frame),
        Work::Cut { checksums } => {
            assert!(checksums);
            cut(&asked, &offload, &frame);
        }
    }
    assert!(offload.work(ALL) == Work::Nothing);
});

fn complete(asked: &Asked, offload: &Offload, frame: &[u8]) {
    let (head, rest) = frame.split_at(frame.len().min(HEAD_BYTES));
    let mut done = head.to_vec();
    offload.complete(&mut done, Sum::ZERO.add_bytes(rest));
    let field = usize::from(asked.checksum_start) + usize::from(asked.checksum_offset);
    let is_elsewhere = |at: &usize| !(field..field + 2).contains(at);
    assert!((0..head.len()).filter(is_elsewhere).all(|at| head[at] == done[at]));
    let len = frame.len() as u32;
    assert_eq!(Head::parse(head, len), Head::parse(&done, len), "what was judged changed");
}

fn cut(asked: &Asked, offload: &Offload, frame: &[u8]) {
    let len = frame.len() as u32;
    let headers = offload.header_len(frame.len());
    let judged = Head::parse(&frame[..frame.len().min(HEAD_BYTES)], len).expect("it was judged");
    let (mut at, mut headers_made) = (headers, frame[..headers].to_vec());
    let train = offload.train(&mut headers_made).expect("it is to be cut");
    let lens: Vec<u32> = offload.segment_lens(len).collect();
    for (number, segment_len) in (0..).zip(&lens) {
        let segment = offload.segment(len, number);
        let end = at + usize::from(segment.len);
        assert_eq!(*segment_len as usize, headers + usize::from(segment.len));
        assert_eq!(segment.is_last, end == frame.len());
        train.make(&mut headers_made, &segment, Some(Sum::ZERO.add_bytes(&frame[at..end])));
        let mut made = headers_made.clone();
        made.extend(&frame[at..end]);
        let head = Head::parse(&made[..made.len().min(HEAD_BYTES)], made.len() as u32).expect("a frame");
        assert_eq!((head.link, head.transport_at), (judged.link, judged.transport_at));
        assert!(right(&made, &head, asked.checksum_start.into()), "{made:x?}");
        at = end;
    }
    assert_eq!(at, frame.len());
    assert!(lens.len() > 1);
}

/// Whether its lengths and checksums are right.
fn right(frame: &[u8], head: &Head, transport: usize) -> bool {
    let network = usize::from(head.link.len);
    let sum = Sum::ZERO.add_bytes(&frame[transport..]).add_word((frame.len() - transport) as u16);
    let (addresses, protocol, rest) = match head.network {
        Network::Ipv4(ip) => {
            let header = &frame[network..network + usize::from(ip.header_len)];
            if Sum::ZERO.add_bytes(header).fold() != 0xffff {
                return false;
            }
            (&header[12..20], ip.protocol, usize::from(ip.total_len) == frame.len() - network)
        }
        Network::Ipv6(ip) => {
            let whole = usize::from(ip.payload_len) + 40 == frame.len() - network;
            (&frame[network + 8..network + 40], ip.protocol, whole)
        }
        _ => return false,
    };
    rest && sum.add_even(Sum::ZERO.add_bytes(addresses)).add_word(protocol.into()).fold() == 0xffff
}
