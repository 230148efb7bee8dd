//! What the test binaries share: departures made of owned bytes, and both backends tried by one body.

use std::net::SocketAddr;

use ringfort_io::{BackendChoice, Departures, Send};

/// Departures that own their bytes.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) sends: Vec<(Vec<u8>, usize, Option<SocketAddr>)>,
    /// Frames, each a list of pieces.
    pub(crate) frames: Vec<Vec<Vec<u8>>>,
}

impl Load {
    pub(crate) fn send(bytes: &[u8], segment_bytes: usize, to: SocketAddr) -> Self {
        Self { sends: vec![(bytes.to_vec(), segment_bytes, Some(to))], frames: vec![] }
    }

    pub(crate) fn frame(pieces: &[&[u8]]) -> Self {
        Self { sends: vec![], frames: vec![pieces.iter().map(|piece| piece.to_vec()).collect()] }
    }
}

impl Departures for Load {
    fn sends(&self) -> usize {
        self.sends.len()
    }

    fn send(&self, i: usize) -> Send<'_> {
        let (bytes, segment_bytes, to) = &self.sends[i];
        Send { bytes, segment_bytes: *segment_bytes, to: *to }
    }

    fn writes(&self) -> usize {
        self.frames.len()
    }

    fn pieces(&self, write: usize) -> usize {
        self.frames[write].len()
    }

    fn piece(&self, write: usize, piece: usize) -> &[u8] {
        &self.frames[write][piece]
    }
}

/// Runs `body` on both backends. Where the kernel refuses io_uring that half is skipped visibly, under `CI=true` it
/// fails.
pub(crate) fn on_both_backends(body: impl Fn(BackendChoice)) {
    body(BackendChoice::Epoll);
    if let Err(refusal) = io_uring_usable() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "io_uring is refused: {refusal}");
        println!("skipped on io_uring: {refusal}");
        return;
    }
    body(BackendChoice::IoUring);
}

fn io_uring_usable() -> Result<(), String> {
    use ringfort_io::{PortSharing, TunQueue, UdpSocket, Waker};
    let udp = UdpSocket::bind(([127, 0, 0, 1], 0).into(), PortSharing::Exclusive, 0).unwrap();
    let (near, _far) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let queue = TunQueue::from_fd(near.into()).unwrap();
    match ringfort_io::open(BackendChoice::IoUring, udp, queue, &Waker::new().unwrap()) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
