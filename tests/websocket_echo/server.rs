//! The WebSocket layer alone: an echo server for the Autobahn test suite (`tests/autobahn/run`).
//!
//! What it shares with the server: request heads, the opening handshake, the reader with its look at
//! the frame heads and its bounds, encoded frames, close codes. It listens on `HOST:PORT`
//! (127.0.0.1:9001; port 0 is a free one) and says so in its first line.

use std::fmt::Display;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};

use async_tungstenite::tungstenite::Message;
use bytes::BytesMut;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Stream as _};
use futures_util::FutureExt as _;
use glommio::net::{TcpListener, TcpStream};
use project_yum::net::frames::{self, Reader};
use project_yum::server::executor;
use project_yum::wire::engine_io::Encoded;
use project_yum::wire::http::HeadReader;
use project_yum::wire::{frame, websocket};

/// Bytes of one message. The suite sends up to 16 MiB in its cases 9.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let executor = executor::builder(0, None).make().map_err(other)?;
    executor.run(async {
        let host = variable("HOST", IpAddr::from(Ipv4Addr::LOCALHOST))?;
        let address = SocketAddr::new(host, variable("PORT", 9001)?);
        let listener = TcpListener::bind(address).map_err(other)?;
        let address = listener.local_addr().map_err(other)?;
        writeln!(io::stdout(), "listening on {address}")?;
        loop {
            let stream = listener.accept().await.map_err(other)?;
            glommio::spawn_local(serve(stream).map(drop)).detach();
        }
    })
}

fn other(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> io::Result<T> {
    let Ok(value) = std::env::var(name) else {
        return Ok(default);
    };
    value
        .parse()
        .map_err(|_| io::Error::other(format!("{name}={value} cannot be")))
}

/// Serves one connection to its end.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut reader = HeadReader::default();
    let head = loop {
        match reader.read(&mut buffer) {
            Ok(Some(head)) => break head,
            Ok(None) => {}
            Err(error) => return refuse(stream, error.status()).await,
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    };
    let accept = match websocket::accept(&head) {
        Ok(accept) => accept,
        Err(error) => return refuse(stream, error.status()).await,
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let control = Vec::new();
    echo(Client {
        buffer,
        control,
        stream,
    })
    .await
}

async fn refuse(mut stream: TcpStream, status: u16) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status} Refused\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await
}

/// Sends every message back, then says good-bye.
async fn echo(client: Client) -> io::Result<()> {
    let mut reader = frames::reader(client, MESSAGE_BYTES_MAX);
    let code = loop {
        let next = poll_fn(|cx| match Pin::new(&mut reader).poll_next(cx) {
            // The library has something to say, a pong.
            Poll::Pending if !client_of(&mut reader).control.is_empty() => Poll::Ready(None),
            next => next.map(Some),
        })
        .await;
        client_of(&mut reader).send_control().await?;
        let message = match next {
            None => continue,
            Some(None) => return Ok(()),
            Some(Some(Ok(message))) => message,
            Some(Some(Err(error))) => match frames::Failure::of(&error) {
                frames::Failure::Violation(code) => break Some(code),
                frames::Failure::Closed | frames::Failure::Io => return Ok(()),
            },
        };
        let frame = match &message {
            Message::Text(text) => text_frame(text),
            Message::Binary(bytes) => Encoded::binary(bytes).frame().clone(),
            Message::Close(close) => break close.as_ref().map(|close| close.code.into()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        client_of(&mut reader).stream.write_all(&frame).await?;
        if reader.get_ref().is_grown() {
            let client = reader.into_inner().into_inner();
            reader = frames::reader(client, MESSAGE_BYTES_MAX);
        }
    };
    let mut stream = reader.into_inner().into_inner().stream;
    stream.write_all(&frame::close(code)).await?;
    stream.shutdown(Shutdown::Write).await.map_err(other)?;
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

fn client_of(reader: &mut Reader<Client>) -> &mut Client {
    reader.get_mut().stream()
}

/// A text frame. An encoded packet begins with a type character: here that is the text's own first.
fn text_frame(text: &str) -> bytes::Bytes {
    let mut rest = text.chars();
    match rest.next() {
        Some(first) => Encoded::text(first, rest.as_str()).frame().clone(),
        None => bytes::Bytes::from_static(b"\x81\0"),
    }
}

/// A connection, of which some bytes were read already. It has one writer, which is not the library:
/// what that writes waits in `control`.
struct Client {
    buffer: BytesMut,
    control: Vec<u8>,
    stream: TcpStream,
}

impl Client {
    async fn send_control(&mut self) -> io::Result<()> {
        let control = std::mem::take(&mut self.control);
        self.stream.write_all(&control).await
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, bytes);
        }
        let count = self.buffer.len().min(bytes.len());
        bytes[..count].copy_from_slice(&self.buffer.split_to(count));
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.control.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
