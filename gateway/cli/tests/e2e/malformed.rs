//! What is no packet, and what is no datagram, is dropped and counted; the Gateway serves on.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use ringfort_packet::build::{self, Tcp};

use crate::sockets::{answered, nothing_but_this_arrives, pattern};
use crate::world::{ALICE, Backend, OPEN, PAYROLL, World};

const PORT: u16 = 9_000;
const FROM: u16 = 4_000;

pub(crate) fn malformed_packets_are_counted_and_dropped(backend: Backend) -> Result<()> {
    World::start(backend, &["bob"])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        for family in [0, 1] {
            let (from, to) = (SocketAddr::new(ALICE[family], FROM), SocketAddr::new(OPEN[family], PORT));
            let socket = world.site_socket(to)?;
            let before = world.count("packets_malformed")?;
            let packets = malformed(from, to);
            for packet in &packets {
                probe.send(packet)?;
            }
            nothing_but_this_arrives(&mut probe, from, &socket)?;
            world.counted("packets_malformed", before + packets.len() as u64)?;
        }
        Ok(())
    })
}

/// Packets with one fault each.
fn malformed(from: SocketAddr, to: SocketAddr) -> Vec<Vec<u8>> {
    let udp = build::udp(from, to, &pattern(20));
    let tcp = build::tcp(from, to, &Tcp::default(), &pattern(20));
    let header_bytes = if from.is_ipv4() { 20 } else { 40 };
    let mut packets = vec![
        Vec::new(),
        // No such version.
        changed(&udp, 0, &[0x75]),
        // Cut within the IP header, and behind it while the header says otherwise.
        udp[..header_bytes - 1].to_vec(),
        udp[..udp.len() - 1].to_vec(),
        // Cut within the UDP header and within its payload, and within the TCP header.
        cut(&udp, header_bytes + 7),
        cut(&udp, udp.len() - 1),
        cut(&tcp, header_bytes + 19),
        // UDP shorter than its own header.
        changed(&udp, header_bytes + 4, &[0, 7]),
        // A TCP header of 60 bytes in a segment of 40, and one of 16.
        changed(&tcp, header_bytes + 12, &[0xf0]),
        changed(&tcp, header_bytes + 12, &[0x40]),
    ];
    if from.is_ipv4() {
        packets.extend([
            // A header of 16 bytes, and one of 60 in a packet of 48.
            changed(&udp, 0, &[0x44]),
            changed(&udp, 0, &[0x4f]),
            // An option of 9 bytes in a header that has room for 4, and a source route.
            changed(&changed(&udp, 0, &[0x46]), 20, &[7, 9]),
            changed(&changed(&udp, 0, &[0x46]), 20, &[131, 4, 4, 0]),
        ]);
    } else {
        // A hop-by-hop header that ends behind the packet.
        packets.push(build::with_extension(&udp, 0, &[200, 1, 4, 0, 0, 0, 0]));
    }
    packets
}

/// The packet with `bytes` written over it.
fn changed(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// The packet's beginning, with an IP header that knows of nothing more.
fn cut(packet: &[u8], length: usize) -> Vec<u8> {
    let (at, says) = if packet[0] >> 4 == 4 { (2, length) } else { (4, length - 40) };
    changed(&packet[..length], at, &(says as u16).to_be_bytes())
}

/// Bytes from an address without a session, and bytes between the records of one that has a session.
pub(crate) fn foreign_datagrams_hurt_nobody(backend: Backend) -> Result<()> {
    World::start(backend, &["bob"])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        let stranger = world.client_socket("bob", world.plan.gateway)?;
        // Each kind of first byte: plaintext records, protected ones, and what is none of both.
        for first in 0..=255_u8 {
            for length in [1, 2, 13, 60, 1_400] {
                let mut datagram = pattern(length);
                datagram[0] = first;
                probe.send_raw(&datagram)?;
                stranger.send(&datagram)?;
            }
        }
        let (from, to) = (SocketAddr::new(ALICE[0], FROM), SocketAddr::new(OPEN[0], PORT));
        let _echo = world.echo(to)?;
        answered(&mut probe, &build::udp(from, to, &pattern(20)), |parsed, _| parsed.source == to.ip())?;
        ensure!(world.count("datagrams_unknown")? > 0, "the stranger's datagrams were not counted");
        let _server = world.serve(PAYROLL[0], "payroll")?;
        world.get_page("bob", PAYROLL[0], "payroll")?;
        Ok(())
    })
}
