//! `ringfort static-init`: a folder of files for a static Gateway and its clients.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ipnet::IpNet;
use ringfort_stage::files::{Plan, Rule, User};
use toml::{Table, Value};

#[derive(Args)]
pub(crate) struct Options {
    /// Folder to write, empty or new.
    folder: PathBuf,
    /// Where the Gateway listens, as its clients see it.
    #[arg(long, value_name = "ADDRESS:PORT")]
    gateway_address: SocketAddr,
    /// A user; may be given several times.
    #[arg(long = "user", value_name = "NAME", required = true)]
    users: Vec<String>,
    /// The Gateway's inner address with the prefix length of the client pool; one per family.
    #[arg(long = "inner", value_name = "ADDRESS/BITS", default_values = ["10.97.0.1/16", "fd97::1/64"])]
    inner: Vec<IpNet>,
    /// What every user may reach, on all ports and protocols; may be given several times.
    #[arg(long = "allow", value_name = "PREFIX", required = true)]
    allow: Vec<IpNet>,
    /// How the Gateway and the clients read and write packets: auto, io_uring or epoll.
    #[arg(long, default_value = "auto")]
    backend: String,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let prefixes: Vec<String> = options.allow.iter().map(ToString::to_string).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let rules = vec![Rule::allow("everything", &prefixes, &["any"])];
    let users = options.users.iter().map(|name| User { name: name.clone(), rules: rules.clone() }).collect();
    let more = Table::from_iter([("backend".to_owned(), Value::String(options.backend.clone()))]);
    let plan = Plan {
        gateway: options.gateway_address,
        inner: options.inner.clone(),
        routes: options.allow.clone(),
        users,
        gateway_more: more.clone(),
        client_more: more,
    };
    plan.write(&options.folder)?;
    println!("ringfort gateway --static {}", Plan::gateway_file(&options.folder).display());
    for user in &options.users {
        println!("ringfort up --static {}", Plan::user_file(&options.folder, user).display());
    }
    Ok(())
}
