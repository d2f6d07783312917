//! Boot menus made from what a disk says about its kernels, for boot loaders that cannot list a disk over the network.
//!
//! Sources, in this order: entries of the Boot Loader Specification, unified kernel images, `extlinux.conf`, and kernels found by
//! their names. Everything on the disk is untrusted: a text of it cannot become another directive of a menu.

mod bls;
mod boot_file;
mod collect;
mod debian;
mod entry;
mod extlinux;
mod grub;
mod ipxe;
mod menu;
mod pe;
mod settings;
mod signature;
mod sources;
mod syslinux;
mod tree;
mod uki;
mod variables;
mod version;

pub use self::{
    boot_file::BootFile,
    collect::collect,
    entry::Entry,
    menu::Menu,
    settings::Settings,
    signature::signers,
    tree::{DiskTree, Served},
};

#[cfg(test)]
mod tests;
