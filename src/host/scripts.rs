//! What an image's scripts are, remembered: asking the runtime takes as long as starting the image does.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ImageSpec;

/// The answer for one image file, as it was when it was asked. A sandbox folder can change without its own times
/// changing, so only files are remembered.
#[derive(Serialize, Deserialize)]
struct Remembered {
    of: Identity,
    start: Option<String>,
}

/// What changes when a file does.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            path: path.to_owned(),
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// The start script remembered for an image, if it is the same file still. `Some(None)`: it has none.
pub(super) fn recall(image: &ImageSpec) -> Option<Option<String>> {
    let of = Identity::of(&image.path)?;
    let text = fs::read(place(image)?).ok()?;
    let remembered: Remembered = serde_json::from_slice(&text).ok()?;
    (remembered.of == of).then_some(remembered.start)
}

/// Remembers it. A cache that cannot be written is none.
pub(super) fn remember(image: &ImageSpec, start: Option<&str>) {
    let Some((of, path)) = Identity::of(&image.path).zip(place(image)) else { return };
    let remembered = Remembered { of, start: start.map(str::to_owned) };
    if let Err(error) = write(&path, &remembered) {
        tracing::debug!(%error, path = %path.display(), "an image's scripts are not remembered");
    }
}

fn write(path: &Path, remembered: &Remembered) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    let partial = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&partial, serde_json::to_vec(remembered)?)?;
    fs::rename(&partial, path)
}

fn place(image: &ImageSpec) -> Option<PathBuf> {
    let digest = Sha256::digest(image.path.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    Some(image.cache.join("scripts").join(format!("{name}.json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_forgotten_when_the_file_changes() {
        let folder = std::env::temp_dir().join(format!("shlogin-scripts-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.sif");
        fs::write(&path, "one").unwrap();
        let image = ImageSpec { named: "x.sif".to_owned(), path: path.clone(), cache: folder.join("cache") };
        assert_eq!(recall(&image), None);
        remember(&image, Some("exec app"));
        assert_eq!(recall(&image), Some(Some("exec app".to_owned())));
        remember(&image, None);
        assert_eq!(recall(&image), Some(None));
        fs::write(&path, "another").unwrap();
        assert_eq!(recall(&image), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
