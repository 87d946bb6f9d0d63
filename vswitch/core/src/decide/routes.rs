//! Rows of frames for a gateway: packets that a router passes on to a neighbour that is known, where nothing else is to be asked. What is unlike that
//! is judged by [`super::route`], which is the rule that this must equal.

use super::{
    Edit, Ingress, TagEdit, Way, gates,
    ingress::{Home, Row, Tag},
    route::{Packet, is_link_local},
};
use crate::{
    checksum::Sum,
    fdb::Place,
    firewall::connections::Hosts,
    head::{ETHERNET_LEN, MAX_FRAME_LEN, TAG_LEN, ethertype},
    route::{Interface, NatNumber, Onward, Rewrite, Router, Routing, Translations},
    vlan::VlanId,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

/// Source and destination of a packet, as they stand in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    V4([u8; 8]),
    V6([u8; 32]),
}

/// What is true of all packets between the same ends.
pub(super) struct Known {
    ends: Ends,
    pub(super) way: Way,
    /// Bytes that a frame may have.
    pub(super) longest: u32,
    /// To whom they go, and in which VLAN.
    pub(super) vlan: VlanId,
    pub(super) next: IpAddr,
}

impl Known {
    /// The same of packets that are translated besides.
    pub(super) fn translated(mut self, number: NatNumber) -> Self {
        if let Some(rewrite) = &mut self.way.edit.rewrite {
            rewrite.translation = Some(number);
        }
        self
    }
}

impl Ingress<'_> {
    /// How many `frames` of a row, from the first on, a router passes on; `run` is told which of them have which way.
    #[inline]
    pub(super) fn route_row<'f>(
        &self,
        home: &Home<'_>,
        row: &Row,
        frames: impl Iterator<Item = (&'f [u8], u32)>,
        translations: &mut Translations,
        mut run: impl FnMut(Way, Range<usize>),
    ) -> usize {
        let at = ETHERNET_LEN + if row.tag == Tag::NONE { 0 } else { TAG_LEN };
        let Some(gateway) = self.gateway(row) else { return 0 };
        if let Some(nat) = gateway.router.nat() {
            return self.translate_row(home, (row, at), (gateway, nat), frames, translations, run);
        }
        let (mut known, mut begin, mut end): (Option<Known>, usize, usize) = (None, 0, 0);
        for (bytes, len) in frames {
            let Some(ends) = ends(at, bytes, len) else { break };
            if known.as_ref().is_none_or(|known| known.ends != ends) {
                if let Some(known) = known.take() {
                    run(known.way, begin..end);
                }
                begin = end;
                known = self.know(home, row, gateway, (at, ends, ends));
            }
            if known.as_ref().is_none_or(|known| len > known.longest) {
                break;
            }
            end += 1;
        }
        if let Some(known) = known.filter(|_| begin < end) {
            run(known.way, begin..end);
        }
        end
    }

    /// The gateway that a row is for.
    fn gateway(&self, row: &Row) -> Option<Gateway<'_>> {
        let routing = self.switch.world.routing()?;
        let interface = routing.interface(row.place?.vlan()?)?;
        Some(Gateway { routing, interface, router: routing.router(interface) })
    }

    /// Where packets go that came with `ends`, and go on with `onward`: none if that needs another look.
    pub(super) fn know(
        &self,
        home: &Home<'_>,
        row: &Row,
        Gateway { routing, interface, router }: Gateway<'_>,
        (at, ends, onward): (usize, Ends, Ends),
    ) -> Option<Known> {
        let (world, neighbours) = (self.switch.world, self.switch.neighbours);
        let (vlan, next) = next(router, interface, ends, onward)?;
        routing.interface(vlan)?;
        let mac = neighbours.find(vlan, next, self.switch.now, true)?;
        let place = Place::new(home.switch, vlan);
        let hash = home.fdb.hasher().hash(place, mac.to_u64() << 16);
        let found = home.fdb.find_in(place, home.fdb.find(mac.to_u64() << 16, hash)?, hash)?;
        let port = found.port(world)?;
        let egress = port.egress(home.switch, vlan)?;
        // No firewall, and no limit that each frame is held against; the routers' own port takes no rows.
        if !(home.port.is_plain && port.is_plain && port.takes_rows) {
            return None;
        }
        let longest = port.mtu.map_or(MAX_FRAME_LEN, |mtu| u32::from(mtu) + at as u32).min(MAX_FRAME_LEN);
        let rewrite = Rewrite { dst: mac, src: routing.mac, at: at as u8, translation: None };
        let tag = TagEdit::on_egress(egress, vlan, row.tag.tci(), false);
        let way = Way { to: port.id.index(), edit: Edit { tag, rewrite: Some(rewrite) } };
        Some(Known { ends, way, longest, vlan, next })
    }
}

