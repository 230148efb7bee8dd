//! Handshakes of our engine with BoringSSL over a network that loses, doubles, delays, reorders and damages datagrams, both in
//! simulated time, each with its luck from a seed. The network is that of the engine's own simulation
//! (`dataplane/dtls/tests/associations/network.rs`). Keys and signatures are drawn anew in every run, so that now and then a
//! datagram has another length or another damage.

mod ours;
mod theirs;
mod trace;

#[expect(dead_code, reason = "this needs but a part of it")]
#[path = "../../../dataplane/dtls/tests/associations/network.rs"]
mod network;
#[expect(dead_code, reason = "this needs but a part of it")]
#[path = "../../../dataplane/dtls/tests/associations/world.rs"]
mod world;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::{AddressValidation, ClientAuth, ClientConfig, ServerConfig, Settings};

use self::network::{Dice, Network, To};
use self::ours::Our;
use self::theirs::{Their, Theirs, set_time};
use self::world::Ends;
use crate::certificates::{Certificates, Shown};
use crate::cross::{Anybody, credentials};
use crate::peers::options::Side;
use crate::peers::{Ours, Version};

/// One kind of handshake.
pub struct Case {
    name: &'static str,
    ours: Ours,
    version: Version,
    /// Of both sides.
    datagram_bytes_max: usize,
    address_validation: AddressValidation,
    /// What BoringSSL offers; its own choice without.
    groups: Option<&'static str>,
}

impl Case {
    const fn their_side(&self) -> Side {
        match self.ours {
            Ours::Server => Side::Client,
            Ours::Client => Side::Server,
        }
    }
}

/// Groups with which a hello is short.
const SHORT: Option<&str> = Some("X25519:P-256:P-384");

/// A seed's case is the one of its rest. A cookie is asked for where the first hello is whole in its datagram and the second
/// one's cookie in its first fragment.
const CASES: [Case; 7] = [
    Case {
        name: "our server, DTLS 1.3, 1200 bytes",
        ours: Ours::Server,
        version: Version::V13,
        datagram_bytes_max: 1_200,
        address_validation: AddressValidation::Cookie,
        groups: SHORT,
    },
    Case {
        name: "our server, DTLS 1.3, 1200 bytes, hybrid group, no cookie",
        ours: Ours::Server,
        version: Version::V13,
        datagram_bytes_max: 1_200,
        address_validation: AddressValidation::None,
        groups: None,
    },
    Case {
        name: "our server, DTLS 1.3, 300 bytes, no cookie",
        ours: Ours::Server,
        version: Version::V13,
        datagram_bytes_max: 300,
        address_validation: AddressValidation::None,
        groups: SHORT,
    },
    Case {
        name: "our server, DTLS 1.2, 1200 bytes",
        ours: Ours::Server,
        version: Version::V12,
        datagram_bytes_max: 1_200,
        address_validation: AddressValidation::Cookie,
        groups: SHORT,
    },
    Case {
        name: "our server, DTLS 1.2, 300 bytes",
        ours: Ours::Server,
        version: Version::V12,
        datagram_bytes_max: 300,
        address_validation: AddressValidation::Cookie,
        groups: SHORT,
    },
    Case {
        name: "our client, DTLS 1.3, 1200 bytes",
        ours: Ours::Client,
        version: Version::V13,
        datagram_bytes_max: 1_200,
        address_validation: AddressValidation::None,
        groups: None,
    },
    Case {
        name: "our client, DTLS 1.3, 300 bytes",
        ours: Ours::Client,
        version: Version::V13,
        datagram_bytes_max: 300,
        address_validation: AddressValidation::None,
        groups: None,
    },
];

/// A handshake that has taken so long is given up.
const TIME_MAX: Duration = Duration::from_secs(25);
/// After this time more, nothing may be under way on our side.
const REST: Duration = Duration::from_secs(30);
/// So long what is late still arrives at finished handshakes.
const LATE: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(5);
/// Of a thousand handshakes so many may be given up. Nearly all of these have met a message in the clear that was damaged, which
/// checksums of UDP keep from us. BoringSSL believes it, and as a client has but one hello to say.
const GIVEN_UP_MAX: u64 = 65;
/// Of a thousand so many of those that have met no such message: what they lacked was lost each time.
const UNLUCKY_MAX: u64 = 5;
/// Fewer handshakes say nothing about that.
const COUNT_MIN: u64 = 2_000;

