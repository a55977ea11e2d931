//! The program: takes the command line apart, loads the settings, runs one command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(project_yum::commands::run(std::env::args_os()))
}
