//! The JSON of a description, read into bounded types without a heap.
//!
//! The errors of `serde-json-core` say neither where nor in which field they arose, so the visitors leave a [`Trace`].

use core::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json_core::de;

use super::{
    DiskConfig, FieldPath, MAX_MOUNTS, MAX_PARTITION, MAX_URL, Mount, MountSource, Problem, read_backend, read_device,
    read_mountpoint, read_path, read_url,
};

/// Reads a description and leaves in `trace` how far it came.
pub(super) fn read(json: &[u8], trace: &Trace) -> Result<DiskConfig, de::Error> {
    // Strings with escapes are unescaped in here; the longest that can be right is a URL.
    let mut scratch = [0; MAX_URL];
    let mut deserializer = de::Deserializer::new(json, Some(&mut scratch));
    let config = DiskSeed { trace }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(config)
}

/// How far a description was read.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// How many keys, values and ends of objects were come to: the last one is where a mistake is.
    pub(super) tokens: Cell<usize>,
    /// The field that is being read.
    pub(super) field: Cell<FieldPath>,
    /// The mistake, unless it is one of plain JSON.
    pub(super) mistake: Cell<Option<Problem>>,
}

impl Trace {
    /// Counts a key, a value or the end of an object.
    fn come_to_token(&self) {
        self.tokens.set(self.tokens.get().saturating_add(1));
    }

    /// Records a mistake at the last token and ends the reading.
    fn refuse<E: Error>(&self, mistake: Problem) -> E {
        self.mistake.set(Some(mistake));
        E::custom("")
    }

    /// Reads a string (or the key of an object) as `read` means it.
    fn text<R>(&self, read: R) -> TextSeed<'_, R> {
        TextSeed { trace: self, read }
    }

    /// Reads the value of the field `name` into its place.
    fn fill<'de, S: DeserializeSeed<'de>, A: MapAccess<'de>>(
        &self,
        name: &'static str,
        place: &mut Option<S::Value>,
        seed: S,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let parent = self.field.get();
        self.field.set(FieldPath { name: Some(name), ..parent });
        if place.is_some() {
            return Err(self.refuse(Problem::DuplicateField));
        }
        *place = Some(map.next_value_seed(seed)?);
        self.field.set(parent);
        Ok(())
    }

    /// Takes out what a field was filled with.
    fn required<T, E: Error>(&self, name: &'static str, value: Option<T>) -> Result<T, E> {
        value.ok_or_else(|| self.refuse(Problem::MissingField(name)))
    }
}

/// The whole file.
struct DiskSeed<'t> {
    trace: &'t Trace,
}

/// The fields of the whole file.
enum DiskField {
    Url,
    Mounts,
    TftpRoot,
    Backend,
}

impl<'de> DeserializeSeed<'de> for DiskSeed<'_> {
    type Value = DiskConfig;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<DiskConfig, D::Error> {
        self.trace.come_to_token();
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DiskSeed<'_> {
    type Value = DiskConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a disk")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DiskConfig, A::Error> {
        let trace = self.trace;
        let key = |name: &str| match name {
            "url" => Ok(DiskField::Url),
            "mounts" => Ok(DiskField::Mounts),
            "tftp_root" => Ok(DiskField::TftpRoot),
            "backend" => Ok(DiskField::Backend),
            // Refused before its value is looked at: nesting of any depth would have to be skipped, on the stack.
            _ => Err(Problem::UnknownField("url, mounts, tftp_root and backend")),
        };
        let (mut url, mut mounts, mut tftp_root, mut backend) = (None, None, None, None);
        while let Some(field) = map.next_key_seed(trace.text(key))? {
            match field {
                DiskField::Url => trace.fill("url", &mut url, trace.text(read_url), &mut map)?,
                DiskField::Mounts => trace.fill("mounts", &mut mounts, MountsSeed { trace }, &mut map)?,
                DiskField::TftpRoot => trace.fill("tftp_root", &mut tftp_root, trace.text(read_path), &mut map)?,
                DiskField::Backend => trace.fill("backend", &mut backend, trace.text(read_backend), &mut map)?,
            }
        }
        trace.come_to_token();
        Ok(DiskConfig {
            url: trace.required("url", url)?,
            mounts: trace.required("mounts", mounts)?,
            tftp_root: tftp_root.map_or_else(|| read_path("/").map_err(|mistake| trace.refuse(mistake)), Ok)?,
            backend,
        })
    }
}

