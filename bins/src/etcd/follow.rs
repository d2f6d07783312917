//! Reads all keys, and follows their changes, with the members that are available.

use std::{
    convert::Infallible,
    fmt, mem,
    time::{Duration, Instant},
};

use rtftp_core::{BlockSink, WriteFailed};
use rtftp_runtime::client::http::HttpError;
use smol::Timer;

use crate::{
    cli::Job,
    member::{MAX_MESSAGE, Member, MemberError, refusal},
    message::{WatchLine, error_text},
    root::RootError,
    state::{Stale, State},
};

/// The number of keys that are requested at once.
const PAGE: usize = 500;
/// The time without a message after which a new watch begins, so that a member that hangs is noticed.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// The shortest and the longest time between two attempts.
const MIN_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// The time after which a session counts as a success.
const STABLE: Duration = Duration::from_secs(10);

/// The reason why the root directory is not equal to the prefix.
#[derive(Debug)]
pub(crate) enum Problem {
    /// An endpoint, and its error.
    Member(String, MemberError),
    Root(RootError),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(endpoint, error) => write!(f, "etcd is not available: {endpoint}: {error}"),
            Self::Root(error) => error.fmt(f),
        }
    }
}

/// An error of the current member or of the root.
enum Failure {
    Member(MemberError),
    Root(RootError),
}

impl Failure {
    fn at(self, endpoint: &str) -> Problem {
        match self {
            Self::Member(error) => Problem::Member(endpoint.to_owned(), error),
            Self::Root(error) => Problem::Root(error),
        }
    }
}

impl From<MemberError> for Failure {
    fn from(error: MemberError) -> Self {
        Self::Member(error)
    }
}

impl From<RootError> for Failure {
    fn from(error: RootError) -> Self {
        Self::Root(error)
    }
}

/// Makes the root directory equal to the prefix once, with the first member that is available.
pub(crate) async fn once(job: &Job, state: &mut State) -> Result<(), Problem> {
    let mut last = None;
    for endpoint in &job.endpoints {
        let result = match Member::new(endpoint, &job.credentials) {
            Ok(mut member) => read_all(&mut member, state).await,
            Err(error) => Err(error.into()),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(Failure::Root(error)) => return Err(Problem::Root(error)),
            Err(failure) => last = Some(failure.at(endpoint)),
        }
    }
    last.map_or(Ok(()), Err)
}

/// Keeps the root directory equal to the prefix. Never returns.
pub(crate) async fn follow(job: &Job, state: &mut State) {
    let mut outage = Outage::new(job.endpoints.len());
    for endpoint in job.endpoints.iter().cycle() {
        let Err(error) = session(endpoint, job, state, &mut outage).await;
        Timer::after(outage.failed(&error.at(endpoint))).await;
    }
}

/// Keeps the root directory equal with one member, until it fails.
async fn session(endpoint: &str, job: &Job, state: &mut State, outage: &mut Outage) -> Result<Infallible, Failure> {
    let mut member = Member::new(endpoint, &job.credentials)?;
    loop {
        match pass(endpoint, &mut member, state, outage).await {
            Err(Failure::Member(error)) if member.renew_session(&error) => {}
            result => result?,
        }
    }
}

/// Reads all keys if necessary, and follows their changes.
async fn pass(endpoint: &str, member: &mut Member, state: &mut State, outage: &mut Outage) -> Result<(), Failure> {
    if state.next().is_none() {
        read_all(member, state).await?;
        outage.succeeded(endpoint);
    }
    let next = state.next().unwrap_or(0);
    let [first, end] = state.range();
    let mut watcher =
        Watcher { state, line: vec![], is_created: false, end: None, created: || outage.succeeded(endpoint) };
    let result = member.watch(&first, &end, next, &mut watcher, MAX_SILENCE).await;
    let Watcher { line, is_created, end, .. } = watcher;
    match (end, result) {
        (Some(End::Stale(Stale::Root(error))), _) => {
            state.forget();
            Err(error.into())
        }
        (Some(End::Stale(Stale::Cancelled(reason))), _) => Err(MemberError::Refused(reason).into()),
        (Some(End::Stale(_)), _) => {
            state.forget();
            Ok(())
        }
        (Some(End::Malformed(problem)), _) => Err(MemberError::Malformed(problem).into()),
        (Some(End::TooLarge), _) => Err(MemberError::TooLarge.into()),
        (None, Err(MemberError::Http(HttpError::TimedOut { .. }))) if is_created => {
            if state.has_blocked_keys() {
                state.forget();
            }
            Ok(())
        }
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => Err(refusal(&line).unwrap_or(MemberError::Ended).into()),
    }
}

