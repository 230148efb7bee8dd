//! Turns departures into what the kernel reads: message headers with `UDP_SEGMENT` where a send has several
//! datagrams, and lists of pieces for TUN frames. Also keeps account of what became of each.
//!
//! Works in rounds of bounded size so that nothing is allocated while packets flow. It stores pointers into the
//! departures but follows none: handing them to the kernel, while the departures are still borrowed, is the
//! backends' part.

use std::net::SocketAddr;

use crate::address::{Family, Name};
use crate::control::Control;
use crate::counters::Counters;
use crate::departures::{Departures, SEGMENTS_MAX, SEND_BYTES_MAX};
use crate::sys;
use crate::udp::UdpSocket;

/// Sends of one round; more take another round.
pub(crate) const SENDS_MAX: usize = 128;
/// Frames of one round; more take another round.
pub(crate) const FRAMES_MAX: usize = 192;
/// Pieces of one frame: the kernel's limit (`UIO_MAXIOV`). A frame of more is dropped and counted.
const FRAME_PIECES_MAX: usize = 1024;
/// Pieces of one round: 64 frames of 64 pieces, and at least one frame of any allowed size.
const PIECES_MAX: usize = 4096;

/// After a device refused a batch, so many batches go out as single datagrams before the next attempt. Large
/// enough that attempts cost nothing, small enough that a changed route is noticed within a second of load.
const SEGMENTATION_PAUSE_BATCHES: u32 = 4096;

/// How far a turn's departures have been staged.
pub(crate) struct Cursor {
    writes: usize,
    sends: usize,
    write: usize,
    send: usize,
    /// Bytes of the current send staged before.
    offset: usize,
}

impl Cursor {
    pub(crate) fn new(departures: &dyn Departures) -> Self {
        Self { writes: departures.writes(), sends: departures.sends(), write: 0, send: 0, offset: 0 }
    }
}

/// One round of departures, staged.
pub(crate) struct Outgoing {
    family: Family,
    messages: Vec<libc::mmsghdr>,
    /// One per message, as the three below.
    data: Vec<libc::iovec>,
    names: Vec<Name>,
    controls: Vec<Control>,
    origins: Vec<Origin>,
    frames: Vec<Frame>,
    pieces: Vec<libc::iovec>,
    /// Messages whose segmentation was refused, with the kernel's error number.
    refused: Vec<(usize, i32)>,
    /// Batches still to be sent as single datagrams.
    segmentation_pause: u32,
}

/// Which part of which send a message is.
#[derive(Clone, Copy)]
struct Origin {
    send: usize,
    start: usize,
    length: usize,
    segment_bytes: usize,
    to: Option<SocketAddr>,
}

impl Origin {
    fn is_batch(&self) -> bool {
        self.length > self.segment_bytes
    }

    fn datagrams(&self) -> u64 {
        self.length.div_ceil(self.segment_bytes.max(1)).max(1) as u64
    }
}

#[derive(Clone, Copy)]
struct Frame {
    first_piece: usize,
    pieces: usize,
}

impl Outgoing {
    pub(crate) fn new(family: Family) -> Self {
        Self {
            family,
            messages: Vec::with_capacity(SENDS_MAX),
            data: Vec::with_capacity(SENDS_MAX),
            names: Vec::with_capacity(SENDS_MAX),
            controls: Vec::with_capacity(SENDS_MAX),
            origins: Vec::with_capacity(SENDS_MAX),
            frames: Vec::with_capacity(FRAMES_MAX),
            pieces: Vec::with_capacity(PIECES_MAX),
            refused: Vec::with_capacity(SENDS_MAX),
            segmentation_pause: 0,
        }
    }

    /// Stages as much as one round holds; `true` when nothing is left for another one.
    pub(crate) fn stage(&mut self, departures: &dyn Departures, cursor: &mut Cursor, counters: &mut Counters) -> bool {
        self.messages.clear();
        self.data.clear();
        self.names.clear();
        self.controls.clear();
        self.origins.clear();
        self.frames.clear();
        self.pieces.clear();
        self.refused.clear();
        let done = self.stage_frames(departures, cursor, counters) && self.stage_sends(departures, cursor, counters);
        self.link_messages();
        done
    }

