//! Tells conversations apart by how they begin: what comes back with every turn, up to the first words of the user.

/// Bytes that count of each end of a message: enough to tell messages apart, and few enough that a document in one costs
/// nothing.
const END_BYTES: usize = 2_048;
/// Bytes of a message in which its role is looked for, from each end.
const ROLE_BYTES: usize = 64;
/// Messages that count when none of them is the user's.
const MESSAGES_MAX: u32 = 4;

/// The beginning of a conversation.
#[derive(Debug, Default)]
pub(super) struct Head {
    hash: u64,
    messages: u32,
    complete: bool,
}

impl Head {
    /// Whether later messages do not count.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the next message in, as it stands in the body.
    pub(super) fn add(&mut self, message: &[u8]) {
        if self.complete {
            return;
        }
        // The end is what the beginning has not.
        let (first, rest) = message.split_at(message.len().min(END_BYTES));
        let last = end(rest, END_BYTES);
        self.hash = hash(hash(mixed(self.hash, message.len() as u64), first), last);
        self.messages += 1;
        self.complete = is_users(message) || self.messages == MESSAGES_MAX;
    }

    /// The same for every turn of one conversation; `None` = there is no message.
    pub(super) fn hash(&self) -> Option<u64> {
        (self.messages > 0).then_some(self.hash)
    }
}

/// The last bytes.
fn end(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[bytes.len().saturating_sub(most)..]
}

/// Goes on from `hash` with `bytes`, eight at a time: byte by byte this took longer than all else that is read of a short
/// request. What is left over is filled up with zeros; whoever needs to tell that apart adds the length.
fn hash(hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).fold(hash, |hash, word| mixed(hash, u64::from_le_bytes(*word)))
}

/// One step: the two halves of a product, as in Wang Yi's wyhash, with the constants of the golden ratio and of FNV-1a.
fn mixed(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xcbf2_9ce4_8422_2325);
    #[expect(clippy::cast_possible_truncation, reason = "its lower half")]
    let (high, low) = ((product >> 64) as u64, product as u64);
    high ^ low
}

/// Roles stand first or last in a message in practice. Where that is wrong, a conversation is not recognised.
fn is_users(message: &[u8]) -> bool {
    const USER: &[u8] = b"\"user\"";
    let first = &message[..message.len().min(ROLE_BYTES)];
    [first, end(message, ROLE_BYTES)].iter().any(|end| end.windows(USER.len()).any(|window| window == USER))
}
