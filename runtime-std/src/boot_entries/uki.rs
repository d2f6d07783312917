//! Unified kernel images: EFI programs with a kernel, an initrd and a command line in their sections.

use super::{
    bls::OrderedEntry,
    pe::{HEADERS, Program},
    tree::DiskTree,
    variables::Variables,
};

/// The maximum number of bytes that are read of a section.
const MAX_SECTION: u64 = 8192;

/// Reads the image at the path `directory/name`. Returns `None` if it is none.
pub(super) async fn read<T: DiskTree>(disk: &T, directory: &str, name: &str) -> Result<Option<OrderedEntry>, T::Error> {
    let path = format!("{directory}/{name}");
    let Some(program) = Program::parse(&disk.read_part(&path, 0, HEADERS).await?) else { return Ok(None) };
    let mut texts = [const { String::new() }; 3];
    for (text, section) in texts.iter_mut().zip([".osrel", ".cmdline", ".uname"]) {
        let Some(part) = program.section(section) else { continue };
        // `MAX_SECTION` fits `usize`.
        let bytes = disk.read_part(&path, part.offset, part.len.min(MAX_SECTION) as usize).await?;
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').trim().clone_into(text);
    }
    // A program without them is something else, such as a boot loader.
    if program.section(".linux").is_none() || program.section(".osrel").is_none() {
        return Ok(None);
    }
    Ok(Some(entry(name, path, &texts)))
}

/// Returns the entry of an image with these texts: the operating system (os-release), the command line and the version of the kernel.
fn entry(name: &str, path: String, [os_release, options, kernel_version]: &[String; 3]) -> OrderedEntry {
    let stem = name.get(..name.len().saturating_sub(4)).unwrap_or(name);
    let mut parsed = OrderedEntry::new(stem);
    let os = Variables::parse_assignments(os_release);
    let first = |names: &[&str]| names.iter().find_map(|name| os.get(name)).map(str::to_owned);
    parsed.sort_key = first(&["IMAGE_ID", "ID"]);
    parsed.version = first(&["IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"]).unwrap_or_default();
    let version = if kernel_version.is_empty() { parsed.version.clone() } else { kernel_version.clone() };
    parsed.set_title(first(&["PRETTY_NAME", "IMAGE_ID", "NAME", "ID"]).unwrap_or_default(), &version);
    let entry = &mut parsed.entry;
    entry.kernel = path;
    entry.is_efi = true;
    entry.has_own_options = true;
    entry.options = options.replace('\n', " ");
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_an_image_by_its_sections() {
        let texts = ["ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"", "root=/dev/a\nquiet", "6.1.0-9"];
        let parsed = entry("d-6.1.0-9+3-0.efi", "/EFI/Linux/d.efi".into(), &texts.map(str::to_owned));
        assert_eq!((parsed.sort_key.as_deref(), &*parsed.version), (Some("debian"), "12"));
        let entry = parsed.entry;
        assert_eq!(
            (&*entry.id, &*entry.title, &*entry.options),
            ("d-6.1.0-9", "Debian 12 (6.1.0-9)", "root=/dev/a quiet")
        );
        assert!(entry.is_efi && entry.has_own_options);
    }
}
