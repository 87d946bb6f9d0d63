//! The gate as a pure state machine: what it lets through, and every rule of the protocol broken once.

use super::descriptor::{Descriptor, MemoryFile};
use super::wire::{HEADER_BYTES, Header, Notifier, Region, Request, RingAddresses, WireError, code};
use super::{Gate, Offer, Verdict};
use crate::device::fault::PortFault;
use crate::features;

const FEATURES: u64 = features::VERSION_1 | features::VHOST_USER_PROTOCOL;
const MIB: u64 = 1 << 20;

fn gate() -> Gate {
    Gate::new(Offer { features: features::OFFERED, rings: 2, max_ring_size: 4096, memory_quota: 64 * MIB })
}

fn file(length: u64) -> Descriptor {
    Descriptor::Memory(MemoryFile { length, page_size: 4096, writable: true, sealed: true, unmappable: None })
}

fn region(guest: u64, size: u64) -> Region {
    Region { guest, size, user: guest + 0x7000_0000_0000, offset: 0 }
}

fn at(base: u64) -> RingAddresses {
    let base = base + 0x7000_0000_0000;
    RingAddresses { flags: 0, desc: base, avail: base + 0x4000, used: base + 0x8000 }
}

/// The code does not matter for the verdict of a request that is parsed already.
fn judge(gate: &Gate, request: &Request, fds: &[Descriptor]) -> Verdict {
    gate.judge(code::SET_OWNER, request, fds)
}

#[track_caller]
fn pass(gate: &mut Gate, request: &Request, fds: &[Descriptor]) {
    let verdict = judge(gate, request, fds);
    assert!(matches!(verdict, Verdict::Forward(_) | Verdict::Acknowledge), "{request:?}: {verdict:?}");
    gate.commit(request, fds);
}

#[track_caller]
fn refused(gate: &Gate, request: &Request, fds: &[Descriptor], because: &str) {
    match judge(gate, request, fds) {
        Verdict::Refuse(fault) => assert!(fault.to_string().contains(because), "{request:?}: {fault}"),
        other => panic!("{request:?} was not refused: {other:?}"),
    }
}

fn kick(ring: u64) -> Request {
    Request::VringFd { ring, notifier: Notifier::Kick, has_fd: true }
}

fn with_memory() -> Gate {
    let mut gate = gate();
    pass(&mut gate, &Request::SetFeatures(FEATURES), &[]);
    pass(&mut gate, &Request::SetMemTable(vec![region(0, MIB)]), &[file(MIB)]);
    gate
}

fn running() -> Gate {
    let mut gate = with_memory();
    pass(&mut gate, &Request::VringNum { ring: 0, size: 256 }, &[]);
    pass(&mut gate, &Request::VringBase { ring: 0, base: 0 }, &[]);
    pass(&mut gate, &Request::VringAddr { ring: 0, at: at(0) }, &[]);
    pass(&mut gate, &kick(0), &[Descriptor::Eventfd]);
    pass(&mut gate, &Request::VringEnable { ring: 0, enable: 1 }, &[]);
    gate
}

