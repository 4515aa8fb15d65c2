//! A reverse proxy.
#![forbid(unsafe_code)]
