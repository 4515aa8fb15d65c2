//! shlogin: starts a Singularity/Apptainer app in a network of its own, behind a token URL.
//!
//! The floors, from the ground up; a module imports only from those above it in this list
//! (`tests/it/floors.rs` reads the `use` lines and fails on an arrow that runs the other way).

pub mod activity;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod gateway;
pub mod host;
pub mod link;
pub mod sandbox;
pub mod session;
pub mod sftp;
pub mod share;
pub mod ssh;
pub mod sys;
pub mod terminal;
pub mod verify;
pub mod words;
