//! The rtftp daemon: a TFTP boot server that hands every machine the boot files of its own disk.

mod args;
mod bar;
mod check;
mod logging;
mod status;
mod values;

use std::process::ExitCode;

use async_signal::{Signal, Signals};
use rtftp_runtime::server::Server;
use smol::stream::StreamExt;

use crate::args::Action;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1).collect()) {
        Ok(Action::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Check(job)) => check::run(&job),
        Ok(Action::Status(job)) => status::run(&job),
        Ok(Action::Serve { config, log_level }) => {
            logging::start(log_level);
            serve(config)
        }
        Err(error) => {
            eprintln!("rtftp: {error}\nTry `rtftp --help`.");
            ExitCode::from(2)
        }
    }
}

fn serve(config: rtftp_runtime::server::Config) -> ExitCode {
    let root = config.root_dir.display().to_string();
    let started = Server::bind(config).and_then(|server| {
        let signals = Signals::new([Signal::Int, Signal::Term])?;
        Ok((server.local_addr()?, server, signals))
    });
    match started {
        Ok((address, server, mut signals)) => {
            log::info!("rtftp {} listening on {address}, serving {root}", env!("CARGO_PKG_VERSION"));
            server.run(async move {
                let _ = signals.next().await;
                log::info!("stopping");
            });
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
