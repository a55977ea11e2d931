//! Who a token is: JSON Web Tokens (RFC 7519).
