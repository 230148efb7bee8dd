//! The server: one socket, an association per peer, every packet back to where it came from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringfort_dtls::record::CONTENT_BYTES_MAX;
use ringfort_dtls::{Association, Ended, Event, Front, Randomness, Received, Reply, Screened, ServerConfig};
use ringfort_types::BootInstant;

use crate::hello::Chosen;
use crate::options::{CommonOptions, ServerOptions};
use crate::policy::Policy;
use crate::socket::{DATAGRAM_BYTES_MAX, Socket, hex, randomness, readable};
use crate::{Failed, Outcome};

/// Associations at one time. One more is not begun; its peer asks again.
const PEERS_MAX: usize = 1_024;

/// With `--once`, so long after the end: the last alert is on its way, and a port that is closed at once would answer the peer's
/// next datagram by an ICMP error that hides it. GnuTLS believes an alert in the clear only when it has asked again, after 1 s.
const LINGER: Duration = Duration::from_millis(1_500);

/// Which association, counted from 1 in the order in which they began.
type Number = u64;

struct Peer {
    association: Association,
    address: SocketAddr,
    /// The random of the hello that began it.
    begun_by: [u8; 32],
    subject: Option<String>,
    chosen: Chosen,
    sealed: u32,
    is_established: bool,
}

struct Server<'a> {
    options: &'a CommonOptions,
    config: Arc<ServerConfig>,
    policy: Arc<Policy>,
    socket: Socket,
    front: Front,
    randomness: Randomness,
    peers: BTreeMap<Number, Peer>,
    by_address: BTreeMap<SocketAddr, Number>,
    by_cid: BTreeMap<Vec<u8>, Number>,
    begun: Number,
    /// How the first association that ended came out, and when.
    first_end: Option<(Outcome, BootInstant)>,
}

/// Serves until something ends it.
pub(crate) fn run(options: &ServerOptions) -> Result<Outcome, Failed> {
    let (config, policy) = options.config()?;
    let mut randomness = randomness()?;
    let socket = Socket::bind(options.listen, options.common.timeout())?;
    println!("listening address={}", socket.address()?);
    let mut server = Server {
        options: &options.common,
        config,
        policy,
        socket,
        front: Front::new(&randomness.draw()),
        randomness,
        peers: BTreeMap::new(),
        by_address: BTreeMap::new(),
        by_cid: BTreeMap::new(),
        begun: 0,
        first_end: None,
    };
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let until = server.peers.values().filter_map(|peer| peer.association.poll_timeout()).min();
        if let Some((length, from)) = server.socket.receive(&mut buffer, until)? {
            server.handle(&mut buffer[..length], from);
        }
        server.handle_timeouts();
        match server.first_end {
            Some((outcome, at)) if options.once && server.socket.now() >= at + LINGER => return Ok(outcome),
            _ if server.socket.is_time_out() => return Ok(Outcome::TimeOut),
            _ => {}
        }
    }
}

