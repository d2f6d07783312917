//! What boots from a disk, as text.

use std::fmt::Write as _;

use rtftp_runtime::check::{Boot, BootEntry};

/// Returns the boot entries and EFI programs of the disk of a client; empty if it has none.
pub(super) fn text(client: &str, boot: &Boot) -> String {
    let mut text = String::new();
    if boot.entries.is_empty() && boot.notes.is_empty() && boot.programs.is_empty() {
        return text;
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{client}: boot entries");
    for BootEntry { id, title, source, kernel, initrds, options } in &boot.entries {
        if boot.default.as_ref() != Some(id) {
            let _ = writeln!(text, "    {id}: {title}");
            continue;
        }
        let _ = writeln!(text, "  * {id}: {title}");
        let files: Vec<&str> = [kernel].into_iter().chain(initrds).map(String::as_str).collect();
        let _ = writeln!(text, "      {}", files.join(", "));
        let _ = writeln!(text, "      {}", if options.is_empty() { "no command line" } else { options });
        let _ = writeln!(text, "      from {source}");
    }
    for note in &boot.notes {
        let _ = writeln!(text, "  {note}");
    }
    for program in &boot.programs {
        let signers = match &program.signers[..] {
            [] => "not signed".to_owned(),
            signers => format!("signed by {}", signers.join(", ")),
        };
        let _ = writeln!(text, "  {}: {signers}", program.path);
    }
    text
}

#[cfg(test)]
mod tests {
    use rtftp_runtime::check::Program;

    use super::*;

    #[test]
    fn shows_the_default_entry_with_its_command_line() {
        let entry = |id: &str| BootEntry {
            id: id.into(),
            title: format!("Linux {id}"),
            source: "etc/default/grub".into(),
            kernel: format!("boot/vmlinuz-{id}"),
            initrds: vec![format!("boot/initrd.img-{id}")],
            options: "root=UUID=7 ro".into(),
        };
        let program = |path: &str, signers: &[&str]| Program {
            path: path.into(),
            signers: signers.iter().map(|signer| (*signer).to_owned()).collect(),
        };
        let boot = Boot {
            entries: vec![entry("2"), entry("1")],
            default: Some("1".into()),
            notes: vec!["default: saved_entry of grubenv".into()],
            missing_default: None,
            programs: vec![program("EFI/BOOT/BOOTX64.EFI", &["A", "B"]), program("boot/vmlinuz-1", &[])],
        };
        let expected = "
10.0.0.5: boot entries
    2: Linux 2
  * 1: Linux 1
      boot/vmlinuz-1, boot/initrd.img-1
      root=UUID=7 ro
      from etc/default/grub
  default: saved_entry of grubenv
  EFI/BOOT/BOOTX64.EFI: signed by A, B
  boot/vmlinuz-1: not signed
";
        assert_eq!(text("10.0.0.5", &boot), expected);
        let without_options = BootEntry { options: String::new(), ..entry("1") };
        let boot = Boot { entries: vec![without_options], default: Some("1".into()), ..Boot::default() };
        assert!(text("10.0.0.5", &boot).contains("\n      no command line\n"));
        assert_eq!(text("10.0.0.5", &Boot::default()), "");
    }
}
