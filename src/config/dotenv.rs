//! Reads `.env`: `NAME=value` a line, in the grammar of the crate `dotenvy`.
//!
//! That crate puts no bound to what names in values become: `B=$A$A`, then `C=$B$B`, and thirty lines are
//! gigabytes. Here all values together are bounded, and what a name stands for is given by the caller.

use super::Problem;
use super::sources::{PROBLEMS_MAX, Vars};

/// Bytes of all values together, with what their names stand for.
pub(super) const VALUES_BYTES_MAX: usize = 64 << 10;

/// Why a line is not taken. Its text is never shown: it may hold a secret.
enum Wrong {
    Syntax,
    TooLarge,
}

/// Reads names and values. A name in a value stands for the variable in `env`, or else for the value of a line
/// before.
pub(super) fn parse(text: &str, env: &Vars, problems: &mut Vec<Problem>) -> Vars {
    let mut vars = Vars::new();
    let mut room = VALUES_BYTES_MAX;
    let lines = Lines {
        rest: text,
        number: 1,
    };
    for (number, line) in lines {
        let known = |name: &str| env.get(name).or_else(|| vars.get(name));
        match line.ok_or(Wrong::Syntax).and_then(entry) {
            Ok(None) => {}
            Ok(Some((name, written))) => match value(written, known, &mut room) {
                Ok(value) => {
                    vars.insert(name.to_owned(), value);
                }
                Err(wrong) => problems.push(wrong.at(number)),
            },
            Err(wrong) => problems.push(wrong.at(number)),
        }
        if room == 0 || problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    vars
}

impl Wrong {
    fn at(&self, line: usize) -> Problem {
        let text = match self {
            Self::Syntax => format!("line {line} is not NAME=value"),
            Self::TooLarge => {
                format!("up to line {line} the values are longer than {VALUES_BYTES_MAX} bytes")
            }
        };
        Problem::new(".env", text)
    }
}

/// Lines with their numbers; what is in quotes may go on over several. `None`: it does not end.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = self.number;
        let (line, length) = cut(self.rest);
        let (taken, rest) = self.rest.split_at(length);
        self.number += taken.matches('\n').count();
        self.rest = rest;
        Some((number, line))
    }
}

/// Where a line is, to see whether it ends at a line end.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Plain,
    /// Behind a blank, where a comment may begin.
    Space,
    Escaped,
    Quoted(char),
    QuotedEscaped(char),
}

/// The first line without its comment, and how many bytes it takes with it.
fn cut(text: &str) -> (Option<&str>, usize) {
    let end_behind = |at: usize| text[at..].find('\n').map_or(text.len(), |end| at + end + 1);
    let first = &text[..end_behind(0)];
    if first.trim_start().starts_with('#') {
        return (Some(""), first.len());
    }
    let mut place = Place::Plain;
    for (at, c) in text.char_indices() {
        place = match (place, c) {
            (Place::Space, '#') => return (Some(&text[..at]), end_behind(at)),
            (Place::Escaped, _) => Place::Plain,
            (Place::Quoted(quote), '\\') => Place::QuotedEscaped(quote),
            (Place::Quoted(quote), _) if c == quote => Place::Plain,
            (Place::Quoted(quote) | Place::QuotedEscaped(quote), _) => Place::Quoted(quote),
            (_, '\\') => Place::Escaped,
            (_, '"' | '\'') => Place::Quoted(c),
            (_, '\n' | '\r') => Place::Plain,
            (_, _) if c.is_whitespace() => Place::Space,
            (_, _) => Place::Plain,
        };
        if c == '\n' && place == Place::Plain {
            return (Some(&text[..at]), at + 1);
        }
    }
    let is_whole = matches!(place, Place::Plain | Place::Space);
    (is_whole.then_some(text), text.len())
}

/// A line's name and its value as it is written; `None` where there is none.
fn entry(line: &str) -> Result<Option<(&str, &str)>, Wrong> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (mut name, mut rest) = name(line)?;
    // `export` stands before a name, or is one itself.
    if name == "export" && !rest.starts_with('=') {
        (name, rest) = self::name(rest)?;
    }
    let written = rest.strip_prefix('=').ok_or(Wrong::Syntax)?.trim_start();
    let is_comment = written.starts_with('#');
    Ok(Some((name, if is_comment { "" } else { written })))
}

