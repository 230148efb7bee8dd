//! Hosts that register themselves: ours, and one that has nothing of ours but the files.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use ringfort_enrol::Folder;
use ringfort_identity::{Role, Side};
use ringfort_link::Links;
use ringfort_netlab::Namespace;
use ringfort_stage::Process;
use serde_json::{Value, json};

use crate::doors::Ca;
use crate::world::{ALICE, GATEWAY, MALLORY, PATIENCE, World};

/// The host, and a name that is none's.
const HOST: &str = "nas.example";
const OTHER: &str = "other.example";
/// The port that it says it listens on.
const LISTENS: u16 = 3_657;

/// A client of another implementation, which checks the Controller's certificate by name and chain as any HTTPS client does.
const CLIENT: &str = r#"
import http.client, ssl, sys
address, ca, chain, key, path = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if chain:
    context.load_cert_chain(chain, key)
connection = http.client.HTTPSConnection(address, 443, context=context, timeout=20)
try:
    connection.request("POST", path, sys.stdin.read(), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())
except OSError as error:
    print(0, repr(error))
"#;

/// Whether [`CLIENT`] can run for the case `name`, which is passed over where it cannot; CI must have what it needs.
fn has_python(name: &str) -> Result<bool> {
    let is_there = Command::new("python3").arg("--version").output().is_ok();
    if !is_there {
        ensure!(std::env::var("CI").as_deref() != Ok("true"), "{name} needs python3: install python3");
        println!("SKIPPED {name}: install python3");
    }
    Ok(is_there)
}

/// What a client of another implementation is told: status and body, or 0 and how the handshake ended.
struct Told {
    status: u16,
    text: String,
}

impl Told {
    fn is(&self, status: u16, what: &str) -> Result<()> {
        ensure!(
            self.status == status && self.text.contains(what),
            "{} {}, not {status} {what}",
            self.status,
            self.text
        );
        Ok(())
    }
}

/// Files by which a client shows who it is: a chain and a key, or none.
type Shown<'a> = Option<(&'a Path, &'a Path)>;

impl World {
    fn host_joins(&self, name: &str, folder: &str, namespace: &Namespace) -> Result<()> {
        let line = self.realm.invite(&["host", name])?;
        self.realm.join(folder, namespace, &line)?.ok().map(drop)
    }

    /// The namespace in which the host is.
    fn place(&self) -> Result<&Namespace> {
        Ok(self.realm.stage.lab.client(MALLORY)?)
    }

