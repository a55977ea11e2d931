//! Socket.IO protocol v5: packets, and the decoder that gathers binary attachments.
