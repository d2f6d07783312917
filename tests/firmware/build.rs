//! Links with the memory map of cortex-m-rt, which includes `memory.x` of this directory, and with defmt's place for texts.

use std::env;

fn main() {
    println!("cargo::rustc-link-search={}", env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    // Without it, defmt leaves out all but errors.
    println!("cargo::rustc-env=DEFMT_LOG=info");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=memory.x");
}
