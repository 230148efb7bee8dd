//! DTLS 1.2: our server and clients by others, among them one that is written out here and can be told to do wrong.

mod client;
mod dimpl_client;
mod handshake;
mod hostile;
mod lossy;
mod meeting;
mod refused;
