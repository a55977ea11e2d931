//! Redis, or the way to it, goes and comes back while twenty members write in ten rooms.
//!
//! Two servers with two shards each on one PostgreSQL. Whatever happens to Redis, sends are acked, and in
//! the end every member has every message once and in order.

use std::time::{Duration, Instant};

use serde_json::json;

use super::contract::Fleet;
use super::load::Load;
use super::redis_server::Redis;
use super::relay::Relay;
use super::support::client::{Client, Via};
use super::support::server::{Server, folder, log_of};
use super::support::token::token;
use super::support::{eventually, http};
use super::{is_long, turn};

/// How long it works before and after.
const WORKS: Duration = Duration::from_secs(1);
/// Links are made again within 2 s; the rest is for a busy machine.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// A host that says nothing for 5 s has its rooms compared; the rest is for that and a busy machine.
const MISSED_WITHIN: Duration = Duration::from_secs(12);
/// Local deliveries may take this much longer than before: the long run measures, the short one is for a
/// machine that does other things, too. Where only some links are harmed, the rest goes on publishing: what
/// follows a message that was lost is held for it, for 50 ms, until the store is read.
fn slower_ms(is_partial: bool) -> u64 {
    match (is_long(), is_partial) {
        (false, _) => 2_000,
        (true, false) => 20,
        (true, true) => 20 + 50,
    }
}

/// How long an outage lasts.
fn outage() -> Duration {
    Duration::from_millis(if is_long() { 8_000 } else { 2_000 })
}

/// Two servers, each with its own way to one Redis.
struct World {
    fleet: Fleet,
    redis: Redis,
    relays: [Relay; 2],
}

impl World {
    fn start() -> Self {
        let redis = Redis::start();
        let relays = [Relay::to(redis.port()), Relay::to(redis.port())];
        let urls = relays
            .each_ref()
            .map(|relay| format!("redis://127.0.0.1:{}", relay.port()));
        let settings = urls.each_ref().map(|url| vec![("REDIS_URL", &**url)]);
        let fleet = Fleet::over(&settings);
        Self {
            fleet,
            redis,
            relays,
        }
    }

    fn wait_for(&self, word: &str) {
        for server in &self.fleet.servers {
            wait_for(server, word);
        }
    }
}

/// Waits until a server says so of itself; it serves in any case.
fn wait_for(server: &Server, word: &str) {
    eventually(word, || {
        let health = http::get(server.address, "/health", &[]);
        assert_eq!(health.status, 200, "{}", health.text());
        assert_eq!(http::get(server.address, "/health/ready", &[]).status, 200);
        (health.json()["status"] == word).then_some(())
    });
}

/// Under load: harm, wait until the servers in `harmed` notice, mend, and everything is there in the end.
fn survives(harmed: &[usize], harm: impl Fn(&World), mend: impl Fn(&World)) {
    let _turn = turn();
    let world = World::start();
    let load = Load::start(&world.fleet);
    let begun = Instant::now();
    std::thread::sleep(WORKS);
    let normal = load.local_p99(begun);
    let since = Instant::now();
    harm(&world);
    for server in harmed {
        wait_for(&world.fleet.servers[*server], "degraded");
    }
    std::thread::sleep(outage().saturating_sub(since.elapsed()));
    let meanwhile = load.local_p99(since);
    mend(&world);
    let mended = Instant::now();
    world.wait_for("ok");
    let back = mended.elapsed();
    eprintln!("local p99 {normal} ms before, {meanwhile} ms meanwhile; back after {back:?}");
    assert!(back < BACK_WITHIN, "links are back after {back:?}");
    std::thread::sleep(WORKS);
    load.check(&world.fleet, None);
    assert!(
        meanwhile <= normal + slower_ms(harmed.len() == 1),
        "{meanwhile} ms after {normal} ms"
    );
}

#[test]
fn redis_is_killed() {
    survives(
        &[0, 1],
        |world| world.redis.kill(),
        |world| world.redis.run(),
    );
}

#[test]
fn redis_is_paused() {
    survives(
        &[0, 1],
        |world| world.redis.pause(true),
        |world| world.redis.pause(false),
    );
}

#[test]
fn every_link_is_cut_silently() {
    survives(
        &[0, 1],
        |world| world.relays.iter().for_each(Relay::cut),
        |world| world.relays.iter().for_each(Relay::mend),
    );
}

#[test]
fn every_link_is_reset() {
    survives(
        &[0, 1],
        |world| world.relays.iter().for_each(Relay::refuse),
        |world| world.relays.iter().for_each(Relay::mend),
    );
}

#[test]
fn every_link_is_reset_once() {
    survives(
        &[],
        |world| world.relays.iter().for_each(Relay::reset),
        |_| (),
    );
}

