//! The node's name: given, or kept in a file so that a new host name does not make a new node.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use herd_core::name::{NODE_ID_MAX_BYTES, NameError, NodeId};

use crate::collect::host_name;

/// Why the node has no name.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file has something else in it; it is left alone.
    #[error("{}: the node id {text:?} {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it has.
        text: String,
        /// What is wrong with it.
        reason: NameError,
    },
    /// The file is there and cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The name kept in `data_dir`; at the first start, the host's, which is then kept.
///
/// A folder that cannot be written is not fatal: the node then has its host's name, as long as that lasts.
pub(crate) fn node_id(data_dir: &Path) -> Result<NodeId, IdentityError> {
    let path = data_dir.join("node-id");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim().to_owned();
            NodeId::new(&text).map_err(|reason| IdentityError::Damaged { path, text, reason })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = from_host_name(&host_name().unwrap_or_default());
            if let Err(error) = keep(&path, &id) {
                tracing::warn!(path = %path.display(), %error, "cannot keep the node id; it will follow the host name");
            }
            Ok(id)
        }
        Err(source) => Err(IdentityError::Unreadable { path, source }),
    }
}

/// The first label of a host name with what a node id may not have replaced. A name that many machines share by default
/// gets a random tail.
fn from_host_name(host: &str) -> NodeId {
    let short = host.split('.').next().unwrap_or_default();
    let tame: String = short.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let tame = tame.trim_matches('-');
    let tame = &tame[..tame.len().min(NODE_ID_MAX_BYTES)];
    let text = match tame {
        "" | "localhost" => format!("node-{:08x}", fastrand::u32(..)),
        name => name.to_owned(),
    };
    NodeId::new(&text).expect("only letters, digits, '_' and '-', neither empty nor too long")
}

fn keep(path: &Path, id: &NodeId) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    let mut folder = std::fs::DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        options.mode(0o600);
        folder.mode(0o700);
    }
    if let Some(parent) = path.parent() {
        folder.create(parent)?;
    }
    std::io::Write::write_all(&mut options.open(path)?, format!("{id}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    #[track_caller]
    fn check(host: &str, expected: &str) {
        assert_eq!(from_host_name(host).as_str(), expected);
    }

    #[test]
    fn host_names_become_node_ids() {
        check("studio.lan", "studio");
        check("Mac Studio's", "Mac-Studio-s");
        check("büro", "b-ro");
        check(&"x".repeat(80), &"x".repeat(64));
        for shared in ["", "localhost", "localhost.localdomain", "---"] {
            assert!(from_host_name(shared).as_str().starts_with("node-"), "{shared}");
        }
    }

    #[test]
    fn the_id_is_kept_and_stable() {
        let dir = TestDir::new();
        let data = dir.path().join("new/folder");
        let first = node_id(&data).unwrap();
        assert_eq!(node_id(&data).unwrap(), first);
        dir.write("new/folder/node-id", "renamed\n");
        assert_eq!(node_id(&data).unwrap().as_str(), "renamed");
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let dir = TestDir::new();
        dir.write("node-id", "two words\n");
        let error = node_id(dir.path()).unwrap_err().to_string();
        assert!(error.contains("two words") && error.contains("node-id"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_not_fatal() {
        assert!(node_id(Path::new("/proc/no/such")).is_ok());
    }
}