    /// The staged message headers. Their pointers lead into `self` and into the departures.
    pub(crate) fn messages(&mut self) -> &mut [libc::mmsghdr] {
        &mut self.messages
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// The pieces of one staged frame. Their pointers lead into the departures.
    pub(crate) fn frame(&self, index: usize) -> &[libc::iovec] {
        let Some(frame) = self.frames.get(index) else { return &[] };
        self.pieces.get(frame.first_piece..frame.first_piece + frame.pieces).unwrap_or_default()
    }

    /// Accounts for a message: `result` is what the kernel returned, negative for an error number.
    pub(crate) fn sent(&mut self, index: usize, result: i32, counters: &mut Counters) {
        let Some(origin) = self.origins.get(index) else { return };
        match -result {
            ..=0 => {
                counters.sends_out += 1;
                counters.datagrams_out += origin.datagrams();
            }
            refusal @ (libc::EIO | libc::EINVAL | libc::EMSGSIZE) if origin.is_batch() => {
                counters.send_segmentation_refused += 1;
                self.refused.push((index, refusal));
            }
            error => count_send_error(error, counters),
        }
    }

    /// Accounts for a frame, likewise.
    pub(crate) fn written(result: i32, counters: &mut Counters) {
        match -result {
            ..=0 => counters.frames_out += 1,
            libc::EAGAIN => counters.write_would_block += 1,
            _ => counters.write_errors += 1,
        }
    }

    /// Sends the batches whose segmentation was refused datagram by datagram. Where the device cannot segment at all
    /// (EIO) and that worked, later batches are staged so from the start. Other refusals are one peer's affair (EMSGSIZE:
    /// its segments exceed the interface's MTU, and the kernel fragments them one by one), and a peer that can provoke
    /// them must not slow down the others.
    pub(crate) fn resend_refused(&mut self, departures: &dyn Departures, udp: &UdpSocket, counters: &mut Counters) {
        while let Some((index, refusal)) = self.refused.pop() {
            let Some(&origin) = self.origins.get(index) else { continue };
            let end = origin.start + origin.length;
            let batch = departures.send(origin.send).bytes.get(origin.start..end).unwrap_or_default();
            for datagram in batch.chunks(origin.segment_bytes.max(1)) {
                counters.system_calls += 1;
                match udp.send(datagram, origin.to) {
                    Ok(_) => {
                        counters.sends_out += 1;
                        counters.datagrams_out += 1;
                        if refusal == libc::EIO {
                            self.segmentation_pause = SEGMENTATION_PAUSE_BATCHES;
                        }
                    }
                    Err(error) => {
                        count_send_error(error.raw_os_error().unwrap_or(0), counters);
                        break;
                    }
                }
            }
        }
    }

    fn stage_frames(&mut self, departures: &dyn Departures, cursor: &mut Cursor, counters: &mut Counters) -> bool {
        while cursor.write < cursor.writes {
            let pieces = departures.pieces(cursor.write);
            if pieces == 0 || pieces > FRAME_PIECES_MAX {
                counters.write_errors += 1;
                cursor.write += 1;
                continue;
            }
            if self.frames.len() == FRAMES_MAX || self.pieces.len() + pieces > PIECES_MAX {
                return false;
            }
            self.frames.push(Frame { first_piece: self.pieces.len(), pieces });
            for piece in 0..pieces {
                self.pieces.push(vector(departures.piece(cursor.write, piece)));
            }
            cursor.write += 1;
        }
        true
    }

    fn stage_sends(&mut self, departures: &dyn Departures, cursor: &mut Cursor, counters: &mut Counters) -> bool {
        while cursor.send < cursor.sends {
            let send = departures.send(cursor.send);
            let length = send.bytes.len();
            let segment_bytes = if send.segment_bytes == 0 { length } else { send.segment_bytes.min(length) };
            let to = send.to.map(|to| self.family.express(to));
            if segment_bytes > SEND_BYTES_MAX {
                counters.send_too_big += 1;
            } else if to == Some(None) {
                counters.send_errors += 1;
            } else if !self.stage_send(send.bytes, segment_bytes, to.flatten(), cursor) {
                return false;
            }
            cursor.send += 1;
            cursor.offset = 0;
        }
        true
    }

    /// Cuts one send into messages the kernel takes; `false` when the round is full before its end.
    fn stage_send(&mut self, bytes: &[u8], segment_bytes: usize, to: Option<SocketAddr>, cursor: &mut Cursor) -> bool {
        let mut segments_max = SEGMENTS_MAX.min(SEND_BYTES_MAX / segment_bytes.max(1));
        if self.segmentation_pause > 0 && bytes.len() > segment_bytes {
            segments_max = 1;
            self.segmentation_pause -= u32::from(cursor.offset == 0);
        }
        loop {
            if self.origins.len() == SENDS_MAX {
                return false;
            }
            let rest = bytes.get(cursor.offset..).unwrap_or_default();
            let part = rest.get(..segments_max * segment_bytes).unwrap_or(rest);
            let (send, start, length) = (cursor.send, cursor.offset, part.len());
            let origin = Origin { send, start, length, segment_bytes, to };
            self.data.push(vector(part));
            self.names.push(to.map_or(Name::EMPTY, Name::encode));
            self.controls.push(if origin.is_batch() { Control::segment(segment_bytes as u16) } else { Control::EMPTY });
            self.origins.push(origin);
            cursor.offset += length;
            if cursor.offset >= bytes.len() {
                return true;
            }
        }
    }

    /// Writes the headers, when everything they point at has its place. Each array is borrowed once, so that no
    /// later borrow invalidates a pointer.
    fn link_messages(&mut self) {
        let data = self.data.as_mut_ptr();
        let names = self.names.as_mut_ptr();
        let controls = self.controls.as_mut_ptr();
        for (index, origin) in self.origins.iter().enumerate() {
            let mut message = sys::empty_message();
            let header = &mut message.msg_hdr;
            header.msg_iov = data.wrapping_add(index);
            header.msg_iovlen = 1;
            if let Some(to) = origin.to {
                header.msg_name = names.wrapping_add(index).cast();
                header.msg_namelen = Name::length_of(to);
            }
            if origin.is_batch() {
                header.msg_control = controls.wrapping_add(index).cast();
                header.msg_controllen = Control::BYTES as _;
            }
            self.messages.push(message);
        }
    }
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn count_send_error(error: i32, counters: &mut Counters) {
    match error {
        libc::EAGAIN | libc::ENOBUFS => counters.send_would_block += 1,
        libc::EMSGSIZE => counters.send_too_big += 1,
        libc::ECONNREFUSED => counters.remote_errors += 1,
        _ => counters.send_errors += 1,
    }
}
