//! A command of the control queue, read (virtio 1.2 §5.1.6.5): class and command, a byte each, then what the command needs; the device
//! answers in the byte behind it.

use super::offer::mask;
use crate::virtio::served::{Broken, Chain};
use std::io::{Read, Write};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_MAC,
    VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI,
    VIRTIO_NET_CTRL_RX_PROMISC, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL,
    VIRTIO_NET_ERR, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ, VIRTIO_NET_OK,
};
use virtio_queue::Reader;

/// What a driver asks of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// To let only some frames through, by address, kind or VLAN. Every such filter is best effort (§5.1.6.5.1 to 5.1.6.5.3), and nothing
    /// follows from it here: whom a frame is for, the switch knows from what it has learned.
    Filter,
    /// To have this address.
    Mac([u8; 6]),
    /// Nothing: it has told the network where it is, as it was asked to.
    Announced,
    /// To be served by so many queue pairs.
    Pairs(u16),
}

/// What is asked for by a driver that has taken `features` and may use `most` queue pairs. None: nothing that can be done. A request without
/// room for an answer breaks the ring.
pub(super) fn read(request: &Chain<'_>, features: u64, most: u16) -> Result<Option<Command>, Broken> {
    let ram = request.memory();
    let answer = request.clone().writer(ram).map_err(|_| Broken::Request)?;
    if answer.available_bytes() == 0 {
        return Err(Broken::Request);
    }
    let mut said = request.clone().reader(ram).map_err(|_| Broken::Request)?;
    let Some([class, command]) = next(&mut said) else { return Ok(None) };
    let taken = |bit| features & mask(&[bit]) != 0;
    Ok(match (u32::from(class), u32::from(command)) {
        (VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC | VIRTIO_NET_CTRL_RX_ALLMULTI)
            if taken(VIRTIO_NET_F_CTRL_RX) =>
        {
            only::<1>(said).map(|_| Command::Filter)
        }
        (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) if taken(VIRTIO_NET_F_CTRL_RX) => {
            are_mac_tables(said).then_some(Command::Filter)
        }
        (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) if taken(VIRTIO_NET_F_CTRL_MAC_ADDR) => {
            let is_of_a_station = |mac: &[u8; 6]| mac[0] & 1 == 0 && *mac != [0; 6];
            only(said).filter(is_of_a_station).map(Command::Mac)
        }
        (VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD | VIRTIO_NET_CTRL_VLAN_DEL)
            if taken(VIRTIO_NET_F_CTRL_VLAN) =>
        {
            only(said).filter(|id| u16::from_le_bytes(*id) < 0xfff).map(|_| Command::Filter)
        }
        (VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK) if taken(VIRTIO_NET_F_GUEST_ANNOUNCE) => {
            only::<0>(said).map(|_| Command::Announced)
        }
        (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) if taken(VIRTIO_NET_F_MQ) => {
            let pairs = only(said).map(u16::from_le_bytes);
            pairs.filter(|pairs| (1..=most).contains(pairs)).map(Command::Pairs)
        }
        _ => None,
    })
}

/// Writes the answer to a request, whose length it returns.
pub(super) fn answer(request: &Chain<'_>, done: bool) -> Result<u32, Broken> {
    let mut room = request.clone().writer(request.memory()).map_err(|_| Broken::Request)?;
    let said = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
    room.write_all(&[said as u8]).map_err(|_| Broken::Request)?;
    Ok(1)
}

fn next<const LEN: usize>(said: &mut Reader<'_>) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    said.read_exact(&mut bytes).ok().map(|()| bytes)
}

/// All that is left, if it is so long.
fn only<const LEN: usize>(mut said: Reader<'_>) -> Option<[u8; LEN]> {
    next(&mut said).filter(|_| said.available_bytes() == 0)
}

