use std::{
    fs,
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{
    attributes::Attributes,
    connection::{self, ConnectionError},
    extensions, files,
    folder::long_name,
    handles,
    names::Names,
    paths,
    refusal::{Refusal, Status},
    server::Server,
    wire::{Fields, MAX_DATA, MAX_PACKET, Replies, kind},
};

/// A folder of its own, removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shlogin-sftp-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(fs::canonicalize(path).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One packet, its length first.
fn packet(kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = vec![kind];
    fill(&mut body);
    let mut packet = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

fn text(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    into.extend(bytes);
}

fn init() -> Vec<u8> {
    packet(kind::INIT, |body| body.extend(3_u32.to_be_bytes()))
}

/// A request about one path, with what follows it.
fn about(kind: u8, id: u32, path: &[u8], rest: &[u8]) -> Vec<u8> {
    packet(kind, |body| {
        body.extend(id.to_be_bytes());
        text(body, path);
        body.extend(rest);
    })
}

/// What the server says to all that a client sends, the greeting left out: kind, number and the rest of each packet.
fn talk(requests: &[Vec<u8>]) -> Result<Vec<(u8, u32, Vec<u8>)>, ConnectionError> {
    let mut said = Vec::new();
    let server = Server::new(Names::default(), PathBuf::from("/"));
    connection::serve([&[init()], requests].concat().concat().as_slice(), &mut said, server)?;
    let mut rest = said.as_slice();
    let mut packets = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (packet, after) = after.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        let mut fields = Fields::new(packet);
        packets.push((fields.byte().unwrap(), fields.u32().unwrap(), packet[5..].to_vec()));
        rest = after;
    }
    assert_eq!(packets.remove(0).0, kind::VERSION);
    Ok(packets)
}

fn status((of_kind, _, body): &(u8, u32, Vec<u8>)) -> u32 {
    assert_eq!(*of_kind, kind::STATUS, "{body:?}");
    Fields::new(body).u32().unwrap()
}

#[test]
fn flags_become_those_of_open() {
    let flags = |wanted| {
        files::open_flags(wanted).unwrap() & !OFlag::O_CLOEXEC & !OFlag::O_NOCTTY & !OFlag::O_NONBLOCK
    };
    assert_eq!(flags(1), OFlag::O_RDONLY);
    assert_eq!(flags(2), OFlag::O_WRONLY);
    assert_eq!(flags(3 | 4), OFlag::O_RDWR | OFlag::O_APPEND);
    assert_eq!(flags(2 | 8 | 16), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC);
    assert_eq!(flags(2 | 8 | 32), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL);
    assert_eq!(flags(1 | 16), OFlag::O_RDONLY, "what is only read is not cut off");
    assert_eq!(flags(2 | 32), OFlag::O_WRONLY, "nothing is made, so nothing can be in the way");
    assert_eq!(files::open_flags(8).unwrap_err().status, Status::BadMessage);
}

#[test]
fn the_last_part_of_a_path_may_be_missing() {
    let scratch = Scratch::new("real");
    symlink(&scratch.0, scratch.path("link")).unwrap();
    assert_eq!(paths::real(&scratch.path("link")).unwrap(), scratch.0);
    assert_eq!(paths::real(&scratch.path("link/./new")).unwrap(), scratch.path("new"));
    assert_eq!(
        paths::real(&scratch.path("link/../..")).unwrap(),
        scratch.0.parent().unwrap().parent().unwrap()
    );
    assert_eq!(paths::real(&scratch.path("no/new")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(paths::real(&scratch.path("no/..")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(paths::real(Path::new("new")).unwrap(), std::env::current_dir().unwrap().join("new"));
}

#[test]
fn a_tilde_is_a_home_folder() {
    let names =
        Names::of(b"bob:x:7:7:Bob:/home/bob:/bin/sh\nbob2:x:7:7::/no:/bin/sh\nbroken\nx:x:many:1::/:\n", b"");
    let expand = |path: &str| paths::expand(Path::new(path), Path::new("/h"), &names);
    for (path, expanded) in [
        ("~", "/h"),
        ("~/", "/h"),
        ("~/a/~", "/h/a/~"),
        ("~//etc", "/h/etc"),
        ("~bob", "/home/bob"),
        ("~bob/a", "/home/bob/a"),
        ("a", "/h/a"),
        ("/a/~", "/a/~"),
    ] {
        assert_eq!(expand(path).unwrap(), Path::new(expanded), "{path}");
    }
    assert_eq!(expand("~eve").unwrap_err().status, Status::NoSuchFile);
    assert_eq!((names.user(7), names.user(8)), (Some(&b"bob"[..]), None));
}

#[test]
fn reasons_become_the_statuses_of_openssh() {
    let of = |errno| Refusal::from(io::Error::from_raw_os_error(errno)).status;
    assert_eq!(of(libc::ENOENT), Status::NoSuchFile);
    assert_eq!(of(libc::EACCES), Status::PermissionDenied);
    assert_eq!(of(libc::ENOSYS), Status::Unsupported);
    assert_eq!(of(libc::ENOSPC), Status::Failure);
    let zero = fs::metadata("a\0b").unwrap_err();
    assert_eq!(Refusal::from(zero).status, Status::BadMessage);
}

#[test]
fn attributes_with_others_than_ours_are_read() {
    let mut bytes = 0x8000_000f_u32.to_be_bytes().to_vec();
    bytes.extend(5_u64.to_be_bytes());
    for number in [1_u32, 2, 0o644, 3, 4, 1] {
        bytes.extend(number.to_be_bytes());
    }
    text(&mut bytes, b"acl@example.org");
    text(&mut bytes, b"anything");
    assert_eq!(Attributes::read(&mut Fields::new(&bytes)).unwrap().mode_or(0).bits(), 0o644);
    for len in 0..bytes.len() {
        assert!(Attributes::read(&mut Fields::new(&bytes[..len])).is_err(), "{len}");
    }
}

#[test]
fn a_long_name_is_a_line_of_ls() {
    let scratch = Scratch::new("long");
    let file = scratch.path("f");
    fs::write(&file, b"12345").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4754)).unwrap();
    let seen = fs::metadata(&file).unwrap();
    let line = |now| String::from_utf8(long_name(b"f", &seen, &Names::default(), now)).unwrap();
    let modified = std::os::unix::fs::MetadataExt::mtime(&seen);
    assert!(line(modified).starts_with("-rwsr-xr--   1 "), "{}", line(modified));
    assert!(line(modified).contains("        5 ") && line(modified).ends_with(" f"), "{}", line(modified));
    assert!(line(modified).contains(':') && !line(modified + 365 * 86_400).contains(':'));
}

#[test]
fn a_name_that_is_no_text_is_itself_and_no_other() {
    let scratch = Scratch::new("bytes");
    let odd = scratch.0.join(std::ffi::OsString::from_vec(b"a\xff".to_vec()));
    let replaced = scratch.path("a\u{fffd}");
    fs::write(&odd, "odd").unwrap();
    fs::write(&replaced, "replaced").unwrap();
    let path = odd.as_os_str().as_bytes();
    let replies = talk(&[about(kind::LSTAT, 7, path, &[]), about(kind::REMOVE, 8, path, &[])]).unwrap();
    assert_eq!((replies[0].0, replies[0].1), (kind::ATTRS, 7));
    assert_eq!((status(&replies[1]), replies[1].1), (0, 8));
    assert!(!odd.exists() && replaced.exists());
}

#[test]
fn a_rename_of_version_3_replaces_nothing() {
    let scratch = Scratch::new("rename");
    let (from, to) = (scratch.path("from"), scratch.path("to"));
    fs::write(&from, "from").unwrap();
    fs::write(&to, "to").unwrap();
    assert_eq!(files::rename_to_free(&from, &to).unwrap_err().status, Status::Failure);
    assert_eq!(fs::read_to_string(&to).unwrap(), "to");
    files::rename_to_free(&from, &scratch.path("free")).unwrap();
    assert_eq!(files::rename_to_free(&from, &to).unwrap_err().status, Status::NoSuchFile);
    assert_eq!(fs::read_to_string(scratch.path("free")).unwrap(), "from");
}

#[test]
fn handles_and_reads_have_their_bounds() {
    let scratch = Scratch::new("bounds");
    let file = scratch.path("large");
    fs::write(&file, vec![7; 2 * MAX_DATA]).unwrap();
    let open = |id, path: &Path| {
        let rest = [1_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        about(kind::OPEN, id, path.as_os_str().as_bytes(), &rest)
    };
    let read = |id, handle: &[u8], len: u32| {
        about(kind::READ, id, handle, &[&0_u64.to_be_bytes()[..], &len.to_be_bytes()].concat())
    };
    let first = [0; 4];
    let requests = [
        open(1, &file),
        read(2, &first, u32::MAX),
        about(kind::CLOSE, 3, &first, &[]),
        about(kind::CLOSE, 4, &first, &[]),
        read(5, b"no handle of ours", 1),
        about(kind::READDIR, 6, &[], &[]),
        packet(99, |body| body.extend(7_u32.to_be_bytes())),
    ];
    let replies = talk(&requests).unwrap();
    assert_eq!((replies[0].0, &replies[0].2[4..]), (kind::HANDLE, &first[..]));
    assert_eq!((replies[1].0, replies[1].2.len()), (kind::DATA, 4 + MAX_DATA));
    assert_eq!(replies[2..].iter().map(status).collect::<Vec<_>>(), [0, 4, 4, 4, 8]);
    assert_eq!(replies.iter().map(|reply| reply.1).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);

    let many: Vec<_> =
        (0..=u32::try_from(handles::MOST).unwrap()).map(|id| open(id, Path::new("/dev/null"))).collect();
    crate::sys::process::raise_descriptor_limit().unwrap();
    let replies = talk(&many).unwrap();
    assert_eq!(status(replies.last().unwrap()), Status::Failure.code());
    assert!(replies[..handles::MOST].iter().all(|reply| reply.0 == kind::HANDLE));
}

#[test]
fn what_does_not_fit_ends_the_connection() {
    let whole = about(kind::STAT, 1, b"/", &[]);
    for (what, requests) in [
        ("a packet of no length", vec![0_u32.to_be_bytes().to_vec()]),
        ("one that is too long", vec![u32::try_from(MAX_PACKET + 1).unwrap().to_be_bytes().to_vec()]),
        ("one that is cut off", vec![whole[..whole.len() - 1].to_vec()]),
        (
            "a field that is longer than its packet",
            vec![packet(kind::STAT, |body| body.extend([0, 0, 0, 1, 0, 0, 0, 9, b'/']))],
        ),
        ("a second beginning", vec![init()]),
    ] {
        assert!(talk(&requests).is_err(), "{what}");
    }
    let server = Server::new(Names::default(), PathBuf::from("/"));
    assert!(connection::serve(&whole[..], io::sink(), server).is_err(), "no beginning");
}

/// Bytes that come one at a time.
struct Slowly<'a>(&'a [u8]);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut buffer[..1])
    }
}

