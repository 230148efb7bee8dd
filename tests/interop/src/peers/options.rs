//! The command line that the peers written in Rust share with `wolfssl/peer.c`.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Asked {
    Required,
    None,
}

/// One side of an association by another library.
#[derive(Clone, Debug, Args)]
pub struct PeerOptions {
    pub side: Side,
    pub address: IpAddr,
    pub port: u16,
    #[arg(long, default_value = "1.3")]
    pub version: String,
    #[arg(long)]
    pub cert: Option<PathBuf>,
    #[arg(long)]
    pub key: Option<PathBuf>,
    #[arg(long)]
    pub ca: Option<PathBuf>,
    #[arg(long)]
    pub group: Option<String>,
    #[arg(long)]
    pub exporter: Option<String>,
    /// Longest datagram of a handshake; the library's own choice without
    #[arg(long)]
    pub mtu: Option<u32>,
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    #[arg(long, default_value = "hello")]
    pub text: String,
    #[arg(long, default_value_t = 0)]
    pub update_keys: u8,
    #[arg(long, default_value = "none")]
    pub client_cert: Asked,
}

impl PeerOptions {
    /// A socket that is connected to the other side; a server waits for its first datagram, which stays in the socket.
    pub fn socket(&self) -> Result<UdpSocket> {
        let there = SocketAddr::new(self.address, self.port);
        let socket = match self.side {
            Side::Client => {
                let socket = UdpSocket::bind((self.address, 0))?;
                socket.connect(there)?;
                socket
            }
            Side::Server => {
                let socket = UdpSocket::bind(there)?;
                println!("listening address={}", socket.local_addr()?);
                let (_, from) = socket.peek_from(&mut [0; 1]).context("waiting for a client")?;
                socket.connect(from)?;
                socket
            }
        };
        socket.set_read_timeout(Some(Duration::from_millis(10)))?;
        Ok(socket)
    }
}

/// A packet that has not come back in this time is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(500);
const SENDS_MAX: u32 = 20;

/// A client's part: the text again and again, until it has come back as often as it was asked for.
#[derive(Debug)]
pub struct Talk {
    text: String,
    left: u32,
    sends: u32,
    again_at: Instant,
}

impl Talk {
    pub fn new(options: &PeerOptions) -> Self {
        Self { text: options.text.clone(), left: options.count, sends: 0, again_at: Instant::now() }
    }

    /// The packet that is to be sent now.
    pub fn due(&mut self) -> Result<Option<String>> {
        if Instant::now() < self.again_at {
            return Ok(None);
        }
        anyhow::ensure!(self.sends < SENDS_MAX, "no answer");
        self.sends += 1;
        self.again_at = Instant::now() + RESEND_AFTER;
        Ok(Some(self.text.clone()))
    }

    /// Takes a packet; `true` if it was the last.
    pub fn is_done(&mut self, packet: &[u8]) -> bool {
        if packet == self.text.as_bytes() {
            self.left = self.left.saturating_sub(1);
            (self.sends, self.again_at) = (0, Instant::now());
        }
        self.left == 0
    }
}

/// The output line for a packet.
pub fn say_packet(packet: &[u8]) {
    println!("packet text=\"{}\"", String::from_utf8_lossy(packet));
}
