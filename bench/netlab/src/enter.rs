//! Getting into a place where network namespaces may be made, before the process has threads.
//!
//! Tier `userns`: one user namespace, in which the caller is root, and everything the laboratory makes belongs to it.
//! The process executes itself anew inside: memory, descriptors and `/proc/self` then belong to that namespace from
//! their beginning, and what follows in `main` runs there once. Tier `root`: plain network namespaces, for machines
//! whose kernel or administrator withholds user namespaces.
//!
//! Some distributions grant the namespace but no rights inside. So nothing is concluded from `unshare` having worked: a
//! veth pair and a TUN device are really made. They are made in a network namespace of the process's own that is used
//! for nothing else.

use std::{
    env, fmt, fs,
    io::{self, BufRead},
    os::unix::process::CommandExt,
    process::{Command, Stdio, exit},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid},
};
use ringfort_link::{LinkError, Links};

use crate::{
    LabError, Refusal, Step,
    remedy::{Facts, remedy},
};

/// Environment variable that restricts [`enter`] to one tier: `userns` or `root`.
pub const TIER_VARIABLE: &str = "RINGFORT_LAB_TIER";

/// Environment variable that tells the re-executed process that it is inside: the identity of its user namespace.
pub(crate) const INSIDE_VARIABLE: &str = "RINGFORT_LAB_INSIDE";

/// Environment variable that tells a process to probe tier `userns`, print what refused, and end.
const PROBE_VARIABLE: &str = "RINGFORT_LAB_PROBE";

/// What such a process says when nothing refused.
const PROBE_WORKED: &str = "works";

/// The interfaces of the veth probe; they go with the process's own network namespace.
const PROBE_PAIR: [&str; 2] = ["probe0", "probe1"];

/// How the laboratory came by its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A user namespace in which the caller is root; needs no privilege.
    Userns,
    /// Root, without a user namespace.
    Root,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Userns => "userns",
            Self::Root => "root",
        })
    }
}

/// Enters the best tier that works. Must be the first statement of `main`: the kernel lets only a process of one thread
/// into a new user namespace.
///
/// With tier `userns` this call does not return: the process executes itself anew with the same arguments, and it is
/// the call made there that returns. `probe_tun` makes a TUN device in the calling thread's network namespace; it is
/// passed in, because opening one takes an `ioctl` and only `ringfort-io` has it.
///
/// [`TIER_VARIABLE`] restricts the choice to one tier.
///
/// # Errors
/// [`LabError::Unavailable`] with the one command that helps; [`LabError::Threads`]; [`LabError::UnknownTier`];
/// [`LabError::System`] if `/proc` cannot be read or the process cannot be executed anew.
pub fn enter<T>(probe_tun: fn() -> io::Result<T>) -> Result<Tier, LabError> {
    if is_inside() {
        return Ok(Tier::Userns);
    }
    check_single_thread()?;
    if env::var_os(PROBE_VARIABLE).is_some() {
        end_as_probe(probe_tun);
    }
    let forced = forced_tier()?;
    let root = Uid::effective().is_root();
    let mut refusals = Vec::new();
    if forced != Some(Tier::Root) {
        // A process cannot leave a user namespace again. Root, who has another tier to fall back on, lets a child try.
        let tried =
            if root { probe_in_child()? } else { enter_userns().and_then(|()| probe_devices(probe_tun)).map(drop) };
        match tried.and_then(|()| if root { enter_userns() } else { Ok(()) }) {
            Ok(()) => return Err(execute_anew()),
            Err((step, source)) => refusals.push(Refusal { tier: Tier::Userns, step, source }),
        }
    }
    if forced != Some(Tier::Userns) && (root || forced.is_some()) {
        match enter_as_root(root).and_then(|()| probe_devices(probe_tun)) {
            Ok(_) => return Ok(Tier::Root),
            Err((step, source)) => refusals.push(Refusal { tier: Tier::Root, step, source }),
        }
    }
    let remedy = remedy(&refusals, &Facts::gather(root));
    Err(LabError::Unavailable { refusals, remedy })
}

/// Whether the process runs in the user namespace that [`enter`] made. A stale variable names another namespace.
pub(crate) fn is_inside() -> bool {
    match (env::var(INSIDE_VARIABLE), user_namespace()) {
        (Ok(expected), Ok(actual)) => expected == actual,
        _ => false,
    }
}

