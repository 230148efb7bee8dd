//! One side of an association by BoringSSL, as a program of its own.

use std::io::{self, Read, Write};
use std::net::UdpSocket;

use anyhow::{Context, Result, bail};
use boring::error::ErrorStack;
use boring::ssl::{
    ErrorCode, HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod,
    SslRef, SslStream, SslStreamBuilder, SslVerifyMode, SslVersion,
};
use foreign_types_shared::ForeignTypeRef;

use crate::certificates::{Certificates, Shown};

use super::options::{Asked, PeerOptions, Side, Talk, say_packet};

/// A connected socket, of which each read and each write is one datagram.
#[derive(Debug)]
pub struct Datagrams(pub UdpSocket);

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.recv(buffer) {
            // What an earlier datagram met with.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(io::ErrorKind::WouldBlock.into()),
            received => received,
        }
    }
}

impl Write for Datagrams {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        // A datagram that cannot be sent is lost.
        Ok(self.0.send(datagram).unwrap_or(datagram.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs until the other side closes or, for a client, until enough has come back.
pub fn run(options: &PeerOptions) -> Result<()> {
    let context = context(options)?.build();
    let socket = options.socket()?;
    let end =
        shake_hands(ssl(&context, options)?, Datagrams(socket), options.side).and_then(|stream| talk(stream, options));
    if let Err(error) = &end {
        println!("failed error=\"{error:#}\"");
    }
    end
}

/// The options of an end in the process of ours, without any address.
pub fn in_process(side: Side, version: &str, certificates: &Certificates, shown: Shown) -> Result<PeerOptions> {
    let (cert, key) = certificates.theirs(shown).context("a certificate")?;
    Ok(PeerOptions {
        side,
        address: [127, 0, 0, 1].into(),
        port: 0,
        version: version.to_owned(),
        cert: Some(cert),
        key: Some(key),
        ca: Some(certificates.ca()),
        group: None,
        exporter: None,
        mtu: None,
        count: 1,
        text: String::new(),
        update_keys: 0,
        client_cert: Asked::Required,
    })
}

/// A context of one version, with what the options say.
pub fn context(options: &PeerOptions) -> Result<SslContextBuilder> {
    let mut context = SslContext::builder(SslMethod::dtls())?;
    let (oldest, version) = match options.version.as_str() {
        "1.2" => (SslVersion::DTLS1_2, SslVersion::DTLS1_2),
        "1.3" => (SslVersion::DTLS1_3, SslVersion::DTLS1_3),
        "both" => (SslVersion::DTLS1_2, SslVersion::DTLS1_3),
        other => bail!("no such version: {other}"),
    };
    context.set_min_proto_version(Some(oldest))?;
    context.set_max_proto_version(Some(version))?;
    if let Some(cert) = &options.cert {
        context.set_certificate_chain_file(cert)?;
    }
    if let Some(key) = &options.key {
        context.set_private_key_file(key, SslFiletype::PEM)?;
    }
    if let Some(ca) = &options.ca {
        context.set_ca_file(ca)?;
    }
    if let Some(group) = &options.group {
        // In DTLS 1.2 the other side's certificate must be of a curve that is offered too (RFC 8422 §5.3).
        context.set_curves_list(match (group.as_str(), version) {
            ("x25519mlkem768", _) => "X25519MLKEM768",
            ("x25519", SslVersion::DTLS1_2) => "X25519:P-256",
            ("x25519", _) => "X25519",
            ("p256", _) => "P-256",
            ("p384", SslVersion::DTLS1_2) => "P-384:P-256",
            ("p384", _) => "P-384",
            (other, _) => bail!("no such group: {other}"),
        })?;
    }
    // By itself it offers no Ed25519.
    context.set_sigalgs_list(
        "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ed25519:rsa_pss_rsae_sha256:rsa_pkcs1_sha256",
    )?;
    context.set_verify(match (options.side, options.client_cert) {
        (Side::Server, Asked::None) => SslVerifyMode::NONE,
        _ => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
    });
    Ok(context)
}

/// An end of `context`.
pub fn ssl(context: &SslContext, options: &PeerOptions) -> Result<Ssl> {
    let mut ssl = Ssl::new(context)?;
    if let Some(mtu) = options.mtu {
        ssl.set_mtu(mtu)?;
    }
    Ok(ssl)
}

fn shake_hands(ssl: Ssl, socket: Datagrams, side: Side) -> Result<SslStream<Datagrams>> {
    let mut builder = SslStreamBuilder::new(ssl, socket);
    match side {
        Side::Client => builder.set_connect_state(),
        Side::Server => builder.set_accept_state(),
    }
    let mut result = builder.handshake();
    loop {
        match result {
            Ok(stream) => return Ok(stream),
            Err(HandshakeError::WouldBlock(middle)) => {
                handle_timeout(middle.ssl());
                result = middle.handshake();
            }
            Err(HandshakeError::SetupFailure(error)) => bail!("setup: {error}"),
            Err(HandshakeError::Failure(middle)) => return Err(failed(&middle)),
        }
    }
}

fn failed(middle: &MidHandshakeSslStream<Datagrams>) -> anyhow::Error {
    say_alert(middle.error().ssl_error());
    anyhow::anyhow!("handshake: {}", middle.error())
}

/// Has BoringSSL repeat what is due.
pub fn handle_timeout(ssl: &SslRef) {
    // SAFETY: the pointer is that of a live connection, which nobody else uses: the process has one thread.
    unsafe { boring_sys::DTLSv1_handle_timeout(ssl.as_ptr()) };
}

/// Has BoringSSL change keys both ways (RFC 9147 §8).
fn update_keys(ssl: &SslRef) -> Result<()> {
    const REQUESTED: std::ffi::c_int = 1;
    // SAFETY: as in `handle_timeout`.
    let done = unsafe { boring_sys::SSL_key_update(ssl.as_ptr(), REQUESTED) };
    if done == 1 { Ok(()) } else { bail!("key update: {}", ErrorStack::get()) }
}

/// BoringSSL numbers its error of a received alert 1000 and the alert.
fn say_alert(stack: Option<&ErrorStack>) {
    const ALERTS: std::ops::RangeInclusive<i32> = 1_000..=1_255;
    let mut codes = stack
        .into_iter()
        .flat_map(ErrorStack::errors)
        .filter_map(|error| error.library_reason(boring_sys::ERR_LIB_SSL));
    if let Some(alert) = codes.find(|code| ALERTS.contains(code)).map(|code| code - ALERTS.start()) {
        println!("alert received={alert}");
    }
}

fn talk(mut stream: SslStream<Datagrams>, options: &PeerOptions) -> Result<()> {
    println!("established version={} group={:?}", stream.ssl().version_str(), stream.ssl().curve_name());
    if let Some(label) = &options.exporter {
        let mut exported = [0; 32];
        stream.ssl().export_keying_material(&mut exported, label, Some(&[]))?;
        println!("exporter value={}", exported.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    let mut talk = Talk::new(options);
    let mut buffer = vec![0; 1 << 14];
    loop {
        if options.side == Side::Client
            && let Some(text) = talk.due()?
        {
            stream.ssl_write(text.as_bytes()).context("write")?;
        }
        match stream.ssl_read(&mut buffer) {
            Ok(length) => {
                let packet = &buffer[..length];
                say_packet(packet);
                if options.side == Side::Server {
                    stream.ssl_write(packet).context("write")?;
                } else if talk.is_done(packet) {
                    println!("closed");
                    drop(stream.shutdown());
                    return Ok(());
                } else if options.update_keys > 0 {
                    update_keys(stream.ssl())?;
                }
            }
            Err(error) if error.code() == ErrorCode::WANT_READ => handle_timeout(stream.ssl()),
            Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                println!("closed");
                drop(stream.shutdown());
                return Ok(());
            }
            Err(error) => {
                say_alert(error.ssl_error());
                bail!("read: {error}");
            }
        }
    }
}
