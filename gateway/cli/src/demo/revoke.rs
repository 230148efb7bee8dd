//! Chapter 6: a renewal that loses no packet, and a revocation that is there before the administrator's prompt is back.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringfort_netlab::address;
use ringfort_netlab::pace::{Flow, Way, monotonic};
use ringfort_stage::Realm;
use serde_json::Value;

use super::report::Report;
use super::story::{ALICE, Cast, FLOW_PORT, PATIENCE, STREAM_PORT, millis};

/// Datagrams per second each way.
const PER_SECOND: u32 = 12_000;
/// The least that arrives of them where it is measured, and where the story is only told: senders share the machine's cores with
/// everything else that runs there, which may be much.
pub(super) const MEASURED_MIN: u64 = 10_000;
const TOLD_MIN: u64 = 1_000;
/// How long nothing may arrive before it counts as silence.
const SILENCE: Duration = Duration::from_secs(1);
/// Pause between two bytes of the established TCP connection.
const TICK: Duration = Duration::from_millis(1);

/// What passes between alice and the first site until it is cut.
pub(super) struct Traffic {
    pub(super) flow: Flow,
    stream: Ticker,
}

/// How long after the command the last packet of each flow arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) up: Duration,
    pub(super) down: Duration,
    pub(super) stream: Duration,
}

impl Cut {
    /// The last of all.
    pub(super) fn last(&self) -> Duration {
        self.up.max(self.down).max(self.stream)
    }
}

impl Traffic {
    /// Begins: datagrams both ways and an established TCP connection.
    pub(super) fn start(realm: &Realm) -> Result<Self> {
        let lab = &realm.stage.lab;
        let host = address::site_host(0, 0).0;
        let (udp, tcp): (SocketAddr, SocketAddr) = ((host, FLOW_PORT).into(), (host, STREAM_PORT).into());
        let (far, listener) =
            lab.run_in(lab.site(), || std::io::Result::Ok((UdpSocket::bind(udp)?, TcpListener::bind(tcp)?)))??;
        let (near, stream) = lab.run_in(lab.client(ALICE)?, || {
            let near = UdpSocket::bind(("0.0.0.0", 0))?;
            near.connect(udp)?;
            std::io::Result::Ok((near, TcpStream::connect_timeout(&tcp, PATIENCE)?))
        })??;
        let traffic = Self { flow: Flow::start(near, far, PER_SECOND)?, stream: Ticker::start(stream, &listener)? };
        traffic.wait(|traffic| {
            traffic.flow.up().received() > 0
                && traffic.flow.down().received() > 0
                && traffic.stream.last() > Duration::ZERO
        })?;
        Ok(traffic)
    }

