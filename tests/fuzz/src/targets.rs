//! What is fed with bytes of strangers, and what must hold for any bytes: nothing panics, any split of them
//! gives the same result, what was decoded is decoded from its encoding again, and memory stays within four
//! times the input, and what a bounded number of elements takes ([`ELEMENT_BYTES`], [`WARNINGS_BYTES`]);
//! settings, the files of which are short, within [`SETTINGS_BYTES`].

use std::cell::LazyCell;
use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use project_yum::auth::jwks;
use project_yum::auth::{AuthOptions, Keys, Verifier, bearer};
use project_yum::config::{Config, FILE_BYTES_MAX, Inputs};
use project_yum::wire::adapter;
use project_yum::wire::http::{Body, BodyDecoder, Framing, HeadReader, HttpError};
use project_yum::wire::resp::{ELEMENTS_MAX, Replies};
use project_yum::wire::socket_io::{Decoder, encode};
use project_yum::wire::{Content, Text, engine_io};

use super::memory::peak;

/// What any decoder may take beside four times its input: tables and first capacities.
const MEMORY_BASE: usize = 4_096;
/// What is told of the keys of a set that are not used, a hundred at most, takes beside four times the set.
const WARNINGS_BYTES: usize = 512 * 1_024;
/// Bytes of one body, message or reply.
const BYTES_MAX: usize = 1_000_000;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Target] = &[
    ("http_head", http_head),
    ("chunked_body", chunked_body),
    ("engine_io", engine_io),
    ("socket_io", socket_io),
    ("resp", resp),
    ("adapter", adapter),
    ("jwt", jwt),
    ("configuration", configuration),
];

/// Does it, and sees that it takes no more memory than four times the input.
fn bounded<R>(input: usize, what: impl FnOnce() -> R) -> R {
    within(4 * input + MEMORY_BASE, input, what)
}

fn within<R>(allowed: usize, input: usize, what: impl FnOnce() -> R) -> R {
    let (result, bytes) = peak(what);
    assert!(bytes <= allowed, "{bytes} bytes for an input of {input}");
    result
}

/// The pieces of an input: all at once, by one, by seven, or in two parts.
fn splits(data: &[u8]) -> [Vec<&[u8]>; 4] {
    let middle = data.iter().map(|byte| usize::from(*byte)).sum::<usize>() % (data.len() + 1);
    [
        vec![data],
        data.chunks(1).collect(),
        data.chunks(7).collect(),
        vec![&data[..middle], &data[middle..]],
    ]
}

/// Asserts that all splits give the same.
fn same<R: PartialEq + std::fmt::Debug>(data: &[u8], feed: impl Fn(&[&[u8]]) -> R) -> R {
    let [whole, rest @ ..] = splits(data);
    let whole = feed(&whole);
    for pieces in rest {
        assert_eq!(feed(&pieces), whole, "by {}", pieces[0].len());
    }
    whole
}

/// A request as [`requests`] finds it: its head, its body, and how it ended.
type Request = (Vec<u8>, Vec<u8>, bool);

/// The requests of a connection, and how reading them ended.
#[must_use]
pub fn requests(pieces: &[&[u8]]) -> (Vec<Request>, Option<HttpError>) {
    let mut reader = Reader::default();
    for piece in pieces {
        reader.buffer.extend_from_slice(piece);
        if let Err(error) = reader.read() {
            return (reader.requests, Some(error));
        }
    }
    (reader.requests, None)
}

#[derive(Default)]
struct Reader {
    buffer: BytesMut,
    head: HeadReader,
    body: Option<(BodyDecoder, Vec<u8>)>,
    requests: Vec<Request>,
}

impl Reader {
    fn read(&mut self) -> Result<(), HttpError> {
        loop {
            if let Some((decoder, body)) = &mut self.body {
                let request = self.requests.last_mut().expect("its head came");
                if decoder.decode(&mut self.buffer, body)? == Body::Partial {
                    return Ok(());
                }
                request.1 = std::mem::take(body);
                request.2 = true;
                self.body = None;
            }
            let Some(head) = self.head.read(&mut self.buffer)? else {
                return Ok(());
            };
            for (name, value) in head.query().pairs() {
                assert!(name.len() + value.len() <= 3 * head.as_bytes().len());
            }
            let line = format!("{:?} {}", head.method(), head.path());
            let mut told = line.into_bytes();
            for field in head.fields() {
                told.extend_from_slice(field.name.as_bytes());
                told.extend_from_slice(field.value);
            }
            self.requests.push((told, Vec::new(), false));
            self.body = Some((BodyDecoder::new(head.framing(), BYTES_MAX)?, Vec::new()));
        }
    }
}

