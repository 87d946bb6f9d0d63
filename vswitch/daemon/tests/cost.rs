//! What a frame may not cost (DESIGN §2, law 6): a turn allocates nothing and makes no system call, whatever becomes of its frames,
//! but for one call to each driver that asked to be called.
#![expect(
    unsafe_code,
    reason = "counts allocations by a global allocator, and system calls by a signal handler"
)]

#[path = "datapath/description.rs"]
mod description;
#[path = "datapath/left_out.rs"]
mod left_out;
#[path = "datapath/rig.rs"]
mod rig;

use description::{access, description, vlan};
use left_out::left_out;
use rig::Rig;
use rustix::thread::{disable_syscall_user_dispatch, enable_syscall_user_dispatch};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io,
    num::NonZeroU64,
    sync::atomic::{AtomicI32, AtomicU8, Ordering},
};
use vhost_net_backend::driver::Config;
use vswitch_core::{
    build::{self, Ethernet},
    description::{Limits, Link, Membership, Origin, Rates, Storm},
    id::{PortId, SwitchId},
    mac::MacAddr,
    vlan::{Tci, VlanSet},
};
use vswitchd::worker::Turn;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count of calls by thread.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory that it hands out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // Giving back is no better than taking: both may wait for a lock.
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `dealloc`, and `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whether this thread's system calls go to the kernel (0) or to [`caught`] (1); see prctl(2), PR_SET_SYSCALL_USER_DISPATCH.
static CATCH: AtomicU8 = AtomicU8::new(0);

/// The number of the one that was caught, or -1.
static CAUGHT: AtomicI32 = AtomicI32::new(-1);

extern "C" fn caught(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // Its own return is a system call.
    CATCH.store(0, Ordering::Relaxed);
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo; of SIGSYS it holds an address of 8 bytes, then the number
    // (sigaction(2): si_call_addr, si_syscall), behind its three first fields of 4 and 4 of padding.
    let number = unsafe { info.cast::<i32>().add(6).read() };
    CAUGHT.store(number, Ordering::Relaxed);
}

/// Has `work` done with all its system calls caught; the number of the first, which was not made. An error if the kernel cannot
/// catch them.
fn first_system_call(work: impl FnOnce()) -> io::Result<Option<i32>> {
    static NO_CODE: [u8; 1] = [0];
    // SAFETY: the structure is plain data, for which zeros are valid; `caught` has the signature that SA_SIGINFO asks for, and only
    // stores to atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = caught as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        if libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    CAUGHT.store(-1, Ordering::Relaxed);
    // SAFETY: the flag is a static; from here to the end of `work` a system call ends in `caught`, which lets it through.
    unsafe { enable_syscall_user_dispatch(&NO_CODE, &CATCH)? };
    CATCH.store(1, Ordering::Relaxed);
    work();
    CATCH.store(0, Ordering::Relaxed);
    // SAFETY: nothing is caught any more.
    unsafe { disable_syscall_user_dispatch()? };
    Ok(Some(CAUGHT.load(Ordering::Relaxed)).filter(|number| *number >= 0))
}

/// The ports: two stations in VLAN 10, of which one has limits, a trunk, and one who gives no buffer back.
const PORTS: usize = 4;
const LIMITED: usize = 1;
const STALLED: usize = 3;

/// Frames that each port sends in a turn.
const BATCH: usize = 32;

fn station(place: usize) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, place as u8])
}

/// Of each kind some: a turn, which is a microsecond, has 32 frames, of which 20 pass.
fn limits() -> Limits {
    let rate = NonZeroU64::new;
    let rates =
        Rates { bits: rate(100_000_000_000), frames: rate(20_000_000), burst_micros: 1, ..Rates::default() };
    Limits {
        egress: rates,
        ingress: rates,
        storm: Storm { broadcast: rate(100), ..Storm::default() },
        drops_other_macs: true,
        sticky_macs: true,
        origin: Origin { line: 1, column: 1 },
    }
}

fn lab() -> Rig {
    let mut vlans = VlanSet::empty();
    vlans.insert(vlan(10));
    let trunk = Link::Switch { switch: SwitchId::new(0), vlans: Membership::Trunk { vlans, native: None } };
    let mut lab = description(&[access(10), access(10), trunk, access(10)]);
    lab.ports[LIMITED].as_mut().expect("it was said").limits = Some(limits());
    let mut rig = Rig::new(&lab, &Config::default());
    (0..PORTS).for_each(|place| rig.teach(place as u16, vlan(10), station(place)));
    rig
}

/// The frames of one turn: to known stations near by and behind a tag, to all, to nobody, to one who has no buffer; dropped ones; and
/// some of stations that were never seen.
fn frames(from: usize, turn: usize) -> Vec<Vec<u8>> {
    let tag = |number| Some(Tci::from_bits(number));
    let own = if from == 2 { tag(10) } else { None };
    let one = |n: usize| {
        let dst = match n % 8 {
            0..=3 => station(n % PORTS),
            4 => MacAddr::BROADCAST,
            5 => station(100),
            6 => MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 0]),
            _ => station(STALLED),
        };
        let [high, low] = (turn as u16).to_be_bytes();
        let src =
            if n % 16 == 1 { MacAddr::new([2, 1, from as u8, high, low, n as u8]) } else { station(from) };
        // Not this port's VLAN, or none that it may use.
        let tag = if n % 11 == 10 { tag(20) } else { own };
        let len = if n.is_multiple_of(5) { 1000 } else { 46 };
        build::raw(Ethernet { src, dst, tag }, 0x88b5, &vec![n as u8; len])
    };
    (0..BATCH).map(one).collect()
}

/// Takes a turn over what all ports send, by way of `measure`.
fn turn(rig: &mut Rig, number: usize, measure: impl FnOnce(&mut Rig)) {
    for (from, guest) in rig.guests.iter_mut().enumerate() {
        frames(from, number)
            .iter()
            .for_each(|frame| assert!(guest.pair.transmit(frame), "the ring has room"));
        guest.pair.flush();
    }
    measure(rig);
    for guest in rig.guests.iter_mut().take(STALLED) {
        guest.pair.receive(|_, _| {});
    }
}

/// A lab in which every kind of frame went through often enough for all that grows to have grown.
fn warm() -> (Rig, std::ops::Range<usize>) {
    let (mut rig, before) = (lab(), 200);
    for number in 0..before {
        turn(&mut rig, number, |rig| assert_eq!(rig.turns(), PORTS * BATCH));
    }
    let counters = |place| rig.worker.counters(PortId::new(place as u16, 0)).unwrap();
    for place in 0..PORTS {
        let from = counters(place).from_port;
        assert!(from.unicast > 0 && from.flooded > 0 && !from.dropped.is_empty(), "{from:?}");
        assert_eq!(from.frames as usize, before * BATCH);
    }
    assert!(!counters(STALLED).to_port.dropped.is_empty());
    (rig, before..before + 200)
}

#[test]
fn a_turn_allocates_nothing_and_frees_nothing() {
    let (mut rig, turns) = warm();
    for number in turns {
        turn(&mut rig, number, |rig| {
            let before = ALLOCATIONS.with(Cell::get);
            let done = rig.turns();
            let allocations = ALLOCATIONS.with(Cell::get) - before;
            assert_eq!((done, allocations), (PORTS * BATCH, 0), "turn {number}");
        });
    }
}

#[test]
fn a_turn_makes_no_system_call_unless_a_driver_asked_for_one() {
    let seen = first_system_call(|| {
        let _ = rustix::process::getppid();
    });
    match seen {
        Err(why) => {
            return left_out(&format!(
                "that a turn makes no system call: this kernel cannot catch them ({why})"
            ));
        }
        Ok(number) => assert_eq!(number, Some(libc::SYS_getppid as i32), "what is caught is seen"),
    }
    let (mut rig, turns) = warm();
    for number in turns {
        turn(&mut rig, number, |rig| {
            let mut done = None;
            let call = first_system_call(|| done = Some(rig.turns())).unwrap();
            assert_eq!((done, call), (Some(PORTS * BATCH), None), "turn {number}");
            // Also when there is nothing to do.
            assert_eq!(first_system_call(|| assert_eq!(rig.turn(), Turn::Idle)).unwrap(), None);
        });
    }
    // A driver that asks is called, which is the one system call that there is.
    turn(&mut rig, 0, |rig| {
        rig.guests[0].pair.arm();
        let call = first_system_call(|| [rig.turn(), rig.turn()].into_iter().for_each(drop)).unwrap();
        assert_eq!(call, Some(libc::SYS_write as i32));
    });
}

/// How often the driver of the second port was called since it was asked last.
fn heard(rig: &Rig) -> u64 {
    let mut calls = [0; 8];
    match rustix::io::read(rig.guests[1].pair.call_fd(), &mut calls) {
        Ok(_) => u64::from_ne_bytes(calls),
        Err(_) => 0,
    }
}

#[test]
fn a_driver_is_called_once_a_turn_and_ring_however_many_frames_there_are() {
    let (mut rig, turns) = warm();
    for number in turns {
        rig.guests[1].pair.drain_call();
        turn(&mut rig, number, |rig| {
            let (mut done, mut calls) = (0, 0);
            while done < PORTS * BATCH {
                rig.guests[1].pair.arm();
                let Turn::Busy(frames) = rig.turn() else { panic!("{done} frames were taken") };
                done += frames;
                let heard = heard(rig);
                assert!(heard <= 2, "{heard} calls in a turn");
                calls += heard;
            }
            // What the last batch wrote is told in the next turn (decision 0015).
            assert_eq!(rig.turn(), Turn::Idle);
            assert!(calls + heard(rig) > 0, "it asked");
        });
    }
}
