//! DTLS 1.3: our server and a client that is written out here and can be told to do wrong.

mod behind;
mod client;
mod flight;
mod hello;
mod server;
