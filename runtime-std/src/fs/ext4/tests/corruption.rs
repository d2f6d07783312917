//! Corrupt structures, and the errors that report them.

use std::sync::Arc;

use smol::block_on;

use super::{
    super::super::{Error, FileSystem, Volume, ext4::Ext4},
    image::Image,
    tree,
};

fn made(options: &str) -> Image {
    let root = tempfile::tempdir().expect("a temporary directory");
    tree::create_boot_disk(root.path());
    for number in 0..100 {
        std::fs::write(root.path().join(format!("boot/grub/module-{number}")), "").expect("a new file");
    }
    let image = Image::new(options, 8 << 20, root.path());
    // Punched holes make the extent tree exceed the inode.
    image.debugfs(&(1..30).fold(String::new(), |all, at| format!("{all}punch /boot/vmlinuz-6.1 {0} {0}\n", at * 2)));
    image.index_directories();
    image
}

/// Does everything that serving the kernel requires, and looks up a missing name.
fn serve_kernel(image: Vec<u8>) -> Result<(), Error> {
    block_on(async {
        let filesystem = Ext4::open(Volume::new(Arc::new(image))).await?.ok_or(Error::Io("not found".into()))?;
        let boot = filesystem.lookup(filesystem.root(), b"boot").await?.ok_or(Error::Io("not found".into()))?;
        let kernel = filesystem.lookup(boot, b"vmlinuz-6.1").await?.ok_or(Error::Io("not found".into()))?;
        filesystem.map(kernel).await?;
        let grub = filesystem.lookup(boot, b"grub").await?.ok_or(Error::Io("not found".into()))?;
        assert_eq!(filesystem.lookup(grub, b"none").await?, None);
        Ok(())
    })
}

/// Returns the numbers in the output of a command of `debugfs`.
fn numbers(image: &Image, command: &str) -> Vec<usize> {
    let output = image.query(command);
    output.split(|letter: char| !letter.is_ascii_hexdigit() && letter != 'x').filter_map(parse).collect()
}

fn parse(word: &str) -> Option<usize> {
    match word.strip_prefix("0x") {
        Some(word) => usize::from_str_radix(word, 16).ok(),
        None => word.parse().ok(),
    }
}

#[test]
fn reports_structure_with_checksum_mismatch() {
    let image = made("-t ext4 -b 1024");
    let inode = |path: &str| {
        // "Inode 13 is part of block group 0", "located at block 50, offset 0x0400"
        let answer = numbers(&image, &format!("imap {path}"));
        let [number, .., block, offset] = answer[..] else { panic!("{answer:?}") };
        (number, block * 1024 + offset)
    };
    let (kernel, kernel_at) = inode("/boot/vmlinuz-6.1");
    let (grub, _) = inode("/boot/grub");
    let extents = image.query("ex /boot/vmlinuz-6.1");
    let node = extents.lines().nth(1).expect("an inner node").split_whitespace().rev().nth(1).expect("its block");
    let node = node.parse::<usize>().unwrap_or_else(|_| panic!("{extents}")) * 1024;
    let blocks = numbers(&image, "blocks /boot/grub");
    assert!(blocks.len() > 3, "{blocks:?}");
    let cases = [
        ("superblock", 1024 + 0x88),
        ("descriptor of group 0", 2048 + 0x0c),
        (&format!("inode {kernel}:"), kernel_at + 0x08),
        (&format!("inode {kernel}:"), kernel_at + 0x9a),
        (&format!("extent tree of inode {kernel}"), node + 25),
        (&format!("directory block of inode {grub}"), blocks[0] * 1024 + 42),
        (&format!("directory block of inode {grub}"), blocks[1] * 1024 + 9),
    ];
    let image = image.bytes();
    assert_eq!(serve_kernel(image.clone()), Ok(()));
    for (what, at) in cases {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        let served = serve_kernel(damaged);
        let is_named = matches!(&served, Err(Error::Corrupt(text)) if text.to_string().starts_with(what) && text.to_string().contains("checksum"));
        assert!(is_named, "{what}: {served:?}");
    }
}

#[test]
fn verifies_crc16_of_group_descriptors() {
    for options in ["-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"]
    {
        let mut image = made(options).bytes();
        assert_eq!(serve_kernel(image.clone()), Ok(()));
        image[2048 + 0x0c] ^= 1;
        let served = serve_kernel(image);
        assert!(
            matches!(&served, Err(Error::Corrupt(text)) if text.to_string().contains("descriptor of group 0")),
            "{served:?}"
        );
    }
}

#[test]
fn rejects_invalid_sizes_and_types() {
    let image = made("-t ext4 -b 1024 -O ^metadata_csum");
    image.debugfs("set_inode_field /boot/long size 0x7fffffff\nset_inode_field /boot/grub size 0x40000000\n");
    image.debugfs("set_inode_field /boot/sparse links_count 0\nset_inode_field /boot/vmlinuz size 0\n");
    let filesystem = image.open();
    for link in ["boot/long", "boot/vmlinuz"] {
        let target = block_on(filesystem.read_link(tree::resolve(&filesystem, link)));
        assert!(
            matches!(&target, Err(Error::Corrupt(text)) if text.to_string().contains("symbolic link with")),
            "{target:?}"
        );
    }
    let names = block_on(filesystem.read_directory(tree::resolve(&filesystem, "boot/grub")));
    assert!(matches!(&names, Err(Error::Unsupported(text)) if text.to_string().contains("too large")), "{names:?}");
    let deleted = block_on(filesystem.lookup(tree::resolve(&filesystem, "boot"), b"sparse"));
    assert!(matches!(&deleted, Err(Error::Corrupt(text)) if text.to_string().contains("deleted")), "{deleted:?}");
    let file = block_on(filesystem.map(tree::resolve(&filesystem, "boot/grub")));
    assert!(matches!(file, Err(Error::Corrupt(_))), "a directory is no file");
}
