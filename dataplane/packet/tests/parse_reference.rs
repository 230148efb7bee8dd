//! Compares `parse` with a second parser, written from the RFCs in the plainest way: a cursor that copies bytes, one
//! header after the other, no table and no shared code. Goal: no input makes `parse` panic, accept what the
//! reference refuses, refuse what it accepts, or say other things of a packet. Method: packets built at random,
//! the same with a few bytes changed, cut or added, and random bytes with a plausible first byte; at least 10⁵ in
//! all. Both may give different reasons for a refusal, because they look in a different order.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use ringfort_packet::build::{self, Echo, Tcp};
use ringfort_packet::flow::FlowKey;
use ringfort_packet::parse::{Fragment, Parsed, Transport, parse};

/// A cursor over bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self, bytes: usize) -> Option<u64> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn ipv4(&mut self) -> Option<IpAddr> {
        Some(Ipv4Addr::from(self.number(4)? as u32).into())
    }

    fn ipv6(&mut self) -> Option<IpAddr> {
        let bits = u128::from(self.number(8)?) << 64 | u128::from(self.number(8)?);
        let address = Ipv6Addr::from(bits);
        address.to_ipv4_mapped().is_none().then_some(address.into())
    }
}

/// What the network layer says, before the transport is looked at.
struct Network {
    source: IpAddr,
    destination: IpAddr,
    header_bytes: usize,
    total_bytes: usize,
    /// Fragment, bytes before the fragmented part in the whole packet, bytes of that part here.
    fragment: Option<(Fragment, usize, usize)>,
    protocol: u8,
}

impl Network {
    fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|(fragment, _, _)| fragment.offset_bytes > 0)
    }
}

fn reference_ipv4(packet: &[u8], quoted: bool) -> Option<Network> {
    let mut reader = Reader(packet);
    let version_and_length = reader.number(1)?;
    if version_and_length >> 4 != 4 {
        return None;
    }
    let header_bytes = (version_and_length & 15) as usize * 4;
    reader.number(1)?;
    let total_bytes = reader.number(2)? as usize;
    let identification = reader.number(2)? as u32;
    let flags_and_offset = reader.number(2)?;
    reader.number(1)?;
    let protocol = reader.number(1)? as u8;
    reader.number(2)?;
    let (source, destination) = (reader.ipv4()?, reader.ipv4()?);
    if header_bytes < 20 || header_bytes > packet.len() {
        return None;
    }
    if !quoted {
        if total_bytes < header_bytes || total_bytes > packet.len() {
            return None;
        }
        let mut at = 20;
        while at < header_bytes {
            match packet[at] {
                0 => break,
                1 => at += 1,
                131 | 137 => return None,
                _ if at + 1 == header_bytes || packet[at + 1] < 2 => return None,
                _ => at += usize::from(packet[at + 1]),
            }
        }
        if at > header_bytes {
            return None;
        }
    }
    let more = flags_and_offset / 0x2000 % 2 == 1;
    let offset_bytes = (flags_and_offset % 0x2000 * 8) as u16;
    let fragment = (more || offset_bytes > 0).then(|| {
        let fragment = Fragment { identification, offset_bytes, more, protocol };
        (fragment, header_bytes, total_bytes.saturating_sub(header_bytes))
    });
    Some(Network { source, destination, header_bytes, total_bytes, fragment, protocol })
}

