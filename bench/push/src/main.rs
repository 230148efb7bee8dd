//! How long a revocation takes to many Gateways: one Controller's process, and subscribers that are Gateways' streams and nothing
//! else, each over its own connection with both certificates. `cargo xtask bench push` builds and runs it.
//!
//! Times are those of this process: from before an administrator's request is sent until a subscriber has the list. Both sides
//! share the machine's cores.

#![forbid(unsafe_code)]

mod figures;
mod organisation;
mod subscriber;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;

use figures::Millis;
use organisation::Organisation;
use subscriber::{Heard, Subscriber};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Descriptors beside one for each connection.
const FURTHER_DESCRIPTORS: u64 = 256;

#[derive(Parser)]
struct Options {
    /// The program under test, a release build.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Gateways.
    #[arg(long, default_value_t = 1_000)]
    subscribers: usize,
    /// Single revocations, one after another.
    #[arg(long, default_value_t = 50)]
    revocations: usize,
    /// Revocations that all Gateways missed.
    #[arg(long, default_value_t = 10_000)]
    backlog: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    descriptors(options.subscribers as u64 + FURTHER_DESCRIPTORS)?;
    let mut organisation = Organisation::found(&options.program).await?;
    let mut joined = Vec::new();
    let begun = Instant::now();
    for number in 0..options.subscribers {
        joined.push(organisation.gateway(number).await?);
    }
    println!("{} Gateways joined in {:.1} s", joined.len(), begun.elapsed().as_secs_f64());

    let (heard, mut hears) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let subscribers = joined.iter().map(|gateway| Subscriber::begin(gateway, heard.clone()));
    let mut subscribers = try_join_all(subscribers).await?;
    println!("all subscribed: {} ms", begun.elapsed().as_millis());

    single(&options, &mut organisation, &mut hears).await?;
    for subscriber in subscribers.drain(..) {
        subscriber.end().await;
    }
    missed(&options, &mut organisation, &joined, &heard, &mut hears).await?;
    restarted(&mut organisation, &joined, &heard).await
}

/// Revocations one after another, each to all.
async fn single(
    options: &Options,
    organisation: &mut Organisation,
    hears: &mut mpsc::UnboundedReceiver<Heard>,
) -> Result<()> {
    let (mut each, mut last) = (Vec::new(), Vec::new());
    let cpu = organisation.cpu_time()?;
    for _ in 0..options.revocations {
        let begun = Instant::now();
        let n = organisation.revoke().await?;
        let mut slowest = Duration::ZERO;
        for _ in 0..options.subscribers {
            let heard = tokio::time::timeout(PATIENCE, hears.recv()).await.context("a push was lost")?;
            let heard = heard.context("the subscribers have ended")?;
            ensure!(heard.n == n, "expected revocation {n}, found {}", heard.n);
            let took = heard.at.saturating_duration_since(begun);
            slowest = slowest.max(took);
            each.push(took);
        }
        last.push(slowest);
    }
    let cpu = organisation.cpu_time()?.saturating_sub(cpu) / u32::try_from(options.revocations.max(1))?;
    println!("one revocation, request -> received, of all receivers: {}", Millis::of(each));
    println!("... the last of {} receivers: {}", options.subscribers, Millis::of(last));
    println!("... Controller CPU per revocation: {:.1} ms", cpu.as_secs_f64() * 1e3);
    Ok(())
}

/// Many revocations while nobody listens, and then all at once to everybody.
async fn missed(
    options: &Options,
    organisation: &mut Organisation,
    joined: &[organisation::Gateway],
    heard: &mpsc::UnboundedSender<Heard>,
    hears: &mut mpsc::UnboundedReceiver<Heard>,
) -> Result<()> {
    while hears.try_recv().is_ok() {}
    let begun = Instant::now();
    for _ in 0..options.backlog {
        organisation.revoke().await?;
    }
    let rate = options.backlog as f64 / begun.elapsed().as_secs_f64();
    println!("{} revocations made, one after another: {rate:.0} per second", options.backlog);
    let begun = Instant::now();
    // Where both sides share two cores, some handshakes take longer than the Controller waits: they come again, as Gateways do.
    let subscribers = joined.iter().map(|gateway| Subscriber::begin_again_and_again(gateway, heard.clone()));
    let subscribers = try_join_all(subscribers).await?;
    println!("all {} have all of them: {} ms", joined.len(), begun.elapsed().as_millis());
    for subscriber in subscribers {
        subscriber.end().await;
    }
    Ok(())
}

/// The Controller is killed and started again.
async fn restarted(
    organisation: &mut Organisation,
    joined: &[organisation::Gateway],
    heard: &mpsc::UnboundedSender<Heard>,
) -> Result<()> {
    let subscribers = joined.iter().map(|gateway| Subscriber::begin(gateway, heard.clone()));
    for subscriber in try_join_all(subscribers).await? {
        subscriber.end().await;
    }
    organisation.kill()?;
    let begun = Instant::now();
    organisation.start()?;
    let subscribers = joined.iter().map(|gateway| Subscriber::begin_again_and_again(gateway, heard.clone()));
    let subscribers = try_join_all(subscribers).await?;
    println!("killed and started: all {} caught up after {} ms", joined.len(), begun.elapsed().as_millis());
    for subscriber in subscribers {
        subscriber.end().await;
    }
    Ok(())
}

/// Sees to it that we, and the Controller after us, may have so many descriptors.
fn descriptors(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).with_context(|| format!("cannot have {wanted} descriptors: ulimit -n"))?;
    }
    Ok(())
}
