//! Who has which address in the VLANs of routers (RFC 826, RFC 4861): asked by every worker, said by one.

use super::Routing;
use crate::{clock::Instant, mac::MacAddr, mix::fold, vlan::VlanId};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
};

/// How many neighbours there are at most: the places of the table.
pub const CAPACITY: usize = 1 << 14;

/// Slots in which an address may stand: from its own on.
const WINDOW: usize = 16;

/// One neighbour, found by VLAN and address.
///
/// Who changes it makes `turn` odd before and even afterwards; what was read is its own if `turn` was even and the same before and after.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    turn: AtomicU64,
    address: [AtomicU64; 2],
    /// `63 VLAN | 51 - | 47 MAC address 0`; zero: nobody.
    who: AtomicU64,
    /// When it was last heard, and when a frame last went to it, in seconds.
    heard: AtomicU32,
    used: AtomicU32,
}

/// All neighbours.
#[derive(Debug)]
pub struct Neighbours {
    /// Made for the first of them: most labs have none.
    slots: OnceLock<Box<[Slot]>>,
    secret: [u64; 2],
    changing: Mutex<()>,
}

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The VLAN that it is in.
    pub vlan: VlanId,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Seconds since it said so itself.
    pub heard_secs: u32,
    /// Seconds since a frame was routed to it; none: since it was heard none was.
    pub used_secs: Option<u32>,
}

impl Neighbours {
    /// Nobody is known. The secret keeps who may choose addresses from choosing where they stand.
    pub fn new(secret: [u64; 2]) -> Self {
        Self { slots: OnceLock::new(), secret, changing: Mutex::new(()) }
    }

    /// The MAC address of a neighbour. That it was asked for is noted if `uses`: then whoever keeps the table sees that it is worth keeping.
    #[inline]
    pub fn find(&self, vlan: VlanId, address: IpAddr, now: Instant, uses: bool) -> Option<MacAddr> {
        let words = words(address);
        self.window(vlan, words).find_map(|slot| {
            let mac = slot.read(vlan, words)?;
            let now = now.as_secs() as u32;
            if uses && slot.used.load(Ordering::Relaxed) != now {
                slot.used.store(now, Ordering::Relaxed);
            }
            Some(mac)
        })
    }

    /// Notes that a neighbour was heard. Of those whose addresses fall together the one that was used longest ago goes, if there is no room.
    pub fn set(&self, vlan: VlanId, address: IpAddr, mac: MacAddr, now: Instant) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.slots.get_or_init(|| std::iter::repeat_with(Slot::default).take(CAPACITY).collect());
        let (words, now) = (words(address), now.as_secs() as u32);
        let same = self.window(vlan, words).find(|slot| slot.is(vlan, words));
        let used = same.map_or(0, |slot| slot.used.load(Ordering::Relaxed));
        let free = || self.window(vlan, words).find(|slot| slot.who.load(Ordering::Relaxed) == 0);
        let oldest = || self.window(vlan, words).min_by_key(|slot| slot.used.load(Ordering::Relaxed));
        let Some(slot) = same.or_else(free).or_else(oldest) else { return };
        slot.write(words, u64::from(vlan.number()) << 52 | mac.to_u64(), (now, used));
    }

    /// Forgets a neighbour.
    pub fn forget(&self, vlan: VlanId, address: IpAddr) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let words = words(address);
        if let Some(slot) = self.window(vlan, words).find(|slot| slot.is(vlan, words)) {
            slot.write([0; 2], 0, (0, 0));
        }
    }

    /// Forgets those who can be nobody's neighbours, or not any more.
    pub fn settle(&self, routing: Option<&Routing>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in self.slots.get().into_iter().flatten() {
            let Some((vlan, address)) = slot.key() else { continue };
            if !routing.is_some_and(|routing| routing.is_neighbours(vlan, address)) {
                slot.write([0; 2], 0, (0, 0));
            }
        }
    }

    /// All that are known, in no order.
    pub fn list(&self, now: Instant) -> Vec<Neighbour> {
        self.some(0..CAPACITY, now)
    }

    /// Those that stand in these places, of [`CAPACITY`]: for who goes through the table bit by bit.
    pub fn some(&self, places: Range<usize>, now: Instant) -> Vec<Neighbour> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.as_secs() as u32;
        let neighbour = |slot: &Slot| {
            let (vlan, address) = slot.key()?;
            let who = slot.who.load(Ordering::Relaxed);
            let (heard, used) = (slot.heard.load(Ordering::Relaxed), slot.used.load(Ordering::Relaxed));
            Some(Neighbour {
                vlan,
                address,
                mac: MacAddr::from_u64(who & 0xffff_ffff_ffff),
                heard_secs: now.saturating_sub(heard),
                used_secs: (used >= heard && used > 0).then(|| now.saturating_sub(used)),
            })
        };
        let slots = self.slots.get().map(|slots| slots.get(places).unwrap_or_default());
        slots.into_iter().flatten().filter_map(neighbour).collect()
    }

    #[inline]
    fn window(&self, vlan: VlanId, [high, low]: [u64; 2]) -> impl Iterator<Item = &Slot> {
        let hash = fold(high ^ self.secret[0], low ^ self.secret[1]);
        let hash = fold(hash ^ self.secret[1], (u64::from(vlan.number()) + 1) ^ self.secret[0]);
        let first = hash as usize & (CAPACITY - 1);
        let slots = self.slots.get().into_iter();
        slots.flat_map(move |slots| (0..WINDOW).map(move |n| &slots[(first + n) & (CAPACITY - 1)]))
    }
}

impl Slot {
    #[inline]
    fn is(&self, vlan: VlanId, [high, low]: [u64; 2]) -> bool {
        self.who.load(Ordering::Relaxed) >> 52 == u64::from(vlan.number())
            && self.address[0].load(Ordering::Relaxed) == high
            && self.address[1].load(Ordering::Relaxed) == low
    }

    /// Whose it is, for who keeps others from changing it; none: nobody's.
    fn key(&self) -> Option<(VlanId, IpAddr)> {
        let vlan = VlanId::new((self.who.load(Ordering::Relaxed) >> 52) as u16)?;
        Some((vlan, address([0, 1].map(|word| self.address[word].load(Ordering::Relaxed)))))
    }

    /// Its MAC address, if it is that neighbour's.
    #[inline]
    fn read(&self, vlan: VlanId, address: [u64; 2]) -> Option<MacAddr> {
        let turn = self.turn.load(Ordering::Acquire);
        let is = self.is(vlan, address);
        let who = self.who.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let whole = turn.is_multiple_of(2) && self.turn.load(Ordering::Relaxed) == turn;
        (is && whole).then(|| MacAddr::from_u64(who & 0xffff_ffff_ffff))
    }

    /// By one at a time.
    fn write(&self, [high, low]: [u64; 2], who: u64, (heard, used): (u32, u32)) {
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.address[0].store(high, Ordering::Relaxed);
        self.address[1].store(low, Ordering::Relaxed);
        self.who.store(who, Ordering::Relaxed);
        self.heard.store(heard, Ordering::Relaxed);
        self.used.store(used, Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(2), Ordering::Release);
    }
}

/// An address as two words; of IPv4 the mapped one (RFC 4291 §2.5.5.2).
#[inline]
fn words(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => 0xffff << 32 | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

fn address([high, low]: [u64; 2]) -> IpAddr {
    if high == 0 && low >> 32 == 0xffff {
        return Ipv4Addr::from_bits(low as u32).into();
    }
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
}
