//! The datapath from driver to driver: through gate, daemon, rings, worker and switch.

mod forward;
mod hostile;
mod lab;
mod shapes;
mod tags;
mod traffic;
