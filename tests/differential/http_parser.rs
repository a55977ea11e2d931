//! What our HTTP parser makes of bytes, for `tests/clients/python/test_http_parser.py`, which compares it with
//! another parser. Each line of the input is what came over one connection, in hexadecimal; each line of the
//! output is JSON: the requests, and how the bytes ended (`end`, `more`, or the name of an `HttpError`).

use std::error::Error;
use std::io::{self, BufRead, Write};

use bytes::BytesMut;
use project_yum::wire::http::{Body, BodyDecoder, HeadReader, HttpError, RequestHead};
use serde_json::{Value, json};

/// Bytes of one body.
const BODY_BYTES_MAX: usize = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let mut buffer = from_hex(&line?)?;
        let mut requests = Vec::new();
        let end = match read_all(&mut buffer, &mut requests) {
            Ok(end) => end.to_owned(),
            Err(error) => format!("{error:?}"),
        };
        writeln!(output, "{}", json!({ "requests": requests, "end": end }))?;
    }
    Ok(output.flush()?)
}

fn from_hex(line: &str) -> Result<BytesMut, Box<dyn Error>> {
    let pairs = line.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    bytes.collect()
}

/// One byte, one character: JSON has no bytes.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Reads requests as a connection does, but also those after a `Connection: close`.
fn read_all(buffer: &mut BytesMut, requests: &mut Vec<Value>) -> Result<&'static str, HttpError> {
    let mut reader = HeadReader::default();
    while !buffer.is_empty() {
        let Some(head) = reader.read(buffer)? else {
            return Ok("more");
        };
        let mut body = Vec::new();
        let mut decoder = BodyDecoder::new(head.framing(), BODY_BYTES_MAX)?;
        if decoder.decode(buffer, &mut body)? == Body::Partial {
            return Ok("more");
        }
        requests.push(shown(&head, &body));
    }
    Ok("end")
}

fn shown(head: &RequestHead, body: &[u8]) -> Value {
    let fields: Vec<_> = head
        .fields()
        .map(|field| (field.name.to_ascii_lowercase(), latin(field.value)))
        .collect();
    json!({
        "method": format!("{:?}", head.method()).to_uppercase(),
        "version": if head.is_http_1_0() { "1.0" } else { "1.1" },
        "path": head.path(),
        "query": head.query().as_str(),
        "keep_alive": head.keep_alive(),
        "fields": fields,
        "body": latin(body),
    })
}
