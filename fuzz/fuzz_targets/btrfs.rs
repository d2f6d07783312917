//! Reads btrfs with changed metadata: a clean file system, one with a log tree to replay, and one device of a mirror. [`changed_disk`]
//! describes the input.
#![no_main]

mod btrfs_structures;
mod changed_disk;
#[path = "../../tests/src/sparse_image.rs"]
#[allow(dead_code, reason = "shared with other crates")]
mod sparse_image;
mod structure;
mod walk;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use self::{
    changed_disk::{Image, read_changed},
    sparse_image::expand_to,
};

static IMAGES: [LazyLock<Image>; 3] = [
    LazyLock::new(|| image(include_bytes!("../images/btrfs"), 32 << 20)),
    LazyLock::new(|| image(include_bytes!("../images/btrfs-log"), 32 << 20)),
    LazyLock::new(|| image(include_bytes!("../images/btrfs-raid1"), 128 << 20)),
];

fn image(sparse: &[u8], size: usize) -> Image {
    let bytes = expand_to(sparse, size);
    let structures = btrfs_structures::find(&bytes);
    Image::new(bytes, structures)
}

fuzz_target!(init: changed_disk::lift_limit_on_panic(), |data: &[u8]| read_changed(&IMAGES, data));
