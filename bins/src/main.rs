//! The rtftp daemon.

fn main() {}