fn reference_ipv6(packet: &[u8], quoted: bool) -> Option<Network> {
    let mut reader = Reader(packet);
    if reader.number(4)? >> 28 != 6 {
        return None;
    }
    let total_bytes = reader.number(2)? as usize + 40;
    let mut protocol = reader.number(1)? as u8;
    reader.number(1)?;
    let (source, destination) = (reader.ipv6()?, reader.ipv6()?);
    let end = if quoted { packet.len() } else { total_bytes };
    if end > packet.len() || total_bytes > 65_535 && !quoted {
        return None;
    }
    let mut reader = Reader(&packet[40..end]);
    let mut fragment = None;
    let mut kinds = Vec::new();
    loop {
        let before = reader.0.len();
        let kind = protocol;
        match kind {
            0 if kinds.is_empty() => {
                protocol = reader.number(1)? as u8;
                let words = reader.number(1)? as usize;
                reader.number(6 + words * 8)?;
            }
            0 => return None,
            60 => {
                protocol = reader.number(1)? as u8;
                let words = reader.number(1)? as usize;
                reader.number(6 + words * 8)?;
            }
            43 => {
                protocol = reader.number(1)? as u8;
                let words = reader.number(1)? as usize;
                let (routing_type, segments_left) = (reader.number(1)?, reader.number(1)?);
                if routing_type == 0 || segments_left > 0 {
                    return None;
                }
                reader.number(4 + words * 8)?;
            }
            44 if kinds.contains(&44) => return None,
            44 => {
                protocol = reader.number(1)? as u8;
                reader.number(1)?;
                let offset_and_more = reader.number(2)?;
                let identification = reader.number(4)? as u32;
                let (offset_bytes, more) = ((offset_and_more / 8 * 8) as u16, offset_and_more % 2 == 1);
                if more || offset_bytes > 0 {
                    let header = Fragment { identification, offset_bytes, more, protocol };
                    fragment = Some((header, end - before, reader.0.len()));
                }
            }
            51 => {
                protocol = reader.number(1)? as u8;
                let words = reader.number(1)? as usize;
                reader.number((words + 2) * 4 - 2)?;
            }
            _ => break,
        }
        kinds.push(kind);
        if kinds.len() > 8 {
            return None;
        }
        if fragment.is_some_and(|(fragment, _, _)| fragment.offset_bytes > 0) {
            break;
        }
    }
    let header_bytes = end - reader.0.len();
    Some(Network { source, destination, header_bytes, total_bytes, fragment, protocol })
}

fn reference(packet: &[u8]) -> Option<Parsed> {
    let network = reference_ipv4(packet, false).or_else(|| reference_ipv6(packet, false))?;
    if let Some((fragment, before, payload_bytes)) = network.fragment {
        let end = before + usize::from(fragment.offset_bytes) + payload_bytes;
        let whole_words = payload_bytes % 8 == 0;
        let rewrites_flags = fragment.protocol == 6 && fragment.offset_bytes == 8;
        if payload_bytes == 0 || !whole_words && fragment.more || end > 65_535 || rewrites_flags {
            return None;
        }
    }
    let transport = if network.is_later_fragment() {
        Transport::LaterFragment
    } else {
        let payload = &packet[network.header_bytes..network.total_bytes];
        reference_transport(&network, payload)?
    };
    Some(Parsed {
        source: network.source,
        destination: network.destination,
        network_header_bytes: network.header_bytes as u16,
        total_bytes: network.total_bytes as u16,
        fragment: network.fragment.map(|(fragment, _, _)| fragment),
        transport,
    })
}

