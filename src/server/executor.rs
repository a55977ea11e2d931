//! A shard's executor, and the thread that it lives on.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};

/// Entries of each of an executor's rings, of which a shard has three: 100 KiB of the kernel's memory each.
///
/// Connections have a ring of their own (`net::readiness`), so what is in these at once is little: timers, and
/// the links to the store and to Redis. What finds no place waits for the next turn.
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

/// Runs what `serve` makes on a thread of its own; tells `ended` how it ended, even by a panic.
pub fn start<F: Future<Output = ()>>(
    shard: usize,
    cpu: Option<usize>,
    ended: flume::Sender<(usize, Result<(), String>)>,
    serve: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let work = move || {
        let run = || match builder(shard, cpu).make() {
            Ok(executor) => {
                executor.run(serve());
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        let end =
            catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("it panicked".to_owned()));
        let _ = ended.send((shard, end));
    };
    std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(work)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_shard_is_told_whatever_it_was() {
        let (ended, ends) = flume::bounded(2);
        start(0, None, ended.clone(), || async {}).expect("a thread");
        assert_eq!(ends.recv(), Ok((0, Ok(()))));
        start(1, None, ended, || async { panic!("on purpose") }).expect("a thread");
        assert_eq!(ends.recv(), Ok((1, Err("it panicked".to_owned()))));
    }
}