/// A client that takes no more.
struct Deaf;

impl Write for Deaf {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn packets_come_in_any_pieces_and_a_deaf_client_is_left() {
    let requests = [init(), about(kind::STAT, 1, b"/", &[]), about(kind::REALPATH, 2, b"", &[])].concat();
    let (mut slowly, mut at_once) = (Vec::new(), Vec::new());
    let server = || Server::new(Names::default(), PathBuf::from("/"));
    connection::serve(Slowly(&requests), &mut slowly, server()).unwrap();
    connection::serve(requests.as_slice(), &mut at_once, server()).unwrap();
    assert_eq!(slowly, at_once);
    assert!(connection::serve(requests.as_slice(), Deaf, server()).is_err());
}

#[test]
fn names_are_given_for_numbers() {
    let names = Names::of(b"bob:x:7:7:::\n", b"crew:x:9:\n");
    let numbers = [7_u32.to_be_bytes(), 8_u32.to_be_bytes()].concat();
    let mut replies = Replies::default();
    extensions::write_names(&mut replies, &names, &numbers, &9_u32.to_be_bytes());
    let mut fields = Fields::new(replies.as_bytes());
    assert_eq!(fields.bytes().unwrap(), b"\0\0\0\x03bob\0\0\0\0");
    assert_eq!(fields.bytes().unwrap(), b"\0\0\0\x04crew");
}
