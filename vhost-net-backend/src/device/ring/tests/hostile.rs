//! What a hostile guest can write into its rings, row by row, and what becomes of it.

use super::{Wired, words};
use crate::driver::Config;

#[test]
fn a_refused_receive_chain_claims_nothing() {
    let wired = Wired::new(&Config::default());
    wired.driver.raw(0).set_avail(1, 256);
    let refused = "the head of a chain is outside of the descriptor table";
    assert_eq!(words(wired.to.reserve([60, 60])), refused);
    assert_eq!((wired.to.next_avail(), wired.to.next_used()), (0, 0));
    let lease = wired.to.reserve([60]).expect("the first chain is honest");
    assert_eq!(lease.room(0), Ok(()));
}

#[test]
fn a_refused_transmit_chain_takes_nothing() {
    let mut wired = Wired::new(&Config::default());
    let ring = wired.driver.raw(1);
    for head in [0, 256] {
        ring.offer(head);
    }
    let refused = "the head of a chain is outside of the descriptor table";
    assert_eq!(words(wired.from.harvest(64)), refused);
    assert_eq!((wired.from.batch_len(), wired.from.next_avail()), (0, 0));
    assert_eq!(words(wired.from.harvest(64)), refused, "and the same again");
    assert_eq!(wired.from.next_avail(), 0);
}
