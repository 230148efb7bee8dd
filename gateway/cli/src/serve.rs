//! A page over HTTP, as a process of its own in the laboratory's site.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use clap::Args;
use ringfort_netlab::http;
use ringfort_service::desk::{Desk, Letter};
use ringfort_service::notify_ready;

#[derive(Args)]
pub(crate) struct Options {
    /// Address and name of a service, such as `10.98.0.10:80=wiki`; may be given several times.
    #[arg(required = true, value_name = "ADDRESS=NAME")]
    services: Vec<String>,
    /// End when standard input ends.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let desk = Desk::<Infallible>::open(options.stop_with_stdin)?;
    let mut servers = Vec::new();
    for service in &options.services {
        let (address, name) = service.split_once('=').context("expected ADDRESS=NAME, such as 10.98.0.10:80=wiki")?;
        let address: SocketAddr =
            address.parse().with_context(|| format!("{address}: expected an address and a port"))?;
        ensure!(!name.is_empty(), "{service}: expected a name behind the =");
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        servers.push(http::serve(listener, name)?);
    }
    notify_ready();
    while !matches!(desk.receive(), Some(Letter::Stop) | None) {}
    drop(servers);
    Ok(())
}