fn reference_transport(network: &Network, payload: &[u8]) -> Option<Transport> {
    let mut reader = Reader(payload);
    match (network.protocol, network.source.is_ipv4()) {
        (6, _) => {
            let (source_port, destination_port) = (reader.number(2)? as u16, reader.number(2)? as u16);
            reader.number(8)?;
            let words = reader.number(1)? as usize >> 4;
            let flags = reader.number(1)? as u8;
            reader.number(6)?;
            (words >= 5 && words * 4 <= payload.len()).then_some(Transport::Tcp {
                source_port,
                destination_port,
                flags,
            })
        }
        (17, _) => {
            let (source_port, destination_port) = (reader.number(2)? as u16, reader.number(2)? as u16);
            let length = reader.number(2)? as usize;
            reader.number(2)?;
            let fits = length <= payload.len() || network.fragment.is_some();
            (length >= 8 && fits).then_some(Transport::Udp { source_port, destination_port })
        }
        (1, true) | (58, false) => {
            let (kind, code) = (reader.number(1)? as u8, reader.number(1)? as u8);
            reader.number(2)?;
            let identifier = reader.number(2)? as u16;
            reader.number(2)?;
            let v4 = network.source.is_ipv4();
            Some(match kind {
                8 if v4 && code == 0 => Transport::IcmpEcho { identifier, request: true },
                0 if v4 && code == 0 => Transport::IcmpEcho { identifier, request: false },
                128 if !v4 && code == 0 => Transport::IcmpEcho { identifier, request: true },
                129 if !v4 && code == 0 => Transport::IcmpEcho { identifier, request: false },
                3 | 11 | 12 if v4 => Transport::IcmpError { kind, code, quoted: reference_quoted(reader.0, v4)? },
                1..=4 if !v4 => Transport::IcmpError { kind, code, quoted: reference_quoted(reader.0, v4)? },
                _ => Transport::IcmpOther { kind, code },
            })
        }
        (protocol, _) => Some(Transport::Other { protocol }),
    }
}

fn reference_quoted(quoted: &[u8], v4: bool) -> Option<FlowKey> {
    let network = if v4 { reference_ipv4(quoted, true) } else { reference_ipv6(quoted, true) }?;
    let mut reader = Reader(&quoted[network.header_bytes..]);
    let later = network.is_later_fragment();
    let (source_port, destination_port) = match network.protocol {
        _ if later => (0, 0),
        6 | 17 => {
            let ports = (reader.number(2)? as u16, reader.number(2)? as u16);
            reader.number(4)?;
            ports
        }
        1 | 58 if (network.protocol == 1) == v4 => {
            let (kind, code) = (reader.number(1)?, reader.number(1)?);
            reader.number(2)?;
            let identifier = reader.number(2)? as u16;
            reader.number(2)?;
            let is_echo = code == 0 && if v4 { kind == 0 || kind == 8 } else { kind == 128 || kind == 129 };
            is_echo.then_some((identifier, identifier))?
        }
        _ => (0, 0),
    };
    FlowKey::new(network.source, network.destination, network.protocol, source_port, destination_port)
}

/// Everything a packet is built from.
#[derive(Clone, Debug)]
struct Recipe {
    v6: bool,
    source: [u8; 16],
    destination: [u8; 16],
    ports: (u16, u16),
    payload: Vec<u8>,
    content: Content,
    /// Kind and body of extension headers, innermost first; in IPv4 the bodies are options.
    extensions: Vec<(u8, Vec<u8>)>,
    /// Payload of fragments in words of 8 bytes, and which of them is meant.
    fragment: Option<(u16, Index)>,
}

#[derive(Clone, Debug)]
enum Content {
    Tcp { flags: u8, option_words: usize },
    Udp,
    Echo { request: bool },
    Error { kind: u8, quoted_bytes: Index },
    Icmp { kind: u8, code: u8 },
    Other { protocol: u8 },
}

impl Recipe {
    fn build(&self) -> Vec<u8> {
        let mut packet = self.build_whole();
        if !self.v6
            && let Some((_, options)) = self.extensions.first()
        {
            packet = with_ipv4_options(&packet, options);
        } else if let Some((payload_words, index)) = &self.fragment {
            packet = index.get(&build::fragments(&packet, payload_words * 8, self.ports.0)).clone();
        }
        if self.v6 {
            for (kind, body) in &self.extensions {
                packet = build::with_extension(&packet, *kind, body);
            }
        }
        packet
    }

