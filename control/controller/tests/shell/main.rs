//! The Controller from outside: a server on loopback, and those who knock at its doors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api;
mod backups;
#[path = "../support/database.rs"]
mod database;
mod doors;
mod duplicates;
mod external_otp;
mod joining;
mod known;
mod limits;
mod openapi;
mod operations;
#[path = "../support/otp_system.rs"]
mod otp_system;
mod receipts;
mod streams;
mod support;
