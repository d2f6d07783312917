//! A transfer over TFTP.

use std::time::Duration;

use rtftp_runtime::{
    client::{FetchError, Fetched, Request, TFTP_PORT, fetch, resolve},
    text::printable,
};
use smol::future::or;

use crate::{
    cli::TftpFile,
    interrupt::Interrupt,
    report::{Report, Summary},
    sink::Sink,
};

/// Fetches from the first reachable address of the server.
pub(crate) async fn transfer(
    file: &TftpFile,
    patience: Duration,
    sink: &mut Sink,
    interrupt: &mut Interrupt,
    report: &mut Report,
) -> Result<Summary, FetchError> {
    let resolved = async { resolve(&file.server, TFTP_PORT).await.map_err(FetchError::Resolve) };
    let servers = or(resolved, async {
        interrupt.wait().await;
        Err(FetchError::Interrupted)
    })
    .await?;
    let mut last_error = FetchError::Interrupted;
    for server in servers {
        let request = Request { server, file: &file.path, options: file.options, patience };
        match fetch(&request, sink, interrupt.wait(), |receiver, event| report.event(receiver, event)).await {
            Err(error @ FetchError::Unreachable { .. }) => last_error = error,
            result => return result.map(|fetched| summary(&file.path, &fetched)),
        }
    }
    Err(last_error)
}

fn summary(path: &[u8], fetched: &Fetched) -> Summary {
    let settings = fetched.settings;
    let (retransmitted, blksize, windowsize) = (fetched.retransmitted, settings.blksize, settings.windowsize);
    let mut details = format!("{retransmitted} retransmissions, blksize {blksize}, windowsize {windowsize}");
    if let Some(timeout) = settings.timeout {
        details += &format!(", timeout {} s", timeout.as_secs());
    }
    let announced = fetched.size.filter(|&size| size > 0 && size != fetched.bytes);
    let warning = announced.map(|size| format!("the server announced {size} bytes and sent {}", fetched.bytes));
    Summary { file: printable(path), bytes: fetched.bytes, details, warnings: warning.into_iter().collect() }
}
