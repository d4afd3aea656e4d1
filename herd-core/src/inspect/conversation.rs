//! Tells conversations apart by how they begin: what comes back with every turn, up to the first words of the user.

use crate::name::fnv1a;

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
    /// Takes the next message in, as it stands in the body.
    pub(super) fn add(&mut self, message: &[u8]) {
        if self.complete {
            return;
        }
        let [first, last] = ends(message, END_BYTES);
        let parts = [self.hash, fnv1a(first), fnv1a(last), message.len() as u64];
        self.hash = fnv1a(&parts.map(u64::to_le_bytes).concat());
        self.messages += 1;
        self.complete = is_users(message) || self.messages == MESSAGES_MAX;
    }

    /// The same for every turn of one conversation; `None` = there is no message.
    pub(super) fn hash(&self) -> Option<u64> {
        (self.messages > 0).then_some(self.hash)
    }
}

/// The first and the last bytes.
fn ends(bytes: &[u8], most: usize) -> [&[u8]; 2] {
    [&bytes[..bytes.len().min(most)], &bytes[bytes.len().saturating_sub(most)..]]
}

/// Roles stand first or last in a message in practice. Where that is wrong, a conversation is not recognised.
fn is_users(message: &[u8]) -> bool {
    const USER: &[u8] = b"\"user\"";
    ends(message, ROLE_BYTES).iter().any(|end| end.windows(USER.len()).any(|window| window == USER))
}
