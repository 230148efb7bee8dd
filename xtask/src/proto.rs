//! `cargo xtask proto`: Rust bindings from the .proto files of `control/proto`, without a protoc binary.
//!
//! The bindings are checked in, so that a build needs neither the compiler nor a build script; `cargo xtask proto --check`
//! says whether they are those of the .proto files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::Findings;

/// Folder of the .proto files, from the root of the repository.
const SOURCES: &str = "control/proto/proto";
/// The files, relative to it.
const FILES: [&str; 3] = ["ringfort/v1/gateway.proto", "ringfort/v1/session.proto", "ringfort/v1/join.proto"];
/// The files whose gRPC services are there, for reflection.
const SERVICES: [&str; 1] = ["ringfort/v1/gateway.proto"];
/// Their descriptors.
const DESCRIPTORS: &str = "control/proto/src/descriptors.bin";
/// The bindings.
const GENERATED: &str = "control/proto/src/generated.rs";
/// Name of the generated file as the generator chooses it, by package.
const GENERATED_NAME: &str = "ringfort.v1.rs";

/// Writes the bindings.
pub(crate) fn write(root: &Path) -> Result<Findings> {
    fs::write(root.join(GENERATED), generate(root)?).context(GENERATED)?;
    fs::write(root.join(DESCRIPTORS), descriptors(root)?).context(DESCRIPTORS)?;
    Ok(Findings::new())
}

/// Compares the bindings that are there with those that would be written.
pub(crate) fn check(root: &Path) -> Result<Findings> {
    let found = fs::read_to_string(root.join(GENERATED)).context(GENERATED)?;
    let mut findings = Findings::new();
    if found != generate(root)? {
        findings.push(format!("{GENERATED} is not what the .proto files give: run `cargo xtask proto`"));
    }
    if fs::read(root.join(DESCRIPTORS)).context(DESCRIPTORS)? != descriptors(root)? {
        findings.push(format!("{DESCRIPTORS} is not what the .proto files give: run `cargo xtask proto`"));
    }
    Ok(findings)
}

fn descriptors(root: &Path) -> Result<Vec<u8>> {
    let mut compiler = protox::Compiler::new([root.join(SOURCES)])?;
    compiler.include_imports(true).include_source_info(false).open_files(SERVICES)?;
    Ok(compiler.encode_file_descriptor_set())
}

fn generate(root: &Path) -> Result<String> {
    let sources = root.join(SOURCES);
    let files: Vec<_> = FILES.iter().map(|file| sources.join(file)).collect();
    let set = protox::compile(files, [&sources])?;
    let folder = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .out_dir(folder.path())
        .compile_fds(set)
        .context("cannot generate")?;
    let text = fs::read_to_string(folder.path().join(GENERATED_NAME)).context(GENERATED_NAME)?;
    Ok(format!("// Made by `cargo xtask proto`; change the .proto files instead.\n{text}"))
}
