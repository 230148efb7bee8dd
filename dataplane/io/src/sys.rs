//! System calls that std does not offer, one function each. Functions are safe unless the kernel is handed
//! pointers that outlive the arguments' types.

// UNSAFETY: each function is one system call that std does not offer, with the conditions for it beside it.
#![expect(unsafe_code, reason = "system calls std does not offer")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_ulong, c_void};

use crate::address::{Family, Name};

/// A non-blocking UDP socket.
pub(crate) fn udp_socket(family: Family) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(family.number(), kind, 0) })?;
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option whose value is an `int`.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`, which lives until the call returns.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) })?;
    Ok(())
}

pub(crate) fn bind(fd: BorrowedFd<'_>, address: SocketAddr) -> io::Result<()> {
    let name = Name::encode(address);
    // SAFETY: the kernel reads as many bytes of `name` as names of this family have, never above its size.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), Name::length_of(address)) })?;
    Ok(())
}

/// A non-blocking socket for copies of packets, from their network header on. It receives nothing until it is bound.
pub(crate) fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has a packet socket receive copies of everything that passes an interface.
pub(crate) fn bind_packets(fd: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: c_int::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `address`, which lives until the call returns.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

/// Receives the beginning of a packet, and says how long the whole is.
pub(crate) fn receive_cut(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let (start, length) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
    // SAFETY: the kernel writes at most `length` bytes to `buffer`, which is borrowed mutably until the call returns.
    let received = unsafe { libc::recv(fd.as_raw_fd(), start, length, libc::MSG_TRUNC) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Undoes a `connect`: the socket has no peer then, nor an address or a port that it was not bound to (connect(2), `AF_UNSPEC`).
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `nobody`, which lives until the call returns.
    check(unsafe { libc::connect(fd.as_raw_fd(), &raw const nobody, length) })?;
    Ok(())
}

/// An event descriptor for wake-ups.
pub(crate) fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Watches `fd` for edges of readability, reported as `token`.
pub(crate) fn epoll_add(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: token };
    // SAFETY: the kernel reads `event` during the call.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) })?;
    Ok(())
}

/// Waits `timeout_ms` (−1: for ever) and returns how many `events` were filled.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout_ms: c_int,
) -> io::Result<usize> {
    let room = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
    // SAFETY: the kernel writes at most `room` events, which the slice holds.
    let count = check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, timeout_ms) })?;
    Ok(count as usize)
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// `ifreq` as TUNSETIFF reads and writes it: name, flags, and the rest of the union.
#[repr(C)]
pub(crate) struct InterfaceRequest {
    pub(crate) name: [u8; libc::IFNAMSIZ],
    pub(crate) flags: u16,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() >= size_of::<libc::ifreq>());

impl InterfaceRequest {
    pub(crate) fn new(name: [u8; libc::IFNAMSIZ], flags: u16) -> Self {
        Self { name, flags, padding: [0; 22] }
    }
}

/// Attaches a descriptor of `/dev/net/tun` to an interface; the kernel writes back the name it chose.
pub(crate) fn tun_set_interface(fd: BorrowedFd<'_>, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one `ifreq`, which `request` has room for.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut *request) })?;
    Ok(())
}

/// Tells the TUN interface which offloads the reader understands.
pub(crate) fn tun_set_offload(fd: BorrowedFd<'_>, features: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(features)) })?;
    Ok(())
}

/// Asks for huge pages behind a large buffer, which saves address translations while the kernel copies into it.
/// Advice only; a refusal is of no consequence.
pub(crate) fn advise_huge_pages(bytes: &mut [u8]) {
    const PAGE: usize = 4096;
    let skip = bytes.as_ptr().align_offset(PAGE);
    let Some(pages) = bytes.get_mut(skip..) else { return };
    let length = pages.len() / PAGE * PAGE;
    // SAFETY: the range is within `pages`, and MADV_HUGEPAGE changes no content.
    unsafe { libc::madvise(pages.as_mut_ptr().cast::<c_void>(), length, libc::MADV_HUGEPAGE) };
}

/// A message header with null pointers and zero lengths. (Some targets have private padding in it.)
pub(crate) fn empty_message() -> libc::mmsghdr {
    // SAFETY: a struct of integers and raw pointers, for which all-zero is valid.
    unsafe { std::mem::zeroed() }
}

/// Sends the messages in order without blocking; how many were taken, at least one.
///
/// # Safety
/// Every pointer in `messages` is valid, for its stated length, until the call returns; those to names, controls
/// and data are only read.
pub(crate) unsafe fn sendmmsg(fd: BorrowedFd<'_>, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = messages.len() as libc::c_uint;
    // SAFETY: the caller vouches for the pointers; the slice holds `count` headers.
    let sent = check(unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) })?;
    Ok(sent as usize)
}

/// Receives into the messages in order without blocking; how many were filled, at least one.
///
/// # Safety
/// Every pointer in `messages` is valid for writes, for its stated length, until the call returns, and nothing
/// else refers to that memory.
pub(crate) unsafe fn recvmmsg(fd: BorrowedFd<'_>, messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = messages.len() as libc::c_uint;
    let flags = libc::MSG_DONTWAIT as _;
    let no_timeout = std::ptr::null_mut();
    // SAFETY: the caller vouches for the pointers; the slice holds `count` headers.
    let received = check(unsafe { libc::recvmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, flags, no_timeout) })?;
    Ok(received as usize)
}

/// Writes the pieces as one.
///
/// # Safety
/// Every piece is valid for reads until the call returns.
pub(crate) unsafe fn writev(fd: BorrowedFd<'_>, pieces: &[libc::iovec]) -> io::Result<usize> {
    let count = c_int::try_from(pieces.len()).unwrap_or(c_int::MAX);
    // SAFETY: the caller vouches for the pointers; the slice holds `count` of them.
    let written = unsafe { libc::writev(fd.as_raw_fd(), pieces.as_ptr(), count) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Reads at most `length` bytes to `buffer`.
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes until the call returns, and nothing else refers to that memory.
pub(crate) unsafe fn read(fd: BorrowedFd<'_>, buffer: *mut u8, length: usize) -> io::Result<usize> {
    // SAFETY: the caller vouches for the buffer.
    let count = unsafe { libc::read(fd.as_raw_fd(), buffer.cast(), length) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
