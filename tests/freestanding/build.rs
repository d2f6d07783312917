//! Links the C library, which std would do otherwise. It has the entry point, memcpy and similar functions.

fn main() {
    println!("cargo::rustc-link-lib=c");
    println!("cargo::rerun-if-changed=build.rs");
}