/// How all of it is run.
#[derive(Clone, Copy, Debug, Args)]
pub struct Options {
    /// Of a hundred datagrams to us so many are damaged
    #[arg(long, default_value_t = 2)]
    damaged: u64,
    /// The same of those to BoringSSL
    #[arg(long, default_value_t = 2)]
    damaged_theirs: u64,
    /// Print every datagram; for a few seeds
    #[arg(long = "trace")]
    is_traced: bool,
}

/// What became of one handshake.
#[derive(Debug)]
enum Verdict {
    Finished(Duration),
    GivenUp { why: String, is_misled: bool },
}

/// Reads `FROM..TO`.
pub fn parse_seeds(text: &str) -> Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("expected FROM..TO")?;
    Ok(from.parse()?..to.parse()?)
}

/// Runs the handshakes of all seeds; gives the number of findings.
pub fn run(seeds: Range<u64>, options: Options) -> Result<usize> {
    let folder = tempfile::tempdir()?;
    let certificates = Certificates::make(folder.path())?;
    let threads = if options.is_traced { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let next = AtomicU64::new(seeds.start);
    let next = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end);
    let mut tally = Tally::default();
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| one_after_the_other(&certificates, next, options))).collect();
        for thread in threads {
            tally.add(&thread.join().map_err(|_| anyhow!("a thread has panicked"))??);
        }
        Ok(())
    })?;
    print!("{tally}");
    println!("seeds {}..{} with BoringSSL: {}", seeds.start, seeds.end, tally.all());
    Ok(usize::try_from(tally.findings(seeds.end.saturating_sub(seeds.start)))?)
}

/// Runs the handshakes of the seeds that `next` gives.
fn one_after_the_other(certificates: &Certificates, next: impl Fn() -> Option<u64>, options: Options) -> Result<Tally> {
    let mut stages = Vec::new();
    for case in &CASES {
        stages.push((case, our_ends(case, certificates)?, Theirs::new(case, certificates)?));
    }
    let mut tally = Tally::default();
    while let Some(seed) = next() {
        let at = (seed % CASES.len() as u64) as usize;
        let Some((case, ends, theirs)) = stages.get(at) else { bail!("no case") };
        let ends = Ends { seed: seed as u8, ..ends.clone() };
        let verdict = catch_unwind(AssertUnwindSafe(|| {
            Handshake::new(case, &ends, theirs, seed, options).and_then(Handshake::run)
        }));
        let verdict = verdict.unwrap_or_else(|_| Err(anyhow!("a panic")));
        if options.is_traced {
            println!("seed {seed}, {}: {verdict:?}", case.name);
        }
        tally.0.entry(case.name).or_default().note(seed, verdict);
    }
    Ok(tally)
}

fn our_ends(case: &Case, certificates: &Certificates) -> Result<Ends> {
    let own = credentials(certificates, Shown::Intermediate)?;
    let settings = Settings {
        protocol: None,
        address_validation: case.address_validation,
        handshake_datagram_bytes_max: case.datagram_bytes_max,
        handshake_time_max: TIME_MAX,
        ..Settings::default()
    };
    let clients = ClientAuth::Required(Arc::new(Anybody));
    Ok(Ends {
        server: Arc::new(ServerConfig::with_settings(&own, clients, settings.clone())?),
        client: Arc::new(ClientConfig::with_settings(Some(&own), Arc::new(Anybody), settings)?),
        server_cid: ConnectionId::new(&[0xc1; 8]),
        client_cid: Some(ConnectionId::NONE),
        seed: 1,
    })
}

/// One handshake under way.
struct Handshake<'a> {
    case: &'a Case,
    our: Our,
    their: Their<'a>,
    network: Network,
    dice: Dice,
    time: Duration,
    options: Options,
    /// All that was sent.
    sent: HashSet<Vec<u8>>,
    /// Something in the clear has arrived damaged.
    is_misled: bool,
}

impl<'a> Handshake<'a> {
    fn new(case: &'a Case, ends: &Ends, theirs: &'a Theirs, seed: u64, options: Options) -> Result<Self> {
        set_time(Duration::ZERO);
        let (our, mut their) = (Our::new(case.ours, ends), theirs.end()?);
        their.go_on();
        let (network, dice, time) = (Network::default(), Dice(seed), Duration::ZERO);
        Ok(Self { case, our, their, network, dice, time, options, sent: HashSet::new(), is_misled: false })
    }

