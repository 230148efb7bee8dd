//! Copies of the packets that pass an interface, for whoever looks for a fault (`AF_PACKET`).
//!
//! The kernel makes the copies; what carries packets knows nothing of it. Needs CAP_NET_RAW.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::sys;

/// Receives copies of an interface's packets, from the network header on.
#[derive(Debug)]
pub struct PacketTap {
    socket: OwnedFd,
    epoll: OwnedFd,
}

impl PacketTap {
    /// Copies packets of the interface with this index from now on, in both directions.
    ///
    /// # Errors
    /// No such interface; CAP_NET_RAW or `AF_PACKET` is not granted.
    pub fn open(interface: u32) -> io::Result<Self> {
        let socket = sys::packet_socket()?;
        let epoll = sys::epoll_create()?;
        sys::epoll_add(epoll.as_fd(), socket.as_fd(), 0)?;
        // Bound last: what came before would be of every interface.
        sys::bind_packets(socket.as_fd(), interface)?;
        Ok(Self { socket, epoll })
    }

    /// Puts the beginning of a packet into `buffer`, and says how long the whole is; `None` when none came `within` that time.
    ///
    /// # Errors
    /// The interface is gone or down.
    pub fn receive(&self, buffer: &mut [u8], within: Duration) -> io::Result<Option<usize>> {
        for waits in [true, false] {
            match sys::receive_cut(self.socket.as_fd(), buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && waits => {
                    let timeout_ms = libc::c_int::try_from(within.as_millis()).unwrap_or(libc::c_int::MAX);
                    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1];
                    match sys::epoll_wait(self.epoll.as_fd(), &mut events, timeout_ms) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                        Ok(_) => {}
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done.map(Some),
            }
        }
        Ok(None)
    }
}
