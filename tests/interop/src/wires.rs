//! Datagrams between our end and BoringSSL's, in memory.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Datagrams on their way.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Wire {
    pub fn put(&self, datagram: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(datagram);
    }

    pub fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// The newest; those before are forgotten.
    pub fn take_last(&self) -> Option<Vec<u8>> {
        let mut datagrams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = datagrams.pop_back();
        datagrams.clear();
        last
    }
}

#[derive(Clone, Debug, Default)]
pub struct Wires {
    pub to_us: Wire,
    pub to_other: Wire,
}

/// BoringSSL's view of the wires.
#[derive(Debug)]
pub struct Memory(pub Wires);

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.0.to_other.take().ok_or(io::ErrorKind::WouldBlock)?;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for Memory {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.0.to_us.put(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