    /// Runs until both are finished, one has given up, or time is over. An error is a finding.
    fn run(mut self) -> Result<Verdict> {
        while self.time <= TIME_MAX {
            self.step(true)?;
            if self.our.is_established() && self.their.is_done && self.their.failed.is_none() {
                return self.try_out().map(Verdict::Finished);
            }
            // A server goes on with the next attempt.
            let has_client_ended = match self.case.ours {
                Ours::Server => self.their.failed.is_some(),
                Ours::Client => self.our.ended().is_some(),
            };
            if has_client_ended {
                break;
            }
        }
        let verdict = Verdict::GivenUp { why: self.reason(), is_misled: self.is_misled };
        // Our end comes to rest by itself, whatever has become of the other one.
        let end = self.time + REST;
        while self.time < end && !self.our.is_at_rest() {
            self.time += STEP;
            self.our.tick(self.time);
            self.our.transmits();
        }
        ensure!(self.our.is_at_rest(), "given up ({verdict:?}), and {REST:?} later our end goes on");
        Ok(verdict)
    }

    fn reason(&self) -> String {
        let theirs = match &self.their.failed {
            Some(why) => why.as_str(),
            None if self.their.is_done => "done",
            None => "waits",
        };
        let ours = match self.our.ended() {
            Some(why) => why,
            None if self.our.is_established() => "done".to_owned(),
            None => "waits".to_owned(),
        };
        format!("BoringSSL: {theirs}; ours: {ours}")
    }

    /// Lets time pass and datagrams arrive, and takes what is sent.
    fn step(&mut self, is_lossy: bool) -> Result<()> {
        let at = self.time;
        set_time(at);
        self.our.tick(at);
        self.their.tick();
        while let Some((to, mut datagram)) = self.network.arrived(at) {
            let is_ours = matches!(to, To::Server) == (self.case.ours == Ours::Server);
            let is_damaged = is_lossy && !self.sent.contains(&*datagram);
            self.is_misled |= is_damaged && is_in_the_clear(&datagram);
            let what = match (is_ours, is_damaged) {
                (true, false) => "  > ours",
                (false, false) => "  > theirs",
                (true, true) => "  > ours DAMAGED",
                (false, true) => "  > theirs DAMAGED",
            };
            self.trace(what, &datagram);
            if is_ours {
                self.our.receive(&mut datagram);
            } else {
                self.their.receive(&datagram)?;
            }
        }
        let (ours, theirs) = match self.case.ours {
            Ours::Server => (To::Server, To::Client),
            Ours::Client => (To::Client, To::Server),
        };
        let mut sent: Vec<_> = self.our.transmits().into_iter().map(|datagram| (theirs, datagram)).collect();
        sent.extend(std::iter::from_fn(|| self.their.transmit()).map(|datagram| (ours, datagram.into())));
        for (to, datagram) in sent {
            let bytes = datagram.len();
            ensure!(bytes <= self.case.datagram_bytes_max, "a datagram of {bytes} bytes");
            let is_theirs = matches!(to, To::Server) == (self.case.ours == Ours::Server);
            self.trace(if is_theirs { "theirs >" } else { "ours >" }, &datagram);
            if is_lossy {
                self.sent.insert(datagram.to_vec());
                let damaged = if is_theirs { self.options.damaged } else { self.options.damaged_theirs };
                self.network.send_over(to, datagram, at, &mut self.dice, damaged);
            } else if is_theirs {
                self.our.receive(&mut datagram.into_vec());
            } else {
                self.their.receive(&datagram)?;
            }
        }
        self.time += STEP;
        Ok(())
    }

    fn trace(&self, what: &str, datagram: &[u8]) {
        if self.options.is_traced {
            println!("{:>6} {what:<10} {}", self.time.as_millis(), trace::describe(datagram));
        }
    }

    /// Packets pass both ways, at once and after all that was late; gives how long the handshake has taken.
    fn try_out(mut self) -> Result<Duration> {
        let time = self.time;
        self.exchange_packets().context("at once")?;
        while self.time < time + LATE {
            self.step(false)?;
        }
        ensure!(
            self.our.is_established() && self.their.failed.is_none(),
            "once established, something late ended it: {}",
            self.reason()
        );
        self.exchange_packets().context("after what was late")?;
        Ok(time)
    }

