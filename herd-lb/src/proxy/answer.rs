//! The answer of a node on its way to the client: watched for its own end, and given one when it breaks off.

use bytes::{Bytes, BytesMut};
use herd_core::answer::{BackendError, Ending, Observer, Renamer};
use herd_core::request::Surface;

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
}

/// How a body that has come to its end is left.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Whole.
    Complete,
    /// It ended before its own end, and the client has been told in the body.
    Told,
    /// It ended before its own end, and only a broken connection can tell.
    Untold,
}

impl Answer {
    /// An answer of `status` on `surface`.
    #[must_use]
    pub fn new(surface: Surface, streamed: bool, status: u16, open_ended: bool) -> Self {
        Self { observer: (status == 200).then(|| Observer::new(surface, streamed)), renamer: None, open_ended }
    }

    /// With the model's name put back.
    #[must_use]
    pub fn renamed(self, from: &str, to: &str) -> Self {
        Self { renamer: Some(Renamer::new(from, to)), ..self }
    }

    /// What has been observed.
    #[must_use]
    pub fn observer(&self) -> Option<&Observer> {
        self.observer.as_ref()
    }

    /// Takes a chunk on its way.
    pub fn pass(&mut self, chunk: &mut Option<Bytes>) {
        let Some(bytes) = chunk else { return };
        if let Some(observer) = &mut self.observer {
            observer.observe(bytes);
        }
        if let Some(renamer) = &mut self.renamer {
            *bytes = renamer.push(bytes).into();
        }
    }

    /// Ends a body whose framing has ended; what must still be said is added to the last chunk.
    pub fn end(&mut self, chunk: &mut Option<Bytes>) -> End {
        let rest = self.renamer.take().map(Renamer::finish).unwrap_or_default();
        let ending = self.observer.as_ref().map_or(Ending::Complete, Observer::finish);
        let (end, epilogue) = match ending {
            Ending::Complete => (End::Complete, None),
            _ => match self.epilogue(BROKE_OFF) {
                Some(epilogue) => (End::Told, Some(epilogue)),
                None if self.is_told() => (End::Told, None),
                None => (End::Untold, None),
            },
        };
        append(chunk, &rest);
        append(chunk, &epilogue.unwrap_or_default());
        end
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

    fn is_told(&self) -> bool {
        self.observer.as_ref().is_some_and(|observer| observer.seen().backend_error == Some(BackendError::Told))
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
    use super::*;

    const CUT: &str = "{\"message\":{\"content\":\"a\"},\"done\":false}\n";

    fn ended(mut answer: Answer, text: &'static str) -> (End, String) {
        let mut chunk = Some(Bytes::from_static(text.as_bytes()));
        answer.pass(&mut chunk);
        let end = answer.end(&mut chunk);
        (end, String::from_utf8(chunk.unwrap().to_vec()).unwrap())
    }

    #[test]
    fn an_answer_without_its_own_end_is_given_an_error() {
        let stream = |open_ended| Answer::new(Surface::OllamaChat, true, 200, open_ended);
        let (end, text) = ended(stream(true), CUT);
        assert_eq!(end, End::Told);
        assert!(text.starts_with(CUT) && text[CUT.len()..].starts_with("{\"error\":"), "{text}");
        assert_eq!(ended(stream(false), CUT), (End::Untold, CUT.to_owned()));
        let whole = "{\"message\":{\"content\":\"a\"},\"done\":true}\n";
        assert_eq!(ended(stream(true), whole), (End::Complete, whole.to_owned()));
        let told = "{\"error\":\"the engine died\"}\n";
        assert_eq!(ended(stream(true), told), (End::Told, told.to_owned()));
        let error = Answer::new(Surface::OllamaChat, true, 500, true);
        assert_eq!(ended(error, "not found"), (End::Complete, "not found".to_owned()));
    }

    #[test]
    fn the_name_that_the_client_used_is_put_back() {
        let answer = Answer::new(Surface::OpenAiChat, false, 200, true).renamed("alias:x", "m");
        let (end, text) = ended(answer, r#"{"model":"alias:x","choices":[]}"#);
        assert_eq!((end, text.as_str()), (End::Complete, r#"{"model":"m","choices":[]}"#));
    }
}
