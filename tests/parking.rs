//! A shard must not sleep while work is waiting.
//!
//! glommio's executor may park although a task is runnable: `run_task_queues` reports "nothing to do"
//! when the preemption timer has fired on entry. Only the next timer, I/O or foreign wake ends that
//! sleep. A shard's tick is such a timer, so it bounds the stall. Here a task that is always runnable
//! and wakes from a plain thread provoke it, once with a shard's own settings and once with a
//! preemption timer so short that the executor parks again and again (without the tick: for
//! seconds). No wake and no runnable task may wait for longer than
//! [`LATEST`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use glommio::LocalExecutorBuilder;
use project_yum::server::executor;

const LENGTH: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(1500);
/// The tick of a busy shard.
const TICK: Duration = Duration::from_millis(10);
/// Without the tick the stalls are seconds long; with it, what is left is a busy machine.
const LATEST: Duration = Duration::from_secs(1);

#[test]
fn no_wake_is_late_with_the_settings_of_a_shard() {
    check(executor::builder(0, None));
}

#[test]
fn no_wake_is_late_when_the_executor_parks_too_early() {
    check(executor::builder(0, None).preempt_timer(Duration::from_micros(200)));
}

fn check(builder: LocalExecutorBuilder) {
    let (sender, wakes) = flume::bounded::<Instant>(1024);
    let end = Arc::new(AtomicBool::new(false));
    let shard_end = end.clone();
    let shard = builder
        .spawn(move || async move {
            let busy_end = shard_end.clone();
            // A slice of work, then a yield: runnable at every moment.
            let busy = glommio::spawn_local(async move {
                let (mut longest, mut before) = (Duration::ZERO, Instant::now());
                while !busy_end.load(Ordering::Relaxed) {
                    longest = longest.max(before.elapsed());
                    before = Instant::now();
                    let until = before + Duration::from_micros(200);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    glommio::executor().yield_now().await;
                }
                longest
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
            tick.await;
            (latest, count, busy.await.expect("the busy task ends"))
        })
        .expect("a shard starts");

    let start = Instant::now();
    let mut pause = PAUSE_MIN;
    while start.elapsed() < LENGTH {
        sender.send(Instant::now()).expect("the shard receives");
        std::thread::sleep(pause);
        // Many rhythms: short ones meet the preemption timer, long ones leave the shard alone.
        pause = if pause > PAUSE_MAX {
            PAUSE_MIN
        } else {
            pause * 3 / 2
        };
    }
    drop(sender);
    let (latest, count, longest) = shard.join().expect("the shard ends");
    assert!(count > 10, "only {count} wakes in {LENGTH:?}");
    assert!(latest < LATEST, "a wake came {latest:?} late, of {count}");
    assert!(longest < LATEST, "a runnable task waited for {longest:?}");
}
