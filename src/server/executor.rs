//! How a shard's executor is set up.

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

/// Entries of each of an executor's rings.
pub const RING_DEPTH: usize = 1024;

/// The builder of shard number `shard`, pinned to `cpu` if that is given.
///
/// A network server needs no registered buffers, so it takes the least memory that there is: its
/// default would be charged three times a shard against the limit of locked memory. The preemption
/// timer stays at its default, for the reason that `tests/parking.rs` shows.
#[must_use]
pub fn builder(shard: usize, cpu: Option<usize>) -> LocalExecutorBuilder {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(&format!("shard-{shard}"))
        .io_memory(0)
        .ring_depth(RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
}
