//! The namespaces of one connection, as a machine: CONNECT, EVENT, ACK, DISCONNECT.
//!
//! One EVENT is handled at a time. Those that come meanwhile park, and so does what must not overtake
//! them: a DISCONNECT of a namespace that has parked events, and the CONNECT after it. A machine that
//! is full asks its transport to read no more. Nothing here waits, sends, or knows an application.

use std::collections::VecDeque;
use std::time::Instant;

use crate::planted::{self, Defect};
use crate::sorted::SortedMap;
use crate::wire::socket_io::{ATTACHMENTS_MAX, Args, Decoder, Kind, Packet, PacketError};
use crate::wire::{Content, Text};

/// Parked packets of one connection.
pub const PARKED_MAX: usize = 64;
/// CONNECTs of one connection that may be refused before it is closed.
const REFUSALS_MAX: usize = 10;
/// Namespaces of one connection.
const NAMESPACES_MAX: usize = 1_000;
/// What a parked packet counts beside its bytes.
const PACKET_OVERHEAD: usize = 64;

/// One connection's namespaces.
#[derive(Debug)]
pub(super) struct Client {
    decoder: Decoder,
    seats: SortedMap<Text, Seat>,
    parked: VecDeque<Parked>,
    parked_bytes: usize,
    parked_bytes_max: usize,
    is_busy: bool,
    is_full: bool,
    /// The connection is to end: no further event is begun.
    is_draining: bool,
    refusals: usize,
}

/// How far a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seat {
    /// The application has not decided yet.
    Deciding,
    Joined,
    /// A DISCONNECT is parked.
    Leaving,
    /// A DISCONNECT is parked, and a CONNECT behind it.
    Returning,
}

/// What waits for a handler to finish.
#[derive(Debug)]
enum Parked {
    Event(Incoming),
    Disconnect(Text),
    Connect(Text, Option<Text>),
}

/// An event for a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) namespace: Text,
    pub(super) name: Text,
    pub(super) args: Args,
    pub(super) ack: Option<u64>,
    pub(super) received: Instant,
}

/// What the hub has to do about a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing now.
    Nothing,
    /// Nothing; and nothing more can be taken.
    Full,
    /// Decide about a namespace, then call `joined` or `refused`.
    Connect {
        namespace: Text,
        payload: Option<Text>,
    },
    /// Run the handler, then call `next`.
    Handle(Incoming),
    /// Take a client's answer.
    Answer {
        namespace: Text,
        id: u64,
        args: Args,
    },
    /// End the namespace, then call `forget`.
    Leave { namespace: Text },
}

/// Why a connection must close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("a packet that makes no sense now")]
    State,
}

