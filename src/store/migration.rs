//! The steps that bring a database to what this version knows.
//!
//! Each is a file under `migrations/`, numbered from 1 without gaps and never changed once it is
//! released. Within a minor version they only add, so that an old and a new server can share a
//! database while one replaces the other.

/// One step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// The file's name without `.sql`.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) sql: &'static str,
}

/// A database that a later version of the program has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database has schema version {found}, this program knows versions up to {known}: \
     run the version of the program that made it, or a later one"
)]
pub struct Newer {
    /// The database's version.
    pub found: usize,
    /// The newest version that this program knows.
    pub known: usize,
}

/// What a database of version `found` lacks, in the order of doing.
pub(super) fn pending(
    all: &'static [Migration],
    found: usize,
) -> Result<&'static [Migration], Newer> {
    all.get(found..).ok_or(Newer {
        found,
        known: all.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[Migration] = &[
        Migration {
            name: "0001_one",
            sql: "",
        },
        Migration {
            name: "0002_two",
            sql: "",
        },
    ];

    #[test]
    fn lists_what_is_lacking_and_refuses_what_is_newer() {
        let names = |found| pending(TWO, found).map(|all| all.iter().map(|one| one.name).collect());
        assert_eq!(names(0), Ok(vec!["0001_one", "0002_two"]));
        assert_eq!(names(1), Ok(vec!["0002_two"]));
        assert_eq!(names(2), Ok(vec![]));
        assert_eq!(names(3), Err(Newer { found: 3, known: 2 }));
    }
}
