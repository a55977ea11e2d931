//! Compression of answers (RFC 9110 section 8.4), for clients that take it.

use std::io::Write as _;

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::Response;
use crate::wire::http::RequestHead;

/// Smaller bodies gain nothing.
const BODY_BYTES_MIN: usize = 1024;
/// Bigger ones would hold up everybody else on the shard: this many take some 7 ms.
const BODY_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;
/// The same bound for brotli, which takes three times as long.
const BROTLI_BYTES_MAX: usize = 256 * 1024;
/// A level that makes a page of history a sixth smaller than gzip does; the next ones cost twice the
/// time for a hundredth.
const BROTLI_QUALITY: i32 = 2;
/// Its window, as a power of two: as much as its largest body.
const BROTLI_WINDOW: i32 = 18;

/// Those we have, the one that takes the least time for its gain first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Brotli,
    Deflate,
}

impl Coding {
    const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Deflate];

    /// Its names in Accept-Encoding; the first is the one for Content-Encoding.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Gzip => &["gzip", "x-gzip"],
            Self::Brotli => &["br"],
            Self::Deflate => &["deflate"],
        }
    }

    fn fits(self, size: usize) -> bool {
        self != Self::Brotli || size <= BROTLI_BYTES_MAX
    }

    fn encode(self, body: &[u8]) -> Vec<u8> {
        let mut coded = Vec::with_capacity(body.len() / 2);
        // The fast level: the others cost several times the time for a tenth of the size.
        let fast = Compression::fast();
        let written = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(&mut coded, fast);
                let written = encoder.write_all(body);
                written.and_then(|()| encoder.finish().map(drop))
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(&mut coded, fast);
                let written = encoder.write_all(body);
                written.and_then(|()| encoder.finish().map(drop))
            }
            Self::Brotli => {
                let parameters = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW,
                    size_hint: body.len(),
                    ..BrotliEncoderParams::default()
                };
                brotli::BrotliCompress(&mut &*body, &mut coded, &parameters).map(drop)
            }
        };
        written.expect("writing to memory cannot fail");
        coded
    }
}

/// Compresses the body if the client takes that and it is worth it.
pub(super) fn compress(request: &RequestHead, response: &mut Response) {
    let size = response.body.len();
    if !response.compress || !(BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&size) {
        return;
    }
    response.fields.push(("Vary", "Accept-Encoding".into()));
    let accepted = request
        .values("Accept-Encoding")
        .collect::<Vec<_>>()
        .join(",");
    let Some(coding) = choose(&accepted, size) else {
        return;
    };
    let name = coding.names()[0];
    response.fields.push(("Content-Encoding", name.into()));
    response.body = coding.encode(&response.body).into();
}

/// The best coding of an Accept-Encoding list (RFC 9110 section 12.5.3) for a body of this size; of
/// those that the client likes alike, our first. None that it likes less than the plain body.
fn choose(accepted: &str, size: usize) -> Option<Coding> {
    let any = quality(accepted, &["*"]).unwrap_or(0.0);
    let plain = quality(accepted, &["identity"]).unwrap_or(0.0);
    let wanted = Coding::ALL.into_iter().filter(|coding| coding.fits(size));
    let liked = wanted.map(|coding| (quality(accepted, coding.names()).unwrap_or(any), coding));
    liked
        .filter(|(quality, _)| *quality > 0.0 && *quality >= plain)
        // The last of equals is what `max_by` gives.
        .rev()
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, coding)| coding)
}

/// How much the client likes a coding of one of these names, if it says so.
fn quality(accepted: &str, names: &[&str]) -> Option<f32> {
    let items = accepted.split(',');
    let known = items.filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next()?;
        names
            .iter()
            .find(|known| name.eq_ignore_ascii_case(known))?;
        let weight = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
        // One that is no number is no wish.
        weight.map_or(Some(1.0), |weight| {
            let weight = weight.parse::<f32>().ok();
            weight.filter(|weight| (0.0..=1.0).contains(weight))
        })
    });
    known.reduce(f32::max)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::wire::http::HeadReader;

    #[test]
    fn the_client_chooses_the_coding() {
        for (accepted, expected) in [
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Gzip)),
            ("br", Some(Coding::Brotli)),
            ("BR;Q=0.1", Some(Coding::Brotli)),
            ("gzip;q=0.8, br", Some(Coding::Brotli)),
            ("br;q=0, gzip", Some(Coding::Gzip)),
            ("br;q=0", None),
            ("br; q=0.000 , *", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("deflate, br", Some(Coding::Brotli)),
            ("GZIP;q=0.5, deflate;q=0.9", Some(Coding::Deflate)),
            ("x-gzip", Some(Coding::Gzip)),
            ("*", Some(Coding::Gzip)),
            ("*;q=0", None),
            ("*;q=0, br", Some(Coding::Brotli)),
            ("gzip;q=0, *", Some(Coding::Brotli)),
            ("gzip;q=0, br;q=0, *;q=0.5", Some(Coding::Deflate)),
            ("gzip;q=0", None),
            ("gzip;q=nan, br;q=2, deflate;q=-1", None),
            ("brotli, identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.4, br;q=0.6", Some(Coding::Brotli)),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("identity;q=0, gzip;q=0.1", Some(Coding::Gzip)),
            ("", None),
        ] {
            assert_eq!(choose(accepted, 2_000), expected, "{accepted}");
        }
        let large = BROTLI_BYTES_MAX + 1;
        assert_eq!(choose("br", large), None);
        assert_eq!(choose("br, deflate", large), Some(Coding::Deflate));
    }

    #[test]
    fn what_is_compressed_is_smaller_and_the_same() {
        let body = "a page of history, ".repeat(500);
        for coding in Coding::ALL {
            let coded = coding.encode(body.as_bytes());
            assert!(coded.len() < body.len() / 4, "{coding:?}: {}", coded.len());
            let mut plain = String::new();
            let read = match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(&*coded).read_to_string(&mut plain),
                Coding::Deflate => {
                    flate2::read::ZlibDecoder::new(&*coded).read_to_string(&mut plain)
                }
                Coding::Brotli => {
                    brotli::Decompressor::new(&*coded, 4096).read_to_string(&mut plain)
                }
            };
            assert_eq!(read.expect("it decodes"), body.len(), "{coding:?}");
            assert_eq!(plain, body, "{coding:?}");
        }
    }

    #[test]
    fn what_takes_long_to_compress_is_sent_as_it_is() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n";
        let mut buffer = bytes::BytesMut::from(text);
        let request = HeadReader::default().read(&mut buffer).expect("a head");
        let request = request.expect("a whole one");
        for (size, is_compressed) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 1, false)] {
            let mut response = Response::with_body(200, "text/plain", vec![b'x'; size]);
            compress(&request, &mut response);
            assert_eq!(response.body.len() < size, is_compressed, "{size}");
        }
    }
}
