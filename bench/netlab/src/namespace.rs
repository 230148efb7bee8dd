//! One network namespace, held by a descriptor.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    panic::resume_unwind,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{LabError, address::Pair};

/// A network namespace of the laboratory. It lives as long as this value, or as long as a process, socket or interface
/// that uses it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    addresses: Pair,
}

impl Namespace {
    /// Makes a namespace. A thread of its own leaves for it, opens it and ends; `prepare` runs on that thread.
    pub(crate) fn make(
        name: &str,
        addresses: Pair,
        prepare: impl FnOnce() -> Result<(), LabError> + Send,
    ) -> Result<Self, LabError> {
        let file = on_own_thread(name, || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| LabError::system("make a network namespace")(errno.into()))?;
            let file = File::open("/proc/thread-self/ns/net").map_err(LabError::system("open a network namespace"))?;
            prepare()?;
            Ok(file)
        })??;
        Ok(Self { name: name.to_owned(), file, addresses })
    }

    /// The name in output and errors: a client's name, `internet`, `controller`, `gateway`, `site`, and from the second
    /// site on `gateway-1`, `site-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's outer address: where others reach it. For the internet that of its host, for a site that of its
    /// first service.
    pub fn v4(&self) -> Ipv4Addr {
        self.addresses.0
    }

    /// As [`Namespace::v4`].
    pub fn v6(&self) -> Ipv6Addr {
        self.addresses.1
    }

    /// [`Namespace::v4`] and [`Namespace::v6`].
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.addresses.0.into(), self.addresses.1.into()]
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. A panic goes on in the caller.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_own_thread(&self.name, || {
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| LabError::system(format!("enter namespace {}", self.name))(errno.into()))?;
            Ok(work())
        })?
    }

    /// The descriptor's number, for `/proc/PID/fd/NUMBER`.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_own_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    let started = |error: io::Error| LabError::system("start a thread")(error);
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).map_err(started)?;
        thread.join().map_err(|panic| resume_unwind(panic))
    })
}