fn header(code: u32, flags: u32, size: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (place, word) in bytes.chunks_exact_mut(4).zip([code, flags, size]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

#[test]
fn p01_p04_a_header_is_judged_before_its_payload_is_read() {
    assert_eq!(Header::parse(&header(1, 1, 4097)), Err(WireError::TooLong(4097)));
    for flags in [0, 2, 3, 1 | 4, 1 | 16, u32::MAX] {
        assert_eq!(Header::parse(&header(1, flags, 0)), Err(WireError::Flags(flags)));
    }
    assert!(Header::parse(&header(1, 9, 4096)).is_ok_and(|header| header.need_reply));
}

#[test]
fn p05_p27_what_is_not_offered_or_not_known_is_refused() {
    for request in [0, 6, 7, 19, 20, 21, 22, 24, 25, 28, 31, 32, 35, 40, 45, u32::MAX] {
        let parsed = Request::parse(request, &[0; 8]).expect("its payload is not looked at");
        refused(&gate(), &parsed, &[], "not offered");
    }
}

#[test]
fn p06_a_wrong_number_of_descriptors_closes() {
    let two = [Descriptor::Eventfd, Descriptor::Eventfd];
    let polled = Request::VringFd { ring: 0, notifier: Notifier::Call, has_fd: false };
    for (request, fds) in
        [(Request::GetFeatures, &two[..1]), (kick(0), &[]), (kick(0), &two), (polled, &two[..1])]
    {
        assert!(matches!(judge(&gate(), &request, fds), Verdict::Close(_)), "{request:?}");
    }
}

#[test]
fn p07_a_descriptor_of_the_wrong_kind_is_refused() {
    refused(&gate(), &kick(0), &[file(MIB)], "where an eventfd belongs");
    refused(&gate(), &kick(0), &[Descriptor::Unfit("a pipe")], "a pipe");
    let table = Request::SetMemTable(vec![region(0, MIB)]);
    refused(&gate(), &table, &[Descriptor::Unfit("a socket")], "share=on");
    refused(&gate(), &table, &[], "share=on");
    let wrong = |edit: fn(&mut MemoryFile)| {
        let mut memory =
            MemoryFile { length: MIB, page_size: 4096, writable: true, sealed: true, unmappable: None };
        edit(&mut memory);
        Descriptor::Memory(memory)
    };
    refused(&gate(), &table, &[wrong(|memory| memory.writable = false)], "reading and writing");
    refused(&gate(), &table, &[wrong(|memory| memory.sealed = false)], "F_SEAL_SHRINK");
    refused(&gate(), &table, &[wrong(|memory| memory.page_size = 2 << 20)], "whole pages");
    refused(&gate(), &table, &[wrong(|memory| memory.unmappable = Some("no".into()))], "cannot be mapped");
}

#[test]
fn p09_tables_that_make_no_sense_are_refused_and_the_old_one_stays() {
    let gate = running();
    let table = |regions: Vec<Region>| Request::SetMemTable(regions);
    let one = |edit: fn(&mut Region)| {
        let mut region = region(0, MIB);
        edit(&mut region);
        Request::SetMemTable(vec![region])
    };
    refused(&gate, &table(vec![]), &[], "not shared");
    refused(
        &gate,
        &table((0..33).map(|n| region(n * MIB, MIB)).collect()),
        &vec![file(MIB); 33],
        "33 regions",
    );
    refused(&gate, &one(|region| region.size = 0), &[file(MIB)], "empty");
    refused(&gate, &one(|region| region.guest = u64::MAX - 4095), &[file(MIB)], "wraps");
    refused(&gate, &one(|region| region.user = u64::MAX - 4095), &[file(MIB)], "wraps");
    refused(&gate, &one(|region| region.offset = u64::MAX - 4095), &[file(MIB)], "wraps");
    refused(&gate, &one(|region| region.offset = 5), &[file(2 * MIB)], "pages");
    refused(&gate, &one(|region| region.offset = 4096), &[file(MIB)], "the region ends at");
    refused(&gate, &table(vec![region(0, MIB), region(MIB / 2, MIB)]), &vec![file(MIB); 2], "overlaps");
    let same_user = Region { user: region(0, 0).user, ..region(MIB, MIB) };
    refused(&gate, &table(vec![region(0, MIB), same_user]), &vec![file(MIB); 2], "overlaps");
    refused(&gate, &table(vec![region(0, 65 * MIB)]), &[file(65 * MIB)], "may map");
}

#[test]
fn p12_p13_regions_come_and_go_but_not_under_a_running_ring() {
    let mut gate = running();
    refused(&gate, &Request::AddMemReg(region(0, MIB)), &[file(MIB)], "overlaps");
    refused(&gate, &Request::RemMemReg(region(0, MIB / 2)), &[], "no region");
    refused(&gate, &Request::RemMemReg(region(0, MIB)), &[], "runs in memory");
    refused(&gate, &Request::SetMemTable(vec![region(MIB, MIB)]), &[file(MIB)], "runs in memory");
    pass(&mut gate, &Request::AddMemReg(region(MIB, MIB)), &[file(MIB)]);
    pass(&mut gate, &Request::RemMemReg(region(MIB, MIB)), &[file(MIB)]);
    pass(&mut gate, &Request::VringEnable { ring: 0, enable: 0 }, &[]);
    pass(&mut gate, &Request::RemMemReg(region(0, MIB)), &[]);
    refused(&gate, &Request::VringEnable { ring: 0, enable: 1 }, &[], "gone");
}

#[test]
fn p14_a_ring_that_is_not_there_is_refused() {
    let gate = with_memory();
    for ring in [2, 255, 0x1_0000, u32::MAX] {
        refused(&gate, &Request::VringNum { ring, size: 256 }, &[], "no ring");
        refused(&gate, &Request::VringAddr { ring, at: at(0) }, &[], "no ring");
        refused(&gate, &Request::VringBase { ring, base: 0 }, &[], "no ring");
        refused(&gate, &Request::GetVringBase { ring }, &[], "no ring");
        refused(&gate, &Request::VringEnable { ring, enable: 1 }, &[], "no ring");
        refused(&gate, &kick(u64::from(ring)), &[Descriptor::Eventfd], "no ring");
    }
}

#[test]
fn p15_p17_sizes_and_indices_are_what_virtio_has_and_stay_while_started() {
    let gate = with_memory();
    for size in [0, 3, 255, 8192, 0x1_0000, u32::MAX] {
        refused(&gate, &Request::VringNum { ring: 0, size }, &[], "cannot have");
    }
    refused(&gate, &Request::VringBase { ring: 0, base: 0x1_0000 }, &[], "16 bits");
    refused(&running(), &Request::VringNum { ring: 0, size: 128 }, &[], "is started");
    refused(&running(), &Request::VringBase { ring: 0, base: 1 }, &[], "is started");
}

#[test]
fn p16_ring_addresses_are_aligned_inside_memory_and_apart() {
    let mut gate = gate();
    refused(&gate, &Request::VringAddr { ring: 0, at: at(0) }, &[], "before any guest memory");
    gate = with_memory();
    pass(&mut gate, &Request::VringNum { ring: 0, size: 256 }, &[]);
    let refuse = |edit: fn(&mut RingAddresses), because| {
        let mut at = at(0);
        edit(&mut at);
        refused(&gate, &Request::VringAddr { ring: 0, at }, &[], because);
    };
    refuse(|at| at.desc += 8, "aligned");
    refuse(|at| at.avail += 1, "aligned");
    refuse(|at| at.used += 2, "aligned");
    refuse(|at| at.flags = 1, "logging");
    refuse(|at| at.desc += MIB, "one region");
    refuse(|at| at.used += MIB - 0x8000 - 2048, "one region");
    refuse(|at| at.used = at.avail, "overlap");
    refuse(|at| at.avail = at.desc + 4080, "overlap");
    pass(&mut gate, &Request::VringAddr { ring: 0, at: at(MIB - 0x9000) }, &[]);
    // Larger than fits there: it needs other addresses before it starts.
    pass(&mut gate, &Request::VringNum { ring: 0, size: 4096 }, &[]);
    pass(&mut gate, &kick(0), &[Descriptor::Eventfd]);
    refused(&gate, &Request::VringEnable { ring: 0, enable: 1 }, &[], "send SET_VRING_ADDR first");
    pass(&mut gate, &Request::VringAddr { ring: 1, at: at(MIB - 0x9000) }, &[]);
    pass(&mut gate, &kick(1), &[Descriptor::Eventfd]);
    refused(&gate, &Request::VringNum { ring: 1, size: 4096 }, &[], "does not fit");
}

#[test]
fn p19_p20_features_are_offered_ones_and_stay_while_rings_run() {
    refused(&gate(), &Request::SetFeatures(FEATURES | 1 << 34), &[], "not offered");
    refused(&gate(), &Request::SetFeatures(features::VHOST_USER_PROTOCOL), &[], "VERSION_1");
    refused(&gate(), &Request::SetProtocolFeatures(1 << 12), &[], "not offered");
    let mut gate = running();
    let other = Request::SetFeatures(FEATURES | features::NET_MRG_RXBUF);
    refused(&gate, &other, &[], "started");
    pass(&mut gate, &Request::SetFeatures(FEATURES), &[]);
    pass(&mut gate, &Request::GetVringBase { ring: 0 }, &[]);
    pass(&mut gate, &other, &[]);
}

#[test]
fn qemu_enables_before_the_features_and_the_gate_replays_it_afterwards() {
    let mut gate = gate();
    for ring in [0, 1] {
        let early = Request::VringEnable { ring, enable: 1 };
        assert_eq!(judge(&gate, &early, &[]), Verdict::Acknowledge);
        gate.commit(&early, &[]);
    }
    let Verdict::Forward(frames) = judge(&gate, &Request::SetFeatures(FEATURES), &[]) else {
        panic!("not forwarded")
    };
    let codes: Vec<u32> = frames.iter().map(|frame| frame.code).collect();
    assert_eq!(codes, [code::SET_FEATURES, code::SET_VRING_ENABLE, code::SET_VRING_ENABLE]);
}

#[test]
fn a_table_is_sorted_for_the_daemon_with_its_descriptors() {
    let table = Request::SetMemTable(vec![region(MIB, MIB), region(0, MIB)]);
    let Verdict::Forward(frames) = judge(&gate(), &table, &vec![file(MIB); 2]) else {
        panic!("not forwarded")
    };
    assert_eq!(frames[0].fds, [1, 0]);
    assert!(matches!(
        judge(&gate(), &Request::SetMemTable(vec![region(0, MIB)]), &[]),
        Verdict::Refuse(PortFault::Memory(_))
    ));
}
