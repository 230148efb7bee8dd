//! The one control message (`cmsg`) that each direction carries: the segment size, for `UDP_SEGMENT` out and
//! `UDP_GRO` in. Encoded and decoded byte by byte.

/// `cmsghdr`: length (`size_t`), level, type (`int`).
const LENGTH_BYTES: usize = size_of::<usize>();
const HEADER_BYTES: usize = LENGTH_BYTES + 8;
/// Header plus one word, aligned as `CMSG_SPACE` does on both 32 and 64 bits.
const CONTROL_BYTES: usize = HEADER_BYTES + size_of::<usize>();

/// Room for one control message with an integer.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control([u8; CONTROL_BYTES]);

impl Control {
    pub(crate) const BYTES: usize = CONTROL_BYTES;
    pub(crate) const EMPTY: Self = Self([0; CONTROL_BYTES]);

    /// `UDP_SEGMENT` with this size (`u16`).
    pub(crate) fn segment(segment_bytes: u16) -> Self {
        let mut control = Self::EMPTY;
        let bytes = &mut control.0;
        bytes[..LENGTH_BYTES].copy_from_slice(&(HEADER_BYTES + 2).to_ne_bytes());
        bytes[LENGTH_BYTES..LENGTH_BYTES + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        bytes[LENGTH_BYTES + 4..HEADER_BYTES].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        bytes[HEADER_BYTES..HEADER_BYTES + 2].copy_from_slice(&segment_bytes.to_ne_bytes());
        control
    }

    /// The segment size of a GRO batch (`int`) among `length` bytes that the kernel filled.
    pub(crate) fn received_segment(&self, length: usize) -> Option<usize> {
        let filled = self.0.get(..length)?;
        let (header, rest) = filled.split_at_checked(HEADER_BYTES)?;
        let (_, kind) = header.split_at_checked(LENGTH_BYTES)?;
        let (level, kind) = kind.split_at_checked(4)?;
        if level != libc::SOL_UDP.to_ne_bytes() || kind != libc::UDP_GRO.to_ne_bytes() {
            return None;
        }
        let size = libc::c_int::from_ne_bytes(*rest.first_chunk()?);
        usize::try_from(size).ok().filter(|&size| size > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_gro_message_yields_a_size() {
        let mut gro = Control::segment(1400);
        gro.0[LENGTH_BYTES + 4..HEADER_BYTES].copy_from_slice(&libc::UDP_GRO.to_ne_bytes());
        assert_eq!(gro.received_segment(Control::BYTES), Some(1400));
        assert_eq!(gro.received_segment(HEADER_BYTES + 3), None);
        assert_eq!(gro.received_segment(Control::BYTES + 1), None);
        assert_eq!(Control::segment(1400).received_segment(Control::BYTES), None, "UDP_SEGMENT is not UDP_GRO");
        assert_eq!(Control::EMPTY.received_segment(0), None);
        gro.0[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(gro.received_segment(Control::BYTES), None);
    }
}
