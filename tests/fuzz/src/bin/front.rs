//! What strangers send: the screen before everything, and the codec of hellos behind it.
//!
//! Held: an answer is never longer than what it answers; only a cookie that was given out opens anything; nothing panics.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ringfort_dtls::{Association, Front, Opening, Screened, ServerConfig};

#[path = "../../../../dataplane/dtls/tests/associations/world.rs"]
#[allow(dead_code)]
mod world;

use world::{Ends, START, UNIX, client_address};

struct Bench {
    front: Front,
    config: Arc<ServerConfig>,
    /// Datagrams of honest hellos, to be changed.
    hellos: Vec<Vec<u8>>,
}

fn bench() -> Bench {
    let ends = Ends::usual();
    let mut client = Association::client(&ends.client, ends.client_cid, [7; 32], START, UNIX);
    let (mut front, mut hellos) = (Front::new(&[1; 32]), Vec::new());
    let mut reply = [0; 2_000];
    for _ in 0..2 {
        while let Some(datagram) = client.poll_transmit() {
            if let Screened::Reply { bytes, .. } =
                front.screen(&ends.server, &datagram, client_address(), START, &mut reply)
            {
                client.handle_datagram(&mut reply[..bytes], START, |_| {});
            }
            hellos.push(datagram.to_vec());
        }
    }
    assert!(hellos.len() >= 2);
    Bench { front, config: ends.server, hellos }
}

thread_local!(static BENCH: RefCell<Bench> = RefCell::new(bench()));

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    BENCH.with_borrow_mut(|bench| {
        let mut datagram = rest.to_vec();
        // Half of them are honest hellos with changes: each of four bytes, where (two), what, and whether it is put in.
        if first & 1 == 0 {
            datagram.clone_from(&bench.hellos[usize::from(first >> 1) % bench.hellos.len()]);
            for change in rest.chunks_exact(4) {
                let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % (datagram.len() + 1);
                match change[3] % 3 {
                    0 if at < datagram.len() => datagram[at] = change[2],
                    1 => datagram.insert(at, change[2]),
                    2 if at < datagram.len() => drop(datagram.remove(at)),
                    _ => {}
                }
            }
        }
        let mut reply = [0; 4_000];
        let room = datagram.len().min(reply.len());
        match bench.front.screen(&bench.config, &datagram, client_address(), START, &mut reply) {
            Screened::Reply { bytes, .. } => assert!(bytes <= room),
            Screened::Opening(opening) => begin(bench, &opening, &mut datagram),
            Screened::Dropped(_) => {}
        }
        if let Some(opening) = Opening::unvalidated(&datagram) {
            begin(bench, &opening, &mut datagram);
        }
    });
});

/// What an association does with a hello that was let through. It costs a handshake's arithmetic, so it is done for few.
fn begin(bench: &Bench, opening: &Opening, datagram: &mut [u8]) {
    let mut server = Association::server(&bench.config, opening, None, [9; 32], START, UNIX);
    server.handle_datagram(datagram, START, |received| {
        assert!(!matches!(received, ringfort_dtls::Received::Packet { .. }))
    });
    while let Some(sent) = server.poll_transmit() {
        assert!(sent.len() <= 1_200);
    }
    assert!(server.peer().is_none());
}
