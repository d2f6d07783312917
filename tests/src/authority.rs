//! A certificate authority.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::run;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// The GUID of the program that enrols a certificate; firmware ignores it.
const OWNER: [u8; 16] = [0; 16];

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    /// Creates an authority.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::with_key(name, KeyPair::generate().expect("a key"))
    }

    /// Creates an authority with an RSA key, for clients without elliptic curves.
    #[must_use]
    pub fn with_rsa(name: &str) -> Self {
        Self::with_key(name, rsa_key())
    }

    fn with_key(name: &str, key: KeyPair) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Returns the authority's own certificate, in the PEM format.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.certificate.pem()
    }

    /// Returns the authority's own certificate as a list of UEFI: an `EFI_SIGNATURE_LIST` with one entry (UEFI section 32.4.1).
    #[must_use]
    pub fn efi_signature_list(&self) -> Vec<u8> {
        // EFI_CERT_X509_GUID.
        let certificate_type = 0xa159_c0a5_e494_a74a_87b5_ab15_5c2b_f072_u128;
        let certificate = self.certificate.der();
        let entry_len = u32::try_from(OWNER.len() + certificate.len()).expect("a small certificate");
        let head_len = 28;
        let lens = [head_len + entry_len, 0, entry_len].map(u32::to_le_bytes).concat();
        [&certificate_type.to_be_bytes()[..], &lens, &OWNER, certificate].concat()
    }

    /// Writes a certificate for 127.0.0.1 and 10.0.0.1 that ends at the start of this year, and its key, to `certificate.pem` and
    /// `key.pem` in a directory.
    pub fn issue(&self, end: i32, directory: &Path) {
        self.issue_for(&KeyPair::generate().expect("a key"), end, directory);
    }

    /// Does the same with an RSA key.
    pub fn issue_with_rsa(&self, end: i32, directory: &Path) {
        self.issue_for(&rsa_key(), end, directory);
    }

    /// Writes a certificate for these names that ends at the start of this year, and its key, to `NAME-cert.pem` and `NAME-key.pem`.
    pub fn issue_to(&self, hosts: &[&str], end: i32, directory: &Path, name: &str) {
        let files = [format!("{name}-cert.pem"), format!("{name}-key.pem")].map(|name| directory.join(name));
        self.issue_files(&KeyPair::generate().expect("a key"), hosts, end, files);
    }

    /// Returns a list of revoked certificates with those in these files, in the PEM format.
    #[must_use]
    #[track_caller]
    pub fn revoke(&self, certificates: &[&Path]) -> String {
        let revoked = certificates.iter().map(|certificate| RevokedCertParams {
            serial_number: serial_number(certificate),
            revocation_time: date_time_ymd(2010, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2010, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).expect("a list")
    }

    /// Writes a certificate of a client without a `CommonName`, and its key, to `NAME-cert.pem` and `NAME-key.pem`.
    pub fn issue_without_common_name(&self, directory: &Path, name: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(directory.join(format!("{name}-cert.pem")), certificate.pem()).expect("written");
        fs::write(directory.join(format!("{name}-key.pem")), key.serialize_pem()).expect("written");
    }

    fn issue_for(&self, key: &KeyPair, end: i32, directory: &Path) {
        let files = ["certificate.pem", "key.pem"].map(|name| directory.join(name));
        self.issue_files(key, &["127.0.0.1", "10.0.0.1"], end, files);
    }

    fn issue_files(&self, key: &KeyPair, hosts: &[&str], end: i32, [certificate_file, key_file]: [PathBuf; 2]) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(end, 1, 1);
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        fs::write(certificate_file, certificate.pem()).expect("written");
        fs::write(key_file, key.serialize_pem()).expect("written");
    }
}

/// Returns the serial number of the certificate in a file.
#[track_caller]
fn serial_number(certificate: &Path) -> SerialNumber {
    let file = certificate.display().to_string();
    let printed = run("openssl", ["x509", "-noout", "-serial", "-in", &file]).stdout;
    let printed = String::from_utf8(printed).expect("text");
    let digits = printed.trim().strip_prefix("serial=").expect("a number").as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("a byte");
    digits.chunks(2).map(byte).collect::<Vec<u8>>().into()
}

fn rsa_key() -> KeyPair {
    let key = run("openssl", ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).stdout;
    KeyPair::from_pem(&String::from_utf8(key).expect("PEM")).expect("a key")
}
