//! One side of an association by dimpl, as a program of its own.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use dimpl::{Config, Dtls, DtlsCertificate, NamedGroup, Output};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::options::{Asked, PeerOptions, Side, Talk, say_packet};

/// Runs until the other side closes or, for a client, until enough has come back.
pub fn run(options: &PeerOptions) -> Result<()> {
    let mut config = Config::builder()
        .mtu(options.mtu.unwrap_or(1_200) as usize)
        .require_client_certificate(options.client_cert == Asked::Required)
        .use_server_cookie(false);
    if let Some(group) = &options.group {
        config = config.kx_groups(&[match group.as_str() {
            "p256" => NamedGroup::Secp256r1,
            "p384" => NamedGroup::Secp384r1,
            _ => NamedGroup::X25519,
        }]);
    }
    let (cert, key) = (options.cert.as_ref().context("--cert")?, options.key.as_ref().context("--key")?);
    let certificate = DtlsCertificate {
        certificate: CertificateDer::from_pem_file(cert)?.to_vec(),
        private_key: PrivatePkcs8KeyDer::from_pem_file(key)?.secret_pkcs8_der().to_vec(),
    };
    let config = Arc::new(config.build().map_err(|error| anyhow::anyhow!("{error:?}"))?);
    let now = Instant::now();
    let mut dtls = match options.version.as_str() {
        "1.2" => Dtls::new_12(config, certificate, now),
        "both" => Dtls::new_auto(config, certificate, now),
        _ => Dtls::new_13(config, certificate, now),
    };
    dtls.set_active(options.side == Side::Client);
    let end =
        Association { dtls, socket: options.socket()?, is_connected: false, is_closed: false, received: Vec::new() }
            .run(options);
    if let Err(error) = &end {
        println!("failed error=\"{error:#}\"");
    }
    end
}

struct Association {
    dtls: Dtls,
    socket: UdpSocket,
    is_connected: bool,
    is_closed: bool,
    received: Vec<Vec<u8>>,
}

impl Association {
    fn run(&mut self, options: &PeerOptions) -> Result<()> {
        let mut talk = Talk::new(options);
        let mut buffer = vec![0; 65_535];
        self.dtls.handle_timeout(Instant::now()).map_err(told)?;
        let mut timer = self.drain()?;
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    self.dtls.handle_packet(&buffer[..length]).map_err(told)?;
                    timer = self.drain()?;
                }
                Err(_) if timer <= Instant::now() => {
                    self.dtls.handle_timeout(Instant::now()).map_err(told)?;
                    timer = self.drain()?;
                }
                Err(_) => {}
            }
            for packet in std::mem::take(&mut self.received) {
                say_packet(&packet);
                if options.side == Side::Server {
                    self.dtls.send_application_data(&packet).map_err(told)?;
                } else if talk.is_done(&packet) {
                    println!("closed");
                    self.dtls.close().map_err(told)?;
                    self.drain()?;
                    return Ok(());
                }
            }
            if self.is_closed {
                println!("closed");
                return Ok(());
            }
            if self.is_connected
                && options.side == Side::Client
                && let Some(text) = talk.due()?
            {
                self.dtls.send_application_data(text.as_bytes()).map_err(told)?;
            }
            timer = timer.min(self.drain()?);
        }
    }

    fn drain(&mut self) -> Result<Instant> {
        let mut room = vec![0; 1 << 16];
        loop {
            match self.dtls.poll_output(&mut room) {
                Output::Packet(packet) => drop(self.socket.send(packet)),
                Output::ApplicationData(packet) => self.received.push(packet.to_vec()),
                Output::Connected => {
                    println!("established");
                    self.is_connected = true;
                }
                Output::CloseNotify => self.is_closed = true,
                Output::Timeout(at) => return Ok(at),
                _ => {}
            }
        }
    }
}

/// An error of dimpl's; an alert that it received is in its text.
fn told(error: dimpl::Error) -> anyhow::Error {
    let text = format!("{error:?}");
    let number: String = text
        .split_once("FatalAlert")
        .map(|(_, rest)| rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    if !number.is_empty() {
        println!("alert received={number}");
    }
    anyhow::anyhow!(text)
}
