//! Messages to rooms: as fast as they are delivered, at a rate, or each with its ack.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::frames::{Finder, Message};
use super::ledger::Ledger;
use super::seats::Seats;
use super::swarm::Heard;
use super::{Load, LoadError, PATIENCE, Pace, Report, Samples, server};

/// Bytes of a message's content.
pub(super) const CONTENT_BYTES: usize = 100;
/// Load before the measured period, at least.
const WARM_UP: Duration = Duration::from_secs(1);
/// And at most, however slowly its rooms get their messages.
const WARM_UP_MAX: Duration = Duration::from_secs(15);
/// Scheduled moments of so many messages are remembered, and of so many of each room at least.
const MOMENTS: usize = 1 << 16;
const MOMENTS_LEAST: usize = 16;

/// Latencies of all that was scheduled within the measured period, whenever it comes: what a slow server
/// delivers only after its end belongs to them most of all.
#[derive(Default)]
struct Latencies {
    /// Unknown until it begins.
    period: Option<Range<Instant>>,
    samples: Samples,
}

impl Latencies {
    /// Notes that what was scheduled at `moment` has come at `now`.
    fn note(&mut self, moment: Instant, now: Instant) {
        let period = self.period.as_ref();
        if period.is_some_and(|period| period.contains(&moment)) {
            self.samples.push(now.saturating_duration_since(moment));
        }
    }
}

/// What is counted while messages are on their way.
struct Count {
    ledger: Ledger,
    finder: Finder,
    /// By connection: whose it is.
    users: Vec<usize>,
    seats: Seats,
    delivered: u64,
    latencies: Latencies,
    failure: Option<String>,
}

impl Count {
    /// `numbers`: the connections of the users. `senders`: of each room.
    fn new(numbers: &[usize], seats: Seats, senders: usize) -> Self {
        let mut users = vec![0; numbers.iter().max().map_or(0, |most| most + 1)];
        for (user, number) in numbers.iter().enumerate() {
            users[*number] = user;
        }
        Self {
            ledger: Ledger::new(seats.rooms * seats.members, senders),
            finder: Finder::default(),
            users,
            seats,
            delivered: 0,
            latencies: Latencies::default(),
            failure: None,
        }
    }

    /// Takes what a connection heard; the room and number of a delivery that was still owed.
    fn hear(&mut self, number: usize, heard: Heard<'_>) -> Option<(usize, u32)> {
        match heard {
            Heard::Text(text) => {
                let (sender, message) = self.finder.find(text)?;
                let members = self.seats.members;
                let (room, sender) = (sender / members, sender % members);
                let Some(member) = self.seats.member(room, self.users[number]) else {
                    self.failure = Some("delivered to a stranger".to_owned());
                    return None;
                };
                let receiver = room * members + member;
                let owed = self.ledger.receive(receiver, sender, message);
                self.delivered += u64::from(owed);
                owed.then_some((room, message))
            }
            Heard::Closed => {
                self.failure = Some("closed a connection".to_owned());
                None
            }
            _ => None,
        }
    }
}

/// One room's sender.
struct Sender {
    number: usize,
    message: Message,
    sent: u32,
    delivered: u64,
    /// When each of the last messages was scheduled.
    moments: Vec<Instant>,
}

impl Sender {
    fn next(&mut self, at: Instant) -> &[u8] {
        self.sent += 1;
        let place = self.sent as usize % self.moments.len();
        self.moments[place] = at;
        self.message.numbered(self.sent)
    }
}

fn room_of(room: usize) -> String {
    format!("bench-{room}")
}

