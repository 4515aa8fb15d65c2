//! The script of a job: a template with two words replaced. Refuses a template that would not run the session, or would
//! bring options of sbatch's that a session can't do with.

use std::path::{Path, PathBuf};

use crate::config::{RefusedOption, TEMPLATE_NAME, TemplateText, refusal};

/// The template that holds where nobody has written one.
const EMBEDDED: &str = include_str!("../../../slurm/session.sbatch");

/// Slurm takes scripts of up to 4 MiB, and keeps each job's in memory and in the spool.
const MAX_LENGTH: usize = 64 << 10;

const PROGRAM: &str = "@SHLOGIN@";
const FOLDER: &str = "@FOLDER@";

/// Why there is no script.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is too long.
    #[error("{} is longer than {} KiB", .0.display(), MAX_LENGTH >> 10)]
    TooLong(PathBuf),
    /// A word that has to be in it is not, outside of comments.
    #[error("{} has no {placeholder} outside of its comments", file.display())]
    Missing {
        /// The template.
        file: PathBuf,
        /// Which.
        placeholder: &'static str,
    },
    /// A line can't stay.
    #[error("{}:{line}: {fault}", file.display())]
    Line {
        /// The template.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        fault: Fault,
    },
    /// A path can't stand in a script.
    #[error("{path:?} cannot stand in a job's script: it {why}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first line.
    #[error("it has to begin with #! and the path of a shell")]
    NoShell,
    /// A character that sbatch or the shell stumbles over.
    #[error("it ends like a line of DOS, or has a NUL in it")]
    Character,
    /// A word that looks like one that is replaced.
    #[error("{0} is unknown: there are @SHLOGIN@ and @FOLDER@")]
    Unknown(String),
    /// A word that is replaced, in quotation marks.
    #[error("{0} stands in quotation marks, and brings its own")]
    Quoted(&'static str),
    /// The program would not be the job's first process.
    #[error("the line has to begin with `exec`: Slurm's signals reach the job's first process alone")]
    NoExec,
    /// An option of sbatch's.
    #[error("--{} is not possible: {}", .0.name, .0.why)]
    Option(&'static RefusedOption),
    /// The job would be several.
    #[error("a session is one job: there can be no {0}")]
    Parts(String),
    /// Options in another system's words, which sbatch follows too.
    #[error("write {0} as #SBATCH")]
    Foreign(&'static str),
}

/// The script that runs `program` for the session in `folder`, from `template`, else from the program's own.
///
/// # Errors
/// The first thing that is wrong with the template, with its file and line; a path that is not UTF-8 or has a control
/// character in it.
pub(super) fn render(
    template: Option<&TemplateText>,
    program: &Path,
    folder: &Path,
) -> Result<String, TemplateError> {
    let (file, text) = match template {
        Some(template) => (template.file.as_path(), template.text.as_str()),
        None => (Path::new(TEMPLATE_NAME), EMBEDDED),
    };
    if text.len() > MAX_LENGTH {
        return Err(TemplateError::TooLong(file.to_owned()));
    }
    let words = [(PROGRAM, quoted(program)?), (FOLDER, quoted(folder)?)];
    let mut used = [false; 2];
    let mut script = String::with_capacity(text.len() + 256);
    // At least one line, so that an empty file lacks its shell.
    for (index, line) in text.split('\n').enumerate() {
        let at = |fault| TemplateError::Line { file: file.to_owned(), line: index + 1, fault };
        if index == 0 && !line.starts_with("#!/") {
            return Err(at(Fault::NoShell));
        }
        if index > 0 {
            script.push('\n');
        }
        if line.contains(['\r', '\0']) {
            return Err(at(Fault::Character));
        }
        if line.trim_start().starts_with('#') {
            check_options(line).map_err(at)?;
            script.push_str(line);
        } else {
            script.push_str(&replaced(line, &words, &mut used).map_err(at)?);
        }
    }
    match words.iter().zip(used).find(|(_, used)| !used) {
        Some(((placeholder, _), _)) => Err(TemplateError::Missing { file: file.to_owned(), placeholder }),
        None => Ok(script),
    }
}

/// A path as one word of `sh` (POSIX.1-2024, Shell Command Language, 2.2.2): between single quotes all but a single quote
/// is itself.
fn quoted(path: &Path) -> Result<String, TemplateError> {
    let refused = |why| TemplateError::Path { path: path.to_owned(), why };
    let text = path.to_str().ok_or_else(|| refused("is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(refused("has a control character in it"));
    }
    if !path.is_absolute() {
        return Err(refused("does not begin with /"));
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// A line that the shell runs.
fn replaced(line: &str, words: &[(&'static str, String); 2], used: &mut [bool; 2]) -> Result<String, Fault> {
    let mut done = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('@') {
        let name = rest[at + 1..].find(|c: char| !c.is_ascii_uppercase() && c != '_');
        let end = name.map(|len| at + 1 + len).filter(|end| *end > at + 1 && rest[*end..].starts_with('@'));
        let Some(end) = end else {
            done.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        };
        let found = &rest[at..=end];
        let Some(which) = words.iter().position(|(placeholder, _)| *placeholder == found) else {
            return Err(Fault::Unknown(found.to_owned()));
        };
        let (placeholder, word) = &words[which];
        let before = &line[..line.len() - rest.len() + at];
        if ['"', '\''].iter().any(|quote| before.matches(*quote).count() % 2 == 1) {
            return Err(Fault::Quoted(placeholder));
        }
        if *placeholder == PROGRAM && !line.trim_start().starts_with("exec ") {
            return Err(Fault::NoExec);
        }
        used[which] = true;
        done.push_str(&rest[..at]);
        done.push_str(word);
        rest = &rest[end + 1..];
    }
    done.push_str(rest);
    Ok(done)
}

/// A comment, in which sbatch may find options.
fn check_options(line: &str) -> Result<(), Fault> {
    for foreign in ["#PBS", "#BSUB"] {
        if line.starts_with(foreign) {
            return Err(Fault::Foreign(foreign));
        }
    }
    let Some(options) = line.strip_prefix("#SBATCH") else { return Ok(()) };
    // sbatch takes quotation marks and backslashes away, and stops at a comment.
    let plain: String = options.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    for word in plain.split_whitespace().take_while(|word| !word.starts_with('#')) {
        if matches!(word, "hetjob" | "packjob" | ":") {
            return Err(Fault::Parts(word.to_owned()));
        }
        if let Some(refused) = refusal(word) {
            return Err(Fault::Option(refused));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::PermissionsExt},
        process::Command,
    };

    use super::*;

    fn of(text: &str) -> Result<String, TemplateError> {
        let template = TemplateText { file: "/t.sbatch".into(), text: text.to_owned() };
        render(Some(&template), Path::new("/p"), Path::new("/f"))
    }

    fn error(text: &str) -> String {
        of(text).unwrap_err().to_string()
    }

    #[test]
    fn the_embedded_template_runs_the_host_role_as_the_job_s_first_process() {
        let script = render(None, Path::new("/usr/bin/shlogin"), Path::new("/home/ada/x")).unwrap();
        assert!(script.starts_with("#!/bin/sh\n"));
        assert!(script.ends_with("\nexec '/usr/bin/shlogin' @host '/home/ada/x'\n"), "{script}");
        assert!(!script.lines().any(|line| line.starts_with("#SBATCH")), "no option holds unasked");
    }

    #[test]
    fn hostile_paths_reach_the_program_as_the_words_they_are() {
        let folder = std::env::temp_dir().join(format!("shlogin-test-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let hostile = ["a b", "it's", "'", "$HOME `id` $(id)", "\\", "*", "\"", "é ☃", "-x;id", "@FOLDER@ #"];
        for name in hostile {
            let program = folder.join(name).join("shlogin");
            std::fs::create_dir(folder.join(name)).unwrap();
            std::fs::write(&program, "#!/bin/sh\nprintf '%s|' \"$0\" \"$@\"\n").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let script = render(None, &program, &folder.join(name)).unwrap();
            // As slurmstepd does: the script is a file that is run.
            let job = folder.join("job");
            std::fs::write(&job, script).unwrap();
            let run = Command::new("sh").arg(&job).output().unwrap();
            let said = String::from_utf8(run.stdout).unwrap();
            let expected = format!("{}|@host|{}|", program.display(), folder.join(name).display());
            assert_eq!(said, expected, "{}", String::from_utf8_lossy(&run.stderr));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_that_could_end_a_line_is_refused() {
        for bad in [&b"/a\nb"[..], b"/a\rb", b"/a\0b", b"/a\x1b[2J", b"/\xff", b"relative"] {
            let path = Path::new(OsStr::from_bytes(bad));
            for (program, folder) in [(path, Path::new("/f")), (Path::new("/p"), path)] {
                let error = render(None, program, folder).unwrap_err();
                assert!(matches!(&error, TemplateError::Path { .. }), "{error}");
                assert!(!error.to_string().contains(char::is_control), "{error}");
            }
        }
    }

    #[test]
    fn a_site_s_template_may_say_more() {
        let text = "#!/bin/bash -l\n#SBATCH --mem=2G -t \"4:00:00\" # not --array\n##SBATCH --array=1\nmodule load x\n\
                    W=@FOLDER@/w; mail a@b.c @x @\n  exec numactl -N 0 @SHLOGIN@ \\\n  @host @FOLDER@";
        let script = of(text).unwrap();
        assert_eq!(script, text.replace("@SHLOGIN@", "'/p'").replace("@FOLDER@", "'/f'"));
    }

    #[test]
    fn a_template_that_would_not_run_the_session_is_refused_by_name_and_line() {
        let run = "exec @SHLOGIN@ @host @FOLDER@\n";
        assert_eq!(error("#!/bin/sh\n"), "/t.sbatch has no @SHLOGIN@ outside of its comments");
        assert_eq!(
            error("#!/bin/sh\nexec @SHLOGIN@\n# @FOLDER@\n"),
            "/t.sbatch has no @FOLDER@ outside of its comments"
        );
        assert_eq!(error(&format!("#!/bin/sh\n{}", "#".repeat(64 << 10))), "/t.sbatch is longer than 64 KiB");
        for (text, said) in [
            ("", "/t.sbatch:1: it has to begin with #!"),
            (run, "/t.sbatch:1: it has to begin with #!"),
            ("#!/bin/sh\n\n@SHLOGIN@ @host @FOLDER@\n", "/t.sbatch:3: the line has to begin with `exec`"),
            (
                "#!/bin/sh\nexec \"@SHLOGIN@\" @host @FOLDER@\n",
                "/t.sbatch:2: @SHLOGIN@ stands in quotation marks",
            ),
            ("#!/bin/sh\nA='@FOLDER@'\n", "/t.sbatch:2: @FOLDER@ stands in quotation marks"),
            (
                "#!/bin/sh\necho @TOKEN@\n",
                "/t.sbatch:2: @TOKEN@ is unknown: there are @SHLOGIN@ and @FOLDER@",
            ),
            ("#!/bin/sh\r\n", "/t.sbatch:1: it ends like a line of DOS"),
            ("#!/bin/sh\n#SBATCH --time=1 -a 1-3\n", "/t.sbatch:2: --array is not possible"),
            ("#!/bin/sh\n#SBATCH \"--arr\"ay=1\n", "/t.sbatch:2: --array is not possible"),
            ("#!/bin/sh\n#SBATCH --outp=/tmp/x\n", "/t.sbatch:2: --output is not possible"),
            ("#!/bin/sh\n#SBATCH hetjob\n", "/t.sbatch:2: a session is one job: there can be no hetjob"),
            ("#!/bin/sh\n#PBS -t 1-3\n", "/t.sbatch:2: write #PBS as #SBATCH"),
            ("#!/bin/sh\n#BSUB -n 1\n", "/t.sbatch:2: write #BSUB as #SBATCH"),
        ] {
            let error = error(&format!("{text}{}", if text.is_empty() { "" } else { run }));
            assert!(error.starts_with(said), "{text:?} gave {error:?}");
        }
    }
}