    /// Posts `body` as `hostname` with whatever is shown.
    fn post(&self, hostname: &str, shown: Shown<'_>, body: &str) -> Result<Told> {
        let ca = self.realm.state("controller").join("rootCA.pem");
        let mut command = Command::new("python3");
        let address = self.realm.controller_address().ip().to_string();
        command.args(["-c", CLIENT, &address]).arg(ca);
        match shown {
            Some((chain, key)) => command.args([chain, key]),
            None => command.args(["", ""]),
        };
        command.arg(format!("/api/hosts/{hostname}/client")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut role = self.realm.stage.lab.spawn(self.place()?, command)?;
        std::io::Write::write_all(role.stdin().context("no standard input")?, body.as_bytes())?;
        role.close_stdin();
        let (mut text, mut errors) = (String::new(), String::new());
        role.take_stdout().context("no standard output")?.read_to_string(&mut text)?;
        role.take_stderr().context("no standard error")?.read_to_string(&mut errors)?;
        role.wait(PATIENCE)?;
        let (status, text) = text.split_once(' ').with_context(|| format!("it said {text:?} and {errors}"))?;
        Ok(Told { status: status.parse()?, text: text.trim().into() })
    }

    /// The same with the files of [`HOST`].
    fn post_as_host(&self, hostname: &str, body: &str) -> Result<Told> {
        let folder = self.realm.state(HOST);
        let file = |end: &str| folder.join(format!("{HOST}_https.{end}"));
        self.post(hostname, Some((&file("pem"), &file("key"))), body)
    }

    /// What is known of the host called `name`.
    fn known(&self, name: &str) -> Result<Option<Value>> {
        let hosts: Value = serde_json::from_str(&self.admin(&["host", "list", "--json"])?)?;
        let mut hosts = hosts.as_array().cloned().unwrap_or_default().into_iter();
        Ok(hosts.find(|host| host["name"] == name))
    }

    /// Starts [`HOST`], registering every `seconds`.
    fn host(&self, seconds: u64, more: &str) -> Result<Process> {
        let file = format!("resolution_mode = \"direct\"\nport = {LISTENS}\ninterval_seconds = {seconds}\n{more}");
        self.realm.host_begin(HOST, self.place()?, &file)?.ready()
    }
}

fn body(address: &str) -> String {
    let interfaces =
        json!([{ "name": "eth0", "addresses": [address, "fe80::1"] }, { "name": "wlan0", "addresses": [] }]);
    json!({ "interfaces": interfaces, "port": LISTENS, "version": "9.9" }).to_string()
}

fn total(status: &Value, name: &str) -> u64 {
    status["totals"][name].as_u64().unwrap_or_default()
}

// Covers: W1 allow
// Covers: W2 allow
// Covers: W5 allow
// Covers: W6 allow
// Covers: W7 allow
// Covers: W8 allow
// Covers: W9 allow
pub(crate) fn another_implementation_registers_by_the_files_alone() -> Result<()> {
    if !has_python("another_implementation_registers_by_the_files_alone")? {
        return Ok(());
    }
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        let (own, server) = (world.realm.state(HOST), world.realm.state("controller"));
        for (path, mode) in [
            (own.join("rootCA.pem"), 0o644),
            (own.join(format!("{HOST}_https.pem")), 0o644),
            (own.join(format!("{HOST}_https.key")), 0o600),
            (server.join("rootCA.pem"), 0o600),
            (server.join("https.pem"), 0o600),
            (server.join("https.key"), 0o600),
        ] {
            let found = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
            ensure!(found.permissions().mode() & 0o777 == mode, "{} has another mode", path.display());
        }
        let root = |folder: &Path| anyhow::Ok(Folder::open(folder)?.certificates("rootCA.pem")?.swap_remove(0));
        ensure!(root(&own)? == root(&server)?, "the host trusts another root than the Controller's");

        let before = world.known(HOST)?.context("the host is not listed")?;
        ensure!(before["joined"] == true && before["age"].is_null(), "before it registered: {before}");
        world.post_as_host(HOST, &body("198.51.100.77"))?.is(200, "last_seen")?;
        let known = world.known(HOST)?.context("the host is not listed")?;
        ensure!(known["interfaces"][0]["addresses"][0] == "198.51.100.77", "{known}");
        ensure!((&known["port"], &known["version"]) == (&json!(LISTENS), &json!("9.9")), "{known}");
        ensure!(known["age"].as_u64() < Some(PATIENCE.as_secs()), "{known}");
        ensure!(world.admin(&["host", "list"])?.contains("198.51.100.77,fe80::1"), "the list for people lacks it");
        // The newest counts.
        world.post_as_host(HOST, &body("198.51.100.78"))?.is(200, "last_seen")?;
        ensure!(world.known(HOST)?.is_some_and(|known| known["interfaces"][0]["addresses"][0] == "198.51.100.78"));
        Ok(())
    })
}