    fn wait(&self, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = monotonic()?;
        while !holds(self) {
            ensure!(monotonic()? - begun < PATIENCE, "expected packets to pass, and they did not");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// When each flow's last packet arrived, after `begun`; an error if one arrived within [`SILENCE`] while the senders went on.
    /// Meanwhile `work` is done.
    pub(super) fn prove_cut(&self, begun: Duration, work: impl FnOnce() -> Result<()>) -> Result<Cut> {
        // What was under way has arrived once the command has ended; the silence is counted from then.
        let deadline = monotonic()? + PATIENCE;
        let last = || self.flow.up().last_received().max(self.flow.down().last_received()).max(self.stream.last());
        let sent = (self.flow.up().sent(), self.flow.down().sent());
        work()?;
        loop {
            let quiet = monotonic()?.saturating_sub(last());
            if quiet >= SILENCE {
                break;
            }
            ensure!(monotonic()? < deadline, "packets still arrive {PATIENCE:?} after the revocation");
            std::thread::sleep(SILENCE - quiet);
        }
        let least = TOLD_MIN * SILENCE.as_secs();
        let sent_since = (self.flow.up().sent() - sent.0, self.flow.down().sent() - sent.1);
        ensure!(
            sent_since.0 > least && sent_since.1 > least,
            "the senders stopped by themselves: {sent_since:?} datagrams in the silence"
        );
        let after = |at: Duration| at.saturating_sub(begun);
        Ok(Cut {
            up: after(self.flow.up().last_received()),
            down: after(self.flow.down().last_received()),
            stream: after(self.stream.last()),
        })
    }
}

/// Renewal with grace: the administrator demands it, alice's machine renews by itself, and not one packet is lost.
pub(super) fn renew(realm: &Realm, report: &mut Report, cast: &Cast, traffic: &Traffic) -> Result<()> {
    report.step("renew", "", |what| {
        let sessions = |status: &Value| status["sessions"].as_array().cloned().unwrap_or_default();
        let ends_at = |status: &Value| sessions(status).iter().find_map(|session| session["ends_at"].as_u64());
        let before = cast.gateways.first().context("no gateway")?.status()?;
        let serial = before["revocations"]["n"].as_u64();
        let received = (traffic.flow.up().received(), traffic.flow.down().received());
        let rates = Rates::begin(traffic);
        realm.admin(&["renew", "user", ALICE, "--grace", "30", "--reason", "the demo wants it"])?.ok()?;
        // The new tokens lift the deadline that the demand has set.
        let grace_over = before["controller"]["time"].as_u64().context("no time")? + 60;
        for gateway in &cast.gateways {
            gateway.wait_until(PATIENCE, |status| {
                status["revocations"]["n"].as_u64() > serial && ends_at(status).is_some_and(|at| at > grace_over)
            })?;
        }
        // A Gateway that asked after the tokens had come asks for another; it is not to be caught by what comes next.
        cast.alice.wait_until(PATIENCE, |status| status["renewing"] == false)?;
        let lost = traffic.flow.up().missing() + traffic.flow.down().missing();
        let passed = traffic.flow.up().received() - received.0 + traffic.flow.down().received() - received.1;
        ensure!(lost == 0, "{lost} packets were lost over the renewal");
        let (up, down) = rates.end(traffic, TOLD_MIN)?;
        *what = format!(
            "with 30 s of grace: new tokens are in force; {passed} packets passed meanwhile ({up}/s up, {down}/s down), none was lost"
        );
        Ok(())
    })
}

/// Revocation at once. During the second in which silence is proved, `meanwhile` is told.
pub(super) fn revoke(
    realm: &Realm,
    report: &mut Report,
    cast: &Cast,
    traffic: &Traffic,
    meanwhile: impl FnOnce(&mut Report) -> Result<()>,
) -> Result<()> {
    let begun = monotonic()?;
    report.step("revoke", "the operator revokes alice", |_| {
        realm.admin(&["revoke", "user", ALICE, "--reason", "left the company"])?.ok().map(drop)
    })?;
    let cut = traffic.prove_cut(begun, || meanwhile(report))?;
    report.step("cut", "", |what| {
        let status = cast.gateways.first().context("no gateway")?.status()?;
        let in_force = status["revocation_applied_us"]["last"].as_u64().context("no revocation was applied")?;
        *what = format!(
            "last packet after the command began: up {:.1} ms, down {:.1} ms, TCP {:.1} ms; \
             in force {:.1} ms after the push; then a second of silence, the senders going on",
            millis(cut.up),
            millis(cut.down),
            millis(cut.stream),
            in_force as f64 / 1_000.0
        );
        let goodbye = cast.alice.wait_until(PATIENCE, |status| !status["last_goodbye"].is_null())?;
        ensure!(goodbye["last_goodbye"]["code"] == "revoked", "alice's machine was told {}", goodbye["last_goodbye"]);
        Ok(())
    })?;
    report.measured("revoke to last packet ms", millis(cut.last()).into());
    Ok(())
}

/// Datagrams per second that arrive each way, from a moment on.
pub(super) struct Rates([(u64, Duration); 2]);

impl Rates {
    pub(super) fn begin(traffic: &Traffic) -> Self {
        Self([traffic.flow.up(), traffic.flow.down()].map(|way| (way.received(), way.last_received())))
    }

    /// # Errors
    /// When less than `least` arrived either way.
    pub(super) fn end(self, traffic: &Traffic, least: u64) -> Result<(u64, u64)> {
        let rate = |(received, at): (u64, Duration), way: &Way| {
            let time = way.last_received().saturating_sub(at).as_secs_f64();
            ((way.received() - received) as f64 / time.max(1e-3)) as u64
        };
        let (up, down) = (rate(self.0[0], traffic.flow.up()), rate(self.0[1], traffic.flow.down()));
        if up < least || down < least {
            bail!("expected {least} packets per second each way, found {up} and {down}");
        }
        Ok((up, down))
    }
}

/// An established TCP connection on which a byte goes out every millisecond, and when the last one arrived.
struct Ticker {
    last: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    ends: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Ticker {
    fn start(mut near: TcpStream, listener: &TcpListener) -> Result<Self> {
        let (mut far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        near.set_write_timeout(Some(Duration::from_millis(20)))?;
        far.set_read_timeout(Some(Duration::from_millis(20)))?;
        let ends = [near.try_clone()?, far.try_clone()?];
        let (last, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (stopped, arrived, stopped_too) = (Arc::clone(&stop), Arc::clone(&last), Arc::clone(&stop));
        let sender = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Once it is cut there is an error each time, and it goes on trying.
                drop(near.write_all(&[1]));
                std::thread::sleep(TICK);
            }
        });
        let receiver = std::thread::spawn(move || {
            let mut bytes = [0; 256];
            while !stopped_too.load(Ordering::Relaxed) {
                match far.read(&mut bytes) {
                    Ok(1..) => {
                        if let Ok(now) = monotonic() {
                            arrived.store(now.as_nanos() as u64, Ordering::Release);
                        }
                    }
                    // A connection that was reset answers at once, for ever.
                    Ok(0) => std::thread::sleep(TICK),
                    Err(_) => {}
                }
            }
        });
        Ok(Self { last, stop, ends, threads: vec![sender, receiver] })
    }

    fn last(&self) -> Duration {
        Duration::from_nanos(self.last.load(Ordering::Acquire))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for end in &self.ends {
            // Wakes whoever waits there; the connection may be gone already.
            drop(end.shutdown(Shutdown::Both));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}
