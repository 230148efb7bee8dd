//! The DTLS engine against other implementations: every peer, both roles, certificates of all kinds, and networks that lose,
//! double, reorder and cut.
//!
//! `cargo xtask interop` builds what this needs and runs it. [`matrix`] says which cases there are and what is expected,
//! [`cell`] runs one, [`peers`] knows the other implementations, [`proxy`] is the network, [`report`] the table; `cross`
//! opens records of either side with keys that the other one tells, and `simulation` has handshakes with BoringSSL over a bad
//! network in simulated time.

mod cell;
mod certificates;
#[cfg(feature = "boring")]
mod cross;
mod matrix;
mod peers;
mod process;
mod proxy;
mod report;
#[cfg(feature = "boring")]
mod simulation;
#[cfg(feature = "boring")]
mod wires;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::cell::Verdict;
use crate::certificates::Certificates;
use crate::matrix::{Case, HALVES};
use crate::peers::options::PeerOptions;
use crate::peers::{Ours, Peer, Programs, Version};
use crate::report::{Place, Report};

/// Cells at one time.
const CELLS_AT_ONCE: usize = 2;

/// The DTLS engine against other implementations.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the table
    Run(RunOptions),
    /// Handshakes with BoringSSL over a simulated network, one for each seed
    #[cfg(feature = "boring")]
    Simulate {
        /// The seeds, as FROM..TO
        #[arg(value_parser = simulation::parse_seeds)]
        seeds: std::ops::Range<u64>,
        #[command(flatten)]
        options: simulation::Options,
    },
    /// Be the other side; the table starts these by itself
    Peer {
        #[command(subcommand)]
        peer: PeerTask,
    },
}

#[derive(Debug, Subcommand)]
enum PeerTask {
    Dimpl(PeerOptions),
    #[cfg(feature = "boring")]
    Boring(PeerOptions),
}

#[derive(Debug, Args)]
struct RunOptions {
    /// The program dtls_echo
    #[arg(long)]
    echo: PathBuf,
    /// The program built of wolfssl/peer.c
    #[arg(long)]
    wolfssl: Option<PathBuf>,
    /// Peers, by name
    #[arg(long, value_delimiter = ',', default_value = "openssl,gnutls,wolfssl,boring,dimpl")]
    peers: Vec<String>,
    /// Versions that our end speaks
    #[arg(long, value_delimiter = ',', default_value = "1.3,1.2")]
    versions: Vec<String>,
    /// Only cases whose name has one of these in it
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Added to the seeds of the bad networks, for other misfortunes than the usual ones
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the page for the documentation is written
    #[arg(long)]
    write: Option<PathBuf>,
    /// The command that the page names
    #[arg(long, default_value = "cargo xtask interop --write")]
    command: String,
    /// Print all output of cells that are wrong
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Task::Run(options) => run(&options),
        #[cfg(feature = "boring")]
        Task::Simulate { seeds, options } => simulation::run(seeds, options),
        Task::Peer { peer } => return be(&peer),
    };
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("{wrong} result(s) are not as expected");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Nobody waits longer for a peer.
const PEER_LIFE: Duration = Duration::from_secs(20);

