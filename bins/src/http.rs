//! The record of boots over HTTP: a page for people, JSON for programs, and numbers for Prometheus. Nothing can be changed by it.

mod metrics;
mod page;
mod request;
mod response;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    num::ParseIntError,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rtftp_runtime::history::History;
use smol::{
    Async, Executor, Timer,
    future::{or, pending, yield_now},
    io::{AsyncReadExt, AsyncWriteExt},
    lock::{Mutex, Semaphore},
    net::{Shutdown, TcpStream},
    unblock,
};

use self::{
    request::{Method, Request},
    response::{Response, Status},
};

/// How many are answered at a time. Others wait in the queue of the kernel.
const CONNECTIONS: usize = 32;
/// How long a question may take to come.
const QUESTION: Duration = Duration::from_secs(5);
/// How long an answer may take to be made and read: a full record is some megabytes.
const ANSWER: Duration = Duration::from_secs(20);
/// How long, and for how many bytes, to listen to one who goes on talking after the answer.
const REST: (Duration, u64) = (Duration::from_secs(1), 64 << 10);
/// How long to wait when no connection can be taken in.
const PAUSE: Duration = Duration::from_millis(200);
/// How old the record may be that is shown. However many look at it, it is not made more often.
const FRESH: Duration = Duration::from_millis(250);
/// So much is sent before others have their turn.
const PIECE: usize = 64 << 10;

/// Where to listen: `IP:PORT`, or `PORT` of this machine alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(SocketAddr);

impl FromStr for Place {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(address) => Ok(Self(address)),
            Err(_) => text.parse().map(|port| Self((Ipv4Addr::LOCALHOST, port).into())),
        }
    }
}

/// The HTTP server, listening.
#[derive(Debug)]
pub(crate) struct Http {
    listener: TcpListener,
    address: SocketAddr,
}

impl Http {
    /// Listens. It starts no thread.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub(crate) fn bind(Place(address): Place) -> io::Result<Self> {
        let told = |error| io::Error::other(format!("--status-listen: cannot listen on {address}: {error}"));
        let listener = TcpListener::bind(address).map_err(told)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address that is listened on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers everybody who connects, for ever. Connections end when this is dropped.
    pub(crate) async fn serve(self, history: History) {
        let listener = match Async::new(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                log::error!("no status page: {error}");
                return pending().await;
            }
        };
        let executor = Executor::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let site = Arc::new(Site { history, address: self.address.ip(), recent: Mutex::new(None) });
        let accept = async {
            loop {
                let place = places.acquire_arc().await;
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let site = site.clone();
                        let answer = async move {
                            // It fails when nobody is there any more.
                            let _ = site.answer(stream.into()).await;
                            drop(place);
                        };
                        executor.spawn(answer).detach();
                    }
                    Err(error) => {
                        log::debug!("status page: {error}");
                        Timer::after(PAUSE).await;
                    }
                }
            }
        };
        executor.run(accept).await;
    }
}

/// What there is to see.
#[derive(Debug)]
struct Site {
    history: History,
    /// Where it is shown.
    address: IpAddr,
    /// The record as it was shown last, and when that was.
    recent: Mutex<Option<(Instant, Arc<Vec<u8>>)>>,
}

impl Site {
    /// Answers the one question of a connection.
    async fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let question = in_time(QUESTION, request::read(&mut stream)).await;
        let (method, answer) = match question {
            Ok(Ok(request)) => (request.method, in_time(ANSWER, async { Ok(self.response(&request).await) }).await?),
            Ok(Err(status)) => (Method::Get, Response::refusal(status)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                (Method::Get, Response::refusal(Status::RequestTimeout))
            }
            Err(error) => return Err(error),
        };
        in_time(ANSWER, send(&mut stream, method, &answer)).await?;
        // A connection that is closed with something unread in it breaks, and the other end may never see the answer.
        stream.shutdown(Shutdown::Write)?;
        let (time, bytes) = REST;
        let mut rest = stream.take(bytes);
        in_time(time, smol::io::copy(&mut rest, &mut smol::io::sink())).await.map(drop)
    }

    async fn response(&self, request: &Request) -> Response {
        // Another site could have its name point here, and then a browser here would read this record for it.
        if self.address.is_loopback() && !request.host_is_safe() {
            return Response::refusal(Status::Misdirected);
        }
        match request.path.as_str() {
            "/" | "/boots.json" | "/metrics" if request.method == Method::Other => {
                Response::refusal(Status::MethodNotAllowed)
            }
            "/" => page::response(),
            "/boots.json" => Response::new("application/json", self.json().await),
            "/metrics" => metrics::response(&self.history.header(), self.history.client_count()),
            _ => Response::refusal(Status::NotFound),
        }
    }

    /// The record as it is, or was a moment ago.
    async fn json(&self) -> Arc<Vec<u8>> {
        let mut recent = self.recent.lock().await;
        if let Some((made, json)) = &*recent
            && made.elapsed() < FRESH
        {
            return json.clone();
        }
        let history = self.history.clone();
        let json = Arc::new(unblock(move || history.json()).await);
        *recent = Some((Instant::now(), json.clone()));
        json
    }
}

/// Sends an answer, piece by piece: who reads as fast as we write must not hold up transfers.
async fn send(stream: &mut TcpStream, method: Method, answer: &Response) -> io::Result<()> {
    stream.write_all(answer.head().as_bytes()).await?;
    let body = if method == Method::Head { &[][..] } else { &answer.body };
    for piece in body.chunks(PIECE) {
        stream.write_all(piece).await?;
        yield_now().await;
    }
    Ok(())
}

/// The result, if it comes in time.
async fn in_time<T>(time: Duration, result: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let too_late = async {
        Timer::after(time).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    or(result, too_late).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        for (text, expected) in
            [("8080", "127.0.0.1:8080"), ("0", "127.0.0.1:0"), ("0.0.0.0:80", "0.0.0.0:80"), ("[::1]:80", "[::1]:80")]
        {
            assert_eq!(text.parse(), Ok(Place(expected.parse().expect("an address"))), "{text}");
        }
        for text in ["", "here", "localhost:80", "::1", "127.0.0.1", ":80", "65536", "127.0.0.1:65536"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let first = Http::bind("0".parse().expect("a place")).expect("a port");
        let error = Http::bind(Place(first.address())).expect_err("it is taken").to_string();
        assert!(error.starts_with(&format!("--status-listen: cannot listen on {}: ", first.address())), "{error}");
    }
}
