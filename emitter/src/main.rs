//! A device as a program: reads rows of features from standard input, runs the model, sends.

use std::process::ExitCode;

mod command;

fn main() -> ExitCode {
    use clap::Parser;
    match command::run(&command::Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("driftline-emitter: {error:#}");
            ExitCode::FAILURE
        }
    }
}
