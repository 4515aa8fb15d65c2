//! Names of users and groups, from the text of `/etc/passwd` and `/etc/group`. No name service is asked: its library would
//! be the image's, loaded into our process. Who is not in the files has a number.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::Read,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// The most that is read of each file.
const MOST: u64 = 4 << 20;

/// The names that are known.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
    homes: HashMap<u32, PathBuf>,
}

impl Names {
    /// Those of the root folder this process has.
    pub(super) fn read() -> Self {
        Self::of(&text(Path::new("/etc/passwd")), &text(Path::new("/etc/group")))
    }

    /// Those of these texts (`passwd(5)`, `group(5)`). Of two lines for one number, the first counts.
    pub(super) fn of(passwd: &[u8], group: &[u8]) -> Self {
        let mut names = Self::default();
        for fields in lines(passwd) {
            let [name, _, number, _, _, home, ..] = fields[..] else { continue };
            let Some(number) = parse(number) else { continue };
            names.users.entry(number).or_insert_with(|| name.to_owned());
            names.homes.entry(number).or_insert_with(|| OsString::from_vec(home.to_owned()).into());
        }
        for fields in lines(group) {
            let [name, _, number, ..] = fields[..] else { continue };
            let Some(number) = parse(number) else { continue };
            names.groups.entry(number).or_insert_with(|| name.to_owned());
        }
        names
    }

    pub(super) fn user(&self, number: u32) -> Option<&[u8]> {
        self.users.get(&number).map(Vec::as_slice)
    }

    pub(super) fn group(&self, number: u32) -> Option<&[u8]> {
        self.groups.get(&number).map(Vec::as_slice)
    }

    /// A user's home folder.
    pub(super) fn home(&self, number: u32) -> Option<&Path> {
        self.homes.get(&number).map(PathBuf::as_path).filter(|home| home.is_absolute())
    }

    /// The home folder of the user of this name.
    pub(super) fn home_of(&self, name: &[u8]) -> Option<&Path> {
        let number = self.users.iter().find(|(_, its)| *its == name).map(|(number, _)| *number)?;
        self.home(number)
    }
}

/// What cannot be read holds no names.
fn text(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text));
    if read.is_ok() { text } else { Vec::new() }
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

fn parse(number: &[u8]) -> Option<u32> {
    std::str::from_utf8(number).ok()?.parse().ok()
}
