//! Where a browser comes back to with a code: a loopback address of this machine (RFC 8252 §7.3), for one login.
//!
//! Anybody on this machine, and any page in the browser, can knock here, so that what does not carry the login's state is turned
//! away and waited on: bounded in size, in time and in how many are heard at once, and never a reason to give up. The state is
//! compared in constant time. The path is that of the login's provider, so that another one's code is not taken for its.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::constant_time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long people may take: as long as the Controller waits.
const WAIT: Duration = Duration::from_secs(300);
/// How long one request may take, and how long the answer to it.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Connections that are listened to at once. The oldest makes room: a browser says what it has to at once.
const KNOCKING_MAX: usize = 32;
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the user's browser is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browser {
    /// On this machine: it finds its way back itself.
    Here,
    /// On another one: the URL to which it was sent is brought back by hand.
    Elsewhere,
}

/// What the browser brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    pub(crate) code: String,
    pub(crate) issuer: Option<String>,
}

/// A listener for one login.
pub(crate) struct Redirect {
    listener: TcpListener,
    port: u16,
    path: String,
}

impl Redirect {
    /// Listens on a port of the system's choice, for what comes to `path`.
    pub(crate) async fn listen(path: String) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen for the browser")?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port, path })
    }

    /// Where the browser is to be sent.
    pub(crate) fn uri(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.path)
    }

    /// Waits for the browser that brings `state`. Browsers open connections in advance and say nothing on them, so that several
    /// are listened to at once.
    pub(crate) async fn wait(self, state: &str) -> Result<Returned> {
        let until = Instant::now() + WAIT;
        let mut knocking = JoinSet::new();
        let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                () = sleep_until(until) => {
                    bail!("no browser came back in {} minutes; run `ringfort login` again", WAIT.as_secs() / 60)
                }
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else {
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    oldest_first.retain(|one| !one.is_finished());
                    if oldest_first.len() >= KNOCKING_MAX && let Some(oldest) = oldest_first.pop_front() {
                        oldest.abort();
                    }
                    oldest_first.push_back(knocking.spawn(hear(stream, self.path.clone(), state.to_owned())));
                }
                Some(heard) = knocking.join_next() => {
                    if let Ok(Some(returned)) = heard {
                        return returned;
                    }
                }
            }
        }
    }
}

/// What one request brings; `None` for one that is not the login's.
async fn hear(mut stream: TcpStream, path: String, state: String) -> Option<Result<Returned>> {
    let target = timeout(REQUEST_TIME_MAX, target(&mut stream)).await.ok()??;
    let query = target.split_once('?').filter(|(found, _)| *found == path);
    let returned = query.and_then(|(_, query)| parse(query, &state));
    let (status, text) = match &returned {
        None => ("404 Not Found", "This is no answer to a login that is under way here."),
        Some(Ok(_)) => ("200 OK", "Thank you. You may close this window and go back to Ringfort."),
        Some(Err(_)) => ("200 OK", "The identity provider refused. Go back to Ringfort, which says why."),
    };
    // Whether the browser hears of it does not matter.
    drop(timeout(ANSWER_TIME_MAX, answer(&mut stream, status, text)).await);
    returned
}

/// Where the browser is sent when nobody listens: browsers refuse this port, so that nobody gets the code but whoever reads it there.
pub(crate) fn nowhere(path: &str) -> String {
    format!("http://127.0.0.1:1{path}")
}

/// What is in a URL that was brought back by hand, and that must be of the login's own path.
pub(crate) fn pasted(url: &str, path: &str, state: &str) -> Result<Returned> {
    let (url, ours) = (url.trim(), nowhere(path));
    // Some browsers show it without the scheme.
    let behind = url.strip_prefix(&ours).or_else(|| url.strip_prefix(ours.strip_prefix("http://")?));
    let query = behind.and_then(|behind| behind.strip_prefix('?'));
    let query = query.map(|query| query.split('#').next().unwrap_or(query));
    let returned = query.and_then(|query| parse(query, state));
    returned.with_context(|| {
        format!(
            "expected the whole URL to which the browser was sent, {ours}?… with the code and state of this login in it"
        )
    })?
}

/// The code in a query, or why there is none; `None` for a query that is not of the login with `state`.
fn parse(query: &str, state: &str) -> Option<Result<Returned>> {
    let mut fields: [(&str, Option<String>); 4] = [("state", None), ("code", None), ("iss", None), ("error", None)];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if let Some((_, field)) = fields.iter_mut().find(|(known, _)| *known == name) {
            // Twice the same name, and who knows which was meant (RFC 6749 §3.1).
            if field.replace(value.into_owned()).is_some() {
                return None;
            }
        }
    }
    let [(_, found), (_, code), (_, issuer), (_, error)] = fields;
    constant_time::verify_slices_are_equal(found?.as_bytes(), state.as_bytes()).ok()?;
    Some(match (code, error) {
        (Some(code), None) => Ok(Returned { code, issuer }),
        (_, error) => refusal(error.as_deref()),
    })
}

