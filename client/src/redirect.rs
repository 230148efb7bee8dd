//! Where a browser comes back to with a code: a loopback address of this machine (RFC 8252 §7.3), for one login.
//!
//! Anybody on this machine, and any page in the browser, can knock here, so that what does not carry the login's state is turned
//! away and waited on: bounded in size, in time and in number. The state is compared in constant time.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::constant_time;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Path to which the browser is sent.
const PATH: &str = "/callback";
/// Where it is sent when nobody listens: browsers refuse this port, so that nobody gets the code but whoever reads it there.
pub(crate) const NOWHERE: &str = "http://127.0.0.1:1/callback";
/// How long people may take: as long as the Controller waits.
const WAIT: Duration = Duration::from_secs(300);
/// How long one request may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Requests that are turned away before the login is given up.
const REQUESTS_MAX: usize = 64;

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
}

impl Redirect {
    /// Listens on a port of the system's choice.
    pub(crate) async fn listen() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen for the browser")?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Where the browser is to be sent.
    pub(crate) fn uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the browser that brings `state`. Browsers open connections in advance and say nothing on them, so that several
    /// are listened to at once.
    pub(crate) async fn wait(self, state: &str) -> Result<Returned> {
        let until = Instant::now() + WAIT;
        let mut knocking = JoinSet::new();
        let mut left = REQUESTS_MAX;
        while left > 0 || !knocking.is_empty() {
            let heard = tokio::select! {
                () = sleep_until(until) => {
                    bail!("no browser came back in {} minutes; run `ringfort login` again", WAIT.as_secs() / 60)
                }
                accepted = self.listener.accept(), if left > 0 => {
                    let (mut stream, _) = accepted.context("cannot listen for the browser")?;
                    left -= 1;
                    knocking.spawn(timeout(REQUEST_TIME_MAX, async move { Some((target(&mut stream).await?, stream)) }));
                    continue;
                }
                Some(heard) = knocking.join_next() => heard,
            };
            let Ok(Ok(Some((target, mut stream)))) = heard else { continue };
            let query = target.split_once('?').filter(|(path, _)| *path == PATH);
            let returned = query.and_then(|(_, query)| parse(query, state));
            let (status, text) = match &returned {
                None => ("404 Not Found", "This is no answer to a login that is under way here."),
                Some(Ok(_)) => ("200 OK", "Thank you. You may close this window and go back to Ringfort."),
                Some(Err(_)) => ("200 OK", "The identity provider refused. Go back to Ringfort, which says why."),
            };
            // Whether the browser hears of it does not matter.
            drop(timeout(REQUEST_TIME_MAX, answer(&mut stream, status, text)).await);
            if let Some(returned) = returned {
                return returned;
            }
        }
        bail!("{REQUESTS_MAX} requests came that were none of the login's; run `ringfort login` again")
    }
}

/// What is in a URL that was brought back by hand.
pub(crate) fn pasted(url: &str, state: &str) -> Result<Returned> {
    let query = url.trim().split_once('?').map(|(_, query)| query.split('#').next().unwrap_or(query));
    let returned = query.and_then(|query| parse(query, state));
    returned
        .context("expected the whole URL to which the browser was sent, with the code and state of this login in it")?
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

    /// What a browser that goes to `target` is answered; empty for nothing.
    async fn visit(port: u16, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut text = Vec::new();
        drop(stream.read_to_end(&mut text).await);
        String::from_utf8(text).unwrap()
    }

    fn get(target: &str) -> Vec<u8> {
        format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
    }

    // Covers: R20 allow
    #[tokio::test]
    async fn the_browser_that_brings_the_state_is_the_one() {
        let redirect = Redirect::listen().await.unwrap();
        let port = redirect.port;
        assert_eq!(redirect.uri(), format!("http://127.0.0.1:{port}/callback"));
        let waiting = tokio::spawn(redirect.wait("right"));
        let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        for other in [
            &get("/favicon.ico")[..],
            &get("/callback"),
            &get("/callback?code=c&state=wrong"),
            &get("/callback?code=c"),
            &get("/callback?code=c&state=right&state=right"),
            &get("/other?code=c&state=right"),
        ] {
            assert!(visit(port, other).await.starts_with("HTTP/1.1 404"));
        }
        for none in [&b"POST /callback?code=c&state=right HTTP/1.1\r\n\r\n"[..], b"\r\n\r\n", b"\xff\r\n\r\n"] {
            assert_eq!(visit(port, none).await, "");
        }
        visit(port, &vec![b'x'; HEAD_BYTES_MAX + 2_048]).await;
        let answer = visit(port, &get("/callback?code=a%2Bb&state=right&iss=https%3A%2F%2Fid.example")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let issuer = Some("https://id.example".to_owned());
        assert_eq!(waiting.await.unwrap().unwrap(), Returned { code: "a+b".into(), issuer });
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it listens for one login");
    }

    #[tokio::test]
    async fn those_who_bring_nothing_are_bounded() {
        let redirect = Redirect::listen().await.unwrap();
        let port = redirect.port;
        let waiting = tokio::spawn(redirect.wait("right"));
        for _ in 0..REQUESTS_MAX {
            visit(port, &get("/callback?code=c&state=wrong")).await;
        }
        assert!(waiting.await.unwrap().unwrap_err().to_string().contains("none of the login's"));
    }

    // Covers: R20 refuse
    #[tokio::test]
    async fn a_refusal_of_the_provider_is_said() {
        let redirect = Redirect::listen().await.unwrap();
        let port = redirect.port;
        let waiting = tokio::spawn(redirect.wait("right"));
        visit(port, &get("/callback?error=access_denied&state=right")).await;
        assert!(waiting.await.unwrap().unwrap_err().to_string().ends_with("access_denied"));
    }

    #[test]
    fn a_url_is_brought_back_by_hand() {
        let good = "http://127.0.0.1:1/callback?code=c&state=right";
        assert_eq!(pasted(&format!(" {good}\n"), "right").unwrap().code, "c");
        for bad in ["", "code=c&state=right", "http://127.0.0.1:1/callback?code=c", &good.replace("right", "wrong")] {
            assert!(pasted(bad, "right").unwrap_err().to_string().contains("whole URL"), "{bad}");
        }
        assert!(
            pasted("x?state=right&error=login_required", "right").unwrap_err().to_string().contains("login_required")
        );
    }
}
