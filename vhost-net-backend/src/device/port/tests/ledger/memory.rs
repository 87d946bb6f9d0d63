//! Rows P7 and P9 to P13: guest memory and the descriptors that bring it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::pipe::pipe;

use super::super::super::PortConfig;
use super::super::lab::{Guest, Lab};
use super::super::rig::{
    Answer, DEADLINE, MIB, USER, addresses, ask, event, greet, memory, region, say, set_up,
};
use super::{assert_alive, patient, refused};
use crate::device::fault::PortFault;
use crate::device::gate::wire::{Region, code, state_payload, table_payload};
use crate::driver::{Config, Driver, MemoryConfig};
use crate::features;

fn running(lab: &mut Lab, config: PortConfig) -> Guest {
    let guest = lab.guest(config);
    set_up(&guest.socket);
    assert_eq!(guest.host.rings(), 2);
    guest
}

fn with_header(region: Region) -> Vec<u8> {
    [[0; 8].as_slice(), &region.bytes()].concat()
}

#[test]
fn p07_a_descriptor_that_is_not_what_its_message_wants_is_refused_by_its_name() {
    let mut lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, vec![0; MIB as usize]).expect("a file");
    let directory: OwnedFd = File::open(folder.path()).expect("a directory").into();
    let read_only: OwnedFd = File::open(&path).expect("a file").into();
    let named_only = open(&path, OFlags::PATH, Mode::empty()).expect("a path");
    let process: OwnedFd = File::open("/proc/self/maps").expect("a file of procfs").into();
    let null: OwnedFd = File::open("/dev/null").expect("a device").into();
    let (pipe, _write) = pipe().expect("a pipe");
    let guest = running(&mut lab, patient());
    let own_socket: OwnedFd = guest.socket.try_clone().expect("a dup").into();
    let table = table_payload(&[region(0, MIB)]);
    let cases: [(&OwnedFd, &str); 8] = [
        (&directory, "a directory"),
        (&pipe, "a pipe"),
        (&own_socket, "a socket"),
        (&null, "a character device"),
        (&read_only, "not open for reading and writing"),
        (&named_only, "a regular file"),
        (&process, "lies on procfs"),
        (&event(), "share=on"),
    ];
    for (fd, because) in cases {
        refused(&guest, code::SET_MEM_TABLE, &table, &[fd], because);
        refused(&guest, code::ADD_MEM_REG, &with_header(region(MIB, MIB)), &[fd], because);
    }
    for (fd, because) in [(&directory, "a directory"), (&pipe, "a pipe"), (&own_socket, "a socket")] {
        for request in [code::SET_VRING_KICK, code::SET_VRING_CALL, code::SET_VRING_ERR] {
            refused(&guest, request, &0u64.to_ne_bytes(), &[fd], because);
        }
    }
    let file = memory(MIB);
    refused(&guest, code::SET_VRING_KICK, &0u64.to_ne_bytes(), &[&file], "a regular file");
    lab.exchange();
}

#[test]
fn p09_a_table_that_makes_no_sense_is_refused_and_the_old_one_stays_in_force() {
    let mut lab = Lab::new();
    let guest = running(&mut lab, PortConfig { memory_quota: 64 * MIB, ..patient() });
    let file = memory(MIB);
    let wrong = |edit: fn(&mut Region)| {
        let mut region = region(0, MIB);
        edit(&mut region);
        region
    };
    let cases = [
        (wrong(|region| region.size = 0), "is empty"),
        (wrong(|region| region.guest = u64::MAX - 4095), "wraps"),
        (wrong(|region| region.user = u64::MAX - 4095), "wraps"),
        (wrong(|region| region.offset = u64::MAX - 4095), "wraps"),
        (wrong(|region| region.size = u64::MAX), "wraps"),
        (wrong(|region| region.guest = 8), "pages"),
        (wrong(|region| region.offset = 512), "pages"),
        (wrong(|region| region.offset = 4096), "the region ends at"),
        (wrong(|region| region.size = 2 * MIB), "the region ends at"),
    ];
    for (region, because) in cases {
        refused(&guest, code::SET_MEM_TABLE, &table_payload(&[region]), &[&file], because);
    }
    let two = |second: Region| table_payload(&[region(0, MIB), second]);
    let same_user = Region { user: USER, ..region(MIB, MIB) };
    for second in [region(0, MIB), region(MIB / 2, MIB), same_user] {
        refused(&guest, code::SET_MEM_TABLE, &two(second), &[&file, &file], "overlaps");
    }
    refused(&guest, code::SET_MEM_TABLE, &table_payload(&[]), &[], "not shared");
    let many: Vec<Region> = (0..33).map(|n| region(n * MIB, MIB)).collect();
    refused(&guest, code::SET_MEM_TABLE, &table_payload(&many), &[&file; 33], "33 regions");
    let large = memory(65 * MIB);
    let over_quota = table_payload(&[region(0, 65 * MIB)]);
    refused(&guest, code::SET_MEM_TABLE, &over_quota, &[&large], "may map");
    // As many as fit are taken, in whatever order, under running rings.
    let fds = [file.as_fd(); 32];
    let most: Vec<Region> = (0..32).rev().map(|n| region(n * MIB, MIB)).collect();
    assert_eq!(say(&guest.socket, code::SET_MEM_TABLE, &table_payload(&most), &fds), Answer::Value(0));
    assert_eq!(guest.host.rings(), 2);
    lab.exchange();
}

