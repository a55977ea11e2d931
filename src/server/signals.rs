//! SIGTERM and SIGINT: the first asks the server to drain, the second ends it at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Starts the thread that waits for signals.
pub fn start(
    drain: impl FnOnce(&'static str) + Send + 'static,
    end_now: impl FnOnce() + Send + 'static,
) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let name = "signals".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        let mut signals = signals.forever();
        let word = match signals.next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        };
        drain(word);
        if signals.next().is_some() {
            end_now();
        }
    })?;
    Ok(())
}
