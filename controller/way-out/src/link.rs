//! What smoltcp has for a network device: the packet that a connection heard, and frames to its neighbour.

use crate::out::Out;
use smoltcp::{
    phy::{self, Checksum, DeviceCapabilities, Medium},
    time::Instant,
    wire::{EthernetAddress, EthernetProtocol},
};

/// smoltcp's device for one connection: at most one packet that was heard, and the frames that are sent to its neighbour.
pub(crate) struct Link<'a> {
    pub(crate) heard: Option<&'a [u8]>,
    pub(crate) peer: EthernetAddress,
    pub(crate) out: &'a mut Out,
    pub(crate) mtu: usize,
}

pub(crate) struct HeardToken<'a>(&'a [u8]);

pub(crate) struct SendToken<'a> {
    peer: EthernetAddress,
    out: &'a mut Out,
}

impl phy::RxToken for HeardToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl phy::TxToken for SendToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.out.append(self.peer, len, |bytes| {
            let done = f(bytes);
            let is_v4 = bytes.first().is_some_and(|first| first >> 4 == 4);
            (if is_v4 { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 }, done)
        })
    }
}

impl phy::Device for Link<'_> {
    type RxToken<'b>
        = HeardToken<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = SendToken<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(HeardToken<'_>, SendToken<'_>)> {
        let heard = HeardToken(self.heard.take()?);
        Some((heard, SendToken { peer: self.peer, out: self.out }))
    }

    fn transmit(&mut self, _: Instant) -> Option<SendToken<'_>> {
        self.out.has_room().then_some(SendToken { peer: self.peer, out: self.out })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut all = DeviceCapabilities::default();
        all.medium = Medium::Ip;
        all.max_transmission_unit = self.mtu;
        // What was heard was looked at before.
        all.checksum.ipv4 = Checksum::Tx;
        all.checksum.tcp = Checksum::Tx;
        all
    }
}
