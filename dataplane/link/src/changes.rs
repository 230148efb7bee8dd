//! Word of changes that anybody makes to addresses and routes.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::{LinkError, errno};

/// Multicast groups of rtnetlink(7), as bits: addresses and routes of IPv4 and IPv6.
const ADDRESSES_V4: u32 = 0x10;
const ROUTES_V4: u32 = 0x40;
const ADDRESSES_V6: u32 = 0x100;
const ROUTES_V6: u32 = 0x400;
/// Room for one datagram from the kernel.
const DATAGRAM_BYTES_MAX: usize = 32 * 1024;

/// Hears of every change of an address or a route in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Changes {
    /// Listens from now on.
    ///
    /// # Errors
    /// [`LinkError::Open`].
    pub fn open() -> Result<Self, LinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, ADDRESSES_V4 | ROUTES_V4 | ADDRESSES_V6 | ROUTES_V6))?;
            io::Result::Ok(socket)
        };
        let socket = open().map_err(LinkError::Open)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM_BYTES_MAX) })
    }

    /// Waits, for ever if need be, until something changes. What it was is for the caller to look up: several changes, or more than
    /// the kernel could keep for us, may be one word.
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub fn wait(&mut self) -> Result<(), LinkError> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => Ok(()),
            // More changed than there was room for.
            Err(error) if error.raw_os_error() == Some(errno::ENOBUFS) => Ok(()),
            Err(source) => Err(LinkError::Refused {
                attempt: "hear of changes of addresses and routes".into(),
                source,
                detail: None,
            }),
        }
    }
}
