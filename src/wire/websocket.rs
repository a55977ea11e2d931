//! The WebSocket opening handshake (RFC 6455 section 4.2). Frames are async-tungstenite's.
