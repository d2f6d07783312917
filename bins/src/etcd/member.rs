//! One member of the cluster: calls of etcd's API version 3, through its JSON gateway.

use std::{
    fmt, fs,
    time::{Duration, Instant},
};

use rtftp_core::BlockSink;
use rtftp_runtime::{
    client::{
        Url,
        http::{BodyBuffer, HttpClient, HttpError, Trust},
    },
    text::{printable, printable_within},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    cli::Credentials,
    message::{Login, Range, encode, error_text},
};

/// The time for an answer. A member that has lost the others needs 7 s to say so.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The age from which on a session may have expired. etcd keeps one for 5 minutes after its last use.
const MIN_SESSION: Duration = Duration::from_secs(10);
/// The maximum size of an answer, and of a message of a watch, in bytes. A value has at most 1.5 MiB, unless etcd is told otherwise.
pub(crate) const MAX_MESSAGE: usize = 32 << 20;

/// The start of the answer of the gateway to a certificate with a `CommonName`.
const COMMON_NAME: &[u8] = b"CommonName of client";
/// The number of characters of an unknown answer that are shown.
const MAX_SHOWN: usize = 160;

/// The reason why a member cannot be used.
#[derive(Debug)]
pub(crate) enum MemberError {
    Http(HttpError),
    /// The answer is an error.
    Refused(String),
    /// Where users log in, the gateway refuses certificates with a name of a user.
    CommonName,
    /// A watch has ended without a reason.
    Ended,
    /// There is no API at this URL.
    NoGateway,
    /// The answer is not one of etcd.
    Malformed(String),
    /// The answer is too large.
    TooLarge,
    /// The files of the credentials cannot be used.
    Credentials(String),
}

impl MemberError {
    /// Returns whether the revision is not available any more.
    pub(crate) fn is_compacted(&self) -> bool {
        matches!(self, Self::Refused(message) if message.contains("has been compacted"))
    }
}

impl fmt::Display for MemberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Refused(message) => {
                let remedy = match message.as_str() {
                    message if message.contains("user name is empty") => ": give --user and --password-file",
                    message if message.contains("permission denied") => ": give a --user who has read access to the prefix",
                    message if message.contains("authentication failed") => ": check --user and --password-file",
                    _ => "",
                };
                write!(f, "etcd answers: {message}{remedy}")
            }
            Self::CommonName => f.write_str(
                "where etcd has users, its JSON gateway refuses certificates with a CommonName: issue one without for --cert",
            ),
            Self::Ended => f.write_str("etcd has ended the watch: was it stopped?"),
            Self::NoGateway => {
                f.write_str("no JSON gateway: use etcd 3.4 or newer, without --enable-grpc-gateway=false")
            }
            Self::Malformed(problem) => write!(f, "the answer is not one of etcd ({problem}): check --endpoints"),
            Self::TooLarge => f.write_str("an answer has more than 32 MiB: remove large values from the prefix"),
            Self::Credentials(problem) => f.write_str(problem),
        }
    }
}

impl From<HttpError> for MemberError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// A member, with a connection.
#[derive(Debug)]
pub(crate) struct Member {
    endpoint: String,
    client: HttpClient,
    credentials: Credentials,
    /// The session of the user, and its start.
    token: Option<(String, Instant)>,
}

impl Member {
    /// Reads the certificates, if the member needs them.
    pub(crate) fn new(endpoint: &str, credentials: &Credentials) -> Result<Self, MemberError> {
        let trust = endpoint.starts_with("https:").then(|| match &credentials.identity {
            Some([certificate, key]) => Trust::load_with_identity(&credentials.ca, [certificate, key]),
            None => Trust::load(&credentials.ca),
        });
        let trust = trust.transpose().map_err(|error| MemberError::Credentials(error.to_string()))?;
        let client = HttpClient::new(ANSWER_LIMIT, trust);
        Ok(Self { endpoint: endpoint.to_owned(), client, credentials: credentials.clone(), token: None })
    }

    /// Returns at most `limit` keys from `start` to before `end`, at a revision, or at the current one if it is 0.
    pub(crate) async fn range(
        &mut self,
        start: &[u8],
        end: &[u8],
        limit: usize,
        revision: i64,
    ) -> Result<Range, MemberError> {
        let (key, range_end) = (encode(start), encode(end));
        let (limit, revision) = (limit.to_string(), revision.to_string());
        let request = json!({ "key": key, "range_end": range_end, "limit": limit, "revision": revision });
        self.call("kv/range", &request).await
    }

