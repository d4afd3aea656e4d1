//! The answer of a node on its way to the client: watched for its own end, and given one when it breaks off.

use bytes::{Bytes, BytesMut};
use herd_core::answer::{BackendError, Observer, Renamer};
use herd_core::exchange::{Action, Delivery, Event, Seen};
use herd_core::request::Surface;
use herd_core::vocabulary::Failure;
use http::header::{CONTENT_LENGTH, RETRY_AFTER, TRANSFER_ENCODING};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};

use super::ctx::{Inference, RequestCtx};
use super::{Edge, refused};
use crate::connection::Connection;

/// What a client is told of an answer that ends before its own end.
const BROKE_OFF: &str = "the node broke off in the middle of the answer";

/// An answer that was accepted.
pub struct Answer {
    /// What its stream tells; `None` = an error of the backend, passed on as it is.
    observer: Option<Observer>,
    /// Puts the name back that the client used; `None` = the node was asked for that.
    renamer: Option<Renamer>,
    /// It has no length, so that something can still be said at its end.
    open_ended: bool,
    /// Bytes of it that are still to come; `None` = it has no length.
    left: Option<u64>,
}

impl Answer {
    /// An answer of `status` on `surface`.
    #[must_use]
    pub fn new(surface: Surface, streamed: bool, status: u16, open_ended: bool) -> Self {
        Self {
            observer: (status == 200).then(|| Observer::new(surface, streamed)),
            renamer: None,
            open_ended,
            left: None,
        }
    }

    /// With the model's name put back.
    #[must_use]
    pub fn renamed(self, from: &str, to: &str) -> Self {
        Self { renamer: Some(Renamer::new(from, to)), ..self }
    }

    /// What has been seen of it so far; `None` = it is an error of the backend. `tokens_per_piece` is what the model has
    /// shown.
    #[must_use]
    pub fn seen(&self, tokens_per_piece: Option<f64>) -> Option<Seen> {
        let observer = self.observer.as_ref()?;
        let seen = observer.seen();
        Some(Seen {
            ending: observer.finish(),
            error_told: seen.backend_error == Some(BackendError::Told),
            counts: seen.counts(tokens_per_piece),
            reason: seen.reason,
            tokens_per_piece: seen.tokens_per_piece(),
        })
    }

    /// With a length, as the node told it.
    #[must_use]
    pub fn of_length(self, length: Option<u64>) -> Self {
        Self { left: length, ..self }
    }

    /// Whether all of it has come, by its length. Pingora may say so only after it has stopped asking.
    fn has_come(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes a chunk on its way.
    pub fn pass(&mut self, chunk: &mut Option<Bytes>) {
        let Some(bytes) = chunk else { return };
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        if let Some(observer) = &mut self.observer {
            observer.observe(bytes);
        }
        if let Some(renamer) = &mut self.renamer {
            *bytes = renamer.push(bytes).into();
        }
    }

    /// Adds to the last chunk what is still held back by renaming.
    fn end(&mut self, chunk: &mut Option<Bytes>) {
        append(chunk, &self.take_rest());
    }

    /// Adds to the last chunk what tells the client that the answer ended before its own end; false = only a broken
    /// connection can tell.
    fn end_torn(&mut self, chunk: &mut Option<Bytes>) -> bool {
        self.end(chunk);
        let epilogue = self.epilogue(BROKE_OFF);
        append(chunk, epilogue.as_deref().unwrap_or_default());
        epilogue.is_some()
    }

    /// What tells the client, in its protocol, that the answer has broken off; `None` = the framing must tell.
    #[must_use]
    pub fn epilogue(&self, message: &str) -> Option<Vec<u8>> {
        self.observer.as_ref().filter(|_| self.open_ended)?.epilogue(message)
    }

    /// What is still held back by renaming: it goes before an epilogue.
    #[must_use]
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.renamer.take().map(Renamer::finish).unwrap_or_default()
    }
}

impl Edge {
    /// Takes a node's answer, or asks the next node instead.
    pub(super) fn accept_or_retry(&self, ctx: &mut RequestCtx, response: &mut ResponseHeader) -> Result<()> {
        let Some(inference) = &mut ctx.inference else { return Ok(()) };
        let status = response.status.as_u16();
        match self.step(inference, Event::Head { status }) {
            Action::Accept(delivery) => {
                self.accept(inference, &ctx.connection, response, delivery);
                Ok(())
            }
            Action::Refuse(refusal) => {
                self.refuse(ctx, &refusal);
                Err(refused("the node answered with an error").into_up())
            }
            // Another node is asked.
            _ => Err(Error::explain(ErrorType::HTTPStatus(status), "another node is asked").into_up()),
        }
    }

    fn accept(
        &self,
        inference: &mut Inference,
        connection: &Connection,
        response: &mut ResponseHeader,
        delivery: Delivery,
    ) {
        if delivery == Delivery::Held {
            connection.hold_output();
        } else {
            inference.held = None;
        }
        let status = response.status.as_u16();
        let (name, renamed, rests_ms) = {
            let exchange = inference.life.lock();
            let Some(attempt) = exchange.attempt() else { return };
            let load = attempt.choice.model().map(|model| &model.load);
            let rests_ms = load.map_or(0, |load| load.backs_off_for_ms(self.fleet.now_ms()));
            (attempt.name.clone(), attempt.uses_alias(), rests_ms)
        };
        if Failure::of_status(status) == Some(Failure::Busy) && !response.headers.contains_key(RETRY_AFTER) {
            drop(response.insert_header(RETRY_AFTER, rests_ms.div_ceil(1000).max(1)));
        }
        let length = response.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if renamed {
            response.remove_header(&CONTENT_LENGTH);
        }
        let open_ended = !response.headers.contains_key(CONTENT_LENGTH);
        if renamed && response.version == http::Version::HTTP_11 {
            drop(response.insert_header(TRANSFER_ENCODING, "chunked"));
        }
        let answer = Answer::new(inference.profile.surface, inference.profile.stream, status, open_ended);
        let answer = answer.of_length(length);
        let told = inference.model_as_requested.as_str();
        inference.answer = Some(if renamed { answer.renamed(name.as_str(), told) } else { answer });
    }