// Covers: W2 refuse
// Covers: W6 refuse
// Covers: W7 refuse
// Covers: W8 refuse
pub(crate) fn only_authorised_hosts_register_and_for_themselves_only() -> Result<()> {
    if !has_python("only_authorised_hosts_register_and_for_themselves_only")? {
        return Ok(());
    }
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        world.admin(&["host", "add", OTHER])?;
        // Nobody without a certificate.
        world.post(HOST, None, &body("198.51.100.77"))?.is(401, "certificate_required")?;
        // No Gateway, whatever it is called.
        let gateway = world.realm.state(GATEWAY);
        let shown = (gateway.join("chain.pem"), gateway.join("key.pem"));
        world.post(HOST, Some((&shown.0, &shown.1)), &body("198.51.100.77"))?.is(403, "wrong_role")?;
        // Nobody for somebody else, who exists or does not, whatever is asked.
        for path in [OTHER, "nobody.example", "NAS.EXAMPLE", "%6eas.example%00"] {
            world.post_as_host(path, &body("198.51.100.77"))?.is(403, "host_mismatch")?;
        }
        world.post_as_host(OTHER, "no JSON")?.is(403, "host_mismatch")?;
        for name in [HOST, OTHER] {
            let known = world.known(name)?.context("the host is not listed")?;
            ensure!(known["last_seen"] == 0, "something was recorded: {known}");
        }
        // What was taken back is nobody's, and what it said is forgotten.
        world.post_as_host(HOST, &body("198.51.100.77"))?.is(200, "last_seen")?;
        world.admin(&["host", "remove", HOST])?;
        ensure!(world.known(HOST)?.is_none(), "a host that was removed is listed");
        world.post_as_host(HOST, &body("198.51.100.77"))?.is(401, "host_unknown")?;
        world.post_as_host(OTHER, &body("198.51.100.77"))?.is(401, "host_unknown")?;
        ensure!(world.known(HOST)?.is_none(), "a host that is not authorised was recorded");
        let refused = world.controller.counter("refused_host_unknown")?;
        ensure!(refused == 2, "{refused} refusals were counted");
        // A name that was given to a new key is not the old key's.
        world.host_joins(HOST, "successor", world.place()?)?;
        world.post_as_host(HOST, &body("198.51.100.77"))?.is(401, "host_unknown")?;
        let refused = world.realm.admin(&["invite", "host", HOST])?.refused()?;
        ensure!(refused.contains("already_exists"), "{refused}");
        // Authorised again by name alone, it is nobody's until somebody joins.
        world.admin(&["host", "remove", HOST])?;
        world.admin(&["host", "add", HOST])?;
        world.post_as_host(HOST, &body("198.51.100.77"))?.is(401, "host_unknown")?;
        let successor = world.realm.state("successor");
        let file = |end: &str| successor.join(format!("{HOST}_https.{end}"));
        world.post(HOST, Some((&file("pem"), &file("key"))), &body("198.51.100.1"))?.is(401, "host_unknown")?;
        for name in ["NAS", "a_b", "203.0.113.40", "a/b"] {
            let refused = world.realm.admin(&["host", "add", name])?.refused()?;
            ensure!(refused.contains("request_malformed"), "{name}: {refused}");
        }
        Ok(())
    })
}

// Covers: W5 refuse
pub(crate) fn what_a_host_says_is_bounded() -> Result<()> {
    if !has_python("what_a_host_says_is_bounded")? {
        return Ok(());
    }
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        let many: Vec<String> = (0..=256).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
        let interfaces = json!([{ "name": "eth0", "addresses": many }]);
        let with = |interfaces: Value, port: Value| {
            json!({ "interfaces": interfaces, "port": port, "version": "1" }).to_string()
        };
        let empty = || json!([]);
        for malformed in [
            String::new(),
            "{}".into(),
            "[]".into(),
            with(empty(), json!(0)),
            with(empty(), json!(65_536)),
            with(empty(), json!("443")),
            with(json!([{ "name": "eth0", "addresses": ["not one"] }]), json!(443)),
            with(json!([{ "name": "", "addresses": [] }]), json!(443)),
            with(json!([{ "name": "eth0" }]), json!(443)),
            with(interfaces, json!(443)),
            json!({ "interfaces": [], "port": 443, "version": "1", "hostname": HOST }).to_string(),
            json!({ "interfaces": [], "port": 443, "version": "x".repeat(65) }).to_string(),
        ] {
            world.post_as_host(HOST, &malformed)?.is(400, "request_malformed")?;
        }
        let long = format!("{}{}", body("198.51.100.77"), " ".repeat(64 << 10));
        world.post_as_host(HOST, &long)?.is(413, "request_malformed")?;
        let known = world.known(HOST)?.context("the host is not listed")?;
        ensure!(known["last_seen"] == 0, "something was recorded: {known}");
        Ok(())
    })
}

/// A leaf for [`HOST`], as the Controller issues it but for its life.
fn leaf(world: &World, life: std::ops::Range<i64>) -> Result<CertificateParams> {
    let (_, identity) = Folder::open_joined(&world.realm.state(HOST))?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, identity.organisation.as_str());
    name.push(DnType::CommonName, HOST);
    params.distinguished_name = name;
    let uri = format!("ringfort://{}/host/{HOST}", identity.organisation);
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = ringfort_enrol::wall_clock().since_epoch();
    let at = |seconds: i64| {
        let apart = Duration::from_secs(seconds.unsigned_abs());
        epoch + if seconds < 0 { now.saturating_sub(apart) } else { now + apart }
    };
    (params.not_before, params.not_after) = (at(life.start), at(life.end));
    Ok(params)
}