#[test]
fn the_links_of_one_host_are_cut() {
    survives(
        &[0],
        |world| world.relays[0].cut(),
        |world| world.relays[0].mend(),
    );
}

#[test]
fn the_link_of_one_shard_is_cut() {
    survives(
        &[1],
        |world| world.relays[1].cut_one(0),
        |world| world.relays[1].mend(),
    );
}

#[test]
fn links_come_and_go_every_second() {
    let _turn = turn();
    let world = World::start();
    let load = Load::start(&world.fleet);
    let rounds = if is_long() { 30 } else { 5 };
    for round in 0..rounds {
        std::thread::sleep(Duration::from_secs(1));
        if round % 2 == 0 {
            world.relays.iter().for_each(Relay::refuse);
        } else {
            world.redis.kill();
        }
        std::thread::sleep(Duration::from_secs(1));
        if round % 2 == 0 {
            world.relays.iter().for_each(Relay::mend);
        } else {
            world.redis.run();
        }
    }
    world.wait_for("ok");
    load.check(&world.fleet, None);
}

fn member(server: &Server, user: &str) -> Client {
    let mut client = Client::connect(server.address, Via::WebSocket, &token(user));
    client.join("lone");
    client
}

/// The next message, and how long it took.
fn next_message(client: &mut Client, what: &str) -> (u64, Duration) {
    let begun = Instant::now();
    loop {
        let event = client.event_within(super::support::PATIENCE);
        let (name, payload) = event.unwrap_or_else(|| panic!("never comes: {what}"));
        if name == "receiveMessage" {
            return (payload["seq"].as_u64().expect("a seq"), begun.elapsed());
        }
    }
}

/// Long enough that everybody has heard of everybody, and that nothing is under way.
const SETTLED: Duration = Duration::from_millis(1_500);

/// Two servers, and a member of one room on each.
fn two_members() -> (World, Client, Client) {
    let world = World::start();
    let [mut a, mut b] = [0, 1].map(|nth| member(&world.fleet.servers[nth], &format!("user{nth}")));
    a.say("lone", "before");
    assert_eq!(next_message(&mut b, "before").0, 1);
    std::thread::sleep(SETTLED);
    (world, a, b)
}

#[test]
fn the_last_message_before_a_link_breaks_arrives_while_it_is_broken() {
    let _turn = turn();
    let (world, mut a, mut b) = two_members();
    // Lost on the way: A thinks that its link is well. Then A is silent, and B looks for itself.
    world.relays[0].cut();
    assert_eq!(a.say("lone", "lost")["seq"], 2);
    let (seq, after) = next_message(&mut b, "lost");
    assert_eq!(seq, 2);
    assert!(after < MISSED_WITHIN, "{after:?}");
    b.expect_quiet();
}

#[test]
fn a_lone_message_of_an_outage_arrives_when_the_link_is_back() {
    let _turn = turn();
    let (world, mut a, mut b) = two_members();
    // The writer's link: it tells what it could not publish. The reader's: it looks what it missed.
    for (nth, relay) in world.relays.iter().enumerate() {
        let seq = nth as u64 + 2;
        let server = &world.fleet.servers[nth];
        let made = server.metric("yum_redis_connections_total", "");
        relay.cut();
        wait_for(server, "degraded");
        std::thread::sleep(SETTLED);
        assert_eq!(a.say("lone", "alone")["seq"], seq);
        relay.mend();
        let (got, after) = next_message(&mut b, "alone");
        assert_eq!(got, seq);
        assert!(after < BACK_WITHIN, "{after:?}");
        world.wait_for("ok");
        assert!(server.metric("yum_redis_connections_total", "") > made);
    }
    b.expect_quiet();
}

#[test]
fn a_shard_whose_link_is_broken_hears_its_siblings_at_once() {
    let _turn = turn();
    let world = World::start();
    let server = &world.fleet.servers[0];
    // On both shards, most likely.
    let mut members: Vec<_> = (0..8)
        .map(|nth| member(server, &format!("user{nth}")))
        .collect();
    world.relays[0].cut_one(0);
    wait_for(server, "degraded");
    std::thread::sleep(SETTLED);
    for (writer, seq) in (0..members.len()).zip(1..) {
        assert_eq!(members[writer].say("lone", "near")["seq"], seq);
        for reader in &mut members {
            let (got, after) = next_message(reader, "near");
            assert_eq!(got, seq);
            assert!(after < Duration::from_millis(700), "{after:?}");
        }
    }
    world.relays[0].mend();
    world.wait_for("ok");
    members[0].expect_quiet();
}