    /// Passes a chunk of the answer on, and ends the answer with it if it is the last.
    pub(super) fn pass_answer(&self, ctx: &mut RequestCtx, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(inference) = &mut ctx.inference else { return Ok(()) };
        let bytes = body.as_ref().map_or(0, Bytes::len);
        if bytes > 0 {
            self.bound_held(inference, &ctx.connection, bytes);
            drop(self.step(inference, Event::Bytes(bytes)));
        }
        let Some(answer) = &mut inference.answer else { return Ok(()) };
        answer.pass(body);
        if !end && !answer.has_come() {
            return Ok(());
        }
        let per_piece = inference.tokens_per_piece();
        let seen = inference.answer.as_ref().and_then(|answer| answer.seen(per_piece)).unwrap_or(Seen::WHOLE);
        let action = self.step(inference, Event::Finished(seen, self.fleet.snapshot()));
        let Some(answer) = &mut inference.answer else { return Ok(()) };
        match action {
            Action::TellTorn if answer.end_torn(body) => Ok(()),
            // Only a connection that breaks off can still tell the client; or another node is asked.
            Action::TellTorn | Action::Retry => Err(refused("the answer ended before its own end").into_up()),
            Action::Refuse(refusal) => {
                self.refuse(ctx, &refusal);
                Err(refused("the answer ended before its own end").into_up())
            }
            Action::Release | Action::Done => {
                answer.end(body);
                ctx.connection.release_output();
                Ok(())
            }
            // Its end was seen already; or it was cancelled in this moment, and is not to go out.
            _ => Ok(()),
        }
    }

    /// Passes on what is held back of an answer, once it is more than may be held.
    fn bound_held(&self, inference: &mut Inference, connection: &Connection, more: usize) {
        if !connection.holds_output() {
            return;
        }
        let held =
            usize::try_from(inference.life.lock().record().response_bytes).unwrap_or(usize::MAX).saturating_add(more);
        let limit = self.config.now().limits.held_answer_bytes;
        let share = inference.held_answer.get_or_insert_with(|| self.budget.share());
        if held > limit || share.grow_to(held).is_err() {
            connection.release_output();
            inference.held = None;
            inference.held_answer = None;
            drop(self.step(inference, Event::HeldTooMuch));
        }
    }
}

impl Inference {
    /// How many tokens a piece of the answers of the model has that is asked; `None` = never measured.
    pub(super) fn tokens_per_piece(&self) -> Option<f64> {
        let exchange = self.life.lock();
        exchange.attempt()?.choice.model()?.load.tokens_per_piece()
    }
}

fn append(chunk: &mut Option<Bytes>, more: &[u8]) {
    if more.is_empty() {
        return;
    }
    let mut all = BytesMut::from(chunk.as_deref().unwrap_or_default());
    all.extend_from_slice(more);
    *chunk = Some(all.freeze());
}

#[cfg(test)]
mod tests {
    use herd_core::answer::Ending;

    use super::*;

    const CUT: &str = "{\"message\":{\"content\":\"a\"},\"done\":false}\n";

    fn ended(mut answer: Answer, text: &'static str) -> (Option<Ending>, bool, String) {
        let mut chunk = Some(Bytes::from_static(text.as_bytes()));
        answer.pass(&mut chunk);
        let ending = answer.seen(None).map(|seen| seen.ending);
        let told = answer.end_torn(&mut chunk);
        (ending, told, String::from_utf8(chunk.unwrap().to_vec()).unwrap())
    }

    #[test]
    fn an_answer_without_its_own_end_is_given_an_error() {
        let stream = |open_ended| Answer::new(Surface::OllamaChat, true, 200, open_ended);
        let (ending, told, text) = ended(stream(true), CUT);
        assert_eq!((ending, told), (Some(Ending::Truncated), true));
        assert!(text.starts_with(CUT) && text[CUT.len()..].starts_with("{\"error\":"), "{text}");
        assert_eq!(ended(stream(false), CUT), (Some(Ending::Truncated), false, CUT.to_owned()));
        let whole = "{\"message\":{\"content\":\"a\"},\"done\":true}\n";
        assert_eq!(ended(stream(true), whole), (Some(Ending::Complete), false, whole.to_owned()));
        let told = "{\"error\":\"the engine died\"}\n";
        assert_eq!(ended(stream(true), told), (Some(Ending::BackendError), false, told.to_owned()));
        let error = Answer::new(Surface::OllamaChat, true, 500, true);
        assert_eq!(ended(error, "not found"), (None, false, "not found".to_owned()));
    }

    #[test]
    fn the_name_that_the_client_used_is_put_back() {
        let answer = Answer::new(Surface::OpenAiChat, false, 200, true).renamed("alias:x", "m");
        let (ending, _, text) = ended(answer, r#"{"model":"alias:x","choices":[]}"#);
        assert_eq!((ending, text.as_str()), (Some(Ending::Complete), r#"{"model":"m","choices":[]}"#));
    }
}
