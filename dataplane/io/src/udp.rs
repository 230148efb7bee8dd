//! The worker's UDP socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use crate::address::Family;
use crate::sys;

/// Datagrams dropped by one [`UdpSocket::discard_arrived`]: an empty one takes 768 bytes of a buffer of 8 MiB. It only bounds
/// the call under a flood.
const DISCARDED_MAX: usize = 16_384;

/// Whether other sockets may be bound to the same address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSharing {
    /// No; a second bind fails.
    Exclusive,
    /// Other sockets of the same user may, and the kernel spreads peers over them (`SO_REUSEPORT`). Sockets are
    /// numbered in the order they were bound; closing one renumbers the last, so close them together.
    ReusePort,
}

/// A non-blocking UDP socket that receives batches (`UDP_GRO`). Bound to an IPv6 wildcard it serves IPv4 as well.
#[derive(Debug)]
pub struct UdpSocket {
    socket: std::net::UdpSocket,
    family: Family,
}

impl UdpSocket {
    /// Binds to `addr`; port 0 lets the kernel choose. Asks for `buffer_bytes` of receive and as much of send
    /// buffer; the kernel grants no more than `net.core.rmem_max` and `net.core.wmem_max`.
    ///
    /// # Errors
    /// The address is taken or not this host's; the kernel has no UDP GRO (before 5.0).
    pub fn bind(addr: SocketAddr, share: PortSharing, buffer_bytes: usize) -> io::Result<Self> {
        let family = Family::of(addr);
        let fd = sys::udp_socket(family)?;
        let buffer_bytes = libc::c_int::try_from(buffer_bytes).unwrap_or(libc::c_int::MAX);
        sys::set_option(fd.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)?;
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, buffer_bytes)?;
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, buffer_bytes)?;
        // The path MTU that the kernel believes in can be lowered by anybody who sends an ICMP error quoting one of our
        // datagrams, and a batch whose segments exceed it fails whole. So the kernel is to send by the interface's MTU.
        sys::set_option(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?;
        if addr.is_ipv6() {
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)?;
        }
        if addr.ip() == IpAddr::from([0u16; 8]) {
            sys::set_option(fd.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
        }
        if share == PortSharing::ReusePort {
            sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        sys::bind(fd.as_fd(), addr)?;
        Ok(Self { socket: fd.into(), family })
    }

    /// Sends to and receives from `peer` only.
    ///
    /// # Errors
    /// No route, or an IPv6 peer on an IPv4 socket.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        let peer = self.family.express(peer).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        self.socket.connect(peer)
    }

    /// Connects anew, from the address and a port that the kernel now chooses. For a connected socket whose machine has moved to
    /// another network: it would go on sending from the address that it had.
    ///
    /// # Errors
    /// As [`UdpSocket::connect`]; the socket is then connected to nobody.
    pub fn reconnect(&self, peer: SocketAddr) -> io::Result<()> {
        sys::disconnect(self.socket.as_fd())?;
        self.connect(peer)
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// The process has too many files open.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, family: self.family })
    }

    /// Drops what has arrived so far. For sockets that share a port, once all of them are bound: what came before was
    /// spread over fewer, and what follows it goes to another one.
    pub fn discard_arrived(&self) {
        // Stops at the first failure, of which "would block" is the usual one, and after more than any buffer holds.
        (0..DISCARDED_MAX).take_while(|_| self.socket.recv(&mut []).is_ok()).for_each(drop);
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// None in practice; the system call can say so.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Sends one datagram by one system call. `to` is an address of the socket's family.
    pub(crate) fn send(&self, bytes: &[u8], to: Option<SocketAddr>) -> io::Result<usize> {
        match to {
            Some(to) => self.socket.send_to(bytes, to),
            None => self.socket.send(bytes),
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_connects_anew_has_another_port_and_the_same_peer() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let peer = std::net::UdpSocket::bind(address).unwrap();
            peer.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            let any: IpAddr = if address.starts_with('[') { [0; 16].into() } else { [0; 4].into() };
            let socket = UdpSocket::bind((any, 0).into(), PortSharing::Exclusive, 1 << 20).unwrap();
            let twin = socket.try_clone().unwrap();
            let mut received = [0; 16];
            socket.connect(peer.local_addr().unwrap()).unwrap();
            socket.send(b"one", None).unwrap();
            let (_, first) = peer.recv_from(&mut received).unwrap();
            twin.reconnect(peer.local_addr().unwrap()).unwrap();
            socket.send(b"two", None).unwrap();
            let (length, second) = peer.recv_from(&mut received).unwrap();
            assert_eq!((&received[..length], second.ip()), (&b"two"[..], first.ip()));
            assert_ne!(first.port(), second.port());
            assert_eq!(socket.local_addr().unwrap(), second);
            peer.send_to(b"back", second).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(socket.socket.recv(&mut received).unwrap(), 4);
        }
    }

    #[test]
    fn what_has_arrived_is_discarded_and_what_comes_later_is_not() {
        let socket = UdpSocket::bind(([127, 0, 0, 1], 0).into(), PortSharing::ReusePort, 1 << 20).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.connect(socket.local_addr().unwrap()).unwrap();
        for datagram in [&b""[..], b"early", &[7; 9_000]] {
            peer.send(datagram).unwrap();
        }
        socket.discard_arrived();
        let mut received = [0; 16];
        assert_eq!(socket.socket.recv(&mut received).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        peer.send(b"late").unwrap();
        assert_eq!(socket.socket.recv(&mut received).unwrap(), 4);
    }
}
