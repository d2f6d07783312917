//! Parses the JSON of a description into bounded types, without a heap.
//!
//! The errors of `serde-json-core` have neither a position nor a field, so the visitors record their [`Progress`].

use core::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json_core::de;

use super::{
    error::{FieldPath, Problem},
    model::{DiskConfig, MAX_MOUNTS, MAX_PARTITION, MAX_URL, Mount, MountSource},
    placeholder::{Board, Placeholder, Placeholders},
    values::{parse_backend, parse_device, parse_mountpoint, parse_path, parse_url},
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

/// The position of the parser.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of keys, values and ends of objects that were reached. A problem is at the last one.
    pub(super) tokens: Cell<usize>,
    /// The current field.
    pub(super) field: Cell<FieldPath>,
    /// The problem, unless it is invalid JSON.
    pub(super) problem: Cell<Option<Problem>>,
}

impl Progress {
    /// Counts a key, a value or the end of an object.
    fn reach_token(&self) {
        self.tokens.set(self.tokens.get().saturating_add(1));
    }

    /// Records a problem at the last token and returns the error that ends the parser.
    fn reject<E: Error>(&self, problem: Problem) -> E {
        self.problem.set(Some(problem));
        E::custom("")
    }

    /// Parses a string, or the key of an object, with `parse`.
    fn text<P>(&self, parse: P) -> TextSeed<'_, P> {
        TextSeed { progress: self, parse }
    }

    /// Parses the value of the field `name` into `slot`.
    fn fill<'de, S: DeserializeSeed<'de>, A: MapAccess<'de>>(
        &self,
        name: &'static str,
        slot: &mut Option<S::Value>,
        seed: S,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let parent = self.field.get();
        self.field.set(FieldPath { name: Some(name), ..parent });
        if slot.is_some() {
            return Err(self.reject(Problem::DuplicateField));
        }
        *slot = Some(map.next_value_seed(seed)?);
        self.field.set(parent);
        Ok(())
    }

    /// Returns the value of the field `name`, or the error for a missing field.
    fn required<T, E: Error>(&self, name: &'static str, value: Option<T>) -> Result<T, E> {
        value.ok_or_else(|| self.reject(Problem::MissingField(name)))
    }
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
            // Rejected before its value: to skip a value of any depth would need as much stack.
            _ => Err(Problem::UnknownField("url, mounts, tftp_root, backend and trust_serial")),
        };
        let (mut url, mut mounts, mut tftp_root, mut backend, mut trust_serial) = (None, None, None, None, None);
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
            }
        }
        progress.reach_token();
        if placeholders.contains(&Placeholder::Serial) && trust_serial != Some(true) {
            progress.field.set(FieldPath { mount: None, name: Some("url") });
            return Err(progress.reject(Problem::UntrustedSerial));
        }
        Ok(DiskConfig {
            url: progress.required("url", url)?,
            mounts: progress.required("mounts", mounts)?,
            tftp_root: tftp_root.map_or_else(|| parse_path("/").map_err(|problem| progress.reject(problem)), Ok)?,
            backend,
            placeholders,
        })
    }
}

/// The list of mounts.
struct MountsSeed<'t> {
    progress: &'t Progress,
}

type Mounts = heapless::Vec<Mount, MAX_MOUNTS>;

impl<'de> DeserializeSeed<'de> for MountsSeed<'_> {
    type Value = Mounts;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Mounts, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MountsSeed<'_> {
    type Value = Mounts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of mounts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Mounts, A::Error> {
        let progress = self.progress;
        let mut mounts = Mounts::new();
        while let Some(mount) = list.next_element_seed(MountSeed { progress, earlier: &mounts })? {
            mounts.push(mount).map_err(|_| progress.reject(Problem::TooManyMounts))?;
        }
        if mounts.is_empty() {
            return Err(progress.reject(Problem::Expected("at least one mount")));
        }
        Ok(mounts)
    }
}

/// A mount, and the mounts before it.
struct MountSeed<'t> {
    progress: &'t Progress,
    earlier: &'t [Mount],
}

/// The fields of a mount.
enum MountField {
    Partition,
    Device,
    Mountpoint,
}

impl<'de> DeserializeSeed<'de> for MountSeed<'_> {
    type Value = Mount;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Mount, D::Error> {
        let progress = self.progress;
        progress.reach_token();
        if self.earlier.len() == MAX_MOUNTS {
            return Err(progress.reject(Problem::TooManyMounts));
        }
        let list = progress.field.get();
        progress.field.set(FieldPath { mount: Some(self.earlier.len()), name: None });
        let mount = deserializer.deserialize_map(self)?;
        progress.field.set(list);
        Ok(mount)
    }
}

impl<'de> Visitor<'de> for MountSeed<'_> {
    type Value = Mount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mount")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Mount, A::Error> {
        let Self { progress, earlier } = self;
        let key = |name: &str| match name {
            "partition" => Ok(MountField::Partition),
            "device" => Ok(MountField::Device),
            "mountpoint" => Ok(MountField::Mountpoint),
            _ => Err(Problem::UnknownField("partition, device and mountpoint")),
        };
        let (mut partition, mut device, mut mountpoint) = (None, None, None);
        while let Some(field) = map.next_key_seed(progress.text(key))? {
            match field {
                MountField::Partition if device.is_some() => return Err(progress.reject(Problem::PartitionAndDevice)),
                MountField::Device if partition.is_some() => return Err(progress.reject(Problem::PartitionAndDevice)),
                MountField::Partition => {
                    progress.fill("partition", &mut partition, PartitionSeed { progress }, &mut map)?;
                }
                MountField::Device => progress.fill("device", &mut device, progress.text(parse_device), &mut map)?,
                MountField::Mountpoint => {
                    let parse = |text: &str| parse_mountpoint(text, earlier);
                    progress.fill("mountpoint", &mut mountpoint, progress.text(parse), &mut map)?;
                }
            }
        }
        progress.reach_token();
        let source = match (device, partition) {
            (Some(device), _) => MountSource::Device(device),
            (None, None | Some(0)) => MountSource::Disk,
            (None, Some(number)) => MountSource::Partition(number),
        };
        Ok(Mount { source, mountpoint: progress.required("mountpoint", mountpoint)? })
    }
}

/// The number of a partition.
struct PartitionSeed<'t> {
    progress: &'t Progress,
}

impl<'de> DeserializeSeed<'de> for PartitionSeed<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_u32(self)
    }
}

impl Visitor<'_> for PartitionSeed<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a partition number")
    }

    fn visit_u32<E: Error>(self, number: u32) -> Result<u32, E> {
        if number <= MAX_PARTITION { Ok(number) } else { Err(self.progress.reject(Problem::Partition)) }
    }
}

/// `true` or `false`.
struct BoolSeed<'t> {
    progress: &'t Progress,
}

impl<'de> DeserializeSeed<'de> for BoolSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_bool(self)
    }
}

impl Visitor<'_> for BoolSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

/// A string and its parser.
struct TextSeed<'t, P> {
    progress: &'t Progress,
    parse: P,
}

impl<'de, T, P: FnOnce(&str) -> Result<T, Problem>> DeserializeSeed<'de> for TextSeed<'_, P> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        self.progress.reach_token();
        deserializer.deserialize_str(self)
    }
}

impl<T, P: FnOnce(&str) -> Result<T, Problem>> Visitor<'_> for TextSeed<'_, P> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(|problem| self.progress.reject(problem))
    }
}
