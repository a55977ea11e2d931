//! Responses, and the bytes of their heads.

use std::borrow::Cow;

use bytes::Bytes;

/// An answer, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Field lines beside those that every answer has.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub body: Bytes,
    /// Whether the connection ends with this answer.
    pub close: bool,
    /// Whether the body may be compressed for a client that takes it.
    pub compress: bool,
}

impl Response {
    /// An answer with no body and no fields.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Bytes::new(),
            close: false,
            compress: true,
        }
    }

    /// An answer with a body of this media type.
    #[must_use]
    pub fn with_body(status: u16, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            ..Self::new(status).field("Content-Type", media_type)
        }
    }

    /// An answer in JSON.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self::with_body(status, "application/json", body)
    }

    /// The one shape of errors: `{"error":{"code":…,"message":…}}`.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"error": {"code": code, "message": message}});
        Self::json(status, body.to_string())
    }

    /// One more field line.
    ///
    /// # Panics
    /// When a value made by this program would break out of its line.
    #[must_use]
    pub fn field(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let value = value.into();
        assert!(
            !value.bytes().any(|byte| byte.is_ascii_control()),
            "field values hold no control characters"
        );
        self.fields.push((name, value));
        self
    }

    /// The same answer, after which the connection ends.
    #[must_use]
    pub fn closing(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }
}

/// What the writer of an answer knows beside the answer itself.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Whether the request came as HTTP/1.0.
    pub http_1_0: bool,
    /// Whether the body stays away, since the request was HEAD.
    pub head_only: bool,
    /// Whether the connection ends with this answer.
    pub close: bool,
    /// Whole field lines that every answer has, each with its CRLF.
    pub common: &'a str,
}

impl Response {
    /// The bytes of the answer.
    #[must_use]
    pub fn encode(&self, context: Context<'_>) -> Vec<u8> {
        let body = if context.head_only {
            &[][..]
        } else {
            &self.body
        };
        let mut bytes = Vec::with_capacity(256 + context.common.len() + body.len());
        let line = |bytes: &mut Vec<u8>, parts: [&str; 4]| {
            for part in parts {
                bytes.extend_from_slice(part.as_bytes());
            }
        };
        let status = self.status.to_string();
        line(
            &mut bytes,
            ["HTTP/1.1 ", &status, " ", reason_phrase(self.status)],
        );
        bytes.extend_from_slice(b"\r\n");
        for (name, value) in &self.fields {
            line(&mut bytes, [name, ": ", value, "\r\n"]);
        }
        if self.status >= 200 {
            let length = self.body.len().to_string();
            line(&mut bytes, ["Content-Length", ": ", &length, "\r\n"]);
            if context.close {
                bytes.extend_from_slice(b"Connection: close\r\n");
            } else if context.http_1_0 {
                bytes.extend_from_slice(b"Connection: keep-alive\r\n");
            }
        }
        bytes.extend_from_slice(context.common.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        bytes
    }
}

/// A time as the Date field has it (RFC 9110 section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
///
/// # Panics
/// Never: a day of the week is below 7.
#[must_use]
pub fn http_date(seconds_since_1970: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, second) = (seconds_since_1970 / 86_400, seconds_since_1970 % 86_400);
    let divisible = u64::is_multiple_of;
    let leap = |year: u64| divisible(year, 4) && (!divisible(year, 100) || divisible(year, 400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 0;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = DAYS[usize::try_from(days % 7).expect("below 7")];
    let month = MONTHS[month];
    let day = day + 1;
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// The reason phrase of a status (RFC 9110 section 15).
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: &Response, context: Context<'_>) -> String {
        String::from_utf8(response.encode(context)).expect("answers are text here")
    }

    const PLAIN: Context<'_> = Context {
        http_1_0: false,
        head_only: false,
        close: false,
        common: "X-All: 1\r\n",
    };

    #[test]
    fn an_answer_has_its_fields_its_length_and_those_of_every_answer() {
        let response = Response::with_body(200, "text/plain", "hello").field("A", "b");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nA: b\r\nContent-Length: 5\r\n";
        assert_eq!(
            encoded(&response, PLAIN),
            format!("{head}X-All: 1\r\n\r\nhello")
        );
        let context = Context {
            head_only: true,
            ..PLAIN
        };
        assert_eq!(
            encoded(&response, context),
            format!("{head}X-All: 1\r\n\r\n")
        );
        let context = Context {
            close: true,
            ..PLAIN
        };
        assert!(encoded(&response, context).contains("\r\nConnection: close\r\n"));
        let context = Context {
            http_1_0: true,
            ..PLAIN
        };
        assert!(encoded(&response, context).contains("\r\nConnection: keep-alive\r\n"));
    }

    #[test]
    fn an_error_is_json_whatever_its_message_holds() {
        let response = Response::error(400, "invalid_payload", "\"\n");
        let body = r#"{"error":{"code":"invalid_payload","message":"\"\n"}}"#;
        assert_eq!(response.body, body);
    }

    #[test]
    #[should_panic(expected = "no control characters")]
    fn a_field_value_cannot_break_out_of_its_line() {
        let _ = Response::new(200).field("A", "b\r\nC: d");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(1_798_761_599), "Thu, 31 Dec 2026 23:59:59 GMT");
        assert_eq!(http_date(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    }
}
