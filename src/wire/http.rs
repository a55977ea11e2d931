//! HTTP/1.1: request heads, message bodies and responses (RFC 9112).
