//! A folder being listed: in batches, so that one of any size needs little memory and its first names come at once.

use std::{
    fs::{self, Metadata, ReadDir},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{attributes, names::Names, refusal::Refusal, wire::Replies};
use crate::sys::clock;

/// A batch ends with the entry that passes this many bytes: every client takes a packet of 34,000 (section 3 of the draft).
const BATCH: usize = 32_000;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// What is older is listed with its year, as `ls` does.
const HALF_A_YEAR: i64 = 365 * 24 * 60 * 60 / 2;

/// A folder being listed.
pub(super) struct Folder {
    path: PathBuf,
    /// `.` and `..`, which the standard library leaves out.
    dots: std::array::IntoIter<&'static str, 2>,
    entries: ReadDir,
    /// Comes after the names that were read before it.
    broken: Option<io::Error>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let entries = fs::read_dir(path)?;
        Ok(Self { path: path.to_owned(), dots: [".", ".."].into_iter(), entries, broken: None })
    }

    /// Writes the next batch; its end is [`Refusal::eof`].
    pub(super) fn write_batch(&mut self, replies: &mut Replies, names: &Names) -> Result<(), Refusal> {
        let now = seconds_now();
        let count_at = replies.count();
        let (start, mut count) = (replies.len(), 0);
        while replies.len() - start < BATCH {
            let Some((name, file)) = self.next() else { break };
            replies.bytes(&name);
            replies.bytes(&long_name(&name, &file, names, now));
            attributes::write(replies, &file);
            count += 1;
        }
        if count > 0 {
            replies.set_u32(count_at, count);
            return Ok(());
        }
        Err(self.broken.take().map_or_else(Refusal::eof, Refusal::from))
    }

    /// The next that is still there when it is looked at.
    fn next(&mut self) -> Option<(Vec<u8>, Metadata)> {
        for dots in self.dots.by_ref() {
            if let Ok(file) = fs::symlink_metadata(self.path.join(dots)) {
                return Some((dots.as_bytes().to_owned(), file));
            }
        }
        while self.broken.is_none() {
            match self.entries.next()? {
                Ok(entry) => {
                    if let Ok(file) = entry.metadata() {
                        return Some((entry.file_name().as_bytes().to_owned(), file));
                    }
                }
                Err(error) => self.broken = Some(error),
            }
        }
        None
    }
}

fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A line as `ls -l` has it, which is what people are shown.
pub(super) fn long_name(name: &[u8], file: &Metadata, names: &Names, now: i64) -> Vec<u8> {
    let named = |name: Option<&[u8]>, number: u32| {
        name.map_or_else(|| number.to_string(), |name| String::from_utf8_lossy(name).into_owned())
    };
    let mut line = format!(
        "{} {:>3} {:<8} {:<8} {:>8} {} ",
        mode_line(file),
        file.nlink(),
        named(names.user(file.uid()), file.uid()),
        named(names.group(file.gid()), file.gid()),
        file.size(),
        date(file.mtime(), now)
    )
    .into_bytes();
    line.extend_from_slice(name);
    line
}

fn date(modified: i64, now: i64) -> String {
    let Some(at) = clock::local(modified) else { return modified.to_string() };
    let month = MONTHS.get(at.month).copied().unwrap_or("???");
    if now - modified < HALF_A_YEAR {
        format!("{month} {:>2} {:02}:{:02}", at.day, at.hour, at.minute)
    } else {
        format!("{month} {:>2}  {}", at.day, at.year)
    }
}

/// As `drwxr-sr-x`.
fn mode_line(file: &Metadata) -> String {
    let (kind, mode) = (file.file_type(), file.mode());
    let mut line = String::with_capacity(10);
    line.push(match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () => '-',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let may = |bit: u32| (mode >> shift) & bit != 0;
        line.push(if may(4) { 'r' } else { '-' });
        line.push(if may(2) { 'w' } else { '-' });
        line.push(match (mode & special != 0, may(1)) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    line
}
