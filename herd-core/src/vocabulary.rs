//! The words that herd uses in traces, metrics, logs, headers and its API: closed sets, each written once.
//!
//! A set is declared with [`words!`](crate::words), which makes the enum, its list `ALL`, `name` and `parse` from one
//! block. Readers match on the enum or size their arrays by `ALL`, so that a new word does not compile until every
//! reader handles it. Sets that belong to one decision are declared beside it and are found here as well.

use std::fmt;

pub use crate::answer::Reason;
pub use crate::decide::StandIn;
pub use crate::eligible::IneligibleKind;
pub use crate::patience::GiveUp;
pub use crate::protect::{ContextAction, ReloadCause};
pub use crate::queue::Class;
pub use crate::request::Surface;

/// A word of a closed set.
pub trait Word: Copy + PartialEq + fmt::Debug {
    /// The word, as it is written in traces, metrics and JSON.
    fn word(self) -> &'static str;

    /// The one that is written as `text`; `None` = there is no such word.
    fn from_word(text: &str) -> Option<Self>;
}

/// A closed set of words, for what has one of something for each.
pub trait WordSet: Word + 'static {
    /// Every word, in the order in which they are declared.
    const WORDS: &'static [Self];

    /// Its place in [`Self::WORDS`].
    fn place(self) -> usize;
}

/// A word as it was recorded: one of herd's, or what another program's rows have in its place, kept as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recorded<W> {
    /// One of herd's.
    Known(W),
    /// Another program's.
    Foreign(Box<str>),
}

impl<W: Word> Recorded<W> {
    /// Reads `text`; `None` = it is empty: nothing was recorded.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let foreign = || Some(text).filter(|text| !text.is_empty()).map(|text| Self::Foreign(text.into()));
        W::from_word(text).map(Self::Known).or_else(foreign)
    }

    /// The word.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Known(word) => word.word(),
            Self::Foreign(text) => text,
        }
    }

    /// The one of herd's; `None` = it is another program's.
    #[must_use]
    pub fn known(&self) -> Option<W> {
        match self {
            Self::Known(word) => Some(*word),
            Self::Foreign(_) => None,
        }
    }
}

impl<W> From<W> for Recorded<W> {
    fn from(word: W) -> Self {
        Self::Known(word)
    }
}

