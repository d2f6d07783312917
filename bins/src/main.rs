//! The rtftp daemon: a TFTP boot server that reads the boot files of each machine from its own disk.

mod advice;
mod check;
mod cli;
mod command;
mod http;
mod logging;
mod options;
mod parser;
mod progress_bar;
#[cfg(test)]
mod reference;
mod service;
mod status;
mod status_page;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use async_signal::Signal;
use rtftp_runtime::{
    sandbox,
    server::{Config, Server},
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use smol::channel::Receiver;

use crate::{
    cli::{Action, Serve},
    http::HttpOptions,
    logging::Log,
    service::ServiceManager,
    status_page::StatusPage,
};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1).collect()) {
        Ok(Action::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Check(job)) => check::run(&job),
        Ok(Action::Status(job)) => status::run(&job),
        Ok(Action::Serve(arguments)) => {
            // Dropped at the end, which writes the last lines.
            let mut log = logging::start(arguments.log_level);
            match serve(*arguments, &mut log) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    log::error!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("rtftp: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the daemon until a signal ends it.
fn serve(
    Serve { config, http, status_listen, status_peers, stop_grace, sandbox, allow_read, .. }: Serve,
    log: &mut Log,
) -> io::Result<()> {
    let root = config.root_dir.display().to_string();
    enable_low_ports();
    let page = status_listen.map(StatusPage::bind).transpose()?;
    let (server, address, manager, signals) = start(config, http, sandbox, allow_read.as_deref(), stop_grace, log)?;
    log::info!("rtftp {} listening on {address}, serving {root}", env!("CARGO_PKG_VERSION"));
    if let Some(page) = page {
        log::info!("status page at http://{}/", page.address());
        page.start(server.clone(), status_peers)?;
    }
    let summary = format!("serving {root} on {address}");
    let service = service::run(server.clone(), manager, signals.clone(), summary, stop_grace);
    server.run(service, service::grace(stop_grace, signals));
    Ok(())
}

/// Makes the capability for ports below 1024 effective if it is permitted, as after `setcap cap_net_bind_service=p`. With `=ep` the
/// kernel would do so, but then the program does not start at all where the capability is forbidden, as in many containers.
fn enable_low_ports() {
    if let Ok(mut sets) = capabilities(None) {
        sets.effective |= sets.permitted & CapabilitySet::NET_BIND_SERVICE;
        // Without the capability, opening the port fails with an error that names it.
        let _ = set_capabilities(None, sets);
    }
}

/// Opens the listening sockets, enters the sandbox, and starts to write the log and to catch signals.
fn start(
    mut config: Config,
    http: HttpOptions,
    sandbox: bool,
    allow_read: Option<&Path>,
    stop_grace: Duration,
    log: &mut Log,
) -> io::Result<(Arc<Server>, SocketAddr, ServiceManager, Receiver<Signal>)> {
    let (root, history_dir) = (config.root_dir.clone(), config.history_dir.clone());
    let sockets = service::activated_sockets().map_err(io::Error::other)?;
    config.http = http::config(http, sockets.http)?;
    let server = match sockets.tftp {
        Some((socket, name)) => {
            log::info!("using socket {name} of the service manager: ignoring --listen-ip and --listen-port");
            Server::on(socket, config)?
        }
        None => Server::bind(config)?,
    };
    let manager = ServiceManager::from_env();
    // Before the first thread is started, since these apply to the threads that this one starts.
    if let Err(error) = sandbox::deny_new_privileges() {
        log::warn!("cannot set no_new_privs: {error}");
    }
    if sandbox {
        enter_sandbox(&root, allow_read, history_dir.as_deref())?;
    } else {
        log::info!("sandbox disabled by --no-sandbox");
    }
    log.start_writer();
    let signals = service::receive_signals(stop_grace)?;
    let address = server.local_addr()?;
    Ok((Arc::new(server), address, manager, signals))
}

/// Restricts the process to reading the served files, and those below `also`, and to writing those below `writable`. The daemon
/// continues without a sandbox if the kernel has none.
fn enter_sandbox(root: &Path, also: Option<&Path>, writable: Option<&Path>) -> io::Result<()> {
    if let Some(also) = also {
        also.read_dir().map_err(|error| io::Error::other(format!("--allow-read {}: {error}", also.display())))?;
    }
    match sandbox::confine(root, also, writable) {
        Ok(sandbox) => {
            let readable = [root].into_iter().chain(also).chain(sandbox.link_targets.iter().map(PathBuf::as_path));
            let readable: Vec<String> = readable.map(|path| path.display().to_string()).collect();
            let writable =
                writable.map_or("none can".into(), |path| format!("only those below {} can", path.display()));
            log::info!("sandbox enabled: only files below {} can be read, {writable} be written", readable.join(", "));
            if !sandbox.not_denied.is_empty() {
                log::warn!("sandbox: this kernel does not deny {}", sandbox.not_denied.join(", "));
            }
        }
        Err(error) => log::warn!("sandbox disabled: {error}"),
    }
    Ok(())
}
