//! The libguestfs helper of rtftp.

fn main() {}
