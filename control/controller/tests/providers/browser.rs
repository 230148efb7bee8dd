//! A browser: it follows redirects, keeps cookies, and types names into the provider's forms.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where a login ends.
const CALLBACK: &str = "/callback/";
/// Redirects and forms of one login; there are some eight.
const STEPS_MAX: usize = 20;

/// A browser with its cookies, and whoever types.
pub(crate) struct Browser {
    account: String,
    cookies: BTreeMap<String, String>,
    /// Passwords typed so far.
    pub(crate) logins: usize,
}

struct Page {
    location: Option<String>,
    body: String,
}

impl Browser {
    pub(crate) fn of(account: &str) -> Self {
        Self { account: account.into(), cookies: BTreeMap::new(), logins: 0 }
    }

    /// Goes to `url`, logs in and consents, up to the URL of ours to which it is sent.
    pub(crate) async fn follow(&mut self, url: &str) -> String {
        let mut url = url.to_owned();
        let mut page = self.get(&url).await;
        for _ in 0..STEPS_MAX {
            if let Some(location) = page.location {
                url = absolute(&url, &location);
                if url.contains(CALLBACK) {
                    return url;
                }
                page = self.get(&url).await;
            } else if page.body.contains(r#"name="prompt" value="login""#) {
                self.logins += 1;
                let form = format!("prompt=login&login={}&password=any", self.account);
                page = self.post(&url, &form).await;
            } else if page.body.contains(r#"name="prompt" value="consent""#) {
                page = self.post(&url, "prompt=consent").await;
            } else {
                panic!("an unknown page at {url}: {}", page.body);
            }
        }
        panic!("a login without an end, at {url}");
    }

    /// The same, and then to ours as well, where somebody listens.
    pub(crate) async fn log_in(&mut self, url: &str) {
        let ours = self.follow(url).await;
        self.get(&ours).await;
    }

    async fn get(&mut self, url: &str) -> Page {
        self.ask(url, "GET", "").await
    }

    async fn post(&mut self, url: &str, form: &str) -> Page {
        self.ask(url, "POST", form).await
    }

    async fn ask(&mut self, url: &str, method: &str, body: &str) -> Page {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = format!(
            "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\naccept: text/html\r\ncookie: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            cookies.join("; "),
            body.len()
        );
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let fields = |name: &'static str| {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        for cookie in fields("set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), value.into());
            }
        }
        Page { location: fields("location").next().map(str::to_owned), body: body.into() }
    }
}

fn absolute(from: &str, location: &str) -> String {
    if location.starts_with("http") {
        return location.into();
    }
    let host = from.strip_prefix("http://").unwrap().split('/').next().unwrap();
    format!("http://{host}{location}")
}

/// A parameter of a URL as it stands there.
pub(crate) fn parameter<'a>(url: &'a str, name: &str) -> &'a str {
    let (_, query) = url.split_once('?').unwrap();
    let found = query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    found.unwrap_or_else(|| panic!("no {name} in {url}")).1
}
