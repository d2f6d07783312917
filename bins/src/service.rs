//! The service manager: what it hands over (`sd_listen_fds(3)`) and what it is told (`sd_notify(3)`). Without one, nothing of it.

use std::{
    env,
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
    time::Duration,
};

use async_signal::{Signal, Signals};
use rtftp_runtime::server::Server;
use rustix::{
    net::{SocketType, sockopt::socket_type},
    time::{ClockId, clock_gettime},
};
use smol::{
    Timer,
    future::{or, pending},
    stream::StreamExt,
};

/// How often the number of transfers may be told.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// How long a manager that does not listen may hold up the transfers; one that is busy must not miss that we are ready.
const PATIENCE: Duration = Duration::from_millis(500);

/// The socket that the service manager has opened for this process, and its name, if it has. To be called before any thread is
/// started.
///
/// # Errors
///
/// It is not exactly one UDP socket; in one line.
pub(crate) fn socket() -> Result<Option<(UdpSocket, String)>, String> {
    let handed_over = sd_listen_fds::get().map_err(|error| format!("LISTEN_PID and LISTEN_FDS: {error}"))?;
    let count = handed_over.len();
    let mut handed_over = handed_over.into_iter();
    match (handed_over.next(), handed_over.next()) {
        (None, _) => Ok(None),
        (Some((name, fd)), None) => {
            let name = name.unwrap_or_else(|| "without a name".into());
            let socket = udp_socket(fd.into_std()).map_err(|found| {
                format!("socket activation ({name}): expected a UDP socket (ListenDatagram=69), found {found}")
            })?;
            Ok(Some((socket, name)))
        }
        _ => Err(format!(
            "socket activation: expected one UDP socket, found {count}; one for IPv4 and IPv6 is ListenDatagram=69"
        )),
    }
}

/// Makes sure of the kind of a socket, or says what it is.
fn udp_socket(fd: OwnedFd) -> Result<UdpSocket, String> {
    // The copy, unlike what was handed over, is closed in the programs that we start.
    let socket = UdpSocket::from(fd.try_clone().map_err(|error| error.to_string())?);
    match (socket_type(&socket), socket.local_addr()) {
        (Ok(SocketType::DGRAM), Ok(_)) => Ok(socket),
        (Ok(SocketType::DGRAM), Err(_)) => Err("a datagram socket that is not of IPv4 or IPv6".into()),
        (Ok(SocketType::STREAM), _) => Err("a stream socket, as ListenStream= makes it".into()),
        (Ok(_), _) => Err("a socket of another kind".into()),
        (Err(_), _) => Err("a file that is no socket".into()),
    }
}

/// The service manager, which is told how things are if it wants to know.
#[derive(Debug)]
pub(crate) struct Manager {
    notify: Option<(UnixDatagram, SocketAddr)>,
    /// How long we may stay silent.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that has started this process.
    pub(crate) fn from_env() -> Self {
        Self { notify: notify_socket(), watchdog: watchdog() }
    }

    /// Tells it that `server` serves, and how; returns when a signal asks for the end. `serving` says what is served, and where.
    ///
    /// To be run where the clients are served: a server that hangs must not say that it lives.
    pub(crate) async fn attend(self, server: Arc<Server>, signals: Signals, serving: String) {
        self.tell(&format!("READY=1\n{}", status(&serving, 0)));
        or(self.obey(&server, signals), or(self.live(), self.report(&server, &serving))).await;
        log::info!("stopping");
        self.tell("STOPPING=1");
    }

    /// Reloads at each SIGHUP; returns at any other signal.
    async fn obey(&self, server: &Server, mut signals: Signals) {
        while let Some(Ok(Signal::Hup)) = signals.next().await {
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
            self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
            server.reload().await;
            self.tell("READY=1");
        }
    }

    /// Gives a sign of life twice as often as the watchdog wants one, for ever.
    async fn live(&self) {
        let Some(watchdog) = self.watchdog else { return pending().await };
        loop {
            self.tell("WATCHDOG=1");
            Timer::after(watchdog / 2).await;
        }
    }

    /// Tells the number of transfers when it has changed, for ever.
    async fn report(&self, server: &Server, serving: &str) {
        if self.notify.is_none() {
            return pending().await;
        }
        let mut told = 0;
        loop {
            Timer::after(STATUS_PAUSE).await;
            let transfers = server.transfers();
            if transfers != told {
                self.tell(&status(serving, transfers));
                told = transfers;
            }
        }
    }

    /// Sends assignments, one a line.
    fn tell(&self, states: &str) {
        if let Some((socket, manager)) = &self.notify
            && let Err(error) = socket.send_to_addr(states.as_bytes(), manager)
        {
            log::debug!("the service manager does not listen: {error}");
        }
    }
}

/// What people see of the service.
fn status(serving: &str, transfers: usize) -> String {
    let plural = if transfers == 1 { "" } else { "s" };
    format!("STATUS={serving}, {transfers} transfer{plural}")
}

/// A socket, and where the manager listens: a path, or a name in the abstract namespace after `@`.
fn notify_socket() -> Option<(UnixDatagram, SocketAddr)> {
    let name = env::var_os("NOTIFY_SOCKET")?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let open = |address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok((socket, address))
    };
    address
        .and_then(open)
        .inspect_err(|error| {
            log::warn!("NOTIFY_SOCKET {}: {error}; the service manager is told nothing", name.display());
        })
        .ok()
}

/// How long the manager lets this process stay silent (`sd_watchdog_enabled(3)`).
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_meant = env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(process::id().into());
    number("WATCHDOG_USEC").filter(|time| is_meant && *time > 0).map(Duration::from_micros)
}
