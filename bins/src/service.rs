//! The interface to the service manager: socket activation (`sd_listen_fds(3)`) and notifications (`sd_notify(3)`).

use std::{
    env,
    io::{self, ErrorKind},
    net::UdpSocket,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_signal::{Signal, Signals};
use rtftp_runtime::{clock::within, server::Server};
use rustix::{
    net::{
        AddressFamily, SocketType,
        sockopt::{socket_acceptconn, socket_domain, socket_type},
    },
    time::{ClockId, clock_gettime},
};
use smol::{
    Timer, block_on,
    channel::{Receiver, Sender, unbounded},
    future::{or, pending},
    stream::StreamExt,
};

use crate::{http::HttpSockets, logging};

/// The time in which the process must end after the grace period of running transfers.
const ABORT_LIMIT: Duration = Duration::from_millis(800);
/// The time beyond the grace period for which the service manager is asked.
const MARGIN: Duration = Duration::from_secs(2);
/// The minimum interval between two notifications of the number of transfers.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The time in which a busy service manager must accept a notification, and the interval of the attempts.
const SEND_TIMEOUT: Duration = Duration::from_millis(500);
const SEND_INTERVAL: Duration = Duration::from_millis(20);

/// The sockets that the service manager has opened for this process, with their names.
#[derive(Debug, Default)]
pub(crate) struct ActivatedSockets {
    /// The socket for TFTP.
    pub(crate) tftp: Option<(UdpSocket, String)>,
    /// The sockets for HTTP.
    pub(crate) http: HttpSockets,
}

/// The name of the socket for HTTPS (`FileDescriptorName=https`).
const HTTPS_NAME: &str = "https";

/// Returns the sockets that the service manager has opened. Must be called before any thread is started.
///
/// # Errors
///
/// Returns a message if there are others than one UDP socket, one TCP socket, and one named `https`.
pub(crate) fn activated_sockets() -> Result<ActivatedSockets, String> {
    let mut sockets = ActivatedSockets::default();
    for (name, fd) in sd_listen_fds::get().map_err(|error| format!("LISTEN_PID and LISTEN_FDS: {error}"))? {
        let name = name.unwrap_or_else(|| "unnamed".into());
        // Unlike the original, the copy is closed in child processes.
        let fd = fd.into_std().try_clone().map_err(|error| format!("socket activation ({name}): {error}"))?;
        let is_first = match socket_kind(&fd) {
            SocketKind::Udp => sockets.tftp.replace((fd.into(), name.clone())).is_none(),
            SocketKind::Tcp if name == HTTPS_NAME => sockets.http.tls.replace((fd.into(), name.clone())).is_none(),
            SocketKind::Tcp => sockets.http.plain.replace((fd.into(), name.clone())).is_none(),
            SocketKind::Other(found) => {
                return Err(format!(
                    "socket activation ({name}): expected a UDP socket (ListenDatagram=69) or a TCP socket for HTTP \
                     (ListenStream=80), found {found}"
                ));
            }
        };
        if !is_first {
            return Err(format!(
                "socket activation ({name}): expected one socket for each protocol; one for IPv4 and IPv6 is ListenDatagram=69"
            ));
        }
    }
    Ok(sockets)
}

/// The kind of an inherited file descriptor.
enum SocketKind {
    Udp,
    /// A listening TCP socket.
    Tcp,
    /// Anything else, with a description.
    Other(&'static str),
}

fn socket_kind(fd: &OwnedFd) -> SocketKind {
    let is_ip = matches!(socket_domain(fd), Ok(AddressFamily::INET | AddressFamily::INET6));
    match socket_type(fd) {
        Ok(SocketType::DGRAM) if is_ip => SocketKind::Udp,
        Ok(SocketType::DGRAM) => SocketKind::Other("a datagram socket that is neither IPv4 nor IPv6"),
        Ok(SocketType::STREAM) if is_ip && socket_acceptconn(fd) == Ok(true) => SocketKind::Tcp,
        Ok(SocketType::STREAM) => SocketKind::Other("a stream socket that does not listen for TCP connections"),
        Ok(_) => SocketKind::Other("a socket of another type"),
        Err(_) => SocketKind::Other("a file that is not a socket"),
    }
}

/// Starts a thread that receives signals. After one that asks for the end it ends the process, whatever other threads do:
/// [`ABORT_LIMIT`] after `grace`, or after a second such signal.
///
/// # Errors
///
/// Fails if the signals cannot be caught, or the thread cannot be started.
pub(crate) fn receive_signals(grace: Duration) -> io::Result<Receiver<Signal>> {
    let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])?;
    let (sender, received) = unbounded();
    let receive = move || {
        block_on(forward(&mut signals, &sender));
        let stopped = Instant::now();
        if block_on(within(grace + ABORT_LIMIT, forward(&mut signals, &sender))).is_some() {
            thread::sleep(ABORT_LIMIT);
        }
        log::warn!("ended before everything was stopped, after {:.1} s", stopped.elapsed().as_secs_f32());
        logging::flush();
        process::exit(0);
    };
    thread::Builder::new().name("signals".into()).spawn(receive)?;
    Ok(received)
}

