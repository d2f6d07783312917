//! The packets of TFTP and their contents.

pub mod block;
pub mod options;
pub mod packet;
pub mod path;