/// Whether these are two tables of addresses, of stations and of groups, each behind the number of its entries (§5.1.6.5.2).
fn are_mac_tables(mut said: Reader<'_>) -> bool {
    for _ in 0..2 {
        let entries = next(&mut said).map(u32::from_le_bytes).and_then(|count| usize::try_from(count).ok());
        let Some(bytes) = entries.and_then(|entries| entries.checked_mul(6)) else { return false };
        if bytes > said.available_bytes() {
            return false;
        }
        let Ok(behind) = said.split_at(bytes) else { return false };
        said = behind;
    }
    said.available_bytes() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        confine::Role,
        virtio::{
            mmio::{Offer, VERSION_1},
            served::{
                Service,
                tests::{Buffer, Driver, damage, survive},
            },
        },
    };
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    const ALL: u64 = u64::MAX;
    const MOST: u16 = 4;
    const SAID: u64 = 0x8000;
    const ANSWER: u64 = 0x9000;

    /// Reads commands, and says that each was done that could be.
    #[derive(Default)]
    struct Reading {
        features: u64,
        heard: Vec<Option<Command>>,
    }

    impl Service for Reading {
        const ROLE: Role = Role::Net;

        fn offer(&self) -> Offer {
            Offer { device: 1, features: VERSION_1, queues: 1, queue_size: 8, config: Vec::new() }
        }

        fn start(&mut self, _: u64) {}

        fn serve(&mut self, request: Chain<'_>) -> Result<u32, Broken> {
            let command = read(&request, self.features, MOST)?;
            self.heard.push(command);
            answer(&request, command.is_some())
        }
    }

    /// What is heard of these bytes, in one buffer or in one for each.
    fn heard(features: u64, said: &[u8], apart: bool) -> Option<Command> {
        let mut driver = Driver::new();
        driver.ram.write_slice(said, GuestAddress(SAID)).unwrap();
        driver.ram.write_obj(0xffu8, GuestAddress(ANSWER)).unwrap();
        let readable = |address, length| Buffer { address, length, writable: false };
        let mut buffers = match apart {
            true => (SAID..).take(said.len()).map(|address| readable(address, 1)).collect(),
            false => vec![readable(SAID, said.len() as u32)],
        };
        buffers.push(Buffer { address: ANSWER, length: 1, writable: true });
        let mut reading = Reading { features, heard: Vec::new() };
        assert_eq!(driver.request(&mut reading, &buffers), Ok(1));
        let command = reading.heard[0];
        let told = driver.ram.read_obj::<u8>(GuestAddress(ANSWER)).unwrap();
        assert_eq!(u32::from(told), if command.is_some() { VIRTIO_NET_OK } else { VIRTIO_NET_ERR });
        command
    }

    #[test]
    fn each_command_is_read_if_its_feature_was_taken_and_its_length_is_right() {
        let mac = [2, 0, 0, 0, 0, 9];
        let tables = [&[0, 0, 1, 0, 0, 0], &mac[..], &[2, 0, 0, 0], &mac, &mac].concat();
        let no_tables = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let cases = [
            (VIRTIO_NET_F_CTRL_RX, vec![0, 0, 1], Command::Filter),
            (VIRTIO_NET_F_CTRL_RX, vec![0, 1, 0], Command::Filter),
            (VIRTIO_NET_F_CTRL_RX, [&[1], &tables[1..]].concat(), Command::Filter),
            (VIRTIO_NET_F_CTRL_RX, no_tables.to_vec(), Command::Filter),
            (VIRTIO_NET_F_CTRL_MAC_ADDR, [&[1, 1], &mac[..]].concat(), Command::Mac(mac)),
            (VIRTIO_NET_F_CTRL_VLAN, vec![2, 0, 0xfe, 0x0f], Command::Filter),
            (VIRTIO_NET_F_CTRL_VLAN, vec![2, 1, 1, 0], Command::Filter),
            (VIRTIO_NET_F_GUEST_ANNOUNCE, vec![3, 0], Command::Announced),
            (VIRTIO_NET_F_MQ, vec![4, 0, MOST as u8, 0], Command::Pairs(MOST)),
        ];
        for (feature, said, command) in cases {
            if said.len() < 7 {
                assert_eq!(heard(mask(&[feature]), &said, true), Some(command), "{said:?}");
            }
            assert_eq!(heard(mask(&[feature]), &said, false), Some(command), "{said:?}");
            assert_eq!(heard(ALL & !mask(&[feature]), &said, false), None, "{said:?}");
            for length in 0..said.len() {
                assert_eq!(heard(ALL, &said[..length], false), None, "{said:?}[..{length}]");
            }
            assert_eq!(heard(ALL, &[said, vec![0]].concat(), false), None);
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let pairs = |pairs: u16| [&[4, 0], &pairs.to_le_bytes()[..]].concat();
        let huge = [1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let bad = [
            pairs(0),
            pairs(MOST + 1),
            pairs(u16::MAX),
            huge.to_vec(),
            vec![1, 1, 3, 0, 0, 0, 0, 1],
            vec![1, 1, 0, 0, 0, 0, 0, 0],
            vec![2, 0, 0xff, 0x0f],
            vec![0, 2, 1],
            vec![5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            vec![0xff, 0xff],
        ];
        for said in bad {
            assert_eq!(heard(ALL, &said, false), None, "{said:?}");
        }
    }

    #[test]
    fn a_command_that_leaves_no_room_for_an_answer_breaks_the_ring() {
        let mut driver = Driver::new();
        let said = Buffer { address: SAID, length: 2, writable: false };
        let nothing = Buffer { address: ANSWER, length: 0, writable: true };
        for buffers in [vec![said], vec![said, nothing]] {
            let mut reading = Reading { features: ALL, heard: Vec::new() };
            assert_eq!(driver.request(&mut reading, &buffers), Err(Broken::Request));
            assert!(reading.heard.is_empty());
            driver = Driver::new();
        }
    }

    proptest! {
        #[test]
        fn a_damaged_ring_ends(damage in damage(), features in any::<u64>()) {
            survive(&mut Reading { features, heard: Vec::new() }, &damage);
        }
    }
}
