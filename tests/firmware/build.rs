//! Links with the memory map of cortex-m-rt, which includes `memory.x` of this directory.

use std::env;

fn main() {
    println!("cargo::rustc-link-search={}", env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=memory.x");
}
