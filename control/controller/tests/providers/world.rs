//! A Controller that knows identity providers, and people who log in with the real client.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ringfort_client::{Browser as Where, LoggedIn, Login, Person};
use ringfort_proto::api;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::browser::Browser;
use crate::support::{Controller, PASSWORD, User};

/// A Controller with `settings` in its file, and its administrator.
pub(crate) struct World {
    pub(crate) controller: Controller,
    pub(crate) administrator: User,
}

impl World {
    /// `settings` are tables of `controller.toml`. There is alice, with an e-mail address and [`PASSWORD`].
    pub(crate) async fn start(settings: &str) -> Self {
        let controller = Controller::start().await;
        let file = controller.folder().join("controller.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}\n{settings}")).unwrap();
        let controller = controller.restart().await;
        let administrator = controller.administrator().await;
        let mut world = Self { controller, administrator };
        world.add_user("alice", Some("alice@example.org")).await;
        world
    }

    pub(crate) async fn add_user(&mut self, name: &str, email: Option<&str>) {
        let (name, email) = (name.to_owned(), email.map(str::to_owned));
        let user = api::NewUser { name, password: PASSWORD.into(), role: None, email };
        self.administrator.ask::<_, api::Created>("admin/users", &user).await.unwrap();
    }

    /// Logs `who` in with the real client, in a folder of their own.
    pub(crate) async fn log_in(&self, name: &str, login: Login, who: &mut Someone) -> anyhow::Result<LoggedIn> {
        let fingerprint: String =
            self.controller.fingerprint().await.iter().map(|byte| format!("{byte:02x}")).collect();
        let controller = Some(format!("https://{}", self.controller.address()));
        let login = Login { controller, ca_fingerprint: Some(fingerprint), ..login };
        ringfort_client::login(&self.state(name), login, who).await
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.controller.place.path().join(name)
    }

    /// The newest event that is a refusal.
    pub(crate) async fn refusal(&mut self) -> api::AuditRow {
        let rows: Vec<api::AuditRow> = self.administrator.list("admin/audit").await.unwrap();
        rows.into_iter().find(|row| row.outcome != "ok").expect("a refusal in the audit log")
    }
}

/// Somebody at the client.
pub(crate) struct Someone {
    password: String,
    otp: Option<String>,
    /// The method that their password went to without being named.
    pub(crate) used: Option<String>,
    place: Option<Where>,
    browser: Arc<tokio::sync::Mutex<Browser>>,
    visiting: Option<JoinHandle<()>>,
    returned: Arc<Mutex<Option<String>>>,
}

impl Someone {
    /// With a browser on the same machine or another one, and an account at the provider.
    pub(crate) fn with_browser(place: Where, account: &str) -> Self {
        let browser = Arc::new(tokio::sync::Mutex::new(Browser::of(account)));
        Self {
            password: String::new(),
            otp: None,
            used: None,
            place: Some(place),
            browser,
            visiting: None,
            returned: Arc::default(),
        }
    }

    /// With a password.
    pub(crate) fn with_password(password: &str, otp: Option<&str>) -> Self {
        Self {
            password: password.into(),
            otp: otp.map(str::to_owned),
            place: None,
            ..Self::with_browser(Where::Here, "")
        }
    }

    /// Who types this one-time password when asked.
    pub(crate) fn and_otp(self, otp: &str) -> Self {
        Self { otp: Some(otp.to_owned()), ..self }
    }
}

impl Person for Someone {
    fn password(&mut self, _user: &str) -> io::Result<Zeroizing<String>> {
        Ok(Zeroizing::new(self.password.clone()))
    }

    fn otp(&mut self) -> io::Result<Zeroizing<String>> {
        self.otp.clone().map(Zeroizing::new).ok_or_else(|| io::Error::other("nobody to ask"))
    }

    fn uses(&mut self, method: &str, _others: &[String]) {
        self.used = Some(method.to_owned());
    }

    fn browser(&self) -> Option<Where> {
        self.place
    }

    fn visit(&mut self, url: &str) {
        let (browser, url) = (Arc::clone(&self.browser), url.to_owned());
        if self.place == Some(Where::Here) {
            self.visiting = Some(tokio::spawn(async move { browser.lock().await.log_in(&url).await }));
            return;
        }
        let ours = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async move { browser.lock().await.follow(&url).await })
        });
        *self.returned.lock().unwrap() = Some(ours);
    }

    fn returned(&mut self) -> io::Result<String> {
        Ok(self.returned.lock().unwrap().take().unwrap())
    }
}
