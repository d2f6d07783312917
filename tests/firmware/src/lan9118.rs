//! A polled driver for the Ethernet controller SMSC LAN9118, with only the functions that this program needs.
//!
//! Source: the data sheet, chapters 3.12 (frames in the FIFOs) and 5 (registers).

use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

use crate::lossy::Lossy;

/// The longest Ethernet frame with its checksum, in bytes, rounded up to whole words.
const FRAME: usize = 1520;

/// The address of the controller on mps2-an386.
const BASE: usize = 0x4020_0000;

// The registers, in bytes from the base.
const RX_DATA: usize = 0x00;
const TX_DATA: usize = 0x20;
const RX_STATUS: usize = 0x40;
const TX_STATUS: usize = 0x48;
const BYTE_TEST: usize = 0x64;
const TX_CFG: usize = 0x70;
const HW_CFG: usize = 0x74;
const RX_FIFO_INF: usize = 0x7c;
const TX_FIFO_INF: usize = 0x80;
const MAC_CSR_CMD: usize = 0xa4;
const MAC_CSR_DATA: usize = 0xa8;

// The registers behind MAC_CSR.
const MAC_CR: u32 = 1;
const ADDRH: u32 = 2;
const ADDRL: u32 = 3;

const SOFT_RESET: u32 = 1;
const MUST_BE_ONE: u32 = 1 << 20;
const TX_FIFO_5K: u32 = 5 << 16;
const TX_ON: u32 = 1 << 1;
const MAC_BUSY: u32 = 1 << 31;
const MAC_TXEN_RXEN: u32 = 1 << 3 | 1 << 2;
const RX_ERROR: u32 = 1 << 15;
const FIRST_AND_LAST_SEGMENT: u32 = 1 << 13 | 1 << 12;

/// The controller, with a link that may lose frames.
pub struct Lan9118 {
    link: Lossy,
}

impl Lan9118 {
    /// Resets and enables the controller. Returns `None` if there is none.
    pub fn new(address: [u8; 6], link: Lossy) -> Option<Self> {
        if read(BYTE_TEST) != 0x8765_4321 {
            return None;
        }
        write(HW_CFG, SOFT_RESET);
        while read(HW_CFG) & SOFT_RESET != 0 {}
        write(HW_CFG, MUST_BE_ONE | TX_FIFO_5K);
        let [a, b, c, d, e, f] = address;
        write_mac(ADDRL, u32::from_le_bytes([a, b, c, d]));
        write_mac(ADDRH, u32::from_le_bytes([e, f, 0, 0]));
        write_mac(MAC_CR, MAC_TXEN_RXEN);
        write(TX_CFG, TX_ON);
        Some(Self { link })
    }

    /// Returns how many frames were dropped on purpose.
    pub fn lost(&self) -> u32 {
        self.link.lost()
    }
}

impl Device for Lan9118 {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Frame, Room<'_>)> {
        // smoltcp may answer at once, so there must be room for a frame.
        if !may_send() {
            return None;
        }
        let frame = loop {
            let frame = take_frame()?;
            if !self.link.loses() {
                break frame;
            }
        };
        Some((frame, Room { link: &mut self.link }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        may_send().then_some(Room { link: &mut self.link })
    }
}

/// A received frame.
pub struct Frame {
    bytes: [u8; FRAME],
    len: usize,
}

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.bytes[..self.len])
    }
}

/// Room for a frame to send.
pub struct Room<'a> {
    link: &'a mut Lossy,
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut bytes = [0; FRAME];
        let result = fill(&mut bytes[..len]);
        if !self.link.loses() {
            send(&bytes, len);
        }
        result
    }
}

/// Takes the next intact frame. Discards damaged and too long ones.
fn take_frame() -> Option<Frame> {
    while read(RX_FIFO_INF) >> 16 & 0xff != 0 {
        let status = read(RX_STATUS);
        let with_checksum = (status >> 16 & 0x3fff) as usize;
        let mut frame = Frame { bytes: [0; FRAME], len: with_checksum.saturating_sub(4) };
        let mut words = frame.bytes.chunks_exact_mut(4);
        for _ in 0..with_checksum.div_ceil(4) {
            let word = read(RX_DATA);
            if let Some(slot) = words.next() {
                slot.copy_from_slice(&word.to_le_bytes());
            }
        }
        if status & RX_ERROR == 0 && with_checksum <= FRAME {
            return Some(frame);
        }
    }
    None
}

/// Returns whether the FIFO has room for the longest frame with its two command words.
fn may_send() -> bool {
    (read(TX_FIFO_INF) & 0xffff) as usize >= FRAME + 8
}

/// Sends the first `len` bytes of a frame.
fn send(bytes: &[u8; FRAME], len: usize) {
    write(TX_DATA, FIRST_AND_LAST_SEGMENT | len as u32);
    write(TX_DATA, len as u32);
    for word in bytes.as_chunks().0.iter().take(len.div_ceil(4)) {
        write(TX_DATA, u32::from_le_bytes(*word));
    }
    // Discards the status of earlier frames, so that this FIFO does not fill up.
    while read(TX_FIFO_INF) >> 16 & 0xff != 0 {
        read(TX_STATUS);
    }
}

fn write_mac(register: u32, value: u32) {
    write(MAC_CSR_DATA, value);
    write(MAC_CSR_CMD, MAC_BUSY | register);
    while read(MAC_CSR_CMD) & MAC_BUSY != 0 {}
}

fn read(register: usize) -> u32 {
    // SAFETY: all offsets above are registers of the controller, and nothing else is in that memory.
    unsafe { ((BASE + register) as *const u32).read_volatile() }
}

fn write(register: usize, value: u32) {
    // SAFETY: as in `read`; the controller does not write to memory, so every value is safe.
    unsafe { ((BASE + register) as *mut u32).write_volatile(value) }
}