impl Server<'_> {
    fn handle(&mut self, datagram: &mut [u8], from: SocketAddr) {
        // Hellos, which are in the clear, are screened; all else belongs to an association, or to nobody.
        if datagram.first() == Some(&22) {
            let mut reply = vec![0; datagram.len()];
            match self.front.screen(&self.config, datagram, from, self.socket.now(), &mut reply) {
                Screened::Opening(opening) => {
                    let known = self.by_address.get(&from).and_then(|number| self.peers.get(number));
                    // A repetition goes to the association that the hello began.
                    if known.is_none_or(|peer| peer.begun_by != *opening.random()) {
                        self.begin(&opening, from);
                    }
                }
                Screened::Reply { bytes, reply: what } => {
                    self.socket.send(&reply[..bytes], from);
                    if let Reply::Refusal(alert) = what {
                        println!("refused peer={from} alert=\"{alert}\"");
                        self.first_end.get_or_insert((Outcome::Refused, self.socket.now()));
                    }
                    return;
                }
                Screened::Dropped(_) => {}
            }
        }
        let number = connection_id(datagram, self.options.cid)
            .and_then(|id| self.by_cid.get(id))
            .or_else(|| self.by_address.get(&from));
        if let Some(number) = number.copied() {
            self.pass_on(number, datagram, from);
        }
    }

    fn begin(&mut self, opening: &ringfort_dtls::Opening, from: SocketAddr) {
        if self.peers.len() >= PEERS_MAX {
            return;
        }
        let local_cid = self.options.connection_id(&self.randomness.draw());
        let random = self.randomness.draw();
        let now = self.socket.now();
        let association = Association::server(&self.config, opening, local_cid, random, now, Socket::unix_time());
        self.begun += 1;
        if let Some(id) = local_cid.filter(|id| !id.is_empty()) {
            self.by_cid.insert(id.as_bytes().to_vec(), self.begun);
        }
        // The one that was at this address is found by its connection id from now on, if it has one, or times out.
        if let Some(old) = self.by_address.insert(from, self.begun)
            && self.peers.get(&old).is_some_and(|old| old.association.local_cid().is_empty())
        {
            self.forget(old);
        }
        self.peers.insert(
            self.begun,
            Peer {
                association,
                address: from,
                begun_by: *opening.random(),
                subject: None,
                chosen: Chosen::default(),
                sealed: 0,
                is_established: false,
            },
        );
    }

    fn pass_on(&mut self, number: Number, datagram: &mut [u8], from: SocketAddr) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let mut packets = Vec::new();
        peer.association.handle_datagram(datagram, self.socket.now(), |received| match received {
            Received::Packet { bytes, .. } => packets.push(bytes.to_vec()),
            Received::Discarded(why) => eprintln!("discarded peer={from} why={}", why.counter()),
        });
        if let Some(subject) = self.policy.take_subject() {
            peer.subject = Some(subject);
        }
        // Only the newest record says where a peer is (RFC 9146 §6).
        if peer.association.take_news() && peer.address != from {
            println!("moved peer={} to={from}", peer.address);
            self.by_address.remove(&peer.address);
            self.by_address.insert(from, number);
            peer.address = from;
        }
        self.settle(number);
        for packet in packets {
            println!("packet peer={from} bytes={} {}", packet.len(), readable(&packet));
            self.echo(number, &packet);
        }
    }

    fn echo(&mut self, number: Number, packet: &[u8]) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let mut record = vec![0; packet.len().min(CONTENT_BYTES_MAX) + peer.association.overhead()];
        let Some(length) = peer.association.seal(packet, &mut record) else { return };
        self.socket.send(&record[..length], peer.address);
        peer.sealed += 1;
        if self.options.key_update_every.is_some_and(|every| peer.sealed.is_multiple_of(every)) {
            peer.association.update_keys(self.socket.now());
            println!("key-update peer={} packets={}", peer.address, peer.sealed);
            self.settle(number);
        }
    }

    fn handle_timeouts(&mut self) {
        let now = self.socket.now();
        let is_due = |peer: &Peer| peer.association.poll_timeout().is_some_and(|at| at <= now);
        let due: Vec<Number> = self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(number, _)| *number).collect();
        for number in due {
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.association.handle_timeout(now);
            }
            self.settle(number);
        }
    }

    /// Sends what an association has to send, and tells what has become of it.
    fn settle(&mut self, number: Number) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        while let Some(datagram) = peer.association.poll_transmit() {
            peer.chosen.look_at(&datagram);
            self.socket.send(&datagram, peer.address);
        }
        let mut ended = None;
        while let Some(event) = peer.association.poll_event() {
            match event {
                Event::Established(_) => {
                    peer.is_established = true;
                    let (address, subject) = (peer.address, peer.subject.as_deref().unwrap_or("none"));
                    let cid = cid_text(&peer.association);
                    println!("established peer={address} {} subject={subject:?} cid={cid}", peer.chosen);
                    print_exporter(&peer.association, self.options, address);
                }
                Event::ConnectionIdsWanted(count) => {
                    let ids = (0..count).filter_map(|_| self.options.connection_id(&self.randomness.draw()));
                    let ids: Vec<_> = ids.filter(|id| !id.is_empty()).collect();
                    for id in &ids {
                        self.by_cid.insert(id.as_bytes().to_vec(), number);
                    }
                    println!("connection ids given peer={} count={}", peer.address, ids.len());
                    peer.association.give_connection_ids(&ids, self.socket.now());
                }
                Event::Ended(why) => {
                    let is_good = peer.is_established && matches!(why, Ended::ClosedByPeer);
                    ended = Some(if is_good { Outcome::Done } else { Outcome::Refused });
                    println!("ended peer={} reason={:?}", peer.address, why.to_string());
                }
            }
        }
        if let Some(outcome) = ended {
            self.first_end.get_or_insert((outcome, self.socket.now()));
            self.forget(number);
        }
    }

    fn forget(&mut self, number: Number) {
        self.peers.remove(&number);
        self.by_address.retain(|_, there| *there != number);
        self.by_cid.retain(|_, there| *there != number);
    }
}

/// The connection id of a datagram's first record, if ours have `length` bytes: behind the first byte of a record of DTLS 1.3
/// whose C bit is set (RFC 9147 §4), behind the sequence number of a `tls12_cid` record (RFC 9146 §4).
fn connection_id(datagram: &[u8], length: Option<u8>) -> Option<&[u8]> {
    const TLS12_CID: u8 = 25;
    let length = usize::from(length.filter(|length| *length > 0)?);
    let start = match *datagram.first()? {
        first if first & 0b1111_0000 == 0b0011_0000 => 1,
        TLS12_CID => 11,
        _ => return None,
    };
    datagram.get(start..start + length)
}

/// The connection id that the peer sends, for a line of output.
pub(crate) fn cid_text(association: &Association) -> String {
    match association.local_cid() {
        id if id.is_empty() => "none".to_owned(),
        id => hex(id.as_bytes()),
    }
}

/// Prints the exported value that `options` ask for.
pub(crate) fn print_exporter(association: &Association, options: &CommonOptions, peer: SocketAddr) {
    let (Some(label), Some(exporter)) = (&options.print_exporter, association.exporter()) else { return };
    // The engine takes labels that live as long as the program: one per association, in a test program.
    let label: &'static str = Box::leak(label.0.clone().into_boxed_str());
    println!("exporter peer={peer} label={label:?} value={}", hex(&exporter.export(label, &[])));
}
