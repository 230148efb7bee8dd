//! Writes packets of the tunnel interface to a file, for whoever looks for a fault from afar (K6).
//!
//! What users send is theirs: nothing is captured unless the site's own file says so, and what is captured stays at the Gateway, in a
//! folder of the site's choice. It is bounded in time, packets, bytes, and in how much of each packet is kept, by what is asked for
//! and by the site. The kernel copies the packets to a thread beside the workers.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfort_io::PacketTap;
use ringfort_link::Links;
use ringfort_proto::api::CaptureLimits;
use serde::Deserialize;

use super::operate::NotDone;

/// Longest wait for a packet: the end is not missed by more.
const WAIT: Duration = Duration::from_millis(100);
/// Raw IP (LINKTYPE_RAW of <https://www.tcpdump.org/linktypes.html>).
const LINKTYPE_RAW: u32 = 101;
/// Magic of a pcap file with microseconds, and its version.
const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
/// Bytes of the file's header, and of each packet's.
const FILE_HEADER_BYTES: u64 = 24;
const PACKET_HEADER_BYTES: u64 = 16;

/// What the site's file says of captures; without it there are none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    /// The folder where captures are written.
    pub(super) into: PathBuf,
    /// Most bytes of each packet that are kept: 64 are headers and little else.
    #[serde(default = "snap_bytes_max")]
    pub(super) snap_bytes_max: u32,
}

const fn snap_bytes_max() -> u32 {
    64
}

/// A capture that is about to run.
pub(super) struct Running {
    tap: PacketTap,
    file: PcapFile<BufWriter<File>>,
    limits: CaptureLimits,
    /// Where it is written.
    pub(super) path: PathBuf,
}

impl Capture {
    /// Makes ready to capture packets of `interface`, for the operation `id`, which is a UUID.
    pub(super) fn begin(&self, interface: &str, id: &str, limits: CaptureLimits) -> Result<Running, NotDone> {
        let malformed = |detail| NotDone::new("capture_malformed", detail);
        limits.check().map_err(malformed)?;
        if limits.snap_bytes > self.snap_bytes_max {
            let (most, found) = (self.snap_bytes_max, limits.snap_bytes);
            return Err(malformed(format!("expected at most {most} bytes of each packet at this site, found {found}")));
        }
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(malformed("expected an operation's id of letters, digits and '-'".into()));
        }
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            NotDone::new(
                "capture_failed",
                format!("{what}: {error}; it needs CAP_NET_RAW, AF_PACKET and a folder to write to"),
            )
        };
        let index = Links::open().and_then(|mut links| links.index_of(interface));
        let index = index.map_err(|error| failed(interface, &error))?;
        let tap = PacketTap::open(index.get()).map_err(|error| failed(interface, &error))?;
        let path = self.into.join(format!("{id}.pcap"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| failed(&path.display().to_string(), &error))?;
        let file = PcapFile::begin(BufWriter::new(file), limits.snap_bytes, u64::from(limits.bytes));
        let file = file.map_err(|error| failed(&path.display().to_string(), &error))?;
        Ok(Running { tap, file, limits, path })
    }
}

impl Running {
    /// Captures until a limit is reached; says which, and how much there is.
    pub(super) fn run(mut self) -> io::Result<String> {
        let end = Instant::now() + Duration::from_secs(self.limits.seconds.into());
        let mut buffer = vec![0; self.limits.snap_bytes as usize];
        let why = loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break "the time is over";
            }
            if self.file.packets >= self.limits.packets {
                break "all packets are there";
            }
            let Some(length) = self.tap.receive(&mut buffer, left.min(WAIT))? else { continue };
            let kept = length.min(buffer.len());
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            if !self.file.write(time, &buffer[..kept], length)? {
                break "the file is full";
            }
        };
        let packets = self.file.packets;
        self.file.finish()?;
        Ok(format!("{packets} packets in {}: {why}", self.path.display()))
    }
}

/// A pcap file that grows to a limit.
struct PcapFile<W: Write> {
    to: W,
    left: u64,
    packets: u32,
}

impl<W: Write> PcapFile<W> {
    fn begin(mut to: W, snap_bytes: u32, bytes_max: u64) -> io::Result<Self> {
        to.write_all(&MAGIC.to_le_bytes())?;
        for half in VERSION {
            to.write_all(&half.to_le_bytes())?;
        }
        // Time zone and accuracy, which nobody fills in.
        to.write_all(&[0; 8])?;
        to.write_all(&snap_bytes.to_le_bytes())?;
        to.write_all(&LINKTYPE_RAW.to_le_bytes())?;
        Ok(Self { to, left: bytes_max.saturating_sub(FILE_HEADER_BYTES), packets: 0 })
    }

    /// Writes a packet of `length` bytes, of which `kept` are its beginning; `false` when there is no room for it.
    fn write(&mut self, time: Duration, kept: &[u8], length: usize) -> io::Result<bool> {
        let Some(left) = self.left.checked_sub(PACKET_HEADER_BYTES + kept.len() as u64) else { return Ok(false) };
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        self.to.write_all(&number(time.as_secs()))?;
        self.to.write_all(&number(time.subsec_micros().into()))?;
        self.to.write_all(&number(kept.len() as u64))?;
        self.to.write_all(&number(length as u64))?;
        self.to.write_all(kept)?;
        (self.left, self.packets) = (left, self.packets + 1);
        Ok(true)
    }

    fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CaptureLimits = CaptureLimits { seconds: 1, packets: 10, bytes: 1_000, snap_bytes: 64 };

    #[test]
    fn a_file_has_its_headers_and_ends_at_its_limit() {
        let mut file = PcapFile::begin(Vec::new(), 64, 24 + 2 * (16 + 3)).unwrap();
        let time = Duration::new(0x0102_0304, 5_000);
        assert!(file.write(time, b"abc", 100).unwrap());
        assert!(file.write(time, b"def", 3).unwrap());
        assert!(!file.write(time, b"g", 1).unwrap(), "there is no room");
        assert_eq!(file.packets, 2);
        let header = b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\x40\0\0\0\x65\0\0\0";
        let first = b"\x04\x03\x02\x01\x05\0\0\0\x03\0\0\0\x64\0\0\0abc";
        assert_eq!(&file.to[..24], header);
        assert_eq!(&file.to[24..43], first);
    }

    // Covers: K6 refuse
    #[test]
    fn nothing_is_captured_beyond_what_the_site_allows() {
        let place = tempfile::tempdir().unwrap();
        let capture = Capture { into: place.path().into(), snap_bytes_max: 64 };
        let begin = |id: &str, limits| capture.begin("lo", id, limits).map(drop).unwrap_err().code;
        for wrong in [
            CaptureLimits { snap_bytes: 65, ..LIMITS },
            CaptureLimits { seconds: 0, ..LIMITS },
            CaptureLimits { packets: 0, ..LIMITS },
            CaptureLimits { bytes: u32::MAX, ..LIMITS },
        ] {
            assert_eq!(begin("7", wrong), "capture_malformed");
        }
        for id in ["", "../7", "a/b", &"7".repeat(65)] {
            assert_eq!(begin(id, LIMITS), "capture_malformed", "{id}");
        }
        assert_eq!(capture.begin("nowhere", "7", LIMITS).map(drop).unwrap_err().code, "capture_failed");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
