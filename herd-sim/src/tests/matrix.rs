//! Every fault on every surface that runs a model, streamed and not.

use tokio::net::TcpStream;

use super::{
    client::{End, Framing},
    *,
};
use crate::{Fault, FaultKind, wire::GARBAGE};

/// One way to run a model.
struct Way {
    path: &'static str,
    body: Value,
    /// What a stream ends with; none for a whole answer.
    terminator: Option<&'static str>,
    /// Where an error has its text.
    error: &'static str,
}

/// The nine surfaces, six of them in both ways.
fn ways() -> Vec<Way> {
    let surfaces = [
        ("/api/chat", chat("tiny"), Some("\"done\":true"), "/error"),
        ("/api/generate", json!({"model": "tiny", "prompt": "hi"}), Some("\"done\":true"), "/error"),
        ("/v1/chat/completions", chat("tiny"), Some("data: [DONE]"), "/error/message"),
        ("/v1/completions", json!({"model": "tiny", "prompt": "hi"}), Some("data: [DONE]"), "/error/message"),
        ("/v1/responses", json!({"model": "tiny", "input": "hi"}), Some("response.completed"), "/error/message"),
        ("/v1/messages", with(chat("tiny"), "max_tokens", json!(99)), Some("message_stop"), "/error/message"),
        ("/api/embed", json!({"model": "embed", "input": "hi"}), None, "/error"),
        ("/api/embeddings", json!({"model": "embed", "prompt": "hi"}), None, "/error"),
        ("/v1/embeddings", json!({"model": "embed", "input": "hi"}), None, "/error/message"),
    ];
    let streamed =
        |terminator: Option<&'static str>| [None, terminator].into_iter().take(1 + usize::from(terminator.is_some()));
    surfaces
        .into_iter()
        .flat_map(|(path, body, terminator, error)| {
            streamed(terminator).map(move |terminator| {
                let body = with(body.clone(), "stream", json!(terminator.is_some()));
                Way { path, body, terminator, error }
            })
        })
        .collect()
}

impl Way {
    fn name(&self) -> String {
        format!("{} {}", self.path, if self.terminator.is_some() { "streamed" } else { "whole" })
    }

    async fn ask(&self, node: &SimNode) -> Reply {
        post(node, self.path, &self.body).await
    }

    async fn begin(&self, node: &SimNode) -> TcpStream {
        client::send(node.addr(), "POST", self.path, &[], self.body.to_string().as_bytes()).await
    }

    /// Asserts that `reply` is a whole and faultless answer.
    #[track_caller]
    fn assert_fine(&self, reply: &Reply) {
        assert_eq!((reply.status, reply.end), (200, End::Whole), "{}", self.name());
        match self.terminator {
            Some(terminator) => assert!(reply.text().contains(terminator), "{}", self.name()),
            None => assert!(reply.json().is_object(), "{}", self.name()),
        }
    }

    fn is_cut_short(&self, reply: &Reply) -> bool {
        match self.terminator {
            Some(terminator) => !reply.text().contains(terminator),
            None => serde_json::from_slice::<Value>(&reply.body()).is_err(),
        }
    }
}

async fn for_each_way(fault: Fault, check: impl AsyncFn(&SimNode, &Way)) {
    let node = start(config()).await;
    for way in ways() {
        node.set_fault(fault.clone()).await;
        check(&node, &way).await;
        node.set_fault(Fault::default()).await;
        way.assert_fine(&way.ask(&node).await);
        let idle = || node.slots().iter().all(|runner| runner.slots_busy == 0) && node.stats().in_flight == 0;
        eventually("nothing is left behind", idle).await;
    }
}

#[tokio::test]
async fn errors_have_their_status_and_the_form_of_the_surface() {
    let rows =
        [(FaultKind::Error400, 400), (FaultKind::NotFound, 404), (FaultKind::Error500, 500), (FaultKind::Busy503, 503)];
    for (kind, status) in rows {
        for_each_way(Fault::new(kind), async |node, way| {
            let reply = way.ask(node).await;
            assert_eq!((reply.status, reply.end), (status, End::Whole), "{} {kind:?}", way.name());
            assert!(reply.json().pointer(way.error).is_some_and(Value::is_string), "{} {kind:?}", way.name());
        })
        .await;
    }
}

#[tokio::test]
async fn refused_and_reset_connections_bring_nothing() {
    for_each_way(Fault::new(FaultKind::Refuse), async |node, way| {
        TcpStream::connect(node.addr()).await.expect_err(&way.name());
    })
    .await;
    for_each_way(Fault::new(FaultKind::Reset), async |node, way| {
        let reply = way.ask(node).await;
        assert_eq!((reply.status, reply.end), (0, End::Reset), "{}", way.name());
    })
    .await;
}

