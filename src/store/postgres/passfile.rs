//! PostgreSQL's password file (`.pgpass`): lines of `host:port:database:user:password`. Pure.

/// What is connected to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password of the first line that fits; a field `*` fits everything.
pub(super) fn password(file: &str, asked: Asked<'_>) -> Option<String> {
    let wanted = [
        asked.host.to_owned(),
        asked.port.to_string(),
        asked.database.to_owned(),
        asked.user.to_owned(),
    ];
    file.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let mut fields = fields(line);
            let password = (fields.len() == 5).then(|| fields.pop())??;
            let fits = fields
                .iter()
                .zip(&wanted)
                .all(|(field, wanted)| field == "*" || field == wanted);
            fits.then_some(password)
        })
}

/// The fields of a line. A backslash takes the next character as it is; the last field has the rest.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(mut character) = characters.next() {
        if character == ':' && fields.len() < 5 {
            fields.push(String::new());
            continue;
        }
        if character == '\\' {
            character = characters.next().unwrap_or('\\');
        }
        if let Some(field) = fields.last_mut() {
            field.push(character);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let file = "# a comment\n\
            db:5432:other:ann:no\n\
            broken line\n\
            db:5432:chat:ann:se\\:cr:et\\\\\n\
            *:*:*:ann:later\n\
            /run/pg:*:*:*:local";
        let asked = Asked {
            host: "db",
            port: 5432,
            database: "chat",
            user: "ann",
        };
        assert_eq!(password(file, asked).as_deref(), Some("se:cr:et\\"));
        assert_eq!(
            password(file, Asked { port: 1, ..asked }).as_deref(),
            Some("later")
        );
        assert_eq!(
            password(
                file,
                Asked {
                    user: "bob",
                    ..asked
                }
            ),
            None
        );
        let local = Asked {
            host: "/run/pg",
            user: "bob",
            ..asked
        };
        assert_eq!(password(file, local).as_deref(), Some("local"));
    }
}