impl Client {
    /// A connection without namespaces. `bytes_max` bounds the attachments of a packet, and what is parked.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            decoder: Decoder::new(ATTACHMENTS_MAX, bytes_max),
            seats: SortedMap::default(),
            parked: VecDeque::new(),
            parked_bytes: 0,
            parked_bytes_max: bytes_max,
            is_busy: false,
            is_full: false,
            is_draining: false,
            refusals: 0,
        }
    }

    /// Whether attachments of a packet are awaited.
    pub(super) fn is_gathering(&self) -> bool {
        self.decoder.is_gathering()
    }

    /// Whether a handler runs.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether packets wait for a handler to finish.
    pub(super) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// How many packets wait for their turn.
    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Takes one message.
    pub(super) fn receive(&mut self, now: Instant, content: Content) -> Result<Step, Violation> {
        let Some(Packet { namespace, kind }) = self.decoder.receive(content)? else {
            return Ok(Step::Nothing);
        };
        let seat = self.seats.get(&namespace).copied();
        match (kind, seat) {
            (Kind::Connect { payload }, None) if self.seats.len() < NAMESPACES_MAX => {
                Ok(self.begin(namespace, payload))
            }
            (Kind::Connect { payload }, Some(Seat::Leaving)) => {
                self.seats.insert(namespace.clone(), Seat::Returning);
                Ok(self.park(Parked::Connect(namespace, payload)))
            }
            (Kind::Event { name, args, ack }, Some(Seat::Joined)) => {
                let incoming = Incoming {
                    namespace,
                    name,
                    args,
                    ack,
                    received: now,
                };
                if self.is_draining {
                    // As if it had been lost on its way: the client will ask again elsewhere.
                    return Ok(Step::Nothing);
                }
                if self.is_busy {
                    return Ok(self.park(Parked::Event(incoming)));
                }
                self.is_busy = true;
                Ok(Step::Handle(incoming))
            }
            (Kind::Ack { id, args }, Some(Seat::Joined)) => Ok(match id {
                Some(id) => Step::Answer {
                    namespace,
                    id,
                    args,
                },
                None => Step::Nothing,
            }),
            (Kind::Disconnect, Some(Seat::Joined)) => {
                if self.parked.iter().any(|parked| parked.is_of(&namespace)) {
                    self.seats.insert(namespace.clone(), Seat::Leaving);
                    return Ok(self.park(Parked::Disconnect(namespace)));
                }
                Ok(Step::Leave { namespace })
            }
            _ => Err(Violation::State),
        }
    }

    fn begin(&mut self, namespace: Text, payload: Option<Text>) -> Step {
        // The name outlives the packet, whose memory it must not hold.
        let namespace = match &*namespace {
            "/" => namespace,
            name => Text::from(name),
        };
        self.seats.insert(namespace.clone(), Seat::Deciding);
        Step::Connect { namespace, payload }
    }

    fn park(&mut self, parked: Parked) -> Step {
        self.parked_bytes += parked.bytes();
        self.parked.push_back(parked);
        self.is_full =
            self.parked.len() >= PARKED_MAX || self.parked_bytes >= self.parked_bytes_max;
        if self.is_full {
            Step::Full
        } else {
            Step::Nothing
        }
    }

    /// The application let the client in.
    pub(super) fn joined(&mut self, namespace: &str) {
        if let Some(seat) = self.seats.get_mut(namespace) {
            *seat = Seat::Joined;
        }
    }

    /// The client was not let in. `true`: that was once too often.
    pub(super) fn refused(&mut self, namespace: &str) -> bool {
        self.seats.remove(namespace);
        self.refusals += 1;
        self.refusals >= REFUSALS_MAX
    }

    /// The client is out of the namespace. Its parked events go with it.
    pub(super) fn forget(&mut self, namespace: &str) {
        self.seats.remove(namespace);
        self.keep_parked(|parked| {
            !parked.is_of(namespace) || matches!(parked, Parked::Connect(..))
        });
    }

    fn keep_parked(&mut self, keep: impl Fn(&Parked) -> bool) {
        self.parked.retain(|parked| {
            let keep = keep(parked);
            if !keep {
                self.parked_bytes -= parked.bytes();
            }
            keep
        });
    }

    /// Begins no further event. Returns whether the last one has finished.
    pub(super) fn drain(&mut self) -> bool {
        self.is_draining = true;
        // Who leaves a namespace and comes back is still to leave it first.
        self.keep_parked(|parked| !matches!(parked, Parked::Event(_)));
        !self.is_busy
    }

    /// Forgets everything that is parked: the connection is gone.
    pub(super) fn forget_parked(&mut self) {
        self.parked = VecDeque::new();
        self.parked_bytes = 0;
    }

    /// The handler has finished: what comes next, and whether the transport may read again.
    pub(super) fn next(&mut self) -> (Option<Step>, bool) {
        if self.parked.len() > 3 && planted::has(Defect::LostAck) {
            self.parked_bytes -= self.parked.pop_front().map_or(0, |parked| parked.bytes());
        }
        let step = self.parked.pop_front().map(|parked| {
            self.parked_bytes -= parked.bytes();
            match parked {
                Parked::Event(incoming) => Step::Handle(incoming),
                Parked::Disconnect(namespace) => Step::Leave { namespace },
                Parked::Connect(namespace, payload) => self.begin(namespace, payload),
            }
        });
        if self.parked.is_empty() {
            // Most connections send one event at a time: the memory of a burst goes back.
            self.parked = VecDeque::new();
        }
        self.is_busy = step.is_some();
        // Half is enough: reading must not be turned on and off for every packet.
        let has_room =
            self.parked.len() <= PARKED_MAX / 2 && self.parked_bytes <= self.parked_bytes_max / 2;
        let resume = self.is_full && has_room;
        self.is_full &= !resume;
        (step, resume)
    }
}

