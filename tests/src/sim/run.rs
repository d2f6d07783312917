//! One transfer over a simulated network, with its guarantees checked at every step.

use std::{cmp::Ordering, collections::BinaryHeap};

use rtftp_core::{
    Instant, Outcome, Output, Packet, Receiver, ReceiverConfig, Sender,
    transfer::receiver::MAX_REQUEST,
    wire::options::{Limits, MAX_BLKSIZE, MAX_WINDOWSIZE, RequestedOptions, negotiate},
};

use super::{
    file::{CheckedSink, Rng, Source},
    network::{Datagram, Link, Traffic, Wire},
};

/// The server grants everything, so that the largest windows are tested too.
const LIMITS: Limits = Limits { blksize: MAX_BLKSIZE, windowsize: MAX_WINDOWSIZE, window_bytes: u32::MAX };

/// A transfer and its network.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// The seed of everything random.
    pub seed: u64,
    /// The size of the file, in bytes.
    pub size: u64,
    /// The options of the request.
    pub options: RequestedOptions,
    /// The direction from the server to the client.
    pub down: Link,
    /// The direction from the client to the server.
    pub up: Link,
    /// The probability that a read is not loaded.
    pub not_loaded: f64,
    /// The number of events after which a run counts as endless.
    pub steps: u64,
}

/// The result of a run.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The outcome for the server; `None` if no request reached it.
    pub sender: Option<Outcome>,
    /// The outcome for the client.
    pub receiver: Outcome,
    /// The number of bytes that the client received.
    pub delivered: u64,
    /// When the client had the whole file or gave up, in microseconds.
    pub elapsed: u64,
    /// The datagrams of the server.
    pub down: Traffic,
    /// The datagrams of the client.
    pub up: Traffic,
    /// The number of events.
    pub steps: u64,
}

/// The largest datagram, in bytes.
const LARGEST: usize = 65_468;

/// The number of polls allowed before a state machine waits: enough for a window through the smallest send buffer.
const MAX_POLLS: u32 = 100_000;

/// Runs a transfer to its end.
///
/// # Errors
///
/// The guarantee that was violated.
pub fn run(scenario: &Scenario) -> Result<Report, String> {
    let mut rng = Rng::new(scenario.seed);
    let start = Instant::from_micros(0);
    let config = ReceiverConfig { options: scenario.options, ..ReceiverConfig::default() };
    let receiver = Receiver::new(start, b"file", config).map_err(|error| error.to_string())?;
    let mut run = Run {
        now: 0,
        arrivals: BinaryHeap::new(),
        order: 0,
        down: Wire::new(scenario.down, rng.draw()),
        up: Wire::new(scenario.up, rng.draw()),
        source: Source {
            size: scenario.size,
            blksize: 512,
            not_loaded: scenario.not_loaded,
            rng: Rng::new(rng.draw()),
        },
        sink: CheckedSink { size: scenario.size, delivered: 0 },
        sender: None,
        receiver,
        sender_wakes: u64::MAX,
        receiver_wakes: u64::MAX,
        sender_outcome: None,
        receiver_outcome: None,
        complete: None,
        buf: vec![0; LARGEST + 4],
        scratch: vec![0; LARGEST],
    };
    run.poll_receiver()?;
    let mut steps = 0;
    while run.step()? {
        steps += 1;
        if steps > scenario.steps {
            return Err(format!("endless: {steps} events, {} of {} bytes", run.sink.delivered, scenario.size));
        }
    }
    run.report(steps)
}

struct Run {
    now: u64,
    arrivals: BinaryHeap<Arrival>,
    order: u64,
    down: Wire,
    up: Wire,
    source: Source,
    sink: CheckedSink,
    sender: Option<Sender>,
    receiver: Receiver,
    sender_wakes: u64,
    receiver_wakes: u64,
    sender_outcome: Option<Outcome>,
    receiver_outcome: Option<Outcome>,
    complete: Option<u64>,
    buf: Vec<u8>,
    scratch: Vec<u8>,
}

impl Run {
    /// Processes the next event. Returns `false` if there is none.
    fn step(&mut self) -> Result<bool, String> {
        let timer = self.sender_wakes.min(self.receiver_wakes);
        let arrival = self.arrivals.peek().map_or(u64::MAX, |arrival| arrival.at);
        let next = timer.min(arrival);
        if next == u64::MAX {
            return Ok(false);
        }
        self.now = next;
        if arrival <= timer {
            let Some(arrival) = self.arrivals.pop() else { return Ok(false) };
            match arrival.to {
                End::Server => self.at_server(&arrival.datagram)?,
                End::Client => self.at_client(&arrival.datagram)?,
            }
        } else if self.sender_wakes <= self.receiver_wakes {
            self.poll_sender()?;
        } else {
            self.poll_receiver()?;
        }
        Ok(true)
    }