/// Forwards signals, the last of them the first one that asks for the end.
async fn forward(signals: &mut Signals, sender: &Sender<Signal>) {
    while let Some(Ok(signal)) = signals.next().await {
        // Fails if the server has ended.
        let _ = sender.try_send(signal);
        if signal != Signal::Hup {
            return;
        }
    }
    // No more signals can be received.
    pending::<()>().await;
}

/// Completes after the grace period of running transfers, or at the next signal that asks for the end.
pub(crate) async fn grace(limit: Duration, signals: Receiver<Signal>) {
    within(limit, async { while signals.recv().await == Ok(Signal::Hup) {} }).await;
}

/// Notifies the service manager of the state of `server`, and reloads at each SIGHUP. Returns at any other signal.
///
/// `summary` is the start of the status text; `grace` is the time that running transfers will have. Must run in the event loop of the
/// transfers, so that the watchdog detects when it hangs.
pub(crate) async fn run(
    server: Arc<Server>,
    manager: ServiceManager,
    signals: Receiver<Signal>,
    summary: String,
    grace: Duration,
) {
    manager.notify(&format!("READY=1\n{}", status(&summary, 0))).await;
    let notifications = or(manager.notify_watchdog(&server), manager.notify_transfers(&server, &summary));
    or(manager.handle_signals(&server, signals), notifications).await;
    log::info!("stopping");
    // Otherwise it would kill the process after `TimeoutStopSec=`.
    manager.notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (grace + MARGIN).as_micros())).await;
}

/// Returns the assignment of the status text.
fn status(summary: &str, transfers: usize) -> String {
    let plural = if transfers == 1 { "" } else { "s" };
    format!("STATUS={summary}, {transfers} transfer{plural}")
}

/// The notification socket of the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// The interval of the watchdog.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Connects to the socket in the environment. The sandbox would deny an abstract one later.
    pub(crate) fn from_env() -> Self {
        Self { socket: notify_socket(), watchdog: watchdog_interval() }
    }

    /// Reloads at each SIGHUP; returns at any other signal.
    async fn handle_signals(&self, server: &Server, signals: Receiver<Signal>) {
        while signals.recv().await == Ok(Signal::Hup) {
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
            self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}")).await;
            server.reload().await;
            self.notify("READY=1").await;
        }
    }

    /// Notifies the watchdog twice per interval while the server is alive. Never returns.
    async fn notify_watchdog(&self, server: &Server) {
        let Some(interval) = self.watchdog else { return pending().await };
        loop {
            match server.check_alive(interval / 2).await {
                Ok(()) => self.notify("WATCHDOG=1").await,
                Err(error) => log::error!("the watchdog is not notified: {error}"),
            }
            Timer::after(interval / 2).await;
        }
    }

    /// Notifies the service manager of each change of the number of transfers. Never returns.
    async fn notify_transfers(&self, server: &Server, summary: &str) {
        if self.socket.is_none() {
            return pending().await;
        }
        let mut reported = 0;
        loop {
            Timer::after(STATUS_INTERVAL).await;
            let transfers = server.transfers();
            if transfers != reported {
                self.notify(&status(summary, transfers)).await;
                reported = transfers;
            }
        }
    }

    /// Sends assignments, one on each line.
    async fn notify(&self, assignments: &str) {
        let Some(socket) = &self.socket else { return };
        let deadline = Instant::now() + SEND_TIMEOUT;
        loop {
            match socket.send(assignments.as_bytes()) {
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    Timer::after(SEND_INTERVAL).await;
                }
                Err(error) => return log::debug!("cannot notify the service manager: {error}"),
            }
        }
    }
}

/// Returns a socket connected to the address in `NOTIFY_SOCKET`: a path, or a name in the abstract namespace after `@`, which container
/// managers use.
fn notify_socket() -> Option<UnixDatagram> {
    let name = env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let open = |address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(socket)
    };
    address
        .and_then(open)
        .inspect_err(|error| log::warn!("NOTIFY_SOCKET {}: {error}: notifications disabled", name.display()))
        .ok()
}

/// Returns the interval of the watchdog, if it applies to this process (`sd_watchdog_enabled(3)`).
fn watchdog_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let applies = env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(process::id().into());
    number("WATCHDOG_USEC").filter(|time| applies && *time > 0).map(Duration::from_micros)
}