#[test]
fn news_that_took_both_ways_comes_once() {
    let _turn = turn();
    let world = World::start();
    let servers = &world.fleet.servers;
    // On every shard of both servers, most likely.
    let mut witnesses: Vec<_> = (0..8)
        .map(|nth| member(&servers[0], &format!("w{nth}")))
        .collect();
    for witness in &mut witnesses {
        while witness.event_within(Duration::from_millis(200)).is_some() {}
    }
    let rounds = if is_long() { 40 } else { 10 };
    for round in 0..rounds {
        // Too short for a link to be given up, long enough to take the other way, too.
        world.redis.pause(true);
        let guest = member(&servers[0], &format!("guest{round}"));
        std::thread::sleep(Duration::from_millis(50));
        world.redis.pause(false);
        for witness in &mut witnesses {
            assert_eq!(
                witness.expect("userJoined")["userId"],
                format!("guest{round}")
            );
        }
        drop(guest);
        for witness in &mut witnesses {
            assert_eq!(
                witness.expect("userLeft")["userId"],
                format!("guest{round}")
            );
        }
    }
    for witness in &mut witnesses {
        witness.expect_quiet();
    }
    let late: f64 = servers
        .iter()
        .map(|s| s.metric("yum_redis_late_total", ""))
        .sum();
    assert!(late > 0.0, "nothing took both ways");
}

#[test]
fn a_server_that_is_killed_leaves_nothing_untold() {
    let _turn = turn();
    let rounds = if is_long() { 5 } else { 1 };
    for _ in 0..rounds {
        let world = World::start();
        let load = Load::start(&world.fleet);
        std::thread::sleep(WORKS);
        // Some are stored and not published then; and nobody sends again.
        load.hush();
        world.fleet.servers[0].signal("KILL");
        let told = load.check(&world.fleet, Some(0));
        assert!(told < MISSED_WITHIN, "{told:?}");
    }
}

#[test]
fn joins_do_not_wait_for_a_link_that_is_down() {
    let _turn = turn();
    let world = World::start();
    world.redis.pause(true);
    wait_for(&world.fleet.servers[0], "degraded");
    let server = &world.fleet.servers[0];
    let mut client = Client::connect(server.address, Via::WebSocket, &token("user"));
    let begun = Instant::now();
    for nth in 0..20 {
        client.join(&format!("cold{nth}"));
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "20 joins took {took:?}");
    let mut other = Client::connect(
        world.fleet.servers[1].address,
        Via::WebSocket,
        &token("other"),
    );
    for nth in 0..20 {
        other.join(&format!("cold{nth}"));
        let room = format!("cold{nth}");
        other.ok("sendMessage", &json!({"roomId": room, "content": "x"}));
    }
    world.redis.pause(false);
    let mut rooms = std::collections::BTreeSet::new();
    while rooms.len() < 20 {
        let event = client.event_within(super::support::PATIENCE);
        let (name, payload) = event.expect("every message comes");
        if name == "receiveMessage" {
            assert_eq!(payload["seq"], 1);
            assert!(
                rooms.insert(payload["roomId"].to_string()),
                "{payload} came twice"
            );
        }
    }
}

#[test]
fn a_server_starts_and_serves_before_redis_is_there() {
    let redis = Redis::start();
    redis.kill();
    let folder = folder();
    let settings = [("REDIS_URL", &*redis.url()), ("DATABASE_URL", "memory:")];
    let server = Server::start(folder.path(), &settings);
    wait_for(&server, "degraded");
    let (mut ada, mut bob) = (member(&server, "ada"), member(&server, "bob"));
    assert_eq!(ada.say("lone", "without")["seq"], 1);
    assert_eq!(next_message(&mut bob, "without").0, 1);
    redis.run();
    wait_for(&server, "ok");
    assert_eq!(ada.say("lone", "with")["seq"], 2);
    assert_eq!(next_message(&mut bob, "with").0, 2);
}

#[test]
fn a_wrong_password_is_told_without_telling_it() {
    let redis = Redis::start_with("redis-server", |_| {
        ["--requirepass", "right"].map(str::to_owned).to_vec()
    });
    let url = format!("redis://:mistaken@127.0.0.1:{}", redis.port());
    let folder = folder();
    let settings = [("REDIS_URL", &*url), ("DATABASE_URL", "memory:")];
    let server = Server::start(folder.path(), &settings);
    wait_for(&server, "degraded");
    let logged = eventually("the log says why", || {
        Some(log_of(folder.path())).filter(|logged| logged.contains("WRONGPASS"))
    });
    let said = http::get(server.address, "/health", &[]).text();
    assert!(!(said + &logged).contains("mistaken"), "a password is told");
    let login = redis::cmd("AUTH").arg("right").clone();
    let change = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", "mistaken"])
        .clone();
    redis.connect().send(&[login, change]);
    wait_for(&server, "ok");
}
