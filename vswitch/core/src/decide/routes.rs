//! Rows of frames for a gateway: packets that a router passes on to a neighbour that is known, where nothing else is to be asked. What is unlike that
//! is judged by [`super::route`], which is the rule that this must equal.

use super::{
    Edit, Ingress, TagEdit, Way, gates,
    ingress::{Home, Row, Tag},
    route::{is_host_address, is_link_local, may_send},
};
use crate::{
    checksum::is_sound_header,
    fdb::Place,
    head::{ETHERNET_LEN, MAX_FRAME_LEN, TAG_LEN, ethertype},
    route::{
        Interface, NatNumber, Onward, Rewrite, Router, Routing, Translations,
        table::{Bits, NOTHING, Tables},
    },
    vlan::VlanId,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

/// Frames that are looked at together, at most: each step is done for all of them before the next, so that what one look-up has to wait for in memory is
/// asked for while the others wait.
const AHEAD: usize = 32;

/// The same of a row of which a frame was decided by itself: others of it may be, too, and what was read behind them is read again.
const AGAIN: usize = 4;

/// A version of IP.
pub(super) trait Version {
    type Address: Bits;

    /// Source and destination of a packet that may be passed on, in a frame of `len` bytes that begins so: with a header of the common kind, whole,
    /// and with hops left.
    fn ends(at: usize, bytes: &[u8], len: u32) -> Option<[Self::Address; 2]>;

    fn address(bits: Self::Address) -> IpAddr;

    /// None of an address of the other version.
    fn bits(address: IpAddr) -> Option<Self::Address>;

    /// Whether it is a host's that may be elsewhere.
    fn is_destination(bits: Self::Address) -> bool;

    fn tables(router: &Router) -> &Tables<Self::Address>;
}

pub(super) enum V4 {}

pub(super) enum V6 {}

/// What is read of some frames: those between the same ends that follow each other are a run.
struct Runs<A> {
    src: [A; AHEAD],
    dst: [A; AHEAD],
    /// What leads to the destination: of all routes that lead to the same the first.
    ways: [u32; AHEAD],
    /// Bytes that the first of its frames has; none has more.
    longest: [u32; AHEAD],
    /// How many frames it and those before it have.
    ends: [usize; AHEAD],
    held: usize,
}

/// Where packets go on.
pub(super) struct Known<A> {
    /// What leads there, by its number, and the destination if it is the neighbour.
    alike: u32,
    dst: Option<A>,
    pub(super) way: Way,
    /// Bytes that a frame may have.
    pub(super) longest: u32,
    /// To whom they go, and in which VLAN.
    pub(super) vlan: VlanId,
    pub(super) next: IpAddr,
}

impl<A> Known<A> {
    /// The same of packets that are translated besides.
    pub(super) fn translated(mut self, number: NatNumber) -> Self {
        if let Some(rewrite) = &mut self.way.edit.rewrite {
            rewrite.translation = Some(number);
        }
        self
    }
}

/// A row at its router.
pub(super) struct Gateway<'a> {
    pub(super) ingress: &'a Ingress<'a>,
    home: &'a Home<'a>,
    row: &'a Row,
    pub(super) routing: &'a Routing,
    pub(super) interface: &'a Interface,
    router: &'a Router,
    /// Where the IP header stands.
    pub(super) at: usize,
    /// Frames that are looked at together.
    ahead: usize,
}

/// Frames that go on, one after the other: those that have the same way are told of together.
pub(super) struct Told<R> {
    run: R,
    way: Option<Way>,
    begin: usize,
    /// How many go on so far.
    pub(super) end: usize,
}

impl<R: FnMut(Way, Range<usize>)> Told<R> {
    pub(super) const fn new(run: R) -> Self {
        Self { run, way: None, begin: 0, end: 0 }
    }

    /// The next ones go this way; none: there are no more.
    pub(super) fn turn(&mut self, way: Option<Way>) {
        if self.way != way {
            if let Some(way) = self.way.filter(|_| self.begin < self.end) {
                (self.run)(way, self.begin..self.end);
            }
            (self.way, self.begin) = (way, self.end);
        }
    }
}

