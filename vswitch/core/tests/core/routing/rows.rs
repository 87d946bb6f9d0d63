//! Packets of a batch that are passed on without a decision: what comes of each is what comes of it by itself.

use super::*;
use proptest::prelude::*;
use vswitch_core::{
    decide::{Copy, Decision, Ingress, Rows},
    route::Translations,
    vlan::Tci,
};

/// A frame's fate, and its copies with all that changes in them.
type Became = (Fate, Vec<(u16, Result<Edit, DropReason>)>);

/// What becomes of each frame of a batch, with all that changes in it, and the places of those that were decided by themselves.
fn of_batch(bench: &Bench, port: u16, frames: &[Vec<u8>]) -> (Vec<Became>, Vec<usize>) {
    let (mut ingress, mut rows) = (Ingress::new(bench.switch(), port), Rows::default());
    ingress.read(|at| frames[at..].iter().map(|frame| (frame.first_chunk(), frame.len() as u32)), &mut rows);
    ingress.place(&mut rows);
    let (mut fates, mut alone) = (vec![], vec![]);
    loop {
        let from = |at: usize| {
            frames[at..].iter().map(|frame| (&frame[..frame.len().min(HEAD_BYTES)], frame.len() as u32))
        };
        ingress.ways(&mut rows, from, &mut Translations::default(), |way, places| {
            assert_eq!(places.start, fates.len(), "in order");
            fates.extend(places.map(|_| (Fate::Unicast, vec![(way.to, Ok(way.edit))])));
        });
        if rows.is_done() {
            return (fates, alone);
        }
        let frame = &frames[fates.len()];
        let mut copies = vec![];
        let lens = (frame.len() as u32, frame.len() as u32);
        let decision = ingress.decide(&frame[..frame.len().min(HEAD_BYTES)], lens, &mut copies);
        alone.push(fates.len());
        fates.push(with_edits(decision, &copies));
        rows.skip();
    }
}

fn with_edits(decision: Decision, copies: &[Copy]) -> Became {
    let edit = |tag| Edit { tag, rewrite: decision.rewrite };
    (decision.fate, copies.iter().map(|copy| (copy.to, copy.outcome.map(edit))).collect())
}

/// The same of one frame, by the rule.
fn by_itself(bench: &Bench, port: u16, frame: &[u8]) -> Became {
    let bytes = &frame[..frame.len().min(HEAD_BYTES)];
    let len = frame.len() as u32;
    let link = match LinkHeader::parse(bytes, len) {
        Ok(link) => link,
        Err(reason) => return (Fate::Dropped(reason), vec![]),
    };
    let mut copies = vec![];
    let view = FrameView { link: &link, bytes, len, wire_len: len };
    let decision = bench.switch().judge(port, &view, &mut copies, &mut NoTrace);
    with_edits(decision, &copies)
}

/// Some byte of a frame is another.
type Flip = Option<(prop::sample::Index, u8)>;

