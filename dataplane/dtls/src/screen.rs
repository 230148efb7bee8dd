//! Which datagrams, and which records of one, deserve any work. Everything here looks at bytes that anybody can send.

/// Length of a plaintext record's header (RFC 9147 §4).
const PLAINTEXT_HEADER_BYTES: usize = 13;
/// The shortest ClientHello of DTLS 1.3: version, random, two empty vectors, a suite, a compression method and
/// supported_versions.
const CLIENT_HELLO_BYTES_MIN: usize = 2 + 32 + 1 + 1 + 4 + 2 + 2 + 7;
/// The longest: today's largest, with hybrid key shares and a cookie, stay below 2 KiB.
const CLIENT_HELLO_BYTES_MAX: usize = 8_192;

/// The random of a ClientHello that may open an association: one plaintext handshake record of epoch 0 with the first
/// fragment of its sender's first message (RFC 9147 §4, §5.2). Nothing else from an unknown address deserves any state; least
/// of all the second ClientHello, whose cookie only the association that gave it out can judge.
///
/// Retransmissions have the same random, another attempt has another.
#[must_use]
pub fn opening_random(datagram: &[u8]) -> Option<[u8; 32]> {
    // Record: type, version, epoch, sequence number, length. Message: type, length, message_seq, fragment offset, fragment
    // length. Then the version, and the random.
    let (&[22, 0xfe, 0xfd..=0xff, 0, 0, _, _, _, _, _, _, high, low], record) =
        datagram.split_first_chunk::<PLAINTEXT_HEADER_BYTES>()?
    else {
        return None;
    };
    let record = record.get(..usize::from(u16::from_be_bytes([high, low])))?;
    let (&[1, l2, l1, l0, 0, 0, 0, 0, 0, f2, f1, f0], fragment) = record.split_first_chunk::<12>()? else {
        return None;
    };
    let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
    let fragment_length = u32::from_be_bytes([0, f2, f1, f0]) as usize;
    let fits = (CLIENT_HELLO_BYTES_MIN..=CLIENT_HELLO_BYTES_MAX).contains(&length)
        && fragment_length <= length
        && fragment_length == fragment.len();
    fragment.get(2..)?.first_chunk().copied().filter(|_| fits)
}

/// How many bytes at the start of a datagram may be given to dimpl: whole records of the kinds that mean something at this
/// point. Plaintext is anybody's. An association that stands takes none, since dimpl would answer old handshake messages
/// with its last flight until its queue is full, and end. One under way takes handshake messages and ACKs, no alerts.
pub(crate) fn acceptable_bytes(datagram: &[u8], connected: bool) -> usize {
    let mut accepted = 0;
    while let Some(length) = record_bytes(&datagram[accepted..], connected) {
        accepted += length;
    }
    accepted
}

/// The length of the first record, if it is acceptable and whole.
fn record_bytes(rest: &[u8], connected: bool) -> Option<usize> {
    let length = match *rest.first()? {
        // The unified header: 001, connection id (never agreed on here), sequence number of 2 bytes, length present, epoch.
        first if first >> 5 == 1 => {
            let sequence = if first & 0b1000 == 0 { 1 } else { 2 };
            match (first & 0b1_0000, first & 0b100) {
                (0, 0) => rest.len(),
                (0, _) => {
                    let field = rest.get(1 + sequence..3 + sequence)?;
                    3 + sequence + usize::from(u16::from_be_bytes([field[0], field[1]]))
                }
                _ => return None,
            }
        }
        22 | 26 if !connected => {
            let field = rest.get(PLAINTEXT_HEADER_BYTES - 2..PLAINTEXT_HEADER_BYTES)?;
            PLAINTEXT_HEADER_BYTES + usize::from(u16::from_be_bytes([field[0], field[1]]))
        }
        _ => return None,
    };
    (length <= rest.len()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAINTEXT_HANDSHAKE: [u8; 14] = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    const PROTECTED: [u8; 6] = [0x2f, 0, 0, 0, 1, 9];

    #[test]
    fn only_whole_records_of_the_right_kind_are_taken() {
        let all = [&PROTECTED[..], &PLAINTEXT_HANDSHAKE, &PROTECTED].concat();
        assert_eq!(acceptable_bytes(&all, true), 6, "an association that stands takes no plaintext");
        assert_eq!(acceptable_bytes(&all, false), all.len());
        assert_eq!(acceptable_bytes(&all[..all.len() - 1], false), 20, "the last record is not whole");
        let mut alert = PLAINTEXT_HANDSHAKE;
        alert[0] = 21;
        assert_eq!(acceptable_bytes(&alert, false), 0);
        assert_eq!(acceptable_bytes(&[0x2b, 0, 0, 7, 7], true), 5, "without a length the record is the rest");
        assert_eq!(acceptable_bytes(&[0x27, 0, 0, 1, 7], true), 5, "a short sequence number");
        assert_eq!(acceptable_bytes(&[0x3f, 0, 0, 0, 1, 9], true), 0, "a connection id that was never agreed on");
        assert_eq!(acceptable_bytes(&[], true), 0);
    }
}
