//! Compression of answers (RFC 9110 section 8.4), for clients that take it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::Response;
use crate::wire::http::RequestHead;

/// Smaller bodies gain nothing.
const BODY_BYTES_MIN: usize = 1024;
/// Bigger ones would hold up everybody else on the shard: this many take some 7 ms.
const BODY_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
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
    let Some(coding) = choose(&accepted) else {
        return;
    };
    let room = Vec::with_capacity(size / 2);
    // The fast level: the others cost several times the time for a tenth of the size.
    let written = match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(room, Compression::fast());
            encoder
                .write_all(&response.body)
                .and_then(|()| encoder.finish())
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(room, Compression::fast());
            encoder
                .write_all(&response.body)
                .and_then(|()| encoder.finish())
        }
    };
    let body = written.expect("writing to memory cannot fail");
    let name = match coding {
        Coding::Gzip => "gzip",
        Coding::Deflate => "deflate",
    };
    response.fields.push(("Content-Encoding", name.into()));
    response.body = body.into();
}

/// The best coding of an Accept-Encoding list (RFC 9110 section 12.5.3); gzip if both are as good.
fn choose(accepted: &str) -> Option<Coding> {
    let quality = |names: &[&str]| {
        accepted
            .split(',')
            .filter_map(|item| {
                let mut parts = item.split(';').map(str::trim);
                let name = parts.next()?;
                names
                    .iter()
                    .find(|known| name.eq_ignore_ascii_case(known))?;
                let weight = parts.find_map(|part| part.strip_prefix("q="));
                weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok())
            })
            .reduce(f32::max)
    };
    let any = quality(&["*"]).unwrap_or(0.0);
    let gzip = quality(&["gzip", "x-gzip"]).unwrap_or(any);
    let deflate = quality(&["deflate"]).unwrap_or(any);
    if gzip > 0.0 && gzip >= deflate {
        Some(Coding::Gzip)
    } else if deflate > 0.0 {
        Some(Coding::Deflate)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_the_coding() {
        for (accepted, expected) in [
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("GZIP;q=0.5, deflate;q=0.9", Some(Coding::Deflate)),
            ("*", Some(Coding::Gzip)),
            ("gzip;q=0, *", Some(Coding::Deflate)),
            ("gzip;q=0", None),
            ("br, identity", None),
            ("", None),
        ] {
            assert_eq!(choose(accepted), expected, "{accepted}");
        }
    }
}
