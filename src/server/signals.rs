//! SIGTERM and SIGINT: the first asks the server to drain, the second ends it at once. SIGHUP: it
//! rereads its settings.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Starts the thread that waits for signals.
pub fn start(
    drain: impl FnOnce(&'static str) + Send + 'static,
    end_now: impl FnOnce() + Send + 'static,
    reload: impl Fn() + Send + 'static,
) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let name = "signals".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        let mut ends = signals.forever().filter(|signal| {
            if *signal == SIGHUP {
                reload();
            }
            *signal != SIGHUP
        });
        let word = match ends.next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        };
        drain(word);
        if ends.next().is_some() {
            end_now();
        }
    })?;
    Ok(())
}