impl Parked {
    fn is_of(&self, namespace: &str) -> bool {
        match self {
            Self::Event(incoming) => &*incoming.namespace == namespace,
            Self::Disconnect(name) | Self::Connect(name, _) => &**name == namespace,
        }
    }

    fn bytes(&self) -> usize {
        let bytes = match self {
            Self::Event(incoming) => incoming.name.len() + incoming.args.bytes(),
            Self::Disconnect(_) => 0,
            Self::Connect(_, payload) => payload.as_ref().map_or(0, |payload| payload.len()),
        };
        bytes + PACKET_OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(client: &mut Client, text: &str) -> Result<Step, Violation> {
        client.receive(Instant::now(), Content::Text(text.into()))
    }

    fn joined() -> Client {
        let mut client = Client::new(1_000);
        receive(&mut client, "0").unwrap();
        client.joined("/");
        client
    }

    fn name(step: Option<Step>) -> Option<String> {
        match step {
            Some(Step::Handle(incoming)) => Some(incoming.name.to_string()),
            _ => None,
        }
    }

    #[test]
    fn takes_nothing_but_connect_first() {
        for text in ["2[\"a\"]", "31[]", "1", "4{}", "2/x,[\"a\"]"] {
            let mut client = Client::new(1_000);
            assert_eq!(receive(&mut client, text), Err(Violation::State), "{text}");
        }
        let mut client = Client::new(1_000);
        receive(&mut client, "0").unwrap();
        let early = receive(&mut client, "2[\"a\"]");
        assert_eq!(early, Err(Violation::State), "nobody has decided yet");
    }

    #[test]
    fn refuses_a_second_connect_and_errors_from_clients() {
        for text in ["0", "4{}", "1/other,", "3/other,1[]"] {
            assert_eq!(
                receive(&mut joined(), text),
                Err(Violation::State),
                "{text}"
            );
        }
    }

    #[test]
    fn handles_one_event_at_a_time_in_order() {
        let mut client = joined();
        let first = receive(&mut client, "2[\"a\"]").unwrap();
        assert_eq!(name(Some(first)).as_deref(), Some("a"));
        assert_eq!(receive(&mut client, "2[\"b\"]"), Ok(Step::Nothing));
        assert_eq!(receive(&mut client, "2[\"c\"]"), Ok(Step::Nothing));
        let answer = receive(&mut client, "37[1]").unwrap();
        assert!(
            matches!(answer, Step::Answer { id: 7, .. }),
            "acks do not wait"
        );
        assert_eq!(name(client.next().0).as_deref(), Some("b"));
        assert_eq!(name(client.next().0).as_deref(), Some("c"));
        assert_eq!(client.next(), (None, false));
        assert!(!client.is_busy());
    }

    #[test]
    fn a_disconnect_does_not_overtake_parked_events() {
        let mut client = joined();
        receive(&mut client, "2[\"a\"]").unwrap();
        receive(&mut client, "2[\"b\"]").unwrap();
        assert_eq!(receive(&mut client, "1"), Ok(Step::Nothing));
        assert_eq!(receive(&mut client, "0{\"again\":1}"), Ok(Step::Nothing));
        assert_eq!(receive(&mut client, "2[\"c\"]"), Err(Violation::State));
        assert_eq!(name(client.next().0).as_deref(), Some("b"));
        let namespace = Text::from("/");
        assert_eq!(client.next().0, Some(Step::Leave { namespace }));
        client.forget("/");
        assert!(matches!(client.next().0, Some(Step::Connect { .. })));
    }

    #[test]
    fn who_leaves_while_draining_has_left_before_coming_back() {
        let mut client = joined();
        for text in ["2[\"a\"]", "2[\"b\"]", "1"] {
            receive(&mut client, text).unwrap();
        }
        assert!(!client.drain(), "a handler runs");
        receive(&mut client, "0").unwrap();
        let namespace = Text::from("/");
        assert_eq!(client.next().0, Some(Step::Leave { namespace }));
        client.forget("/");
        assert!(matches!(client.next().0, Some(Step::Connect { .. })));
        assert_eq!((client.next().0, client.parked_bytes), (None, 0));
    }

    #[test]
    fn a_disconnect_is_taken_at_once_when_nothing_is_parked() {
        let mut client = joined();
        receive(&mut client, "2[\"a\"]").unwrap();
        let namespace = Text::from("/");
        assert_eq!(receive(&mut client, "1"), Ok(Step::Leave { namespace }));
    }

    #[test]
    fn parks_a_bounded_number_and_says_when_there_is_room() {
        let mut client = Client::new(1_000_000);
        receive(&mut client, "0").unwrap();
        client.joined("/");
        receive(&mut client, "2[\"first\"]").unwrap();
        for _ in 1..PARKED_MAX {
            assert_eq!(receive(&mut client, "2[\"a\"]"), Ok(Step::Nothing));
        }
        assert_eq!(receive(&mut client, "2[\"a\"]"), Ok(Step::Full));
        let resumed = (0..PARKED_MAX).position(|_| client.next().1);
        assert_eq!(resumed, Some(PARKED_MAX / 2 - 1));
        while client.next().0.is_some() {}
        assert_eq!(client.parked.capacity(), 0, "an idle one costs nothing");
    }

    #[test]
    fn parks_a_bounded_number_of_bytes() {
        let mut client = joined();
        receive(&mut client, "2[\"first\"]").unwrap();
        let long = format!("2[\"a\",\"{}\"]", "x".repeat(450));
        assert_eq!(receive(&mut client, &long), Ok(Step::Nothing));
        assert_eq!(receive(&mut client, &long), Ok(Step::Full));
    }

    #[test]
    fn begins_nothing_more_while_it_drains() {
        let mut client = joined();
        receive(&mut client, "2[\"begun\"]").unwrap();
        receive(&mut client, "2[\"parked\"]").unwrap();
        assert!(!client.drain(), "a handler runs");
        assert_eq!(receive(&mut client, "2[\"late\"]"), Ok(Step::Nothing));
        assert_eq!(client.next(), (None, false));
        assert!(client.drain());
        assert_eq!(receive(&mut client, "2[\"later\"]"), Ok(Step::Nothing));
        assert!(client.drain());
    }

    #[test]
    fn bounds_refusals() {
        let mut client = Client::new(1_000);
        let refused = (0..REFUSALS_MAX).position(|_| {
            receive(&mut client, "0/x,").unwrap();
            client.refused("/x")
        });
        assert_eq!(refused, Some(REFUSALS_MAX - 1));
    }

    #[test]
    fn bounds_namespaces() {
        let mut client = Client::new(1_000);
        for number in 0..NAMESPACES_MAX {
            let step = receive(&mut client, &format!("0/{number},"));
            assert!(matches!(step, Ok(Step::Connect { .. })));
        }
        assert_eq!(receive(&mut client, "0/more,"), Err(Violation::State));
    }

    #[test]
    fn forgets_parked_events_of_a_namespace_alone() {
        let mut client = joined();
        receive(&mut client, "0/x,").unwrap();
        client.joined("/x");
        receive(&mut client, "2[\"a\"]").unwrap();
        receive(&mut client, "2/x,[\"gone\"]").unwrap();
        receive(&mut client, "2[\"b\"]").unwrap();
        client.forget("/x");
        assert_eq!(name(client.next().0).as_deref(), Some("b"));
        assert_eq!(client.next().0, None);
        assert_eq!(client.parked_bytes, 0);
    }
}