impl Load<'_> {
    pub(super) fn messages(
        &mut self,
        seats: Seats,
        pace: Pace,
        period: Duration,
    ) -> Result<Report, LoadError> {
        let Seats { rooms, members, .. } = seats;
        let rooms_by_user = seats.rooms_by_user();
        let rooms_of = |user: usize| rooms_by_user[user].iter().copied().map(room_of).collect();
        let numbers = self.sockets(seats.users, rooms_of)?;
        self.rest(WARM_UP)?;
        let mut count = Count::new(&numbers, seats, 1);
        let now = Instant::now();
        let moments = (MOMENTS / rooms).max(MOMENTS_LEAST);
        let mut senders: Vec<Sender> = (0..rooms)
            .map(|room| Sender {
                number: numbers[seats.user(room, 0)],
                message: Message::new(&room_of(room), room * members, CONTENT_BYTES, false),
                sent: 0,
                delivered: 0,
                moments: vec![now; moments],
            })
            .collect();
        let start = Instant::now();
        let mut opened = None;
        let mut scheduled = 0_u64;
        let warm_up = warm_up(pace, rooms);
        let end = start + warm_up + period;
        loop {
            let now = Instant::now();
            if opened.is_none() && now >= start + warm_up {
                opened = Some((now, self.cpu()?, count.delivered, total(&senders)));
                count.latencies.period = Some(now..end);
            }
            if now >= end {
                break;
            }
            let wait = match pace {
                Pace::Window(window) => {
                    self.fill_windows(
                        &mut senders,
                        (window * members) as u64,
                        members as u64,
                        now,
                    )?;
                    Duration::from_millis(5)
                }
                Pace::Rate(rate) => {
                    let due = |n: u64| start + Duration::from_secs_f64(float(n) / rate);
                    while due(scheduled) <= now {
                        let at = due(scheduled);
                        let sender = &mut senders[usize::try_from(scheduled).unwrap_or(0) % rooms];
                        scheduled += 1;
                        let number = sender.number;
                        self.swarm.send(number, sender.next(at))?;
                    }
                    due(scheduled).saturating_duration_since(Instant::now())
                }
            };
            self.take_turn(&mut senders, &mut count, wait)?;
        }
        let (begin, cpu, delivered, messages) =
            opened.ok_or_else(|| server("was measured for no time"))?;
        let mut report = Report {
            seconds: begin.elapsed().as_secs_f64(),
            units: count.delivered - delivered,
            messages: total(&senders) - messages,
            cpu: self.cpu_since(cpu)?,
            ..Report::default()
        };
        // What is still on its way belongs to the check and the latencies, not to the units.
        let deadline = Instant::now() + PATIENCE;
        while count.delivered < total(&senders) * members as u64 && Instant::now() < deadline {
            self.take_turn(&mut senders, &mut count, Duration::from_millis(10))?;
        }
        report.faults = count
            .ledger
            .close(|receiver, _| senders[receiver / members].sent);
        report.samples = count.latencies.samples;
        Ok(report)
    }

    fn fill_windows(
        &mut self,
        senders: &mut [Sender],
        window: u64,
        members: u64,
        now: Instant,
    ) -> Result<(), LoadError> {
        for sender in senders {
            let number = sender.number;
            while u64::from(sender.sent) * members < sender.delivered + window
                && self.swarm.is_flushed(number)
            {
                self.swarm.send(number, sender.next(now))?;
            }
        }
        Ok(())
    }

    fn take_turn(
        &mut self,
        senders: &mut [Sender],
        count: &mut Count,
        wait: Duration,
    ) -> Result<(), LoadError> {
        self.swarm.turn(wait, |number, _, heard| {
            if let Some((room, message)) = count.hear(number, heard) {
                let sender = &mut senders[room];
                sender.delivered += 1;
                let place = message as usize % sender.moments.len();
                count.latencies.note(sender.moments[place], Instant::now());
            }
        })?;
        match count.failure.take() {
            Some(failure) => Err(server(failure)),
            None => Ok(()),
        }
    }

    pub(super) fn stored(
        &mut self,
        (rooms, members): (usize, usize),
        period: Duration,
    ) -> Result<Report, LoadError> {
        let total = rooms * members;
        let numbers = self.sockets(total, |user| vec![room_of(user / members)])?;
        let mut count = Count::new(&numbers, Seats::new(rooms, members, None), members);
        let mut messages: Vec<Message> = (0..total)
            .map(|user| {
                let room = room_of(user / members);
                Message::new(&room, user, CONTENT_BYTES, true)
            })
            .collect();
        let mut sent = vec![(0_u32, Instant::now()); total];
        let mut acked = 0_u64;
        let start = Instant::now();
        for user in 0..total {
            sent[user] = (1, Instant::now());
            self.swarm.send(numbers[user], messages[user].numbered(1))?;
        }
        let mut opened = None;
        let mut report = Report::default();
        let mut last = Instant::now();
        let mut is_over = false;
        // Then the last acks and deliveries are awaited.
        loop {
            let now = Instant::now();
            if opened.is_none() && now >= start + WARM_UP {
                opened = Some((now, self.cpu()?, acked));
                count.latencies.period = Some(now..now + period);
            }
            if let Some((begin, cpu, before)) = opened
                && now >= begin + period
                && !is_over
            {
                is_over = true;
                report.seconds = begin.elapsed().as_secs_f64();
                report.units = acked - before;
                report.messages = report.units;
                report.cpu = self.cpu_since(cpu)?;
            }
            let owed: u64 = sent.iter().map(|(sent, _)| u64::from(*sent)).sum();
            let is_settled = acked >= owed && count.delivered >= owed * members as u64;
            if is_over && (is_settled || last.elapsed() > PATIENCE) {
                break;
            }
            let before = count.delivered + acked;
            self.swarm
                .turn(Duration::from_millis(10), |number, client, heard| {
                    if let Heard::Text(text) = heard
                        && text.starts_with(b"43")
                    {
                        let user = count.users[number];
                        if !text.windows(9).any(|w| w == br#""ok":true"#) {
                            count.failure = Some(String::from_utf8_lossy(text).into_owned());
                        }
                        acked += 1;
                        count.latencies.note(sent[user].1, Instant::now());
                        if !is_over {
                            sent[user] = (sent[user].0 + 1, Instant::now());
                            client.send(messages[user].numbered(sent[user].0));
                        }
                        return;
                    }
                    count.hear(number, heard);
                })?;
            if count.delivered + acked > before {
                last = Instant::now();
            }
            if let Some(failure) = count.failure.take() {
                return Err(server(format!("refused a message: {failure}")));
            }
        }
        report.faults = count
            .ledger
            .close(|receiver, sender| sent[receiver / members * members + sender].0);
        report.samples = count.latencies.samples;
        Ok(report)
    }

    pub(super) fn fill(&mut self, room: &str, messages: usize) -> Result<Report, LoadError> {
        let number = self.sockets(1, |_| vec![room.to_owned()])?[0];
        let mut message = Message::new(room, 0, CONTENT_BYTES, true);
        let mut acked = 0;
        for sent in 1..=u32::try_from(messages).unwrap_or(u32::MAX) {
            self.swarm.send(number, message.numbered(sent))?;
            let deadline = Instant::now() + PATIENCE;
            while acked < sent {
                self.swarm.turn(Duration::from_millis(100), |_, _, heard| {
                    let is_ack = matches!(heard, Heard::Text(text) if text.starts_with(b"43"));
                    acked += u32::from(is_ack);
                })?;
                if Instant::now() > deadline {
                    return Err(server("did not store a message"));
                }
            }
        }
        Ok(Report {
            units: messages as u64,
            seconds: 1.0,
            ..Report::default()
        })
    }
}

