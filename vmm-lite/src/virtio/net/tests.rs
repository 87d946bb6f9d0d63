//! An interface between a driver, which is this test, and a switch that says what it is told.

use super::{
    super::mmio::{VERSION_1, status},
    offer::mask,
    *,
};
use crate::{
    layout::{self, RamSize},
    memory,
};
use kvm_ioctls::Kvm;
use std::{
    io::Read,
    os::unix::net::UnixListener,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Instant,
};
use virtio_bindings::{
    virtio_net::{
        VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ,
        VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP,
    },
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};
use vm_memory::{Bytes, GuestAddress};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// vhost-user's messages.
const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const GET_VRING_BASE: u32 = 11;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const SET_VRING_ENABLE: u32 = 18;
/// Feature bits of the connection: it has protocol features; MQ and REPLY_ACK of these.
const PROTOCOL: u64 = 1 << 30;
const MQ_AND_REPLY_ACK: u64 = 1 | 1 << 3;
/// A message wants an answer.
const NEED_REPLY: u32 = 1 << 3;

/// A message, and the first two words of what it says.
type Heard = (u32, [u32; 2]);

/// The end of a connection.
const HUNG_UP: Heard = (0, [0; 2]);

/// A switch, over and over: it says what it is told, and answers each SET_VRING_ENABLE when it is let.
struct Switch {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    heard: Receiver<Heard>,
    /// What the next SET_VRING_ENABLE is answered: 0 is yes.
    let_answer: Sender<u64>,
    /// Its connections.
    lines: Receiver<UnixStream>,
}

impl Switch {
    fn new(features: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("switch");
        let listener = UnixListener::bind(&socket).unwrap();
        let ((say, heard), (let_answer, answers)) = (channel(), channel());
        let (connected, lines) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                if connected.send(stream.try_clone().unwrap()).is_err() {
                    return;
                }
                serve(&stream, features, &say, &answers);
                if say.send(HUNG_UP).is_err() {
                    return;
                }
            }
        });
        Self { _folder: folder, socket, heard, let_answer, lines }
    }

    fn config(&self, queues: u16) -> NetConfig {
        NetConfig { socket: self.socket.clone(), mac: MAC, mtu: None, queues, link_up: true }
    }

    /// Lets it hear which rings it is to carry frames by.
    fn hears_of(&self, enabled: &[[u32; 2]]) {
        for _ in enabled {
            self.let_answer.send(0).unwrap();
        }
        assert_eq!(self.said(SET_VRING_ENABLE, enabled.len()), enabled);
    }

    /// What the next messages of this kind say.
    fn said(&self, kind: u32, messages: usize) -> Vec<[u32; 2]> {
        let of_kind = || loop {
            let (heard, words) = self.heard.recv_timeout(PATIENCE).expect("a message");
            if heard == kind {
                return words;
            }
        };
        (0..messages).map(|_| of_kind()).collect()
    }
}

/// One connection, to its end.
fn serve(mut stream: &UnixStream, features: u64, say: &Sender<Heard>, let_answer: &Receiver<u64>) {
    let mut header = [0; 12];
    while stream.read_exact(&mut header).is_ok() {
        let field = |at| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (kind, flags) = (field(0), field(4));
        let mut body = vec![0; field(8) as usize];
        stream.read_exact(&mut body).unwrap();
        body.resize(body.len().max(8), 0);
        let words = [0, 4].map(|at| u32::from_le_bytes(body[at..at + 4].try_into().unwrap()));
        if say.send((kind, words)).is_err() {
            return;
        }
        let value = match kind {
            SET_VRING_ENABLE => match let_answer.recv() {
                Ok(answer) => answer,
                Err(_) => return,
            },
            GET_FEATURES => features,
            GET_PROTOCOL_FEATURES => MQ_AND_REPLY_ACK,
            GET_QUEUE_NUM => 8,
            GET_VRING_BASE => words[0].into(),
            _ if flags & NEED_REPLY != 0 => 0,
            _ => continue,
        };
        // Version 1, and a reply; one that is not taken any more ends the connection.
        let reply = [kind, 1 | 1 << 2, 8].map(u32::to_le_bytes).concat();
        let _ = stream.write_all(&[reply, value.to_le_bytes().to_vec()].concat());
    }
}

