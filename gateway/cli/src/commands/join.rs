//! `ringfort join`: for everything that joins by an invitation.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use clap::Args;
use ringfort_client::{InviteeKind, Kind, Ticket, TicketSource};
use zeroize::Zeroizing;

use super::{state_folder, wait_for};

#[derive(Args)]
pub(crate) struct Options {
    /// The invitation: HOST:PORT/ and 48 characters.
    invitation: String,
    /// The invitation's ticket. Others on this machine may read command lines for a moment; --ticket-file keeps it from them.
    #[arg(long, value_name = "TICKET", required_unless_present = "ticket_file")]
    ticket: Option<String>,
    /// File with the ticket; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "ticket")]
    ticket_file: Option<PathBuf>,
    /// A new folder for key and certificate; by default that of the role on this machine.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Where clients will reach this Gateway; may be given several times.
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<String>,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let source = match (options.ticket, options.ticket_file) {
        (Some(ticket), _) => {
            let ticket = Zeroizing::new(ticket);
            // Only where the program cannot be started anew does this come back.
            let error = without_ticket(&ticket);
            tracing::warn!(%error, "the ticket stays in the list of processes while this runs");
            TicketSource::Argument(ticket)
        }
        (None, Some(file)) if file == OsStr::new("-") => TicketSource::Stdin,
        (None, Some(file)) => TicketSource::File(file),
        (None, None) => bail!("expected --ticket or --ticket-file"),
    };
    let ticket = Ticket::read(source)?;
    let role = match ticket.kind() {
        InviteeKind::Gateway => "gateway",
        InviteeKind::Device => "client",
        InviteeKind::Controller => "controller",
        InviteeKind::Host => "host",
        InviteeKind::Service => "service",
        InviteeKind::Relay => "relay",
    };
    let state = state_folder(options.state, role)?;
    let identity = wait_for(ringfort_client::join(&options.invitation, &ticket, &state, &options.addresses))?;
    println!("joined {} as {}", identity.organisation, identity.id);
    match identity.kind {
        Kind::Gateway => println!("ringfort gateway --state {}", state.display()),
        Kind::Device => println!("ringfort login --state {}", state.display()),
        Kind::Controller => {
            println!("ringfort controller --state {} --listen ADDRESS:PORT --database postgres://…", state.display());
        }
        Kind::Host => println!("ringfort host --state {}", state.display()),
        Kind::Service => println!("ringfort up --state {}", state.display()),
        // It has key, certificate and trust; there is no command that carries packets with them yet.
        Kind::Relay => println!("the Relay's key and certificate are in {}", state.display()),
    }
    Ok(())
}

/// Becomes the same program with the ticket on standard input instead of in the list of arguments, which others may read.
fn without_ticket(ticket: &str) -> std::io::Error {
    let become_it = || -> std::io::Result<std::io::Error> {
        let (reader, mut writer) = std::io::pipe()?;
        // It fits into the pipe: nobody reads it yet.
        if ticket.len() > PIPE_BYTES {
            return Err(std::io::Error::other("the ticket is too long"));
        }
        writer.write_all(ticket.as_bytes())?;
        drop(writer);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(scrubbed(std::env::args_os().skip(1))).stdin(Stdio::from(reader));
        Ok(command.exec())
    };
    become_it().unwrap_or_else(|error| error)
}

/// What a pipe takes without a reader (pipe(7): 64 KiB, a page where a user has many).
const PIPE_BYTES: usize = 4_096;

/// The arguments with `--ticket-file -` in place of the ticket.
fn scrubbed(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut scrubbed = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == "--ticket" {
            drop(arguments.next());
        } else if !text.starts_with("--ticket=") {
            scrubbed.push(argument);
            continue;
        }
        scrubbed.extend(["--ticket-file".into(), "-".into()]);
    }
    scrubbed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticket_leaves_the_arguments_and_nothing_else_does() {
        let check = |before: &[&str], after: &[&str]| {
            assert_eq!(
                scrubbed(before.iter().map(OsString::from)),
                after.iter().map(OsString::from).collect::<Vec<_>>()
            );
        };
        let after = ["--log", "debug", "join", "URL", "--ticket-file", "-", "--state", "DIR"];
        check(&["--log", "debug", "join", "URL", "--ticket", "SECRET", "--state", "DIR"], &after);
        check(&["--log", "debug", "join", "URL", "--ticket=SECRET", "--state", "DIR"], &after);
        check(&["join", "URL", "--ticket-file", "x"], &["join", "URL", "--ticket-file", "x"]);
    }
}
