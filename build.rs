//! Puts the terminal page, which `scripts/build-web` builds into `web/dist`, into the binary: as a table of names, kinds
//! and bytes that `src/gateway/pages/assets.rs` includes. It names copies of its own: the folder of a build may be shared by
//! several clones, of which the one that filled it is gone.

use std::{
    env,
    error::Error,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot embed the terminal page: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    let top = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let dist = top.join("web/dist");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=web/dist");
    let page = dist.join("terminal.html");
    if !page.is_file() {
        return Err(format!("{} is missing: run scripts/build-web first", page.display()).into());
    }
    let copies = out.join("page");
    fs::create_dir_all(&copies)?;
    let page = copied(&page, &copies)?;
    let mut table = format!("const PAGE: &str = include_str!({page});\nconst ASSETS: &[Asset] = &[\n");
    for path in plain_files(&dist.join("assets"))? {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name that is not UTF-8")?;
        let kind = kind(&path).ok_or_else(|| format!("{name}: nobody knows what kind of file this is"))?;
        let compressed = compressed(&path);
        let gzip = match compressed.is_file() {
            true => format!("Some(include_bytes!({}))", copied(&compressed, &copies)?),
            false => "None".to_owned(),
        };
        let bytes = copied(&path, &copies)?;
        writeln!(
            table,
            "Asset {{ name: {name:?}, kind: {kind:?}, bytes: include_bytes!({bytes}), gzip: {gzip} }},"
        )?;
    }
    table.push_str("];\n");
    fs::write(out.join("terminal_page.rs"), table)?;
    Ok(())
}

/// Copies a file; where the copy is, as Rust has it.
fn copied(path: &Path, copies: &Path) -> Result<String, Box<dyn Error>> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name that is not UTF-8")?;
    fs::copy(path, copies.join(name))?;
    Ok(format!("concat!(env!(\"OUT_DIR\"), {:?})", format!("/page/{name}")))
}

/// The files of a folder in the order of their names, without those that are another's compressed form.
fn plain_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "gz") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

fn kind(path: &Path) -> Option<&'static str> {
    Some(match path.extension()?.to_str()? {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        _ => return None,
    })
}