type Attempt = Result<(), (Step, io::Error)>;

fn check_single_thread() -> Result<(), LabError> {
    let tasks = fs::read_dir("/proc/self/task").map_err(LabError::system("list the threads in /proc/self/task"))?;
    match tasks.count() {
        1 => Ok(()),
        threads => Err(LabError::Threads(threads)),
    }
}

fn forced_tier() -> Result<Option<Tier>, LabError> {
    match env::var_os(TIER_VARIABLE) {
        None => Ok(None),
        Some(value) if value == "userns" => Ok(Some(Tier::Userns)),
        Some(value) if value == "root" => Ok(Some(Tier::Root)),
        Some(value) => Err(LabError::UnknownTier { value: value.to_string_lossy().into_owned() }),
    }
}

/// Identity of the calling process's user namespace, such as `user:[4026532001]`.
fn user_namespace() -> io::Result<String> {
    Ok(fs::read_link("/proc/self/ns/user")?.to_string_lossy().into_owned())
}

fn enter_userns() -> Attempt {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(at(Step::UserNamespace))?;
    let maps = [
        // Without this an unprivileged process may not write gid_map (user_namespaces(7)).
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (file, text) in maps {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| (Step::IdMaps, error))?;
    }
    Ok(())
}

fn enter_as_root(root: bool) -> Attempt {
    if !root {
        return Err(at(Step::NetworkNamespace)(Errno::EPERM));
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(at(Step::NetworkNamespace))
}

fn probe_devices<T>(probe_tun: fn() -> io::Result<T>) -> Result<T, (Step, io::Error)> {
    let [near, far] = PROBE_PAIR;
    Links::open()
        .and_then(|mut links| links.add_veth(near, far, None))
        .map_err(|error| (Step::Veth, into_io(error)))?;
    probe_tun().map_err(|error| (Step::Tun, error))
}

fn probe_in_child() -> Result<Attempt, LabError> {
    let attempt = || LabError::system("run this program again to probe a user namespace");
    let mut probe = itself();
    probe.env(PROBE_VARIABLE, "1").stdin(Stdio::null()).stderr(Stdio::inherit());
    let mut child = probe.stdout(Stdio::piped()).spawn().map_err(attempt())?;
    let mut line = String::new();
    if let Some(said) = child.stdout.take() {
        io::BufReader::new(said).read_line(&mut line).map_err(attempt())?;
    }
    if line.trim() == PROBE_WORKED {
        // It is not waited for: the kernel takes some 20 ms to remove its device, and it ends without us.
        return Ok(Ok(()));
    }
    let status = child.wait().map_err(attempt())?;
    let refusal = line
        .trim()
        .split_once(' ')
        .and_then(|(step, errno)| Some((Step::from_token(step)?, io::Error::from_raw_os_error(errno.parse().ok()?))));
    let unclear = || io::Error::other(format!("the probe ended with {status} and said {line:?}"));
    refusal.map(Err).ok_or_else(unclear).map_err(attempt())
}

/// The other side of [`probe_in_child`]: says in one line that it worked, or what refused, `STEP ERRNO`.
fn end_as_probe<T>(probe_tun: fn() -> io::Result<T>) -> ! {
    let probed = enter_userns().and_then(|()| probe_devices(probe_tun));
    match &probed {
        Ok(_) => println!("{PROBE_WORKED}"),
        Err((step, source)) => println!("{} {}", step.token(), source.raw_os_error().unwrap_or(Errno::EIO as i32)),
    }
    // The device goes with the process, when the answer has been read.
    exit(i32::from(probed.is_err()))
}

/// Only returns if it failed.
fn execute_anew() -> LabError {
    match user_namespace() {
        Ok(namespace) => LabError::system("execute this program anew")(itself().env(INSIDE_VARIABLE, namespace).exec()),
        Err(source) => LabError::system("read /proc/self/ns/user")(source),
    }
}

/// This program with the arguments it was given.
fn itself() -> Command {
    let mut words = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words);
    command
}

fn at(step: Step) -> impl FnOnce(Errno) -> (Step, io::Error) {
    move |errno| (step, errno.into())
}

fn into_io(error: LinkError) -> io::Error {
    error.errno().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}
