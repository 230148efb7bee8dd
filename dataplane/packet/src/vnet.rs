//! The header before every frame of a TUN queue: `struct virtio_net_hdr`, 10 bytes (virtio 1.2 §5.1.6,
//! `linux/virtio_net.h`).
//!
//! Its 16-bit fields are in the machine's byte order, which is what a TUN device speaks unless `TUNSETVNETLE` or
//! `TUNSETVNETBE` was called. Only what the project negotiates is known here; the rest (UFO, tunnels, RSC) is an
//! error, because it means that device and gateway disagree.

use std::num::NonZeroU16;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 10;

/// What the header says of the packet that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnetHeader {
    /// Who answers for the transport checksum.
    pub checksum: Checksum,
    /// Set when the packet is a super-frame to be cut.
    pub segmentation: Option<Segmentation>,
    /// Bytes of network and transport header together. From the kernel this is a hint, and at times a wrong one.
    pub headers_bytes: u16,
}

/// Who answers for the transport checksum of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The packet carries its checksum, which nobody has looked at.
    Full,
    /// The packet carries the sum over its pseudo-header. Who takes it over finishes the sum (`NEEDS_CSUM`).
    Partial {
        /// Bytes from the start of the packet to where the sum begins (the transport header).
        start: u16,
        /// Bytes from there to the checksum field.
        offset: u16,
    },
    /// The kernel has verified the checksum (`DATA_VALID`). A TUN device says so and ignores it when told.
    Verified,
}

/// How a super-frame is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// The protocol of the segments.
    pub kind: SegmentationKind,
    /// Payload bytes of every segment but the last, which has as many or fewer.
    pub segment_bytes: NonZeroU16,
    /// The TCP header has CWR set, for the first segment alone (RFC 3168).
    pub ecn: bool,
}

/// The protocol of the segments of a super-frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP in IPv4.
    TcpV4,
    /// TCP in IPv6.
    TcpV6,
    /// UDP in either: every segment becomes a datagram.
    Udp,
}

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadVnetHeader {
    /// A flag other than `NEEDS_CSUM` and `DATA_VALID`.
    Flags,
    /// A segmentation that is unknown or not negotiated, or ECN without TCP.
    Segmentation,
    /// A super-frame whose segments would be empty.
    SegmentSize,
}

mod field {
    pub(super) const FLAGS: usize = 0;
    pub(super) const GSO_TYPE: usize = 1;
    pub(super) const HDR_LEN: usize = 2;
    pub(super) const GSO_SIZE: usize = 4;
    pub(super) const CSUM_START: usize = 6;
    pub(super) const CSUM_OFFSET: usize = 8;
}

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

impl VnetHeader {
    /// For a packet that is complete as it stands. Its encoding is all zeros.
    pub const PLAIN: Self = Self { checksum: Checksum::Full, segmentation: None, headers_bytes: 0 };

    /// Decodes a header.
    ///
    /// # Errors
    /// When it says what the project has not negotiated.
    pub fn read(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadVnetHeader> {
        let checksum = match bytes[field::FLAGS] {
            0 => Checksum::Full,
            DATA_VALID => Checksum::Verified,
            NEEDS_CSUM => Checksum::Partial {
                start: native_u16(bytes, field::CSUM_START),
                offset: native_u16(bytes, field::CSUM_OFFSET),
            },
            _ => return Err(BadVnetHeader::Flags),
        };
        let ecn = bytes[field::GSO_TYPE] & GSO_ECN != 0;
        let kind = match bytes[field::GSO_TYPE] & !GSO_ECN {
            GSO_NONE if !ecn => None,
            GSO_TCPV4 => Some(SegmentationKind::TcpV4),
            GSO_TCPV6 => Some(SegmentationKind::TcpV6),
            GSO_UDP_L4 if !ecn => Some(SegmentationKind::Udp),
            _ => return Err(BadVnetHeader::Segmentation),
        };
        let segmentation = match kind {
            None => None,
            Some(kind) => {
                let segment_bytes =
                    NonZeroU16::new(native_u16(bytes, field::GSO_SIZE)).ok_or(BadVnetHeader::SegmentSize)?;
                Some(Segmentation { kind, segment_bytes, ecn })
            }
        };
        Ok(Self { checksum, segmentation, headers_bytes: native_u16(bytes, field::HDR_LEN) })
    }

    /// Encodes the header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        match self.checksum {
            Checksum::Full => {}
            Checksum::Verified => bytes[field::FLAGS] = DATA_VALID,
            Checksum::Partial { start, offset } => {
                bytes[field::FLAGS] = NEEDS_CSUM;
                put_native_u16(&mut bytes, field::CSUM_START, start);
                put_native_u16(&mut bytes, field::CSUM_OFFSET, offset);
            }
        }
        if let Some(segmentation) = self.segmentation {
            bytes[field::GSO_TYPE] = match segmentation.kind {
                SegmentationKind::TcpV4 => GSO_TCPV4,
                SegmentationKind::TcpV6 => GSO_TCPV6,
                SegmentationKind::Udp => GSO_UDP_L4,
            } | if segmentation.ecn { GSO_ECN } else { 0 };
            put_native_u16(&mut bytes, field::GSO_SIZE, segmentation.segment_bytes.get());
        }
        put_native_u16(&mut bytes, field::HDR_LEN, self.headers_bytes);
        bytes
    }
}

