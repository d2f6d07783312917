//! Socket activation of a daemon, as systemd does it.

use std::{os::fd::OwnedFd, process::Command};

use crate::binary;

/// Returns the command of a daemon with `count` activated sockets from file descriptor 3, as systemd starts it.
pub fn activated(descriptor: impl Into<OwnedFd>, count: u32) -> Command {
    const SCRIPT: &str = r#"exec 3<&0 4<&0 </dev/null
        export LISTEN_PID=$$ LISTEN_FDS="$1" LISTEN_FDNAMES="${NAME:-rtftp.socket}"; shift; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh", &count.to_string()]).arg(binary("rtftp")).stdin(descriptor.into());
    command
}