/// A machine's interface, of which this test is the driver; none without KVM.
fn interface(config: &NetConfig) -> Option<(Net, Arc<Vm>)> {
    let Ok(kvm) = Kvm::new() else {
        eprintln!("LEFT OUT: an interface of a machine: /dev/kvm is not there for us");
        return None;
    };
    let ram = memory::create(RamSize::new(RamSize::LEAST).unwrap()).unwrap();
    let vm = Arc::new(Vm::new(kvm, ram).unwrap());
    vm.create_vcpu(0, 1).unwrap();
    let place = layout::virtio_place(0).unwrap();
    let mut net = Net::new(0, config, place, vm.clone(), &mut Lines::new()).unwrap();
    net.begin(Confinement::none()).unwrap();
    Some((net, vm))
}

impl Net {
    fn set(&mut self, register: u64, value: u32) {
        self.write(register, &value.to_le_bytes());
    }

    /// §3.1.1, with these features and the first `rings` rings.
    fn start(&mut self, features: u64, rings: u32) {
        self.set(register::STATUS, status::ACKNOWLEDGE);
        self.set(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for select in [0, 1] {
            self.set(register::DRIVER_FEATURES_SEL, select);
            self.set(register::DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
        let settled = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set(register::STATUS, settled);
        for ring in 0..rings {
            self.set(register::QUEUE_SEL, ring);
            self.set(register::QUEUE_NUM, ENTRIES);
            let place = RINGS + 0x1000 * ring;
            for (register, offset) in [
                (register::QUEUE_DESC_LOW, 0),
                (register::QUEUE_DRIVER_LOW, AVAILABLE),
                (register::QUEUE_DEVICE_LOW, USED),
            ] {
                self.set(register, place + offset);
            }
            self.set(register::QUEUE_READY, 1);
        }
        self.set(register::STATUS, settled | status::DRIVER_OK);
    }

    /// So many bytes of the configuration space.
    fn space<const LEN: usize>(&self, offset: u64) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.read(register::CONFIG + offset, &mut bytes);
        bytes
    }
}

const ENTRIES: u32 = 8;
const RINGS: u32 = 0x10_0000;
const AVAILABLE: u32 = 0x400;
const USED: u32 = 0x800;
const SAID: u64 = 0x20_0000;

/// The driver's end of a control queue.
struct Asking<'a> {
    net: &'a mut Net,
    vm: &'a Vm,
    ring: u32,
    asked: u16,
}

/// Where something of a ring is.
fn at(ring: u32, offset: u32) -> GuestAddress {
    GuestAddress((RINGS + 0x1000 * ring + offset).into())
}

/// How many requests of a ring are answered.
fn answered(vm: &Vm, ring: u32) -> u16 {
    vm.ram().read_obj(at(ring, USED + 2)).unwrap()
}

impl Asking<'_> {
    /// Asks, and gets the answer; 0: it is done. Rings only if the device has said that it waits for that (EVENT_IDX, §2.7.10).
    fn asks(&mut self, said: &[u8]) -> u8 {
        let (ram, behind, ring) = (self.vm.ram(), SAID + said.len() as u64, self.ring);
        ram.write_slice(&[said, &[0xff]].concat(), GuestAddress(SAID)).unwrap();
        // What is said, and behind it the answer, which may be written.
        for (offset, address, length, flags, next) in
            [(0, SAID, said.len() as u32, 1u16, 1u16), (16, behind, 1, 2, 0)]
        {
            ram.write_obj(address, at(ring, offset)).unwrap();
            ram.write_obj(length, at(ring, offset + 8)).unwrap();
            ram.write_obj(flags, at(ring, offset + 12)).unwrap();
            ram.write_obj(next, at(ring, offset + 14)).unwrap();
        }
        ram.write_obj(0u16, at(ring, AVAILABLE + 4 + 2 * (u32::from(self.asked) % ENTRIES))).unwrap();
        let before = self.asked;
        self.asked += 1;
        ram.write_obj(self.asked, at(ring, AVAILABLE + 2)).unwrap();
        assert_eq!(ram.read_obj::<u16>(at(ring, USED + 4 + 8 * ENTRIES)).unwrap(), before, "avail_event");
        self.net.set(register::QUEUE_NOTIFY, ring);
        assert_eq!(answered(self.vm, ring), self.asked, "no answer to {said:?}");
        ram.read_obj(GuestAddress(SAID + said.len() as u64)).unwrap()
    }
}