/// The list of mounts.
struct MountsSeed<'t> {
    trace: &'t Trace,
}

type Mounts = heapless::Vec<Mount, MAX_MOUNTS>;

impl<'de> DeserializeSeed<'de> for MountsSeed<'_> {
    type Value = Mounts;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Mounts, D::Error> {
        self.trace.come_to_token();
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MountsSeed<'_> {
    type Value = Mounts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of mounts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Mounts, A::Error> {
        let trace = self.trace;
        let mut mounts = Mounts::new();
        while let Some(mount) = list.next_element_seed(MountSeed { trace, earlier: &mounts })? {
            mounts.push(mount).map_err(|_| trace.refuse(Problem::TooManyMounts))?;
        }
        if mounts.is_empty() {
            return Err(trace.refuse(Problem::Expected("at least one mount")));
        }
        Ok(mounts)
    }
}

/// A mount, and those before it.
struct MountSeed<'t> {
    trace: &'t Trace,
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
        let trace = self.trace;
        trace.come_to_token();
        if self.earlier.len() == MAX_MOUNTS {
            return Err(trace.refuse(Problem::TooManyMounts));
        }
        let list = trace.field.get();
        trace.field.set(FieldPath { mount: Some(self.earlier.len()), name: None });
        let mount = deserializer.deserialize_map(self)?;
        trace.field.set(list);
        Ok(mount)
    }
}

impl<'de> Visitor<'de> for MountSeed<'_> {
    type Value = Mount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mount")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Mount, A::Error> {
        let Self { trace, earlier } = self;
        let key = |name: &str| match name {
            "partition" => Ok(MountField::Partition),
            "device" => Ok(MountField::Device),
            "mountpoint" => Ok(MountField::Mountpoint),
            _ => Err(Problem::UnknownField("partition, device and mountpoint")),
        };
        let (mut partition, mut device, mut mountpoint) = (None, None, None);
        while let Some(field) = map.next_key_seed(trace.text(key))? {
            match field {
                MountField::Partition if device.is_some() => return Err(trace.refuse(Problem::PartitionAndDevice)),
                MountField::Device if partition.is_some() => return Err(trace.refuse(Problem::PartitionAndDevice)),
                MountField::Partition => trace.fill("partition", &mut partition, PartitionSeed { trace }, &mut map)?,
                MountField::Device => trace.fill("device", &mut device, trace.text(read_device), &mut map)?,
                MountField::Mountpoint => {
                    let read = |text: &str| read_mountpoint(text, earlier);
                    trace.fill("mountpoint", &mut mountpoint, trace.text(read), &mut map)?;
                }
            }
        }
        trace.come_to_token();
        let source = match (device, partition) {
            (Some(device), _) => MountSource::Device(device),
            (None, None | Some(0)) => MountSource::Disk,
            (None, Some(number)) => MountSource::Partition(number),
        };
        Ok(Mount { source, mountpoint: trace.required("mountpoint", mountpoint)? })
    }
}

/// The number of a partition.
struct PartitionSeed<'t> {
    trace: &'t Trace,
}

impl<'de> DeserializeSeed<'de> for PartitionSeed<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        self.trace.come_to_token();
        deserializer.deserialize_u32(self)
    }
}

impl Visitor<'_> for PartitionSeed<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a partition number")
    }

    fn visit_u32<E: Error>(self, number: u32) -> Result<u32, E> {
        if number <= MAX_PARTITION { Ok(number) } else { Err(self.trace.refuse(Problem::Partition)) }
    }
}

/// A string and what makes a value of it.
struct TextSeed<'t, R> {
    trace: &'t Trace,
    read: R,
}

impl<'de, T, R: FnOnce(&str) -> Result<T, Problem>> DeserializeSeed<'de> for TextSeed<'_, R> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        self.trace.come_to_token();
        deserializer.deserialize_str(self)
    }
}

impl<T, R: FnOnce(&str) -> Result<T, Problem>> Visitor<'_> for TextSeed<'_, R> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).map_err(|mistake| self.trace.refuse(mistake))
    }
}