// Covers: W9 refuse
pub(crate) fn certificates_that_are_not_good_end_the_handshake() -> Result<()> {
    if !has_python("certificates_that_are_not_good_end_the_handshake")? {
        return Ok(());
    }
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        let (own, foreign) = (Ca::of(&world.realm.state("controller"))?, Ca::foreign()?);
        let key = KeyPair::generate()?;
        let folder = world.realm.stage.folder();
        let key_file = folder.join("leaf.key");
        std::fs::write(&key_file, key.serialize_pem())?;
        let cases =
            [("expired", &own, -7_200..-3_600), ("early", &own, 3_600..7_200), ("foreign", &foreign, -60..3_600)];
        for (n, (name, ca, life)) in cases.into_iter().enumerate() {
            let chain = folder.join(format!("{name}.pem"));
            std::fs::write(&chain, ca.sign(&leaf(world, life)?, &key)?)?;
            let told = world.post(HOST, Some((&chain, &key_file)), &body("198.51.100.77"))?;
            ensure!(told.status == 0, "{name}: {} {}", told.status, told.text);
            let refused = world.controller.counter("refused_handshake_refused")?;
            ensure!(refused == n as u64 + 1, "{name}: {refused} handshakes were refused");
        }
        // The same, good, is the name with another key.
        let chain = folder.join("good.pem");
        std::fs::write(&chain, own.sign(&leaf(world, -60..3_600)?, &key)?)?;
        world.post(HOST, Some((&chain, &key_file)), &body("198.51.100.77"))?.is(401, "host_unknown")?;
        let known = world.known(HOST)?.context("the host is not listed")?;
        ensure!(known["last_seen"] == 0, "something was recorded: {known}");
        Ok(())
    })
}

// Covers: W4 allow
// Covers: W4 refuse
// Covers: W5 allow
// Covers: W3 allow
pub(crate) fn a_host_registers_at_the_interval_and_when_its_network_changes() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        let begun = Instant::now();
        let mut host = world.host(1, "")?;
        host.wait_until(PATIENCE, |status| total(status, "registered") >= 3)?;
        ensure!(begun.elapsed() >= Duration::from_secs(2), "three times within {:?}", begun.elapsed());
        host.stop()?;

        // With an interval of a day only changes make it register again.
        let mut host = world.host(86_400, "")?;
        host.wait_until(PATIENCE, |status| total(status, "registered") == 1)?;
        let known = world.known(HOST)?.context("the host is not listed")?;
        let own = world.place()?.v4().to_string();
        ensure!(known["interfaces"].to_string().contains(&own), "{known}");
        ensure!(!known["interfaces"].to_string().contains("127.0.0.1"), "{known}");
        ensure!(known["port"] == LISTENS && known["version"] == env!("CARGO_PKG_VERSION"), "{known}");
        let new: IpAddr = "198.51.100.202".parse()?;
        let changed = Instant::now();
        world.realm.stage.lab.run_in(world.place()?, || -> Result<()> {
            let mut links = Links::open()?;
            let own = links.addresses()?.into_iter().find(|one| one.address.to_string() == own);
            let index = own.context("no interface has the host's address")?.index;
            // Several changes in one go.
            links.add_address(index, "198.51.100.201".parse()?, 32)?;
            links.add_address(index, new, 32)?;
            Ok(links.delete_address(index, "198.51.100.201".parse()?, 32)?)
        })??;
        let status = host.wait_until(PATIENCE, |status| total(status, "registered") == 2)?;
        ensure!(changed.elapsed() < Duration::from_secs(10), "it took {:?}", changed.elapsed());
        ensure!(total(&status, "network_changes") >= 1, "{status}");
        let known = world.known(HOST)?.context("the host is not listed")?["interfaces"].to_string();
        ensure!(known.contains("198.51.100.202") && !known.contains("198.51.100.201"), "{known}");
        host.stop()
    })
}

