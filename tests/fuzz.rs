//! The fuzz targets of `tests/fuzz/`, for a moment each and without instrumentation: seeds of our own,
//! changed at random. `FUZZ_SECONDS=n` gives each target so long; `tests/fuzz/run` fuzzes them for real.

#[path = "fuzz/src/memory.rs"]
#[expect(unreachable_pub, reason = "it is a module of the fuzz crate, too")]
mod memory;
#[path = "fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "it is a module of the fuzz crate, too")]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Inputs grow no longer by chance.
const INPUT_MAX: usize = 16_384;
/// Changed inputs that are kept to be changed again, so that some drift far from the seeds.
const DRIFTED_MAX: usize = 256;

/// What a target's grammar is made of. One byte changed at random seldom spells such a word.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn words(target: &str) -> &'static [&'static str] {
    match target {
        "http_head" => &[
            "\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Expect: 100-continue\r\n",
            "Connection: close, upgrade\r\n",
            "Host: a\r\n",
            "?a=%41&b=+&c",
            " HTTP/1.0\r\n",
            "0\r\n\r\n",
            "X: y\r\n z\r\n",
        ],
        "chunked_body" => &[
            "0\r\n\r\n",
            "1\r\na\r\n",
            "10\r\n0123456789abcdef\r\n",
            ";a=\"b\"",
            "T: v\r\n",
            "f423f\r\n",
            "\r\n",
            "0000000000000000",
        ],
        "engine_io" => &[
            "\x1e",
            "4",
            "b",
            "bAQID",
            "0{\"sid\":\"a\"}",
            "2probe",
            "é",
            "b////",
        ],
        "socket_io" => &[
            "{\"_placeholder\":true,\"num\":0}",
            "{\"_placeholder\":true,\"num\":1}",
            "51-[\"a\",",
            "61-",
            "/chat,",
            "/chat?token=a,",
            "[\"message\",",
            "\"\\ud83d\\ude00\"",
            "[[[[[[[[",
            "1e308",
            "99999999999999999999",
            "null",
        ],
        "resp" => &[
            "*2\r\n",
            ">3\r\n",
            "%1\r\n",
            "~2\r\n",
            "|1\r\n",
            "$5\r\nhello\r\n",
            "$-1\r\n",
            "$?\r\n",
            ";4\r\nabcd\r\n",
            "!3\r\nERR\r\n",
            "=7\r\ntxt:abc\r\n",
            "_\r\n",
            "#t\r\n",
            ",inf\r\n",
            "(99999999999999999999\r\n",
            "*1000000000\r\n",
            ":-1\r\n",
            ".\r\n",
        ],
        "adapter" => &[
            "{\"uid\":\"a\",\"type\":3,\"opts\":{\"rooms\":[],\"except\":[]},\"sid\":\"s\"}",
            "\"requestId\":\"r\"",
            "\"type\":6,\"data\":[\"a\",1]",
            "\u{a4}type",
            "sockets",
            "\"handshake\":{}",
        ],
        "jwt" => &[
            "eyJhbGciOiJIUzI1NiJ9.",
            "eyJhbGciOiJub25lIn0.",
            "eyJzdWIiOiJhIn0.",
            "Bearer ",
            "\"kty\":\"RSA\"",
            "\"alg\":\"RS256\"",
            "{\"kty\":\"oct\",\"k\":\"AAAA\"},",
            "AQAB",
            "====",
        ],
        _ => &[
            "\nport = 65536\n",
            "\nshards = -1",
            "JWT_SECRET=",
            "\"\"\"",
            "\x27\x27\x27",
            "${HOME}",
            "export ",
            "A=$A$A\n",
            "B=${A}${A}\n",
            "=",
            "\ncors_origins = [",
            "\n[a.b]\n",
            "{ a = 1 }",
            "1979-05-27T07:32:00Z",
            "=inf",
        ],
    }
}

/// MessagePack's heads of maps, arrays, strings, binaries, extensions and numbers, small and absurdly large.
const BINARY_WORDS: &[&[u8]] = &[
    b"\x93",
    b"\x82\xa4type",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff",
    b"\xc4\x02ab",
    b"\xc6\xff\xff\xff\xff",
    b"\xcb\x7f\xf8\0\0\0\0\0\0",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd4\0\0",
    b"\xc0",
    b"\xc1",
];