/// Is a peer, which has said in its output how it ended.
fn be(peer: &PeerTask) -> ExitCode {
    std::thread::spawn(|| {
        std::thread::sleep(PEER_LIFE);
        std::process::exit(3);
    });
    let result = match peer {
        PeerTask::Dimpl(options) => peers::dimpl::run(options),
        #[cfg(feature = "boring")]
        PeerTask::Boring(options) => peers::boring::run(options),
    };
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the table; gives the number of cells that are not as expected.
fn run(options: &RunOptions) -> Result<usize> {
    let oldest =
        if options.versions.iter().any(|name| name == Version::V12.name()) { Version::V12 } else { Version::V13 };
    let programs = Programs { echo: options.echo.clone(), wolfssl: options.wolfssl.clone(), oldest };
    let peers = options
        .peers
        .iter()
        .map(|name| Peer::from_name(name).with_context(|| format!("no such peer: {name}")))
        .collect::<Result<Vec<Peer>>>()?;
    if peers.contains(&Peer::WolfSsl) && programs.wolfssl.is_none() {
        bail!("the peer wolfssl needs --wolfssl PROGRAM");
    }
    if peers.contains(&Peer::Boring) && !cfg!(feature = "boring") {
        bail!("the peer boring needs the feature of that name");
    }
    let folder = tempfile::tempdir()?;
    let certificates = Certificates::make(folder.path())?;
    let mut cases = matrix::cases();
    for weather in cases.iter_mut().filter_map(|case| case.weather.as_mut()) {
        weather.seed += options.seed;
    }
    cases.retain(|case| options.only.is_empty() || options.only.iter().any(|part| case.name.contains(part.as_str())));

    let (mut queue, mut left_out) = (VecDeque::new(), Vec::new());
    for (version, ours) in HALVES {
        if options.versions.iter().any(|name| name == version.name()) {
            for case in &cases {
                queue.extend(peers.iter().map(|peer| (version, ours, case, *peer)));
            }
        } else {
            left_out.push(format!("DTLS {}, which this build does not speak", version.name()));
        }
    }
    let verdicts = run_cells(&programs, &certificates, queue, options.verbose);
    let cross =
        if peers.contains(&Peer::Boring) && options.only.is_empty() { cross_records(&certificates) } else { None };
    let report = Report { cases, peers, verdicts, left_out, cross };
    if let Some(path) = &options.write {
        std::fs::write(path, report.markdown(&programs, &options.command))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let count = |is: fn(&Verdict) -> bool| report.verdicts.values().filter(|verdict| is(verdict)).count();
    println!(
        "{} as expected, {} not applicable, {} wrong",
        count(|verdict| matches!(verdict, Verdict::Good(_))),
        count(|verdict| matches!(verdict, Verdict::NotApplicable(_))),
        report.wrong()
    );
    Ok(report.wrong())
}

#[cfg(feature = "boring")]
fn cross_records(certificates: &Certificates) -> Option<Result<String, String>> {
    let result = cross::run(certificates).map_err(|error| format!("{error:#}"));
    match &result {
        Ok(text) => println!("boring   records across        ok    {text}"),
        Err(why) => println!("boring   records across        WRONG {why}"),
    }
    Some(result)
}

#[cfg(not(feature = "boring"))]
fn cross_records(_: &Certificates) -> Option<Result<String, String>> {
    None
}

/// How often a cell with losses is tried, each time with other misfortunes. Of handshakes with 20 % loss some 2 in 100 are not
/// finished in the 10 s that they are given, whoever the peer is: the same small record is lost four times in a row.
const TRIES: u64 = 3;

fn with_luck(case: &Case, mut run: impl FnMut(&Case) -> Verdict) -> Verdict {
    let mut case = case.clone();
    let tries = if case.weather.is_some_and(|weather| weather.loss_percent > 0) { TRIES } else { 1 };
    let mut verdict = run(&case);
    for attempt in 2..=tries {
        let (Verdict::Bad { .. }, Some(weather)) = (&verdict, &mut case.weather) else { break };
        weather.seed += 1_000;
        verdict = match run(&case) {
            Verdict::Good(text) => Verdict::Good(format!("{text}, try {attempt}")),
            other => other,
        };
    }
    verdict
}

type Cell<'a> = (Version, Ours, &'a Case, Peer);

fn run_cells(
    programs: &Programs,
    certificates: &Certificates,
    queue: VecDeque<Cell<'_>>,
    verbose: bool,
) -> BTreeMap<Place, Verdict> {
    let queue = Mutex::new(queue);
    let verdicts = Mutex::new(BTreeMap::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..CELLS_AT_ONCE {
            scope.spawn(|| {
                while let Some((version, ours, case, peer)) = next() {
                    let verdict =
                        with_luck(case, |case| cell::run(programs, certificates, (peer, version, ours), case));
                    let place = (version, ours, case.name, peer);
                    let mut verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                    if !matches!(verdict, Verdict::NotApplicable(_)) {
                        println!("{}", report::line(&place, &verdict));
                    }
                    if let (Verdict::Bad { ours, theirs, network, .. }, true) = (&verdict, verbose) {
                        println!("--- ours:\n{ours}--- theirs:\n{theirs}--- network:\n{network}\n---");
                    }
                    verdicts.insert(place, verdict);
                }
            });
        }
    });
    verdicts.into_inner().unwrap_or_else(PoisonError::into_inner)
}
