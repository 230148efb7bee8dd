//! What the record layer costs: sealing and opening one record, in a hot session and among 50,000, and decoding a
//! connection id.
//!
//! `cargo run --release -p ringfort-micro --bin record_speed`, pinned to one core (`taskset -c 1`). Figures are the best of
//! several rounds: everything else on the machine can only add to them. Sealing copies the packet behind the header;
//! opening is in place. The first line is what the AEAD takes alone, which no record layer can undercut: what is above it
//! is ours. The allocator is the binary's own, mimalloc.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ringfort_dtls::cid::{ConnectionId, ConnectionIdCodec, Location};
use ringfort_dtls::record::{ContentType, Keys12, Open, RecordLayer, Secret, Suite};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Each case is measured so often, all cases in turn: a noisy neighbour of a second then spoils none.
const PASSES: usize = 10;
const ROUNDS: usize = 100;
/// Records of one round: few enough that they stay in the second-level cache.
const RECORDS: usize = 64;
const SESSIONS: usize = 50_000;
/// Records opened between two looks at the clock, where the sessions are cold.
const COLD_RECORDS: usize = 512;
const COLD_BYTES: usize = 1_300;

#[derive(Clone, Copy)]
enum Version {
    V12,
    /// With a connection id of eight bytes.
    V13,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3, 8-byte id",
        })
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum Case {
    AeadAlone(usize),
    Hot(Suite, Version, usize),
    Cold(usize),
}

fn main() -> Result<()> {
    let lengths = [64, 1_300, 8_900];
    let mut cases: Vec<Case> = lengths.map(Case::AeadAlone).into();
    for suite in Suite::ALL {
        for version in [Version::V13, Version::V12] {
            cases.extend(lengths.map(|length| Case::Hot(suite, version, length)));
        }
    }
    cases.extend([1, 8].map(Case::Cold));
    let mut pairs = Vec::with_capacity(SESSIONS);
    for session in 0..SESSIONS {
        pairs.push(pair(Version::V13, Suite::Aes128GcmSha256, session as u8)?);
    }

    let mut best = vec![(f64::MAX, f64::MAX); cases.len()];
    let mut decoded = f64::MAX;
    for _ in 0..PASSES {
        for (case, best) in cases.iter().zip(&mut best) {
            let (seal, open) = match *case {
                Case::AeadAlone(length) => aead_alone(length)?,
                Case::Hot(suite, version, length) => hot(version, suite, length)?,
                Case::Cold(per_visit) => cold(&mut pairs, per_visit)?,
            };
            *best = (best.0.min(seal), best.1.min(open));
        }
        decoded = decoded.min(decode());
    }

    println!("a record layer is {} bytes, without aws-lc's two contexts", size_of::<RecordLayer>());
    println!("{:<42}{:>6}{:>9}{:>8}{:>9}{:>8}", "", "bytes", "seal ns", "Gbit/s", "open ns", "Gbit/s");
    for (case, (seal, open)) in cases.into_iter().zip(best) {
        let (name, length) = match case {
            Case::AeadAlone(length) => ("AES-128-GCM alone, in place".into(), length),
            Case::Hot(suite, version, length) => (format!("{suite:?}, {version}"), length),
            Case::Cold(per_visit) => (format!("AES-128, {SESSIONS} sessions, {per_visit} per visit"), COLD_BYTES),
        };
        let rate = |ns: f64| length as f64 * 8.0 / ns;
        println!("{name:<42}{length:>6}{seal:>9.1}{:>8.1}{open:>9.1}{:>8.1}", rate(seal), rate(open));
    }
    println!("{:<42}{decoded:>15.1}", "connection id, decoded");
    Ok(())
}

/// One sends, the other receives.
type Pair = (Box<RecordLayer>, Box<RecordLayer>);

fn pair(version: Version, suite: Suite, seed: u8) -> Result<Pair> {
    let (mut tx, mut rx) = (Box::new(RecordLayer::new()), Box::new(RecordLayer::new()));
    match version {
        Version::V12 => {
            let keys = Keys12::new(suite, &[seed; 32][..suite.key_bytes()], &[1; 12][..suite.fixed_iv_bytes_12()])?;
            tx.install_tx12(&keys)?;
            rx.install_rx12(&keys)?;
        }
        Version::V13 => {
            let id = ConnectionId::new(&[1, 2, 3, 4, 5, 6, 7, 8]).context("too long")?;
            tx.set_peer_cid(id);
            rx.set_local_cid(id);
            let secret = Secret::new(&[seed; 48][..suite.hash_bytes()]).context("too long")?;
            tx.install_tx(3, suite, &secret)?;
            rx.install_rx(3, suite, &secret)?;
        }
    }
    Ok((tx, rx))
}

