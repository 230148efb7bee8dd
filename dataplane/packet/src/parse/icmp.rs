//! ICMP and ICMPv6: echo, errors and the packet that an error quotes.

use std::net::IpAddr;

use super::{Family, Malformed, Transport, extensions};
use super::{ipv4_address, ipv4_fragment, ipv4_header_bytes, ipv6_addresses};
use crate::flow::{FlowKey, protocol};
use crate::wire::{icmp, ipv4, ipv6, u16_at};

pub(super) fn transport(family: Family, payload: &[u8]) -> Result<Transport, Malformed> {
    let (header, body) = payload.split_first_chunk::<{ icmp::HEADER_BYTES }>().ok_or(Malformed::TransportTruncated)?;
    let (kind, code) = (header[0], header[1]);
    if let Some(request) = echo(family, kind, code) {
        return Ok(Transport::IcmpEcho { identifier: u16_at(header, 4), request });
    }
    Ok(match (family, kind) {
        // Destination unreachable, time exceeded, parameter problem (RFC 792); of RFC 4443 also packet too big.
        (Family::V4, 3 | 11 | 12) | (Family::V6, 1..=4) => {
            Transport::IcmpError { kind, code, quoted: quoted_flow(family, body).ok_or(Malformed::QuotedPacket)? }
        }
        _ => Transport::IcmpOther { kind, code },
    })
}

/// Whether the message is an echo request (`Some(true)`) or reply (`Some(false)`).
fn echo(family: Family, kind: u8, code: u8) -> Option<bool> {
    match (family, kind, code) {
        (Family::V4, 8, 0) | (Family::V6, 128, 0) => Some(true),
        (Family::V4, 0, 0) | (Family::V6, 129, 0) => Some(false),
        _ => None,
    }
}

/// The flow of a quoted packet, of which only the beginning is there: its lengths are not compared with what
/// follows.
fn quoted_flow(family: Family, quoted: &[u8]) -> Option<FlowKey> {
    let (source, destination, protocol, payload, fragment): (IpAddr, IpAddr, _, _, _) =
        match (family, quoted.first()? >> 4) {
            (Family::V4, 4) => {
                let header = quoted.first_chunk::<{ ipv4::HEADER_BYTES }>()?;
                let payload = quoted.get(usize::from(ipv4_header_bytes(header)?)..)?;
                let source = ipv4_address(header, ipv4::SOURCE).into();
                let destination = ipv4_address(header, ipv4::DESTINATION).into();
                (source, destination, header[ipv4::PROTOCOL], payload, ipv4_fragment(header))
            }
            (Family::V6, 6) => {
                let header = quoted.first_chunk::<{ ipv6::HEADER_BYTES }>()?;
                let (source, destination) = ipv6_addresses(header)?;
                let chain = extensions::walk(header, quoted).ok()?;
                let payload = quoted.get(chain.end..)?;
                let fragment = chain.fragment.map(|(fragment, _)| fragment);
                (source.into(), destination.into(), chain.protocol, payload, fragment)
            }
            _ => return None,
        };
    let (source_port, destination_port) = if fragment.is_some_and(|fragment| fragment.offset_bytes != 0) {
        (0, 0)
    } else {
        quoted_ports(family, protocol, payload)?
    };
    FlowKey::new(source, destination, protocol, source_port, destination_port)
}

/// The ports of a quoted packet, the identifier of an echo twice, or zeros.
fn quoted_ports(family: Family, protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    // RFC 792 and RFC 4443 promise 8 bytes of what the packet carried.
    match (protocol, family) {
        (protocol::TCP | protocol::UDP, _) => {
            let header = payload.first_chunk::<8>()?;
            Some((u16_at(header, 0), u16_at(header, 2)))
        }
        // With zeros, other messages would pass for an echo whose identifier is 0.
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
            let header = payload.first_chunk::<{ icmp::HEADER_BYTES }>()?;
            echo(family, header[0], header[1])?;
            let identifier = u16_at(header, 4);
            Some((identifier, identifier))
        }
        _ => Some((0, 0)),
    }
}
