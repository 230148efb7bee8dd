//! IPv6 extension headers are followed to the ports, and hide none.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ringfort_packet::build;
use ringfort_packet::parse::{Parsed, Transport};

use crate::sockets::{answered, nothing_but_this_arrives, pattern};
use crate::world::{ALICE, Backend, GATEWAY_INNER, OPEN, PAYROLL, WIKI, World};

/// Next-header numbers (RFC 8200 §4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Options of 8 bytes that are all padding (PadN), without the next-header byte.
const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

const ALICE_PORT: u16 = 4_000;
const ECHO: u16 = 7;

fn from_alice(to: IpAddr, port: u16) -> Vec<u8> {
    build::udp((ALICE[1], ALICE_PORT).into(), (to, port).into(), b"by way of options")
}

/// The packet with each chain of options that a sender may put there.
fn chains(packet: &[u8]) -> [Vec<u8>; 3] {
    let with_destination = build::with_extension(packet, DESTINATION, &PADDING);
    [
        build::with_extension(packet, HOP_BY_HOP, &PADDING),
        build::with_extension(&with_destination, HOP_BY_HOP, &PADDING),
        with_destination,
    ]
}

pub(crate) fn options_before_udp_pass(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let _echo = world.echo((WIKI[1], ECHO).into())?;
        let mut probe = world.probe("alice", "alice")?;
        let echo = |parsed: &Parsed, _: &[u8]| {
            parsed.source == WIKI[1]
                && parsed.transport == Transport::Udp { source_port: ECHO, destination_port: ALICE_PORT }
        };
        for packet in chains(&from_alice(WIKI[1], ECHO)) {
            answered(&mut probe, &packet, echo)?;
        }
        Ok(())
    })
}

pub(crate) fn options_hide_no_refused_port(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        let refused = [(WIKI[1], 22, "default-deny"), (PAYROLL[1], ECHO, "payroll-for-accountants-only")];
        for (to, port, rule) in refused {
            let target = world.site_socket((to, port).into())?;
            let is_refusal = |parsed: &Parsed, _: &[u8]| {
                parsed.source == GATEWAY_INNER[1]
                    && matches!(parsed.transport, Transport::IcmpError { kind: 1, code: 1, .. })
            };
            for packet in chains(&from_alice(to, port)) {
                answered(&mut probe, &packet, is_refusal)?;
            }
            let found = world.denied_by("alice", &format!("udp/{}", SocketAddr::new(to, port)))?;
            ensure!(found == rule, "refused by {found}, not by {rule}");
            target.set_nonblocking(true)?;
            ensure!(target.recv(&mut [0; 64]).is_err(), "the refused packet arrived");
        }
        Ok(())
    })
}

/// A packet would reach another host than its destination says (RFC 5095).
pub(crate) fn routing_headers_are_dropped(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        let open = SocketAddr::new(OPEN[1], 9_000);
        let socket = world.site_socket(open)?;
        // Length in further words of 8 bytes, type 0, one segment left, 4 bytes reserved, the next address.
        let IpAddr::V6(next) = PAYROLL[1] else { anyhow::bail!("an IPv6 address") };
        let body = [&[2, 0, 1, 0, 0, 0, 0][..], &next.octets()].concat();
        let plain = build::udp((ALICE[1], ALICE_PORT).into(), open, &pattern(10));
        let routed = build::with_extension(&plain, ROUTING, &body);
        let packets = [build::with_extension(&routed, HOP_BY_HOP, &PADDING), routed];
        for packet in &packets {
            probe.send(packet)?;
        }
        nothing_but_this_arrives(&mut probe, (ALICE[1], ALICE_PORT).into(), &socket)?;
        world.counted("packets_malformed", packets.len() as u64)
    })
}
