//! Parses the list `mounts`.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::progress::{NumberSeed, Progress};
use crate::config::disk::{
    error::{FieldPath, Problem},
    model::{MAX_MOUNTS, MAX_PARTITION, Mount, MountSource},
    values::{is_subvolume, parse_device, parse_mountpoint, parse_subvolume},
};

/// The list of mounts.
pub(super) struct MountsSeed<'t> {
    pub(super) progress: &'t Progress,
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
    Subvolume,
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
            "subvol" => Ok(MountField::Subvolume),
            "mountpoint" => Ok(MountField::Mountpoint),
            _ => Err(Problem::UnknownField("partition, device, subvol and mountpoint")),
        };
        let (mut partition, mut device, mut subvolume, mut mountpoint) = (None, None, None, None);
        while let Some(field) = map.next_key_seed(progress.text(key))? {
            match field {
                MountField::Partition if device.is_some() => return Err(progress.reject(Problem::PartitionAndDevice)),
                MountField::Device if partition.is_some() => return Err(progress.reject(Problem::PartitionAndDevice)),
                MountField::Partition => {
                    let number = NumberSeed { progress, max: MAX_PARTITION, too_large: Problem::Partition };
                    progress.fill("partition", &mut partition, number, &mut map)?;
                }
                MountField::Device => {
                    let parse = |text: &str| match parse_device(text)? {
                        device if subvolume.is_some() && is_subvolume(&device) => Err(Problem::SubvolumeTwice),
                        device => Ok(device),
                    };
                    progress.fill("device", &mut device, progress.text(parse), &mut map)?;
                }
                MountField::Subvolume if device.as_deref().is_some_and(is_subvolume) => {
                    return Err(progress.reject(Problem::SubvolumeTwice));
                }
                MountField::Subvolume => {
                    progress.fill("subvol", &mut subvolume, progress.text(parse_subvolume), &mut map)?;
                }
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
        Ok(Mount { source, subvolume, mountpoint: progress.required("mountpoint", mountpoint)? })
    }
}
