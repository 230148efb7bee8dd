//! dimpl's client of DTLS 1.2 over a network that loses, doubles, delays and reorders datagrams and damages some, each run from
//! its seed.

use std::time::Duration;

use ringfort_dtls::Settings;

use crate::dimpl_peer::Other;
use crate::network::{Dice, Network, To};
use crate::world::{Ca, Ends, Pair, START};

/// Of a hundred datagrams to the server, except hellos. The client would believe what it is told of a damaged hello, and
/// whatever is damaged on its way to it.
const DAMAGED: u64 = 1;

/// One handshake; gives how long it took, or why it was given up.
fn handshake(ends: &Ends, device: &ringfort_identity::Credentials, seed: u64) -> Result<Duration, String> {
    let (mut pair, mut other) = (Pair::new(ends), Other::client_12(device));
    let (mut dice, mut network) = (Dice(seed), Network::default());
    for step in 0..12_000u64 {
        let at = Duration::from_millis(step * 5);
        pair.now = START + at;
        pair.tick();
        other.pass(at).map_err(|error| error.to_string())?;
        while let Some((to, mut datagram)) = network.arrived(at) {
            match to {
                To::Server => pair.reaches_server(&mut datagram),
                To::Client => other.try_handle(&datagram).map_err(|error| error.to_string())?,
            }
        }
        for datagram in std::mem::take(&mut other.out) {
            let is_hello = datagram.get(13) == Some(&1);
            network.send_over(To::Server, datagram.into(), at, &mut dice, if is_hello { 0 } else { DAMAGED });
        }
        for datagram in pair.server.transmits() {
            network.send_over(To::Client, datagram, at, &mut dice, 0);
        }
        pair.take_events();
        if pair.server_peer().is_some() && other.is_connected {
            let mut record = [0; 100];
            let length = pair.server_end().seal(b"down", &mut record).ok_or("the server has ended")?;
            other.handle(&record[..length]);
            assert_eq!(other.received, [b"down"]);
            other.send(b"up");
            let mut sealed = other.out.pop().ok_or("nothing sealed")?;
            pair.reaches_server(&mut sealed);
            assert_eq!(pair.delivered, [b"up"]);
            return Ok(at);
        }
    }
    Err(format!("neither established nor ended in 60 s: {:?}", pair.server_events))
}

/// 1,000 seeds: all but a few handshakes are finished. (20 % lost, 10 % doubled, 30 % late.)
#[test]
fn handshakes_get_through() {
    let patient = Settings { handshake_time_max: Duration::from_secs(40), ..Settings::default() };
    let small = Settings { handshake_datagram_bytes_max: 300, ..patient.clone() };
    let ca = Ca::root();
    let (gateway, device) = (ca.intermediate().gateway(), ca.device());
    let kinds = [patient, small].map(|settings| Ends::with(&ca, &gateway, &device, settings, Settings::default()));
    let mut times = Vec::new();
    let mut given_up = Vec::new();
    for seed in 0..1_000u64 {
        let ends = Ends { seed: seed as u8, ..kinds[usize::from(seed % 4 == 3)].clone() };
        match handshake(&ends, &device, seed) {
            Ok(time) => times.push(time),
            Err(why) => given_up.push((seed, why)),
        }
    }
    times.sort();
    let median = times.get(times.len() / 2);
    assert!(given_up.len() <= 20, "median {median:?}, slowest {:?}, given up: {given_up:#?}", times.last());
}
