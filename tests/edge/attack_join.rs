//! What a neighbour on the network sees and sends when agents join with a token.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use herd_harness::{Edge, Sim, bin, eventually, get, post_with, send};
use serde_json::json;

const TOKEN: &str = "a-token-that-nobody-guesses";
const JSON: &str = "Content-Type: application/json\r\n";

/// Passes connections on, and keeps all that is said on them.
struct Listener {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Listener {
    fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = Arc::clone(&heard);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let kept = Arc::clone(&kept);
                    std::thread::spawn(move || pass_on(from, to, &kept));
                }
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        kept.lock().unwrap().extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// An agent that reports the Ollama of `sim` through `router`.
fn agent(sim: &Sim, router: SocketAddr, token: &str) -> std::process::Child {
    let mut command = Command::new(bin("herd-agent"));
    command.args(["--node-id", "a", "--no-mdns", "--interval-ms", "500", "--router-url", &format!("http://{router}")]);
    command.args(["--ollama-url", &format!("http://{}", sim.address)]).env("FLEET_JOIN_TOKEN", token);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn the_join_token_does_not_travel_and_what_does_is_good_for_nothing_else() {
    let edge = Edge::start(&[("FLEET_JOIN_TOKEN", TOKEN)]);
    let sim = Sim::start(None, "unheard", &["--hot", "tiny"]);
    let wire = Listener::before(edge.address);
    let mut agent = agent(&sim, wire.address, TOKEN);
    eventually("the node joins", || {
        edge.admin("GET", "/fleet/status", "")["nodes"][0]["status"] == "online" && wire.heard().contains("Herd-Join ")
    });
    let heard = wire.heard();
    assert!(!heard.contains(TOKEN), "{heard}");
    let proof =
        heard.lines().find_map(|line| line.trim().strip_prefix("authorization: Herd-Join ")).unwrap().to_owned();
    // With what was heard nobody drains the node, and nobody joins.
    let header = format!("{JSON}Authorization: Herd-Join {proof}\r\n");
    for body in [json!({ "node_id": "a", "draining": true }), json!({ "node_id": "evil", "ollama": {} })] {
        let told = send(edge.address, &post_with("/heartbeat", &header, body.to_string().as_bytes()));
        assert_eq!((told.status, told.json()["error"]["code"].as_str()), (401, Some("join_token")), "{told:?}");
    }
    for made_up in
        ["", "x", "..", &proof[..proof.len() - 1], &format!("{}0", &proof[..proof.len() - 1].replace('1', "2"))]
    {
        let header = format!("{JSON}Authorization: Herd-Join {made_up}\r\n");
        let told = send(edge.address, &post_with("/heartbeat", &header, b"{}"));
        assert_eq!(told.status, 401, "{made_up}: {told:?}");
    }
    // Nor does the edge prove anything to whoever does not know the token.
    let asked = json!({ "nonce": "0".repeat(64), "hint": "0".repeat(64) }).to_string();
    let told = send(edge.address, &post_with("/heartbeat/challenge", JSON, asked.as_bytes()));
    assert_eq!((told.status, told.text().contains("proof")), (401, false), "{told:?}");
    assert_eq!(edge.node("a")["status"], "online");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn an_agent_with_a_key_for_nodes_proves_that_one() {
    let edge = Edge::start(&[]);
    let key = edge.add_key(&["a", "--scope", "node"]);
    let sim = Sim::start(None, "unheard", &["--hot", "tiny"]);
    let wire = Listener::before(edge.address);
    let mut good = agent(&sim, wire.address, &key);
    eventually("the node joins", || edge.admin("GET", "/fleet/status", "")["nodes"][0]["status"] == "online");
    assert!(!wire.heard().contains(&key));
    good.kill().unwrap();
    good.wait().unwrap();
}

#[test]
fn a_token_that_an_open_edge_does_not_ask_for_is_no_obstacle() {
    let edge = Edge::start(&[]);
    let sim = Sim::start(None, "unheard", &["--hot", "tiny"]);
    let wire = Listener::before(edge.address);
    let mut agent = agent(&sim, wire.address, TOKEN);
    eventually("the node joins", || edge.admin("GET", "/fleet/status", "")["nodes"][0]["status"] == "online");
    assert!(!wire.heard().contains(TOKEN));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_wrong_token_is_called_wrong() {
    let edge = Edge::start(&[("FLEET_JOIN_TOKEN", TOKEN), ("FLEET_HEALTH_INTERVAL_MS", "100")]);
    let sim = Sim::start(None, "unheard", &["--hot", "tiny"]);
    let mut agent = agent(&sim, edge.address, "another-token");
    eventually("a finding says so", || {
        let findings = get(edge.address, "/dashboard/api/health").json()["findings"].to_string();
        findings.contains("join_refused") && findings.contains("is not this edge's")
    });
    agent.kill().unwrap();
    agent.wait().unwrap();
}
