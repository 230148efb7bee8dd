//! A Controller's process, its administrator, and Gateways that have joined.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringfort_client::Admin;
use ringfort_enrol::tls::OwnCertificate;
use ringfort_enrol::{Folder, Invitation, Joiner};
use ringfort_proto::api::{Invitee, NewInvitation, NewRevocation, NewSite, RevocationScope};
use ringfort_proto::v1::Serial;
use ringfort_service::status::query;
use tempfile::TempDir;

/// Login name of the administrator, and a password that protects nothing.
const ADMINISTRATOR: &str = "operator";
const PASSWORD: &str = "correct-horse-battery";
/// The site of all Gateways.
const SITE: &str = "everywhere";
/// How long a start may take.
const START: Duration = Duration::from_secs(30);
/// Ticks of /proc/PID/stat in a second (proc(5)).
const TICKS: u32 = 100;

/// The organisation.
pub(crate) struct Organisation {
    place: TempDir,
    program: PathBuf,
    address: SocketAddr,
    controller: Child,
    admin: Admin,
}

/// A Gateway that has joined. Its streams end and begin; what it has stays.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) address: String,
    pub(crate) folder: Folder,
    pub(crate) own: OwnCertificate,
    standing: Arc<Mutex<Serial>>,
}

impl Gateway {
    /// The revocations that it has.
    pub(crate) fn standing(&self) -> Serial {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has them now.
    pub(crate) fn stand(&self, serial: Serial) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = serial;
    }
}

impl Organisation {
    /// Starts a Controller in a temporary folder, and logs its administrator in.
    pub(crate) async fn found(program: &Path) -> Result<Self> {
        let place = TempDir::new()?;
        // A port that nobody had a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let password = place.path().join("password");
        std::fs::write(&password, PASSWORD)?;
        let mut command = controller(program, place.path(), address);
        let controller = command.args(["--administrator", ADMINISTRATOR, "--password-file"]).arg(&password).spawn()?;
        let status = ready(place.path())?;
        let fingerprint = status["ca_fingerprint"].as_str().context("no fingerprint")?.to_owned();
        let client = place.path().join("client");
        let mut login = Command::new(program);
        login.arg("login").arg(format!("https://{address}")).args(["--ca-fingerprint", &fingerprint]);
        login.args(["--user", ADMINISTRATOR, "--password-stdin", "--state"]).arg(&client);
        let login = login.stdin(std::fs::File::open(&password)?).stdout(Stdio::null()).status()?;
        ensure!(login.success(), "the administrator could not log in");
        let mut admin = Admin::open(&client)?;
        admin.add_site(&NewSite { name: SITE.into(), pools: vec!["10.97.0.1/16".into()] }).await?;
        Ok(Self { place, program: program.to_owned(), address, controller, admin })
    }

    /// A Gateway that joins.
    pub(crate) async fn gateway(&mut self, number: usize) -> Result<Gateway> {
        let name = format!("gateway-{number}");
        let invitee = Invitee::Gateway { name: name.clone(), site: SITE.into() };
        let invited = self.admin.invite(&NewInvitation { invitee, expires_in: None }).await?;
        let invitation: Invitation = invited.url.parse()?;
        let folder = Folder::create(&self.place.path().join(&name))?;
        let joiner = Joiner { addresses: vec!["192.0.2.1:443".into()], client_id: String::new() };
        ringfort_enrol::join(&invitation, &invited.ticket, &joiner, &folder).await?;
        let own = OwnCertificate::new(&folder.credentials()?)?;
        Ok(Gateway { address: self.address.to_string(), folder, own, standing: Arc::default() })
    }

    /// Takes back a token that nobody has; gives the revocation's number.
    pub(crate) async fn revoke(&mut self) -> Result<u64> {
        let scope = RevocationScope::Token(uuid::Uuid::new_v4().to_string());
        let answer = self.admin.revoke(&NewRevocation { scope, reason: "bench".into(), grace_seconds: None }).await?;
        let serial = answer["serial"].as_str().and_then(|serial| serial.rsplit_once('/')).context("no serial")?;
        Ok(serial.1.parse()?)
    }

    /// What the Controller has computed so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.controller.id()))?;
        let fields = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect::<Vec<_>>();
        let ticks = [11, 12].map(|at| fields.get(at).and_then(|field| field.parse::<u32>().ok()).unwrap_or_default());
        Ok(Duration::from_secs(1) * (ticks[0] + ticks[1]) / TICKS)
    }

    /// Kills the Controller.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.controller.kill()?;
        self.controller.wait()?;
        Ok(())
    }

    /// Starts it again, and does not wait.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.controller = controller(&self.program, self.place.path(), self.address).spawn()?;
        Ok(())
    }
}

impl Drop for Organisation {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

fn controller(program: &Path, place: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new(program);
    command.args(["--log", "warn", "controller", "--state"]).arg(place.join("controller"));
    command.args(["--listen", &address.to_string()]).stdin(Stdio::null());
    command
}

/// The Controller's status, once it has one.
fn ready(place: &Path) -> Result<serde_json::Value> {
    let socket = place.join("controller/controller.sock");
    let begun = Instant::now();
    loop {
        match query(&socket) {
            Ok(status) => return Ok(status),
            Err(_) if begun.elapsed() < START => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => bail!("the Controller did not start: {error}"),
        }
    }
}
