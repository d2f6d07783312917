//! The description of a client's disk.

pub mod disk;
pub mod uri;
