//! One connection's requests: read, route, answer, keep alive.

use super::{Closed, Connection, Response};
use crate::wire::http::RequestHead;

impl Connection {
    /// Answers a request, with the fields that every answer has. The answer to HEAD loses its body.
    pub async fn respond(
        &mut self,
        request: &RequestHead,
        response: Response,
    ) -> Result<(), Closed> {
        todo!()
    }

    /// Reads the request's whole body, of at most `max` bytes. When it cannot be had, the refusal is
    /// sent and the connection is of no more use.
    pub async fn read_body(
        &mut self,
        request: &RequestHead,
        max: usize,
    ) -> Result<Vec<u8>, Closed> {
        todo!()
    }
}
