//! The rows.
use super::lab::Lab;
#[test]
fn two_polite_drivers_exchange_frames() {
    let mut lab = Lab::new();
    (0..20).for_each(|_| lab.exchange());
}
