//! A DTLS server and client at the command line, so that any other DTLS stack can be pointed at this engine.
//!
//! ```text
//! cargo run -p ringfort-dtls --example dtls_echo -- server --listen 127.0.0.1:4433 --cert chain.pem --key key.pem
//! cargo run -p ringfort-dtls --example dtls_echo -- client --connect 127.0.0.1:4433 --send hello
//! ```
//!
//! The server returns every packet; the client sends and prints what comes back. Each event is one line on standard output,
//! a word and then `name=value` pairs; what went wrong stands on standard error. Certificates are ordinary ones, without the
//! role URIs that the product asks for: [`policy`] judges them by `--ca` and `--crl`.
//!
//! What it does not do: anything in parallel. One thread reads one socket, with the time until the engine's next wish as the
//! limit of the read, which is enough to test with and says nothing about speed.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the engine does no I/O; this is a program around it"
)]

mod client;
mod hello;
mod options;
mod policy;
mod server;
mod socket;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

/// An error that is told and ends the program.
type Failed = Box<dyn Error>;

/// How a run that could start came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// As asked.
    Done,
    /// The handshake failed, or what was sent did not come back.
    Refused,
    /// `--timeout` is over.
    TimeOut,
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Server(options) => server::run(&options),
        Command::Client(options) => client::run(&options),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Refused) => ExitCode::from(1),
        Ok(Outcome::TimeOut) => {
            eprintln!("error: not finished in the time that --timeout gives");
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
