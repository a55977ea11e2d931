//! Faults that a test plants in a running server.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A thread that is held; it goes on when this is dropped.
pub(crate) struct Held(Child);

/// Holds one thread of a process, for at most `most`: the others go on.
pub(crate) fn hold_thread(pid: u32, name: &str, most: Duration) -> Held {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/stall.py");
    let mut child = Command::new("python3")
        .args([
            script,
            &pid.to_string(),
            name,
            &most.as_secs_f64().to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there (Debian: python3)");
    let mut said = String::new();
    let out = child.stdout.as_mut().expect("piped");
    BufReader::new(out)
        .read_line(&mut said)
        .expect("it says something");
    assert_eq!(said.trim(), "held", "the thread {name} cannot be held");
    Held(child)
}

impl Drop for Held {
    fn drop(&mut self) {
        // The kernel lets go of what a debugger held when the debugger ends.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