    /// Passes the changes of these keys since a revision to `sink`, a message on each line. Returns when the stream ends, or has been
    /// silent for this time.
    pub(crate) async fn watch(
        &mut self,
        start: &[u8],
        end: &[u8],
        revision: i64,
        sink: &mut impl BlockSink,
        silence: Duration,
    ) -> Result<(), MemberError> {
        let (key, range_end) = (encode(start), encode(end));
        let create = json!({
            "key": key, "range_end": range_end, "start_revision": revision.to_string(), "progress_notify": true, "fragment": true,
        });
        self.login().await?;
        match self.post("watch", &json!({ "create_request": create }), sink, silence).await? {
            404 => Err(MemberError::NoGateway),
            _ => Ok(()),
        }
    }

    /// Calls a method as the user, and returns its answer.
    async fn call<T: DeserializeOwned>(&mut self, method: &str, request: &Value) -> Result<T, MemberError> {
        self.login().await?;
        self.call_once(method, request).await
    }

    /// Ends the session of the user after this error, if it may have expired. Returns whether that may help.
    pub(crate) fn renew_session(&mut self, error: &MemberError) -> bool {
        let is_expired = matches!(error, MemberError::Refused(message) if message.contains("invalid auth token"));
        is_expired && self.token.take().is_some_and(|(_, since)| since.elapsed() > MIN_SESSION)
    }

    /// Logs in, if there is a user without a session.
    async fn login(&mut self) -> Result<(), MemberError> {
        let Some((name, file)) = self.credentials.user.as_ref().filter(|_| self.token.is_none()) else { return Ok(()) };
        let problem =
            |error| MemberError::Credentials(format!("cannot read the password: {}: {error}", file.display()));
        let password = fs::read_to_string(file).map_err(problem)?;
        let password = password.lines().next().unwrap_or_default();
        let request = json!({ "name": name, "password": password });
        let Login { token } = self.call_once("auth/authenticate", &request).await?;
        // It becomes a header line.
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(MemberError::Malformed("its token is not one word".into()));
        }
        self.token = Some((token, Instant::now()));
        Ok(())
    }

    async fn call_once<T: DeserializeOwned>(&mut self, method: &str, request: &Value) -> Result<T, MemberError> {
        let mut answer = BodyBuffer::new(MAX_MESSAGE);
        let status = self.post(method, request, &mut answer, ANSWER_LIMIT).await.map_err(|error| match error {
            HttpError::Sink(_) => MemberError::TooLarge,
            error => error.into(),
        })?;
        match status {
            200 => serde_json::from_slice(answer.bytes()).map_err(|error| MemberError::Malformed(error.to_string())),
            404 => Err(MemberError::NoGateway),
            _ => Err(refusal(answer.bytes()).unwrap_or_else(|| {
                if answer.bytes().starts_with(COMMON_NAME) {
                    return MemberError::CommonName;
                }
                let text = printable_within(&String::from_utf8_lossy(answer.bytes()), MAX_SHOWN);
                MemberError::Malformed(format!("status {status}: {text}"))
            })),
        }
    }

    async fn post(
        &mut self,
        method: &str,
        request: &Value,
        sink: &mut impl BlockSink,
        silence: Duration,
    ) -> Result<u16, HttpError> {
        let url = format!("{}/v3/{method}", self.endpoint);
        let url = Url::parse(url.as_bytes()).map_err(|_| HttpError::NoTrust)?;
        // The gateway passes what follows the prefix on: a member without a leader must refuse instead of being silent.
        let mut fields = vec![("Grpc-Metadata-hasleader", "true")];
        fields.extend(self.token.iter().map(|(token, _)| ("Authorization", token.as_str())));
        self.client.post_json(&url, &fields, request.to_string().as_bytes(), sink, silence).await
    }
}

/// Returns the error that an answer consists of.
pub(crate) fn refusal(answer: &[u8]) -> Option<MemberError> {
    let error: Value = serde_json::from_slice(answer).ok()?;
    error_text(&error).map(|text| MemberError::Refused(printable(text.as_bytes())))
}
