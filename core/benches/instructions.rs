//! Counts the instructions of the core's hot paths and compares them with recorded figures.
//!
//! ```text
//! cargo bench -p rtftp-core --bench instructions
//! ```
//!
//! `valgrind --tool=callgrind` counts the same number on a busy machine as on an idle one. The program runs itself under it, with
//! [`LOW_STEPS`] and with [`HIGH_STEPS`] steps: the difference of the two counts leaves out the start and the end of the program.
//! It fails if a step takes more than [`TOLERANCE`] percent over its figure in [`STEPS`]. Then find the change that causes it; if
//! the change is worth it, record the new figure.

use std::{
    env,
    hint::black_box,
    process::{Command, ExitCode},
    time::Duration,
};

use rtftp_core::{
    BlockReader, BlockSink, Instant, Output, Packet, ReadFailed, Receiver, ReceiverConfig, RequestPath, Sender,
    WriteFailed,
    wire::{
        options::{Limits, RequestedOptions, Settings, negotiate},
        packet::Options,
    },
};

/// The accepted growth in percent: another compiler generates other code.
const TOLERANCE: u64 = 10;

/// The name of a step, its instructions on x86-64, and a function that runs it a number of times.
type Step = (&'static str, u64, fn(u64));

/// All steps.
const STEPS: [Step; 8] = [
    ("parse an ACK", 48, parse_ack),
    ("parse a request with four options", 644, parse_request),
    ("negotiate four options", 3418, negotiate_options),
    ("parse a path of four names", 772, parse_path),
    ("send a block in lockstep", 607, |steps| send(steps, b"")),
    ("send a window of 16 blocks", 2500, |steps| send(steps, b"windowsize\x0016\0")),
    ("receive a block in lockstep", 551, |steps| receive(steps, 1)),
    ("receive a window of 16 blocks", 4901, |steps| receive(steps, 16)),
];

const LOW_STEPS: u64 = 100;
const HIGH_STEPS: u64 = 1100;

const REQUEST: &[u8] =
    b"\0\x01EFI/debian/grubx64.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x0016\0timeout\x005\0";
const OPTIONS: &[u8] = b"tsize\x000\0blksize\x001468\0windowsize\x0016\0timeout\x005\0";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [run, name, steps] if run == "--run" => {
            let (_, _, step) = STEPS.iter().find(|(known, ..)| known == name).expect("the name of a step");
            step(steps.parse().expect("a number of steps"));
            ExitCode::SUCCESS
        }
        args if args.iter().any(|arg| arg == "--bench") => compare(),
        // `cargo test --all-targets` only builds and starts it.
        _ => ExitCode::SUCCESS,
    }
}

