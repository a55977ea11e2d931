//! Opens the store that the settings name, once for the process.

use std::rc::Rc;

use super::ServerError;
use crate::config::Database;
use crate::store::memory::MemoryStore;
use crate::store::postgres::{self, PostgresStore, Target};
use crate::store::sqlite::SqliteStore;
use crate::store::{SharedStore, Store as _};

/// The process's one store, before each shard takes its handle.
#[derive(Clone)]
pub(super) enum OpenStore {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
    Memory(MemoryStore),
}

impl OpenStore {
    /// Brings the database up to date and opens it; also says what each shard has to begin for it.
    pub(super) fn open(
        database: &Database,
        replicas: &[Target],
        shards: usize,
    ) -> Result<(Self, Vec<postgres::Seat>), ServerError> {
        let store = match database {
            Database::Sqlite(path) => SqliteStore::open(path)
                .map(Self::Sqlite)
                .map_err(|error| ServerError::Store(path.display().to_string(), error))?,
            Database::Postgres(target) => {
                for step in PostgresStore::migrate(target)? {
                    tracing::info!(step, "brought the database up to date");
                }
                let (store, seats) =
                    PostgresStore::with_replicas(Target::clone(target), replicas, shards)
                        .map_err(ServerError::Thread)?;
                return Ok((Self::Postgres(store), seats));
            }
            Database::Memory => {
                tracing::warn!("messages are kept in memory: nothing is durable");
                Self::Memory(MemoryStore::new())
            }
        };
        let seats = (0..shards).map(|_| postgres::Seat::default()).collect();
        Ok((store, seats))
    }

    /// A shard's own handle.
    pub(super) fn handle(self) -> SharedStore {
        match self {
            Self::Sqlite(store) => Rc::new(store),
            Self::Postgres(store) => Rc::new(store.handle()),
            Self::Memory(store) => Rc::new(store),
        }
    }

    /// Its short name.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(store) => store.kind(),
            Self::Postgres(store) => store.kind(),
            Self::Memory(store) => store.kind(),
        }
    }
}
