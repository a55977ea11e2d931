//! The server with faults that its input asks for: a line `panic`, or `bug`. For the tests only.

use std::io::stdin;
use std::process::ExitCode;

use project_yum::chat::bug;
use project_yum::env::Env;

fn main() -> ExitCode {
    std::thread::spawn(|| {
        for line in stdin().lines().map_while(Result::ok) {
            match line.as_str() {
                // As a shard would: the name of the thread says which it is.
                "panic" => drop(
                    std::thread::Builder::new()
                        .name("shard-1".to_owned())
                        .spawn(|| panic!("it fell over `zebra-content`")),
                ),
                // What a client would be told goes to the log's stream, for the test to read.
                "bug" => eprintln!("told: {}", bug(&Env::system(), "made for a test").message),
                _ => {}
            }
        }
    });
    ExitCode::from(project_yum::commands::run(std::env::args_os()))
}
