//! The servers by their names.

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ours,
    Node,
    Uws,
    Bun,
    Socketioxide,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Ours,
        Self::Node,
        Self::Uws,
        Self::Bun,
        Self::Socketioxide,
    ];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Node => "node",
            Self::Uws => "uws",
            Self::Bun => "bun",
            Self::Socketioxide => "socketioxide",
        }
    }

    /// The name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ours => "project-yum",
            Self::Node => "Node + Socket.IO",
            Self::Uws => "Socket.IO on uWebSockets.js",
            Self::Bun => "Bun",
            Self::Socketioxide => "socketioxide",
        }
    }

    pub(crate) fn label(self, shards: usize) -> String {
        match self {
            Self::Ours => format!("ours, SHARDS={shards}"),
            _ => self.name().to_owned(),
        }
    }
}
