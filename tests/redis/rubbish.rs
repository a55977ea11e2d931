//! Ten thousand messages of rubbish on every channel: nothing dies, good traffic goes on, and what was
//! ignored is counted by its cause.

use std::time::{Duration, Instant};

use super::contract::Fleet;
use super::load::Load;
use super::redis_server::{Connection, Redis};
use super::support::server::Server;
use super::support::{eventually, http};
use super::turn;

/// Messages for each channel.
const EACH: usize = 10_000;
/// Messages published in one go.
const BATCH: usize = 250;
/// How long a batch may take.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);
/// Memory that a server may take meanwhile.
const GROWTH_MAX: usize = 96 << 20;

/// Numbers without end, the same ones each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("it is below a usize")
    }
}

/// Messages as other servers might send them, none of which moves anybody.
fn good() -> Vec<Vec<u8>> {
    let tuple =
        b"\x93\xa6abcdef\x83\xa4type\x02\xa4data\x94\xa7rubbish\x01\xa3two\xcb\x3f\xf8\0\0\0\0\0\0\
                  \xa3nsp\xa5/none\x83\xa5rooms\x91\xa6nobody\xa6except\x90\xa5flags\x80";
    let stamped = [
        &b"\x94"[..],
        &tuple[1..],
        &b"\x93\x07\x2a\x93\x01\x02\xa3ada"[..],
    ];
    let acked = b"\x85\xa3uid\xa6abcdef\xa9requestId\xa6ghijkl\xa4type\x07\xa6packet\x83\xa4type\x02\
                  \xa4data\x92\xa7rubbish\xc4\x01\x07\xa3nsp\xa5/none\xa4opts\x83\xa5rooms\x91\xa6nobody\
                  \xa6except\x90\xa5flags\x81\xa7timeout\xcd\x03\xe8";
    let json: &[&str] = &[
        r#"{"uid":"abcdef","requestId":"ghijkl","type":0,"rooms":["nobody"]}"#,
        r#"{"uid":"abcdef","requestId":"ghijkl","type":2,"sid":"nobody","room":"r"}"#,
        r#"{"uid":"abcdef","type":6,"data":["rubbish",{"a":[1,2,3]}]}"#,
        r#"{"requestId":"ghijkl","sockets":[{"id":"S","handshake":{},"rooms":["S"],"data":{}}]}"#,
        r#"{"type":8,"requestId":"ghijkl","clientCount":4}"#,
        r#"{"type":6,"requestId":"ghijkl","data":null}"#,
        // The sharded adapter's, and the streams adapter's.
        r#"{"type":3,"data":{"packet":{"type":2,"data":["rubbish"]},"opts":{"rooms":["nobody"],"except":[],"flags":{}}},"uid":"0123456789abcdef","nsp":"/"}"#,
        r#"{"type":7,"data":{"opts":{"rooms":["nobody"],"except":[]},"requestId":"0123456789abcdef"},"uid":"0123456789abcdef","nsp":"/"}"#,
    ];
    let streams = b"\x84\xa4type\x03\xa4data\x82\xa6packet\x82\xa4type\x02\xa4data\x91\xa7rubbish\
                    \xa4opts\x83\xa5rooms\x90\xa6except\x90\xa5flags\x80\xa3uid\xa6abcdef\xa3nsp\xa1/";
    let heads = b"\x92\x92\xa6nobody\xcd\x03\xe8\x93\xa4some\x01\xa5/none".to_vec();
    let mut all = vec![
        tuple.to_vec(),
        stamped.concat(),
        acked.to_vec(),
        streams.to_vec(),
        heads,
    ];
    all.push(b"\x92\xcd\x12\x34\xa4beat".to_vec());
    all.extend(json.iter().map(|text| text.as_bytes().to_vec()));
    all
}

