//! The end of a server's transfers.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smol::Timer;

use super::admission::Sessions;

/// The time that running transfers have to complete when the server stops.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// The time that aborted transfers have to send their ERROR.
const ABORT_TIME: Duration = Duration::from_millis(200);

/// Waits until the running transfers are complete, for at most `grace`, then aborts the remaining ones.
pub(super) async fn finish_transfers(sessions: &Mutex<Sessions>, grace: Duration) {
    let deadline = Instant::now() + grace;
    wait_until_empty(sessions, deadline, Duration::from_millis(20)).await;
    sessions.lock().stop_all("the server is shutting down");
    wait_until_empty(sessions, deadline + ABORT_TIME, Duration::from_millis(5)).await;
}

async fn wait_until_empty(sessions: &Mutex<Sessions>, deadline: Instant, interval: Duration) {
    while !sessions.lock().is_empty() && Instant::now() < deadline {
        Timer::after(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use rtftp_core::Packet;
    use smol::{block_on, future::zip};

    use super::*;
    use crate::server::admission::{Admission, Capacity};

    #[test]
    fn aborts_transfers_after_grace_period() {
        let sessions = Mutex::new(Sessions::new(Capacity { transfers: 9, per_client: 9 }, false));
        let datagram = b"\x00\x01f\0octet\0";
        let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) else { panic!("not a read request") };
        let admission = sessions.lock().admit(([10, 0, 0, 1], 7).into(), datagram, &request);
        let Admission::Start(admitted) = admission else { panic!("rejected") };
        let session = async {
            assert_eq!(admitted.stop.recv().await, Ok("the server is shutting down"));
            sessions.lock().finish(&admitted.handle);
        };
        block_on(zip(finish_transfers(&sessions, Duration::ZERO), session));
        assert!(sessions.lock().is_empty());
    }
}