/// The name that a text begins with, and what is behind it and its blanks.
fn name(text: &str) -> Result<(&str, &str), Wrong> {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err(Wrong::Syntax);
    }
    let is_other = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.');
    let (name, rest) = text.split_at(text.find(is_other).unwrap_or(text.len()));
    Ok((name, rest.trim_start()))
}

/// What a [`Value`] reads next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Text,
    /// Behind a backslash.
    Escaped,
    /// A name behind `$`.
    Name,
    /// A name behind `${`.
    Braced,
    /// A comment, or nothing.
    End,
}

/// A value, read one character at a time.
struct Value<'a, F> {
    text: String,
    /// Bytes that it may still have.
    room: &'a mut usize,
    next: Next,
    quote: Option<char>,
    name: String,
    known: F,
}

/// What a value means as it is written; its bytes are taken from `room`.
fn value<'a>(
    written: &str,
    known: impl Fn(&str) -> Option<&'a String>,
    room: &mut usize,
) -> Result<String, Wrong> {
    let mut value = Value {
        text: String::new(),
        room,
        next: Next::Text,
        quote: None,
        name: String::new(),
        known,
    };
    for c in written.chars() {
        if value.next == Next::End && c == '#' {
            break;
        }
        value.next = value.take(c)?;
    }
    if value.next == Next::Braced || value.quote.is_some() {
        return Err(Wrong::Syntax);
    }
    value.push_named()?;
    Ok(value.text)
}

