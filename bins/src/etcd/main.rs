//! `rtftp-etcd`: keeps the root directory of rtftp equal to a prefix of etcd.

mod cli;
#[path = "../command.rs"]
mod command;
mod follow;
mod key;
#[path = "../logging/mod.rs"]
mod logging;
mod member;
mod message;
#[path = "../options.rs"]
mod options;
#[allow(dead_code, reason = "the other programs have options with numbers")]
#[path = "../parser.rs"]
mod parser;
mod record;
mod root;
mod state;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use async_signal::{Signal, Signals};
use log::LevelFilter;
use smol::{block_on, future::or, stream::StreamExt};

use crate::{cli::Job, parser::Parsed, root::Root, state::State};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1).collect()) {
        Ok(Parsed::Print(text)) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(job)) => {
            // Dropped at the end, which writes the last lines.
            let mut log = logging::start(LevelFilter::Info);
            log.start_writer();
            match run(&job) {
                Ok(code) => code,
                Err(error) => {
                    log::error!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("rtftp-etcd: {error}\nTry `rtftp-etcd --help`.");
            ExitCode::from(2)
        }
    }
}

/// Runs until a signal, or once.
fn run(job: &Job) -> Result<ExitCode, String> {
    let mut signals =
        Signals::new([Signal::Int, Signal::Term]).map_err(|error| format!("cannot catch signals: {error}"))?;
    let root = Root::open(&job.root).map_err(|error| error.to_string())?;
    let mut state = State::new(root, &job.prefix);
    let run = async {
        if !job.once {
            follow::follow(job, &mut state).await;
            return Ok(ExitCode::SUCCESS);
        }
        follow::once(job, &mut state).await.map_err(|problem| problem.to_string())?;
        Ok(if state.has_refused_keys() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    };
    let stop = async {
        signals.next().await;
        Ok(ExitCode::SUCCESS)
    };
    block_on(or(stop, run))
}
