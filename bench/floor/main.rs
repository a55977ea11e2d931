//! The floor: what the kernel asks of any server for the same traffic, beside what project-yum takes.
//!
//! ```sh
//! cargo bench --bench floor                             # every row, two rounds: ten minutes
//! cargo bench --bench floor -- --rounds 3 --only fanout,health
//! cargo bench --bench floor -- --long                   # the periods of the long comparison
//! ```
//!
//! The floor ([`chat`]) is one thread with answers that were made beforehand. It checks and keeps nothing, and
//! parses no more than the length of a frame; for a fan-out it copies the messages of a turn into one buffer
//! of the room and sends that to each member. It waits in three ways, the best of which is the floor: on
//! [`epoll`], with a system call for each socket and each direction, as the peers do; on a [`ring`] that
//! polls, with a `recv` for each socket, as project-yum does; and on a ring with a multishot receive into
//! provided buffers. On a ring all sends of a turn leave in one submission.
//!
//! All are driven in turn (A B C D A B C D), so that the machine's moods meet all of them, by the loads
//! ([`loads`]) of the comparison with the peers, which check each delivery.

#![expect(
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

mod chat;
mod epoll;
#[expect(dead_code, reason = "it is shared with the comparison")]
#[path = "../compare/loads.rs"]
mod loads;
#[path = "../compare/number.rs"]
mod number;
mod ring;
mod rows;
#[expect(dead_code, reason = "it is shared with the comparison")]
#[path = "../compare/server.rs"]
mod server;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use project_yum::load::{Faults, LoadError};
use socket2::{Domain, Protocol, Socket, Type};

use chat::Chat;
use number::number;
use ring::{Floor, Reads};
use rows::{Figures, Row};
use server::Server;

/// Who is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Epoll,
    Ring(Reads),
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Ours,
        Self::Epoll,
        Self::Ring(Reads::Poll),
        Self::Ring(Reads::Multishot),
    ];

    /// The name on the command line of the floor's own process, and in tables.
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Epoll => "epoll",
            Self::Ring(Reads::Poll) => "ring-poll",
            Self::Ring(Reads::Multishot) => "ring-multishot",
        }
    }

    fn start(self, home: &Path) -> Result<Server, LoadError> {
        let mut command = server::ours(1);
        if self != Self::Ours {
            command = Command::new(std::env::current_exe()?);
            command
                .args(["--serve", self.name()])
                .env("ANSWER", home.join("answer"));
        }
        Server::start(command.current_dir(home), &home.join("log"))
    }

    /// Serves as one of the floor's forms until it is killed, on `PORT`; `ANSWER` is a file with what
    /// `GET /health` is answered.
    fn serve(self) -> io::Result<()> {
        let value = |name| std::env::var(name).map_err(io::Error::other);
        let listener = listen(value("PORT")?.parse().map_err(io::Error::other)?)?;
        let chat = Chat::new(std::fs::read(value("ANSWER")?)?);
        match self {
            Self::Ours => Err(io::Error::other("ours is a program of its own")),
            Self::Epoll => epoll::serve(&listener, chat),
            Self::Ring(reads) => Floor::new(reads, listener, chat)?.serve(),
        }
    }

    fn measure(self, row: &Row, home: &Path) -> Result<Figures, LoadError> {
        let report = self.start(home)?.drive(&row.scenario)?;
        if report.faults != Faults::default() {
            let text = format!("{} lost its way: {:?}", self.name(), report.faults);
            return Err(LoadError::Server(text));
        }
        Ok(row.figures(&report))
    }
}

/// Listens on loopback.
fn listen(port: u16) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// What `GET /health` of project-yum is answered, byte for byte.
fn answer(home: &Path) -> Result<Vec<u8>, LoadError> {
    let server = Kind::Ours.start(home)?;
    let mut stream = TcpStream::connect(server.address())?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut bytes = vec![0; 4096];
    let count = stream.read(&mut bytes)?;
    bytes.truncate(count);
    assert!(bytes.ends_with(b"}"), "it came whole");
    Ok(bytes)
}

/// What the command line asks for.
struct Asked {
    rounds: usize,
    long: bool,
    only: Vec<String>,
    serve: Option<Kind>,
}

fn asked() -> Asked {
    let mut asked = Asked {
        rounds: 2,
        long: false,
        only: Vec::new(),
        serve: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word.as_str() {
            "--rounds" => asked.rounds = value().parse().unwrap_or(asked.rounds),
            "--long" => asked.long = true,
            "--only" => asked.only = value().split(',').map(str::to_owned).collect(),
            "--serve" => {
                let name = value();
                asked.serve = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            }
            // What cargo itself passes on.
            "--bench" => {}
            other => panic!("what is {other}? --rounds, --long and --only are known"),
        }
    }
    asked
}

/// Drives all of them with a row, so many times in turn. The figures of each.
fn runs(row: &Row, rounds: usize, home: &Path) -> Result<[Vec<Figures>; 4], LoadError> {
    let mut runs = [const { Vec::new() }; Kind::ALL.len()];
    for _ in 0..rounds {
        for (kind, runs) in Kind::ALL.into_iter().zip(&mut runs) {
            let figures = kind.measure(row, home)?;
            eprintln!("{} {}: {figures:.2?}", row.name, kind.name());
            runs.push(figures);
        }
    }
    Ok(runs)
}

/// Prints the best of each, and ours as so many times the best of the floor's forms.
fn show(row: &Row, runs: &[Vec<Figures>; 4]) {
    for column in row.columns {
        print!("| {} |", row.title(*column));
        let best = runs.each_ref().map(|runs| column.best(runs));
        for (value, share) in best.into_iter().flatten() {
            let share = share.map_or(String::new(), |share| format!(" ({:.0} %)", share * 100.0));
            print!(" {}{share} |", number(value));
        }
        let [ours, floors @ ..] = &best;
        let floors = floors.iter().flatten().map(|(value, _)| *value);
        let floor = floors.min_by(|a, b| column.order(*a, *b));
        let ratio = ours.zip(floor).map(|((ours, _), floor)| ours / floor);
        println!(" {:.2} |", ratio.unwrap_or_default());
    }
}

fn main() -> Result<(), LoadError> {
    let asked = asked();
    if let Some(kind) = asked.serve {
        return Ok(kind.serve()?);
    }
    server::raise_descriptors();
    let home = tempfile::tempdir()?;
    std::fs::write(home.path().join("answer"), answer(home.path())?)?;
    let names = Kind::ALL.map(Kind::name).join(" | ");
    println!(
        "| the best of {} (of CPU in the kernel) | {names} | ours/floor |",
        asked.rounds
    );
    println!("|---|{}---|", "---|".repeat(Kind::ALL.len()));
    let is_asked = |row: &Row| {
        asked.only.is_empty()
            || asked
                .only
                .iter()
                .any(|name| row.name.contains(name.as_str()))
    };
    for row in rows::rows(!asked.long).iter().filter(|row| is_asked(row)) {
        show(row, &runs(row, asked.rounds, home.path())?);
    }
    Ok(())
}
