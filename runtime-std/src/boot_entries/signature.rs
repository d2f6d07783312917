//! The signatures of EFI programs (Authenticode), as Secure Boot checks them: their presence and their signers, not their validity.

use x509_cert::{
    Certificate,
    der::{Decode, Encode, Reader, SliceReader, asn1::AnyRef},
};

use super::{
    pe::{HEADERS, Program},
    tree::DiskTree,
};

/// The maximum size in bytes of a certificate table that is read.
const MAX_TABLE: u64 = 64 * 1024;
/// The type of an entry of the certificate table with a PKCS #7 signature.
const PKCS7: [u8; 2] = [2, 0];

/// Returns the subjects of those who have signed an EFI program, none if it is not signed; `None` if the file is no EFI program.
///
/// # Errors
///
/// The errors of the disk.
pub async fn signers<T: DiskTree>(disk: &T, path: &str) -> Result<Option<Vec<String>>, T::Error> {
    let Some(program) = Program::parse(&disk.read_part(path, 0, HEADERS).await?) else { return Ok(None) };
    let Some(table) = program.certificates else { return Ok(Some(vec![])) };
    // `MAX_TABLE` fits `usize`.
    let bytes = disk.read_part(path, table.offset, table.len.min(MAX_TABLE) as usize).await?;
    Ok(Some(signatures(&bytes).map(|signature| signer(signature).unwrap_or_else(|| "unknown".into())).collect()))
}

/// Returns the signatures in a certificate table.
fn signatures(mut table: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            // A length of everything, a revision, a type; the next entry is aligned to 8 bytes.
            let len = u32::from_le_bytes(*table.first_chunk()?) as usize;
            let entry = table.get(..len).filter(|entry| entry.len() >= 8)?;
            table = table.get(len.next_multiple_of(8)..).unwrap_or_default();
            if entry[6..8] == PKCS7 {
                return Some(&entry[8..]);
            }
        }
    })
}

/// Returns the subject of the certificate that a signature (RFC 5652, `SignedData`) names as that of its signer.
fn signer(signature: &[u8]) -> Option<String> {
    let content_info = elements(signature)?.next()?;
    let content = elements(contents(content_info)?)?.nth(1)?;
    let signed_data = contents(elements(contents(content)?)?.next()?)?;
    let parts: Vec<&[u8]> = elements(signed_data)?.collect();
    let certificates = parts.iter().find(|part| part.first() == Some(&0xa0))?;
    let signer_info = elements(contents(parts.last()?)?)?.next()?;
    let issuer_and_serial = contents(elements(contents(signer_info)?)?.nth(1)?)?;
    let is_signer = |certificate: &Certificate| {
        let certificate = certificate.tbs_certificate();
        let (issuer, serial) = (certificate.issuer().to_der(), certificate.serial_number().to_der());
        issuer.and_then(|issuer| Ok([issuer, serial?].concat())).is_ok_and(|names| names == issuer_and_serial)
    };
    let certificates = elements(contents(certificates)?)?.filter_map(|bytes| Certificate::from_der(bytes).ok());
    let certificate = certificates.take(16).find(is_signer)?;
    let subject = certificate.tbs_certificate().subject();
    Some(subject.common_name().ok().flatten().map_or_else(|| subject.to_string(), |name| name.value().into_owned()))
}

/// Returns the elements that follow each other in some DER, up to the first that is not valid.
fn elements(bytes: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    Some(std::iter::from_fn(move || reader.tlv_bytes().ok()))
}

/// Returns the contents of an element.
fn contents(element: &[u8]) -> Option<&[u8]> {
    Some(AnyRef::from_der(element).ok()?.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_signatures_in_a_certificate_table() {
        let entry = |kind: u8, content: &[u8]| {
            let mut bytes = vec![8 + content.len() as u8, 0, 0, 0, 0, 2, kind, 0];
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes
        };
        let table = [entry(2, b"first"), entry(1, b"other"), entry(2, b"second signature")].concat();
        assert_eq!(signatures(&table).collect::<Vec<_>>(), [&b"first"[..], b"second signature"]);
        for table in [&[][..], &[0; 8], &[7, 0, 0, 0, 0, 2, 2, 0], &[9, 0, 0, 0, 0, 2, 2, 0], &[0xff; 16]] {
            assert_eq!(signatures(table).count(), 0);
        }
    }

    #[test]
    fn a_damaged_signature_has_no_signer() {
        for signature in [&b""[..], b"\x30\x80", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff", &[0x30; 100]] {
            assert_eq!(signer(signature), None);
        }
    }
}
