//! Everything behind an `.nbd` file.

pub mod guestfs;