#[test]
fn p10_memory_that_is_truncated_under_traffic_faults_its_port_only() {
    for _ in 0..20 {
        let mut lab = Lab::new();
        let guest = lab.guest(patient());
        let memory = MemoryConfig { sealed: false, ..MemoryConfig::default() };
        let socket = guest.socket.try_clone().expect("a dup");
        let mut driver = Driver::connect(socket, &Config { memory, ..Config::default() }).expect("served");
        assert!(driver.pair().transmit(&[1; 60]));
        driver.pair().flush();
        driver.memory().truncate(0).expect("a truncation");
        let until = Instant::now() + DEADLINE;
        while guest.host.told().len() < 3 {
            assert!(Instant::now() < until, "the port did not notice");
            lab.exchange();
        }
        assert_eq!(guest.host.fault(0), PortFault::MemoryVanished);
        lab.exchange();
    }
}

#[test]
fn p10_a_port_that_demands_seals_takes_no_memory_that_can_shrink() {
    let mut lab = Lab::new();
    let guest = lab.guest(PortConfig { sealed_memory: true, ..patient() });
    greet(&guest.socket);
    let table = table_payload(&[region(0, MIB)]);
    refused(&guest, code::SET_MEM_TABLE, &table, &[&memory(MIB)], "F_SEAL_SHRINK");
    let guest = lab.guest(PortConfig { sealed_memory: true, ..patient() });
    Driver::connect(guest.socket, &Config::default()).expect("its memory is sealed");
    lab.exchange();
}

#[test]
fn p11_a_sparse_terabyte_is_bounded_by_the_quota_and_costs_only_what_is_touched() {
    let mut lab = Lab::new();
    let huge = memory(1 << 40);
    let payload = table_payload(&[region(0, 1 << 40)]);
    let guest = lab.guest(PortConfig { memory_quota: 1 << 30, ..patient() });
    greet(&guest.socket);
    refused(&guest, code::SET_MEM_TABLE, &payload, &[&huge], "may map");
    let guest = running(&mut lab, patient());
    assert_eq!(ask(&guest.socket, code::SET_MEM_TABLE, &payload, &[huge.try_clone().expect("a dup")]), 0);
    lab.exchange();
    let blocks = fstat(&huge).expect("its size").st_blocks;
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks of a sparse file were touched");
}

#[test]
fn p12_memory_changes_under_running_rings_and_no_ring_is_left_without() {
    let mut lab = Lab::new();
    let guest = lab.guest(patient());
    let socket = guest.socket.try_clone().expect("a dup");
    let mut driver = Driver::connect(socket, &Config::default()).expect("served");
    for _ in 0..50 {
        driver.share_memory_again().expect("a new epoch");
        lab.exchange();
        driver.pair().receive(|_, frame| assert_eq!(frame[0], 0x02));
        assert_eq!((guest.host.rings(), driver.pair().fault()), (2, None));
    }
    drop(driver);
    let guest = running(&mut lab, patient());
    let elsewhere = table_payload(&[region(4 * MIB, MIB)]);
    refused(&guest, code::SET_MEM_TABLE, &elsewhere, &[&memory(MIB)], "runs in memory");
    refused(&guest, code::REM_MEM_REG, &with_header(region(0, MIB)), &[], "runs in memory");
    lab.exchange();
}

#[test]
fn p13_regions_are_added_once_and_removed_whole() {
    let mut lab = Lab::new();
    let guest = running(&mut lab, patient());
    let file = memory(MIB);
    let more = with_header(region(MIB, MIB));
    assert_eq!(say(&guest.socket, code::ADD_MEM_REG, &more, &[file.as_fd()]), Answer::Value(0));
    refused(&guest, code::ADD_MEM_REG, &more, &[&file], "overlaps");
    refused(&guest, code::ADD_MEM_REG, &more, &[], "not shared");
    for wrong in [region(MIB, MIB / 2), region(MIB + 4096, MIB - 4096), region(9 * MIB, MIB), region(0, 0)] {
        refused(&guest, code::REM_MEM_REG, &with_header(wrong), &[], "there is no region");
    }
    assert_eq!(say(&guest.socket, code::REM_MEM_REG, &more, &[]), Answer::Value(0));
    refused(&guest, code::REM_MEM_REG, &more, &[], "there is no region");
    assert_alive(&guest);
    lab.exchange();
}

/// Cloud Hypervisor with hotplugged memory gives its regions one by one.
#[test]
fn rings_run_in_memory_that_came_region_by_region() {
    let mut lab = Lab::new();
    let guest = lab.guest(patient());
    let socket: &UnixStream = &guest.socket;
    greet(socket);
    assert_eq!(ask(socket, code::GET_MAX_MEM_SLOTS, &[], &[]), 64);
    let taken = features::VERSION_1 | features::VHOST_USER_PROTOCOL;
    assert_eq!(ask(socket, code::SET_FEATURES, &taken.to_ne_bytes(), &[]), 0);
    for slot in 0..64 {
        let payload = with_header(region(slot * MIB, MIB));
        assert_eq!(ask(socket, code::ADD_MEM_REG, &payload, &[memory(MIB)]), 0, "slot {slot}");
    }
    let file = memory(MIB);
    refused(&guest, code::ADD_MEM_REG, &with_header(region(64 * MIB, MIB)), &[&file], "more than 64");
    for ring in 0..2 {
        assert_eq!(ask(socket, code::SET_VRING_NUM, &state_payload(ring, 256), &[]), 0);
        assert_eq!(ask(socket, code::SET_VRING_ADDR, &addresses(ring), &[]), 0);
        assert_eq!(ask(socket, code::SET_VRING_KICK, &u64::from(ring).to_ne_bytes(), &[event()]), 0);
        assert_eq!(ask(socket, code::SET_VRING_ENABLE, &state_payload(ring, 1), &[]), 0);
    }
    assert_eq!(guest.host.rings(), 2);
    lab.exchange();
}
