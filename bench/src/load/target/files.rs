//! The proxies' configuration files: those in `bench/conf`, with addresses and folders filled in.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

const FILES: [(&str, &str); 3] = [
    ("nginx.conf", include_str!("../../../conf/nginx.conf")),
    ("haproxy.cfg", include_str!("../../../conf/haproxy.cfg")),
    ("herd.yaml", include_str!("../../../conf/herd.yaml")),
];

/// Writes the file `name` into `folder`.
pub(super) fn write_config(
    folder: &Path,
    name: &str,
    listen: SocketAddr,
    nodes: &[SocketAddr],
) -> anyhow::Result<PathBuf> {
    let (_, template) = FILES.iter().find(|(known, _)| *known == name).context("no such file")?;
    let path = folder.join(name);
    std::fs::write(&path, filled(template, folder, listen, nodes))?;
    Ok(path)
}

/// `@LISTEN@` and `@FOLDER@` are filled in, and a line with `@NODE@` stands once for each node, with its number for
/// `@NUMBER@`.
fn filled(template: &str, folder: &Path, listen: SocketAddr, nodes: &[SocketAddr]) -> String {
    let mut text = String::new();
    for line in template.lines() {
        let line = line.replace("@LISTEN@", &listen.to_string()).replace("@FOLDER@", &folder.to_string_lossy());
        if !line.contains("@NODE@") {
            text.push_str(&line);
            text.push('\n');
            continue;
        }
        for (number, node) in nodes.iter().enumerate() {
            text.push_str(&line.replace("@NODE@", &node.to_string()).replace("@NUMBER@", &number.to_string()));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> String {
        let nodes = [4001, 4002].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (_, template) = FILES.iter().find(|(known, _)| *known == name).unwrap();
        filled(template, Path::new("/tmp/x"), SocketAddr::from(([127, 0, 0, 1], 4000)), &nodes)
    }

    #[test]
    fn every_file_is_filled_in_whole() {
        for (name, _) in FILES {
            assert!(!file(name).contains('@'), "{name}: {}", file(name));
        }
        let nginx = file("nginx.conf");
        assert!(nginx.contains("server 127.0.0.1:4001;") && nginx.contains("server 127.0.0.1:4002;"), "{nginx}");
        assert!(nginx.contains("listen 127.0.0.1:4000 "), "{nginx}");
        let haproxy = file("haproxy.cfg");
        assert!(haproxy.contains("server node1 127.0.0.1:4002 "), "{haproxy}");
        assert!(haproxy.contains("option http-no-delay"), "without it, chunks are held back for 200 ms");
    }
}
