//! BoringSSL's end, in simulated time.

use std::cell::Cell;
use std::ffi::c_long;
use std::time::Duration;

use anyhow::{Result, ensure};
use boring::error::ErrorStack;
use boring::ssl::{Error, ErrorCode, SslContext, SslRef, SslStream};
use boring_sys::{SSL, timeval};
use foreign_types_shared::ForeignTypeRef;

use super::Case;
use super::world::UNIX;
use crate::certificates::{Certificates, Shown};
use crate::peers::boring as peer;
use crate::peers::options::{PeerOptions, Side};
use crate::wires::{Memory, Wires};

thread_local! {
    /// The time since the beginning of the handshake that this thread runs.
    static TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Tells all ends of this thread what time it is.
pub fn set_time(time: Duration) {
    TIME.set(time);
}

/// BoringSSL's clock: that of the thread. Timers and the validity of certificates go by it.
unsafe extern "C" fn current_time(_: *const SSL, clock: *mut timeval) {
    let time = UNIX + TIME.get();
    let now = timeval { tv_sec: time.as_secs() as c_long, tv_usec: c_long::from(time.subsec_micros()) };
    // SAFETY: BoringSSL passes a pointer to a `timeval` of its own, to be written.
    unsafe { clock.write(now) };
}

/// What BoringSSL's ends of one case share, in one thread.
#[derive(Debug)]
pub struct Theirs {
    context: SslContext,
    options: PeerOptions,
}

impl Theirs {
    pub fn new(case: &Case, certificates: &Certificates) -> Result<Self> {
        let mut options = peer::in_process(case.their_side(), case.version.name(), certificates, Shown::Intermediate)?;
        options.mtu = Some(u32::try_from(case.datagram_bytes_max)?);
        let mut context = peer::context(&options)?;
        if let Some(groups) = case.groups {
            context.set_curves_list(groups)?;
        }
        let context = context.build();
        // SAFETY: the pointer is that of a live context, of which this thread has the only one; the callback is a function.
        unsafe { boring_sys::SSL_CTX_set_current_time_cb(context.as_ptr(), Some(current_time)) };
        Ok(Self { context, options })
    }

    /// An end, before its first flight.
    pub fn end(&self) -> Result<Their<'_>> {
        let wires = Wires::default();
        let stream = self.stream(&wires)?;
        Ok(Their { all: self, stream, wires, begun_by: None, is_done: false, failed: None, packets: Vec::new() })
    }

    fn stream(&self, wires: &Wires) -> Result<SslStream<Memory>> {
        Ok(SslStream::new(peer::ssl(&self.context, &self.options)?, Memory(wires.clone()))?)
    }
}

/// One end.
#[derive(Debug)]
pub struct Their<'a> {
    all: &'a Theirs,
    stream: SslStream<Memory>,
    wires: Wires,
    /// The random of the hello that a server began with.
    begun_by: Option<[u8; 32]>,
    /// Its handshake is finished.
    pub is_done: bool,
    /// Why it has given up.
    pub failed: Option<String>,
    /// What it has received.
    pub packets: Vec<Vec<u8>>,
}

impl Their<'_> {
    /// Takes a datagram. A server begins anew with a client that does (RFC 9147 §5.11), which is for the application to see to.
    pub fn receive(&mut self, datagram: &[u8]) -> Result<()> {
        if self.all.options.side == Side::Server
            && !self.is_done
            && let Some(random) = first_random(datagram)
            && self.begun_by.replace(random).is_some_and(|before| before != random)
        {
            self.wires.to_other.take_last();
            self.stream = self.all.stream(&self.wires)?;
            self.failed = None;
        }
        if self.failed.is_none() {
            self.wires.to_other.put(datagram.to_vec());
            self.go_on();
        }
        Ok(())
    }

    /// Goes on with what has come, until nothing is left of it or it has given up.
    pub fn go_on(&mut self) {
        if self.failed.is_none() && !self.is_done {
            let result = match self.all.options.side {
                Side::Client => self.stream.connect(),
                Side::Server => self.stream.accept(),
            };
            match result {
                Ok(()) => self.is_done = true,
                Err(error) if error.code() == ErrorCode::WANT_READ => {}
                Err(error) => self.failed = Some(reason(&error)),
            }
        }
        let mut buffer = [0; 1 << 11];
        while self.failed.is_none() && self.is_done {
            match self.stream.ssl_read(&mut buffer) {
                Ok(length) => self.packets.push(buffer[..length].to_vec()),
                Err(error) if error.code() == ErrorCode::WANT_READ => break,
                Err(error) => self.failed = Some(reason(&error)),
            }
        }
    }

    /// Does what is due by now.
    pub fn tick(&mut self) {
        if self.failed.is_none()
            && timeout(self.stream.ssl()) == Some(Duration::ZERO)
            && !handle_timeout(self.stream.ssl())
        {
            self.failed = Some(format!("timeout: {}", first_reason(Some(&ErrorStack::get()))));
        }
    }

    /// The next datagram that it sends.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        self.wires.to_us.take()
    }

    /// The datagram of a packet.
    pub fn seal(&mut self, packet: &[u8]) -> Result<Vec<u8>> {
        ensure!(self.wires.to_us.take().is_none(), "BoringSSL has more to send");
        self.stream.ssl_write(packet)?;
        self.wires.to_us.take_last().ok_or_else(|| anyhow::anyhow!("BoringSSL has sent nothing"))
    }
}

/// The random of the first message of a client, if that is what the datagram begins with (RFC 9147 §5.2, §5.3).
fn first_random(datagram: &[u8]) -> Option<[u8; 32]> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let is_first = datagram.get(17..22)? == [0; 5];
    let is_hello = datagram.first() == Some(&HANDSHAKE) && datagram.get(13) == Some(&CLIENT_HELLO);
    datagram.get(27..59)?.try_into().ok().filter(|_| is_first && is_hello)
}

/// How long it is until something is due; `None` if nothing is.
fn timeout(ssl: &SslRef) -> Option<Duration> {
    let mut left = timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: the pointers are those of a live connection, which only this thread uses, and of a `timeval` to be written.
    let is_set = unsafe { boring_sys::DTLSv1_get_timeout(ssl.as_ptr(), &raw mut left) };
    let left = Duration::from_secs(left.tv_sec as u64) + Duration::from_micros(left.tv_usec as u64);
    (is_set == 1).then_some(left)
}

/// Has BoringSSL send what is due; `false` if it failed.
fn handle_timeout(ssl: &SslRef) -> bool {
    // SAFETY: the pointer is that of a live connection, which only this thread uses.
    let done = unsafe { boring_sys::DTLSv1_handle_timeout(ssl.as_ptr()) };
    done >= 0
}

fn reason(error: &Error) -> String {
    if error.code() == ErrorCode::ZERO_RETURN {
        return "closed by us".to_owned();
    }
    first_reason(error.ssl_error())
}

fn first_reason(stack: Option<&ErrorStack>) -> String {
    let first = stack.and_then(|stack| stack.errors().first());
    first.and_then(|error| error.reason()).unwrap_or("no reason given").to_owned()
}
