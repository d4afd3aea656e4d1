//! Clients that leave: whatever was done for them ends at once.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use herd_harness::{connect, eventually, send};

use super::scene::{Asked, SOLO, Scene, field};
use super::way::few;
use super::{Row, row};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "the client leaves while it sends its request",
        status: &[0],
        attempts: &[0],
        trace: "client_disconnected",
    },
    Row {
        name: "the client leaves while it waits for a slot",
        status: &[0],
        attempts: &[0],
        trace: "client_disconnected",
    },
    Row { name: "the client leaves before the answer", status: &[0], attempts: &[1], trace: "client_disconnected" },
    Row { name: "the client leaves in the answer", status: &[200], attempts: &[1], trace: "client_disconnected" },
];

/// How a client goes. Half a close is one as well, as it is to Ollama: nothing tells it from a client that is gone.
#[derive(Clone, Copy)]
enum Going {
    Closes,
    HalfCloses,
}

/// Goes; whoever still listens is told nothing more.
fn go(asked: Asked, going: Going) {
    if let Going::HalfCloses = going {
        let mut stream = asked.stream;
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
        let text = String::from_utf8_lossy(&rest);
        assert!(!text.contains("\"error\"") && !text.ends_with("0\r\n\r\n"), "{text}");
    }
}

#[test]
fn a_client_that_leaves_ends_what_is_done_for_it() {
    let scene = Scene::start("", "10");
    for way in few() {
        for going in [Going::Closes, Going::HalfCloses] {
            let cancelled = || scene.a.stats()["cancelled"].as_u64().unwrap_or_default();
            let before = cancelled();
            scene.a.fault("hang_before_first_byte");
            let unanswered = scene.begin(&way, SOLO);
            scene.until_a_works();
            let waiting = scene.begin(&way, SOLO);
            eventually("one waits", || scene.edge.admin("GET", "/fleet/queue", "")["waiting"] == 1);
            let [unanswered_id, waiting_id] = [&unanswered, &waiting].map(|asked| asked.id.clone());
            go(waiting, going);
            scene.line(&waiting_id);
            go(unanswered, going);
            scene.logged(row("the client leaves while it waits for a slot"), &waiting_id, &[""]);
            let story = ["a:client_disconnected"];
            let line = scene.logged(row("the client leaves before the answer"), &unanswered_id, &story);
            assert!(field(&line, "error") == "client disconnected", "{line}");
            eventually("a was told to stop", || cancelled() == before + 1);
            scene.a.fault("none");
            if way.streamed {
                let mut answered = scene.begin(&way, SOLO);
                answered.stream.read_exact(&mut [0; 64]).unwrap();
                let id = answered.id.clone();
                go(answered, going);
                scene.logged(row("the client leaves in the answer"), &id, &story);
                eventually("a was told to stop", || cancelled() == before + 2);
            }
        }
    }
    scene.each_ended_once();
}

#[test]
fn a_client_that_leaves_in_its_request_is_told_from_one_that_breaks_the_protocol() {
    let scene = Scene::start("", "0");
    let mut partial = few()[0].request("partial", SOLO);
    partial.truncate(partial.len() - 10);
    let mut client = connect(scene.edge.address);
    client.write_all(&partial).unwrap();
    drop(client);
    scene.logged(row("the client leaves while it sends its request"), "partial", &[""]);
    let head = b"POST /api/chat HTTP/1.1\r\nHost: x\r\nX-Request-Id: wrong\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(send(scene.edge.address, head).status, 400);
    let line = scene.line("wrong");
    assert!(line.contains(" status=rejected ") && line.contains(" http_status=400 "), "{line}");
}
