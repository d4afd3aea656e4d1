//! Ordering, lingering, and a real browser with a real announcement.

use std::process::Command;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

#[track_caller]
fn check(addresses: &[&str], local: &[&str], expected: &[&str]) {
    let parse = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let local = parse(local);
    assert_eq!(order(parse(addresses), |ip| local.contains(&ip)), parse(expected));
}

#[test]
fn addresses_are_tried_in_a_sensible_order() {
    check(&["fd00::1", "192.168.1.2", "127.0.0.1"], &[], &["192.168.1.2", "fd00::1", "127.0.0.1"]);
    check(&["192.168.1.2"], &["192.168.1.2"], &["127.0.0.1", "192.168.1.2"]);
    check(&["fe80::1", "0.0.0.0", "224.0.0.251"], &[], &[]);
    check(&["fd00::1"], &["fd00::1"], &["fd00::1"]);
}

fn resolved(name: &str, ip: &str, port: u16) -> ServiceEvent {
    let service = ServiceInfo::new("_t._tcp.local.", name, "h.local.", ip, port, &[("id", "x")][..]).unwrap();
    ServiceEvent::ServiceResolved(Box::new(service.as_resolved_service()))
}

fn removed(name: &str) -> ServiceEvent {
    ServiceEvent::ServiceRemoved("_t._tcp.local.".to_owned(), format!("{name}._t._tcp.local."))
}

fn urls_of(edges: &Edges) -> Vec<String> {
    edges.routers().iter().map(|router| router.urls[0].to_string()).collect()
}

#[test]
fn an_edge_that_took_its_announcement_back_lingers_and_may_return_elsewhere() {
    let mut edges = Edges::default();
    let start = Instant::now();
    edges.apply(resolved("a", "198.51.100.1", 1), start + LINGER);
    edges.apply(removed("a"), start + LINGER);
    edges.expire(start);
    assert_eq!(urls_of(&edges), ["http://198.51.100.1:1/"]);
    edges.apply(resolved("a", "198.51.100.2", 2), start + LINGER);
    edges.expire(start + LINGER);
    assert_eq!(urls_of(&edges), ["http://198.51.100.2:2/"], "it came back, so nothing expires");
    edges.apply(removed("a"), start + LINGER);
    edges.expire(start + LINGER);
    assert!(urls_of(&edges).is_empty());
}

#[test]
fn a_flood_of_announcements_is_bounded() {
    let mut edges = Edges::default();
    for port in 1..100 {
        edges.apply(resolved(&format!("edge {port}"), "198.51.100.1", port), Instant::now());
    }
    assert_eq!(edges.routers().len(), ROUTERS_MAX);
    edges.apply(resolved("edge 1", "198.51.100.9", 1), Instant::now());
    assert!(urls_of(&edges).contains(&"http://198.51.100.9:1/".to_owned()), "a known edge may still move");
}

/// Set in the copy of this test that runs in a network namespace of its own.
const INSIDE: &str = "HERD_TEST_IN_NAMESPACE";

/// mDNS is tried out in a network namespace with nothing but loopback, so that not a packet leaves this machine, not
/// even the report of joining a group that the daemon's start causes on every interface. Making one needs root, or a
/// kernel that lets users have namespaces; where neither is the case, the test says so and ends.
#[test]
fn agents_find_an_edge_that_comes_moves_and_goes() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(find_move_and_lose());
    }
    let script = "ip link set lo multicast on up && exec \"$@\"";
    let me = std::env::current_exe().unwrap();
    let name = format!("{}::agents_find_an_edge_that_comes_moves_and_goes", module_path!().split_once("::").unwrap().1);
    for unshare in [&["-n"][..], &["-rn"][..]] {
        let possible = Command::new("unshare").args(unshare).args(["sh", "-c", "ip link set lo up"]).output();
        if !possible.is_ok_and(|output| output.status.success()) {
            continue;
        }
        let output = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", script, "sh"])
            .arg(me)
            .args(["--exact", name.as_str(), "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    println!("skipped: no network namespace can be made here (needs root, unshare and ip)");
}

async fn find_move_and_lose() {
    let config = MdnsConfig {
        enabled: true,
        service_type: "_herd-test._tcp.local.".to_owned(),
        interfaces: Interfaces::Loopback,
    };
    let (routers_in, mut routers) = watch::channel(BTreeSet::new());
    let mut tasks = JoinSet::new();
    let browsing = config.clone();
    tasks.spawn(async move { browse(&browsing, Duration::from_millis(1), &routers_in).await.unwrap() });
    let mut reach = async |expected: &[&str]| {
        let reached = routers.wait_for(|routers| {
            let urls: Vec<&str> = routers.iter().map(|router| router.urls[0].as_str()).collect();
            urls == expected
        });
        timeout(Duration::from_secs(20), reached).await.expect("edges within 20 s").unwrap();
    };
    let announce = |port| {
        Advertiser::start(&Advertisement {
            service_type: config.service_type.clone(),
            instance: "Fleet Manager Router".to_owned(),
            port,
            interfaces: Interfaces::Loopback,
            version: "0.1.0".to_owned(),
            id: "e1".to_owned(),
        })
    };
    let edge = announce(11435).unwrap();
    reach(&["http://127.0.0.1:11435/"]).await;
    edge.stop().await;
    reach(&[]).await;
    let edge = announce(21435).unwrap();
    reach(&["http://127.0.0.1:21435/"]).await;
    edge.stop().await;
}
