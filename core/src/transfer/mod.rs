//! The state machines of both ends of a transfer.

mod challenge;
pub mod io;
pub mod output;
mod pacing;
pub mod peer;
pub mod receiver;
mod rto;
pub mod sender;
mod termination;
