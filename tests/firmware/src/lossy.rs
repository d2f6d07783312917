//! Repeatable random loss.

/// Drops frames at random, the same ones for the same seed.
pub struct Lossy {
    percent: u32,
    state: u32,
    lost: u32,
}

impl Lossy {
    /// Drops this percentage of frames.
    pub fn new(percent: u32, seed: u32) -> Self {
        // The generator would stay at 0.
        Self { percent, state: seed.max(1), lost: 0 }
    }

    /// Returns whether the next frame is lost (Marsaglia's xorshift, 32 bits).
    pub fn loses(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        let loses = self.state % 100 < self.percent;
        self.lost += u32::from(loses);
        loses
    }

    /// Returns the number of lost frames.
    pub fn lost(&self) -> u32 {
        self.lost
    }
}
