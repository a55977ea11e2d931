//! What waits for connections, laid out so that every send is one stretch of bytes.
//!
//! Each piece of a send costs the kernel a look, again for every receiver. So the frames that wait for a
//! connection are copied one behind the other, and the members of a room, for whom the same frames
//! wait, send the same copy: it is made once. A frame that goes alone is not copied.

use std::rc::Rc;

use bytes::Bytes;

use super::flush::CONTROL_BYTES_MAX;
use crate::engine::Waiting;
use crate::wire::engine_io::Encoded;

/// Bytes of frames that are copied for one send at most.
const STRETCH_BYTES_MAX: usize = 64 * 1024;

/// Bytes of copies that wait to be sent together.
const COPIES_BYTES_MAX: usize = 256 * 1024;

/// What one send is made of: the rest of a frame that was sent in part, then the control queue, then
/// whole frames.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    place: Place,
    /// Bytes in all.
    pub(super) total: usize,
    /// Bytes of the frame that was sent in part; 0: none was.
    pub(super) rest: usize,
    /// Bytes of the control queue.
    pub(super) control: usize,
    /// Frames of the outbox.
    pub(super) frames: usize,
    /// Nothing waits behind it.
    pub(super) is_whole: bool,
}

impl Plan {
    /// How many bytes of the control queue, and of frames, are among the first `count` bytes.
    pub(super) fn split(&self, count: usize) -> (usize, usize) {
        let control = count.saturating_sub(self.rest).min(self.control);
        (control, count - control)
    }
}

/// Where the bytes of a send are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Copied { start: usize, end: usize },
    Alone(usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Copied { start: 0, end: 0 }
    }
}

/// The bytes of sends that leave together. Its memory is kept from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Joined {
    copies: Vec<u8>,
    /// Frames that go alone.
    alone: Vec<Bytes>,
    /// The last plan that others may share, and its packets.
    last: (Plan, Vec<Rc<Encoded>>),
}

impl Joined {
    /// Forgets all plans.
    pub(super) fn clear(&mut self) {
        self.copies.clear();
        self.alone.clear();
        self.last.0 = Plan::default();
        self.last.1.clear();
    }

    /// Whether there may be no room for one more plan.
    pub(super) fn is_full(&self) -> bool {
        self.copies.len() + STRETCH_BYTES_MAX + CONTROL_BYTES_MAX > COPIES_BYTES_MAX
    }

    /// The bytes of a plan.
    pub(super) fn bytes(&self, plan: Plan) -> &[u8] {
        match plan.place {
            Place::Copied { start, end } => &self.copies[start..end],
            Place::Alone(number) => &self.alone[number],
        }
    }

    /// Plans the next send of a connection; if the same packets wait as for the one before, with the
    /// same bytes.
    pub(super) fn plan_shared(&mut self, waiting: Waiting<'_>, control: &[u8]) -> Plan {
        if !control.is_empty() || waiting.sent() > 0 || waiting.is_empty() {
            return self.plan(waiting, control);
        }
        let (plan, packets) = &self.last;
        let is_end = waiting.len() == packets.len();
        if !packets.is_empty() && (is_end || !plan.is_whole) && waiting.begins_with(packets) {
            return Plan {
                is_whole: is_end,
                ..*plan
            };
        }
        let plan = self.plan(waiting, control);
        let (last, packets) = &mut self.last;
        *last = plan;
        packets.clear();
        packets.extend(waiting.packets().take(plan.frames).cloned());
        plan
    }

    /// Plans the next send of a connection: of as many frames as fit.
    pub(super) fn plan(&mut self, waiting: Waiting<'_>, control: &[u8]) -> Plan {
        let mut bytes = 0;
        let fits = |frame: &&[u8]| {
            bytes += frame.len();
            bytes <= STRETCH_BYTES_MAX
        };
        let frames = waiting.frames().take_while(fits).count();
        let is_cut = waiting.sent() > 0;
        let is_alone = (control.is_empty() && frames <= 1) || (is_cut && frames == 0);
        match waiting.packets().next() {
            Some(packet) if is_alone => {
                let frame = packet.frame().slice(waiting.sent()..);
                let total = frame.len();
                self.alone.push(frame);
                Plan {
                    place: Place::Alone(self.alone.len() - 1),
                    total,
                    rest: if is_cut { total } else { 0 },
                    control: 0,
                    frames: 1,
                    is_whole: control.is_empty() && waiting.len() == 1,
                }
            }
            _ => self.copy(waiting, control, frames),
        }
    }

