//! Links the C library by hand: without std nobody does. It provides the entry point, memcpy and their like.

fn main() {
    println!("cargo::rustc-link-lib=c");
    println!("cargo::rerun-if-changed=build.rs");
}
