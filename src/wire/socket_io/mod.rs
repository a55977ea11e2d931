//! Socket.IO protocol v5: packets, and the decoder that gathers binary attachments.
//!
//! JSON is checked but never rebuilt: arguments travel as the very bytes that came ([`Args`]), so key
//! order and number text stay as the client wrote them, and an echo costs no parse.

mod args;

pub use args::{Args, ArgsBuilder};
