//! Long-polling: GET and POST onto a session.

use super::{Closed, Connection, Mount};
use crate::engine::Key;
use crate::wire::http::RequestHead;

/// Answers a GET of a session whose transport is polling, as soon as there is anything to send.
/// Also the first one, right after the session was opened.
///
/// The answer goes out through [`Connection::respond`]; `Err` ends the connection.
pub async fn get(
    connection: &mut Connection,
    mount: &Mount,
    key: Key,
    request: &RequestHead,
) -> Result<(), Closed> {
    todo!()
}

/// Takes the packets of a POST ([`Connection::read_body`] within the mount's bound) and answers it.
pub async fn post(
    connection: &mut Connection,
    mount: &Mount,
    key: Key,
    request: &RequestHead,
) -> Result<(), Closed> {
    todo!()
}
