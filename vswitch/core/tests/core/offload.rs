//! What a net header may ask for: only what leaves the frame the one that was judged.

use checksum::Sum;
use vswitch_core::{
    decide::TagEdit,
    head::HEAD_BYTES,
    offload::{Abilities, Asked, Offload, Work},
    vlan::Tci,
};

const ALL: Abilities =
    Abilities { checksum: true, tcp4: true, tcp6: true, ecn: true, udp4: true, udp6: true };
const NONE: Abilities =
    Abilities { checksum: false, tcp4: false, tcp6: false, ecn: false, udp4: false, udp6: false };

/// A frame of IPv4 with this protocol number, and what that carries.
fn ipv4(protocol: u8, fragment: u16, carried: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + carried.len() as u16).to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(carried);
    frame
}

fn tcp(payload: usize) -> Vec<u8> {
    let mut tcp = vec![0, 80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    tcp.resize(20 + payload, 7);
    tcp
}

fn udp(payload: usize) -> Vec<u8> {
    let mut udp = vec![0, 80, 1, 0];
    udp.extend((8 + payload as u16).to_be_bytes());
    udp.resize(8 + payload, 7);
    udp
}

fn checksum(start: u16, offset: u16) -> Asked {
    Asked { needs_checksum: true, checksum_start: start, checksum_offset: offset, ..Asked::default() }
}

fn judged(asked: Asked, frame: &[u8]) -> Option<Offload> {
    Offload::judge(&asked, &frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32, ALL)
}

#[test]
fn a_checksum_is_completed_where_the_transport_header_has_one_and_nowhere_else_in_headers() {
    let frame = ipv4(6, 0, &tcp(1000));
    assert!(judged(checksum(34, 16), &frame).is_some());
    for (start, offset) in
        [(0, 0), (0, 6), (14, 10), (14, 16), (34, 0), (34, 2), (34, 13), (34, 18), (33, 17), (54, 0), (70, 4)]
    {
        assert_eq!(judged(checksum(start, offset), &frame), None, "{start}+{offset}");
    }
    let frame = ipv4(17, 0, &udp(1000));
    assert!(judged(checksum(34, 6), &frame).is_some());
    for (start, offset) in [(34, 0), (34, 2), (34, 4), (34, 16), (36, 4), (41, 0)] {
        assert_eq!(judged(checksum(start, offset), &frame), None, "{start}+{offset}");
    }
}

#[test]
fn a_tunnel_carries_a_checksum_that_is_completed() {
    // VXLAN: 8 bytes behind UDP, then Ethernet, IPv4 and TCP; GRE: 4 bytes, then IPv4 and TCP.
    assert!(judged(checksum(34 + 8 + 8 + 14 + 20, 16), &ipv4(17, 0, &udp(1000))).is_some());
    assert!(judged(checksum(34 + 4 + 20, 16), &ipv4(47, 0, &[7; 1000])).is_some());
    assert!(judged(checksum(34 + 20, 16), &ipv4(4, 0, &[7; 1000])).is_some());
    assert_eq!(judged(checksum(190, 1), &ipv4(17, 0, &udp(1000))), None, "behind what is copied");
    assert_eq!(
        judged(Asked { gso_type: 1, gso_size: 100, ..checksum(84, 16) }, &ipv4(17, 0, &udp(1000))),
        None
    );
}

#[test]
fn gre_has_a_checksum_of_its_own_if_it_says_so() {
    let gre = |flags| ipv4(47, 0, &[&[flags, 0, 8, 0, 0, 0, 0, 0], [7; 100].as_slice()].concat());
    assert!(judged(checksum(34, 4), &gre(0x80)).is_some());
    assert_eq!(judged(checksum(34, 4), &gre(0)), None);
    assert_eq!(judged(checksum(34, 2), &gre(0x80)), None);
    assert_eq!(judged(Asked { gso_type: 1, gso_size: 50, ..checksum(34, 4) }, &gre(0x80)), None);
}

#[test]
fn what_an_error_quotes_and_what_a_neighbour_says_stays_as_it_is() {
    for (start, offset) in [(34, 2), (42, 0), (42, 10), (62, 16)] {
        assert_eq!(judged(checksum(start, offset), &ipv4(1, 0, &[3; 200])), None, "{start}+{offset}");
        assert_eq!(judged(checksum(start, offset), &ipv4(132, 0, &[3; 200])), None, "{start}+{offset}");
    }
}

#[test]
fn more_segments_than_a_frame_has_at_the_least_mtu_are_too_many() {
    let cut = |size| Asked { gso_type: 1, gso_size: size, ..checksum(34, 16) };
    let frame = ipv4(6, 0, &tcp(65_000));
    let fair = judged(cut(508), &frame).expect("128 segments");
    assert_eq!((fair.segment_count(frame.len() as u32), fair.cost(frame.len() as u32)), (128, 128 * 2048));
    assert_eq!(judged(cut(507), &frame), None);
}

#[test]
fn a_datagram_that_is_shorter_than_its_frame_is_not_cut() {
    let cut = Asked { gso_type: 5, gso_size: 100, ..checksum(34, 6) };
    let mut frame = ipv4(17, 0, &udp(1000));
    assert!(judged(cut, &frame).is_some());
    frame[39] -= 1;
    assert_eq!(judged(cut, &frame), None);
}

#[test]
fn fragments_and_what_is_no_ip_have_no_checksum_to_complete() {
    assert_eq!(judged(checksum(34, 16), &ipv4(6, 0x2000, &tcp(1000))), None);
    assert_eq!(judged(checksum(34, 16), &ipv4(6, 5, &tcp(1000))), None);
    // Nor are they cut: a firewall would have judged one fragment, and the receiver put together many.
    for (gso_type, frame, offset) in [
        (1, ipv4(6, 0x2000, &tcp(1000)), 16),
        (5, ipv4(17, 0x2000, &udp(1000)), 6),
        (5, ipv4(17, 5, &udp(1000)), 6),
        (3, ipv4(17, 0x2000, &udp(1000)), 6),
        (3, ipv4(17, 0, &udp(1000)), 6),
    ] {
        let cut = Asked { gso_type, gso_size: 100, ..checksum(34, offset) };
        assert_eq!(judged(cut, &frame), None, "{gso_type}");
        assert_eq!(judged(Asked { needs_checksum: false, ..cut }, &frame), None, "{gso_type}");
    }
    let mut arp = vec![2; 12];
    arp.extend([8, 6]);
    arp.resize(60, 0);
    assert_eq!(judged(checksum(34, 16), &arp), None);
}

#[test]
fn only_a_whole_datagram_is_cut_by_its_own_kind() {
    let frame = ipv4(6, 0, &tcp(1000));
    let cut = Asked { gso_type: 1, gso_size: 100, ..checksum(34, 16) };
    let whole = judged(cut, &frame).expect("a whole one");
    assert_eq!(whole.work(NONE), Work::Cut { checksums: true });
    assert_eq!(whole.segment_lens(frame.len() as u32).collect::<Vec<_>>(), [154; 10]);
    assert_eq!(whole.wire_len(frame.len() as u32), 154);
    for wrong in [
        Asked { gso_size: 0, ..cut },
        Asked { gso_type: 2, ..cut },
        Asked { gso_type: 3, ..cut },
        Asked { gso_type: 4, ..cut },
        Asked { gso_type: 5, ..cut },
        Asked { gso_type: 0x80, ..cut },
        Asked { needs_checksum: false, ..cut },
    ] {
        assert_eq!(judged(wrong, &frame), None, "{wrong:?}");
    }
    // Its length would be written anew, and what is behind it would become part of it.
    let padded = [frame.as_slice(), &[0; 6]].concat();
    assert_eq!(judged(cut, &padded), None);
    assert!(judged(checksum(34, 16), &padded).is_some());
}

#[test]
fn one_segment_is_not_cut() {
    let frame = ipv4(6, 0, &tcp(1000));
    let asked = Asked { gso_type: 1, gso_size: 1000, ..checksum(34, 16) };
    let offload = judged(asked, &frame).expect("fair");
    assert_eq!(offload.work(NONE), Work::Checksum);
    assert_eq!(offload.asked(), checksum(34, 16));
}

#[test]
fn a_tag_that_comes_or_goes_moves_what_is_asked() {
    let frame = ipv4(6, 0, &tcp(1000));
    let asked = Asked { gso_type: 1, gso_size: 100, ..checksum(34, 16) };
    let offload = judged(asked, &frame).expect("fair");
    let pushed = offload.behind(TagEdit::Push(Tci::from_bits(10)));
    assert_eq!(pushed.asked(), Asked { checksum_start: 38, header_len: 58, ..asked });
    assert_eq!(pushed.behind(TagEdit::Pop), offload);
}

#[test]
fn a_sum_of_zero_is_written_as_the_zero_that_is_a_checksum() {
    let frame = ipv4(17, 0, &udp(2));
    let offload = judged(checksum(34, 6), &frame).expect("fair");
    let mut head = frame.clone();
    // What makes all of the datagram sum to all ones.
    let rest = Sum::ZERO.add_bytes(&frame[34..]).checksum();
    offload.complete(&mut head, Sum::ZERO.add_bytes(&rest));
    assert_eq!(head[40..42], [0xff, 0xff]);
}
