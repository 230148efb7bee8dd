//! A client without an interface: it shakes hands like any other and then sends what packets it is told to.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::{Association, ClientConfig, Event, Received};
use ringfort_engine::Message;
use ringfort_service::{credentials, random};
use ringfort_worker::now;

/// Longest datagram and longest packet.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// One tunnel, driven by hand. To be made in the namespace where it is to send.
#[derive(Debug)]
pub struct Probe {
    socket: UdpSocket,
    association: Association,
    received: VecDeque<Vec<u8>>,
}

impl Probe {
    /// Shakes hands with the Gateway at `gateway` as `user`, whose credentials lie in `folder`.
    ///
    /// # Errors
    /// When the handshake does not succeed within 5 s; the error says how it ended.
    pub fn connect(folder: &Path, user: &str, gateway: SocketAddr) -> Result<Self> {
        let mut probe = Self::connect_unbound(folder, user, gateway)?;
        probe.confirm(Instant::now() + HANDSHAKE_LIMIT)?;
        Ok(probe)
    }

    /// As [`Probe::connect`], without waiting until the Gateway has rules for it.
    ///
    /// # Errors
    /// As [`Probe::connect`].
    pub fn connect_unbound(folder: &Path, user: &str, gateway: SocketAddr) -> Result<Self> {
        let file = |suffix: &str| folder.join(format!("{user}.{suffix}"));
        let own = credentials::load(&file("pem"), &file("key"))?;
        let anchor = credentials::load_trust(&folder.join("ca.pem"))?;
        let start = now();
        let config = Arc::new(ClientConfig::new(&own, anchor)?);
        let any: SocketAddr = if gateway.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(gateway)?;
        let association = Association::client(&config, Some(ConnectionId::NONE), random()?, start.boot, start.unix);
        let mut probe = Self { socket, association, received: VecDeque::new() };
        let deadline = Instant::now() + HANDSHAKE_LIMIT;
        loop {
            probe.transmit()?;
            match probe.association.poll_event() {
                Some(Event::Established(_)) => break,
                Some(Event::ConnectionIdsWanted(_)) => {}
                Some(Event::Ended(reason)) => bail!("{user}: {reason}"),
                None if Instant::now() >= deadline => bail!("{user}: no handshake within {HANDSHAKE_LIMIT:?}"),
                None => probe.step(Duration::from_millis(20))?,
            }
        }
        probe.transmit()?;
        Ok(probe)
    }

    /// Sends one packet as it is.
    ///
    /// # Errors
    /// When the association has ended or the socket fails.
    pub fn send(&mut self, packet: &[u8]) -> Result<()> {
        let mut record = vec![0; packet.len() + self.association.overhead()];
        let length = self.association.seal(packet, &mut record).context("the association has ended")?;
        self.socket.send(&record[..length])?;
        Ok(())
    }

    /// The next packet that comes through the tunnel; `None` if none does within `limit`.
    ///
    /// # Errors
    /// When the association has ended or the socket fails.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(packet) = self.received.pop_front() {
                if !Message::is_message(&packet) {
                    return Ok(Some(packet));
                }
                continue;
            }
            if let Some(Event::Ended(reason)) = self.association.poll_event() {
                bail!("{reason}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.step(left)?;
            self.transmit()?;
        }
    }

    /// Sends bytes that are no record of this association.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn send_raw(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send(datagram).map(drop)
    }

    /// Our outer address.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Waits until the Gateway answers inside the tunnel: only then has it seen the end of the handshake.
    fn confirm(&mut self, deadline: Instant) -> Result<()> {
        while Instant::now() < deadline {
            self.send(&Message::Request.encode())?;
            self.step(Duration::from_millis(50))?;
            self.transmit()?;
            if self.received.iter().any(|packet| Message::decode(packet) == Some(Message::Reply)) {
                return Ok(());
            }
            if let Some(Event::Ended(reason)) = self.association.poll_event() {
                bail!("{reason}");
            }
        }
        bail!("the gateway does not answer inside the tunnel")
    }

    /// Takes one datagram if one comes within `limit`, and lets the association's timers run.
    fn step(&mut self, limit: Duration) -> Result<()> {
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        match self.socket.recv(&mut datagram) {
            Ok(length) => {
                let received = &mut self.received;
                let datagram = &mut datagram[..length];
                self.association.handle_datagram(datagram, now().boot, |got| {
                    if let Received::Packet { bytes, .. } = got {
                        received.push_back(bytes.to_vec());
                    }
                });
            }
            // ConnectionRefused is an ICMP message of an earlier datagram: nobody listens yet.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => return Err(error.into()),
        }
        self.association.handle_timeout(now().boot);
        Ok(())
    }

    fn transmit(&mut self) -> Result<()> {
        while let Some(datagram) = self.association.poll_transmit() {
            match self.socket.send(&datagram) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                sent => drop(sent?),
            }
        }
        Ok(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.association.close();
        // The Gateway may be gone already.
        drop(self.transmit());
    }
}
