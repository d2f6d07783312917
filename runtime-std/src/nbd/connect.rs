//! Connecting to a server: the socket, the greetings and, if the URI asks for it, TLS.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use smol::io::BufReader;

use super::{
    NbdError,
    handshake::{self, Export},
    target::Target,
    tls::{self, Identification},
    transport::{BoxedStream, connect},
};
use crate::{clock, event_loop::EventLoop};

/// The size of the buffer for what is not data, in bytes: it holds any header, and data is received straight into its buffer.
const HEADER_BUFFER: usize = 32;

/// A connection whose server expects options.
pub(super) struct Negotiation {
    stream: BufReader<BoxedStream>,
    /// Whether the server omits the zeroes after the reply to `NBD_OPT_EXPORT_NAME`.
    no_zeroes: bool,
    /// The identification of the client, if the connection is encrypted.
    identification: Option<Arc<Identification>>,
}

impl Negotiation {
    /// Connects to a server.
    pub(super) async fn start(
        target: Target<'_>,
        event_loop: Option<&Arc<EventLoop>>,
        limit: Limit,
    ) -> Result<Self, NbdError> {
        // Files that cannot be read need no server to be reported.
        let credentials = match tls::Settings::new(target)? {
            Some(settings) => Some(limit.apply(tls::load(settings)).await?),
            None => None,
        };
        let stream = limit.apply(connect(&target.url.server, event_loop)).await?;
        let mut negotiation = Self::greet(stream, limit).await?;
        if let Some(credentials) = credentials {
            limit.apply(handshake::start_tls(&mut negotiation.stream)).await?;
            // Data from before the handshake could be anybody's.
            if !negotiation.stream.buffer().is_empty() {
                return Err(NbdError::InvalidReply);
            }
            let stream = negotiation.stream.into_inner();
            // It is large, and the task of a disk reserves memory for it otherwise.
            let (stream, identification) = limit.apply(Box::pin(tls::encrypt(stream, credentials))).await?;
            negotiation.stream = BufReader::with_capacity(HEADER_BUFFER, stream);
            negotiation.identification = Some(identification);
        }
        Ok(negotiation)
    }

    /// Exchanges greetings.
    pub(super) async fn greet(stream: BoxedStream, limit: Limit) -> Result<Self, NbdError> {
        let mut stream = BufReader::with_capacity(HEADER_BUFFER, stream);
        let no_zeroes = limit.greet(&mut stream).await?;
        Ok(Self { stream, no_zeroes, identification: None })
    }

    /// Opens an export. The transmission phase follows.
    pub(super) async fn open(mut self, name: &str, limit: Limit) -> Result<(BufReader<BoxedStream>, Export), NbdError> {
        let opened = limit.apply(handshake::open_export(&mut self.stream, name, self.no_zeroes)).await;
        let export = opened.map_err(|error| self.explain(error))?;
        Ok((self.stream, export))
    }

    /// Checks that the server has an export, and disconnects.
    pub(super) async fn probe(mut self, name: &str, limit: Limit) -> Result<(), NbdError> {
        let probed = limit.apply(handshake::probe_export(&mut self.stream, name)).await;
        probed.map_err(|error| self.explain(error))
    }

    /// With TLS 1.3, a server rejects the certificate of the client after the handshake.
    fn explain(&self, error: NbdError) -> NbdError {
        match &self.identification {
            Some(identification) => identification.explain(error),
            None => error,
        }
    }
}

/// The time limit of all steps of connecting together.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    limit: Duration,
    deadline: Instant,
}

impl Limit {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, deadline: clock::instant() + limit }
    }

    /// Returns the result of a step, or [`NbdError::Timeout`].
    pub(super) async fn apply<T, E>(self, step: impl Future<Output = Result<T, E>>) -> Result<T, NbdError>
    where
        NbdError: From<E>,
    {
        let result = clock::until(self.deadline, step).await.ok_or(NbdError::Timeout(self.limit))?;
        Ok(result?)
    }

    /// Exchanges greetings; [`NbdError::NoGreeting`] or [`NbdError::ClosedBeforeGreeting`] if the server does not.
    async fn greet(self, stream: &mut BufReader<BoxedStream>) -> Result<bool, NbdError> {
        let greeted = clock::until(self.deadline, handshake::greet(stream)).await;
        match greeted {
            Some(Err(NbdError::Closed)) => Err(NbdError::ClosedBeforeGreeting),
            Some(greeted) => greeted,
            None => Err(NbdError::NoGreeting(self.limit)),
        }
    }
}
