//! What can be run in a session besides its app, and the words that follow from it.

use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use super::AppSpec;

/// A command in a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Invocation {
    /// These words, as they are.
    Words(Vec<OsString>),
    /// A line, for a shell to read: what `ssh HOST LINE` sends.
    Line(OsString),
    /// An interactive shell.
    Shell,
    /// An interactive login shell, or, where `SHLOGIN_TMUX` is `1` inside and tmux is there, its tmux session `main`.
    Login,
}

/// Chooses in an image what is there: a session may be of any.
const IN_AN_IMAGE: &str = r#"if [ "${SHLOGIN_TMUX:-}" = 1 ] && command -v tmux >/dev/null 2>&1; then
  exec tmux ${SHLOGIN_TMUX_SOCKET:+-L "$SHLOGIN_TMUX_SOCKET"} new-session -A -s main
fi
if command -v bash >/dev/null 2>&1; then SHELL=$(command -v bash); else SHELL=/bin/sh; fi
export SHELL
exec "$SHELL" -l"#;

/// On the node, where the person has chosen a shell (`$0`) for herself.
const ON_THE_NODE: &str = r#"if [ "${SHLOGIN_TMUX:-}" = 1 ] && command -v tmux >/dev/null 2>&1; then
  exec tmux ${SHLOGIN_TMUX_SOCKET:+-L "$SHLOGIN_TMUX_SOCKET"} new-session -A -s main
fi
exec "$0" -l"#;

/// The words to run inside. `None` where the runtime has a verb of its own for it.
pub(super) fn words(what: Invocation, app: &AppSpec, login_shell: &OsStr) -> Option<Vec<OsString>> {
    let sh = |script: &str| vec!["/bin/sh".into(), "-c".into(), script.into()];
    Some(match (what, app.container.is_some()) {
        (Invocation::Words(words), _) => words,
        (Invocation::Line(line), true) => vec!["/bin/sh".into(), "-c".into(), line],
        (Invocation::Line(line), false) => vec![login_shell.to_owned(), "-c".into(), line],
        (Invocation::Shell, true) => return None,
        (Invocation::Shell, false) => vec![login_shell.to_owned(), "-l".into()],
        (Invocation::Login, true) => sh(IN_AN_IMAGE),
        (Invocation::Login, false) => {
            let mut words = sh(ON_THE_NODE);
            words.push(login_shell.to_owned());
            words
        }
    })
}
