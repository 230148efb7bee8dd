//! The key of a flow.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers that the data plane treats by name.
pub mod protocol {
    /// Internet Control Message Protocol, RFC 792.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol, RFC 9293.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol, RFC 768.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
}

/// Addresses, protocol and ports of one direction of a flow.
///
/// IPv4 and IPv6 keys are never equal, whatever their addresses. For ICMP echo both ports hold the identifier,
/// so that request and reply are each other's [`FlowKey::reversed`]; for protocols without ports both are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    source: u128,
    destination: u128,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    ipv6: bool,
}

impl FlowKey {
    /// A key from its parts. Both addresses are of one family; `None` otherwise.
    #[must_use]
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        source_port: u16,
        destination_port: u16,
    ) -> Option<Self> {
        let (source, destination, ipv6) = match (source, destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => (u128::from(u32::from(s)), u128::from(u32::from(d)), false),
            (IpAddr::V6(s), IpAddr::V6(d)) => (u128::from(s), u128::from(d), true),
            _ => return None,
        };
        Some(Self { source, destination, source_port, destination_port, protocol, ipv6 })
    }

    /// The key of the packets that answer this one.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// Where packets of this key come from.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        address(self.source, self.ipv6)
    }

    /// Where packets of this key go to.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        address(self.destination, self.ipv6)
    }

    /// Source port, or the identifier of an ICMP echo, or 0.
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        self.source_port
    }

    /// Destination port, or the identifier of an ICMP echo, or 0.
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        self.destination_port
    }

    /// Some bits of all fields mixed together. Who chooses the fields can make them collide at will.
    #[inline]
    pub(crate) const fn mixed(&self) -> u32 {
        let addresses = self.source ^ self.destination.rotate_left(64);
        let addresses = addresses as u64 ^ (addresses >> 64) as u64;
        let ports = (self.source_port as u64) << 32 | (self.destination_port as u64) << 8 | self.protocol as u64;
        // The multiplier of a Fibonacci hash: 2⁶⁴ divided by the golden ratio, odd.
        ((addresses ^ ports).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }

    /// IP protocol number of the transport (behind any IPv6 extension headers).
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }
}

fn address(bits: u128, ipv6: bool) -> IpAddr {
    if ipv6 { IpAddr::V6(Ipv6Addr::from(bits)) } else { IpAddr::V4(Ipv4Addr::from(bits as u32)) }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{} > {}:{} proto {}",
            self.source(),
            self.source_port,
            self.destination(),
            self.destination_port,
            self.protocol
        )
    }
}
