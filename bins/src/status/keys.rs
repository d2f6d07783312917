//! The keys that a terminal sends, as far as the live status uses them.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    /// Ctrl-C: the signals of the terminal are off.
    Interrupt,
    /// A printable ASCII character.
    Character(char),
}

/// The sequences of xterm, which all terminals of today send, in both of their modes.
const SEQUENCES: [(&[u8], Key); 14] = [
    (b"\x1b[A", Key::Up),
    (b"\x1bOA", Key::Up),
    (b"\x1b[B", Key::Down),
    (b"\x1bOB", Key::Down),
    (b"\x1b[5~", Key::PageUp),
    (b"\x1b[6~", Key::PageDown),
    (b"\x1b[H", Key::Home),
    (b"\x1bOH", Key::Home),
    (b"\x1b[1~", Key::Home),
    (b"\x1b[7~", Key::Home),
    (b"\x1b[F", Key::End),
    (b"\x1bOF", Key::End),
    (b"\x1b[4~", Key::End),
    (b"\x1b[8~", Key::End),
];
/// A longer sequence is not one of a key.
const MAX_SEQUENCE: usize = 16;

/// Parses the bytes of a terminal, whose sequences may arrive in parts.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// The start of a sequence.
    pending: Vec<u8>,
}

impl Keys {
    /// Adds bytes, and returns the keys that they complete. No bytes mean that none came for a while: an escape was a key then.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut keys = vec![];
        if bytes.is_empty() && !self.pending.is_empty() {
            keys.extend((self.pending == b"\x1b").then_some(Key::Escape));
            self.pending.clear();
        }
        for &byte in bytes {
            match (byte, self.pending.len()) {
                (b'\x1b', _) => {
                    // Two escapes: the first one was a key.
                    keys.extend((self.pending == b"\x1b").then_some(Key::Escape));
                    self.pending = vec![byte];
                }
                (_, 0) => keys.extend(plain(byte)),
                _ => {
                    self.pending.push(byte);
                    if is_complete(&self.pending) {
                        keys.extend(SEQUENCES.iter().find(|(bytes, _)| *bytes == self.pending).map(|(_, key)| *key));
                        self.pending.clear();
                    }
                }
            }
        }
        keys
    }
}

/// Returns the key of a byte outside of a sequence.
fn plain(byte: u8) -> Option<Key> {
    match byte {
        b'\r' | b'\n' => Some(Key::Enter),
        0x03 => Some(Key::Interrupt),
        0x08 | 0x7f => Some(Key::Backspace),
        b' '..=b'~' => Some(Key::Character(char::from(byte))),
        _ => None,
    }
}

/// Returns whether a sequence has reached its end: a letter or `~` (ECMA-48).
fn is_complete(sequence: &[u8]) -> bool {
    match sequence {
        [_, b'[' | b'O'] => false,
        [.., last] => sequence.len() == 2 || matches!(last, b'@'..=b'~') || sequence.len() >= MAX_SEQUENCE,
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_keys_in_one_piece_and_byte_by_byte() {
        let bytes = b"a\x1b[A\x1bOB\x1b[5~\x1b[1;5C\x1b[H\r\x7f\x03/\x1b[200~";
        let expected = [
            Key::Character('a'),
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::Home,
            Key::Enter,
            Key::Backspace,
            Key::Interrupt,
            Key::Character('/'),
        ];
        assert_eq!(Keys::default().add(bytes), expected);
        let mut keys = Keys::default();
        let one_by_one: Vec<_> = bytes.iter().flat_map(|byte| keys.add(&[*byte])).collect();
        assert_eq!(one_by_one, expected);
    }

    #[test]
    fn escape_is_a_key_if_nothing_follows() {
        let mut keys = Keys::default();
        assert_eq!(keys.add(b"\x1b"), []);
        assert_eq!(keys.add(b""), [Key::Escape]);
        assert_eq!(keys.add(b""), []);
        assert_eq!(keys.add(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
        assert_eq!(keys.add(b"\x1b[12"), []);
        assert_eq!(keys.add(b""), []);
        assert_eq!(keys.add(b"q"), [Key::Character('q')]);
    }

    #[test]
    fn bounds_what_it_keeps() {
        let mut keys = Keys::default();
        keys.add(&[b"\x1b[".to_vec(), vec![b'1'; 100_000]].concat());
        assert!(keys.pending.len() < MAX_SEQUENCE);
        assert!(keys.add(&(0..=255).collect::<Vec<u8>>()).len() > 90);
    }
}
