//! A tunnel that is to take the place of another one: its handshake runs beside the tunnel in use, which carries packets meanwhile.
//!
//! What the system routes into the interface must not be read by a tunnel that may not carry it yet, so there is no worker until
//! the tunnel is released. Of the socket no more is read than the handshake needs: what the Gateway sends from then on waits there
//! for the worker. What was lost on the way is sent again without that, by the association's own timers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use ringfort_dtls::ExporterSecret;
use ringfort_engine::Machine;
use ringfort_engine::client::{Client, Event, TunnelNumber};
use ringfort_io::UdpSocket;
use ringfort_worker::now;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest batch of datagrams that the kernel hands over at once, in bytes.
const BATCH_BYTES_MAX: usize = 65_535;
/// How long at most nothing is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a follower tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Its handshake is finished.
    Established {
        /// Which tunnel this is.
        tunnel: TunnelNumber,
        /// SHA-256 of the Gateway's certificate.
        digest: [u8; 32],
        /// What binds the session channel to the tunnel.
        exporter: ExporterSecret,
    },
    /// It was released: here is what carries packets from now on.
    Released(Box<Client>),
    /// It came to nothing.
    Failed(String),
}

/// A follower under way. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Follower {
    release: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Begins the handshake of `machine` over `socket`, which is connected to `gateway`.
    ///
    /// # Errors
    /// The socket cannot be used beside its owner.
    pub(crate) fn begin<F: Future<Output = ()> + Send>(
        machine: Client,
        socket: &UdpSocket,
        gateway: SocketAddr,
        tell: impl Fn(Told) -> F + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let socket = std::net::UdpSocket::from(socket.as_fd().try_clone_to_owned()?);
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let (release, released) = oneshot::channel();
        let task = tokio::spawn(async move {
            let told = match run(machine, &socket, gateway, released, &tell).await {
                Ok(machine) => Told::Released(Box::new(machine)),
                Err(why) => Told::Failed(why),
            };
            tell(told).await;
        });
        Ok(Self { release: Some(release), task })
    }

    /// Has it hand its machine over with [`Told::Released`].
    pub(crate) fn release(&mut self) {
        if let Some(release) = self.release.take() {
            // One that has ended has told so.
            release.send(()).ok();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run<F: Future<Output = ()> + Send>(
    mut machine: Client,
    socket: &tokio::net::UdpSocket,
    gateway: SocketAddr,
    mut released: oneshot::Receiver<()>,
    tell: &(impl Fn(Told) -> F + Send + Sync),
) -> Result<Client, String> {
    let mut buffer = vec![0; BATCH_BYTES_MAX];
    let mut is_established = false;
    loop {
        let at = now();
        if machine.poll_timeout().is_some_and(|due| due <= at.boot) {
            machine.handle_timeout(at);
        }
        while let Some(event) = machine.poll_event() {
            match event {
                Event::Established { tunnel, gateway, exporter } => {
                    is_established = true;
                    tell(Told::Established { tunnel, digest: *gateway.certificate_digest(), exporter }).await;
                }
                Event::Up(_) => {}
                Event::Down(reason) => return Err(reason.to_string()),
            }
        }
        send(&mut machine, socket).await.map_err(|error| error.to_string())?;
        let wait = machine.poll_timeout().map_or(LOOK_EVERY, |due| due.saturating_since(now().boot)).min(LOOK_EVERY);
        if is_established {
            match timeout(wait, &mut released).await {
                Ok(Ok(())) => return Ok(machine),
                Ok(Err(_)) => return Err("it is not wanted any more".into()),
                Err(_) => {}
            }
        } else if let Ok(received) = timeout(wait, socket.recv(&mut buffer)).await {
            match received {
                // Records tell their own length, so that a batch of datagrams reads as one.
                Ok(length) => {
                    machine.handle_outside(0, gateway, &mut buffer[..length], length, now());
                }
                // The network's word that nobody is there: the association's own patience decides.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

async fn send(machine: &mut Client, socket: &tokio::net::UdpSocket) -> io::Result<()> {
    let output = machine.output();
    for transmit in (0..output.outside.len()).map_while(|index| output.outside.transmit(index)) {
        for datagram in transmit.bytes.chunks(transmit.segment_bytes.max(1)) {
            match socket.send(datagram).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
    }
    machine.clear_output();
    Ok(())
}