    fn address(&self, octets: [u8; 16]) -> IpAddr {
        let [a, b, c, d, ..] = octets;
        if self.v6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() }
    }

    fn build_whole(&self) -> Vec<u8> {
        let (source, destination) = (self.address(self.source), self.address(self.destination));
        let ends = (SocketAddr::new(source, self.ports.0), SocketAddr::new(destination, self.ports.1));
        match self.content {
            Content::Tcp { flags, option_words } => {
                let options = [1; 40];
                let header = Tcp { flags, options: &options[..option_words * 4], ..Tcp::default() };
                build::tcp(ends.0, ends.1, &header, &self.payload)
            }
            Content::Udp => build::udp(ends.0, ends.1, &self.payload),
            Content::Echo { request } => {
                let echo = if request { Echo::Request } else { Echo::Reply };
                build::echo(source, destination, echo, self.ports.0, self.ports.1, &self.payload)
            }
            Content::Error { kind, quoted_bytes } => {
                let quoted = match self.payload.first().copied().unwrap_or(0) % 4 {
                    0 => build::echo(destination, source, Echo::Request, self.ports.0, 1, &self.payload),
                    1 => build::tcp(ends.1, ends.0, &Tcp::default(), &self.payload),
                    2 => build::fragments(&build::udp(ends.1, ends.0, &[0; 64]), 32, 9)[self.payload.len() % 2].clone(),
                    _ => build::udp(ends.1, ends.0, &self.payload),
                };
                let quoted_bytes = quoted_bytes.index(quoted.len() + 1);
                build::icmp(source, destination, kind, 0, [0; 4], &quoted[..quoted_bytes])
            }
            Content::Icmp { kind, code } => build::icmp(source, destination, kind, code, [0; 4], &self.payload),
            Content::Other { protocol } => build::ip(source, destination, protocol, &self.payload),
        }
    }
}

fn with_ipv4_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut options = options[..options.len().min(40)].to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let mut longer = [&packet[..20], &options, &packet[20..]].concat();
    longer[0] += (options.len() / 4) as u8;
    let total_bytes = longer.len() as u16;
    longer[2..4].copy_from_slice(&total_bytes.to_be_bytes());
    longer
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let content = prop_oneof![
        3 => (any::<u8>(), 0usize..=10).prop_map(|(flags, option_words)| Content::Tcp { flags, option_words }),
        3 => Just(Content::Udp),
        1 => any::<bool>().prop_map(|request| Content::Echo { request }),
        2 => (select(vec![1u8, 2, 3, 4, 5, 11, 12]), any::<Index>())
            .prop_map(|(kind, quoted_bytes)| Content::Error { kind, quoted_bytes }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(kind, code)| Content::Icmp { kind, code }),
        1 => any::<u8>().prop_map(|protocol| Content::Other { protocol }),
    ];
    // A body whose length field agrees with its length, types and lengths of options that mean something.
    let extension =
        (select(vec![0u8, 43, 44, 51, 60, 60, 60, 7]), 0usize..3, vec(select(vec![0u8, 1, 2, 4, 7, 131, 137]), 23))
            .prop_map(|(kind, words, mut body)| {
                body.truncate(if kind == 44 { 7 } else { 7 + words * 8 });
                body[0] = if kind == 51 { words as u8 * 2 } else { words as u8 };
                (kind, body)
            });
    (
        any::<bool>(),
        address(),
        address(),
        any::<(u16, u16)>(),
        vec(any::<u8>(), 0..80),
        content,
        prop_oneof![4 => Just(Vec::new()), 2 => vec(extension.clone(), 1..4), 1 => vec(extension, 4..10)],
        prop_oneof![3 => Just(None), 1 => (1u16..6, any::<Index>()).prop_map(Some)],
    )
        .prop_map(|(v6, source, destination, ports, payload, content, extensions, fragment)| {
            // The builder makes no fragment of nothing.
            let fragment = fragment.filter(|_| !payload.is_empty());
            Recipe { v6, source, destination, ports, payload, content, extensions, fragment }
        })
}

