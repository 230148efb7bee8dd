//! What the record layer costs: sealing and opening one record, in a hot session and among 50,000, and decoding a
//! connection id.
//!
//! `cargo run --release -p ringfort-micro --bin record_speed`, pinned to one core (`taskset -c 1`). Figures are the best of
//! several rounds: everything else on the machine can only add to them. Sealing copies the packet behind the header;
//! opening is in place. The first line is what the AEAD takes alone, which no record layer can undercut: what is above it
//! is ours. The allocator is the binary's own, mimalloc.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ringfort_dtls::cid::{ConnectionId, ConnectionIdCodec, Location};
use ringfort_dtls::record::{ContentType, Keys12, Open, RecordLayer, Secret, Suite};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 2_000;
/// Records of one round: few enough that they stay in the second-level cache.
const RECORDS: usize = 64;
const SESSIONS: usize = 50_000;
/// Records opened between two looks at the clock, where the sessions are cold.
const COLD_RECORDS: usize = 512;
const ID: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[derive(Clone, Copy)]
enum Version {
    V12,
    V13,
}

fn main() -> Result<()> {
    println!("a record layer is {} bytes, without aws-lc's two contexts", size_of::<RecordLayer>());
    println!(
        "{:<34}{:>7}{:>10}{:>10}{:>10}{:>10}",
        "one hot session", "bytes", "seal ns", "Gbit/s", "open ns", "Gbit/s"
    );
    for length in [64, 1_300, 8_900] {
        let (seal, open) = aead_alone(length)?;
        print("AES-128-GCM alone, in place", length, seal, open);
    }
    for suite in Suite::ALL {
        for (version, id, name) in [(Version::V13, &ID[..], "1.3, 8-byte id"), (Version::V12, &[], "1.2")] {
            for length in [64, 1_300, 8_900] {
                let (seal, open) = hot(version, suite, id, length)?;
                print(&format!("{suite:?}, {name}"), length, seal, open);
            }
        }
    }
    println!("{SESSIONS} sessions in random order");
    for per_visit in [1, 8] {
        let (seal, open) = cold(per_visit, 1_300)?;
        print(&format!("Aes128GcmSha256, {per_visit} per visit"), 1_300, seal, open);
    }
    println!("{:<34}{:>17.1} ns", "connection id, decoded", decode()?);
    Ok(())
}

fn print(name: &str, length: usize, seal: f64, open: f64) {
    let rate = |ns: f64| length as f64 * 8.0 / ns;
    println!("{name:<34}{length:>7}{seal:>10.1}{:>10.1}{open:>10.1}{:>10.1}", rate(seal), rate(open));
}

fn pair(version: Version, suite: Suite, id: &[u8], seed: u8) -> Result<(Box<RecordLayer>, Box<RecordLayer>)> {
    let (mut tx, mut rx) = (Box::new(RecordLayer::new()), Box::new(RecordLayer::new()));
    let id = ConnectionId::new(id).context("too long")?;
    tx.set_peer_cid(id);
    rx.set_local_cid(id);
    match version {
        Version::V12 => {
            let keys = Keys12::new(suite, &[seed; 32][..suite.key_bytes()], &[1; 12][..suite.fixed_iv_bytes_12()])?;
            tx.install_tx12(&keys)?;
            rx.install_rx12(&keys)?;
        }
        Version::V13 => {
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
fn hot(version: Version, suite: Suite, id: &[u8], length: usize) -> Result<(f64, f64)> {
    let (mut tx, mut rx) = pair(version, suite, id, 7)?;
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
fn cold(per_visit: usize, length: usize) -> Result<(f64, f64)> {
    let suite = Suite::Aes128GcmSha256;
    let mut pairs = Vec::with_capacity(SESSIONS);
    for session in 0..SESSIONS {
        pairs.push(pair(Version::V13, suite, &ID, session as u8)?);
    }
    let packet = vec![0x45; length];
    let stride = length + RecordLayer::overhead(&pairs[0].0);
    let mut sealed = vec![0; stride * COLD_RECORDS];
    let order = shuffled();
    let (mut best_seal, mut best_open) = (f64::MAX, f64::MAX);
    for _ in 0..8 {
        let (mut seal, mut open_time, mut records) = (0.0, 0.0, 0);
        for visited in order.chunks_exact(COLD_RECORDS / per_visit) {
            let begun = Instant::now();
            for (session, records) in visited.iter().zip(sealed.chunks_exact_mut(stride * per_visit)) {
                for record in records.chunks_exact_mut(stride) {
                    pairs[*session].0.seal(ContentType::ApplicationData, &packet, record)?;
                }
            }
            seal += begun.elapsed().as_secs_f64();
            let (begun, mut opened) = (Instant::now(), 0);
            for (session, records) in visited.iter().zip(sealed.chunks_exact_mut(stride * per_visit)) {
                for record in records.chunks_exact_mut(stride) {
                    opened += usize::from(open(&mut pairs[*session].1, record));
                }
            }
            open_time += begun.elapsed().as_secs_f64();
            records += COLD_RECORDS;
            if opened != COLD_RECORDS {
                bail!("{opened} of {COLD_RECORDS} records were opened");
            }
        }
        best_seal = best_seal.min(seal * 1e9 / records as f64);
        best_open = best_open.min(open_time * 1e9 / records as f64);
    }
    Ok((best_seal, best_open))
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
fn decode() -> Result<f64> {
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
    Ok(best)
}
