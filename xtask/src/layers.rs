//! The one table of crates: where each stands, which layer it is in, whether it may do I/O.
//!
//! `docs/ARCHITECTURE.md` ("Directions") says why the layers are these. A new crate is placed here before it builds;
//! rows of crates that are yet to come keep their place settled.

/// One crate's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Package name.
    pub(crate) package: &'static str,
    /// Folder from the root of the repository.
    pub(crate) folder: &'static str,
    /// A dependency goes to a strictly lower layer.
    pub(crate) layer: u8,
    /// Whether the crate may reach the operating system.
    pub(crate) access: Access,
}

/// Whether a crate may reach the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A pure machine: reaches none of [`IO_PACKAGES`] and carries the no-I/O `clippy.toml`.
    NoIo,
    /// Sockets, files, threads and clocks are its business.
    Io,
}

const fn place(layer: u8, package: &'static str, folder: &'static str, access: Access) -> Place {
    Place { package, folder, layer, access }
}

/// Every crate of the workspace, highest layer first.
pub(crate) const PLACES: &[Place] = &[
    place(6, "ringfort", "gateway/cli", Access::Io),
    place(6, "ringfort-micro", "bench/micro", Access::Io),
    place(6, "ringfort-push", "bench/push", Access::Io),
    place(6, "xtask", "xtask", Access::Io),
    place(5, "ringfort-stage", "bench/stage", Access::Io),
    place(5, "ringfort-daemon", "gateway/daemon", Access::Io),
    place(5, "ringfort-relay", "gateway/relay", Access::Io),
    place(5, "ringfort-controller", "control/controller", Access::Io),
    place(5, "ringfort-client", "client", Access::Io),
    place(4, "ringfort-admission", "gateway/admission", Access::NoIo),
    place(4, "ringfort-service", "gateway/service", Access::Io),
    place(4, "ringfort-worker", "dataplane/worker", Access::Io),
    place(4, "ringfort-directory", "control/directory", Access::Io),
    place(4, "ringfort-enrol", "control/enrol", Access::Io),
    place(3, "ringfort-policy", "control/policy", Access::NoIo),
    place(3, "ringfort-engine", "dataplane/engine", Access::NoIo),
    place(3, "ringfort-netstack", "dataplane/netstack", Access::NoIo),
    place(2, "ringfort-rules", "dataplane/rules", Access::NoIo),
    place(2, "ringfort-dtls", "dataplane/dtls", Access::NoIo),
    place(2, "ringfort-token", "control/token", Access::NoIo),
    place(1, "ringfort-identity", "dataplane/identity", Access::NoIo),
    place(1, "ringfort-packet", "dataplane/packet", Access::NoIo),
    place(1, "ringfort-netlab", "bench/netlab", Access::Io),
    place(0, "ringfort-types", "dataplane/types", Access::NoIo),
    place(0, "ringfort-io", "dataplane/io", Access::Io),
    place(0, "ringfort-link", "dataplane/link", Access::Io),
    place(0, "ringfort-proto", "control/proto", Access::Io),
];

/// The only crate that may use `unsafe`.
pub(crate) const UNSAFE_PACKAGE: &str = "ringfort-io";

/// Crates in this folder depend on nothing of ours outside it.
pub(crate) const CLOSED_FOLDER: &str = "dataplane/";

/// What a no-I/O crate does not reach, directly or through others: runtimes, rings, sockets, system calls, and the
/// channel whose blocking calls read the clock.
pub(crate) const IO_PACKAGES: &[&str] = &[
    "async-io",
    "async-std",
    "crossbeam-channel",
    "h2",
    "hyper",
    "io-uring",
    "mio",
    "nix",
    "rtnetlink",
    "rustix",
    "smol",
    "socket2",
    "tokio",
    "tokio-uring",
    "tonic",
];

/// The Gateway's process, and what it does not reach: databases, directories and passwords are the Controller's business.
pub(crate) const GATEWAY_PACKAGE: &str = "ringfort-daemon";
pub(crate) const CONTROLLER_PACKAGES: &[&str] = &["argon2", "ringfort-controller", "ringfort-directory", "sqlx"];

/// The place of a package, if it has one.
pub(crate) fn place_of(package: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.package == package)
}