/// Mostly any address; at times one that is, or nearly is, an IPv4-mapped IPv6 address.
fn address() -> impl Strategy<Value = [u8; 16]> {
    let mapped = (any::<[u8; 4]>(), 0usize..24).prop_map(|([a, b, c, d], near)| {
        let mut octets = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
        if let Some(octet) = octets.get_mut(near) {
            *octet ^= 1;
        }
        octets
    });
    prop_oneof![9 => any::<[u8; 16]>(), 1 => mapped]
}

/// One change to a packet.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    /// Among the first bytes, where the lengths are.
    SetHeader(usize, u8),
    Cut(Index),
    Add(Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Mutation::Set(at, value)),
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (0usize..64, select(vec![0u8, 1, 3, 4, 6, 8, 17, 20, 43, 44, 58, 60, 0x45, 0x60, 255]))
            .prop_map(|(at, value)| Mutation::SetHeader(at, value)),
        any::<Index>().prop_map(Mutation::Cut),
        vec(any::<u8>(), 1..20).prop_map(Mutation::Add),
    ]
}

fn mutate(packet: &mut Vec<u8>, mutation: &Mutation) {
    match mutation {
        _ if packet.is_empty() => {}
        Mutation::Set(at, value) => *at.get_mut(packet) = *value,
        Mutation::Flip(at, bit) => *at.get_mut(packet) ^= 1 << bit,
        Mutation::SetHeader(at, value) => {
            let at = at % packet.len();
            packet[at] = *value;
        }
        Mutation::Cut(at) => packet.truncate(at.index(packet.len())),
        Mutation::Add(bytes) => packet.extend_from_slice(bytes),
    }
}

fn compare(packet: &[u8]) -> Result<bool, TestCaseError> {
    let parsed = parse(packet);
    prop_assert_eq!(parsed.ok(), reference(packet), "parse says {:?} of {:02x?}", parsed, packet);
    if let Ok(parsed) = parsed {
        // The caller truncates; the packet must stay what it was.
        prop_assert_eq!(parse(&packet[..usize::from(parsed.total_bytes)]), Ok(parsed));
        let _ = parsed.flow_key();
    }
    Ok(parsed.is_ok())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Fails when the generators no longer make both kinds of packets, and so the comparison would say little.
fn assert_both_kinds(accepted: u32, refused: u32) {
    let all = accepted + refused;
    assert!(accepted > all / 20 && refused > all / 20, "{accepted} accepted, {refused} refused");
}

#[test]
fn built_and_mutated_packets_parse_as_by_the_reference() {
    const CASES: u32 = 8_000;
    const MUTANTS: usize = 12;
    let (accepted, refused) = (std::cell::Cell::new(0u32), std::cell::Cell::new(0u32));
    let strategy = (recipe(), vec(vec(mutation(), 1..4), MUTANTS));
    let mut runner = proptest::test_runner::TestRunner::new(config(CASES));
    let result = runner.run(&strategy, |(recipe, mutants)| {
        let original = recipe.build();
        let count = |ok: bool| if ok { accepted.set(accepted.get() + 1) } else { refused.set(refused.get() + 1) };
        count(compare(&original)?);
        for mutations in &mutants {
            let mut packet = original.clone();
            for mutation in mutations {
                mutate(&mut packet, mutation);
            }
            count(compare(&packet)?);
        }
        Ok(())
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    assert_both_kinds(accepted.get(), refused.get());
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn random_bytes_parse_as_by_the_reference(
        first in select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x6f]),
        mut bytes in vec(any::<u8>(), 0..120),
        lengths_agree in any::<bool>(),
    ) {
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        if lengths_agree && bytes.len() > 40 {
            let length = if first >> 4 == 4 { bytes.len() } else { bytes.len() - 40 } as u16;
            let at = if first >> 4 == 4 { 2 } else { 4 };
            bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        }
        compare(&bytes)?;
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        compare(&bytes)?;
    }
}
