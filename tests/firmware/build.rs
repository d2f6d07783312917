//! Links with the linker scripts of cortex-m-rt, which includes `memory.x` of this directory, and of defmt.

use std::env;

fn main() {
    println!("cargo::rustc-link-search={}", env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    // By default defmt includes errors only.
    println!("cargo::rustc-env=DEFMT_LOG=info");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=memory.x");
}
