//! `ringfort openapi`.

use std::io::Write;

use anyhow::{Context, Result};

pub(crate) fn run() -> Result<()> {
    writeln!(std::io::stdout(), "{:#}", ringfort_controller::openapi()).context("cannot write to standard output")
}
