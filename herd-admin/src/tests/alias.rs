//! Aliases on nodes that answer as scripted.

use std::time::Duration;

use bytes::Bytes;
use herd_core::name::ModelName;
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

use super::scripted::Node;
use crate::{AliasError, AliasSettings, Aliases};

const BODY: Bytes = Bytes::from_static(br#"{"model":"tiny-ctx8192","from":"tiny","stream":false}"#);

fn name(text: &str) -> ModelName {
    ModelName::new(text).unwrap()
}

fn aliases() -> Aliases {
    Aliases::new(AliasSettings::default()).unwrap()
}

/// Has `aliases` make `alias` on `node`, which plays along.
async fn make(aliases: &Aliases, node: &mut Node, alias: &str) {
    let alias = name(alias);
    let address = node.address;
    let (made, ()) = tokio::join!(aliases.ensure(address, &alias, BODY), async { node.called().await.succeed().await });
    made.unwrap();
}

#[tokio::test]
async fn an_alias_is_made_once_for_all_who_ask() {
    let mut node = Node::new().await;
    let (aliases, alias, address) = (aliases(), name("tiny-ctx8192"), node.address);
    let ensure = || aliases.ensure(address, &alias, BODY);
    let (first, second, call) = tokio::join!(ensure(), ensure(), async {
        let call = node.called().await;
        assert_eq!((call.path.as_str(), &call.body["from"]), ("/api/create", &json!("tiny")));
        call.say(r#"{"status":"using existing layer sha256:a"}"#).await;
        call.succeed().await;
    });
    assert_eq!((first, second, call), (Ok(()), Ok(()), ()));
    assert_eq!(ensure().await, Ok(()));
    assert!(!node.is_called());
}

#[tokio::test]
async fn whoever_waits_goes_on_when_the_first_goes_away() {
    let mut node = Node::new().await;
    let (aliases, alias, address) = (aliases(), name("tiny-ctx8192"), node.address);
    let mut first = Box::pin(aliases.ensure(address, &alias, BODY));
    let abandoned = tokio::select! {
        call = node.called() => call,
        _ = &mut first => panic!("nobody answered yet"),
    };
    drop(first);
    abandoned.dropped().await;
    make(&aliases, &mut node, "tiny-ctx8192").await;
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while() {
    let mut node = Node::new().await;
    let (aliases, alias, address) = (aliases(), name("tiny-ctx8192"), node.address);
    let (failed, ()) = tokio::join!(aliases.ensure(address, &alias, BODY), async {
        node.called().await.say(r#"{"error":"invalid model name"}"#).await;
    });
    let refused = Err(AliasError::Refused("invalid model name".into()));
    assert_eq!(failed, refused);
    assert_eq!(aliases.ensure(address, &alias, BODY).await, refused);
    assert!(!node.is_called());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
    make(&aliases, &mut node, "tiny-ctx8192").await;
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let mut node = Node::new().await;
    let (aliases, alias, address) = (aliases(), name("tiny-ctx8192"), node.address);
    let (late, call) = tokio::join!(aliases.ensure(address, &alias, BODY), async {
        let call = node.called().await;
        tokio::time::pause();
        call
    });
    tokio::time::resume();
    assert_eq!(late, Err(AliasError::Refused("it did not answer in time".into())));
    call.dropped().await;
}

#[tokio::test]
async fn an_alias_that_a_node_lost_is_made_again() {
    let mut node = Node::new().await;
    let (aliases, alias, address) = (aliases(), name("tiny-ctx8192"), node.address);
    make(&aliases, &mut node, "tiny-ctx8192").await;
    // A heartbeat that was on its way already.
    aliases.listed(address, |_| false);
    assert_eq!(aliases.ensure(address, &alias, BODY).await, Ok(()));
    aliases.listed(address, |one| *one == alias);
    aliases.listed(address, |_| false);
    make(&aliases, &mut node, "tiny-ctx8192").await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(1)).await;
    tokio::time::resume();
    aliases.listed(address, |_| false);
    make(&aliases, &mut node, "tiny-ctx8192").await;
    aliases.forget(address);
    make(&aliases, &mut node, "tiny-ctx8192").await;
}

#[tokio::test]
async fn what_is_left_over_is_told_and_taken_away() {
    let mut node = Node::new().await;
    let (aliases, address) = (aliases(), node.address);
    make(&aliases, &mut node, "new-ctx8192").await;
    let found = [name("new-ctx8192"), name("old-ctx8192"), name("old-ctx4096")];
    let stale = aliases.stale(address, &found);
    assert_eq!(stale, [name("old-ctx8192"), name("old-ctx4096")]);
    let (gone, ()) = tokio::join!(aliases.cleanup(address, &stale), async {
        for expected in ["old-ctx8192:latest", "old-ctx4096:latest"] {
            let call = node.called().await;
            assert_eq!((call.path.as_str(), &call.body), ("/api/delete", &json!({ "model": expected })));
        }
    });
    assert_eq!(gone, 2);
    let ((), ()) = tokio::join!(aliases.cleanup_all(), async {
        assert_eq!(node.called().await.body, json!({ "model": "new-ctx8192:latest" }));
    });
    aliases.cleanup_all().await;
    assert!(!node.is_called());
}

#[tokio::test]
async fn taking_away_is_bounded_and_what_is_gone_is_gone() {
    let mut missing = Node::answering(StatusCode::NOT_FOUND).await;
    let names = [name("a"), name("b")];
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let aliases = aliases();
    tokio::time::pause();
    assert_eq!(aliases.cleanup(silent.local_addr().unwrap(), &names).await, 0);
    tokio::time::resume();
    let (gone, ()) = tokio::join!(aliases.cleanup(missing.address, &names), async {
        drop(missing.called().await);
        drop(missing.called().await);
    });
    assert_eq!(gone, 2);
}