/// Counts every step and prints the count beside its figure.
fn compare() -> ExitCode {
    let mut grown = vec![];
    println!("instructions per step, recorded figure");
    for (name, figure, _) in STEPS {
        let count = (instructions(name, HIGH_STEPS) - instructions(name, LOW_STEPS)).div_ceil(HIGH_STEPS - LOW_STEPS);
        println!("{count:8} {figure:8}  {name}");
        if count * 100 > figure * (100 + TOLERANCE) {
            grown.push(format!("{name}: {count} instructions, recorded {figure}"));
        }
    }
    if !cfg!(target_arch = "x86_64") {
        println!("not compared: the figures are for x86-64");
    } else if !grown.is_empty() {
        println!(
            "\nmore than {TOLERANCE} % over the recorded figure:\n  {}\n\
             If the change is worth it, record the new figure in STEPS in core/benches/instructions.rs.",
            grown.join("\n  ")
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Returns how many instructions this program executes for a number of steps.
fn instructions(name: &str, steps: u64) -> u64 {
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--run", name, &steps.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("cannot start valgrind ({error}): install the package valgrind"));
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).unwrap_or_else(|| panic!("valgrind printed no count: {log}"))
}

fn parse_ack(steps: u64) {
    for _ in 0..steps {
        let _ = black_box(Packet::parse(black_box(b"\0\x04\x12\x34")));
    }
}

/// Includes an iteration over the options, which parses them.
fn parse_request(steps: u64) {
    for _ in 0..steps {
        let Ok(Packet::ReadRequest(request)) = Packet::parse(black_box(REQUEST)) else { panic!("a request") };
        assert_eq!(black_box(request.options).count(), 4);
    }
}

fn negotiate_options(steps: u64) {
    for _ in 0..steps {
        black_box(negotiate(Options::new(black_box(OPTIONS)), &Limits::default(), Some(1 << 20)));
    }
}

fn parse_path(steps: u64) {
    for _ in 0..steps {
        let _ = black_box(RequestPath::parse(black_box(b"/boot/grub/x86_64-efi/normal.mod")));
    }
}

/// A file and a sink that cost nothing, so that only the core is counted, without the copies by the C library.
#[derive(Debug)]
struct NoData;

impl BlockReader for NoData {
    fn read_at(&mut self, _: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        Ok(Some(buf.len()))
    }
}

impl BlockSink for NoData {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), WriteFailed> {
        Ok(())
    }
}

/// The duration of a step, in microseconds: a round trip.
const ROUND_TRIP: u64 = 200;

/// Sends one window a step and processes its ACK.
fn send(steps: u64, options: &[u8]) {
    let (settings, granted) = negotiate(Options::new(options), &Limits::default(), None);
    let mut now = Instant::from_micros(0);
    let mut sender = Sender::new(now, settings, granted, None);
    let mut buf = [0; 16 * 516];
    let mut block = 0u16;
    if !options.is_empty() {
        let Output::Transmit(_) = sender.poll(now, &mut NoData, &mut buf) else { panic!("an OACK") };
        sender.handle(now, b"\0\x04\0\0");
    }
    for _ in 0..steps {
        while let Output::Transmit(transmit) = black_box(sender.poll(now, &mut NoData, black_box(&mut buf))) {
            block = block.wrapping_add(transmit.len.div_ceil(transmit.segment) as u16);
        }
        now = now.after(Duration::from_micros(ROUND_TRIP));
        let [high, low] = block.to_be_bytes();
        sender.handle(now, black_box(&[0, 4, high, low]));
    }
    assert_eq!(sender.acknowledged(), steps * u64::from(settings.windowsize) * u64::from(settings.blksize));
}

/// Receives one window a step and sends its ACK.
fn receive(steps: u64, windowsize: u16) {
    let options = RequestedOptions {
        windowsize: Some(windowsize).filter(|&windowsize| windowsize > 1),
        ..RequestedOptions::default()
    };
    let config = ReceiverConfig { options, ..ReceiverConfig::default() };
    let mut now = Instant::from_micros(0);
    let mut receiver = Receiver::new(now, b"file", config).expect("a file name");
    let mut buf = [0; 516];
    let Output::Transmit(_) = receiver.poll(now, &mut buf) else { panic!("a request") };
    if windowsize > 1 {
        receiver.handle(now, b"\0\x06windowsize\x0016\0", &mut NoData);
        let Output::Transmit(_) = receiver.poll(now, &mut buf) else { panic!("an ACK of the OACK") };
    }
    let mut datagram = [0; 516];
    let mut block = 0u16;
    for _ in 0..steps {
        now = now.after(Duration::from_micros(ROUND_TRIP));
        for _ in 0..windowsize {
            block = block.wrapping_add(1);
            let [high, low] = block.to_be_bytes();
            datagram[..4].copy_from_slice(&[0, 3, high, low]);
            receiver.handle(now, black_box(&datagram), &mut NoData);
            while let Output::Transmit(_) = black_box(receiver.poll(now, black_box(&mut buf))) {}
        }
    }
    assert_eq!(receiver.delivered(), steps * u64::from(windowsize) * u64::from(Settings::default().blksize));
}
