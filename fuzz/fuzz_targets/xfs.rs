//! Reads XFS with changed metadata: clean file systems of versions 5 and 4, and two with a log to replay. [`changed_disk`] describes
//! the input.
#![no_main]

mod changed_disk;
#[path = "../../tests/src/sparse_image.rs"]
mod sparse_image;
mod structure;
mod walk;
mod xfs_structures;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use self::{
    changed_disk::{Image, read_changed},
    sparse_image::{expand, expand_sectors},
};

static IMAGES: [LazyLock<Image>; 4] = [
    LazyLock::new(|| image(expand(include_bytes!("../images/xfs-log")))),
    LazyLock::new(|| image(expand(include_bytes!("../images/xfs-log-wrapped")))),
    LazyLock::new(|| image(expand_sectors(include_bytes!("../corpus/volume/xfs5"), 64 << 20))),
    LazyLock::new(|| image(expand_sectors(include_bytes!("../corpus/volume/xfs4"), 64 << 20))),
];

fn image(bytes: Vec<u8>) -> Image {
    let structures = xfs_structures::find(&bytes);
    Image::new(bytes, structures)
}

fuzz_target!(init: changed_disk::lift_limit_on_panic(), |data: &[u8]| read_changed(&IMAGES, data));