/// A gateway that frames came to.
#[derive(Clone, Copy)]
pub(super) struct Gateway<'a> {
    pub(super) routing: &'a Routing,
    pub(super) interface: &'a Interface,
    router: &'a Router,
}

impl Ends {
    /// Those of a packet between these hosts.
    pub(super) fn of(hosts: Hosts) -> Self {
        match hosts {
            Hosts::V4(src, dst) => {
                let both = u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits());
                Self::V4(both.to_be_bytes())
            }
            Hosts::V6(src, dst) => {
                let mut both = [0; 32];
                both[..16].copy_from_slice(&src.octets());
                both[16..].copy_from_slice(&dst.octets());
                Self::V6(both)
            }
        }
    }

    /// Source and destination.
    fn addresses(self) -> Option<(IpAddr, IpAddr)> {
        match self {
            Self::V4([a, b, c, d, e, f, g, h]) => {
                Some((Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into()))
            }
            Self::V6(both) => {
                let (src, dst) = both.split_at(16);
                let address =
                    |octets: &[u8]| octets.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
                Some((address(src)?.into(), address(dst)?.into()))
            }
        }
    }
}

/// The neighbour to whom a router passes on packets that came with `ends` and go on with `onward`; none if it does not, or each flow has a way of its own.
fn next(router: &Router, interface: &Interface, ends: Ends, onward: Ends) -> Option<(VlanId, IpAddr)> {
    let (src, dst) = ends.addresses()?;
    if is_link_local(dst) || !(Packet { src, dst, hops: 2 }).is_routable(interface, router) {
        return None;
    }
    let (_, dst) = onward.addresses()?;
    match &router.find(dst)?.onward {
        Onward::Connected(vlan) => Some((*vlan, dst)),
        Onward::Via(ways) => <&[_; 1]>::try_from(&ways[..]).ok().map(|[way]| *way),
        Onward::Own | Onward::Broadcast | Onward::Blackhole => None,
    }
}

/// The ends of a packet that may be passed on, in a frame of `len` bytes that begins so: with a header of the common kind, whole, and with hops left.
#[inline(always)]
pub(super) fn ends(at: usize, bytes: &[u8], len: u32) -> Option<Ends> {
    let ip = bytes.get(at..)?;
    let whole = |packet: usize| at + packet <= len as usize;
    match gates::ethertype(at, bytes)? {
        ethertype::IPV4 => {
            let header = ip.first_chunk::<20>()?;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let is_sound = header[0] == 0x45 && total >= 20 && whole(total) && header[8] > 1;
            // RFC 1812 §5.2.2: the sum over all of it, its checksum included.
            let is_sound = is_sound && Sum::ZERO.add_bytes(header).checksum() == [0, 0];
            is_sound.then(|| header[12..].first_chunk().copied().map(Ends::V4)).flatten()
        }
        ethertype::IPV6 => {
            let header = ip.first_chunk::<40>()?;
            let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
            // TCP, UDP and ICMPv6: behind anything else a route of the sender's own may stand.
            let is_sound = header[0] >> 4 == 6 && matches!(header[6], 6 | 17 | 58) && header[7] > 1;
            (is_sound && whole(40 + payload))
                .then(|| header[8..].first_chunk().copied().map(Ends::V6))
                .flatten()
        }
        _ => None,
    }
}