/// Load before the measured period: each room has its first message in it, which costs a server the room's
/// place in its store.
fn warm_up(pace: Pace, rooms: usize) -> Duration {
    match pace {
        Pace::Window(_) => WARM_UP,
        Pace::Rate(rate) => {
            let round = float(rooms as u64) / rate;
            Duration::from_secs_f64(round.min(WARM_UP_MAX.as_secs_f64())).max(WARM_UP)
        }
    }
}

fn total(senders: &[Sender]) -> u64 {
    senders.iter().map(|sender| u64::from(sender.sent)).sum()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run sends fewer than 2^52 messages"
)]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_room_has_a_message_before_the_measured_period() {
        assert_eq!(warm_up(Pace::Window(8), 100_000), WARM_UP);
        assert_eq!(warm_up(Pace::Rate(1_000.0), 100), WARM_UP);
        let ten = Duration::from_secs(10);
        assert_eq!(warm_up(Pace::Rate(10_000.0), 100_000), ten);
        assert_eq!(warm_up(Pace::Rate(1.0), 100_000), WARM_UP_MAX);
    }

    #[test]
    fn what_was_scheduled_in_the_period_is_sampled_also_when_it_comes_after_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut latencies = Latencies::default();
        latencies.note(at(0), at(50));
        assert_eq!(
            latencies.samples.quantile_ms(1.0),
            None,
            "nothing has begun"
        );
        latencies.period = Some(at(100)..at(200));
        latencies.note(at(99), at(150));
        latencies.note(at(200), at(230));
        assert_eq!(latencies.samples.quantile_ms(1.0), None, "outside of it");
        latencies.note(at(100), at(110));
        latencies.note(at(199), at(900));
        assert_eq!(latencies.samples.quantile_ms(0.5), Some(10.0));
        assert_eq!(latencies.samples.quantile_ms(1.0), Some(701.0));
    }
}