/// What is no message at all.
fn bad(dice: &mut Dice) -> Vec<u8> {
    const MARKERS: &[u8] = b"\x93\xdd\xdf\xdb\xc6\xc9\xc1\xd9\xde\xdc\xcf\xca";
    match dice.below(9) {
        0 => Vec::new(),
        1 => (0..dice.below(300))
            .map(|_| dice.roll().to_le_bytes()[0])
            .collect(),
        2 => vec![MARKERS[dice.below(MARKERS.len())]; 1 + dice.below(40)],
        // Nested deep, in either format.
        3 => vec![0x91; 1 + dice.below(20_000)],
        4 => b"\x81\xa1a".repeat(1 + dice.below(5_000)),
        5 => {
            br#"{"type":6,"data":["#.iter().copied().chain(vec![b'['; dice.below(20_000)]).collect()
        }
        // Lengths of what is not there.
        6 => [&[0xdd, 0xff, 0xff, 0xff], &dice.roll().to_be_bytes()[..]].concat(),
        7 => [
            &b"\x93\xa1x\x82\xa4data\xdd\x7f\xff\xff\xff"[..],
            &[0xc0; 90],
        ]
        .concat(),
        _ => format!("{{\"type\":{},\"opts\":7}}", dice.below(12)).into_bytes(),
    }
}

/// A good message that is cut off, changed in one place, or goes on, or one that is bad from the start.
fn rubbish(dice: &mut Dice, good: &[Vec<u8>]) -> Vec<u8> {
    let mut message = good[dice.below(good.len())].clone();
    let at = dice.below(message.len());
    match dice.below(4) {
        0 => message.truncate(at),
        1 => message[at] = dice.roll().to_le_bytes()[0],
        2 => message.extend_from_slice(b"\xc0more"),
        _ => message = bad(dice),
    }
    message
}

/// Messages of Redis that the shards of a server have taken.
fn received(server: &Server) -> f64 {
    server.metric("yum_redis_received_total", "")
}

/// Publishes a batch on every channel, and waits until it was taken, but not for ever: a link that is
/// behind for a second is made again, and what was under way is lost with it.
fn publish(fleet: &Fleet, connection: &mut Connection, dice: &mut Dice, channels: &[&str]) {
    let good = good();
    let before: Vec<f64> = fleet.servers.iter().map(received).collect();
    for channel in channels {
        let messages: Vec<_> = (0..BATCH).map(|_| rubbish(dice, &good)).collect();
        connection.publish(messages.iter().map(|message| (*channel, &**message)));
    }
    // By both shards.
    let wanted = u32::try_from(2 * BATCH * channels.len()).expect("a batch is small");
    let begun = Instant::now();
    while begun.elapsed() < TAKEN_WITHIN {
        let mut taken = fleet.servers.iter().map(received).zip(&before);
        if taken.all(|(now, before)| now - before >= f64::from(wanted)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn rubbish_on_every_channel_harms_nothing() {
    let _turn = turn();
    let redis = Redis::start();
    let fleet = Fleet::start(2, &[("REDIS_URL", &redis.url())]);
    let load = Load::start(&fleet);
    std::thread::sleep(Duration::from_secs(1));
    let memory: Vec<usize> = fleet.servers.iter().map(Server::resident_bytes).collect();
    let channels = [
        "socket.io#/#",
        "socket.io#/#room3#",
        "socket.io-request#/#",
        "socket.io-response#/#",
        "project-yum#heads",
        "project-yum#hosts",
    ];
    let mut connection = redis.connect();
    for channel in channels {
        assert!(
            connection.listeners(channel) >= 4,
            "every shard listens to {channel}"
        );
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..EACH / BATCH {
        publish(&fleet, &mut connection, &mut dice, &channels);
    }
    for server in &fleet.servers {
        eventually("it is well", || {
            let health = http::get(server.address, "/health", &[]);
            (health.status == 200 && health.json()["status"] == "ok").then_some(())
        });
        for cause in [
            "truncated",
            "trailing",
            "syntax",
            "too_deep",
            "shape",
            "type",
        ] {
            let label = format!("cause=\"{cause}\"");
            let ignored = server.metric("yum_redis_ignored_total", &label);
            assert!(ignored > 0.0, "nothing was ignored as {cause}");
        }
        let all = server.metric("yum_redis_ignored_total", "");
        eprintln!("{all} ignored");
    }
    load.check(&fleet, None);
    for (server, before) in fleet.servers.iter().zip(memory) {
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < GROWTH_MAX, "it took {grown} bytes");
    }
}
