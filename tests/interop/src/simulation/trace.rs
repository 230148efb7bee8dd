//! What a datagram is, in a line.

/// Its records, as far as they can be read without keys.
pub fn describe(mut datagram: &[u8]) -> String {
    let mut records = Vec::new();
    while let Some(first) = datagram.first().copied() {
        let number = |from: usize, to: usize| {
            let bytes = datagram.get(from..to).unwrap_or_default();
            bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
        };
        // A record of DTLS 1.3 with length and no connection id (RFC 9147 §4), or one with the older header.
        let (text, bytes) = match first {
            0b0010_0000..=0b0011_1111 => {
                let head = if first & 0b1000 == 0 { 2 } else { 3 };
                let bytes = if first & 0b100 == 0 { datagram.len() } else { head + 2 + number(head, head + 2) };
                (format!("sealed epoch %{} {bytes}", first & 3), bytes)
            }
            20..=26 => {
                let (epoch, bytes) = (number(3, 5), 13 + number(11, 13));
                let text = match (first, epoch) {
                    (20, _) => "ccs".to_owned(),
                    (21, 0) => format!("alert {}", number(14, 15)),
                    (22, 0) => {
                        let (length, at, here) = (number(14, 17), number(19, 22), number(22, 25));
                        format!("handshake {} #{} {at}+{here}/{length}", number(13, 14), number(17, 19))
                    }
                    (kind, epoch) => format!("{kind} epoch {epoch} {bytes}"),
                };
                (text, bytes)
            }
            other => (format!("0x{other:02x}"), datagram.len()),
        };
        records.push(text);
        datagram = datagram.get(bytes..).unwrap_or_default();
    }
    records.join(", ")
}
