//! The packets of TFTP and what is in them.

pub mod block;
pub mod options;
pub mod packet;
pub mod path;
