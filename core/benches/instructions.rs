//! How many instructions the steps of the core take, held against the figures they took before.
//!
//! ```text
//! cargo bench -p rtftp-core --bench instructions
//! ```
//!
//! Counted by `valgrind --tool=callgrind`, which is the same on a busy machine and on an idle one, where times are not. This
//! program runs itself under it, once for each of two numbers of steps: what starts and ends a program is in both counts, so
//! their difference is the steps alone. It fails if a step takes more than [`TOLERANCE`] percent over its figure in [`STEPS`]:
//! then find out which change made it grow, and if that is worth it, put the new figure into the table.

use std::{
    env,
    hint::black_box,
    process::{Command, ExitCode},
    time::Duration,
};

use rtftp_core::{
    BlockReader, BlockSink, Instant, Output, Packet, ReadFailed, Receiver, RequestPath, Sender, WriteFailed,
    wire::{
        options::{Limits, RequestedOptions, Settings, negotiate},
        packet::Options,
    },
};

/// By how many percent a figure may be passed: another compiler makes other code.
const TOLERANCE: u64 = 10;

/// A step, how many instructions it takes on x86-64, and what runs it so many times.
type Step = (&'static str, u64, fn(u64));

/// All that is counted.
const STEPS: [Step; 8] = [
    ("parse an ACK", 48, parse_ack),
    ("parse a request with four options", 644, parse_request),
    ("negotiate four options", 3713, negotiate_options),
    ("parse a path of four names", 772, parse_path),
    ("send a block in lockstep", 633, |steps| send(steps, b"")),
    ("send a window of 16 blocks", 2569, |steps| send(steps, b"windowsize\x0016\0")),
    ("receive a block in lockstep", 566, |steps| receive(steps, 1)),
    ("receive a window of 16 blocks", 5006, |steps| receive(steps, 16)),
];

/// The two numbers of steps.
const FEW: u64 = 100;
const MANY: u64 = 1100;

const REQUEST: &[u8] =
    b"\0\x01EFI/debian/grubx64.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x0016\0timeout\x005\0";
const OPTIONS: &[u8] = b"tsize\x000\0blksize\x001468\0windowsize\x0016\0timeout\x005\0";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.as_slice() {
        [run, name, steps] if run == "--run" => {
            let (_, _, step) = STEPS.iter().find(|(known, ..)| known == name).expect("a name of the table");
            step(steps.parse().expect("a number of steps"));
            ExitCode::SUCCESS
        }
        args if args.iter().any(|arg| arg == "--bench") => compare(),
        // `cargo test --all-targets` only wants to see it built.
        _ => ExitCode::SUCCESS,
    }
}

/// Counts every step and says how it is beside its figure.
fn compare() -> ExitCode {
    let mut grown = vec![];
    println!("instructions a step, and the figure in the table");
    for (name, figure, _) in STEPS {
        let count = (instructions(name, MANY) - instructions(name, FEW)).div_ceil(MANY - FEW);
        println!("{count:8} {figure:8}  {name}");
        if count * 100 > figure * (100 + TOLERANCE) {
            grown.push(format!("to {name} takes {count} instructions, {figure} before"));
        }
    }
    if !cfg!(target_arch = "x86_64") {
        println!("not compared: the figures are of x86-64");
    } else if !grown.is_empty() {
        println!(
            "\nmore than {TOLERANCE} % over the figure:\n  {}\n\
             If that is worth it, put what was counted now into STEPS in core/benches/instructions.rs.",
            grown.join("\n  ")
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// How many instructions this program executes when it takes so many steps.
fn instructions(name: &str, steps: u64) -> u64 {
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["--run", name, &steps.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind does not start ({error}); install the package valgrind"));
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).unwrap_or_else(|| panic!("valgrind counted nothing: {said}"))
}

fn parse_ack(steps: u64) {
    for _ in 0..steps {
        let _ = black_box(Packet::parse(black_box(b"\0\x04\x12\x34")));
    }
}

/// The options of a request are read as they are iterated over, so that is a part of it.
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

/// A file and a place for it that cost nothing, so that the core alone is counted, and not how the C library copies.
#[derive(Debug)]
struct Nothing;

impl BlockReader for Nothing {
    fn read_at(&mut self, _: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        Ok(Some(buf.len()))
    }
}

impl BlockSink for Nothing {
    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), WriteFailed> {
        Ok(())
    }
}

/// The time of a step, in microseconds: a round trip.
const ROUND_TRIP: u64 = 200;

/// Each step is a window: what sends it, and its ACK.
fn send(steps: u64, options: &[u8]) {
    let (settings, granted) = negotiate(Options::new(options), &Limits::default(), None);
    let mut now = Instant::from_micros(0);
    let mut sender = Sender::new(now, settings, granted, None);
    let mut buf = [0; 16 * 516];
    let mut block = 0u16;
    if !options.is_empty() {
        let Output::Transmit(_) = sender.poll(now, &mut Nothing, &mut buf) else { panic!("an OACK") };
        sender.handle(now, b"\0\x04\0\0");
    }
    for _ in 0..steps {
        while let Output::Transmit(transmit) = black_box(sender.poll(now, &mut Nothing, black_box(&mut buf))) {
            block = block.wrapping_add(transmit.len.div_ceil(transmit.segment) as u16);
        }
        now = now.after(Duration::from_micros(ROUND_TRIP));
        let [high, low] = block.to_be_bytes();
        sender.handle(now, black_box(&[0, 4, high, low]));
    }
    assert_eq!(sender.acknowledged(), steps * u64::from(settings.windowsize) * u64::from(settings.blksize));
}

/// Each step is a window: its blocks, and the ACK for it.
fn receive(steps: u64, windowsize: u16) {
    let wanted = RequestedOptions {
        windowsize: Some(windowsize).filter(|&windowsize| windowsize > 1),
        ..RequestedOptions::default()
    };
    let mut now = Instant::from_micros(0);
    let mut receiver = Receiver::new(now, b"file", wanted).expect("a file name");
    let mut buf = [0; 516];
    let Output::Transmit(_) = receiver.poll(now, &mut buf) else { panic!("a request") };
    if windowsize > 1 {
        receiver.handle(now, b"\0\x06windowsize\x0016\0", &mut Nothing);
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
            receiver.handle(now, black_box(&datagram), &mut Nothing);
            while let Output::Transmit(_) = black_box(receiver.poll(now, black_box(&mut buf))) {}
        }
    }
    assert_eq!(receiver.delivered(), steps * u64::from(windowsize) * u64::from(Settings::default().blksize));
}