fn refusal(error: Option<&str>) -> Result<Returned> {
    let error = error.unwrap_or("no code");
    ensure!(error.len() <= 64 && error.bytes().all(|byte| byte.is_ascii_graphic()), "the identity provider refused");
    bail!("the identity provider refused: {error}")
}

/// The target of a request's first line, if it is a GET (RFC 9112 §3).
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1_024];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&piece[..count]);
        if head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    let line = std::str::from_utf8(&head).ok()?.lines().next()?;
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    (method == "GET" && version.starts_with("HTTP/1.") && words.next().is_none()).then(|| target.to_owned())
}

async fn answer(stream: &mut TcpStream, status: &str, text: &str) -> std::io::Result<()> {
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/callback/sso";

    /// What a browser that goes to `target` is answered; empty for nothing.
    async fn visit(port: u16, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut text = Vec::new();
        drop(stream.read_to_end(&mut text).await);
        String::from_utf8(text).unwrap()
    }

    async fn listening() -> Redirect {
        Redirect::listen(PATH.into()).await.unwrap()
    }

    fn get(target: &str) -> Vec<u8> {
        format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
    }

    // Covers: R20 allow
    #[tokio::test]
    async fn the_browser_that_brings_the_state_is_the_one() {
        let redirect = listening().await;
        let port = redirect.port;
        assert_eq!(redirect.uri(), format!("http://127.0.0.1:{port}/callback/sso"));
        let waiting = tokio::spawn(redirect.wait("right"));
        let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        for other in [
            &get("/favicon.ico")[..],
            &get("/callback/sso"),
            &get("/callback/sso?code=c&state=wrong"),
            &get("/callback/sso?code=c"),
            &get("/callback/sso?code=c&state=right&state=right"),
            // Another provider's, or one's that has none of its own.
            &get("/callback/other?code=c&state=right"),
            &get("/callback?code=c&state=right"),
            &get("/callback/sso/?code=c&state=right"),
        ] {
            assert!(visit(port, other).await.starts_with("HTTP/1.1 404"));
        }
        for none in [&b"POST /callback/sso?code=c&state=right HTTP/1.1\r\n\r\n"[..], b"\r\n\r\n", b"\xff\r\n\r\n"] {
            assert_eq!(visit(port, none).await, "");
        }
        visit(port, &vec![b'x'; HEAD_BYTES_MAX + 2_048]).await;
        let answer = visit(port, &get("/callback/sso?code=a%2Bb&state=right&iss=https%3A%2F%2Fid.example")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let issuer = Some("https://id.example".to_owned());
        assert_eq!(waiting.await.unwrap().unwrap(), Returned { code: "a+b".into(), issuer });
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it listens for one login");
    }

    #[tokio::test]
    async fn whoever_brings_nothing_keeps_nobody_out() {
        let redirect = listening().await;
        let port = redirect.port;
        let waiting = tokio::spawn(redirect.wait("right"));
        for _ in 0..100 {
            assert!(visit(port, &get("/callback/sso?code=c&state=wrong")).await.starts_with("HTTP/1.1 404"));
        }
        // And those who say nothing, more than are listened to.
        let mut silent = Vec::new();
        for _ in 0..2 * KNOCKING_MAX {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        assert!(visit(port, &get("/callback/sso?code=c&state=right")).await.starts_with("HTTP/1.1 200"));
        assert_eq!(waiting.await.unwrap().unwrap().code, "c");
    }

    // Covers: R20 refuse
    #[tokio::test]
    async fn a_refusal_of_the_provider_is_said() {
        let redirect = listening().await;
        let port = redirect.port;
        let waiting = tokio::spawn(redirect.wait("right"));
        visit(port, &get("/callback/sso?error=access_denied&state=right")).await;
        assert!(waiting.await.unwrap().unwrap_err().to_string().ends_with("access_denied"));
    }

    // Covers: R20 refuse
    #[test]
    fn a_url_is_brought_back_by_hand() {
        let good = "http://127.0.0.1:1/callback/sso?code=c&state=right";
        assert_eq!(pasted(&format!(" {good}\n"), PATH, "right").unwrap().code, "c");
        assert_eq!(pasted("127.0.0.1:1/callback/sso?code=c&state=right#", PATH, "right").unwrap().code, "c");
        for bad in [
            "",
            "code=c&state=right",
            "http://127.0.0.1:1/callback/sso?code=c",
            &good.replace("right", "wrong"),
            // Another provider's.
            &good.replace("sso", "other"),
            &good.replace("/sso", ""),
            &good.replace("127.0.0.1:1", "id.example"),
        ] {
            assert!(pasted(bad, PATH, "right").unwrap_err().to_string().contains("whole URL"), "{bad}");
        }
        let refused = good.replace("code=c", "error=login_required");
        assert!(pasted(&refused, PATH, "right").unwrap_err().to_string().contains("login_required"));
    }
}
