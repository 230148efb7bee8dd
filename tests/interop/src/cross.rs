//! Records across: our engine and BoringSSL shake hands in memory, BoringSSL tells its secrets (as for `SSLKEYLOGFILE`, and in
//! DTLS 1.2 its key block), and record layers that know nothing but these open what either side sealed, and seal what our side
//! opens (RFC 9147 §4, RFC 8446 §7; RFC 6347 §4.1, RFC 5246 §6.3). So both key schedules are the same, and our record layer is
//! that of others, without either having to be believed about it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boring::ssl::{ErrorCode, HandshakeError, MidHandshakeSslStream, SslRef, SslStream, SslStreamBuilder};
use foreign_types_shared::ForeignTypeRef;
use ringfort_dtls::record::{ContentType, KeyError, Keys12, Open, RecordLayer, Secret, Suite};
use ringfort_dtls::{
    AddressValidation, Association, ClientAuth, ClientConfig, Event, Opening, PeerPolicy, Received, ServerConfig,
    Settings,
};
use ringfort_identity::{Credentials, PeerIdentity, VerifyError};
use ringfort_types::{BootInstant, UnixSeconds};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::certificates::{Certificates, Shown};
use crate::matrix::HALVES;
use crate::peers::boring as peer;
use crate::peers::options::Side;
use crate::peers::{EXPORTER_LABEL, Ours, Version};
use crate::wires::{Memory, Wires};

const NOW: BootInstant = BootInstant::from_nanos(3_600_000_000_000);
/// Within what the certificates of these tests are valid for.
const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);
/// The epoch of packets in DTLS 1.3.
const PACKETS: u64 = 3;
/// More round trips than any handshake needs.
const ROUNDS_MAX: usize = 50;
const UP: &[u8] = b"sealed by the client";
const DOWN: &[u8] = b"sealed by the server";

/// Runs all of it; says how much was compared.
pub fn run(certificates: &Certificates) -> Result<String> {
    let mut records = 0;
    for (version, ours) in HALVES {
        for suite in Suite::ALL {
            let what = || format!("DTLS {}, {ours:?}, {suite:?}", version.name());
            records += one(certificates, version, ours, suite).with_context(what)?;
        }
    }
    Ok(format!(
        "{records} records under BoringSSL's secrets, in DTLS 1.3 in both roles and in 1.2 as a server, in all {} suites, \
         opened as they should, and the exported values agree",
        Suite::ALL.len()
    ))
}

/// One association; gives the number of records compared.
fn one(certificates: &Certificates, version: Version, ours: Ours, suite: Suite) -> Result<usize> {
    let wires = Wires::default();
    let keylog = Arc::new(Mutex::new(Vec::new()));
    let mut other = Other::start(certificates, version, ours, &wires, &keylog)?;
    let mut association = match ours {
        Ours::Client => Some(our_client(certificates, suite)?),
        Ours::Server => None,
    };
    let server = server_config(certificates, suite)?;
    for _ in 0..ROUNDS_MAX {
        other = other.go_on()?;
        while let Some(mut datagram) = wires.to_us.take() {
            if association.is_none() {
                let opening = Opening::unvalidated(&datagram).context("the first datagram begins with no hello")?;
                association = Some(Association::server(&server, &opening, None, [7; 32], NOW, UNIX_TIME));
            }
            if let Some(association) = &mut association {
                association.handle_datagram(&mut datagram, NOW, |_| {});
            }
        }
        while let Some(datagram) = association.as_mut().and_then(Association::poll_transmit) {
            wires.to_other.put(datagram.into_vec());
        }
    }
    let (Other::Done(mut stream), Some(mut association)) = (other, association) else { bail!("no association") };
    match association.poll_event() {
        Some(Event::Established(_)) => {}
        event => bail!("not established on our side: {event:?}"),
    }
    let keys = match version {
        Version::V13 => secrets(&keylog.lock().unwrap_or_else(PoisonError::into_inner))?,
        Version::V12 => keys_12(stream.ssl(), suite)?,
    };
    compare(&mut association, &mut stream, &wires, keys, (ours, suite))
}