/// Ends, length, hops, what is wrong with it, and how often it is sent.
type Said = (([u8; 4], [u8; 4], bool, bool), usize, u8, Flip, usize);

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let v4s = prop::sample::select(
        &[
            [10, 0, 10, 1],
            [10, 0, 20, 2],
            [10, 0, 20, 3],
            [10, 0, 10, 254],
            [10, 0, 20, 254],
            [10, 0, 20, 255],
            [192, 0, 2, 9],
            [198, 51, 100, 1],
            [203, 0, 113, 5],
            [100, 64, 1, 1],
            [100, 64, 2, 1],
            [100, 64, 3, 1],
            [8, 8, 8, 8],
            [127, 0, 0, 1],
            [224, 0, 0, 5],
        ][..],
    );
    let ends = (v4s.clone(), v4s, any::<bool>(), prop::bool::weighted(0.8));
    let one = (
        ends,
        0usize..40,
        0u8..4,
        prop::option::weighted(0.15, (any::<prop::sample::Index>(), any::<u8>())),
        1usize..5,
    );
    prop::collection::vec(one, 1..20).prop_map(|said| {
        said.into_iter()
            .flat_map(|((src, dst, six, is_usual), len, ttl, flip, times): Said| {
                let src = if is_usual { [10, 0, 10, 1] } else { src };
                let addresses = if six {
                    let six = |[.., vlan, n]: [u8; 4]| v6(vlan.into(), n);
                    Addresses::V6(six(src), six(dst))
                } else {
                    Addresses::V4(src.into(), dst.into())
                };
                let mut frame = build::udp(link(1, GATEWAY), addresses, (4000, 53), &vec![1; len]);
                // Hops of IPv4: mostly as they were, and the checksum right.
                if ttl < 3 && !six {
                    frame[22] = ttl;
                    frame[24..26].fill(0);
                    let sum = vswitch_core::checksum::Sum::ZERO.add_bytes(&frame[14..34]).checksum();
                    frame[24..26].copy_from_slice(&sum);
                }
                if let Some((at, byte)) = flip {
                    // Behind the addresses: whose frame it is stays the same, so that it is in the same row.
                    let at = 12 + at.index(frame.len() - 12);
                    frame[at] = byte;
                }
                std::iter::repeat_n(frame, times)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_batch_for_a_gateway_comes_to_what_its_frames_come_to_one_by_one(frames in frames(), is_tagged in any::<bool>()) {
        let mut bench = opened(&with_routes());
        bench.neighbours.set(vlan(10), v4(10, 3).into(), mac(1), bench.now);
        let port = if is_tagged { BOX } else { PC1 };
        if is_tagged {
            // The first station speaks by the trunk.
            let tag = Some(Tci::from_bits(5 << 13 | 10));
            bench.send(BOX, &build::arp_request(Ethernet { tag, ..link(1, GATEWAY) }, v4(10, 1), v4(10, 254)));
        }
        let frames: Vec<Vec<u8>> = (frames.into_iter())
            .map(|frame| if is_tagged { [&frame[..12], &[0x81, 0, 0xa0, 10], &frame[12..]].concat() } else { frame })
            .collect();
        let expected: Vec<_> = frames.iter().map(|frame| by_itself(&bench, port, frame)).collect();
        prop_assert_eq!(expected, of_batch(&bench, port, &frames).0);
    }
}

/// The office, with routes that lead where others lead, to somebody unknown, by several, and to one network within another.
fn with_routes() -> Lab {
    let mut lab = office();
    let more = [
        "203.0.113.0/24 via 10.0.20.2",
        "100.64.0.0/10 via 10.0.20.2",
        "100.64.1.0/24 via 10.0.10.3",
        "100.64.2.0/24 via 10.0.20.2,10.0.10.3",
        "100.64.3.0/24 via 10.0.20.77",
        "10.0.10.128/25 via 10.0.20.2",
    ];
    let routing = lab.description.routing.as_mut().expect("it has routers");
    routing.routers[0].routes.extend(router("more", &[], &more).routes);
    lab
}

/// What spares a decision is used: else the law above would hold of nothing.
#[test]
fn a_long_row_ends_where_one_of_it_is_unlike_the_others_and_goes_on_behind_it() {
    let bench = opened(&with_routes());
    let to = |n: u8, third: u8| datagram(1, v4(10, 1), Ipv4Addr::new(100, 64, third, n));
    // More hosts than are looked at together, one way; the 40th is behind a router that nobody has heard of.
    let mut batch: Vec<_> = (0..100).map(|n| to(n, 9)).collect();
    batch[40] = to(1, 3);
    let (came_to, alone) = of_batch(&bench, PC1, &batch);
    assert_eq!(alone, [40]);
    let expected: Vec<_> = batch.iter().map(|frame| by_itself(&bench, PC1, frame)).collect();
    assert_eq!(came_to, expected);
}

#[test]
fn packets_for_known_neighbours_have_their_way_without_a_decision_and_no_others() {
    let bench = open_office();
    let there = datagram(1, v4(10, 1), v4(20, 2));
    let (six, far) = (datagram(1, v6(10, 1), v6(20, 2)), datagram(1, v4(10, 1), Ipv4Addr::new(192, 0, 2, 9)));
    let batch = [there.clone(), there.clone(), far, there.clone(), six];
    assert_eq!(of_batch(&bench, PC1, &batch).1, [0; 0]);
    let own = datagram(1, v4(10, 1), v4(10, 254));
    assert_eq!(of_batch(&bench, PC1, &[there.clone(), own, there.clone()]).1, [1]);
    // What stands behind other headers may name a route of its own: type 2, one segment left.
    let mut routed = datagram(1, v6(10, 1), v6(20, 2));
    (routed[20], routed[18 + 1]) = (43, routed[18 + 1] + 24);
    routed.splice(54..54, [&[17, 2, 2, 1, 0, 0, 0, 0], &v6(20, 2).octets()[..]].concat());
    let (came_to, alone) = of_batch(&bench, PC1, &[routed]);
    assert_eq!((came_to[0].0, alone), (Fate::Dropped(DropReason::SourceRoute), vec![0]));
    // Not what somebody is not known for, nor where a firewall has to be asked.
    bench.neighbours.forget(vlan(20), v4(20, 2).into());
    assert_eq!(of_batch(&bench, PC1, &[there.clone(), there.clone()]).1, [0, 1]);
    let mut bench = closed(WEB1).bench();
    for (port, n, vlan_id) in [(PC1, 1, 10), (WEB1, 2, 20)] {
        bench.send(port, &build::arp_request(link(n, GATEWAY), v4(vlan_id, n), v4(vlan_id, 254)));
        bench.neighbours.set(vlan(vlan_id), v4(vlan_id, n).into(), mac(n), bench.now);
    }
    let (fates, alone) = of_batch(&bench, PC1, &[there]);
    assert_eq!((fates[0].1[0].1, alone), (Err(DropReason::PolicyIngress), vec![0]));
}
