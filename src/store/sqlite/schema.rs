//! The file: made, opened, and brought to the schema that this version knows.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::store::migration::{self, Migration, Newer};

/// How long a connection waits for another process that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// To what the write-ahead log is cut after a checkpoint.
const LOG_BYTES_KEPT: i64 = 64 << 20;
/// What marks the file as ours, as `application_id`.
const APPLICATION_ID: i64 = 0x59_75_6d_21;

const MIGRATIONS: &[Migration] = &[Migration {
    name: "0001_messages",
    sql: include_str!("../../../migrations/sqlite/0001_messages.sql"),
}];

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file could not be made.
    #[error("cannot make {path}: {error}")]
    Make {
        /// What was to be made.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// `SQLite` refuses.
    #[error("cannot open the database {path}: {error}")]
    Sqlite {
        /// The database's file.
        path: PathBuf,
        /// Why not.
        error: rusqlite::Error,
    },
    /// A later version of the program made it.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// The file holds something else.
    #[error("{0} is the database of another program")]
    Foreign(PathBuf),
    /// A thread could not be started.
    #[error("cannot start a thread of the store: {0}")]
    Thread(io::Error),
}

/// Names the file in an error.
fn at(path: &Path) -> impl Fn(rusqlite::Error) -> OpenError + '_ {
    move |error| OpenError::Sqlite {
        path: path.into(),
        error,
    }
}

/// The path of the file that a connection is to; for its errors only.
fn path_of(connection: &Connection) -> PathBuf {
    connection.path().unwrap_or_default().into()
}

fn make_missing(path: &Path) -> Result<(), OpenError> {
    if path.exists() {
        return Ok(());
    }
    let making = |path: &Path| {
        let path = path.to_path_buf();
        move |error| OpenError::Make { path, error }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(making(directory))?;
    // SQLite gives its log files the mode of the database.
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(making(path))?;
    // A file whose name is not on the disk yet is lost with the power, and everything in it.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(making(directory))
}

/// Opens, and makes when missing, the database. Every commit is on the disk before it is answered.
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, OpenError> {
    make_missing(path)?;
    reopen_for_writing(path)
}

/// Opens a database that was there before.
pub(super) fn reopen_for_writing(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(at(path))?;
    refuse_foreign(&connection)?;
    let set_up = || {
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)
    };
    set_up().map_err(at(path))?;
    Ok(connection)
}

/// Opens the database for a thread that only reads.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(at(path))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(at(path))?;
    Ok(connection)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

fn refuse_foreign(connection: &Connection) -> Result<(), OpenError> {
    let look = || {
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((tables, pragma(connection, "application_id")?))
    };
    let path = path_of(connection);
    match look().map_err(at(&path))? {
        (0, _) | (_, APPLICATION_ID) => Ok(()),
        _ => Err(OpenError::Foreign(path)),
    }
}

/// The steps that an open database lacks.
fn lacking(connection: &Connection) -> Result<&'static [Migration], OpenError> {
    let version = pragma(connection, "user_version").map_err(at(&path_of(connection)))?;
    let found = usize::try_from(version).unwrap_or(usize::MAX);
    Ok(migration::pending(MIGRATIONS, found)?)
}

/// The names of the steps that the database lacks. Changes nothing.
pub(super) fn pending(path: &Path) -> Result<Vec<&'static str>, OpenError> {
    let lacking = if path.exists() {
        let connection = open_for_reading(path)?;
        refuse_foreign(&connection)?;
        lacking(&connection)?
    } else {
        MIGRATIONS
    };
    Ok(lacking.iter().map(|one| one.name).collect())
}

/// Takes the steps that the database lacks, all or none, and returns their names.
pub(super) fn migrate(connection: &mut Connection) -> Result<Vec<&'static str>, OpenError> {
    let path = path_of(connection);
    // Taken before looking, so that two processes do not take the same step.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(at(&path))?;
    let lacking = lacking(&transaction)?;
    for step in lacking {
        transaction.execute_batch(step.sql).map_err(at(&path))?;
    }
    let finish = || {
        if !lacking.is_empty() {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
            transaction.pragma_update(None, "user_version", known)?;
        }
        transaction.commit()
    };
    finish().map_err(at(&path))?;
    Ok(lacking.iter().map(|one| one.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn makes_a_private_directory_and_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data/chat.db");
        open_for_writing(&path).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn lists_what_is_pending_without_making_anything() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("chat.db");
        assert_eq!(pending(&path).unwrap(), ["0001_messages"]);
        assert!(!path.exists());
        assert_eq!(
            migrate(&mut open_for_writing(&path).unwrap()).unwrap(),
            ["0001_messages"]
        );
        assert!(pending(&path).unwrap().is_empty());
        assert!(
            migrate(&mut open_for_writing(&path).unwrap())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn refuses_a_newer_database_and_says_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("chat.db");
        let mut connection = open_for_writing(&path).unwrap();
        migrate(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = migrate(&mut connection).unwrap_err();
        assert!(
            matches!(error, OpenError::Newer(Newer { found: 99, .. })),
            "{error}"
        );
        assert!(error.to_string().contains("version 99"), "{error}");
        assert!(matches!(pending(&path), Err(OpenError::Newer(_))));
    }

    #[test]
    fn refuses_the_database_of_another_program() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("other.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE theirs (x)")
            .unwrap();
        assert!(matches!(
            open_for_writing(&path),
            Err(OpenError::Foreign(_))
        ));
        assert!(matches!(pending(&path), Err(OpenError::Foreign(_))));
        std::fs::write(
            &path,
            "this is no database at all, but a text of some length",
        )
        .unwrap();
        assert!(matches!(
            open_for_writing(&path),
            Err(OpenError::Sqlite { .. })
        ));
    }

    #[test]
    fn syncs_every_commit() {
        let home = tempfile::tempdir().unwrap();
        let connection = open_for_writing(&home.path().join("chat.db")).unwrap();
        assert_eq!(pragma(&connection, "synchronous").unwrap(), 2);
        let mode: String = connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "wal");
    }
}