// Covers: W3 refuse
pub(crate) fn any_other_mode_registers_nothing() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        for line in ["resolution_mode = \"dns\"", ""] {
            let file = format!("port = {LISTENS}\ninterval_seconds = 1\n{line}");
            let mut host = world.realm.host_begin(HOST, world.place()?, &file)?.ready()?;
            let ended = host.role().wait(PATIENCE)?.context("it does not end")?;
            ensure!(ended.success(), "it ended with {ended}");
            ensure!(host.log_text().contains("does not register itself"), "{}", host.log_text());
        }
        let known = world.known(HOST)?.context("the host is not listed")?;
        ensure!(known["last_seen"] == 0, "something was recorded: {known}");
        // A user's folder is none of a host's.
        world.join_user(ALICE)?;
        let host = world.realm.host_begin(ALICE, world.place()?, "port = 1")?.unready();
        let mut host = host;
        ensure!(host.role().wait(PATIENCE)?.is_some_and(|ended| !ended.success()), "it runs with a user's folder");
        ensure!(host.log_text().contains("folder of a host"), "{}", host.log_text());
        Ok(())
    })
}

// Covers: W10 allow
// Covers: W10 refuse
pub(crate) fn a_host_outlasts_its_controller() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        world.controller.kill()?;
        // It starts without a Controller, and is not registered by trying.
        let begun = Instant::now();
        let mut host = world.host(1, "")?;
        let status = host.wait_until(PATIENCE, |status| total(status, "failed") >= 3)?;
        ensure!(begun.elapsed() >= Duration::from_secs(2), "three attempts within {:?}", begun.elapsed());
        ensure!(total(&status, "registered") == 0 && status["trouble"]["code"] == "network", "{status}");
        let said = host.log_text().matches("is not registered").count();
        ensure!(said == 1, "the same trouble was said {said} times:\n{}", host.log_text());
        world.controller = world.realm.controller_begin()?.ready()?;
        let status = host.wait_until(PATIENCE, |status| total(status, "registered") >= 2)?;
        ensure!(status["trouble"].is_null(), "{status}");
        // And once more, from the middle.
        world.controller.kill()?;
        host.wait_until(PATIENCE, |status| status["trouble"]["code"] == "network")?;
        world.controller = world.realm.controller_begin()?.ready()?;
        host.wait_until(PATIENCE, |status| status["trouble"].is_null())?;
        host.stop()
    })
}

// Covers: W6 refuse
// Covers: W7 refuse
pub(crate) fn a_host_says_what_was_refused() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        let mut host = world.host(1, "")?;
        host.wait_until(PATIENCE, |status| total(status, "registered") >= 1)?;
        world.admin(&["host", "remove", HOST])?;
        let status = host.wait_until(PATIENCE, |status| status["trouble"]["code"] == "not_authorised")?;
        ensure!(status["trouble"]["what"].to_string().contains("ringfort admin invite host"), "{status}");
        // It goes on asking, in vain: authorised again by name, the host is whoever joins.
        world.admin(&["host", "add", HOST])?;
        host.wait_until(PATIENCE, |status| status["trouble"]["code"] == "not_authorised")?;
        host.stop()?;
        std::fs::remove_dir_all(world.realm.state(HOST))?;
        world.host_joins(HOST, HOST, world.place()?)?;

        // With its own certificate under another's name.
        let folder = world.realm.state(HOST);
        for end in ["pem", "key"] {
            let file = |name: &str| folder.join(format!("{name}_https.{end}"));
            std::fs::copy(file(HOST), file(OTHER))?;
        }
        let mut host = world.host(1, &format!("hostname = \"{OTHER}\""))?;
        let status = host.wait_until(PATIENCE, |status| status["trouble"]["code"] == "other_name")?;
        ensure!(total(&status, "registered") == 0, "{status}");
        ensure!(host.log_text().contains("host.hostname"), "{}", host.log_text());
        host.stop()
    })
}

