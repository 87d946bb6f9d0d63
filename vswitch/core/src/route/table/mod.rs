//! What a router knows of each address: its longest route, and whose it may be if a packet comes from it.

mod grid;
mod ranges;

pub use grid::Table;
pub use ranges::Bits;

use super::{Onward, Route};
use crate::vlan::VlanId;
use ipnet::IpNet;
use std::collections::HashMap;

/// From where packets with a source address may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// From everywhere, as far as the router knows.
    Anywhere,
    /// From this VLAN, whose network it is in.
    In(VlanId),
    /// From nowhere: no other host has it.
    Nobody,
}

/// The place of a route that is none's.
pub const NOTHING: u32 = u32::MAX;

/// A router's tables for one version of IP.
#[derive(Debug)]
pub struct Tables<B: Bits> {
    /// Where packets go: of all routes that lead where the longest one leads, the first. Equal answers lead to the same.
    pub ways: Table<B, u32>,
    /// The longest route itself, for who asks which it is.
    routes: Table<B, u32>,
    /// Where packets come from: small, however many routes there are, since these say nothing of it.
    pub senders: Table<B, Sender>,
}

impl<B: Bits> Tables<B> {
    /// The longest route to an address.
    #[inline]
    pub fn route(&self, to: B) -> u32 {
        self.routes.find(to)
    }

    /// Bytes that they have, without the routes themselves.
    pub fn size(&self) -> usize {
        self.ways.size() + self.routes.size() + self.senders.size()
    }
}

/// Routes by prefix: its first address, its length, and the route's place.
type Prefixes<B> = Vec<(B, u8, u32)>;

/// The routes of a router, and what finds them. Of two to the same network the first holds; but what is the router's own is no other's.
pub(super) fn compile(mut routes: Vec<Route>) -> (Vec<Route>, Tables<u32>, Tables<u128>) {
    let (mut v4, mut v6) = (Prefixes::new(), Prefixes::new());
    for (place, route) in (0..).zip(&routes) {
        match route.to {
            IpNet::V4(to) => v4.push((to.network().to_bits(), to.prefix_len(), place)),
            IpNet::V6(to) => v6.push((to.network().to_bits(), to.prefix_len(), place)),
        }
    }
    let mut gone = distinct(&mut v4, &mut routes);
    gone.extend(distinct(&mut v6, &mut routes));
    if !gone.is_empty() {
        let mut stays = vec![true; routes.len()];
        gone.iter().for_each(|place| stays[*place as usize] = false);
        let mut left = 0;
        let moved = stays.iter().map(|stays| {
            let place = left;
            left += u32::from(*stays);
            place
        });
        let moved: Vec<u32> = moved.collect();
        let places = v4.iter_mut().map(|(.., place)| place).chain(v6.iter_mut().map(|(.., place)| place));
        places.for_each(|place| *place = moved[*place as usize]);
        let mut stays = stays.into_iter();
        routes.retain(|_| stays.next() == Some(true));
    }
    let alike = alike(&routes);
    let (v4, v6) = (tables(&v4, &routes, &alike), tables(&v6, &routes, &alike));
    (routes, v4, v6)
}

/// Sorts them as [`ranges::ranges`] has them, and takes out what has the prefix of another: the places of these.
fn distinct<B: Bits>(prefixes: &mut Prefixes<B>, routes: &mut [Route]) -> Vec<u32> {
    prefixes.sort_unstable();
    let mut gone = Vec::new();
    prefixes.dedup_by(|other, first| {
        let is_same = (other.0, other.1) == (first.0, first.1);
        if is_same {
            if routes[other.2 as usize].onward == Onward::Own {
                routes.swap(other.2 as usize, first.2 as usize);
            }
            gone.push(other.2);
        }
        is_same
    });
    gone
}

/// Of each route the first that leads where it leads.
fn alike(routes: &[Route]) -> Vec<u32> {
    let mut firsts: HashMap<&Onward, u32> = HashMap::new();
    let mut last: Option<(&Onward, u32)> = None;
    let alike = |(place, onward)| match last {
        // Many of a long list are as the one before.
        Some((before, first)) if before == onward => first,
        _ => {
            let first = *firsts.entry(onward).or_insert(place);
            last = Some((onward, first));
            first
        }
    };
    (0..).zip(routes.iter().map(|route| &route.onward)).map(alike).collect()
}

fn tables<B: Bits>(prefixes: &[(B, u8, u32)], routes: &[Route], alike: &[u32]) -> Tables<B> {
    // Of those that are alike the first is asked: of a million there are few, which are near.
    let sender = |way: u32| match routes[way as usize].onward {
        Onward::Own | Onward::Broadcast => Sender::Nobody,
        Onward::Connected(vlan) => Sender::In(vlan),
        Onward::Via(_) | Onward::Blackhole => Sender::Anywhere,
    };
    let ways = prefixes.iter().map(|(first, len, route)| (*first, *len, alike[*route as usize]));
    let senders = ways.clone().map(|(first, len, way)| (first, len, sender(way)));
    Tables {
        ways: Table::new(&ranges::ranges(ways, NOTHING)),
        routes: Table::new(&ranges::ranges(prefixes.iter().copied(), NOTHING)),
        senders: Table::new(&ranges::ranges(senders, Sender::Anywhere)),
    }
}
