//! Letting somebody in to a terminal, as its owner asks for it over the control socket.

use std::path::Path;

use tokio::task::spawn_blocking;

use super::door::DoorHandle;
use crate::{
    host::Invocation,
    session::control::{Answer, ShareSpec},
    share::{Guests, Terms},
    terminal::{Keep, New, Recording, Terminal, TerminalId, Terminals},
    words::{Access, Size},
};

/// What is needed for it.
#[derive(Clone)]
pub(super) struct Sharing {
    pub(super) terminals: Terminals,
    pub(super) guests: Guests,
    pub(super) door: DoorHandle,
}

impl Sharing {
    /// Lets one person in. An error is a sentence for the owner.
    pub(super) async fn share(&self, spec: ShareSpec) -> Result<Answer, String> {
        let ShareSpec { access, lasts, label, terminal, record } = spec;
        let terminal = self.terminal(terminal.map(TerminalId::from)).await?;
        let id = terminal.id();
        let terms = Terms { access, lasts, label, terminal: id };
        let (guest, code) = self.guests.grant(terms).map_err(|error| error.to_string())?;
        if let Some(path) = &record
            && let Err(why) = self.record(&terminal, path).await
        {
            self.guests.revoke(&guest.to_string());
            return Err(why);
        }
        let verb = if access >= Access::Type { "type" } else { "watch" };
        terminal.notify_owner(&format!("{guest} may {verb} here; over ssh, Ctrl-^ ends all visits"));
        Ok(Answer::Shared {
            guest: guest.to_string(),
            terminal: id.value(),
            url: self.door.guest_url(&code),
            code: code.reveal().to_owned(),
        })
    }

    async fn terminal(&self, wanted: Option<TerminalId>) -> Result<Terminal, String> {
        if let Some(wanted) = wanted {
            let found = self.terminals.get(wanted);
            return found.ok_or_else(|| format!("there is no terminal {}", wanted.value()));
        }
        if let Some(last) = self.terminals.last_used() {
            return Ok(last);
        }
        let env = [("TERM", "xterm-256color"), ("COLORTERM", "truecolor")];
        let env = env.map(|(name, value)| (name.into(), value.into())).to_vec();
        let (what, size) = (Invocation::Login, Size::default());
        let new = New { what, env, size, modes: None, keep: Keep::UntilItEnds };
        self.terminals.open(new).await.map_err(|error| error.to_string())
    }

    /// Records a terminal for as long as somebody is let in to it.
    async fn record(&self, terminal: &Terminal, path: &Path) -> Result<(), String> {
        if terminal.is_recorded() {
            return Err(format!("terminal {} is recorded already", terminal.id().value()));
        }
        let (path, size, title) = (path.to_owned(), terminal.size(), terminal.title());
        // Her home may lie on a server that hangs.
        let begun = spawn_blocking(move || Recording::begin(&path, size, &title)).await;
        let recording = begun.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        terminal.record(Some(recording));
        let (guests, terminal) = (self.guests.clone(), terminal.clone());
        let mut changed = guests.changed();
        tokio::spawn(async move {
            while guests.shares(terminal.id()) && changed.changed().await.is_ok() {}
            terminal.record(None);
        });
        Ok(())
    }
}