    fn at_server(&mut self, datagram: &Datagram) -> Result<(), String> {
        let now = Instant::from_micros(self.now);
        let datagram = datagram.unpack(&mut self.scratch);
        if let Some(sender) = &mut self.sender {
            // A copy of the request goes to another port, which ignores it.
            if !datagram.starts_with(b"\x00\x01") {
                sender.handle(now, datagram);
                return self.poll_sender();
            }
        } else if let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) {
            let (settings, granted) = negotiate(request.options, &LIMITS, Some(self.source.size));
            self.source.blksize = usize::from(settings.blksize);
            self.sender = Some(Sender::new(now, settings, granted, Some(self.source.size)));
            return self.poll_sender();
        }
        Ok(())
    }

    fn at_client(&mut self, datagram: &Datagram) -> Result<(), String> {
        let datagram = datagram.unpack(&mut self.scratch);
        self.receiver.handle(Instant::from_micros(self.now), datagram, &mut self.sink);
        if self.receiver.is_delivered() && self.complete.is_none() {
            self.complete = Some(self.now);
        }
        self.poll_receiver()
    }

    fn poll_sender(&mut self) -> Result<(), String> {
        let Some(sender) = &mut self.sender else { return Err("the server has no request".into()) };
        for _ in 0..MAX_POLLS {
            match sender.poll(Instant::from_micros(self.now), &mut self.source, &mut self.buf) {
                Output::Transmit(transmit) => {
                    for datagram in self.buf[..transmit.len].chunks(transmit.segment) {
                        for at in self.down.carry(self.now) {
                            self.order += 1;
                            let datagram = Datagram::pack(datagram);
                            self.arrivals.push(Arrival { at, order: self.order, to: End::Client, datagram });
                        }
                    }
                }
                Output::NeedData => {
                    self.sender_wakes = self.now + 1 + self.source.rng.below(2_000);
                    return Ok(());
                }
                Output::Wait(until) => {
                    self.sender_wakes = future(self.now, until)?;
                    return Ok(());
                }
                Output::Finished(outcome) => {
                    self.sender_wakes = u64::MAX;
                    self.sender_outcome = Some(outcome);
                    return Ok(());
                }
            }
        }
        Err("the sender never waits".into())
    }

    fn poll_receiver(&mut self) -> Result<(), String> {
        for _ in 0..MAX_POLLS {
            match self.receiver.poll(Instant::from_micros(self.now), &mut self.buf[..MAX_REQUEST]) {
                Output::Transmit(transmit) => {
                    for at in self.up.carry(self.now) {
                        self.order += 1;
                        let datagram = Datagram::pack(&self.buf[..transmit.len]);
                        self.arrivals.push(Arrival { at, order: self.order, to: End::Server, datagram });
                    }
                }
                Output::NeedData => return Err("the receiver asks for data".into()),
                Output::Wait(until) => {
                    self.receiver_wakes = future(self.now, until)?;
                    return Ok(());
                }
                Output::Finished(outcome) => {
                    self.receiver_wakes = u64::MAX;
                    self.receiver_outcome = Some(outcome);
                    return Ok(());
                }
            }
        }
        Err("the receiver never waits".into())
    }

    fn report(&self, steps: u64) -> Result<Report, String> {
        let Some(receiver) = self.receiver_outcome else { return Err("the receiver does not end".into()) };
        if self.sender.is_some() && self.sender_outcome.is_none() {
            return Err("the sender does not end".into());
        }
        if receiver == Outcome::Complete && self.sink.delivered != self.source.size {
            return Err(format!("complete with {} of {} bytes", self.sink.delivered, self.source.size));
        }
        if self.sender_outcome == Some(Outcome::Complete) && receiver != Outcome::Complete {
            return Err(format!("complete for the server, but the client ended with {receiver:?}"));
        }
        Ok(Report {
            sender: self.sender_outcome,
            receiver,
            delivered: self.sink.delivered,
            elapsed: self.complete.unwrap_or(self.now),
            down: self.down.traffic,
            up: self.up.traffic,
            steps,
        })
    }
}

fn future(now: u64, until: Instant) -> Result<u64, String> {
    let until = until.as_micros();
    if until > now { Ok(until) } else { Err(format!("waits until {until} at {now}")) }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Server,
    Client,
}

/// A datagram in flight. The heap returns the earliest arrival first.
struct Arrival {
    at: u64,
    /// Sorts equal arrivals in the order of sending.
    order: u64,
    to: End,
    datagram: Datagram,
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Arrival {}
