//! Fragments pass with their first fragment and never without it.

use std::net::SocketAddr;

use anyhow::Result;
use ringfort_packet::build::{self, Tcp};
use ringfort_packet::parse::tcp_flags;

use crate::sockets::{echoed, first_to_arrive, nothing_but_this_arrives, pattern};
use crate::world::{ALICE, Backend, OPEN, PAYROLL, World};

/// Where the site listens, and where packets come from.
const PORT: u16 = 9_000;
const FROM: u16 = 4_000;

/// The client's kernel cuts the request and the site's kernel the answer; over IPv4 the Gateway's cuts it once more.
pub(crate) fn large_datagrams_pass_both_ways(backend: Backend) -> Result<()> {
    World::start(backend, &["alice"])?.play(|world| {
        for at in OPEN.map(|at| SocketAddr::new(at, PORT)) {
            let _echo = world.echo(at)?;
            let socket = world.client_socket("alice", at)?;
            for length in [1_373, 4_000, 20_000] {
                echoed(&socket, &pattern(length))?;
            }
        }
        Ok(())
    })
}

pub(crate) fn later_fragments_need_their_first(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        for family in [0, 1] {
            let (from, to) = (SocketAddr::new(ALICE[family], FROM), SocketAddr::new(OPEN[family], PORT));
            let socket = world.site_socket(to)?;
            let before = world.count("fragment_without_first")?;
            let whole = pattern(3_000);
            let pieces = |identification| build::fragments(&build::udp(from, to, &whole), 1_200, identification);
            let headless = pieces(1);
            for fragment in &headless[1..] {
                probe.send(fragment)?;
            }
            for fragment in pieces(2) {
                probe.send(&fragment)?;
            }
            first_to_arrive(&socket, from, &whole)?;
            nothing_but_this_arrives(&mut probe, from, &socket)?;
            world.counted("fragment_without_first", before + headless.len() as u64 - 1)?;
        }
        Ok(())
    })
}

/// The ports and the flags of TCP must lie in the first fragment, and no other fragment may reach into them
/// (RFC 1858, RFC 3128).
pub(crate) fn tiny_and_overlapping_fragments_are_dropped(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        for family in [0, 1] {
            let (from, to) = (SocketAddr::new(ALICE[family], FROM), SocketAddr::new(OPEN[family], PORT));
            let socket = world.site_socket(to)?;
            let before = world.count("packets_malformed")?;
            let syn = build::tcp(from, to, &Tcp { flags: tcp_flags::SYN, ..Tcp::default() }, &[0; 12]);
            // 8 bytes at offset 0, where 20 of a header should be, and 8 at offset 8.
            for fragment in &build::fragments(&syn, 8, 1)[..2] {
                probe.send(fragment)?;
            }
            nothing_but_this_arrives(&mut probe, from, &socket)?;
            world.counted("packets_malformed", before + 2)?;
        }
        Ok(())
    })
}

pub(crate) fn fragments_of_a_refused_packet_are_refused(backend: Backend) -> Result<()> {
    World::start(backend, &[])?.play(|world| {
        let mut probe = world.probe("alice", "alice")?;
        for family in [0, 1] {
            let (from, refused) = (SocketAddr::new(ALICE[family], FROM), SocketAddr::new(PAYROLL[family], PORT));
            let (target, open) = (world.site_socket(refused)?, world.site_socket((OPEN[family], PORT).into())?);
            let (denied, headless) = (world.count("packets_denied")?, world.count("fragment_without_first")?);
            let pieces = build::fragments(&build::udp(from, refused, &pattern(3_000)), 1_200, 1);
            for fragment in &pieces {
                probe.send(fragment)?;
            }
            nothing_but_this_arrives(&mut probe, from, &open)?;
            world.counted("packets_denied", denied + 1)?;
            world.counted("fragment_without_first", headless + pieces.len() as u64 - 1)?;
            target.set_nonblocking(true)?;
            anyhow::ensure!(target.recv(&mut [0; 64]).is_err(), "the refused packet arrived");
        }
        Ok(())
    })
}
