//! A Controller's backup, and what is made of it again.
//!
//! A backup is a private folder: the files of the state folder and, where the database is a file, that as it was at one moment.
//! It has every key of the Controller, so it is to be kept as the Controller itself is. A PostgreSQL database has ways of its own
//! (pg_dump, pg_restore) and is not in it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ringfort_enrol::{Folder, Secrecy, wall_clock};

use crate::core::{Core, FROM_BACKUP, RESTORING, copy_database};
use crate::shell::kept_settings;

/// The database, where it is a file.
const DATABASE: &str = "database.sqlite";
/// The Controller's settings, without which a folder is none of a Controller's: a restore writes them last.
const SETTINGS: &str = "controller.toml";
/// Largest file of a state folder beside the database, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Copies what the Controller in the folder `state` needs into the new folder `to`. The Controller may run.
///
/// # Errors
/// When `to` has something in it, or a file cannot be read or written.
pub fn backup(state: &Path, to: &Path) -> Result<()> {
    let from = Folder::open(state)?;
    ensure!(from.has(SETTINGS), "{}: expected the state folder of a Controller", state.display());
    ensure!(!from.has(RESTORING), "{}: expected a folder in which no restore broke off", state.display());
    let target = empty(to)?;
    copy_files(state, &target)?;
    if from.has(DATABASE) {
        runtime()?.block_on(copy_database(&from.file(DATABASE), &target.file(DATABASE)))?;
    }
    Ok(())
}

/// Makes the Controller in the folder `state` what it was at its backup in the folder `from`, and begins a new epoch: every token
/// that was issued is dead, and every invitation used up. Without `from` the state folder is taken as it is: the database was
/// restored by its own means. A restore that broke off is repeated in the same way, and no Controller starts in the folder before.
///
/// # Errors
/// When a Controller uses the database, `state` has something in it, `from` is no backup, or the database cannot be opened.
pub fn restore(from: Option<&Path>, state: &Path) -> Result<()> {
    let folder = match from {
        Some(from) => filled(from, state)?,
        None => Folder::open(state)?,
    };
    ensure!(
        folder.has(SETTINGS) || !folder.has(RESTORING),
        "{}: expected a whole state folder, found one whose restore broke off: repeat it with --from",
        state.display()
    );
    let settings = kept_settings(&folder)?;
    runtime()?.block_on(Core::restore(state, &settings, wall_clock()))
}

/// The folder `state` with everything of the backup in `from`. It was empty, or another attempt to fill it broke off.
fn filled(from: &Path, state: &Path) -> Result<Folder> {
    ensure!(from.join(SETTINGS).exists(), "{}: expected a Controller's backup", from.display());
    let target = Folder::create(state)?;
    if target.has(RESTORING) && target.read(RESTORING)? == FROM_BACKUP {
        for file in fs::read_dir(state).with_context(|| state.display().to_string())? {
            let (file, path) = file.map(|file| (file.file_name(), file.path()))?;
            if file != RESTORING {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
    } else {
        empty(state)?.write(RESTORING, FROM_BACKUP, Secrecy::Secret)?;
    }
    if from.join(DATABASE).exists() {
        fs::copy(from.join(DATABASE), target.file(DATABASE)).context("copy the database")?;
        fs::File::open(target.file(DATABASE)).and_then(|copy| copy.sync_all()).context("copy the database")?;
    }
    copy_files(from, &target)?;
    Ok(target)
}

/// A private folder with nothing in it, made if it is not there.
fn empty(path: &Path) -> Result<Folder> {
    let folder = Folder::create(path)?;
    let mut found = fs::read_dir(path).with_context(|| path.display().to_string())?;
    if let Some(entry) = found.next() {
        let name = entry?.file_name();
        bail!("{}: expected an empty folder, found {} in it", path.display(), name.to_string_lossy());
    }
    Ok(folder)
}

/// Copies all files but the database, the settings last.
fn copy_files(from: &Path, to: &Folder) -> Result<()> {
    let mut settings = None;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let (entry, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let name = entry.to_str().with_context(|| format!("{}: expected a name in UTF-8", path.display()))?;
        let metadata = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        // The status socket, and the database with the files beside it.
        if !metadata.is_file() || name.starts_with(DATABASE) {
            continue;
        }
        ensure!(metadata.len() <= FILE_BYTES_MAX, "{}: expected at most {FILE_BYTES_MAX} bytes", path.display());
        let content = zeroize::Zeroizing::new(fs::read(&path).with_context(|| path.display().to_string())?);
        match name == SETTINGS {
            true => settings = Some(content),
            false => to.write(name, &content, Secrecy::Secret)?,
        }
    }
    settings.map_or(Ok(()), |content| Ok(to.write(SETTINGS, &content, Secrecy::Secret)?))
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}
