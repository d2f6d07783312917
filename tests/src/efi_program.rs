//! EFI programs with sections and a signature, as far as a server reads them.

use std::fs;

use crate::process::run;

/// The size of the headers, after which the sections follow.
const HEADERS: usize = 1024;
/// The offset of the PE header.
const PE: usize = 0x80;
/// The size of the optional header with 16 data directories.
const OPTIONAL: usize = 240;

/// Returns an EFI program (PE32+) with these sections, signed with this certificate table unless it is empty.
#[must_use]
pub fn efi_program(sections: &[(&str, &[u8])], certificates: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADERS];
    let number = |value: usize| u32::try_from(value).expect("small").to_le_bytes();
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"MZ");
    put(0x3c, &number(PE));
    put(PE, b"PE\0\0\x64\x86");
    put(PE + 6, &number(sections.len())[..2]);
    put(PE + 20, &number(OPTIONAL)[..2]);
    put(PE + 24, &[0x0b, 0x02]);
    put(PE + 24 + 108, &number(16));
    let mut contents = vec![];
    for (index, (name, content)) in sections.iter().enumerate() {
        let row = PE + 24 + OPTIONAL + 40 * index;
        put(row, name.as_bytes());
        put(row + 8, &number(content.len()));
        put(row + 16, &number(content.len().next_multiple_of(512)));
        put(row + 20, &number(HEADERS + contents.len()));
        contents.extend_from_slice(content);
        contents.resize(contents.len().next_multiple_of(512), 0);
    }
    if !certificates.is_empty() {
        put(PE + 24 + 112 + 32, &number(HEADERS + contents.len()));
        put(PE + 24 + 112 + 36, &number(certificates.len()));
    }
    [bytes, contents, certificates.to_vec()].concat()
}

/// Returns a certificate table with a signature by this name. It is not valid for any program.
#[must_use]
pub fn certificate_table(common_name: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (key, certificate, content) = (path("key.pem"), path("certificate.pem"), path("content"));
    let subject = format!("/O=Example/CN={common_name}");
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let files = ["-subj", &subject, "-keyout", &key, "-out", &certificate];
    run("openssl", ["req", "-x509"].into_iter().chain(new_key).chain(files));
    fs::write(&content, "content").expect("written");
    let signature = run(
        "openssl",
        [
            "cms",
            "-sign",
            "-binary",
            "-nodetach",
            "-outform",
            "DER",
            "-in",
            &content,
            "-signer",
            &certificate,
            "-inkey",
            &key,
        ],
    )
    .stdout;
    let len = u32::try_from(8 + signature.len()).expect("small");
    let mut table = [&len.to_le_bytes()[..], &[0, 2, 2, 0], &signature].concat();
    table.resize(table.len().next_multiple_of(8), 0);
    table
}
