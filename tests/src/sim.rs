//! A simulated network in virtual time, with the real sender at one end and the real receiver at the other.
//!
//! Nothing sleeps and nothing is random but the seed: the same [`Scenario`] gives the same run, datagram for datagram.

mod file;
mod network;
mod run;

pub use file::Rng;
pub use network::{Link, Traffic};
pub use run::{Report, Scenario, run};
