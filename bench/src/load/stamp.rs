//! The time that the backend writes into every chunk, found again on the other side.

use super::samples::Samples;

/// What stands before the digits. It is nowhere else in an answer.
pub const MARK: u8 = b'#';

/// Reads stamps out of a body that comes in pieces.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stamps {
    /// The digits so far of a stamp that a piece has ended in.
    open: Option<u64>,
}

impl Stamps {
    /// Looks through `piece`, which was read at `now_ns`; adds the age of every stamp that ends in it to `ages`, and
    /// returns how many there were.
    pub fn read(&mut self, mut piece: &[u8], now_ns: u64, ages: &mut Samples) -> u64 {
        let mut count = 0;
        loop {
            let stamp = match self.open.take() {
                Some(stamp) => stamp,
                None => match piece.iter().position(|byte| *byte == MARK) {
                    Some(at) => {
                        piece = &piece[at + 1..];
                        0
                    }
                    None => return count,
                },
            };
            let digits = piece.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let stamp = piece[..digits]
                .iter()
                .fold(stamp, |all, byte| all.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')));
            piece = &piece[digits..];
            if piece.is_empty() {
                self.open = Some(stamp);
                return count;
            }
            ages.add(now_ns.saturating_sub(stamp));
            count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_however_the_body_is_cut() {
        let body = b"{\"content\":\" #1000\"}\n{\"content\":\" #2500\",\"done\":false}\n";
        for cut in 0..body.len() {
            let (mut stamps, mut ages) = (Stamps::default(), Samples::default());
            let (first, second) = body.split_at(cut);
            let count = stamps.read(first, 3_000, &mut ages) + stamps.read(second, 3_000, &mut ages);
            assert_eq!((count, ages.quantile(0.0), ages.quantile(1.0)), (2, Some(500), Some(2_000)), "cut at {cut}");
        }
    }
}