    /// Copies the control queue and so many frames.
    fn copy(&mut self, waiting: Waiting<'_>, control: &[u8], frames: usize) -> Plan {
        let start = self.copies.len();
        let mut list = waiting.frames().take(frames);
        if waiting.sent() > 0 {
            self.copies.extend_from_slice(list.next().unwrap_or(&[]));
        }
        let rest = self.copies.len() - start;
        self.copies.extend_from_slice(control);
        for frame in list {
            self.copies.extend_from_slice(frame);
        }
        let end = self.copies.len();
        Plan {
            place: Place::Copied { start, end },
            total: end - start,
            rest,
            control: control.len(),
            frames,
            is_whole: waiting.len() == frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{self, Engine, Key, Transport, testing};

    const PONG: &[u8] = b"\x8a\x02hi";

    /// A connection that takes as much as a test says.
    struct Line {
        engine: Engine,
        key: Key,
        control: Vec<u8>,
        wire: Vec<u8>,
    }

    impl Line {
        fn new(packets: &[Encoded]) -> Self {
            let all: Vec<_> = (0..packets.len()).collect();
            let mut lines = Self::all(packets, &[&all]);
            lines.pop().expect("it is one")
        }

        /// One for each list, which says by their places which of the packets wait for it.
        fn all(packets: &[Encoded], lists: &[&[usize]]) -> Vec<Self> {
            let engine = testing::engine(engine::Options::default());
            let line = |_| {
                let key = testing::open(&engine, Transport::WebSocket);
                engine.transmitted(key, engine.transmit(key, bytes));
                Self {
                    engine: engine.clone(),
                    key,
                    control: Vec::new(),
                    wire: Vec::new(),
                }
            };
            let lines: Vec<_> = lists.iter().map(line).collect();
            for (place, packet) in packets.iter().enumerate() {
                let of = lines.iter().zip(lists);
                let of = of.filter(|(_, list)| list.contains(&place));
                let keys: Vec<_> = of.map(|(line, _)| line.key).collect();
                engine.send_all(&keys, std::slice::from_ref(packet));
            }
            lines
        }

        fn plan(&self, joined: &mut Joined) -> Plan {
            self.engine.transmit(self.key, |waiting| {
                joined.plan_shared(waiting, &self.control)
            })
        }

        fn take(&mut self, joined: &Joined, plan: Plan, count: usize) {
            self.wire.extend_from_slice(&joined.bytes(plan)[..count]);
            let (of_control, of_frames) = plan.split(count);
            self.control.drain(..of_control);
            self.engine.transmitted(self.key, of_frames);
        }

        /// Takes all that is left, and what that was planned as.
        fn finish(&mut self, joined: &mut Joined) -> Vec<Plan> {
            let mut plans = Vec::new();
            loop {
                let plan = self.plan(joined);
                if plan.total == 0 {
                    assert_eq!(self.engine.outbox_bytes(self.key), 0);
                    return plans;
                }
                self.take(joined, plan, plan.total);
                plans.push(plan);
            }
        }
    }

    fn bytes(waiting: Waiting<'_>) -> usize {
        waiting.frames().map(<[u8]>::len).sum()
    }

    fn text(body: &str) -> Encoded {
        Encoded::text('4', body)
    }

    fn wire(packets: &[Encoded]) -> Vec<u8> {
        let frames = packets.iter().map(|packet| &packet.frame()[..]);
        frames.collect::<Vec<_>>().concat()
    }

    #[test]
    fn connections_that_the_same_packets_wait_for_share_one_copy() {
        let packets = ["one", "two", "three"].map(text);
        let mut joined = Joined::default();
        let lines = Line::all(&packets, &[&[0, 1, 2][..]; 3]);
        let plans: Vec<_> = lines.iter().map(|line| line.plan(&mut joined)).collect();
        assert_eq!(joined.bytes(plans[0]), wire(&packets));
        assert_eq!(joined.copies.len(), wire(&packets).len());
        assert!(plans.iter().all(|plan| *plan == plans[0]), "{plans:?}");
        assert_eq!((plans[0].frames, plans[0].is_whole), (3, true));
        joined.clear();
        let again = lines[0].plan(&mut joined);
        assert_eq!(joined.bytes(again), wire(&packets));
    }

    #[test]
    fn connections_share_nothing_when_one_packet_differs() {
        // One text comes twice, in two packets.
        let packets = ["one", "un", "two", "deux", "three", "three"].map(text);
        let all: &[usize] = &[0, 2, 4];
        let others: [&[usize]; 5] = [&[1, 2, 4], &[0, 3, 4], &[0, 2, 5], &[0, 2], &[0, 2, 4, 5]];
        for other in others {
            let mut joined = Joined::default();
            let lines = Line::all(&packets, &[all, other]);
            let plans = [&lines[0], &lines[1]].map(|line| line.plan(&mut joined));
            for (plan, list) in plans.iter().zip([all, other]) {
                let list: Vec<_> = list.iter().map(|place| packets[*place].clone()).collect();
                assert_eq!(joined.bytes(*plan), wire(&list));
                assert!(plan.is_whole);
            }
            assert_ne!(plans[0].place, plans[1].place);
        }
    }

    #[test]
    fn one_that_was_cut_does_not_share() {
        let packets = ["one", "two", "three"].map(text);
        let mut joined = Joined::default();
        let mut lines = Line::all(&packets, &[&[0, 1, 2][..]; 2]);
        let (mut cut, all) = (lines.remove(0), lines.remove(0));
        let plan = all.plan(&mut joined);
        let before = cut.plan(&mut joined);
        cut.take(&joined, before, 1);
        let rest = cut.plan(&mut joined);
        assert_eq!(joined.bytes(rest), &wire(&packets)[1..]);
        assert_eq!(rest.rest, packets[0].frame().len() - 1);
        assert_eq!(all.plan(&mut joined), plan);
    }

    #[test]
    fn a_send_may_be_cut_at_every_byte_and_control_frames_come_between_frames() {
        let packets = ["one", "two", "three"].map(text);
        for before in [0, 1, 2] {
            let all = before * PONG.len() + wire(&packets).len();
            for cut in 0..=all {
                let mut joined = Joined::default();
                let mut line = Line::new(&packets);
                line.control = PONG.repeat(before);
                let plan = line.plan(&mut joined);
                assert_eq!(plan.total, all);
                line.take(&joined, plan, cut);
                line.control.extend_from_slice(PONG);
                line.finish(&mut joined);

                // The pong that came after the cut is sent as soon as no frame is inside.
                let mut expected = PONG.repeat(before);
                let mut is_owed = true;
                for packet in &packets {
                    if is_owed && expected.len() >= cut {
                        expected.extend_from_slice(PONG);
                        is_owed = false;
                    }
                    expected.extend_from_slice(packet.frame());
                }
                if is_owed {
                    expected.extend_from_slice(PONG);
                }
                assert_eq!(line.wire, expected, "{before} before, cut at {cut}");
            }
        }
    }

    #[test]
    fn a_frame_that_goes_alone_is_not_copied() {
        let big = text(&"x".repeat(STRETCH_BYTES_MAX));
        let small = text("small");
        for packets in [
            &[small.clone()][..],
            std::slice::from_ref(&big),
            &[big.clone(), small.clone()],
        ] {
            let mut joined = Joined::default();
            let mut line = Line::new(packets);
            let plan = line.plan(&mut joined);
            assert_eq!(joined.bytes(plan).as_ptr(), packets[0].frame().as_ptr());
            assert_eq!((plan.frames, plan.is_whole), (1, packets.len() == 1));
            line.take(&joined, plan, 10.min(plan.total - 1));
            line.control = PONG.to_vec();
            line.finish(&mut joined);
            let (first, rest) = packets.split_first().expect("one at least");
            let expected = [wire(std::slice::from_ref(first)), PONG.to_vec(), wire(rest)].concat();
            assert!(line.wire == expected, "a failure need not print it");
        }
        // Control frames wait behind it only if it was cut.
        let mut line = Line::new(&[big.clone(), small]);
        line.control = PONG.to_vec();
        let plans = line.finish(&mut Joined::default());
        assert_eq!(plans[0].total, PONG.len());
        assert_eq!(plans.len(), 3);
    }

    #[test]
    fn what_does_not_fit_is_sent_next_and_copies_stay_few() {
        let packets: Vec<_> = (0..100).map(|_| text(&"x".repeat(999))).collect();
        let places: Vec<_> = (0..100).collect();
        let lists = [&places[..], &places[..64], &places[..65]];
        let lines = Line::all(&packets, &lists);
        let [mut a, mut b, c] = lines.try_into().ok().expect("three lists");
        let mut joined = Joined::default();
        let (first, other) = (a.plan(&mut joined), b.plan(&mut joined));
        assert_eq!((first.frames, first.is_whole), (65, false));
        assert_eq!((other.frames, other.is_whole), (64, true));
        assert_ne!(first.place, other.place);
        joined.clear();
        let same = [a.plan(&mut joined), c.plan(&mut joined)];
        assert_eq!(same[0].place, same[1].place);
        assert_eq!(same.map(|plan| plan.is_whole), [false, true]);
        for line in [&mut a, &mut b] {
            line.finish(&mut joined);
        }
        assert!(a.wire == wire(&packets) && b.wire == wire(&packets[..64]));
        joined.clear();
        while !joined.is_full() {
            Line::new(&["one", "two"].map(|body| text(&body.repeat(5_000)))).plan(&mut joined);
        }
        assert!(joined.copies.len() <= COPIES_BYTES_MAX);
        assert!(joined.copies.len() > COPIES_BYTES_MAX / 2);
    }
}
