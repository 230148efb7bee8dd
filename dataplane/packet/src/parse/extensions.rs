//! The walk along the extension headers of an IPv6 packet, RFC 8200 §4.

use super::{EXTENSION_HEADERS_MAX, Fragment, Malformed};
use crate::wire::{ipv6, u16_at, u32_at};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Length of a fragment header.
pub(super) const FRAGMENT_HEADER_BYTES: usize = 8;

/// Where the extension headers of a packet lead.
pub(super) struct Chain {
    /// Protocol number of what follows the last header walked.
    pub(super) protocol: u8,
    /// Bytes from the start of the packet to there.
    pub(super) end: usize,
    /// The fragment header, unless it makes an atomic fragment (RFC 6946), and where it stands.
    pub(super) fragment: Option<(Fragment, usize)>,
}

impl Chain {
    /// Nothing walked yet: what the fixed header says.
    #[inline]
    pub(super) const fn start(header: &[u8; ipv6::HEADER_BYTES]) -> Self {
        Self { protocol: header[ipv6::NEXT_HEADER], end: ipv6::HEADER_BYTES, fragment: None }
    }

    /// Whether an extension header follows.
    #[inline]
    pub(super) const fn goes_on(&self) -> bool {
        matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
    }
}

/// Walks from the fixed header, which `packet` begins with, to the first header that is none of the extension
/// headers known here, or to the payload of a fragment that is not the first.
pub(super) fn walk(header: &[u8; ipv6::HEADER_BYTES], packet: &[u8]) -> Result<Chain, Malformed> {
    let mut chain = Chain::start(header);
    let mut fragment_header_seen = false;
    for count in 0.. {
        if !chain.goes_on() {
            break;
        }
        if count == EXTENSION_HEADERS_MAX {
            return Err(Malformed::ExtensionCount);
        }
        let rest = packet.get(chain.end..).unwrap_or_default();
        // Every extension header has at least 8 bytes.
        let extension = rest.first_chunk::<8>().ok_or(Malformed::ExtensionTruncated)?;
        let bytes = match chain.protocol {
            HOP_BY_HOP if count > 0 => return Err(Malformed::ExtensionOrder),
            ROUTING if extension[2] == 0 || extension[3] != 0 => return Err(Malformed::RoutingHeader),
            FRAGMENT if fragment_header_seen => return Err(Malformed::ExtensionOrder),
            FRAGMENT => {
                fragment_header_seen = true;
                chain.fragment = fragment(extension).map(|fragment| (fragment, chain.end));
                FRAGMENT_HEADER_BYTES
            }
            // Counts words of 4 bytes less 2, where the others count words of 8 bytes less 1 (RFC 4302 §2.2).
            AUTHENTICATION => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        if bytes > rest.len() {
            return Err(Malformed::ExtensionTruncated);
        }
        chain.protocol = extension[0];
        chain.end += bytes;
        if chain.fragment.is_some_and(|(fragment, _)| fragment.offset_bytes != 0) {
            break;
        }
    }
    Ok(chain)
}

fn fragment(extension: &[u8; 8]) -> Option<Fragment> {
    // The offset fills the upper 13 bits, so that masked in place it counts bytes.
    let field = u16_at(extension, 2);
    let (offset_bytes, more) = (field & 0xfff8, field & 1 != 0);
    (more || offset_bytes != 0).then(|| Fragment {
        identification: u32_at(extension, 4),
        offset_bytes,
        more,
        protocol: extension[0],
    })
}
