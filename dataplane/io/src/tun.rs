//! The TUN interface: several queues, each a descriptor that carries frames of a vnet header and an IP packet.
//!
//! Addresses, routes and the interface's state are not set here; that is netlink's and needs no unsafe code.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::{self, InterfaceRequest};

const DEVICE: &str = "/dev/net/tun";

/// Pause between attempts while the interface is busy: the kernel tears down the rings of a process that has
/// ended, and the queues they hold, within a few of these.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Checksums and TCP segmentation, IPv4 and IPv6, ECN included.
const OFFLOAD_TSO: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// UDP segmentation (Linux 6.2); the kernel takes both or none.
const OFFLOAD_USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A TUN interface this process made. It disappears with its last queue.
#[derive(Debug)]
pub struct Tun {
    name: String,
    offloads: Offloads,
    queues: Vec<TunQueue>,
}

/// What the interface hands over unsegmented. Checksums and TCP segmentation always; these in addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// UDP segmentation: super-frames of equal datagrams in both directions.
    pub uso: bool,
}

/// One queue of a TUN interface, non-blocking. The interface loses the queue when this is dropped.
#[derive(Debug)]
pub struct TunQueue(File);

/// The TUN interface could not be made; the text names the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// Not a name the kernel takes.
    #[error("{0:?} is no interface name: 1 to 15 bytes, without '/', ':' and white space")]
    Name(String),
    /// The host or the container has no TUN driver.
    #[error("no {DEVICE}: load the driver with `modprobe tun`, or give the container the device")]
    NoDriver,
    /// The process may not make interfaces.
    #[error("not permitted to make TUN interface {name}: the process needs CAP_NET_ADMIN and access to {DEVICE}")]
    NotPermitted {
        /// The name asked for.
        name: String,
    },
    /// An interface of this name exists, and did for the whole time of retrying.
    #[error(
        "interface {name} exists already: stop the process that holds it, or remove it with `ip link delete {name}`"
    )]
    Busy {
        /// The name asked for.
        name: String,
    },
    /// Anything else.
    #[error("TUN interface {name}: {step} failed: {source}")]
    Io {
        /// The name asked for.
        name: String,
        /// The system call.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Tun {
    /// Makes the interface `name` (with `%d` in it the kernel chooses the number) with `queues` queues, at least 1.
    /// A queue is an open descriptor: the kernel allows 256.
    ///
    /// An interface of that name must not exist. While one does, tries again for `retry_for`, so that a quick
    /// restart survives the descriptors its predecessor's rings still hold. 0 tries once.
    ///
    /// # Errors
    /// [`TunError`].
    pub fn open(name: &str, queues: usize, retry_for: Duration) -> Result<Self, TunError> {
        let started = Instant::now();
        loop {
            match Self::open_once(name, queues) {
                Err(TunError::Busy { .. }) if started.elapsed() < retry_for => thread::sleep(RETRY_PAUSE),
                done => return done,
            }
        }
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which offloads the kernel agreed to.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// The queues, to be given to one worker each.
    #[must_use]
    pub fn into_queues(self) -> Vec<TunQueue> {
        self.queues
    }

    fn open_once(name: &str, queues: usize) -> Result<Self, TunError> {
        let asked = interface_name(name).ok_or_else(|| TunError::Name(name.to_owned()))?;
        // Without EXCL the kernel would add our queues to an interface that another process holds, and share its
        // packets with us.
        let (first, named) = attach(name, asked, libc::IFF_TUN_EXCL)?;
        let offloads = set_offloads(&first).map_err(|source| classify(name, "TUNSETOFFLOAD", source))?;
        let mut all = vec![first];
        for _ in 1..queues {
            all.push(attach(name, named, 0)?.0);
        }
        let chosen = named.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Self { name: String::from_utf8_lossy(chosen).into_owned(), offloads, queues: all })
    }
}

impl TunQueue {
    /// Takes a queue that was configured elsewhere (received from another process, say): a descriptor that carries
    /// one frame per read and write. Makes it non-blocking.
    ///
    /// # Errors
    /// The descriptor's flags could not be changed.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        sys::set_nonblocking(fd.as_fd())?;
        Ok(Self(fd.into()))
    }

    /// Another descriptor of the same queue. The interface keeps the queue until both are dropped, so whoever holds one keeps
    /// addresses and routes in place while the reader of the other changes.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

type InterfaceName = [u8; libc::IFNAMSIZ];

/// Opens one queue; also returns the interface's name as the kernel has it.
fn attach(name: &str, asked: InterfaceName, extra: libc::c_int) -> Result<(TunQueue, InterfaceName), TunError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(DEVICE)
        .map_err(|source| classify(name, "open", source))?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE | extra;
    let mut request = InterfaceRequest::new(asked, flags as u16);
    sys::tun_set_interface(file.as_fd(), &mut request).map_err(|source| classify(name, "TUNSETIFF", source))?;
    Ok((TunQueue(file), request.name))
}

fn set_offloads(queue: &TunQueue) -> io::Result<Offloads> {
    match sys::tun_set_offload(queue.as_fd(), OFFLOAD_TSO | OFFLOAD_USO) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            sys::tun_set_offload(queue.as_fd(), OFFLOAD_TSO)?;
            Ok(Offloads { uso: false })
        }
        done => done.map(|()| Offloads { uso: true }),
    }
}

fn interface_name(name: &str) -> Option<InterfaceName> {
    let refused = |byte: u8| byte == 0 || byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.bytes().any(refused) {
        return None;
    }
    let mut bytes = [0; libc::IFNAMSIZ];
    bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(bytes)
}

fn classify(name: &str, step: &'static str, source: io::Error) -> TunError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
        Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted { name },
        Some(libc::EBUSY) => TunError::Busy { name },
        _ => TunError::Io { name, step, source },
    }
}
