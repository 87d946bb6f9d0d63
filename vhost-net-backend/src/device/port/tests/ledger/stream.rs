//! Rows P1 to P6, P22 and P23: the stream of messages and who may speak on it.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};

use super::super::super::{Port, PortConfig};
use super::super::lab::Lab;
use super::super::rig::{Answer, DEADLINE, Host, MIB, ask, event, greet, memory, region, say, set_up};
use super::{assert_alive, closed, patient, refused};
use crate::device::gate::wire::{MAX_FDS, code, request_bytes, state_payload, table_payload};
use crate::driver::misbehave::RawFrontend;

fn impatient() -> PortConfig {
    PortConfig { patience: Duration::from_millis(300), ..patient() }
}

#[test]
fn p01_a_size_beyond_every_message_closes_before_anything_is_read() {
    let mut lab = Lab::new();
    for size in [4097, 0x1_0000, 0x8000_0000, u32::MAX] {
        let guest = lab.guest(patient());
        let header = RawFrontend::header(code::SET_MEM_TABLE, RawFrontend::VERSION, size);
        guest.raw().send_bytes(&header, &[]).expect("sent");
        closed(&mut lab, &guest, "longer than the largest");
    }
}

#[test]
fn p02_messages_may_come_byte_by_byte_but_not_end_halfway() {
    let mut lab = Lab::new();
    let guest = lab.guest(patient());
    greet(&guest.socket);
    let table = request_bytes(code::SET_MEM_TABLE, &table_payload(&[region(0, MIB)]));
    let file = memory(MIB);
    for (at, byte) in table.chunks(1).enumerate() {
        let fds = [file.as_fd()];
        guest.raw().send_bytes(byte, if at == 0 { &fds } else { &[] }).expect("sent");
    }
    let reply = guest.raw().reply(DEADLINE).expect("in time").expect("not closed");
    assert_eq!((reply.request, reply.body), (code::SET_MEM_TABLE, vec![0; 8]));
    for end in [1, 11, 12, 13, table.len() - 1] {
        let guest = lab.guest(patient());
        guest.raw().send_bytes(&table[..end], &[]).expect("sent");
        lab.exchange();
        guest.socket.shutdown(std::net::Shutdown::Write).expect("an end");
        guest.host.disconnects(1);
    }
    lab.exchange();
}

#[test]
fn p03_a_header_and_then_silence_ends_at_the_deadline_and_costs_others_nothing() {
    let mut lab = Lab::new();
    for bytes in [1, 12, 30] {
        let guest = lab.guest(impatient());
        let message = request_bytes(code::SET_VRING_ADDR, &[0; 40]);
        guest.raw().send_bytes(&message[..bytes], &[]).expect("sent");
        closed(&mut lab, &guest, "left a message unfinished");
    }
    let guest = lab.guest(impatient());
    greet(&guest.socket);
    guest.raw().send_bytes(&[1], &[]).expect("sent");
    closed(&mut lab, &guest, &format!("process {}", std::process::id()));
}

#[test]
fn p03_a_frontend_that_reads_no_replies_is_given_up() {
    let mut lab = Lab::new();
    let guest = lab.guest(impatient());
    guest.socket.set_nonblocking(true).expect("non-blocking");
    let request = request_bytes(code::GET_FEATURES, &[]);
    // Until both sockets are full; then the port waits for us, in vain.
    while guest.host.told().len() < 2 {
        if (&guest.socket).write(&request).is_err() {
            lab.exchange();
        }
    }
    let fault = guest.host.fault(0).to_string();
    assert!(fault.contains("did not read a reply"), "{fault}");
}

#[test]
fn p04_a_wrong_version_and_reserved_or_reply_bits_close() {
    let mut lab = Lab::new();
    for flags in [0, 2, 3, 1 | 4, 1 | 16, 1 | 1 << 31, u32::MAX] {
        let guest = lab.guest(patient());
        guest.raw().send_bytes(&RawFrontend::header(code::GET_FEATURES, flags, 0), &[]).expect("sent");
        closed(&mut lab, &guest, "header flags");
    }
}

#[test]
fn p05_an_unknown_request_is_refused_or_closes_where_no_answer_can_say_so() {
    let mut lab = Lab::new();
    let guest = lab.guest(patient());
    greet(&guest.socket);
    for request in [0, 6, 7, 19, 20, 21, 22, 24, 25, 31, 32, 39, 40, 44, 45, 1 << 16, u32::MAX] {
        refused(&guest, request, &[0; 8], &[], "not offered");
    }
    lab.exchange();
    guest.raw().send(99, &[], &[]).expect("sent");
    closed(&mut lab, &guest, "not offered");
}

/// A pipe's write end; its read end tells when the last copy of it is closed.
fn tell_tale() -> (std::fs::File, OwnedFd) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    (read.into(), write)
}

/// Sends more descriptors than the driver's own frontend would.
fn send_many(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).expect("sent");
}