/// Nanoseconds that AES-128-GCM takes for `length` bytes in place, with a header's worth of additional data.
fn aead_alone(length: usize) -> Result<(f64, f64)> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16])?);
    let nonce = || Nonce::assume_unique_for_key([3; 12]);
    let stride = length + AES_128_GCM.tag_len();
    let mut buffer = vec![0x45; stride * RECORDS];
    let (mut best_seal, mut best_open) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for record in buffer.chunks_exact_mut(stride) {
            let (content, tag) = record.split_at_mut(length);
            tag.copy_from_slice(key.seal_in_place_separate_tag(nonce(), Aad::from([0; 13]), content)?.as_ref());
        }
        best_seal = best_seal.min(begun.elapsed().as_secs_f64() * 1e9 / RECORDS as f64);
        let begun = Instant::now();
        for record in buffer.chunks_exact_mut(stride) {
            key.open_in_place(nonce(), Aad::from([0; 13]), record)?;
        }
        best_open = best_open.min(begun.elapsed().as_secs_f64() * 1e9 / RECORDS as f64);
    }
    Ok((best_seal, best_open))
}

/// Nanoseconds to seal and to open a record of `length` bytes in a session that is in the cache.
fn hot(version: Version, suite: Suite, length: usize) -> Result<(f64, f64)> {
    let (mut tx, mut rx) = pair(version, suite, 7)?;
    let packet = vec![0x45; length];
    let stride = length + tx.overhead();
    let mut sealed = vec![0; stride * RECORDS];
    let (mut best_seal, mut best_open) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for record in sealed.chunks_exact_mut(stride) {
            tx.seal(ContentType::ApplicationData, &packet, record)?;
        }
        best_seal = best_seal.min(begun.elapsed().as_secs_f64() * 1e9 / RECORDS as f64);
        let (begun, mut opened) = (Instant::now(), 0);
        for record in sealed.chunks_exact_mut(stride) {
            opened += usize::from(open(&mut rx, record));
        }
        best_open = best_open.min(begun.elapsed().as_secs_f64() * 1e9 / RECORDS as f64);
        if opened != RECORDS {
            bail!("{opened} of {RECORDS} records were opened");
        }
    }
    Ok((best_seal, best_open))
}

/// The same where each session is visited after all others, for `per_visit` records.
fn cold(pairs: &mut [Pair], per_visit: usize) -> Result<(f64, f64)> {
    let packet = vec![0x45; COLD_BYTES];
    let stride = COLD_BYTES + pairs.first().context("no session")?.0.overhead();
    let mut sealed = vec![0; stride * COLD_RECORDS];
    let order = shuffled();
    let (mut seal_seconds, mut open_seconds, mut records) = (0.0, 0.0, 0);
    for visited in order.chunks_exact(COLD_RECORDS / per_visit) {
        let begun = Instant::now();
        for (session, records) in visited.iter().zip(sealed.chunks_exact_mut(stride * per_visit)) {
            for record in records.chunks_exact_mut(stride) {
                pairs[*session].0.seal(ContentType::ApplicationData, &packet, record)?;
            }
        }
        seal_seconds += begun.elapsed().as_secs_f64();
        let (begun, mut opened) = (Instant::now(), 0);
        for (session, records) in visited.iter().zip(sealed.chunks_exact_mut(stride * per_visit)) {
            for record in records.chunks_exact_mut(stride) {
                opened += usize::from(open(&mut pairs[*session].1, record));
            }
        }
        open_seconds += begun.elapsed().as_secs_f64();
        records += COLD_RECORDS;
        if opened != COLD_RECORDS {
            bail!("{opened} of {COLD_RECORDS} records were opened");
        }
    }
    Ok((seal_seconds * 1e9 / records as f64, open_seconds * 1e9 / records as f64))
}

fn open(rx: &mut RecordLayer, datagram: &mut [u8]) -> bool {
    matches!(rx.open(datagram, &mut 0), Open::Record(_))
}

/// All sessions, in an order that no prefetcher follows.
fn shuffled() -> Vec<usize> {
    let mut order: Vec<usize> = (0..SESSIONS).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..SESSIONS).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(at, (state % (at as u64 + 1)) as usize);
    }
    order
}

/// Nanoseconds to decode one connection id.
fn decode() -> f64 {
    let codec = ConnectionIdCodec::new(&[7; 16]);
    let id = codec.encode(Location { worker: 1, slot: 77, generation: 3 }, 9);
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..1_000 {
            black_box(codec.decode(black_box(&id)));
        }
        best = best.min(begun.elapsed().as_secs_f64() * 1e9 / 1_000.0);
    }
    best
}
