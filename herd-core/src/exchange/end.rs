//! How an exchange ends: in exactly one way, which its record keeps.

use super::{Action, Client, Env, Exchange, Nobody, Refusal, State, Told};
use crate::name::ModelName;
use crate::patience::GiveUp;
use crate::record::RequestRecord;
use crate::vocabulary::Status;

/// Whether any node has `model`, one that is away included.
pub(super) fn is_known(nobody: &Nobody, model: &ModelName) -> bool {
    nobody.1.nodes.iter().any(|node| node.model(model).is_some())
}

impl Exchange {
    /// The request is not served: `status` where no node was asked, else it failed.
    pub(super) fn refuse(&mut self, status: Status, refusal: Refusal, env: &Env<'_>) -> Action {
        self.end_wait(env);
        let asked = !self.record.attempts.is_empty();
        let status = if asked && status == Status::Rejected && !matches!(refusal, Refusal::Overflow(..)) {
            Status::Failed
        } else {
            status
        };
        if self.client == Client::Nothing {
            self.record.http_status = refusal.http_status();
        }
        self.end(status, "");
        Action::Refuse(refusal)
    }

    /// The client is gone.
    pub(super) fn client_left(&mut self, told: Told, env: &Env<'_>) -> Action {
        match &self.state {
            // What closes the connection of an abandoned node looks like the client's leaving to the caller.
            State::Abandoning(..) => self.abandoned(env),
            State::Ended => Action::None,
            _ => {
                self.end_wait(env);
                if self.client == Client::Nothing {
                    self.record.http_status = 0;
                }
                self.end(Status::ClientDisconnected, told.message());
                Action::End
            }
        }
    }

    /// The client has all that there was for it.
    pub(super) fn delivered(&mut self) -> Action {
        if matches!(self.state, State::Delivering) {
            let failed = self.record.http_status >= 400;
            self.end(if failed { Status::Failed } else { Status::Completed }, "");
        }
        Action::None
    }

    /// The caller gives it up: nothing told how it ended, as when its task is dropped at the end of a drain.
    pub(super) fn dropped(&mut self, env: &Env<'_>) -> Action {
        self.end_wait(env);
        self.cut_off();
        Action::End
    }

    /// Ends it, if it has not: nothing told how, as when the caller's task is dropped. Takes its record out.
    pub fn abort(&mut self) -> RequestRecord {
        self.cut_off();
        std::mem::take(&mut self.record)
    }

    fn cut_off(&mut self) {
        if !self.has_ended() {
            let cancelled = matches!(self.state, State::Abandoning(_, _, GiveUp::Cancelled));
            self.end(if cancelled { Status::Cancelled } else { Status::Incomplete }, "");
        }
    }

    /// The client gets this status, as nothing of the answer that was accepted has been written.
    pub fn answered_instead(&mut self, http_status: u16) {
        self.record.http_status = http_status;
    }

    /// Keeps what the client was told, or would have been.
    pub fn told(&mut self, message: &str) {
        self.record.error_message.get_or_insert_with(|| match self.gave_up {
            Some(why) => format!("{}: {message}", why.name()),
            None => message.to_owned(),
        });
    }

    fn end(&mut self, status: Status, error: &str) {
        self.record.end(status, error);
        self.state = State::Ended;
    }
}