#[test]
fn a_driver_that_starts_without_rings_is_told_of_once_and_can_reset() {
    let switch = Switch::new(VERSION_1);
    let Some((mut net, _vm)) = interface(&switch.config(1)) else { return };
    net.start(VERSION_1, 0);
    switch.said(SET_FEATURES, 1);
    let began = Instant::now();
    net.set(register::STATUS, 0);
    assert!(began.elapsed() < PATIENCE, "nobody has a ring that is waited for");
    drop(net);
    let mut rest = std::iter::from_fn(|| switch.heard.recv_timeout(PATIENCE).ok());
    assert!(
        rest.by_ref().take_while(|heard| *heard != HUNG_UP).all(|(kind, _)| kind != SET_FEATURES),
        "it was told again"
    );
}

const QUEUES: u16 = 4;
const CONTROL: u32 = 2 * QUEUES as u32;
/// A driver's of all its queue pairs.
const TAKEN: u64 = VERSION_1 | mask(&[VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ, VIRTIO_RING_F_EVENT_IDX]);
const OF_SWITCH: u64 = VERSION_1 | PROTOCOL | mask(&[VIRTIO_NET_F_MQ, VIRTIO_RING_F_EVENT_IDX]);

#[test]
fn a_number_of_queue_pairs_is_the_switchs_before_it_is_the_drivers() {
    let switch = Switch::new(OF_SWITCH);
    let Some((mut net, vm)) = interface(&switch.config(QUEUES)) else { return };
    assert_eq!(net.space(8), [QUEUES as u8, 0], "max_virtqueue_pairs");
    net.start(TAKEN, CONTROL + 1);
    switch.hears_of(&[[0, 1], [1, 1]]);

    let mut asking = Asking { net: &mut net, vm: &vm, ring: CONTROL, asked: 0 };
    thread::scope(|scope| {
        let asked = scope.spawn(|| asking.asks(&[4, 0, 4, 0]));
        for ring in [2, 4, 6, 3, 5, 7] {
            assert_eq!(switch.said(SET_VRING_ENABLE, 1), [[ring, 1]]);
            assert_eq!(answered(&vm, CONTROL), 0, "the switch has not enabled ring {ring} yet");
            switch.let_answer.send(0).unwrap();
        }
        assert_eq!(asked.join().unwrap(), 0);
    });
    assert_ne!(asking.asks(&[4, 0, 5, 0]), 0, "there are four");

    // A switch that comes back is told the same, and one that goes away meanwhile fills no ring.
    switch.lines.recv_timeout(PATIENCE).unwrap().shutdown(Shutdown::Both).unwrap();
    let second = switch.lines.recv_timeout(PATIENCE).unwrap();
    switch.hears_of(&[0, 2, 4, 6, 1, 3, 5, 7].map(|ring| [ring, 1]));
    thread::scope(|scope| {
        let asked = scope.spawn(|| asking.asks(&[4, 0, 1, 0]));
        assert_eq!(switch.said(SET_VRING_ENABLE, 1), [[2, 0]], "what is not asked for any more ends");
        second.shutdown(Shutdown::Both).unwrap();
        assert_eq!(asked.join().unwrap(), 0);
    });
}

#[test]
fn a_driver_that_resets_its_device_begins_with_one_queue_pair_again() {
    let switch = Switch::new(OF_SWITCH);
    let Some((mut net, vm)) = interface(&switch.config(QUEUES)) else { return };
    net.start(TAKEN, CONTROL + 1);
    switch.hears_of(&[[0, 1], [1, 1]]);
    for _ in [2, 4, 3, 5] {
        switch.let_answer.send(0).unwrap();
    }
    assert_eq!(Asking { net: &mut net, vm: &vm, ring: CONTROL, asked: 0 }.asks(&[4, 0, 3, 0]), 0);
    net.set(register::STATUS, 0);
    net.start(TAKEN, CONTROL + 1);
    switch.said(SET_VRING_ENABLE, 4);
    switch.hears_of(&[[0, 1], [2, 0], [4, 0], [1, 1], [3, 0], [5, 0]]);
}

