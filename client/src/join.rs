//! Joining by an invitation: for a user's machine, a program's and a Gateway alike.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_enrol::{Folder, Identity, Invitation, Joiner, Kind, file};
use ringfort_identity::Hostname;
use ringfort_token::InviteeKind;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::random::random_hex;

/// Longest ticket, with the line end behind it.
const TICKET_BYTES_MAX: u64 = 8 << 10;

/// Where the ticket comes from.
#[derive(Debug)]
pub enum TicketSource {
    /// The command line, which others on this machine may read.
    Argument(Zeroizing<String>),
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// A ticket as it came. Only the Controller can verify it.
#[derive(Debug)]
pub struct Ticket {
    text: Zeroizing<String>,
    kind: InviteeKind,
    /// The id that the joiner will have: of a host its name.
    id: String,
}

impl Ticket {
    /// Reads it from its source.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(source: TicketSource) -> Result<Self> {
        let text = match source {
            TicketSource::Argument(ticket) => ticket,
            TicketSource::File(path) => {
                let name = || path.display().to_string();
                let mut file = std::fs::File::open(&path).with_context(name)?;
                read_line(&mut file, TICKET_BYTES_MAX).with_context(name)?
            }
            TicketSource::Stdin => read_line(&mut std::io::stdin(), TICKET_BYTES_MAX).context("standard input")?,
        };
        let Said { kind, sub } = announced(&text).context("expected a ticket as `ringfort admin invite` prints it")?;
        Ok(Self { text, kind, id: sub })
    }

    /// What it says that it is for.
    #[must_use]
    pub const fn kind(&self) -> InviteeKind {
        self.kind
    }
}

/// Reads all that there is, at most `max` bytes, without the line end.
fn read_line(from: &mut impl Read, max: u64) -> Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    from.take(max + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= max, "expected at most {max} bytes");
    let line = text.trim_end_matches(['\r', '\n']);
    ensure!(!line.is_empty() && !line.contains('\n'), "expected one line");
    Ok(Zeroizing::new(line.to_owned()))
}

/// Joins with the new folder `state` by an invitation and its ticket. `addresses` are where clients will reach a Gateway; it
/// says so itself as soon as it runs.
///
/// # Errors
/// What was expected and what came. Whether the invitation is used up then, the error says.
pub async fn join(invitation: &str, ticket: &Ticket, state: &Path, addresses: &[String]) -> Result<Identity> {
    let invitation: Invitation = invitation.parse()?;
    // The Controller decides by the verified ticket; this spares an invitation that could only be wasted.
    let is_for_gateway = ticket.kind == InviteeKind::Gateway;
    ensure!(is_for_gateway || addresses.is_empty(), "only a Gateway has --address; the invitation is not used up");
    let client_id =
        if matches!(ticket.kind, InviteeKind::Device | InviteeKind::Service) { random_hex()? } else { String::new() };
    // The files of a host are called by its name, before anybody has verified that.
    let hostname = (ticket.kind == InviteeKind::Host).then(|| ticket.id.parse::<Hostname>()).transpose();
    let hostname = hostname.context("the host's name in the ticket; the invitation is not used up")?;
    let folder = Folder::create(state)?;
    let folder = match &hostname {
        Some(hostname) => folder.of_host(hostname),
        None => folder,
    };
    let joiner = Joiner { addresses: addresses.to_vec(), client_id };
    let identity = ringfort_enrol::join(&invitation, &ticket.text, &joiner, &folder).await?;
    let expected = match (ticket.kind, &hostname) {
        (InviteeKind::Device, _) => (Kind::Device, Some(joiner.client_id.as_str())),
        (InviteeKind::Service, _) => (Kind::Service, Some(joiner.client_id.as_str())),
        (InviteeKind::Host, hostname) => (Kind::Host, hostname.as_ref().map(Hostname::as_str)),
        (InviteeKind::Relay, _) => (Kind::Relay, Some(ticket.id.as_str())),
        (InviteeKind::Gateway, _) => (Kind::Gateway, None),
        (InviteeKind::Controller, _) => (Kind::Controller, None),
    };
    if identity.kind != expected.0 || expected.1.is_some_and(|id| id != identity.id) {
        folder.remove(file::IDENTITY)?;
        let Identity { kind, id, .. } = &identity;
        bail!("the Controller calls this the {kind:?} {id}, and the ticket is for the {expected:?}");
    }
    Ok(identity)
}

/// What a ticket says it is for. It is not verified here: only the Controller that signed it can.
fn announced(ticket: &str) -> Option<Said> {
    let payload = URL_SAFE_NO_PAD.decode(ticket.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The part of a ticket that is of use before it is verified.
#[derive(Deserialize)]
struct Said {
    kind: InviteeKind,
    sub: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(payload: &str) -> TicketSource {
        TicketSource::Argument(Zeroizing::new(format!("a.{}.c", URL_SAFE_NO_PAD.encode(payload))))
    }

    fn error(ticket: TicketSource, addresses: &[&str]) -> String {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        let url = format!("127.0.0.1:1/{}", "A".repeat(48));
        let addresses: Vec<String> = addresses.iter().map(|&address| address.into()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let joined = Ticket::read(ticket).and_then(|ticket| runtime.block_on(join(&url, &ticket, &state, &addresses)));
        let error = joined.unwrap_err();
        assert!(!state.exists() || error.to_string().contains("cannot reach"), "{error:#}");
        format!("{error:#}")
    }

    #[test]
    fn an_invitation_is_not_wasted() {
        assert!(error(ticket(r#"{"kind":"gateway","sub":"g"}"#), &[]).contains("cannot reach"));
        assert!(error(ticket(r#"{"kind":"device","sub":"d"}"#), &["192.0.2.1:443"]).contains("only a Gateway"));
        assert!(error(ticket(r#"{"kind":"host","sub":"h"}"#), &["192.0.2.1:443"]).contains("only a Gateway"));
        assert!(error(ticket(r#"{"kind":"service","sub":"s"}"#), &["192.0.2.1:443"]).contains("only a Gateway"));
        assert!(error(ticket("nothing"), &[]).contains("ringfort admin invite"));
        assert!(error(ticket(r#"{"kind":"device","sub":"d"}"#), &[]).contains("cannot reach"));
        assert!(error(ticket(r#"{"kind":"host","sub":"h"}"#), &[]).contains("cannot reach"));
        assert!(error(ticket(r#"{"kind":"host","sub":"../h"}"#), &[]).contains("hostname"));
    }

    #[test]
    fn tickets_come_from_files_as_well() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("ticket");
        let good = format!("a.{}.c", URL_SAFE_NO_PAD.encode(r#"{"kind":"gateway","sub":"g"}"#));
        std::fs::write(&path, format!("{good}\n")).unwrap();
        let ticket = Ticket::read(TicketSource::File(path.clone())).unwrap();
        assert_eq!((ticket.text.as_str(), ticket.kind()), (good.as_str(), InviteeKind::Gateway));
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            format!("{:#}", Ticket::read(TicketSource::File(path.clone())).unwrap_err())
        };
        assert!(refused(&[b'a'; TICKET_BYTES_MAX as usize + 1]).contains("ticket: expected at most"));
        assert!(refused(format!("{good}\n{good}\n").as_bytes()).contains("one line"));
        assert!(refused(b"").contains("one line"));
    }
}