impl<'a, F: Fn(&str) -> Option<&'a String>> Value<'_, F> {
    fn take(&mut self, c: char) -> Result<Next, Wrong> {
        match (self.next, c) {
            (Next::Text, _) => return self.take_text(c),
            (Next::End, ' ' | '\t') => return Ok(Next::End),
            (Next::Escaped, 'n') => self.push('\n')?,
            (Next::Escaped, '\\' | '\'' | '"' | '$' | ' ') => self.push(c)?,
            (Next::End | Next::Escaped, _) => return Err(Wrong::Syntax),
            (Next::Name, '{') if self.name.is_empty() => return Ok(Next::Braced),
            (Next::Braced, '}') => self.push_named()?,
            (Next::Name, _) if !c.is_alphanumeric() => {
                self.push_named()?;
                match c {
                    '$' => return Ok(Next::Name),
                    '"' if self.quote.is_some() => self.quote = None,
                    _ => self.push(c)?,
                }
            }
            (Next::Name | Next::Braced, _) => {
                self.name.push(c);
                return Ok(self.next);
            }
        }
        Ok(Next::Text)
    }

    fn take_text(&mut self, c: char) -> Result<Next, Wrong> {
        match (self.quote, c) {
            (Some(quote), _) if c == quote => self.quote = None,
            (Some('\''), _) => self.push(c)?,
            (_, '$') => return Ok(Next::Name),
            (_, '\\') => return Ok(Next::Escaped),
            (None, '\'' | '"') => self.quote = Some(c),
            (None, ' ' | '\t') => return Ok(Next::End),
            _ => self.push(c)?,
        }
        Ok(Next::Text)
    }

    fn push(&mut self, c: char) -> Result<(), Wrong> {
        self.push_str(c.encode_utf8(&mut [0; 4]))
    }

    fn push_str(&mut self, text: &str) -> Result<(), Wrong> {
        let left = self.room.checked_sub(text.len());
        *self.room = left.unwrap_or(0);
        left.ok_or(Wrong::TooLarge)?;
        self.text.push_str(text);
        Ok(())
    }

    /// Appends what the name stands for that was read; nothing, if nothing is known of it.
    fn push_named(&mut self) -> Result<(), Wrong> {
        let name = std::mem::take(&mut self.name);
        match (self.known)(&name) {
            Some(value) => self.push_str(value),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vars, Vec<String>> {
        let mut problems = Vec::new();
        let env = Vars::from([("FROM_ENV".to_owned(), "env".to_owned())]);
        let vars = parse(text, &env, &mut problems);
        let texts = problems.into_iter().map(|problem| problem.message);
        let texts: Vec<_> = texts.collect();
        if texts.is_empty() {
            Ok(vars)
        } else {
            Err(texts)
        }
    }

    #[test]
    fn reads_what_people_write() {
        let text = "\u{20}# a comment with a quote: it's\n\nA=1\r\nexport B = \"two words\" # of a shell\n\
             C='$A'\nD=${A}${FROM_ENV}$NOBODY\nE=\"x\\n\\$A\"\nF=\"of\ntwo lines\"\nG=a\\ b  # it's\n\
             export=itself\nFROM_ENV=file\nH=\nI= # nothing\nJ=\"$A\"\nK=x#y ";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "$A"),
            ("D", "1env"),
            ("E", "x\n$A"),
            ("F", "of\ntwo lines"),
            ("G", "a b"),
            ("export", "itself"),
            ("FROM_ENV", "file"),
            ("H", ""),
            ("I", ""),
            ("J", "1"),
            ("K", "x#y"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read(text), Ok(Vars::from(expected)));
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        let wrong = |line: usize| format!("line {line} is not NAME=value");
        for text in [
            "A=1\nsecret\nB=2",
            "A=\"\nx\"\n=secret".trim_end(),
            "A=1\n1B=secret",
            "A=1\nB=secret secret",
            "A=1\nB=\\s",
            "A=1\nB=${secret",
            "A=1\nB='secret",
        ] {
            let line = if text.starts_with("A=\"") { 3 } else { 2 };
            assert_eq!(read(text), Err(vec![wrong(line)]), "{text}");
        }
        let many = read(&"?\n".repeat(2 * PROBLEMS_MAX)).unwrap_err();
        assert_eq!(many.len(), PROBLEMS_MAX);
    }

    #[test]
    fn names_do_not_multiply_beyond_the_bound() {
        let doubling: Vec<_> = (1..60)
            .map(|n| format!("A{n}=$A{0}$A{0}\n", n - 1))
            .collect();
        let text = format!("A0=0123456789abcdef\n{}", doubling.concat());
        let problems = read(&text).unwrap_err();
        assert_eq!(
            problems,
            ["up to line 13 the values are longer than 65536 bytes"]
        );
    }

    /// Lines that people might write, of parts that `dotenvy` takes and of some that it refuses.
    fn any_line() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-z0-9.:/=-]{0,8}",
            "'[a-z \"#$]{0,8}'",
            "\"[a-z '#]{0,8}\"",
            Just("\"a\nb\"".to_owned()),
            "[$]\\{[a-e]{0,2}\\}",
            "[$][a-e]{0,2}",
            "\\\\[\\\\'\"$ n]",
            "\\\\[a-m]",
        ];
        let value = proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat());
        let end = prop_oneof![
            Just(""),
            Just(" "),
            Just(" # comment"),
            Just("\r"),
            Just(" more")
        ];
        let line = ("(export )?[a-e]{1,2}", "( )?=( )?", value, end)
            .prop_map(|(name, sign, value, end)| format!("{name}{sign}{value}{end}"));
        prop_oneof![8 => line, 1 => Just(String::new()), 1 => "#[a-z]{0,5}", 1 => "[a-e ?]{1,5}"]
    }

    proptest! {
        #[test]
        fn reads_all_that_the_crate_reads(lines in proptest::collection::vec(any_line(), 0..8)) {
            let text = lines.join("\n") + "\n";
            let theirs: Result<Vars, _> = dotenvy::from_read_iter(text.as_bytes()).collect();
            if let Ok(theirs) = theirs {
                prop_assert_eq!(read(&text), Ok(theirs));
            }
        }

        #[test]
        fn any_text_is_taken_without_a_panic(text in "[A-C=$#{}'\" \\\\\r\né]{0,60}") {
            let _ = read(&text);
        }
    }
}
