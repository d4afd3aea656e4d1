//! How an agent and an edge prove to each other that they know the join token, which does not travel.
//!
//! The agent sends a nonce and a hint of its token; an edge that knows a token of that hint answers with a nonce of its own
//! and a proof over both. Each heartbeat then carries the agent's proof over both nonces and its own bytes. Whoever
//! listens, or announces an edge that is none, learns nothing but what guesses of the token can be tried against, so that
//! a token has to be random: 128 bits and more, as `openssl rand -hex 32` makes them.
//!
//! Pure: nonces come in as arguments. HMAC-SHA-256 (RFC 2104), keyed with the token's SHA-256, which is also what is
//! kept of API keys.

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

/// How a heartbeat's `Authorization` begins that carries a proof; then come both nonces and the proof, in hexadecimal with
/// a dot between.
pub const SCHEME: &str = "Herd-Join ";

/// A random number that is used once.
pub type Nonce = [u8; 32];

/// What one side shows the other.
pub type Proof = [u8; 32];

/// A join token as it is used here: its digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JoinSecret([u8; 32]);

impl JoinSecret {
    /// That of `token`.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// That of a token of which only the SHA-256 is kept.
    #[must_use]
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// By which an edge finds the token among those that it knows. Another one for every nonce, so that it does not tell
    /// agents apart.
    #[must_use]
    pub fn hint(&self, agent: &Nonce) -> Proof {
        self.mac("herd-join hint v1", &[agent]).finalize().into_bytes().into()
    }

    /// That an edge knows the token.
    #[must_use]
    pub fn edge_proof(&self, agent: &Nonce, edge: &Nonce) -> Proof {
        self.mac("herd-join edge v1", &[agent, edge]).finalize().into_bytes().into()
    }

    /// That an agent knows it, and means `heartbeat`.
    #[must_use]
    pub fn agent_proof(&self, agent: &Nonce, edge: &Nonce, heartbeat: &[u8]) -> Proof {
        self.agent_mac(agent, edge, heartbeat).finalize().into_bytes().into()
    }

    /// Whether `shown` is [`Self::hint`], in a time that does not depend on where they differ.
    #[must_use]
    pub fn is_hinted(&self, shown: &Proof, agent: &Nonce) -> bool {
        self.mac("herd-join hint v1", &[agent]).verify_slice(shown).is_ok()
    }

    /// The same for [`Self::edge_proof`].
    #[must_use]
    pub fn is_edge(&self, shown: &Proof, agent: &Nonce, edge: &Nonce) -> bool {
        self.mac("herd-join edge v1", &[agent, edge]).verify_slice(shown).is_ok()
    }

    /// The same for [`Self::agent_proof`].
    #[must_use]
    pub fn is_agent(&self, shown: &Proof, agent: &Nonce, edge: &Nonce, heartbeat: &[u8]) -> bool {
        self.agent_mac(agent, edge, heartbeat).verify_slice(shown).is_ok()
    }

    fn agent_mac(&self, agent: &Nonce, edge: &Nonce, heartbeat: &[u8]) -> Hmac<Sha256> {
        let digest = Sha256::digest(heartbeat);
        self.mac("herd-join agent v1", &[agent, edge, digest.as_ref()])
    }

    /// Over parts that are all of one length.
    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl std::fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinSecret(***)")
    }
}

/// An edge's nonces: each tells when it was made and for whose, so that the edge keeps nothing of them.
#[derive(Clone)]
pub struct Challenges(JoinSecret);

impl Challenges {
    /// How long one is good for, milliseconds of the edge's clock.
    pub const VALID_MS: u64 = 3_600_000;

    /// Of a process whose random `secret` nobody else knows.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(JoinSecret(secret))
    }

    /// One for the nonce `agent`, made at `now_ms` with eight bytes of `salt`.
    #[must_use]
    pub fn make(&self, agent: &Nonce, now_ms: u64, salt: [u8; 8]) -> Nonce {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&now_ms.to_be_bytes());
        nonce[8..16].copy_from_slice(&salt);
        let seal = self.seal(agent, &nonce);
        nonce[16..].copy_from_slice(&seal[..16]);
        nonce
    }

    /// Whether `edge` was made for the nonce `agent` and is still good at `now_ms`.
    #[must_use]
    pub fn is_good(&self, agent: &Nonce, edge: &Nonce, now_ms: u64) -> bool {
        let mut made = [0; 8];
        made.copy_from_slice(&edge[..8]);
        let age_ms = now_ms.checked_sub(u64::from_be_bytes(made));
        let is_ours =
            self.0.mac("herd-join nonce v1", &[agent, &edge[..16]]).verify_truncated_left(&edge[16..]).is_ok();
        is_ours && age_ms.is_some_and(|age_ms| age_ms < Self::VALID_MS)
    }

    fn seal(&self, agent: &Nonce, nonce: &Nonce) -> Proof {
        self.0.mac("herd-join nonce v1", &[agent, &nonce[..16]]).finalize().into_bytes().into()
    }
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Challenges(***)")
    }
}

