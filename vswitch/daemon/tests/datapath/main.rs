//! The datapath from driver to driver: through gate, daemon, rings, worker and switch.

mod attacks;
mod capture;
mod churn;
mod description;
mod firewall;
mod forward;
mod hostile;
mod idle;
mod isolation;
mod kills;
mod lab;
mod left_out;
mod limits;
mod offloads;
mod patience;
mod policy_change;
mod process;
mod queues;
mod quiet;
mod races;
mod recorder;
mod rig;
mod routers;
mod scale;
mod shapes;
mod tags;
mod traffic;
mod translated;
mod workers;
mod worlds;

/// Counts what is allocated and not freed, for tests of what is left behind.
#[global_allocator]
static HEAP: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;