/// Declares a closed set of words: an enum with `ALL`, `name`, `parse` and
/// [`WordSet`](crate::vocabulary::WordSet).
///
/// ```
/// herd_core::words! {
///     /// How a door is.
///     pub enum Door {
///         /// Nobody passes.
///         Closed = "closed",
///         /// Everybody does.
///         Open = "open",
///     }
/// }
/// assert_eq!(Door::ALL.map(Door::name), ["closed", "open"]);
/// assert_eq!((Door::parse("open"), Door::parse("ajar")), (Some(Door::Open), None));
/// ```
#[macro_export]
macro_rules! words {
    ($(#[$about:meta])* $vis:vis enum $name:ident { $($(#[$says:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name {
            $($(#[$says])* $word,)+
        }

        impl $name {
            /// Every one, in the order in which they are declared.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$word),+];

            /// How it is written in traces, metrics and JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                }
            }

            /// The one that is written as `text`; `None` = there is no such word.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$word),)+
                    _ => None,
                }
            }
        }

        impl $crate::vocabulary::Word for $name {
            fn word(self) -> &'static str {
                self.name()
            }

            fn from_word(text: &str) -> Option<Self> {
                Self::parse(text)
            }
        }

        impl $crate::vocabulary::WordSet for $name {
            const WORDS: &'static [Self] = &Self::ALL;

            fn place(self) -> usize {
                self as usize
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// How a request ended.
    pub enum Status {
        /// The answer was passed on whole.
        Completed = "completed",
        /// It failed: the edge's error or the backend's.
        Failed = "failed",
        /// It was refused before any node was asked.
        Rejected = "rejected",
        /// The backend broke off after the first byte.
        Incomplete = "incomplete",
        /// Its node showed no progress for too long and was given up after the first byte.
        Reaped = "reaped",
        /// An operator ended it.
        Cancelled = "cancelled",
        /// The client disconnected.
        ClientDisconnected = "client_disconnected",
    }
}

impl Status {
    /// Whether the request ended in an error: herd took it on, and its client got no whole answer, through no doing of
    /// the client or of an operator. Every count of errors (metrics, dashboard, health checks, alerts) is of these.
    ///
    /// A request that was refused before any node was asked is none: it is counted as `rejected`, as what it lacked may
    /// be the client's to mend (a name, a key, a smaller body) or the fleet's (a slot in the queue).
    #[must_use]
    pub const fn is_error(self) -> bool {
        match self {
            Self::Failed | Self::Incomplete | Self::Reaped => true,
            Self::Completed | Self::Rejected | Self::Cancelled | Self::ClientDisconnected => false,
        }
    }
}

words! {
    /// How a node failed a request before the client got a byte of its answer.
    pub enum Failure {
        /// Nobody listened.
        ConnectRefused = "connect_refused",
        /// No connection was made in time.
        ConnectTimeout = "connect_timeout",
        /// A kept connection had been closed by the node meanwhile.
        StaleConnection = "stale_connection",
        /// The connection broke after the request had been sent.
        Reset = "reset",
        /// No first byte, and no sign of progress, for much longer than predicted.
        NoFirstByte = "no_first_byte",
        /// An answer began and then stopped.
        NoProgress = "no_progress",
        /// The node is dead, or its Ollama hangs.
        NodeDead = "node_dead",
        /// It answered with an error of its own.
        ErrorStatus = "error_status",
        /// It does not have the model.
        ModelNotFound = "model_not_found",
        /// It takes no more requests now.
        Busy = "busy",
        /// Its answer, which was held back until it would be whole, ended before its own end.
        TornAnswer = "torn_answer",
    }
}

impl Failure {
    /// What an answer's HTTP status says; `None` = the answer is to be passed on.
    #[must_use]
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            404 => Some(Self::ModelNotFound),
            503 => Some(Self::Busy),
            500 | 502 | 504 => Some(Self::ErrorStatus),
            _ => None,
        }
    }

    /// The failure of a node that is no longer waited for; `None` = that was not the node's doing.
    #[must_use]
    pub const fn of_give_up(reason: GiveUp) -> Option<Self> {
        match reason {
            GiveUp::NoFirstByte => Some(Self::NoFirstByte),
            GiveUp::NoProgress => Some(Self::NoProgress),
            GiveUp::NodeDead => Some(Self::NodeDead),
            GiveUp::Cancelled | GiveUp::Stopping => None,
        }
    }

    /// Whether the node may have begun to work on the request.
    #[must_use]
    pub const fn was_sent(self) -> bool {
        !matches!(self, Self::ConnectRefused | Self::ConnectTimeout | Self::StaleConnection)
    }

    /// Whether nobody was there, or is any more, so that the node may be asked again when it has come back.
    #[must_use]
    pub const fn is_absence(self) -> bool {
        !self.was_sent() || matches!(self, Self::Reset)
    }

    /// Whether it tells against the node's health.
    #[must_use]
    pub const fn is_nodes_fault(self) -> bool {
        !matches!(self, Self::StaleConnection | Self::ModelNotFound | Self::Busy)
    }

    /// Whether it may be the request's own fault: Ollama says 500 there as well, and a prompt can kill an engine. Then it
    /// is the node's only if another node serves the request.
    #[must_use]
    pub const fn may_be_the_requests(self) -> bool {
        matches!(self, Self::ErrorStatus | Self::TornAnswer)
    }
}

