//! What is counted, for Prometheus: `GET /metrics` in its text format 0.0.4, in the clear and for whoever reaches the address. It is
//! off unless `controller.toml` has `metrics = "127.0.0.1:9464"`, and belongs on loopback or on a network of its own.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ringfort_enrol::wall_clock;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::Shell;
use super::limits::{ACCEPT_PAUSE, HEADER_BYTES_MAX, HEADER_TIME};

/// Connections at a time; more wait.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection may live: a scrape takes milliseconds.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);
/// What every name begins with.
const PREFIX: &str = "ringfort_controller";
/// The text format.
const FORMAT: &str = "text/plain; version=0.0.4";

/// The listener, if there is to be one.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    listener.map(Some).with_context(|| format!("metrics: cannot listen on {address}"))
}

/// Answers for ever; without a listener it only waits.
pub(crate) async fn serve(shell: &Arc<Shell>, listener: Option<&TcpListener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let router = Router::new().route("/metrics", get(exposition)).with_state(Arc::clone(shell));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        let service = service_fn(move |request| router.clone().oneshot(request));
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES_MAX);
        let connection = builder.serve_connection(TokioIo::new(tcp), service);
        tokio::spawn(async move {
            // However it ends, the next scrape comes.
            drop(timeout(CONNECTION_LIFE, connection).await);
            drop(place);
        });
    }
}

async fn exposition(State(shell): State<Arc<Shell>>) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    let gateways = shell.core.known_gateways(wall_clock()).await.unwrap_or_default();
    let mut text = totals(&shell.counters.totals());
    let serial = shell.core.serial();
    for (name, help, value) in [
        ("connections_open", "Connections that are open.", shell.open.load(Ordering::Relaxed)),
        ("streams_open", "Streams of Gateways that are open here.", shell.hub.open(None) as u64),
        ("revocations_epoch", "Epoch of the revocations.", serial.epoch),
        ("revocations", "Number of the newest revocation.", serial.n),
    ] {
        family(&mut text, name, "gauge", help, [(String::new(), i128::from(value))]);
    }
    let of = |row: &ringfort_proto::api::GatewayRow| format!("{{gateway=\"{}\",site=\"{}\"}}", row.name, row.site);
    let alive = gateways.iter().map(|row| (of(row), i128::from(row.alive)));
    family(&mut text, "gateway_alive", "gauge", "Whether clients are sent to a Gateway.", alive);
    let connected = gateways.iter().map(|row| (of(row), i128::from(shell.hub.open_since(&row.id).is_some())));
    family(&mut text, "gateway_connected", "gauge", "Whether a Gateway's stream is open here.", connected);
    let ahead = gateways.iter().filter_map(|row| Some((of(row), i128::from(shell.clocks.ahead_ms(&row.id)?))));
    let help = "How far a Gateway's clock is ahead of ours, by its last report here.";
    family(&mut text, "gateway_clock_ahead_milliseconds", "gauge", help, ahead);
    ([(CONTENT_TYPE, FORMAT)], text)
}

/// The counters: refusals as one family by code, the others as one each.
fn totals(totals: &Value) -> String {
    let mut text = String::new();
    let totals = totals.as_object().into_iter().flatten();
    let (refused, others): (Vec<_>, Vec<_>) = totals.partition(|(name, _)| name.starts_with("refused_"));
    let number = |value: &Value| i128::from(value.as_u64().unwrap_or_default());
    for (name, value) in others {
        let help = format!("{}, since the start.", name.replace('_', " "));
        family(&mut text, &format!("{name}_total"), "counter", &help, [(String::new(), number(value))]);
    }
    let by_code = refused.into_iter().map(|(name, value)| {
        let code = name.trim_start_matches("refused_");
        (format!("{{code=\"{code}\"}}"), number(value))
    });
    family(&mut text, "refused_total", "counter", "Refusals by code, since the start.", by_code);
    text
}

/// One family of samples. Labels have names of ours in them, which need no escaping: letters, digits and a few signs.
fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = (String, i128)>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{PREFIX}_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_one_family_and_other_counters_one_each() {
        let text = totals(&serde_json::json!({ "pushes": 3, "refused_not_found": 1, "refused_internal": 0 }));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        let expected = [
            "# TYPE ringfort_controller_pushes_total counter",
            "ringfort_controller_pushes_total 3",
            "# TYPE ringfort_controller_refused_total counter",
            "ringfort_controller_refused_total{code=\"internal\"} 0",
            "ringfort_controller_refused_total{code=\"not_found\"} 1",
        ];
        assert_eq!(lines, expected);
    }
}
