//! A simulated network in virtual time, with the real sender at one end and the real receiver at the other.
//!
//! Instead of the receiver, a literal model of a boot [`Client`] can [`meet`] a server.
//!
//! Nothing sleeps and nothing is random but the seed: the same [`Scenario`] gives the same run, datagram for datagram.

mod client;
mod file;
mod network;
mod run;

pub use client::{ACK, Client, DATA, File, Network, OACK, Step, meet};
pub use file::Rng;
pub use network::{Link, Traffic};
pub use run::{Report, Scenario, run};