#[tokio::test]
async fn a_stalled_request_is_answered_when_the_fault_is_lifted() {
    for_each_way(Fault::new(FaultKind::Stall), async |node, way| {
        let mut stream = way.begin(node).await;
        eventually("it arrived", || node.stats().in_flight == 1).await;
        assert!(client::is_silent(&stream), "{}", way.name());
        node.set_fault(Fault::default()).await;
        client::read_until(&mut stream, "HTTP/1.1 200 OK").await;
        drop(stream);
    })
    .await;
}

#[tokio::test]
async fn a_hung_engine_keeps_the_slot_and_gets_nowhere() {
    for_each_way(Fault::new(FaultKind::HangBeforeFirstByte), async |node, way| {
        let mut stream = way.begin(node).await;
        let held = || node.slots().iter().any(|r| (r.slots_busy, r.tokens_done, r.prompt_tokens_left) == (1, 0, 1));
        eventually("it is in a slot", held).await;
        assert!(client::is_silent(&stream), "{}", way.name());
        node.set_fault(Fault::default()).await;
        client::read_until(&mut stream, "HTTP/1.1 200 OK").await;
        drop(stream);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_hangs_in_the_middle_keeps_the_slot() {
    for_each_way(Fault::new(FaultKind::HangMidStream).after(1), async |node, way| {
        let mut stream = way.begin(node).await;
        // Each of these is in what comes before the middle.
        let text = client::read_until(&mut stream, "\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{}", way.name());
        let frozen = || node.slots().iter().map(|runner| (runner.slots_busy, runner.tokens_done)).max();
        let held = frozen();
        assert!(held.is_some_and(|(busy, done)| busy == 1 && done > 0), "{} {held:?}", way.name());
        get(node, "/api/version").await;
        assert_eq!((frozen(), node.stats().in_flight), (held, 1), "{}", way.name());
        drop(stream);
        eventually("its client is missed", || node.stats().in_flight == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_cut_answer_ends_before_its_framing_says() {
    for fault in [Fault::new(FaultKind::CutMidStream).after(1), Fault::new(FaultKind::Reset).after(1)] {
        for_each_way(fault.clone(), async |node, way| {
            let reply = way.ask(node).await;
            let end = if fault.fault == FaultKind::Reset { End::Reset } else { End::Cut };
            assert_eq!((reply.status, reply.end), (200, end), "{}", way.name());
            let framing = if way.terminator.is_some() { Framing::Chunked } else { Framing::Length };
            assert_eq!(reply.framing, framing, "{}", way.name());
            assert!(way.is_cut_short(&reply), "{}", way.name());
        })
        .await;
    }
}

#[tokio::test]
async fn a_clean_end_is_clean_on_the_wire_alone() {
    for_each_way(Fault::new(FaultKind::CleanEnd).after(1), async |node, way| {
        let reply = way.ask(node).await;
        assert_eq!((reply.status, reply.end), (200, End::Whole), "{}", way.name());
        assert!(!reply.body().is_empty() && way.is_cut_short(&reply), "{}", way.name());
    })
    .await;
}

#[tokio::test]
async fn a_crash_is_a_500_before_and_no_terminator_after_the_first_chunk() {
    for_each_way(Fault::new(FaultKind::CrashMidStream).after(1), async |node, way| {
        let reply = way.ask(node).await;
        let status = if way.terminator.is_some() { 200 } else { 500 };
        assert_eq!((reply.status, reply.end), (status, End::Whole), "{}", way.name());
        if way.terminator.is_some() {
            assert!(way.is_cut_short(&reply), "{}", way.name());
            assert_eq!(reply.text().contains(r#""model":"""#), way.path.ends_with("completions"), "{}", way.name());
        } else {
            assert!(reply.json().pointer(way.error).is_some_and(Value::is_string), "{}", way.name());
        }
    })
    .await;
}

#[tokio::test]
async fn a_line_of_garbage_comes_once_and_the_answer_goes_on() {
    for_each_way(Fault::new(FaultKind::GarbageLine).after(2), async |node, way| {
        let mut reply = way.ask(node).await;
        let is_garbage = |chunk: &Vec<u8>| chunk.windows(GARBAGE.len()).any(|window| window == GARBAGE);
        match way.terminator {
            Some(_) => {
                assert!(is_garbage(&reply.chunks.remove(2)), "{}", way.name());
                assert!(!reply.chunks.iter().any(is_garbage), "{}", way.name());
            }
            None => reply.chunks = vec![reply.body().strip_prefix(GARBAGE).expect("it comes first").to_vec()],
        }
        way.assert_fine(&reply);
    })
    .await;
}
