//! The servers that are measured: started for one scenario, and ended after it.

mod files;

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::beat::Beats;
use super::workload::Workload;
use files::write_config;

/// Longest time until a server serves.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The first node of the backend, with nothing between.
    Direct,
    /// nginx, as a Debian package.
    Nginx,
    /// `HAProxy`, as a Debian package, with `option http-no-delay`.
    Haproxy,
    /// The smallest proxy that Pingora makes: `examples/pass_through.rs`.
    Pingora,
    /// The same once more: by how much equals differ.
    PingoraAgain,
    /// The real thing, with everything on.
    Herd,
}

impl Target {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 6] =
        [Self::Direct, Self::Nginx, Self::Haproxy, Self::Pingora, Self::PingoraAgain, Self::Herd];

    /// Its name on the command line and in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Pingora => "pingora",
            Self::PingoraAgain => "pingora-again",
            Self::Herd => "herd",
        }
    }

    /// The target of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self, String> {
        let all = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|target| target.name() == name).ok_or_else(|| format!("none of {}", all()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// `herd`, a release build.
    pub herd: PathBuf,
    /// The example `pass_through`, a release build.
    pub pass_through: PathBuf,
    /// `nginx`; found on the path.
    pub nginx: PathBuf,
    /// `haproxy`; found on the path.
    pub haproxy: PathBuf,
}

impl Programs {
    /// Beside the running program, where Cargo puts them, and on the path.
    ///
    /// # Errors
    /// When it is not known where this program is.
    pub fn find() -> anyhow::Result<Self> {
        let folder = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self {
            herd: folder.join("herd"),
            pass_through: folder.join("examples/pass_through"),
            nginx: on_path("nginx"),
            haproxy: on_path("haproxy"),
        })
    }

    /// The program of `target`; `None` = it needs none, or it is not there.
    #[must_use]
    pub fn of(&self, target: Target) -> Option<&Path> {
        let program = match target {
            Target::Direct => return None,
            Target::Nginx => &self.nginx,
            Target::Haproxy => &self.haproxy,
            Target::Pingora | Target::PingoraAgain => &self.pass_through,
            Target::Herd => &self.herd,
        };
        program.is_file().then_some(program)
    }

    /// Whether `target` can be measured here.
    #[must_use]
    pub fn have(&self, target: Target) -> bool {
        target == Target::Direct || self.of(target).is_some()
    }
}

/// A program of that name on the path, or where Debian keeps servers; else the bare name.
fn on_path(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file()).unwrap_or_else(|| name.into())
}

/// A process that is ended when this is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts `command`, without a terminal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let what = command.get_program().to_owned();
        let started = command.stdin(Stdio::null()).spawn();
        started.map(Self).with_context(|| format!("cannot run {}", what.display()))
    }

    /// The first `count` lines that it writes.
    ///
    /// # Errors
    /// When it ends before.
    pub fn lines(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let output = self.0.stdout.take().context("its output is not piped")?;
        let lines = BufReader::new(output).lines().take(count).collect::<Result<Vec<_>, _>>()?;
        if lines.len() < count {
            bail!("a process ended before it was ready");
        }
        Ok(lines)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its own way to stop first, so that a master takes its workers with it.
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may be gone already.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.0.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A server that serves.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub target: Target,
    /// Where.
    pub address: SocketAddr,
    /// Where its admin service listens; `None` = it has none.
    pub admin: Option<SocketAddr>,
    _beats: Option<Beats>,
    process: Option<Process>,
}

impl Running {
    /// Starts `target` before `nodes`, with its files in `folder`.
    ///
    /// # Errors
    /// When it does not serve in time.
    pub fn start(target: Target, programs: &Programs, nodes: &[SocketAddr], folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join(target.name());
        std::fs::create_dir_all(&folder)?;
        let running = if target == Target::Direct {
            let address = *nodes.first().context("there is no node")?;
            Self { target, address, admin: None, _beats: None, process: None }
        } else {
            let program = programs.of(target).with_context(|| format!("{target} is not there"))?;
            if target == Target::Herd {
                herd(program, nodes, &folder)?
            } else {
                proxy(target, program, nodes, &folder)?
            }
        };
        running.serves().with_context(|| format!("{target} does not serve"))?;
        Ok(running)
    }

    /// The process to measure; `None` = there is none between.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Waits until a request is answered.
    fn serves(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            match self.ask() {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
                other if Instant::now() > deadline => bail!("{other:?}"),
                _ => std::thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    fn ask(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, STARTS_WITHIN)?;
        stream.set_read_timeout(Some(STARTS_WITHIN))?;
        stream.write_all(&Workload::chat(0).request(&self.address.to_string()))?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// A port that was free a moment ago, for servers that cannot take any.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn proxy(target: Target, program: &Path, nodes: &[SocketAddr], folder: &Path) -> anyhow::Result<Running> {
    let address = free_address()?;
    let mut command = Command::new(program);
    match target {
        Target::Nginx => {
            let config = write_config(folder, "nginx.conf", address, nodes)?;
            command.args(["-g", "daemon off;", "-p"]).arg(folder).arg("-c").arg(config);
        }
        Target::Haproxy => {
            command.arg("-db").arg("-f").arg(write_config(folder, "haproxy.cfg", address, nodes)?);
        }
        _ => {
            command.arg(address.to_string()).args(nodes.iter().map(SocketAddr::to_string));
        }
    }
    let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    Ok(Running { target, address, admin: None, _beats: None, process: Some(process) })
}

fn herd(program: &Path, nodes: &[SocketAddr], folder: &Path) -> anyhow::Result<Running> {
    let config = write_config(folder, "herd.yaml", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), nodes)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(config).arg("--data-dir").arg(folder.join("data"));
    let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let lines = process.lines(2)?;
    let address = |line: usize| -> anyhow::Result<SocketAddr> {
        let (_, address) = lines[line].split_once("://").context("herd told no address")?;
        Ok(address.parse()?)
    };
    let admin = address(1)?;
    let beats = Beats::start(admin, nodes.to_vec())?;
    Ok(Running {
        target: Target::Herd,
        address: address(0)?,
        admin: Some(admin),
        _beats: Some(beats),
        process: Some(process),
    })
}