    fn exchange_packets(&mut self) -> Result<()> {
        self.our.packets.clear();
        self.their.packets.clear();
        let mut record = self.their.seal(b"from BoringSSL")?;
        self.our.receive(&mut record);
        let record = self.our.seal(b"from us").context("our end seals nothing")?;
        self.their.receive(&record)?;
        ensure!(self.our.packets == [b"from BoringSSL"], "we received {:?}", self.our.packets);
        ensure!(self.their.packets == [b"from us"], "BoringSSL received {:?}", self.their.packets);
        Ok(())
    }
}

/// Whether the first record of a damaged datagram may be in the clear: it is not sealed, by its first byte in DTLS 1.3 and by
/// its epoch in DTLS 1.2.
fn is_in_the_clear(datagram: &[u8]) -> bool {
    matches!(datagram, [0..=31 | 64.., _, _, 0, 0, ..])
}

/// What became of the handshakes of one case.
#[derive(Debug, Default)]
struct Results {
    times: Vec<Duration>,
    /// Those that met something damaged in the clear, by reason.
    misled: BTreeMap<String, Vec<u64>>,
    /// The others.
    unlucky: BTreeMap<String, Vec<u64>>,
    wrong: BTreeMap<String, Vec<u64>>,
}

impl Results {
    fn note(&mut self, seed: u64, verdict: Result<Verdict>) {
        let (kind, why) = match verdict {
            Ok(Verdict::Finished(time)) => return self.times.push(time),
            Ok(Verdict::GivenUp { why, is_misled: true }) => (&mut self.misled, why),
            Ok(Verdict::GivenUp { why, is_misled: false }) => (&mut self.unlucky, why),
            Err(error) => (&mut self.wrong, format!("{error:#}")),
        };
        kind.entry(why).or_default().push(seed);
    }

    fn add(&mut self, other: &Self) {
        self.times.extend(&other.times);
        for (kind, others) in
            [(&mut self.misled, &other.misled), (&mut self.unlucky, &other.unlucky), (&mut self.wrong, &other.wrong)]
        {
            for (why, seeds) in others {
                kind.entry(why.clone()).or_default().extend(seeds);
            }
        }
    }
}

fn count(seeds: &BTreeMap<String, Vec<u64>>) -> u64 {
    seeds.values().map(|seeds| seeds.len() as u64).sum()
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.times.clone();
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let (misled, unlucky, wrong) = (count(&self.misled), count(&self.unlucky), count(&self.wrong));
        write!(f, "{} finished (median {median:.2?}), {misled} given up after damage in the clear, ", times.len())?;
        write!(f, "{unlucky} otherwise, {wrong} wrong")
    }
}

/// What became of the handshakes of all cases.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, Results>);

impl Tally {
    fn add(&mut self, other: &Self) {
        for (case, results) in &other.0 {
            self.0.entry(case).or_default().add(results);
        }
    }

    fn all(&self) -> Results {
        let mut all = Results::default();
        self.0.values().for_each(|results| all.add(results));
        all
    }

    /// How many: what is wrong, and that too many were given up.
    fn findings(&self, handshakes: u64) -> u64 {
        let all = self.all();
        let (misled, unlucky) = (count(&all.misled), count(&all.unlucky));
        let too_many = |given_up, most| u64::from(handshakes >= COUNT_MIN && given_up * 1_000 > handshakes * most);
        count(&all.wrong) + too_many(misled + unlucky, GIVEN_UP_MAX) + too_many(unlucky, UNLUCKY_MAX)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Of each reason.
        const SEEDS_SHOWN: usize = 5;
        for (case, results) in &self.0 {
            writeln!(f, "{case}: {results}")?;
            let kinds = [("damage", &results.misled), ("luck", &results.unlucky), ("WRONG", &results.wrong)];
            for (kind, (why, seeds)) in kinds.iter().flat_map(|(kind, seeds)| seeds.iter().map(move |why| (kind, why)))
            {
                let shown: Vec<_> = seeds.iter().take(SEEDS_SHOWN).map(u64::to_string).collect();
                writeln!(f, "  {kind}, {} × {why}; seeds {}", seeds.len(), shown.join(" "))?;
            }
        }
        Ok(())
    }
}