impl BadVnetHeader {
    /// The name under which the reason is counted. It stays the same from release to release.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flags => "vnet_flags",
            Self::Segmentation => "vnet_segmentation",
            Self::SegmentSize => "vnet_segment_size",
        }
    }
}

fn native_u16(bytes: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn put_native_u16(bytes: &mut [u8; HEADER_BYTES], at: usize, value: u16) {
    let [first, second] = value.to_ne_bytes();
    bytes[at] = first;
    bytes[at + 1] = second;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: NonZeroU16 = NonZeroU16::new(1348).unwrap();

    #[test]
    fn every_header_survives_encoding() {
        let checksums = [Checksum::Full, Checksum::Verified, Checksum::Partial { start: 20, offset: 16 }];
        let kinds = [SegmentationKind::TcpV4, SegmentationKind::TcpV6, SegmentationKind::Udp];
        for checksum in checksums {
            let plain = VnetHeader { checksum, segmentation: None, headers_bytes: 52 };
            assert_eq!(VnetHeader::read(&plain.to_bytes()), Ok(plain));
            for kind in kinds {
                for ecn in [false, kind != SegmentationKind::Udp] {
                    let segmentation = Some(Segmentation { kind, segment_bytes: SEGMENT_BYTES, ecn });
                    let header = VnetHeader { segmentation, ..plain };
                    assert_eq!(VnetHeader::read(&header.to_bytes()), Ok(header));
                }
            }
        }
        assert_eq!(VnetHeader::PLAIN.to_bytes(), [0; HEADER_BYTES]);
    }

    #[test]
    fn layout_is_that_of_the_kernel() {
        let header = VnetHeader {
            checksum: Checksum::Partial { start: 20, offset: 16 },
            segmentation: Some(Segmentation { kind: SegmentationKind::TcpV4, segment_bytes: SEGMENT_BYTES, ecn: true }),
            headers_bytes: 52,
        };
        let mut expected = vec![1, 0x81];
        for field in [52u16, 1348, 20, 16] {
            expected.extend_from_slice(&field.to_ne_bytes());
        }
        assert_eq!(header.to_bytes().as_slice(), expected);
    }

    #[test]
    fn refuses_what_was_not_negotiated() {
        let read = |flags, gso_type, gso_size: u16| {
            let [low, high] = gso_size.to_ne_bytes();
            VnetHeader::read(&[flags, gso_type, 0, 0, low, high, 0, 0, 0, 0])
        };
        assert_eq!(read(4, 0, 0), Err(BadVnetHeader::Flags));
        assert_eq!(read(3, 0, 0), Err(BadVnetHeader::Flags));
        for gso_type in [2, 3, 6, 0x80, 0x85, 0x7f] {
            assert_eq!(read(0, gso_type, 100), Err(BadVnetHeader::Segmentation), "{gso_type:#x}");
        }
        assert_eq!(read(1, 1, 0), Err(BadVnetHeader::SegmentSize));
        // Without segmentation the size means nothing.
        assert_eq!(read(0, 0, 77), Ok(VnetHeader::PLAIN));
    }
}