fn compare(
    association: &mut Association,
    stream: &mut SslStream<Memory>,
    wires: &Wires,
    [client, server]: [Keys; 2],
    (ours, suite): (Ours, Suite),
) -> Result<usize> {
    let mut records = 0;
    let (our_secret, their_secret, our_text, their_text) = match ours {
        Ours::Server => (&server, &client, DOWN, UP),
        Ours::Client => (&client, &server, UP, DOWN),
    };

    // What we seal opens under the secret that BoringSSL told, and for BoringSSL itself.
    let mut record = vec![0; our_text.len() + association.overhead()];
    let length = association.seal(our_text, &mut record).context("our side seals nothing")?;
    record.truncate(length);
    wires.to_other.put(record.clone());
    ensure!(open(their_secret, suite, &mut record.clone()).is_err(), "our record opens under the wrong secret");
    ensure!(open(our_secret, suite, &mut record)? == our_text, "our record says something else under their secret");
    let mut buffer = [0; 100];
    let length = stream.ssl_read(&mut buffer).context("BoringSSL reads our record")?;
    ensure!(buffer.get(..length) == Some(our_text), "our record says something else to BoringSSL");
    records += 2;

    // What BoringSSL seals opens under the secret that it told, and for us.
    stream.ssl_write(their_text).context("BoringSSL writes")?;
    let mut record = wires.to_us.take_last().context("BoringSSL has written nothing")?;
    ensure!(open(their_secret, suite, &mut record.clone())? == their_text, "their record says something else");
    ensure!(deliver(association, &mut record) == [their_text.to_vec()], "their record says something else to us");
    records += 2;

    // What is sealed under that secret by nobody's association is opened by ours. The first numbers are used up.
    let mut forger = RecordLayer::new();
    their_secret.install_tx(&mut forger, suite).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut delivered = Vec::new();
    for _ in 0..8 {
        let mut record = vec![0; 64];
        let length = forger
            .seal(ContentType::ApplicationData, b"under their secret", &mut record)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        record.truncate(length);
        delivered.extend(deliver(association, &mut record));
    }
    ensure!(!delivered.is_empty(), "nothing that is sealed under their secret is opened by us");
    ensure!(delivered.iter().all(|packet| packet == b"under their secret"), "it says something else to us");
    records += delivered.len();

    let exported = association.exporter().context("no exporter")?.export(EXPORTER_LABEL, &[]);
    let mut theirs = [0; 32];
    stream.ssl().export_keying_material(&mut theirs, EXPORTER_LABEL, Some(&[]))?;
    ensure!(exported == theirs, "the exported values differ");
    Ok(records)
}

fn deliver(association: &mut Association, record: &mut [u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    association.handle_datagram(record, NOW, |received| {
        if let Received::Packet { bytes, .. } = received {
            packets.push(bytes.to_vec());
        }
    });
    packets
}

/// What one direction's records are sealed with.
enum Keys {
    V13(Secret),
    V12(Keys12),
}

impl Keys {
    fn install_rx(&self, records: &mut RecordLayer, suite: Suite) -> Result<(), KeyError> {
        match self {
            Self::V13(secret) => records.install_rx(PACKETS, suite, secret),
            Self::V12(keys) => records.install_rx12(keys),
        }
    }

    fn install_tx(&self, records: &mut RecordLayer, suite: Suite) -> Result<(), KeyError> {
        match self {
            Self::V13(secret) => records.install_tx(PACKETS, suite, secret),
            Self::V12(keys) => records.install_tx12(keys),
        }
    }
}

/// The client's secret and the server's.
fn secrets(keylog: &[String]) -> Result<[Keys; 2]> {
    let of = |label| secret(keylog, label).map(Keys::V13);
    Ok([of("CLIENT_TRAFFIC_SECRET_0")?, of("SERVER_TRAFFIC_SECRET_0")?])
}

/// The client's keys and the server's, from BoringSSL's key block (RFC 5246 §6.3): both write keys, then both fixed IVs, as the
/// suites have no MAC of their own.
fn keys_12(ssl: &SslRef, suite: Suite) -> Result<[Keys; 2]> {
    let (key, iv) = (suite.key_bytes(), suite.fixed_iv_bytes_12());
    let mut block = vec![0; 2 * (key + iv)];
    // SAFETY: the pointer is that of a live connection, which nobody else uses.
    let bytes = unsafe { boring_sys::SSL_get_key_block_len(ssl.as_ptr()) };
    ensure!(bytes == block.len(), "a key block of {bytes} bytes");
    // SAFETY: as above, and the block is of the length that is said.
    let done = unsafe { boring_sys::SSL_generate_key_block(ssl.as_ptr(), block.as_mut_ptr(), block.len()) };
    ensure!(done == 1, "no key block");
    let (keys, ivs) = block.split_at(2 * key);
    let of = |half: usize| {
        Keys12::new(suite, &keys[half * key..(half + 1) * key], &ivs[half * iv..(half + 1) * iv])
            .map(Keys::V12)
            .map_err(|error| anyhow::anyhow!("{error}"))
    };
    Ok([of(0)?, of(1)?])
}

/// Opens a record with nothing but the secret of its sender.
fn open(secret: &Keys, suite: Suite, record: &mut [u8]) -> Result<Vec<u8>> {
    let mut reader = RecordLayer::new();
    secret.install_rx(&mut reader, suite).map_err(|error| anyhow::anyhow!("{error}"))?;
    match reader.open(record, &mut 0) {
        Open::Record(opened) if opened.content_type == ContentType::ApplicationData => {
            Ok(record.get(opened.content).unwrap_or_default().to_vec())
        }
        other => bail!("it does not open: {other:?}"),
    }
}

/// A secret from lines `LABEL CLIENT_RANDOM SECRET`.
fn secret(keylog: &[String], label: &str) -> Result<Secret> {
    let line = keylog.iter().find_map(|line| line.strip_prefix(label)).with_context(|| format!("no {label} told"))?;
    let hex = line.split_whitespace().nth(1).context("a line without a secret")?;
    let bytes = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2).unwrap_or("x"), 16))
        .collect::<Result<Vec<u8>, _>>()?;
    Secret::new(&bytes).context("a secret longer than any")
}

