//! The table: to the terminal as it grows, and as a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use crate::cell::Verdict;
use crate::matrix::{Case, HALVES};
use crate::peers::{Ours, Peer, Programs, Version};

/// Where a cell stands: version, our side, case, peer.
pub type Place = (Version, Ours, &'static str, Peer);

/// All that a run has seen.
#[derive(Debug)]
pub struct Report {
    pub cases: Vec<Case>,
    pub peers: Vec<Peer>,
    pub verdicts: BTreeMap<Place, Verdict>,
    /// Whole halves that are not run, and why.
    pub left_out: Vec<String>,
    /// What [`crate::cross`] found, if it ran.
    pub cross: Option<Result<String, String>>,
}

/// How one cell reads in a line of its own.
pub fn line(place: &Place, verdict: &Verdict) -> String {
    let (version, ours, case, peer) = place;
    let side = side(*ours);
    let text = match verdict {
        Verdict::Good(text) => format!("ok    {text}"),
        Verdict::NotApplicable(reason) => format!("n/a   {reason}"),
        Verdict::Bad { why, .. } => format!("WRONG {why}"),
    };
    format!("{:8} {} {side}  {case:15} {text}", peer.name(), version.name())
}

const fn side(ours: Ours) -> &'static str {
    match ours {
        Ours::Server => "our server",
        Ours::Client => "our client",
    }
}

impl Report {
    /// Cells that are not as expected.
    pub fn wrong(&self) -> usize {
        let cells = self.verdicts.values().filter(|verdict| matches!(verdict, Verdict::Bad { .. })).count();
        cells + usize::from(matches!(self.cross, Some(Err(_))))
    }

    /// The page for the documentation.
    pub fn markdown(&self, programs: &Programs, command: &str) -> String {
        let mut page = String::from(
            "# DTLS against other implementations\n\n\
             Made by the command below; do not edit. Each cell is two processes on loopback: ours is `dtls_echo`\n\
             (`dataplane/dtls/examples`), whose certificates are asked for on both sides. *echo* means that a packet came back,\n\
             *refused* that the handshake failed for the reason that the case is about and that the other side was told by the\n\
             alert of that number. A cell with losses may be tried again, with other losses, and says so. What the cases are, and\n\
             why a peer has none of one, is said below the tables.\n\n",
        );
        let good = self.verdicts.values().filter(|verdict| matches!(verdict, Verdict::Good(_))).count();
        let not_applicable =
            self.verdicts.values().filter(|verdict| matches!(verdict, Verdict::NotApplicable(_))).count();
        let _ = writeln!(page, "- Command: `{command}`\n- Date: {}", today());
        let _ = writeln!(
            page,
            "- Cells: {good} as expected, {not_applicable} that a peer cannot do, {} **wrong**",
            self.wrong()
        );
        let versions: Vec<String> = self.peers.iter().map(|peer| peer.version(programs)).collect();
        let _ = writeln!(page, "- Peers: {}", versions.join("; "));
        for left_out in &self.left_out {
            let _ = writeln!(page, "- Not run: {left_out}");
        }
        match &self.cross {
            Some(Ok(text)) => drop(writeln!(page, "- Records across: {text}")),
            Some(Err(why)) => drop(writeln!(page, "- Records across: **wrong**: {why}")),
            None => {}
        }
        for (version, ours) in HALVES {
            self.write_half(&mut page, version, ours);
        }
        page.push_str("\n## Cases\n\n");
        for case in &self.cases {
            let _ = writeln!(page, "- **{}**: {}", case.name, case.what);
        }
        self.write_reasons(&mut page);
        page
    }

    fn write_half(&self, page: &mut String, version: Version, ours: Ours) {
        let has_any = |peer: &Peer| {
            let mut cells = self.verdicts.iter().filter(|((v, o, _, p), _)| (*v, *o, p) == (version, ours, peer));
            cells.any(|(_, verdict)| !matches!(verdict, Verdict::NotApplicable(_)))
        };
        let peers: Vec<Peer> = self.peers.iter().copied().filter(has_any).collect();
        if peers.is_empty() {
            return;
        }
        let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
        let title = match ours {
            Ours::Server => "our server, their client",
            Ours::Client => "our client, their server",
        };
        let _ = writeln!(page, "\n## DTLS {}: {title}\n", version.name());
        let _ = writeln!(page, "| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
        for case in &self.cases {
            let cells: Vec<String> = peers
                .iter()
                .map(|peer| match self.verdicts.get(&(version, ours, case.name, *peer)) {
                    Some(Verdict::Good(text)) => text.clone(),
                    Some(Verdict::NotApplicable(_)) => "n/a".to_owned(),
                    Some(Verdict::Bad { why, .. }) => {
                        format!("**wrong**: {}", why.replace('|', "/").replace('\n', " "))
                    }
                    None => "not run".to_owned(),
                })
                .collect();
            let _ = writeln!(page, "| {} | {} |", case.name, cells.join(" | "));
        }
    }

    fn write_reasons(&self, page: &mut String) {
        let mut reasons: BTreeMap<(Peer, &str), Vec<&str>> = BTreeMap::new();
        for ((_, _, case, peer), verdict) in &self.verdicts {
            if let Verdict::NotApplicable(reason) = verdict {
                let cases = reasons.entry((*peer, reason)).or_default();
                if !cases.contains(case) {
                    cases.push(case);
                }
            }
        }
        if !reasons.is_empty() {
            page.push_str("\n## Not applicable\n\n");
        }
        for ((peer, reason), cases) in reasons {
            let cases = if cases.len() == self.cases.len() { "all cases".to_owned() } else { cases.join(", ") };
            let _ = writeln!(page, "- {}: {reason} ({cases})", peer.name());
        }
    }
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