/// How an attempt at one node went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is not over.
    Running,
    /// It failed, and the request went on to another attempt.
    Failed(Failure),
    /// It was the last, and ended as the request did.
    Ended(Status),
}

impl Outcome {
    /// How it is written in traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Failed(failure) => failure.name(),
            Self::Ended(status) => status.name(),
        }
    }

    /// The one that is written as `text`; `None` = there is no such word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let failed = || Failure::parse(text).map(Self::Failed);
        let ended = || Status::parse(text).map(Self::Ended);
        if text == Self::Running.name() { Some(Self::Running) } else { failed().or_else(ended) }
    }

    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        let failed = Failure::ALL.into_iter().map(Self::Failed);
        [Self::Running].into_iter().chain(failed).chain(Status::ALL.into_iter().map(Self::Ended))
    }
}

impl Word for Outcome {
    fn word(self) -> &'static str {
        self.name()
    }

    fn from_word(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[track_caller]
    fn check<W: WordSet>() {
        let words: HashSet<_> = W::WORDS.iter().map(|one| one.word()).collect();
        assert_eq!(words.len(), W::WORDS.len(), "{words:?}");
        for (place, one) in W::WORDS.iter().enumerate() {
            assert_eq!((one.place(), W::from_word(one.word())), (place, Some(*one)));
            let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(one.word().chars().all(snake), "{}", one.word());
        }
        assert_eq!((W::from_word(""), W::from_word("Completed ")), (None, None));
    }

    #[test]
    fn each_word_is_written_once_and_read_back() {
        check::<Status>();
        check::<Failure>();
        check::<GiveUp>();
        check::<ContextAction>();
        check::<ReloadCause>();
        check::<StandIn>();
        check::<Class>();
        check::<Reason>();
        check::<Surface>();
        check::<IneligibleKind>();
    }

    #[test]
    fn an_outcome_is_one_word_of_three_sets() {
        let words: HashSet<_> = Outcome::all().map(Outcome::name).collect();
        assert_eq!(words.len(), 1 + Failure::ALL.len() + Status::ALL.len());
        for outcome in Outcome::all() {
            assert_eq!(Outcome::parse(outcome.name()), Some(outcome));
        }
        assert_eq!(Outcome::parse("retried"), None);
    }

    #[test]
    fn what_another_program_recorded_stays_what_it_was() {
        let read = |text| Recorded::<Status>::parse(text);
        assert_eq!(read("reaped"), Some(Status::Reaped.into()));
        assert_eq!(read(""), None);
        let odd = read("no_output").unwrap();
        assert_eq!((odd.name(), odd.known()), ("no_output", None));
    }

    #[test]
    fn whoever_gives_up_on_a_node_says_how_it_failed_in_the_same_word() {
        for reason in GiveUp::ALL {
            if let Some(failure) = Failure::of_give_up(reason) {
                assert_eq!(failure.name(), reason.name());
                assert!(failure.is_nodes_fault() && failure.was_sent());
            }
        }
    }

    #[test]
    fn failures_say_what_they_mean_for_the_node_and_the_request() {
        let of = |passes: fn(Failure) -> bool| -> Vec<&str> {
            Failure::ALL.into_iter().filter(|one| passes(*one)).map(Failure::name).collect()
        };
        assert_eq!(of(|one| !one.was_sent()), ["connect_refused", "connect_timeout", "stale_connection"]);
        assert_eq!(of(Failure::is_absence), ["connect_refused", "connect_timeout", "stale_connection", "reset"]);
        assert_eq!(of(|one| !one.is_nodes_fault()), ["stale_connection", "model_not_found", "busy"]);
        let told = [200, 400, 404, 413, 429, 500, 501, 502, 503, 504].map(Failure::of_status);
        let [missing, error, busy] = [Failure::ModelNotFound, Failure::ErrorStatus, Failure::Busy].map(Some);
        assert_eq!(told, [None, None, missing, None, None, error, None, error, busy, error]);
    }
}