impl Ingress<'_> {
    /// How many `frames` of a row, from the first on, a router passes on; `run` is told which of them have which way. All of a row that `is_new` are
    /// read ahead, and what is translated is noted in `translations`.
    #[inline]
    pub(super) fn route_row<'f>(
        &self,
        home: &Home<'_>,
        (row, is_new): (&Row, bool),
        mut frames: impl Iterator<Item = (&'f [u8], u32)>,
        translations: &mut Translations,
        run: impl FnMut(Way, Range<usize>),
    ) -> usize {
        let at = ETHERNET_LEN + if row.tag == Tag::NONE { 0 } else { TAG_LEN };
        let here = || {
            let routing = self.switch.world.routing()?;
            let interface = routing.interface(row.place?.vlan()?)?;
            let router = routing.router(interface);
            let ahead = if is_new { AHEAD } else { AGAIN };
            Some(Gateway { ingress: self, home, row, routing, interface, router, at, ahead })
        };
        let Some(here) = here() else { return 0 };
        if let Some(nat) = here.router.nat() {
            return here.translate(nat, frames, translations, run);
        }
        let mut told = Told::new(run);
        let mut next = frames.next();
        while let Some((bytes, _)) = next {
            next = match gates::ethertype(at, bytes) {
                Some(ethertype::IPV4) => here.pass::<V4>(next, &mut frames, &mut told),
                Some(ethertype::IPV6) => here.pass::<V6>(next, &mut frames, &mut told),
                _ => None,
            };
        }
        told.turn(None);
        told.end
    }
}

