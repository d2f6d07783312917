//! The headers of EFI programs (PE/COFF): the sections and the certificate table.

/// The number of bytes from the start of a file that contain its headers.
pub(crate) const HEADERS: usize = 4096;

/// The parts of an EFI program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    sections: Vec<([u8; 8], Part)>,
    /// The certificate table; `None` if the program is not signed.
    pub(crate) certificates: Option<Part>,
}

/// Consecutive bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Program {
    /// Parses the first [`HEADERS`] bytes of a file. Returns `None` if it is no EFI program.
    pub(crate) fn parse(start: &[u8]) -> Option<Self> {
        if !start.starts_with(b"MZ") {
            return None;
        }
        let header = start.get(u32_at(start, 0x3c)? as usize..)?;
        if !header.starts_with(b"PE\0\0") {
            return None;
        }
        let (count, optional_size) = (u16_at(header, 6)?, u16_at(header, 20)?);
        // The number of data directories comes before them; the certificate table is the fifth one.
        let directories = match u16_at(header, 24)? {
            0x10b => 24 + 92,
            0x20b => 24 + 108,
            _ => return None,
        };
        let has_certificates = u32_at(header, directories)? > 4;
        let directory =
            |at: usize| Some(Part { offset: u32_at(header, at)?.into(), len: u32_at(header, at + 4)?.into() });
        let certificates = if has_certificates { directory(directories + 4 + 4 * 8) } else { None };
        let table = header.get(24 + usize::from(optional_size)..)?;
        let section = |row: &[u8]| {
            let name = row.get(..8)?.try_into().ok()?;
            // In the file, a section is padded; in memory, it ends with its contents.
            let len = u32_at(row, 8)?.min(u32_at(row, 16)?);
            Some((name, Part { offset: u32_at(row, 20)?.into(), len: len.into() }))
        };
        let rows = table.chunks_exact(40).take(count.into());
        Some(Self {
            sections: rows.filter_map(section).collect(),
            certificates: certificates.filter(|part| part.offset > 0 && part.len > 0),
        })
    }

    /// Returns the first section with this name of at most 8 bytes.
    pub(crate) fn section(&self, name: &str) -> Option<Part> {
        let is_named = |found: &[u8; 8]| found.split(|&byte| byte == 0).next() == Some(name.as_bytes());
        self.sections.iter().find(|(found, _)| is_named(found)).map(|(_, part)| *part)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns an EFI program with these sections, one after the other from byte 1024 on.
    pub(in super::super) fn program(sections: &[(&str, &[u8])], certificates: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"MZ");
        put(0x3c, &[0x80]);
        put(0x80, b"PE\0\0\x64\x86");
        put(0x80 + 6, &[sections.len() as u8]);
        put(0x80 + 20, &[240, 0, 0x0e, 0x02, 0x0b, 0x02]);
        put(0x80 + 24 + 108, &[16]);
        let mut contents = vec![];
        for (index, (name, content)) in sections.iter().enumerate() {
            let row = 0x80 + 24 + 240 + 40 * index;
            put(row, name.as_bytes());
            put(row + 8, &(content.len() as u32).to_le_bytes());
            put(row + 16, &(content.len() as u32 + 100).to_le_bytes());
            put(row + 20, &(1024 + contents.len() as u32).to_le_bytes());
            contents.extend_from_slice(content);
            contents.extend_from_slice(&[0; 100]);
        }
        if !certificates.is_empty() {
            put(0x80 + 24 + 112 + 32, &(1024 + contents.len() as u32).to_le_bytes());
            put(0x80 + 24 + 112 + 36, &(certificates.len() as u32).to_le_bytes());
        }
        [bytes, contents, certificates.to_vec()].concat()
    }

    #[test]
    fn finds_sections_and_certificates() {
        let bytes = program(&[(".osrel", b"ID=x"), (".cmdline", b"quiet")], b"certificate");
        let parsed = Program::parse(&bytes).expect("a program");
        let text = |part: Part| &bytes[part.offset as usize..(part.offset + part.len) as usize];
        assert_eq!(parsed.section(".osrel").map(text), Some(&b"ID=x"[..]));
        assert_eq!(parsed.section(".cmdline").map(text), Some(&b"quiet"[..]));
        assert_eq!(parsed.section(".cmd"), None);
        assert_eq!(parsed.certificates.map(text), Some(&b"certificate"[..]));
        let unsigned = Program::parse(&program(&[], b"")).expect("a program");
        assert_eq!((unsigned.certificates, unsigned.section("")), (None, None));
    }

    #[test]
    fn accepts_every_damaged_header() {
        let bytes = program(&[(".osrel", b"ID=x")], b"x");
        for len in 0..bytes.len() {
            let _ = Program::parse(&bytes[..len]);
        }
        for at in 0..512 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Program::parse(&damaged);
        }
        for other in [&b""[..], b"MZ", b"\x7fELF", &[b"MZ".as_slice(), &[0xff; 100]].concat()] {
            assert_eq!(Program::parse(other), None);
        }
    }
}
