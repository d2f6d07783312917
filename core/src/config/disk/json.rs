//! Parses the JSON of a description into bounded types, without a heap.
//!
//! The errors of `serde-json-core` have neither a position nor a field, so the visitors record their [`Progress`].

mod boot;
mod mounts;
mod progress;
mod tls;

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json_core::de;

pub(super) use self::progress::Progress;
use self::{boot::BootSeed, mounts::MountsSeed, progress::BoolSeed, tls::TlsSeed};
use super::{
    error::{FieldPath, Problem},
    model::{DiskConfig, MAX_URL},
    placeholder::{Board, Placeholder, Placeholders},
    values::{parse_backend, parse_label, parse_path, parse_url},
};

/// Parses a description, of many boards if there is a `board`, and records in `progress` how far it came.
pub(super) fn parse(json: &[u8], board: Option<&Board<'_>>, progress: &Progress) -> Result<DiskConfig, de::Error> {
    // Room to unescape strings; the longest valid one is a URL.
    let mut scratch = [0; MAX_URL];
    let mut deserializer = de::Deserializer::new(json, Some(&mut scratch));
    let config = DiskSeed { progress, board }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(config)
}

/// The whole file.
struct DiskSeed<'t> {
    progress: &'t Progress,
    board: Option<&'t Board<'t>>,
}

/// The fields of the file.
enum DiskField {
    Url,
    Mounts,
    TftpRoot,
    Backend,
    TrustSerial,
    Tls,
    Boot,
    Label,
}

impl<'de> DeserializeSeed<'de> for DiskSeed<'_> {
    type Value = DiskConfig;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DiskConfig, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DiskSeed<'_> {
    type Value = DiskConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a disk")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DiskConfig, A::Error> {
        let progress = self.progress;
        let key = |name: &str| match name {
            "url" => Ok(DiskField::Url),
            "mounts" => Ok(DiskField::Mounts),
            "tftp_root" => Ok(DiskField::TftpRoot),
            "backend" => Ok(DiskField::Backend),
            "trust_serial" => Ok(DiskField::TrustSerial),
            "tls" => Ok(DiskField::Tls),
            "boot" => Ok(DiskField::Boot),
            "label" => Ok(DiskField::Label),
            // Rejected before its value: to skip a value of any depth would need as much stack.
            _ => Err(Problem::UnknownField("url, mounts, tftp_root, backend, trust_serial, tls, boot and label")),
        };
        let (mut url, mut mounts, mut tftp_root, mut backend) = (None, None, None, None);
        let (mut trust_serial, mut tls, mut boot, mut label) = (None, None, None, None);
        let mut placeholders = Placeholders::new();
        while let Some(field) = map.next_key_seed(progress.text(key))? {
            match field {
                DiskField::Url => {
                    let parse = |text: &str| parse_url(text, self.board, &mut placeholders);
                    progress.fill("url", &mut url, progress.text(parse), &mut map)?;
                }
                DiskField::Mounts => progress.fill("mounts", &mut mounts, MountsSeed { progress }, &mut map)?,
                DiskField::TftpRoot => {
                    progress.fill("tftp_root", &mut tftp_root, progress.text(parse_path), &mut map)?;
                }
                DiskField::Backend => progress.fill("backend", &mut backend, progress.text(parse_backend), &mut map)?,
                DiskField::TrustSerial => {
                    progress.fill("trust_serial", &mut trust_serial, BoolSeed { progress }, &mut map)?;
                }
                DiskField::Tls => progress.fill("tls", &mut tls, TlsSeed { progress }, &mut map)?,
                DiskField::Boot => {
                    progress.fill("boot", &mut boot, BootSeed { progress, board: self.board }, &mut map)?;
                }
                DiskField::Label => progress.fill("label", &mut label, progress.text(parse_label), &mut map)?,
            }
        }
        progress.reach_token();
        let boot = boot.unwrap_or_default();
        for (name, used) in [("url", &placeholders), ("boot.append", &boot.placeholders)] {
            if used.contains(&Placeholder::Serial) && trust_serial != Some(true) {
                progress.field.set(FieldPath { mount: None, name: Some(name) });
                return Err(progress.reject(Problem::UntrustedSerial));
            }
        }
        let url = progress.required("url", url)?;
        if tls.is_some() && url.tls.is_none() {
            progress.field.set(FieldPath { mount: None, name: Some("url") });
            return Err(progress.reject(Problem::TlsForPlainUrl));
        }
        Ok(DiskConfig {
            url,
            tls,
            mounts: progress.required("mounts", mounts)?,
            tftp_root: tftp_root.map_or_else(|| parse_path("/").map_err(|problem| progress.reject(problem)), Ok)?,
            backend,
            boot,
            label,
            placeholders,
        })
    }
}
