//! What a ServerHello says in the clear: version, suite and group. Read off the datagrams as they pass, so that what is printed
//! is what stood on the wire, whatever the engine believes (RFC 9147 §5.3, RFC 8446 §4.1.3, RFC 8422 §5.4).

use std::fmt;

/// Handshake messages in the clear that say something of the choice.
const SERVER_HELLO: u8 = 2;
const SERVER_KEY_EXCHANGE: u8 = 12;
/// No message that is looked at is longer.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// `random` of a ServerHello that only asks for another ClientHello (RFC 8446 §4.1.3), its first bytes.
const RETRY_RANDOM: [u8; 4] = [0xcf, 0x21, 0xad, 0x74];

/// What has been read so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    version: Option<u16>,
    suite: Option<u16>,
    group: Option<u16>,
    /// Messages under way: type, number, and each byte that has come.
    partial: Vec<(u8, u16, Vec<Option<u8>>)>,
}

impl Chosen {
    /// Looks at a datagram that a server sent. What cannot be read is passed over.
    pub(crate) fn look_at(&mut self, mut datagram: &[u8]) {
        // Type 22, version, epoch 0, sequence number, length: a handshake record in the clear (RFC 6347 §4.1).
        while let Some(([22, _, _, 0, 0, _, _, _, _, _, _, high, low], rest)) = datagram.split_first_chunk::<13>() {
            let Some((mut content, rest)) = rest.split_at_checked(usize::from(*high) << 8 | usize::from(*low)) else {
                return;
            };
            datagram = rest;
            while let Some(rest) = self.look_at_fragment(content) {
                content = rest;
            }
        }
    }

    fn look_at_fragment<'a>(&mut self, content: &'a [u8]) -> Option<&'a [u8]> {
        let ([kind, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2], rest) = content.split_first_chunk::<12>()?;
        let number = |a: u8, b: u8, c: u8| usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let (length, offset, sequence) = (number(*l0, *l1, *l2), number(*o0, *o1, *o2), u16::from_be_bytes([*s0, *s1]));
        let (bytes, rest) = rest.split_at_checked(number(*f0, *f1, *f2))?;
        if matches!(*kind, SERVER_HELLO | SERVER_KEY_EXCHANGE) && length <= MESSAGE_BYTES_MAX {
            self.take(*kind, sequence, length, offset, bytes);
        }
        Some(rest)
    }

    fn take(&mut self, kind: u8, sequence: u16, length: usize, offset: usize, bytes: &[u8]) {
        let at = self.partial.iter().position(|(k, s, all)| (*k, *s, all.len()) == (kind, sequence, length));
        let at = at.unwrap_or_else(|| {
            self.partial.retain(|(k, ..)| *k != kind);
            self.partial.push((kind, sequence, vec![None; length]));
            self.partial.len() - 1
        });
        let Some((_, _, all)) = self.partial.get_mut(at) else { return };
        for (place, byte) in all.iter_mut().skip(offset).zip(bytes) {
            *place = Some(*byte);
        }
        if let Some(message) = all.iter().copied().collect::<Option<Vec<u8>>>() {
            self.partial.remove(at);
            let _ = if kind == SERVER_HELLO { self.read_hello(&message) } else { self.read_key_exchange(&message) };
        }
    }

    fn read_hello(&mut self, message: &[u8]) -> Option<()> {
        let (version, rest) = message.split_first_chunk::<2>()?;
        let (random, rest) = rest.split_first_chunk::<32>()?;
        if random.starts_with(&RETRY_RANDOM) {
            return None;
        }
        let (session_length, rest) = rest.split_first()?;
        let (suite, rest) = rest.get(usize::from(*session_length)..)?.split_first_chunk::<2>()?;
        (self.version, self.suite) = (Some(u16::from_be_bytes(*version)), Some(u16::from_be_bytes(*suite)));
        // Compression, then the length of the extensions.
        let mut extensions = rest.get(3..)?;
        while let Some(([t0, t1, l0, l1], rest)) = extensions.split_first_chunk::<4>() {
            let (body, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*l0, *l1])))?;
            let first = body.first_chunk::<2>().copied().map(u16::from_be_bytes);
            match u16::from_be_bytes([*t0, *t1]) {
                // supported_versions, key_share.
                43 => self.version = first,
                51 => self.group = first,
                _ => {}
            }
            extensions = rest;
        }
        Some(())
    }

    fn read_key_exchange(&mut self, message: &[u8]) -> Option<()> {
        // 3 is a named curve.
        let ([3, high, low], _) = message.split_first_chunk::<3>()? else { return None };
        self.group = Some(u16::from_be_bytes([*high, *low]));
        Some(())
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.version {
            Some(0xfefc) => "1.3",
            Some(0xfefd) => "1.2",
            _ => "?",
        };
        let suite = match self.suite {
            Some(0x1301) => "TLS_AES_128_GCM_SHA256",
            Some(0x1302) => "TLS_AES_256_GCM_SHA384",
            Some(0x1303) => "TLS_CHACHA20_POLY1305_SHA256",
            Some(0xc02b) => "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Some(0xc02c) => "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            Some(0xc02f) => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            Some(0xc030) => "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            Some(0xcca8) => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            Some(0xcca9) => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            _ => "?",
        };
        let group = match self.group {
            Some(0x11ec) => "X25519MLKEM768",
            Some(0x001d) => "X25519",
            Some(0x0017) => "P-256",
            Some(0x0018) => "P-384",
            _ => "?",
        };
        write!(f, "version={version} suite={suite} group={group}")
    }
}
