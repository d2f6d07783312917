//! Links with the memory map of cortex-m-rt, which includes the `memory.x` of the firmware.

fn main() {
    println!("cargo::rustc-link-search={}/..", env!("CARGO_MANIFEST_DIR"));
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../memory.x");
}
