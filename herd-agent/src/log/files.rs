//! The files: one that is written, and those of the days before or that were full, up to a number.
//!
//! `herd.jsonl` becomes `herd-2026-11-24.1.jsonl`, then `.2` and so on; the day is that of its first line, in UTC.
//! Whatever goes wrong costs lines: it is told once on standard error, and tried again after a rest.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tracing::Level;

use super::line::{DAY, line};
use super::sink::Target;
use super::{LOST, LogFiles};

/// How long nothing is tried after a failure.
const REST: Duration = Duration::from_secs(5);
/// How often it is seen to that the file is still the one of its name: another program may have rotated it.
const LOOK: Duration = Duration::from_secs(1);

/// Writes lines to files in one folder.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    program: &'static str,
    limits: LogFiles,
    open: Option<Open>,
    rest: Duration,
    rests_until: Option<Instant>,
    warned: bool,
}

/// The file that is written.
#[derive(Debug)]
struct Open {
    file: File,
    day: String,
    bytes: u64,
    looked_at: Instant,
}

impl Files {
    pub(super) fn new(folder: &Path, program: &'static str, limits: LogFiles) -> Self {
        let folder = folder.to_owned();
        Self { folder, program, limits, open: None, rest: REST, rests_until: None, warned: false }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}.jsonl", self.program))
    }

    /// Writes lines of any days and any number, with `written` counting those that are in a file.
    fn put(&mut self, lines: &[u8], written: &mut u64) -> io::Result<()> {
        let (mut from, mut to, mut count) = (0, 0, 0);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let day = day_of(line).unwrap_or("0000-00-00");
            if !self.takes(day, to - from, line.len()) {
                self.run(&lines[from..to])?;
                *written += count;
                (from, count) = (to, 0);
                self.turn(day)?;
            }
            to += line.len();
            count += 1;
        }
        self.run(&lines[from..to])?;
        *written += count;
        Ok(())
    }

    /// Whether the open file takes a line of `day` after `before` bytes that are still to be written.
    fn takes(&self, day: &str, before: usize, line: usize) -> bool {
        let Some(open) = &self.open else { return false };
        let size = open.bytes + before as u64;
        open.day == day && (size == 0 || size + line as u64 <= self.limits.max_bytes)
    }

    /// Makes the open file one that takes a line of `day`.
    fn turn(&mut self, day: &str) -> io::Result<()> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.open(day)?,
        };
        // A file that was there already may take it.
        let empty = open.bytes == 0;
        self.open = Some(Open { day: if empty { day.to_owned() } else { open.day }, ..open });
        if self.takes(day, 0, 1) {
            return Ok(());
        }
        let Some(full) = self.open.take() else { return Ok(()) };
        self.rotate(&full.day)?;
        self.open = Some(self.open(day)?);
        self.forget_old()
    }

    fn run(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let result = open.file.write_all(lines);
        if result.is_err() {
            // Half a line would spoil the next one, too.
            drop(open.file.set_len(open.bytes));
        }
        open.bytes += lines.len() as u64;
        result
    }

    fn open(&self, day: &str) -> io::Result<Open> {
        make_folder(&self.folder)?;
        let path = self.path();
        if std::fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("is not a file"));
        }
        let mut file = own(OpenOptions::new().read(true).append(true).create(true)).open(&path)?;
        restrict(&file)?;
        let mut bytes = file.metadata()?.len();
        let mut began = day.to_owned();
        if bytes > 0 {
            began = first_day(&mut file)?.unwrap_or(began);
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                // The process before this one was killed while it wrote.
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        Ok(Open { file, day: began, bytes, looked_at: Instant::now() })
    }

    /// Gives the file of `day` a name of its own. The name is taken before it is used, so that two processes on one
    /// folder do not overwrite each other's.
    fn rotate(&self, day: &str) -> io::Result<()> {
        let taken = self.rotated()?.into_iter().filter(|(other, ..)| other == day).map(|(_, number, _)| number);
        let mut number = taken.max().unwrap_or(0);
        let name = loop {
            number += 1;
            let name = self.folder.join(format!("{}-{day}.{number}.jsonl", self.program));
            match own(OpenOptions::new().write(true).create_new(true)).open(&name) {
                Ok(_) => break name,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        match std::fs::rename(self.path(), &name) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::remove_file(name),
            renamed => renamed,
        }
    }

    /// The rotated files: day, number and path, oldest first.
    fn rotated(&self) -> io::Result<Vec<(String, u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some((day, number)) = name.to_str().and_then(|name| parse_name(name, self.program)) {
                found.push((day.to_owned(), number, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    fn forget_old(&self) -> io::Result<()> {
        let rotated = self.rotated()?;
        let surplus = rotated.len().saturating_sub(self.limits.keep_files);
        rotated.iter().take(surplus).try_for_each(|(.., path)| match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    /// Lets go of a file that has been renamed or removed.
    fn look(&mut self) {
        let path = self.path();
        let Some(open) = self.open.as_mut().filter(|open| open.looked_at.elapsed() >= LOOK) else { return };
        open.looked_at = Instant::now();
        if !is_same(&open.file, &path) {
            self.open = None;
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.open = None;
        self.rests_until = Some(Instant::now() + self.rest);
        if !std::mem::replace(&mut self.warned, true) {
            let (path, program) = (self.path(), self.program);
            let text = format!("{program}: cannot write {}: {error}; log lines are lost meanwhile\n", path.display());
            drop(io::stderr().write_all(text.as_bytes()));
        }
    }
}

impl Target for Files {
    fn write(&mut self, lines: &[u8], lost: u64) -> u64 {
        let count = lines.split_inclusive(|byte| *byte == b'\n').count() as u64;
        let (mut told, mut written) = (0, 0);
        if self.rests_until.is_none_or(|until| Instant::now() >= until) {
            self.look();
            let note = line(Level::WARN, "herd::log", "log lines were lost", format!(",\"lost\":{lost}").as_bytes());
            let outcome = if lost > 0 { self.put(&note, &mut told) } else { Ok(()) };
            match outcome.and_then(|()| self.put(lines, &mut written)) {
                Ok(()) => self.rests_until = None,
                Err(error) => self.failed(&error),
            }
        }
        LOST.fetch_add(count - written, Relaxed);
        count - written + if told > 0 { 0 } else { lost }
    }
}

/// The day in a line's `ts`.
fn day_of(line: &[u8]) -> Option<&str> {
    line.get(DAY).and_then(|day| std::str::from_utf8(day).ok()).filter(|day| is_day(day))
}

fn is_day(text: &str) -> bool {
    let digit = |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.bytes().enumerate().all(digit)
}

fn first_day(file: &mut File) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    io::Read::by_ref(file).take(DAY.end as u64).read_to_end(&mut head)?;
    Ok(day_of(&head).map(str::to_owned))
}

/// Day and number in `herd-2026-11-24.1.jsonl`.
fn parse_name<'a>(name: &'a str, program: &str) -> Option<(&'a str, u64)> {
    let rest = name.strip_prefix(program)?.strip_prefix('-')?.strip_suffix(".jsonl")?;
    let (day, number) = rest.split_once('.')?;
    Some((day, number.parse().ok()?)).filter(|_| is_day(day))
}

#[cfg(unix)]
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(folder)
}

/// Nobody but the owner reads it.
#[cfg(unix)]
fn own(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn own(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// A file that was there already may have other permissions.
#[cfg(unix)]
fn restrict(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn restrict(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |found: &std::fs::Metadata| (found.dev(), found.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(named)) => identity(&ours) == identity(&named),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_same(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::TestDir;

    const LIMITS: LogFiles = LogFiles { max_bytes: 200, keep_files: 3 };

    /// A line of 100 bytes.
    fn of_day(day: &str, number: u32) -> String {
        let line = format!("{{\"ts\":\"{day}T00:00:00.000Z\",\"n\":\"{number}\",\"pad\":\"");
        format!("{line}{}\"}}\n", "x".repeat(97 - line.len()))
    }

    fn files(dir: &TestDir, limits: LogFiles) -> Files {
        Files { rest: Duration::ZERO, ..Files::new(&dir.path().join("logs"), "herd", limits) }
    }

    #[track_caller]
    fn names(dir: &TestDir, expected: &[&str]) {
        let entries = std::fs::read_dir(dir.path().join("logs")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, expected);
    }

    fn read(dir: &TestDir, name: &str) -> String {
        std::fs::read_to_string(dir.path().join("logs").join(name)).unwrap()
    }

    #[test]
    fn a_file_is_rotated_when_it_is_full_and_when_its_day_is_over() {
        let dir = TestDir::new();
        let mut files = files(&dir, LIMITS);
        let batch: String = (1..=5).map(|number| of_day("2026-11-24", number)).collect();
        assert_eq!(files.write(batch.as_bytes(), 0), 0);
        names(&dir, &["herd-2026-11-24.1.jsonl", "herd-2026-11-24.2.jsonl", "herd.jsonl"]);
        assert_eq!(read(&dir, "herd.jsonl"), of_day("2026-11-24", 5));
        let next = of_day("2026-11-24", 6) + &of_day("2026-11-25", 7);
        assert_eq!(files.write(next.as_bytes(), 0), 0);
        assert_eq!(read(&dir, "herd.jsonl"), of_day("2026-11-25", 7));
        assert_eq!(read(&dir, "herd-2026-11-24.3.jsonl"), of_day("2026-11-24", 5) + &of_day("2026-11-24", 6));
        assert_eq!(files.write(of_day("2026-11-26", 8).as_bytes(), 0), 0);
        let kept = ["herd-2026-11-24.2.jsonl", "herd-2026-11-24.3.jsonl", "herd-2026-11-25.1.jsonl", "herd.jsonl"];
        names(&dir, &kept);
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_ended() {
        let dir = TestDir::new();
        files(&dir, LIMITS).write(of_day("2026-11-24", 1).as_bytes(), 0);
        let half = dir.path().join("logs/herd.jsonl");
        OpenOptions::new().append(true).open(&half).unwrap().write_all(b"{\"ts\":\"20").unwrap();
        let roomy = LogFiles { max_bytes: 1_000, ..LIMITS };
        assert_eq!(files(&dir, roomy).write(of_day("2026-11-24", 2).as_bytes(), 0), 0);
        let text = read(&dir, "herd.jsonl");
        assert!(text.ends_with(&format!("{{\"ts\":\"20\n{}", of_day("2026-11-24", 2))), "{text}");
        assert_eq!(files(&dir, roomy).write(of_day("2026-11-25", 3).as_bytes(), 0), 0);
        assert_eq!((read(&dir, "herd-2026-11-24.1.jsonl"), read(&dir, "herd.jsonl")), (text, of_day("2026-11-25", 3)));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = TestDir::new();
        let mut files = files(&dir, LIMITS);
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        std::fs::write(dir.path().join("logs/herd.jsonl"), of_day("2026-11-24", 1)).unwrap();
        (2..5).for_each(|number| assert_eq!(files.write(of_day("2026-11-24", number).as_bytes(), 0), 0));
        for entry in std::fs::read_dir(dir.path().join("logs")).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_later() {
        let dir = TestDir::new();
        dir.write("logs", "in the way");
        let mut files = files(&dir, LIMITS);
        assert_eq!(files.write(of_day("2026-11-24", 1).as_bytes(), 0), 1);
        assert!(files.warned);
        let two = of_day("2026-11-24", 2) + &of_day("2026-11-24", 3);
        assert_eq!(files.write(two.as_bytes(), 1), 3);
        std::fs::remove_file(dir.path().join("logs")).unwrap();
        let today = String::from_utf8(line(Level::INFO, "t", "again", b"")).unwrap();
        assert_eq!(files.write(today.as_bytes(), 3), 0);
        let text = read(&dir, "herd.jsonl");
        assert!(text.contains(r#""msg":"log lines were lost","lost":3}"#) && text.ends_with(&today), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else { return };
        let dir = TestDir::new();
        let mut files = files(&dir, LIMITS);
        let line = of_day("2026-11-24", 1);
        assert_eq!(files.write(line.as_bytes(), 0), 0);
        let open = files.open.as_mut().unwrap();
        let kept = std::mem::replace(&mut open.file, full);
        assert_eq!((files.write(line.as_bytes(), 0), files.warned), (1, true));
        drop(kept);
        files.limits.max_bytes = 1_000;
        assert_eq!(files.write(of_day("2026-11-24", 2).as_bytes(), 0), 0, "tried again");
        assert_eq!(read(&dir, "herd.jsonl"), line + &of_day("2026-11-24", 2));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = TestDir::new();
        let mut files = files(&dir, LIMITS);
        files.write(of_day("2026-11-24", 1).as_bytes(), 0);
        std::fs::rename(dir.path().join("logs/herd.jsonl"), dir.path().join("moved")).unwrap();
        files.open.as_mut().unwrap().looked_at = Instant::now().checked_sub(LOOK).unwrap();
        files.write(of_day("2026-11-24", 2).as_bytes(), 0);
        assert_eq!(read(&dir, "herd.jsonl"), of_day("2026-11-24", 2));
    }

    #[test]
    fn names_of_other_programs_are_not_touched() {
        assert_eq!(parse_name("herd-2026-11-24.12.jsonl", "herd"), Some(("2026-11-24", 12)));
        for other in ["herd-agent-2026-11-24.1.jsonl", "herd.jsonl", "herd-2026-11-24.jsonl", "herd-2026-11-24.x.jsonl"]
        {
            assert_eq!(parse_name(other, "herd"), None, "{other}");
        }
    }
}
