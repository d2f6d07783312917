//! A transfer over HTTP.

use rtftp_runtime::{
    client::{
        Url,
        http::{HttpClient, HttpError, HttpFetched},
    },
    text::printable,
};

use crate::{
    interrupt::Interrupt,
    report::{Report, Summary},
    sink::Sink,
};

/// Fetches a file.
pub(crate) async fn transfer(
    client: &mut HttpClient,
    url: &Url,
    sink: &mut Sink,
    interrupt: &mut Interrupt,
    report: &mut Report,
) -> Result<Summary, HttpError> {
    let fetched = client.fetch(url, sink, interrupt.wait(), |event| report.http_event(event)).await?;
    Ok(summary(url, fetched))
}

fn summary(url: &Url, fetched: HttpFetched) -> Summary {
    let mut warnings = vec![];
    if fetched.ended_by_close {
        warnings.push(
            "the server sent no Content-Length: the file may be incomplete, and UEFI and GRUB cannot load it"
                .to_owned(),
        );
    }
    Summary {
        file: printable(url.to_string().as_bytes()),
        bytes: fetched.bytes,
        details: fetched.content_type.unwrap_or_else(|| "no Content-Type".into()),
        warnings,
    }
}