#[test]
fn a_number_of_queue_pairs_that_the_switch_refuses_is_not_the_drivers() {
    let switch = Switch::new(OF_SWITCH);
    let Some((mut net, vm)) = interface(&switch.config(QUEUES)) else { return };
    net.start(TAKEN, CONTROL + 1);
    switch.hears_of(&[[0, 1], [1, 1]]);
    let mut asking = Asking { net: &mut net, vm: &vm, ring: CONTROL, asked: 0 };
    // The second receiveq is enabled, the third is not.
    for answer in [0, 1, 0] {
        switch.let_answer.send(answer).unwrap();
    }
    assert_ne!(asking.asks(&[4, 0, 4, 0]), 0);
    assert_eq!(switch.said(SET_VRING_ENABLE, 3), [[2, 1], [4, 1], [2, 0]]);
    for _ in [2, 3] {
        switch.let_answer.send(0).unwrap();
    }
    assert_eq!(asking.asks(&[4, 0, 2, 0]), 0, "the interface is as good as before");
}

#[test]
fn a_driver_of_one_queue_pair_asks_by_the_third_ring() {
    let switch = Switch::new(OF_SWITCH);
    let Some((mut net, vm)) = interface(&switch.config(QUEUES)) else { return };
    let mac = mask(&[VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_RING_F_EVENT_IDX]);
    net.start(VERSION_1 | mac, 3);
    switch.hears_of(&[[0, 1], [1, 1]]);
    let mut asking = Asking { net: &mut net, vm: &vm, ring: 2, asked: 0 };
    assert_ne!(asking.asks(&[4, 0, 2, 0]), 0, "it has not taken MQ");
    assert_eq!(asking.asks(&[1, 1, 2, 0, 0, 0, 0, 9]), 0);
    assert_eq!(net.space(0), [2, 0, 0, 0, 0, 9]);
    net.set(register::STATUS, 0);
    assert_eq!(net.space(0), MAC, "its address was its own until the reset");
}

#[test]
fn a_driver_is_asked_to_announce_itself_to_a_switch_that_came_back() {
    let switch = Switch::new(VERSION_1);
    let Some((mut net, vm)) = interface(&switch.config(1)) else { return };
    net.start(VERSION_1 | mask(&[VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE]), 3);
    switch.said(SET_FEATURES, 1);
    let [up, announce] = [VIRTIO_NET_S_LINK_UP, VIRTIO_NET_S_ANNOUNCE].map(|bit| bit as u8);
    assert_eq!(net.space(6), [up, 0], "nothing is new to anybody yet");
    switch.lines.recv_timeout(PATIENCE).unwrap().shutdown(Shutdown::Both).unwrap();
    let began = Instant::now();
    while net.space(6) != [up | announce, 0] {
        assert!(began.elapsed() < PATIENCE, "it is not asked");
        thread::yield_now();
    }
    net.set_link(false);
    assert_eq!(net.space(6), [announce, 0]);
    net.set_link(true);
    assert_eq!(Asking { net: &mut net, vm: &vm, ring: 2, asked: 0 }.asks(&[3, 0]), 0);
    assert_eq!(net.space(6), [up, 0]);
}

#[test]
fn a_control_queue_outside_of_memory_asks_for_a_reset() {
    let switch = Switch::new(VERSION_1);
    let Some((mut net, _vm)) = interface(&switch.config(1)) else { return };
    net.set(register::QUEUE_SEL, 2);
    net.set(register::QUEUE_NUM, ENTRIES);
    net.set(register::QUEUE_DESC_LOW, 0xffff_f000);
    net.set(register::QUEUE_READY, 1);
    net.start(VERSION_1 | mask(&[VIRTIO_NET_F_CTRL_VQ]), 2);
    let mut told = [0; 4];
    net.read(register::STATUS, &mut told);
    assert_ne!(u32::from_le_bytes(told) & status::DEVICE_NEEDS_RESET, 0);
    net.set(register::QUEUE_NOTIFY, 2);
}

#[test]
fn a_switch_that_serves_fewer_queue_pairs_is_told_of() {
    for (features, offered) in [(VERSION_1, 1), (VERSION_1 | PROTOCOL | mask(&[VIRTIO_NET_F_MQ]), 4)] {
        let switch = Switch::new(features);
        let why = Connection::open_within(&switch.config(5), PATIENCE).err().expect("it serves fewer");
        assert!(matches!(why, NetError::Queues { offered: told, wanted: 5 } if told == offered), "{why}");
    }
}
