//! Parses the object `tls`.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::progress::Progress;
use crate::config::{
    disk::{
        error::Problem,
        model::{ClientIdentity, TlsConfig},
        values::{parse_fingerprint, parse_tls_file},
    },
    uri::parse_hostname,
};

/// The object.
pub(super) struct TlsSeed<'t> {
    pub(super) progress: &'t Progress,
}

/// The fields of the object.
enum TlsField {
    Ca,
    Certificate,
    Key,
    Hostname,
    Fingerprint,
}

impl<'de> DeserializeSeed<'de> for TlsSeed<'_> {
    type Value = TlsConfig;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<TlsConfig, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TlsSeed<'_> {
    type Value = TlsConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TlsConfig, A::Error> {
        let Self { progress } = self;
        let key = |name: &str| match name {
            "ca" => Ok(TlsField::Ca),
            "certificate" => Ok(TlsField::Certificate),
            "key" => Ok(TlsField::Key),
            "hostname" => Ok(TlsField::Hostname),
            "fingerprint" => Ok(TlsField::Fingerprint),
            _ => Err(Problem::UnknownField("ca, certificate, key, hostname and fingerprint")),
        };
        let (mut ca, mut certificate, mut key_file, mut hostname, mut fingerprint) = (None, None, None, None, None);
        while let Some(field) = map.next_key_seed(progress.text(key))? {
            match field {
                TlsField::Ca => progress.fill("tls.ca", &mut ca, progress.text(parse_tls_file), &mut map)?,
                TlsField::Certificate => {
                    progress.fill("tls.certificate", &mut certificate, progress.text(parse_tls_file), &mut map)?;
                }
                TlsField::Key => progress.fill("tls.key", &mut key_file, progress.text(parse_tls_file), &mut map)?,
                TlsField::Hostname => {
                    let parse = |text: &str| parse_hostname(text).ok_or(Problem::Expected("a host name or IP address"));
                    progress.fill("tls.hostname", &mut hostname, progress.text(parse), &mut map)?;
                }
                TlsField::Fingerprint => {
                    progress.fill("tls.fingerprint", &mut fingerprint, progress.text(parse_fingerprint), &mut map)?;
                }
            }
        }
        progress.reach_token();
        if ca.is_some() && fingerprint.is_some() {
            return Err(progress.reject(Problem::CaAndFingerprint));
        }
        let identity = match (certificate, key_file) {
            (None, None) => None,
            (certificate, key_file) => Some(ClientIdentity {
                certificate: progress.required("certificate", certificate)?,
                key: progress.required("key", key_file)?,
            }),
        };
        Ok(TlsConfig { ca, identity, hostname, fingerprint })
    }
}