/// Reads all keys at one revision, page by page.
async fn read_all(member: &mut Member, state: &mut State) -> Result<(), Failure> {
    let [first, end] = state.range();
    let mut limit = PAGE;
    'again: loop {
        state.begin();
        let (mut start, mut revision) = (first.clone(), 0);
        loop {
            let page = match member.range(&start, &end, limit, revision).await {
                Err(MemberError::TooLarge) if limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                // By the time of this page; the current revision is always available.
                Err(error) if error.is_compacted() && revision > 0 => continue 'again,
                result => result?,
            };
            if revision == 0 {
                revision = page.header.revision;
            }
            let next = page.kvs.last().filter(|_| page.more).map(|kv| [&*kv.key, &[0]].concat());
            state.add(page.kvs)?;
            match next {
                Some(next) if next > start => start = next,
                Some(_) => return Err(MemberError::Malformed("its keys are not in order".into()).into()),
                None => break,
            }
        }
        if state.end(revision)? {
            return Ok(());
        }
    }
}

/// The reason why a watch is ended here.
#[derive(Debug)]
enum End {
    Stale(Stale),
    Malformed(String),
    TooLarge,
}

/// Takes the messages of a watch.
struct Watcher<'a, F> {
    state: &'a mut State,
    /// The start of a line.
    line: Vec<u8>,
    /// Whether the watch has begun.
    is_created: bool,
    end: Option<End>,
    /// Is called when the watch has begun.
    created: F,
}

impl<F: FnMut()> Watcher<'_, F> {
    fn take(&mut self, line: &[u8]) -> Result<(), End> {
        let line: WatchLine = serde_json::from_slice(line).map_err(|error| End::Malformed(error.to_string()))?;
        if let Some(error) = line.error {
            return Err(End::Stale(Stale::Cancelled(error_text(&error).unwrap_or("an error").to_owned())));
        }
        let Some(message) = line.result else { return Ok(()) };
        let is_created = message.created;
        self.state.watched(message).map_err(End::Stale)?;
        if is_created {
            self.is_created = true;
            (self.created)();
        }
        Ok(())
    }
}

impl<F: FnMut()> BlockSink for Watcher<'_, F> {
    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            let result = if piece.ends_with(b"\n") {
                let line = mem::take(&mut self.line);
                self.take(&line)
            } else if self.line.len() > MAX_MESSAGE {
                Err(End::TooLarge)
            } else {
                Ok(())
            };
            if let Err(end) = result {
                self.end = Some(end);
                return Err(WriteFailed("the watch is ended"));
            }
        }
        Ok(())
    }
}

/// Whether etcd is available: logs each change once.
#[derive(Debug)]
struct Outage {
    endpoints: usize,
    /// The number of failures since the last success that lasted.
    failures: u32,
    since: Option<Instant>,
    /// Whether there is a session, or its end was logged.
    is_following: bool,
    is_reported: bool,
}

impl Outage {
    fn new(endpoints: usize) -> Self {
        Self { endpoints, failures: 0, since: None, is_following: false, is_reported: false }
    }

    /// Notes that the member is available and the root is equal.
    fn succeeded(&mut self, endpoint: &str) {
        if !mem::replace(&mut self.is_following, true) {
            let again = if mem::take(&mut self.is_reported) { " again" } else { "" };
            log::info!("following the changes{again}, from {endpoint}");
        }
        self.since.get_or_insert_with(Instant::now);
    }

    /// Notes a failure. Returns the time to wait.
    fn failed(&mut self, problem: &Problem) -> Duration {
        self.is_following = false;
        if self.since.take().is_some_and(|since| since.elapsed() > STABLE) {
            self.failures = 0;
        }
        self.failures += 1;
        let rounds = self.failures / u32::try_from(self.endpoints).unwrap_or(1);
        let is_outage = matches!(problem, Problem::Root(_)) || rounds > 0;
        if is_outage && !mem::replace(&mut self.is_reported, true) {
            log::warn!("{problem}; all files stay as they are until it works again");
        } else if !is_outage {
            log::info!("{problem}: trying the next endpoint");
        }
        MIN_PAUSE.saturating_mul(1 << rounds.min(6)).min(MAX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_after_each_round_of_failures() {
        let problem = Problem::Member("http://a".into(), MemberError::NoGateway);
        let mut outage = Outage::new(2);
        let pauses: Vec<u128> = (0..14).map(|_| outage.failed(&problem).as_millis()).collect();
        assert_eq!(&pauses[..5], [250, 500, 500, 1000, 1000]);
        assert_eq!(pauses[13], 15_000);
        assert!(outage.is_reported);
        outage.succeeded("http://a");
        assert!(!outage.is_reported);
        assert!(outage.failed(&problem) > Duration::from_secs(10), "a success that did not last");
    }
}
