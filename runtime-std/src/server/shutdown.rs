//! The end of a server's transfers.

use std::time::Duration;

use parking_lot::Mutex;
use smol::Timer;

use super::admission::Sessions;
use crate::clock::within;

/// The interval of looking whether transfers have ended.
const INTERVAL: Duration = Duration::from_millis(20);
/// The time that aborted transfers have to send their ERROR.
const ABORT_TIME: Duration = Duration::from_millis(200);

/// Waits until the running transfers are complete.
pub(super) async fn complete_transfers(sessions: &Mutex<Sessions>) {
    while !sessions.lock().is_empty() {
        Timer::after(INTERVAL).await;
    }
}

/// Aborts the running transfers, and waits until they have sent their ERROR.
pub(super) async fn abort_transfers(sessions: &Mutex<Sessions>) {
    sessions.lock().stop_all("the server is shutting down");
    within(ABORT_TIME, complete_transfers(sessions)).await;
}

#[cfg(test)]
mod tests {
    use rtftp_core::Packet;
    use smol::{
        block_on,
        future::{poll_once, zip},
    };

    use super::*;
    use crate::server::admission::{Admission, Capacity};

    #[test]
    fn completes_or_aborts_transfers() {
        let sessions = Mutex::new(Sessions::new(Capacity { transfers: 9, per_client: 9 }, false));
        let datagram = b"\x00\x01f\0octet\0";
        let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) else { panic!("not a read request") };
        let admission = sessions.lock().admit(([10, 0, 0, 1], 7).into(), datagram, &request);
        let Admission::Start(admitted) = admission else { panic!("rejected") };
        assert_eq!(block_on(poll_once(complete_transfers(&sessions))), None, "one is running");
        let session = async {
            assert_eq!(admitted.stop.recv().await, Ok("the server is shutting down"));
            sessions.lock().finish(&admitted.handle);
        };
        block_on(zip(abort_transfers(&sessions), session));
        assert!(sessions.lock().is_empty());
        block_on(complete_transfers(&sessions));
    }
}
