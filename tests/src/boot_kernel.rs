//! Kernels for emulated machines that print what was loaded and turn the machine off.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{noise, process::run};

/// Returns the file of a kernel that BIOS and EFI boot loaders load as Linux, and that UEFI firmware starts as a program. It prints
/// `kernel VERSION has started`, `command line: ...` and `initrd: ...` on the serial port, the start of the initrd up to NUL, and turns
/// the machine off. `boot_kernel.S` contains the code.
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
    padded(fs::read(&program).expect("the program"), size)
}

/// Returns the file of a kernel for 64-bit ARM that U-Boot loads as Linux. It prints `kernel VERSION has started` on the serial port and
/// turns the board off. `board_kernel.S` contains the code.
#[track_caller]
pub fn board_kernel(version: &str, size: usize) -> Vec<u8> {
    let directory = TempDir::new().expect("a temporary directory");
    let [source, object, program] = ["source", "object", "kernel"].map(|name| directory.path().join(name));
    let text = format!("\\r\\nkernel {version} has started\\r\\n");
    let settings = format!(".set SIZE, {size}\n.macro text\n.asciz \"{text}\"\n.endm\n");
    fs::write(&source, settings + include_str!("board_kernel.S")).expect("written");
    run("aarch64-linux-gnu-as", ["-o".as_ref(), object.as_os_str(), source.as_os_str()]);
    let format = ["-O".as_ref(), "binary".as_ref()];
    run("aarch64-linux-gnu-objcopy", format.into_iter().chain([object.as_os_str(), program.as_os_str()]));
    padded(fs::read(&program).expect("the program"), size)
}

/// Extends a kernel to this size.
fn padded(mut kernel: Vec<u8>, size: usize) -> Vec<u8> {
    let rest = size.checked_sub(kernel.len()).expect("a size with space for the code");
    kernel.extend(noise(rest, 1));
    kernel
}
