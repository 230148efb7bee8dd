//! A role that cannot run says why, names the file and what to do, and ends with code 1.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ringfort_stage::files::Plan;
use tempfile::TempDir;
use toml::{Table, Value};

use crate::world::{Backend, PROGRAM, plan};

/// The two roles, with the section of their files.
const ROLES: [(&str, &str); 2] = [("gateway", "gateway"), ("up", "client")];

pub(crate) fn a_file_that_is_wrong_is_refused((): ()) -> Result<()> {
    for (role, section) in ROLES {
        let files = Files::write()?;
        let file = files.of(role);
        let good = fs::read_to_string(&file)?;
        files.refused(role, |_| Ok(fs::write(&file, "listen = [")?), &["line 1"])?;
        files.refused(role, |_| Ok(fs::write(&file, [0xff, 0xfe])?), &["expected UTF-8"])?;
        fs::write(&file, good)?;
        files.refused(role, |file| set(file, section, "colour", "red".into()), &["unknown field", "colour"])?;
        files.refused(role, |file| set(file, section, "backend", "dpdk".into()), &["dpdk", "expected", "io_uring"])?;
        files.refused(role, |file| set(file, section, "mtu", 100.into()), &["expected an MTU of 1280"])?;
        fs::remove_file(&file)?;
        files.refused(role, |_| Ok(()), &["cannot read"])?;
    }
    Ok(())
}

pub(crate) fn credentials_that_are_wrong_are_refused((): ()) -> Result<()> {
    for (role, name) in [("gateway", "gateway"), ("up", "alice")] {
        let files = Files::write()?;
        let path = |suffix: &str| files.folder.path().join(format!("{name}.{suffix}"));
        let readable = |mode| fs::set_permissions(path("key"), fs::Permissions::from_mode(mode));
        files.refused_at(role, &path("key"), || Ok(readable(0o644)?), &["found mode 644", "chmod 600"])?;
        readable(0o600)?;
        let another = fs::read(files.folder.path().join("bob.key"))?;
        files.refused_at(role, &path("pem"), || Ok(fs::write(path("key"), another)?), &["certificate", "key"])?;
        files.refused_at(
            role,
            &path("key"),
            || Ok(fs::write(path("key"), "no key")?),
            &["expected a PEM private key"],
        )?;
        let files = Files::write()?;
        let ca = files.folder.path().join("ca.pem");
        files.refused_at(role, &ca, || Ok(fs::write(&ca, "no CA")?), &["expected a PEM certificate"])?;
        files.refused_at(role, &ca, || Ok(fs::remove_file(&ca)?), &["cannot read"])?;
    }
    Ok(())
}

// Covers: K2 refuse
pub(crate) fn a_core_that_is_not_there_is_refused((): ()) -> Result<()> {
    let files = Files::write()?;
    let cores = Value::Array(vec![999.into()]);
    files.refused_at(
        "gateway",
        Path::new("gateway.cores"),
        || set(&files.of("gateway"), "gateway", "cores", cores),
        &["core 999", "not among those"],
    )
}

pub(crate) fn a_route_to_the_gateway_itself_is_refused((): ()) -> Result<()> {
    let files = Files::write()?;
    let routes = Value::Array(vec!["203.0.113.0/24".into()]);
    files.refused("up", |file| set(file, "client", "routes", routes), &["203.0.113.0/24", "run through itself"])
}

/// A folder of files that would do.
struct Files {
    folder: TempDir,
}

impl Files {
    fn write() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        plan(Backend::Epoll).write(folder.path())?;
        Ok(Self { folder })
    }

    fn of(&self, role: &str) -> PathBuf {
        match role {
            "gateway" => Plan::gateway_file(self.folder.path()),
            _ => Plan::user_file(self.folder.path(), "alice"),
        }
    }

    /// After `spoil` the role ends with code 1 and an error that names its own file and says all of `says`. What was
    /// spoiled in the file itself is mended.
    fn refused(&self, role: &str, spoil: impl FnOnce(&Path) -> Result<()>, says: &[&str]) -> Result<()> {
        let file = self.of(role);
        let good = fs::read(&file).unwrap_or_default();
        self.refused_at(role, &file, || spoil(&file), says)?;
        if file.exists() {
            fs::write(&file, good)?;
        }
        Ok(())
    }

    /// As [`Files::refused`], naming `place`.
    fn refused_at(&self, role: &str, place: &Path, spoil: impl FnOnce() -> Result<()>, says: &[&str]) -> Result<()> {
        spoil()?;
        let mut command = Command::new(PROGRAM);
        // If it ran after all, it would end at once with code 0.
        command.args([role, "--stop-with-stdin", "--static"]).arg(self.of(role)).stdin(Stdio::null());
        let output = command.output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "expected code 1, found {}: {error}", output.status);
        for part in says.iter().copied().chain([place.to_str().context("no text")?]) {
            ensure!(error.contains(part), "expected {part:?} in the error of {role}, found: {error}");
        }
        ensure!(output.stdout.is_empty(), "it said that it is ready");
        Ok(())
    }
}

fn set(file: &Path, section: &str, key: &str, value: Value) -> Result<()> {
    let mut table: Table = fs::read_to_string(file)?.parse()?;
    table[section].as_table_mut().context("no section")?.insert(key.into(), value);
    Ok(fs::write(file, table.to_string())?)
}
