//! The floors of `docs/architecture.md`: a module imports only from those below it, and unsafe code stands in one of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The floors from the ground up, as the document has them: `words → sys → …`.
fn floors() -> Vec<String> {
    let document = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let line = document.lines().find_map(|line| line.split('`').find(|part| part.starts_with("words → ")));
    line.expect("the line of floors").split('→').map(|floor| floor.trim().to_owned()).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, without what stands in comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules that this code takes something from: `crate::a::…`, and both of `crate::{a::…, b}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut name, mut at_start) = (1, String::new(), true);
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    found.push(std::mem::take(&mut name));
                    at_start = true;
                }
                c if depth == 1 && at_start && (c.is_alphanumeric() || c == '_') => name.push(c),
                c if c.is_whitespace() => {}
                _ => at_start = false,
            }
        }
        found.push(name);
    }
    found.retain(|name| !name.is_empty());
    found
}

pub(crate) fn imports_point_only_downward() {
    let floors = floors();
    let height = |name: &str| floors.iter().position(|floor| floor == name);
    let source = root().join("src");
    let mut wrong = Vec::new();
    for path in rust_files(&source) {
        let inside = path.strip_prefix(&source).unwrap();
        let own = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_string_lossy()
            .trim_end_matches(".rs")
            .to_owned();
        if matches!(own.as_str(), "lib" | "main") {
            continue;
        }
        let Some(here) = height(&own) else {
            wrong.push(format!("{}: `{own}` is no floor of docs/architecture.md", inside.display()));
            continue;
        };
        for import in imports(&code(&path)) {
            if height(&import).is_none_or(|there| there > here) {
                wrong.push(format!("{}: {own} takes from {import}", inside.display()));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "arrows that run up:\n{}", wrong.join("\n"));
}

pub(crate) fn unsafe_code_stands_in_sys_alone() {
    let sys = root().join("src/sys");
    let folders = ["src", "nginx-free", "tests", "benches"].map(|name| root().join(name));
    let wrong: Vec<_> = folders
        .iter()
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| rust_files(folder))
        .filter(|path| !path.starts_with(&sys) && !path.ends_with("tests/it/floors.rs"))
        .filter(|path| {
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|word| code(path).contains(word))
        })
        .collect();
    assert!(wrong.is_empty(), "unsafe outside src/sys: {wrong:?}");
    for path in rust_files(&sys) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.split("//").next().unwrap_or_default().contains("unsafe {"))
        {
            let before: Vec<_> = text.lines().take(number + 1).collect();
            let explained = before.iter().rev().take(12).any(|line| line.contains("SAFETY:"));
            assert!(explained, "{}:{}: no `// SAFETY:` before {}", path.display(), number + 1, line.trim());
        }
    }
}