/// Requests, one behind the other.
pub fn http_head(data: &[u8]) {
    let _ = same(data, requests);
    let mut buffer = BytesMut::from(data);
    let mut reader = HeadReader::default();
    let _ = bounded(data.len(), || reader.read(&mut buffer));
}

/// A chunked body and what follows it.
pub fn chunked_body(data: &[u8]) {
    let feed = |pieces: &[&[u8]]| {
        let mut decoder = BodyDecoder::new(Framing::Chunked, BYTES_MAX)?;
        let (mut buffer, mut body, mut end) = (BytesMut::new(), Vec::new(), Body::Partial);
        for piece in pieces {
            buffer.extend_from_slice(piece);
            if end == Body::Partial {
                end = decoder.decode(&mut buffer, &mut body)?;
            }
        }
        // What is not decoded yet depends on nothing but the bytes.
        Ok::<_, HttpError>((end, body, buffer))
    };
    let _ = same(data, feed);
    let whole = [data];
    let _ = bounded(data.len(), || feed(&whole));
}

/// A long-polling payload.
pub fn engine_io(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let body = Text::from(text);
    bounded(data.len(), || {
        for packet in engine_io::decode_payload(&body) {
            match packet {
                Ok(engine_io::Packet::Message(Content::Text(text))) => {
                    let encoded = engine_io::Encoded::text('4', &text);
                    let mut payload = Vec::new();
                    encoded.append_to_payload(&mut payload);
                    assert_eq!(&payload[1..], text.as_bytes());
                }
                Ok(engine_io::Packet::Message(Content::Binary(bytes))) => {
                    assert!(bytes.len() <= data.len());
                }
                _ => {}
            }
        }
    });
}

/// Messages of a connection, each behind a byte 0xff: text, or else an attachment.
pub fn socket_io(data: &[u8]) {
    let mut decoder = Decoder::new(10, BYTES_MAX);
    for message in data.split(|byte| *byte == 0xff) {
        let content = match std::str::from_utf8(message) {
            Ok(text) if !decoder.is_gathering() => Content::Text(text.into()),
            _ => Content::Binary(Bytes::copy_from_slice(message)),
        };
        let received = bounded(data.len(), || decoder.receive(content));
        let packet = match received {
            Ok(None) => continue,
            Ok(Some(packet)) => packet,
            Err(_) => return,
        };
        let mut reader = Decoder::new(10, 2 * BYTES_MAX);
        let mut last = None;
        for part in encode(&packet) {
            let content = part.frame();
            let (head, is_text) = (frame_head(content), content[0] == 0x81);
            let content = content.slice(head + usize::from(is_text)..);
            let content = if is_text {
                Content::Text(Text::from_utf8(content).expect("a text frame is text"))
            } else {
                Content::Binary(content)
            };
            last = reader.receive(content).expect("our own packet is read");
        }
        assert_eq!(last, Some(packet));
    }
}