/// The value of a heartbeat's `Authorization`.
#[must_use]
pub fn authorization(agent: &Nonce, edge: &Nonce, proof: &Proof) -> String {
    format!("{SCHEME}{}.{}.{}", hex(agent), hex(edge), hex(proof))
}

/// Both nonces and the proof of such a value, without its scheme; `None` = it has another form.
#[must_use]
pub fn parse(credentials: &str) -> Option<(Nonce, Nonce, Proof)> {
    let mut parts = credentials.trim().split('.').map(unhex);
    let three = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(three)
}

/// 32 bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The 32 bytes of [`hex`]; `None` = it has another form.
#[must_use]
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: Nonce = [1; 32];
    const EDGE: Nonce = [2; 32];

    #[test]
    fn each_side_knows_the_other_by_the_token_alone() {
        let (secret, other) = (JoinSecret::of("token"), JoinSecret::of("tokem"));
        let digest = Sha256::digest(b"token").into();
        assert_eq!(secret, JoinSecret::from_digest(digest), "an API key is known by its digest");
        let hint = secret.hint(&AGENT);
        assert!(secret.is_hinted(&hint, &AGENT) && !other.is_hinted(&hint, &AGENT) && !secret.is_hinted(&hint, &EDGE));
        let proof = secret.edge_proof(&AGENT, &EDGE);
        assert!(secret.is_edge(&proof, &AGENT, &EDGE));
        assert!(!other.is_edge(&proof, &AGENT, &EDGE) && !secret.is_edge(&proof, &EDGE, &AGENT));
        assert!(!secret.is_agent(&proof, &AGENT, &EDGE, b""), "what an edge shows is no agent's proof");
        let proof = secret.agent_proof(&AGENT, &EDGE, b"beat");
        assert!(secret.is_agent(&proof, &AGENT, &EDGE, b"beat"));
        assert!(!secret.is_agent(&proof, &AGENT, &EDGE, b"beau"), "it is good for its own bytes");
        assert!(!secret.is_agent(&proof, &AGENT, &AGENT, b"beat") && !other.is_agent(&proof, &AGENT, &EDGE, b"beat"));
    }

    #[test]
    fn a_challenge_is_good_for_its_agent_for_an_hour_and_at_its_edge() {
        let challenges = Challenges::new([7; 32]);
        let nonce = challenges.make(&AGENT, 1_000, [9; 8]);
        assert!(challenges.is_good(&AGENT, &nonce, 1_000));
        assert!(challenges.is_good(&AGENT, &nonce, 999 + Challenges::VALID_MS));
        assert!(!challenges.is_good(&AGENT, &nonce, 1_000 + Challenges::VALID_MS));
        assert!(!challenges.is_good(&AGENT, &nonce, 999), "it comes from another start of the clock");
        assert!(!challenges.is_good(&EDGE, &nonce, 1_000));
        assert!(
            !Challenges::new([8; 32]).is_good(&AGENT, &nonce, 1_000),
            "after a restart it is to be asked for again"
        );
        for place in 0..32 {
            let mut forged = nonce;
            forged[place] ^= 1;
            assert!(!challenges.is_good(&AGENT, &forged, 1_000 + (1 << 20)), "{place}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let text = authorization(&AGENT, &EDGE, &[255; 32]);
        assert_eq!(parse(text.strip_prefix(SCHEME).unwrap()), Some((AGENT, EDGE, [255; 32])));
        for wrong in
            ["", ".", "..", "a.b.c", &format!("{}.", hex(&AGENT)), &text, &format!("{}.x", &text[SCHEME.len()..])]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(unhex(&"g".repeat(64)), None);
        assert_eq!(unhex(&"é".repeat(32)), None);
    }
}
