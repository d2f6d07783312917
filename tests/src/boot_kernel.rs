//! A kernel for emulated PCs that prints its version and ends the machine.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{noise, process::run};

/// Returns the file of a kernel that BIOS and EFI boot loaders load as Linux, and that UEFI firmware starts as a program. It prints
/// `kernel VERSION has started` on the serial port and turns the machine off. `boot_kernel.S` contains the code.
#[track_caller]
pub fn boot_kernel(version: &str, size: usize) -> Vec<u8> {
    let directory = TempDir::new().expect("a temporary directory");
    let program = directory.path().join("kernel");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/boot_kernel.S");
    let arguments = [
        "-nostdlib",
        "-static",
        "-Wl,-e,0,-Ttext=0,--oformat=binary,--build-id=none",
        &format!("-DVERSION=\"kernel {version}\""),
        &format!("-DSIZE={size}"),
        "-o",
        &program.display().to_string(),
        &source.display().to_string(),
    ];
    run("cc", arguments);
    let mut kernel = fs::read(&program).expect("the program");
    let rest = size.checked_sub(kernel.len()).expect("a size with space for the code");
    kernel.extend(noise(rest, 1));
    kernel
}
