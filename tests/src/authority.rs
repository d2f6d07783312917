//! A certificate authority.

use std::{fs, path::Path};

use crate::run;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// A certificate authority, which issues certificates for 127.0.0.1.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Creates an authority.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Returns the authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Writes a certificate that ends at the start of this year, and its key, to `certificate.pem` and `key.pem` in a directory.
    pub fn issue(&self, end: i32, directory: &Path) {
        self.issue_for(&KeyPair::generate().expect("a key"), end, directory);
    }

    /// Does the same with an RSA key.
    pub fn issue_with_rsa(&self, end: i32, directory: &Path) {
        let key = run("openssl", ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).stdout;
        let key = KeyPair::from_pem(&String::from_utf8(key).expect("PEM")).expect("a key");
        self.issue_for(&key, end, directory);
    }

    fn issue_for(&self, key: &KeyPair, end: i32, directory: &Path) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(end, 1, 1);
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        fs::write(directory.join("certificate.pem"), certificate.pem()).expect("written");
        fs::write(directory.join("key.pem"), key.serialize_pem()).expect("written");
    }
}
