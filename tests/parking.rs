//! A shard must not sleep while work is waiting.
//!
//! glommio's executor may park although a task is runnable: `run_task_queues` reports "nothing to do"
//! when the preemption timer has fired on entry. Only the next timer, I/O or foreign wake ends that
//! sleep. A shard's tick is such a timer, so it bounds the stall. Here a task that is always runnable
//! and wakes from a plain thread provoke it; no wake may come later than [`LATEST`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use project_yum::server::executor;

const LENGTH: Duration = Duration::from_secs(10);
/// The tick of a busy shard.
const TICK: Duration = Duration::from_millis(10);
/// Without the tick the stalls are seconds long; with it, what is left is a busy machine.
const LATEST: Duration = Duration::from_millis(1000);

#[test]
fn no_wake_from_another_thread_is_lost_while_a_task_is_busy() {
    let (sender, wakes) = flume::bounded::<Instant>(1024);
    let end = Arc::new(AtomicBool::new(false));
    let shard_end = end.clone();
    let shard = executor::builder(0, None)
        .spawn(move || async move {
            let busy_end = shard_end.clone();
            // A slice of work, then a yield: runnable at every moment.
            let busy = glommio::spawn_local(async move {
                while !busy_end.load(Ordering::Relaxed) {
                    let until = Instant::now() + Duration::from_micros(200);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    glommio::executor().yield_now().await;
                }
            })
            .detach();
            let tick_end = shard_end.clone();
            let tick = glommio::spawn_local(async move {
                while !tick_end.load(Ordering::Relaxed) {
                    glommio::timer::sleep(TICK).await;
                }
            })
            .detach();
            let (mut latest, mut count) = (Duration::ZERO, 0_u32);
            while let Ok(sent) = wakes.recv_async().await {
                latest = latest.max(sent.elapsed());
                count += 1;
            }
            shard_end.store(true, Ordering::Relaxed);
            busy.await;
            tick.await;
            (latest, count)
        })
        .expect("a shard starts");

    let start = Instant::now();
    let mut pause = Duration::from_micros(100);
    while start.elapsed() < LENGTH {
        sender.send(Instant::now()).expect("the shard receives");
        std::thread::sleep(pause);
        // Many rhythms, so that one of them meets the preemption timer.
        pause = (pause * 3 / 2).min(Duration::from_millis(40));
        if pause == Duration::from_millis(40) {
            pause = Duration::from_micros(100);
        }
    }
    drop(sender);
    let (latest, count) = shard.join().expect("the shard ends");
    assert!(count > 100, "only {count} wakes in {LENGTH:?}");
    assert!(latest < LATEST, "a wake came {latest:?} late, of {count}");
}