/// A generator (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).expect("below a usize")
    }

    fn place(&mut self, input: &[u8]) -> usize {
        self.below(input.len() + 1)
    }

    /// Changes an input a little.
    fn change(&mut self, input: &mut Vec<u8>, words: &[&[u8]], others: &[Vec<u8>]) {
        const TELLING: &[u8] = b"\r\n\0\x1e\"{}[]:,;-+%#/\\ \t0123456789aA\x7f\x80\xff";
        let at = self.place(input);
        match self.below(10) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = TELLING[self.below(TELLING.len())],
            2 => input.insert(at, TELLING[self.below(TELLING.len())]),
            3 => {
                let end = (at + 1 + self.below(16)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + 1 + self.below(64)).min(input.len());
                let part = input[at..end].to_vec();
                for _ in 0..=self.below(8) {
                    input.splice(at..at, part.iter().copied());
                }
            }
            5 => {
                let other = &others[self.below(others.len())];
                let from = self.place(other);
                let end = self.place(&other[from..]) + from;
                input.splice(at..at, other[from..end].iter().copied());
            }
            6 | 7 => {
                let word = words[self.below(words.len())];
                let end = match self.below(3) {
                    0 => (at + word.len()).min(input.len()),
                    _ => at,
                };
                input.splice(at..end, word.iter().copied());
            }
            8 => {
                // A number that is not what was counted.
                let digits = input.iter_mut().filter(|byte| byte.is_ascii_digit());
                let mut digits: Vec<_> = digits.collect();
                if !digits.is_empty() {
                    let digit = self.below(digits.len());
                    *digits[digit] = b"0123456789"[self.below(10)];
                }
            }
            _ if self.below(4) == 0 => {
                // Much of the same: what costs memory for each small part shows.
                let part = input.clone();
                for _ in 0..self.below(64) {
                    input.extend_from_slice(&part);
                    input.truncate(INPUT_MAX);
                }
            }
            _ => input.truncate(at),
        }
        input.truncate(INPUT_MAX);
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = folder.join("tests/fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("every target has seeds")
        .map(|entry| entry.expect("a seed").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| fs::read(file).expect("a seed can be read"))
        .collect()
}

/// Feeds a target for some time. Returns how many inputs that were.
fn fuzz(name: &str, target: fn(&[u8]), time: Duration) -> u64 {
    let seeds = seeds(name);
    let end = Instant::now() + time;
    let mut chance = Chance(1);
    let mut count = 0;
    for seed in &seeds {
        target(seed);
    }
    let words: Vec<&[u8]> = words(name).iter().map(|word| word.as_bytes()).collect();
    let words = match name {
        "adapter" => [&words, BINARY_WORDS].concat(),
        _ => words,
    };
    let mut drifted = seeds.clone();
    while Instant::now() < end {
        let from = if chance.below(2) == 0 {
            &seeds
        } else {
            &drifted
        };
        let mut input = from[chance.below(from.len())].clone();
        for _ in 0..=chance.below(6) {
            chance.change(&mut input, &words, &drifted);
        }
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let shown = || input.escape_ascii().to_string();
        assert!(outcome.is_ok(), "{name} fails for {}", shown());
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{name} hangs for {took:?}");
        count += 1;
        if drifted.len() < DRIFTED_MAX {
            drifted.push(input);
        } else if chance.below(8) == 0 {
            let place = chance.below(DRIFTED_MAX);
            drifted[place] = input;
        }
    }
    count
}

#[test]
#[expect(clippy::print_stdout, reason = "a test's report goes there")]
fn targets_hold_for_changed_seeds() {
    let seconds = std::env::var("FUZZ_SECONDS").ok();
    let seconds = seconds.map_or(2, |text| text.parse().expect("a number of seconds"));
    let time = Duration::from_secs(seconds);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, target) in targets::ALL {
            threads.push((name, scope.spawn(move || fuzz(name, *target, time))));
            // Two at a time: more would only wait for each other.
            if threads.len() % 2 == 0 {
                for (name, thread) in threads.drain(..) {
                    let count = thread.join().expect("the target holds");
                    println!("{name}: {count} inputs");
                }
            }
        }
    });
}