/// Lets everybody pass: who is whom is not what is tested here.
#[derive(Debug)]
pub struct Anybody;

impl PeerPolicy for Anybody {
    fn judge(&self, _: &[CertificateDer<'_>], _: UnixSeconds) -> Result<Option<PeerIdentity>, VerifyError> {
        Ok(None)
    }
}

fn settings(suite: Suite) -> Settings {
    Settings { suites: vec![suite], protocol: None, address_validation: AddressValidation::None, ..Settings::default() }
}

/// What our end shows.
pub fn credentials(certificates: &Certificates, shown: Shown) -> Result<Credentials> {
    let (chain, key) = certificates.ours(shown).context("a certificate")?;
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<_, _>>()?;
    Ok(Credentials::new(chain, PrivatePkcs8KeyDer::from_pem_file(key)?)?)
}

fn server_config(certificates: &Certificates, suite: Suite) -> Result<Arc<ServerConfig>> {
    let clients = ClientAuth::Required(Arc::new(Anybody));
    Ok(Arc::new(ServerConfig::with_settings(&credentials(certificates, Shown::P256)?, clients, settings(suite))?))
}

fn our_client(certificates: &Certificates, suite: Suite) -> Result<Association> {
    let own = credentials(certificates, Shown::P256)?;
    let config = Arc::new(ClientConfig::with_settings(Some(&own), Arc::new(Anybody), settings(suite))?);
    Ok(Association::client(&config, None, [8; 32], NOW, UNIX_TIME))
}

/// BoringSSL's end.
enum Other {
    Start(SslStreamBuilder<Memory>),
    Middle(MidHandshakeSslStream<Memory>),
    Done(SslStream<Memory>),
}

impl Other {
    fn start(
        certificates: &Certificates,
        version: Version,
        ours: Ours,
        wires: &Wires,
        keylog: &Arc<Mutex<Vec<String>>>,
    ) -> Result<Self> {
        let side = if ours == Ours::Server { Side::Client } else { Side::Server };
        let options = peer::in_process(side, version.name(), certificates, Shown::P256)?;
        let mut context = peer::context(&options)?;
        let keylog = Arc::clone(keylog);
        context.set_keylog_callback(move |_, line| {
            keylog.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        });
        let ssl = peer::ssl(&context.build(), &options)?;
        let mut builder = SslStreamBuilder::new(ssl, Memory(wires.clone()));
        match options.side {
            Side::Client => builder.set_connect_state(),
            Side::Server => builder.set_accept_state(),
        }
        Ok(Self::Start(builder))
    }

    fn go_on(self) -> Result<Self> {
        let result = match self {
            Self::Start(builder) => builder.handshake(),
            Self::Middle(middle) => middle.handshake(),
            Self::Done(mut stream) => {
                // ACKs and tickets are taken in passing.
                match stream.ssl_read(&mut [0; 100]) {
                    Err(error) if error.code() == ErrorCode::WANT_READ => return Ok(Self::Done(stream)),
                    other => bail!("BoringSSL reads {other:?} where nothing was sent"),
                }
            }
        };
        match result {
            Ok(stream) => Ok(Self::Done(stream)),
            Err(HandshakeError::WouldBlock(middle)) => Ok(Self::Middle(middle)),
            Err(error) => bail!("BoringSSL: {error}"),
        }
    }
}
