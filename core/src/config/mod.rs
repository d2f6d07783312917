//! The description of a client's disk, an `.nbd` file.

pub mod disk;
pub mod uri;
