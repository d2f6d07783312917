//! Damage, and what is said about it.

use std::sync::Arc;

use smol::block_on;

use super::{
    super::super::{Error, FileSystem, Volume, ext4::Ext},
    image::Made,
    tree,
};

fn made(options: &str) -> Made {
    let root = tempfile::tempdir().expect("a directory for a tree");
    tree::make_small(root.path());
    for number in 0..100 {
        std::fs::write(root.path().join(format!("boot/grub/module-{number}")), "").expect("a new file");
    }
    let made = Made::new(options, 8 << 20, root.path());
    // A tree of extents that is not all in its inode.
    made.debugfs(&(1..30).fold(String::new(), |all, at| format!("{all}punch /boot/vmlinuz-6.1 {0} {0}\n", at * 2)));
    made.index();
    made
}

/// Everything that is done to serve the kernel, and to look for a name that is not there.
fn serve(image: Vec<u8>) -> Result<(), Error> {
    block_on(async {
        let ext = Ext::open(Volume::new(Arc::new(image))).await?.ok_or(Error::Io("none".into()))?;
        let boot = ext.lookup(ext.root(), b"boot").await?.ok_or(Error::Io("none".into()))?;
        let kernel = ext.lookup(boot, b"vmlinuz-6.1").await?.ok_or(Error::Io("none".into()))?;
        ext.map(kernel).await?;
        let grub = ext.lookup(boot, b"grub").await?.ok_or(Error::Io("none".into()))?;
        assert_eq!(ext.lookup(grub, b"none").await?, None);
        Ok(())
    })
}

/// The numbers in what `debugfs` answers.
fn numbers(made: &Made, question: &str) -> Vec<usize> {
    let answer = made.ask(question);
    answer.split(|letter: char| !letter.is_ascii_hexdigit() && letter != 'x').filter_map(parse).collect()
}

fn parse(word: &str) -> Option<usize> {
    match word.strip_prefix("0x") {
        Some(word) => usize::from_str_radix(word, 16).ok(),
        None => word.parse().ok(),
    }
}

#[test]
fn whatever_does_not_match_its_checksum_is_named() {
    let made = made("-t ext4 -b 1024");
    let inode = |path: &str| {
        // "Inode 13 is part of block group 0", "located at block 50, offset 0x0400"
        let answer = numbers(&made, &format!("imap {path}"));
        let [number, .., block, offset] = answer[..] else { panic!("{answer:?}") };
        (number, block * 1024 + offset)
    };
    let (kernel, kernel_at) = inode("/boot/vmlinuz-6.1");
    let (grub, _) = inode("/boot/grub");
    let extents = made.ask("ex /boot/vmlinuz-6.1");
    let node = extents.lines().nth(1).expect("an inner node").split_whitespace().rev().nth(1).expect("its block");
    let node = node.parse::<usize>().unwrap_or_else(|_| panic!("{extents}")) * 1024;
    let blocks = numbers(&made, "blocks /boot/grub");
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
    let image = made.bytes();
    assert_eq!(serve(image.clone()), Ok(()));
    for (what, at) in cases {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        let served = serve(damaged);
        let is_named = matches!(&served, Err(Error::Corrupt(text)) if text.to_string().starts_with(what) && text.to_string().contains("checksum"));
        assert!(is_named, "{what}: {served:?}");
    }
}

#[test]
fn old_group_descriptors_are_verified() {
    for options in ["-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"]
    {
        let mut image = made(options).bytes();
        assert_eq!(serve(image.clone()), Ok(()));
        image[2048 + 0x0c] ^= 1;
        let served = serve(image);
        assert!(
            matches!(&served, Err(Error::Corrupt(text)) if text.to_string().contains("descriptor of group 0")),
            "{served:?}"
        );
    }
}

#[test]
fn forged_numbers_are_refused() {
    let made = made("-t ext4 -b 1024 -O ^metadata_csum");
    made.debugfs("set_inode_field /boot/long size 0x7fffffff\nset_inode_field /boot/grub size 0x40000000\n");
    made.debugfs("set_inode_field /boot/sparse links_count 0\nset_inode_field /boot/vmlinuz size 0\n");
    let ext = made.ext();
    for link in ["boot/long", "boot/vmlinuz"] {
        let target = block_on(ext.read_link(tree::walk(&ext, link)));
        assert!(
            matches!(&target, Err(Error::Corrupt(text)) if text.to_string().contains("symbolic link with")),
            "{target:?}"
        );
    }
    let names = block_on(ext.read_directory(tree::walk(&ext, "boot/grub")));
    assert!(matches!(&names, Err(Error::Unsupported(text)) if text.to_string().contains("too large")), "{names:?}");
    let deleted = block_on(ext.lookup(tree::walk(&ext, "boot"), b"sparse"));
    assert!(matches!(&deleted, Err(Error::Corrupt(text)) if text.to_string().contains("deleted")), "{deleted:?}");
    let file = block_on(ext.map(tree::walk(&ext, "boot/grub")));
    assert!(matches!(file, Err(Error::Corrupt(_))), "a directory is no file");
}