impl Gateway<'_> {
    /// Passes on packets of one version, from `next` on; the one where this ends, if others of the row may go on behind it.
    #[inline]
    fn pass<'f, V: Version>(
        &self,
        mut next: Option<(&'f [u8], u32)>,
        rest: &mut impl Iterator<Item = (&'f [u8], u32)>,
        told: &mut Told<impl FnMut(Way, Range<usize>)>,
    ) -> Option<(&'f [u8], u32)> {
        let mut runs = Runs::<V::Address>::EMPTY;
        let (mut sender, mut known): (_, Option<Known<V::Address>>) = (None, None);
        loop {
            next = self.read::<V>(next, rest, &mut runs);
            if runs.held == 0 {
                return None;
            }
            V::tables(self.router).ways.find_each(&runs.dst[..runs.held], &mut runs.ways);
            let first = told.end;
            for (run, end) in runs.ends[..runs.held].iter().enumerate() {
                let (src, dst, alike) = (runs.src[run], runs.dst[run], runs.ways[run]);
                if sender != Some(src) {
                    if !may_send(V::address(src), self.interface, self.router) {
                        return None;
                    }
                    sender = Some(src);
                }
                if !V::is_destination(dst) {
                    return None;
                }
                let is_known =
                    |known: &Known<_>| known.alike == alike && known.dst.is_none_or(|known| known == dst);
                if !known.as_ref().is_some_and(is_known) {
                    known = self.know::<V>(alike, dst);
                    told.turn(known.as_ref().map(|known| known.way));
                }
                if known.as_ref().is_none_or(|known| runs.longest[run] > known.longest) {
                    return None;
                }
                told.end = first + end;
            }
        }
    }

    /// Reads as many as there is room for; the one that is to be read after these. A function of its own, whose loop has all registers.
    #[inline(never)]
    fn read<'f, V: Version>(
        &self,
        mut next: Option<(&'f [u8], u32)>,
        rest: &mut impl Iterator<Item = (&'f [u8], u32)>,
        runs: &mut Runs<V::Address>,
    ) -> Option<(&'f [u8], u32)> {
        let (mut held, mut last) = (0, None);
        for frame in 0..self.ahead {
            let Some((bytes, len)) = next else { break };
            let Some(ends) = V::ends(self.at, bytes, len) else { break };
            if last.is_none_or(|(last, longest)| last != ends || len > longest) {
                last = Some((ends, len));
                [runs.src[held], runs.dst[held]] = ends;
                runs.longest[held] = len;
                held += 1;
            }
            runs.ends[held - 1] = frame + 1;
            next = rest.next();
        }
        runs.held = held;
        next
    }

    /// Where packets for `dst` go, to which these routes lead; none if that needs another look.
    #[inline(never)]
    fn know<V: Version>(&self, alike: u32, dst: V::Address) -> Option<Known<V::Address>> {
        let Self { ingress, home, row, routing, at, .. } = *self;
        let (vlan, next, is_dst) = match &self.router.routes().get(alike as usize)?.onward {
            Onward::Connected(vlan) => (*vlan, V::address(dst), true),
            Onward::Via(ways) => {
                let [(vlan, next)] = <[_; 1]>::try_from(&ways[..]).ok()?;
                (vlan, next, false)
            }
            Onward::Own | Onward::Broadcast | Onward::Blackhole => return None,
        };
        routing.interface(vlan)?;
        let mac = ingress.switch.neighbours.find(vlan, next, ingress.switch.now, true)?;
        let place = Place::new(home.switch, vlan);
        let hash = home.fdb.hasher().hash(place, mac.to_u64() << 16);
        let found = home.fdb.find_in(place, home.fdb.find(mac.to_u64() << 16, hash)?, hash)?;
        let port = found.port(ingress.switch.world)?;
        let egress = port.egress(home.switch, vlan)?;
        // No firewall, and no limit that each frame is held against; the routers' own port takes no rows.
        if !(home.port.is_plain && port.is_plain && port.takes_rows) {
            return None;
        }
        let longest = port.mtu.map_or(MAX_FRAME_LEN, |mtu| u32::from(mtu) + at as u32).min(MAX_FRAME_LEN);
        let rewrite = Rewrite { dst: mac, src: routing.mac, at: at as u8, translation: None };
        let tag = TagEdit::on_egress(egress, vlan, row.tag.tci(), false);
        let way = Way { to: port.id.index(), edit: Edit { tag, rewrite: Some(rewrite) } };
        Some(Known { alike, dst: is_dst.then_some(dst), way, longest, vlan, next })
    }

    /// The same of packets from `src`, which have this as their destination where they go on.
    pub(super) fn know_of<V: Version>(&self, src: V::Address, dst: V::Address) -> Option<Known<V::Address>> {
        let mut alike = [NOTHING];
        V::tables(self.router).ways.find_each(&[dst], &mut alike);
        let may_pass = may_send(V::address(src), self.interface, self.router) && V::is_destination(dst);
        if may_pass { self.know::<V>(alike[0], dst) } else { None }
    }
}

impl<A: Bits> Runs<A> {
    const EMPTY: Self = Self {
        src: [A::ZERO; AHEAD],
        dst: [A::ZERO; AHEAD],
        ways: [NOTHING; AHEAD],
        longest: [0; AHEAD],
        ends: [0; AHEAD],
        held: 0,
    };
}

/// The IP header of a frame that begins so, if it stands `at` that place and the EtherType before it announces that.
#[inline(always)]
fn behind<const LEN: usize>(at: usize, announced: u16, bytes: &[u8]) -> Option<&[u8; LEN]> {
    if gates::ethertype(at, bytes)? == announced { bytes.get(at..)?.first_chunk() } else { None }
}

impl Version for V4 {
    type Address = u32;

    #[inline(always)]
    fn ends(at: usize, bytes: &[u8], len: u32) -> Option<[u32; 2]> {
        let header = behind::<20>(at, ethertype::IPV4, bytes)?;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let is_sound = header[0] == 0x45 && total >= 20 && at + total <= len as usize && header[8] > 1;
        let [src, dst] = [header[12..].first_chunk()?, header[16..].first_chunk()?];
        // RFC 1812 §5.2.2.
        (is_sound && is_sound_header(header)).then(|| [src, dst].map(|octets| u32::from_be_bytes(*octets)))
    }

    #[inline(always)]
    fn address(bits: u32) -> IpAddr {
        Ipv4Addr::from_bits(bits).into()
    }

    fn bits(address: IpAddr) -> Option<u32> {
        if let IpAddr::V4(address) = address { Some(address.to_bits()) } else { None }
    }

    #[inline(always)]
    fn is_destination(bits: u32) -> bool {
        let address = Self::address(bits);
        is_host_address(address) && !is_link_local(address)
    }

    #[inline(always)]
    fn tables(router: &Router) -> &Tables<u32> {
        &router.v4
    }
}

impl Version for V6 {
    type Address = u128;

    #[inline(always)]
    fn ends(at: usize, bytes: &[u8], len: u32) -> Option<[u128; 2]> {
        let header = behind::<40>(at, ethertype::IPV6, bytes)?;
        let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
        // TCP, UDP and ICMPv6: behind anything else a route of the sender's own may stand.
        let is_sound = header[0] >> 4 == 6 && matches!(header[6], 6 | 17 | 58) && header[7] > 1;
        let [src, dst] = [header[8..].first_chunk()?, header[24..].first_chunk()?];
        (is_sound && at + 40 + payload <= len as usize)
            .then(|| [src, dst].map(|octets| u128::from_be_bytes(*octets)))
    }

    #[inline(always)]
    fn address(bits: u128) -> IpAddr {
        Ipv6Addr::from_bits(bits).into()
    }

    fn bits(address: IpAddr) -> Option<u128> {
        if let IpAddr::V6(address) = address { Some(address.to_bits()) } else { None }
    }

    #[inline(always)]
    fn is_destination(bits: u128) -> bool {
        // What begins with these is neither unspecified, the host itself, link-local nor a group.
        (1..0xfe80).contains(&(bits >> 112)) || {
            let address = Self::address(bits);
            is_host_address(address) && !is_link_local(address)
        }
    }

    #[inline(always)]
    fn tables(router: &Router) -> &Tables<u128> {
        &router.v6
    }
}
