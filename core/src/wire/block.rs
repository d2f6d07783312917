//! Block numbers: 64 bits inside, 16 bits on the wire. Nothing else deals with the rollover.

/// The number that follows block 65535 on the wire.
///
/// No RFC defines it. Every boot client in use expects 0; a few programs request 1 with the option `rollover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Rollover {
    /// Block 65536 is number 0.
    #[default]
    ToZero,
    /// Block 65536 is number 1; only the OACK has number 0.
    ToOne,
}

impl Rollover {
    /// Returns the number of a block on the wire.
    pub(crate) fn number_of(self, block: u64) -> u16 {
        let number = match (self, block.checked_sub(1)) {
            (Self::ToOne, Some(before)) => before.checked_rem(NUMBERS_TO_ONE).unwrap_or(0).saturating_add(1),
            (Self::ToZero, _) | (_, None) => block,
        };
        let [.., high, low] = number.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// Returns the first block from `base` on with this number on the wire, or `u64::MAX` if there is none.
    pub(crate) fn block_of(self, base: u64, wire: u16) -> u64 {
        let here = self.number_of(base);
        let distance = match self {
            Self::ToZero => u64::from(wire.wrapping_sub(here)),
            Self::ToOne if wire == 0 && base > 0 => u64::MAX,
            Self::ToOne if wire >= here => u64::from(wire.saturating_sub(here)),
            Self::ToOne => NUMBERS_TO_ONE.saturating_sub(u64::from(here.saturating_sub(wire))),
        };
        base.saturating_add(distance)
    }
}

/// The number of block numbers other than 0.
const NUMBERS_TO_ONE: u64 = 65_535;

#[cfg(test)]
mod tests {
    use super::Rollover::{ToOne, ToZero};

    #[test]
    fn numbers_roll_over_to_zero_or_one() {
        let blocks = [0, 1, 65_534, 65_535, 65_536, 65_537, 131_070, 131_071, 131_072];
        assert_eq!(blocks.map(|block| ToZero.number_of(block)), [0, 1, 65_534, 65_535, 0, 1, 65_534, 65_535, 0]);
        assert_eq!(blocks.map(|block| ToOne.number_of(block)), [0, 1, 65_534, 65_535, 1, 2, 65_535, 1, 2]);
    }

    #[test]
    fn block_of_returns_the_next_block_with_a_number() {
        assert_eq!(ToZero.block_of(0, 0), 0);
        assert_eq!(ToZero.block_of(65_530, 2), 65_538);
        assert_eq!(ToZero.block_of(65_536, 0), 65_536);
        assert_eq!(ToZero.block_of(65_537, 0), 131_072, "the block just before base is 65536 blocks away");
        for rollover in [ToZero, ToOne] {
            for base in [1, 2, 65_534, 65_535, 65_536, 65_537, 131_070, 131_071, 131_072, 1_000_000] {
                for ahead in [0, 1, 63, 1000, 65_534] {
                    let block = base + ahead;
                    assert_eq!(
                        rollover.block_of(base, rollover.number_of(block)),
                        block,
                        "{rollover:?} {base} {ahead}"
                    );
                }
            }
        }
        assert_eq!(ToOne.block_of(7, 0), u64::MAX, "only the OACK has number 0");
    }
}
