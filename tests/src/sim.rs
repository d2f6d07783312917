//! A simulated network in virtual time, with the real sender at one end and the real receiver at the other.
//!
//! [`simulate`] connects a server to a literal model of a boot [`Client`] instead of the receiver.
//!
//! Nothing sleeps, and only the seed is random: the same [`Scenario`] gives the same run, datagram for datagram.

mod client;
mod file;
mod network;
mod run;

pub use client::{ACK, Client, DATA, File, Network, OACK, Step, simulate};
pub use file::Rng;
pub use network::{Link, Traffic};
pub use run::{Report, Scenario, run};