pub(crate) fn a_host_renews_its_certificate() -> Result<()> {
    World::without_tunnel("")?.play(|world| {
        world.host_joins(HOST, HOST, world.place()?)?;
        let folder = world.realm.state(HOST);
        let (kept, _) = Folder::open_joined(&folder)?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(folder.join(format!("{HOST}_https.key")))?)?;
        // An hour is left of ten.
        let old = Ca::of(&world.realm.state("controller"))?.sign(&leaf(world, -32_400..3_600)?, &key)?;
        std::fs::write(folder.join(format!("{HOST}_https.pem")), &old)?;
        let before = kept.credentials()?.chain()[0].clone();
        let mut host = world.host(1, "")?;
        host.wait_until(PATIENCE, |status| total(status, "registered") >= 1)?;
        // Key and chain are written one after the other, and belong together once the next ones are gone.
        let begun = Instant::now();
        let is_kept_beside = || kept.has(ringfort_enrol::file::NEXT);
        while kept.certificates(&format!("{HOST}_https.pem"))?[0] == before || is_kept_beside() {
            ensure!(begun.elapsed() < PATIENCE, "the certificate stays:\n{}", host.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
        let chain = kept.credentials()?.chain().to_vec();
        ensure!(kept.key()?.to_pem().as_str() != key.serialize_pem(), "the key stays");
        let now = ringfort_enrol::wall_clock();
        let peer = kept.trust()?.verify(&chain[0], Side::Client, Role::Host, now)?;
        ensure!(peer.not_after().0 > now.0 + 29 * 86_400, "it ends at {}", peer.not_after());
        // The new one is good, and stays.
        let registered = total(&host.status()?, "registered");
        host.wait_until(PATIENCE, |status| total(status, "registered") > registered + 1)?;
        ensure!(kept.credentials()?.chain()[0] == chain[0], "it was renewed again");
        host.stop()
    })
}

/// The Gateway's configured address is one where nobody is. What leads to it is what a host of its name says, and only where the
/// Gateway's own certificate answers.
// Covers: W8 allow
// Covers: W8 refuse
pub(crate) fn a_gateway_is_reached_where_its_host_says_it_is() -> Result<()> {
    World::without_tunnel("addresses = [\"203.0.113.10:444\"]")?.play(|world| {
        world.join_user(ALICE)?;
        let lab = &world.realm.stage.lab;
        let file = "resolution_mode = \"direct\"\nport = 443\ninterval_seconds = 1";
        // First it lies: that is where a Gateway of another site is, which is not the one that the pin names.
        let elsewhere = world.place()?;
        world.admin(&["site", "add", "lisbon", "--pool", "10.121.0.1/16"])?;
        let line = world.realm.invite(&["gateway", "gateway-lisbon", "--site", "lisbon"])?;
        world.realm.join("gateway-lisbon", elsewhere, &line)?.ok()?;
        let lie = SocketAddr::from((elsewhere.v4(), 443)).to_string();
        let settings = world.realm.stage.folder().join("gateway-lisbon.toml");
        std::fs::write(&settings, format!("[gateway]\nlisten = \"{lie}\"\n"))?;
        let state = world.realm.state("gateway-lisbon");
        let arguments =
            ["gateway".as_ref(), "--state".as_ref(), state.as_os_str(), "--config".as_ref(), settings.as_os_str()];
        let other = world.realm.stage.begin("gateway-lisbon", elsewhere, &arguments, "", state.join("gateway.sock"))?;
        let mut other = other.ready()?;
        world.host_joins(GATEWAY, "liar", elsewhere)?;
        let mut host = world.realm.host_begin("liar", elsewhere, file)?.ready()?;
        host.wait_until(PATIENCE, |status| total(status, "registered") >= 1)?;
        host.stop()?;
        world.login(ALICE)?;
        let client = world.realm.up_begin(ALICE)?.unready();
        let begun = Instant::now();
        while client.status().is_err() {
            ensure!(begun.elapsed() < PATIENCE, "it does not start:\n{}", client.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
        // It is tried, as is the configured address, and nothing comes of either.
        for address in [lie.as_str(), "203.0.113.10:444"] {
            client.wait_until(PATIENCE, |status| status["sites"][0]["gateway_address"] == address)?;
        }
        let refused = |status: &Value| status["sites"][0]["trouble"].to_string().contains("expected gateway");
        let status = client.wait_until(PATIENCE, refused)?;
        ensure!(status["up"] == false, "{status}");
        drop(client);
        other.stop()?;

        // Now it is where it says it is.
        world.admin(&["host", "remove", GATEWAY])?;
        world.host_joins(GATEWAY, "honest", lab.gateway())?;
        let mut host = world.realm.host_begin("honest", lab.gateway(), file)?.ready()?;
        host.wait_until(PATIENCE, |status| total(status, "registered") >= 1)?;
        world.login(ALICE)?;
        world.alice = Some(world.up(ALICE)?);
        world.reaches(ALICE, 0)?;
        let status = world.alice()?.status()?;
        let address = world.realm.gateway_address(0).to_string();
        ensure!(status["sites"][0]["gateway_address"] == address.as_str(), "{status}");
        host.stop()
    })
}
