//! Block numbers: as many as a file has inside, 16 bits on the wire. The only place that knows about wrap-around.
//!
//! After block 65535 comes 0: no RFC says so, but it is what every boot client in use expects.

/// A block's number on the wire.
pub(crate) const fn to_wire(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The first block from `base` on that has this number on the wire.
pub(crate) fn from_wire(base: u64, wire: u16) -> u64 {
    base.saturating_add(u64::from(wire.wrapping_sub(to_wire(base))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_roll_over_to_zero() {
        assert_eq!([65_534, 65_535, 65_536, 65_537, 131_072].map(to_wire), [65_534, 65_535, 0, 1, 0]);
    }

    #[test]
    fn a_number_on_the_wire_is_the_next_block_of_that_number() {
        assert_eq!(from_wire(0, 0), 0);
        assert_eq!(from_wire(1, 1), 1);
        assert_eq!(from_wire(65_530, 2), 65_538);
        assert_eq!(from_wire(65_536, 0), 65_536);
        assert_eq!(from_wire(65_537, 0), 131_072, "the one just behind is a whole round away");
        assert_eq!(from_wire(1_000_000, to_wire(1_000_063)), 1_000_063);
    }
}
