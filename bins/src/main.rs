//! The rtftp daemon: a TFTP boot server that hands every machine the boot files of its own disk.

mod args;
mod bar;
mod check;
mod logging;
mod service;
mod status;
mod values;

use std::{io, net::SocketAddr, process::ExitCode, sync::Arc};

use async_signal::{Signal, Signals};
use rtftp_runtime::server::{Config, Server};

use crate::{args::Action, service::Manager};

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

fn serve(config: Config) -> ExitCode {
    let root = config.root_dir.display().to_string();
    match start(config) {
        Ok((server, address, signals)) => {
            log::info!("rtftp {} listening on {address}, serving {root}", env!("CARGO_PKG_VERSION"));
            let serving = format!("serving {root} on {address}");
            server.clone().run(Manager::from_env().attend(server, signals, serving));
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens, and begins to catch signals.
fn start(config: Config) -> io::Result<(Arc<Server>, SocketAddr, Signals)> {
    let server = match service::socket().map_err(io::Error::other)? {
        Some((socket, name)) => {
            log::info!("the socket is the service manager's ({name}), whatever --listen-ip and --listen-port say");
            Server::on(socket, config)?
        }
        None => Server::bind(config)?,
    };
    let signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])?;
    let address = server.local_addr()?;
    Ok((Arc::new(server), address, signals))
}
