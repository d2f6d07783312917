//! The interface to the service manager: socket activation (`sd_listen_fds(3)`) and notifications (`sd_notify(3)`).

use std::{env, net::UdpSocket, os::fd::OwnedFd, sync::Arc, time::Duration};

use async_signal::{Signal, Signals};
use rtftp_runtime::server::Server;
use rustix::net::{SocketType, sockopt::socket_type};
use sd_notify::NotifyState;
use smol::{
    Timer,
    future::{or, pending},
    stream::StreamExt,
    unblock,
};

/// The minimum interval between two notifications of the number of transfers.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// The time to wait until a busy service manager accepts a notification of a change of state.
const NOTIFY_TIMEOUT: Duration = Duration::from_millis(500);

/// Returns the socket that the service manager has opened for this process, and its name. Must be called before any thread is
/// started.
///
/// # Errors
///
/// Returns a message unless there is exactly one UDP socket, or none.
pub(crate) fn activated_socket() -> Result<Option<(UdpSocket, String)>, String> {
    let descriptors = sd_listen_fds::get().map_err(|error| format!("LISTEN_PID and LISTEN_FDS: {error}"))?;
    let count = descriptors.len();
    let mut descriptors = descriptors.into_iter();
    match (descriptors.next(), descriptors.next()) {
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

/// Returns the file descriptor as a UDP socket, or a description of its type.
fn udp_socket(fd: OwnedFd) -> Result<UdpSocket, String> {
    // Unlike the original, the copy is closed in child processes.
    let socket = UdpSocket::from(fd.try_clone().map_err(|error| error.to_string())?);
    match (socket_type(&socket), socket.local_addr()) {
        (Ok(SocketType::DGRAM), Ok(_)) => Ok(socket),
        (Ok(SocketType::DGRAM), Err(_)) => Err("a datagram socket that is neither IPv4 nor IPv6".into()),
        (Ok(SocketType::STREAM), _) => Err("a stream socket, as from ListenStream=".into()),
        (Ok(_), _) => Err("a socket of another type".into()),
        (Err(_), _) => Err("a file that is not a socket".into()),
    }
}

/// Notifies the service manager of the state of `server`, and reloads at each SIGHUP. Returns at any other signal.
///
/// `summary` is the start of the status text. Must run in the event loop of the transfers, so that the watchdog detects when it
/// hangs.
pub(crate) async fn run(server: Arc<Server>, signals: Signals, summary: String) {
    notify_change(&[NotifyState::Ready, NotifyState::Status(&status(&summary, 0))]).await;
    or(handle_signals(&server, signals), or(notify_watchdog(), notify_transfers(&server, &summary))).await;
    log::info!("stopping");
    notify_change(&[NotifyState::Stopping]).await;
}

/// Reloads at each SIGHUP; returns at any other signal.
async fn handle_signals(server: &Server, mut signals: Signals) {
    while let Some(Ok(Signal::Hup)) = signals.next().await {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify_change(&[NotifyState::Reloading, now]).await;
        }
        server.reload().await;
        notify_change(&[NotifyState::Ready]).await;
    }
}

/// Notifies the watchdog twice per interval. Never returns.
async fn notify_watchdog() {
    let Some(interval) = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero()) else {
        return pending().await;
    };
    loop {
        notify(&[NotifyState::Watchdog]).await;
        Timer::after(interval / 2).await;
    }
}

/// Notifies the service manager of each change of the number of transfers. Never returns.
async fn notify_transfers(server: &Server, summary: &str) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return pending().await;
    }
    let mut reported = 0;
    loop {
        Timer::after(STATUS_INTERVAL).await;
        let transfers = server.transfers();
        if transfers != reported {
            notify(&[NotifyState::Status(&status(summary, transfers))]).await;
            reported = transfers;
        }
    }
}

/// Returns the status text.
fn status(summary: &str, transfers: usize) -> String {
    let plural = if transfers == 1 { "" } else { "s" };
    format!("{summary}, {transfers} transfer{plural}")
}

/// Sends a notification of a change of state, with a time limit.
async fn notify_change(states: &[NotifyState<'_>]) {
    let timeout = async {
        Timer::after(NOTIFY_TIMEOUT).await;
        log::debug!("the service manager did not accept a notification within {NOTIFY_TIMEOUT:?}");
    };
    or(notify(states), timeout).await;
}

/// Sends a notification. On another thread, since it blocks while the queue of the service manager is full.
async fn notify(states: &[NotifyState<'_>]) {
    // Owned, since the thread may outlive this future.
    let message = states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    if let Err(error) = unblock(move || sd_notify::notify(&[NotifyState::Custom(&message)])).await {
        log::debug!("cannot notify the service manager: {error}");
    }
}