#[test]
fn p06_descriptors_where_none_belong_too_many_or_amid_a_message_are_closed_with_the_connection() {
    let mut lab = Lab::new();
    let kick = request_bytes(code::SET_VRING_KICK, &0u64.to_ne_bytes());
    let polled = request_bytes(code::SET_VRING_CALL, &(1u64 << 8).to_ne_bytes());
    let table = request_bytes(code::SET_MEM_TABLE, &table_payload(&[region(0, MIB)]));
    let add = request_bytes(code::ADD_MEM_REG, &[0; 40]);
    let bare = request_bytes(code::GET_FEATURES, &[]);
    let cases = [(&bare, 1), (&bare, 32), (&kick, 0), (&kick, 2), (&polled, 1), (&table, 2), (&add, 2)];
    let many = [(&bare, MAX_FDS + 1), (&table, 253)];
    for (message, count) in cases.into_iter().chain(many) {
        let guest = lab.guest(patient());
        let (mut read, write) = tell_tale();
        match count {
            0 => guest.raw().send_bytes(message, &[]).expect("sent"),
            _ => send_many(&guest.socket, message, &vec![write.as_fd(); count]),
        }
        drop(write);
        closed(&mut lab, &guest, "descriptors");
        assert_eq!(read.read(&mut [0]).expect("an end"), 0, "every copy is closed");
    }
    let guest = lab.guest(patient());
    let (mut read, write) = tell_tale();
    guest.raw().send_bytes(&kick[..12], &[]).expect("sent");
    guest.raw().send_bytes(&kick[12..16], &[write.as_fd()]).expect("sent");
    drop(write);
    closed(&mut lab, &guest, "middle of a message");
    assert_eq!(read.read(&mut [0]).expect("an end"), 0);
}

/// A whole set-up as bytes, each message with its descriptor.
fn conversation() -> Vec<(Vec<u8>, Option<OwnedFd>)> {
    let ring = |code: u32, value: u32| (request_bytes(code, &state_payload(0, value)), None);
    let eventfd = |code: u32| (request_bytes(code, &0u64.to_ne_bytes()), Some(event()));
    vec![
        (request_bytes(code::GET_FEATURES, &[]), None),
        (request_bytes(code::SET_OWNER, &[]), None),
        (request_bytes(code::SET_FEATURES, &(1u64 << 32 | 1 << 30).to_ne_bytes()), None),
        (request_bytes(code::SET_MEM_TABLE, &table_payload(&[region(0, MIB)])), Some(memory(MIB))),
        ring(code::SET_VRING_NUM, 256),
        ring(code::SET_VRING_BASE, 0),
        (request_bytes(code::SET_VRING_ADDR, &super::super::rig::addresses(0)), None),
        eventfd(code::SET_VRING_KICK),
        eventfd(code::SET_VRING_CALL),
        ring(code::SET_VRING_ENABLE, 1),
        ring(code::GET_VRING_BASE, 0),
    ]
}

#[test]
fn p22_a_frontend_may_vanish_at_every_byte_of_a_set_up() {
    let mut lab = Lab::new();
    let said = conversation();
    let total: usize = said.iter().map(|(bytes, _)| bytes.len()).sum();
    for cut in 0..=total {
        let guest = lab.guest(patient());
        let mut left = cut;
        for (bytes, fd) in &said {
            let now = &bytes[..left.min(bytes.len())];
            left -= now.len();
            if !now.is_empty() {
                let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
                guest.raw().send_bytes(now, &fds).expect("sent");
            }
        }
        drop(guest.socket);
        guest.host.disconnects(1);
        assert_eq!(guest.host.rings(), 0, "cut at byte {cut}");
        if cut % 64 == 0 {
            lab.exchange();
        }
    }
    lab.exchange();
}

#[test]
fn p23_a_live_port_has_one_owner_and_silence_is_no_hello() {
    let mut lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("port");
    let host = Arc::<Host>::default();
    let listener = UnixListener::bind(&path).expect("a listener");
    let port = Port::listen(listener, patient(), host.clone()).expect("a port");
    let owner = UnixStream::connect(&path).expect("connected");
    owner.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    set_up(&owner);
    for _ in 0..1000 {
        let mut other = UnixStream::connect(&path).expect("connected");
        other.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        assert_eq!(other.read(&mut [0]).expect("turned away"), 0);
    }
    lab.exchange();
    assert_eq!(host.rings(), 2);
    assert_eq!(ask(&owner, code::SET_VRING_ENABLE, &state_payload(0, 1), &[]), 0);
    port.close();
    assert_eq!(say(&owner, code::GET_FEATURES, &[], &[]), Answer::Closed);

    let silent = lab.guest(impatient());
    closed(&mut lab, &silent, "said nothing");
    let slow = lab.guest(impatient());
    greet(&slow.socket);
    lab.exchange();
    assert_alive(&slow);
}
