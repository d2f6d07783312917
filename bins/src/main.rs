//! The rtftp daemon: a TFTP boot server that hands every machine the boot files of its own disk.

mod args;
mod bar;
mod check;
mod http;
mod logging;
mod service;
mod status;
mod values;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use async_signal::{Signal, Signals};
use rtftp_runtime::{
    sandbox,
    server::{Config, Server},
};
use smol::future::{or, pending};

use crate::{
    args::Action,
    http::{Http, Place},
    service::Manager,
};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1).collect()) {
        Ok(Action::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Check(job)) => check::run(&job),
        Ok(Action::Status(job)) => status::run(&job),
        Ok(Action::Serve { config, status_listen, log_level, sandbox }) => {
            logging::start(log_level);
            serve(config, status_listen, sandbox)
        }
        Err(error) => {
            eprintln!("rtftp: {error}\nTry `rtftp --help`.");
            ExitCode::from(2)
        }
    }
}

fn serve(config: Config, status_listen: Option<Place>, sandbox: bool) -> ExitCode {
    let root = config.root_dir.display().to_string();
    let http = status_listen.map(Http::bind).transpose();
    match http.and_then(|http| Ok((http, start(config, sandbox)?))) {
        Ok((http, (server, address, signals))) => {
            log::info!("rtftp {} listening on {address}, serving {root}", env!("CARGO_PKG_VERSION"));
            if let Some(http) = &http {
                log::info!("status page at http://{}/", http.address());
            }
            let serving = format!("serving {root} on {address}");
            let history = server.history();
            let page = async move {
                match http {
                    Some(http) => http.serve(history).await,
                    None => pending().await,
                }
            };
            server.clone().run(or(Manager::from_env().attend(server, signals, serving), page));
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens, lets go of what is not needed for that any more, and begins to catch signals.
fn start(config: Config, sandbox: bool) -> io::Result<(Arc<Server>, SocketAddr, Signals)> {
    let root = config.root_dir.clone();
    let server = match service::socket().map_err(io::Error::other)? {
        Some((socket, name)) => {
            log::info!("the socket is the service manager's ({name}), whatever --listen-ip and --listen-port say");
            Server::on(socket, config)?
        }
        None => Server::bind(config)?,
    };
    // Before anything starts a thread.
    if sandbox {
        confine(&root);
    } else {
        log::info!("not confined: --no-sandbox");
    }
    let signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])?;
    let address = server.local_addr()?;
    Ok((Arc::new(server), address, signals))
}

/// Has the kernel refuse all files but those that are served.
fn confine(root: &Path) {
    match sandbox::confine(root) {
        Ok(linked) => {
            let readable = [root].into_iter().chain(linked.iter().map(PathBuf::as_path));
            let readable: Vec<String> = readable.map(|path| path.display().to_string()).collect();
            log::info!("confined: no files but those below {} can be opened, and none be written", readable.join(", "));
        }
        Err(why) => log::warn!("not confined: {why}"),
    }
}
