//! The words that sessions and those around them share: handshakes, transports, outcomes, refusals, the reasons
//! of an end.

use std::net::IpAddr;

use super::Flow;

/// How a session's packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// One WebSocket.
    WebSocket,
}

impl Transport {
    /// The name in the query and for applications.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// Why a session, or a socket on it, ended, as an application is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer closed, or sent packet `1`.
    TransportClose,
    /// The peer broke the rules of its transport, or the connection failed.
    TransportError,
    /// No pong in time.
    PingTimeout,
    /// A packet could not be read.
    ParseError,
    /// We closed it at the Engine.IO level.
    ForcedClose,
    /// The client left the namespace.
    ClientNamespaceDisconnect,
    /// We put the client out of the namespace.
    ServerNamespaceDisconnect,
    /// We closed it: no namespace was joined in time, or the client broke the state machine.
    ForcedServerClose,
    /// The server is stopping.
    ServerShuttingDown,
    /// Its unsent output went over the bound.
    SlowConsumer,
}

impl CloseReason {
    /// The reason in Socket.IO's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport close",
            // Socket.IO has no word for a slow consumer.
            Self::TransportError | Self::SlowConsumer => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
            Self::ForcedServerClose => "forced server close",
            Self::ServerShuttingDown => "server shutting down",
        }
    }

    /// Whether what is queued is still sent, and a close packet after it.
    pub(super) fn is_graceful(self) -> bool {
        match self {
            Self::TransportClose
            | Self::TransportError
            | Self::PingTimeout
            | Self::ParseError
            | Self::SlowConsumer => false,
            Self::ForcedClose
            | Self::ClientNamespaceDisconnect
            | Self::ServerNamespaceDisconnect
            | Self::ForcedServerClose
            | Self::ServerShuttingDown => true,
        }
    }

    /// The reason as a metric's label: one for each cause.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TransportClose => "transport_close",
            Self::TransportError => "transport_error",
            Self::PingTimeout => "ping_timeout",
            Self::ParseError => "parse_error",
            Self::ForcedClose => "forced_close",
            Self::ClientNamespaceDisconnect => "client_namespace_disconnect",
            Self::ServerNamespaceDisconnect => "server_namespace_disconnect",
            Self::ForcedServerClose => "forced_server_close",
            Self::ServerShuttingDown => "server_shutting_down",
            Self::SlowConsumer => "slow_consumer",
        }
    }
}

/// What the transport layer does after a packet was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Go on reading, or wait for a resume first.
    Taken(Flow),
    /// `2probe` came: answer `3probe` on the same WebSocket.
    AnswerProbe,
    /// `5` came: this WebSocket is the transport now.
    Upgraded,
    /// This WebSocket may not take over: close it. The session goes on.
    ProbeRefused,
    /// The session is closed or gone.
    Closed,
}

/// Why a request cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The session is gone: code 1.
    #[error("Session ID unknown")]
    Unknown,
    /// The session lives on another transport now: code 3.
    #[error("Bad request")]
    WrongTransport,
    /// A second GET or POST beside a pending one: the session is closed, the answer is 400.
    #[error("overlapping requests")]
    Overlap,
    /// Another upgrade is going on, or was: this WebSocket is closed, the session goes on.
    #[error("Bad request")]
    AlreadyUpgrading,
}

/// The answer of a GET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Packets, joined by U+001E.
    pub body: Vec<u8>,
    /// Whether every packet in it may be compressed.
    pub compress: bool,
}

/// The request that opened a session, as an application may see it.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Who asked: the peer, or what a trusted proxy says.
    pub address: IpAddr,
    /// Field lines of the request, names in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// The query, as it was sent.
    pub query: Box<str>,
    /// Whether the client came through TLS.
    pub secure: bool,
    /// When the request came, in milliseconds since 1970.
    pub issued_wall_ms: u64,
}

impl Handshake {
    /// The same without field lines and query.
    #[must_use]
    pub fn without_request(&self) -> Self {
        Self {
            headers: Vec::new(),
            query: Box::default(),
            ..*self
        }
    }
}
