//! The datapath from driver to driver: through gate, daemon, rings, worker and switch.

mod capture;
mod description;
mod forward;
mod hostile;
mod idle;
mod kills;
mod lab;
mod left_out;
mod process;
mod quiet;
mod races;
mod recorder;
mod rig;
mod scale;
mod shapes;
mod tags;
mod traffic;
mod workers;
mod worlds;