fn frame_head(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// What the parser of the `redis` crate reads even the shortest reply into (`extend_buf_sync` of `combine`).
const REPLY_BUFFER: usize = 8 * 1_024;
/// What it makes of an element, however short, while it reads: a map's pair is two values, whose lists double.
const ELEMENT_BYTES: usize = 240;

/// A stream of replies of Redis.
pub fn resp(data: &[u8]) {
    let feed = |pieces: &[&[u8]]| {
        let mut replies = Replies::new(BYTES_MAX);
        let mut found = Vec::new();
        for piece in pieces {
            replies.push(piece);
            loop {
                match replies.next_reply() {
                    Ok(Some(reply)) => found.push(reply),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    };
    let (found, _) = same(data, feed);
    for reply in found {
        let parse = || redis::parse_redis_value(&reply).is_ok();
        let allowed = 4 * reply.len() + ELEMENTS_MAX * ELEMENT_BYTES + REPLY_BUFFER + MEMORY_BASE;
        let _ = within(allowed, reply.len(), parse);
    }
    let mut replies = Replies::new(BYTES_MAX);
    bounded(data.len(), || {
        replies.push(data);
        while let Ok(Some(reply)) = replies.next_reply() {
            drop(reply);
        }
    });
}

/// A message of the Redis adapter, as any of its channels might bring it.
pub fn adapter(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let _ = adapter::sender(&message);
    // A byte of MessagePack may become six of JSON, and the text is what is asked for. Memory is counted for one
    // that may become no longer than the message.
    let _ = bounded(data.len(), || {
        adapter::decode_broadcast(&message, data.len()).is_ok()
    });
    let _ = bounded(data.len(), || {
        adapter::decode_request(&message, data.len()).is_ok()
    });
    let _ = bounded(data.len(), || {
        adapter::decode_response(&message, data.len()).is_ok()
    });
    if let Ok(mut broadcast) = adapter::decode_broadcast(&message, BYTES_MAX) {
        let again = Bytes::from(adapter::encode_broadcast(&broadcast));
        let decoded = adapter::decode_broadcast(&again, BYTES_MAX).expect("our own is read");
        // An integer beyond those of JavaScript is written as the float that it is there, and then stays so.
        let args = std::mem::replace(&mut broadcast.args, decoded.args.clone());
        assert_eq!(decoded, broadcast);
        let again = Bytes::from(adapter::encode_broadcast(&decoded));
        assert_eq!(adapter::decode_broadcast(&again, BYTES_MAX), Ok(decoded));
        // And for any message: however long the text became, no more than four times that.
        let whole = data.len() + args.bytes();
        let _ = bounded(whole, || {
            adapter::decode_broadcast(&message, BYTES_MAX).is_ok()
        });
    }
    if let Ok(request) = adapter::decode_request(&message, BYTES_MAX) {
        let again = Bytes::from(adapter::encode_request(&request));
        let decoded = adapter::decode_request(&again, BYTES_MAX);
        assert_eq!(decoded.map(|decoded| decoded.id), Ok(request.id));
    }
    if let Ok(response) = adapter::decode_response(&message, BYTES_MAX) {
        let again = Bytes::from(adapter::encode_response(&response));
        let decoded = adapter::decode_response(&again, BYTES_MAX);
        assert_eq!(decoded.map(|decoded| decoded.id), Ok(response.id));
    }
    if let Ok(heads) = bounded(data.len(), || adapter::decode_heads(&message)) {
        let heads: Vec<_> = heads.collect();
        let again = Bytes::from(adapter::encode_heads(&heads));
        let again = adapter::decode_heads(&again).map(Vec::from_iter);
        assert_eq!(again, Ok(heads));
    }
    if let Ok(notice) = bounded(data.len(), || adapter::decode_host_notice(&message)) {
        let again = Bytes::from(adapter::encode_host_notice(&notice));
        assert_eq!(adapter::decode_host_notice(&again), Ok(notice));
    }
}

thread_local! {
    static VERIFIER: LazyCell<Verifier> = LazyCell::new(|| {
        let secret = b"a secret for the fuzzer, long enough".as_slice();
        Verifier::new(&AuthOptions {
            keys: Keys::secrets(vec![secret.into()]),
            issuer: None,
            audience: None,
            leeway_seconds: 5,
        })
    });
}

/// A token, an Authorization field and a file of public keys. No input is signed, so none is valid.
pub fn jwt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let token = bearer(text).unwrap_or(text);
    VERIFIER.with(|verifier| {
        LazyCell::force(verifier);
        let verify = || verifier.verify(token, 1_767_225_600_000);
        let verified = bounded(data.len(), verify);
        assert!(verified.is_err(), "a token that nobody signed");
    });
    let allowed = 4 * data.len() + WARNINGS_BYTES + MEMORY_BASE;
    let _ = within(allowed, data.len(), || jwks::parse(text).is_ok());
}

/// What reading the settings may take, whatever is in their files and however long they are. The parser of the
/// `toml` crate takes the most: 140 times its text for dots alone, of which there are [`FILE_BYTES_MAX`] at most.
const SETTINGS_BYTES: usize = 16 << 20;
/// Inputs up to here are also looked at repeated, up to the greatest length of a file.
const REPEATED_BYTES_MAX: usize = 32;

/// A file of settings and a `.env`, split at the first byte 0xff.
pub fn configuration(data: &[u8]) {
    let (file, dotenv) = match data.iter().position(|byte| *byte == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let (Ok(file), Ok(dotenv)) = (std::str::from_utf8(file), std::str::from_utf8(dotenv)) else {
        return;
    };
    load(file, dotenv);
    if data.len() <= REPEATED_BYTES_MAX {
        let repeated = |text: &str| text.repeat(FILE_BYTES_MAX / text.len().max(1));
        load(&repeated(file), &repeated(dotenv));
    }
}

fn load(file: &str, dotenv: &str) {
    let nothing = BTreeMap::new();
    let read = |_: &std::path::Path| Err("there are no files".to_owned());
    let inputs = Inputs {
        flags: &nothing,
        env: &nothing,
        dotenv: Some(dotenv),
        file: Some(file),
        read: &read,
    };
    let bytes = file.len() + dotenv.len();
    let loaded = within(SETTINGS_BYTES, bytes, || Config::load(&inputs));
    if let Err(problems) = loaded {
        assert!(!problems.0.is_empty(), "refused without a reason");
    }
}
