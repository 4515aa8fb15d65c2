//! What a gate keeps in its owner's home: the session's record, and where its hosts find it. A home may hang for a while, as network
//! file systems do; then whoever asks here waits, and gateway, link and terminals go on.

use std::{path::Path, sync::Arc};

use tokio::task::spawn_blocking;

use crate::{
    config::paths::PrivateFolder,
    link::Rendezvous,
    session::{Record, Records},
};

/// The papers of one gate.
#[derive(Clone)]
pub(super) struct Papers(Arc<Kept>);

struct Kept {
    records: Arc<Records>,
    folder: PrivateFolder,
    meet: Rendezvous,
}

impl Papers {
    /// With `meet` in the session's folder, hosts find this gate.
    pub(super) fn new(records: Arc<Records>, folder: PrivateFolder, meet: Rendezvous) -> Self {
        Self(Arc::new(Kept { records, folder, meet }))
    }

    /// The session's folder.
    pub(super) fn folder(&self) -> &PrivateFolder {
        &self.0.folder
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        self.0.folder.path()
    }

    /// From here on hosts find this gate, and one that had the session before gives it up. Blocks.
    ///
    /// # Errors
    /// As `write(2)`, of either paper.
    pub(super) fn take_over(&self, record: &Record) -> Result<(), String> {
        self.0.meet.write(&self.0.folder).map_err(|error| error.to_string())?;
        self.0.records.write(record).map_err(|error| error.to_string())
    }

    /// Whether hosts still find this gate, and not one that has taken over.
    pub(super) async fn are_ours(&self) -> bool {
        let kept = Arc::clone(&self.0);
        spawn_blocking(move || kept.are_ours()).await.unwrap_or(true)
    }

    /// Writes the record, unless it is another gate's by now. It serves all the same where it cannot be written; what others read
    /// of it is older then. Whether what others read is this, or another gate's.
    pub(super) async fn write(&self, record: &Record) -> bool {
        let (kept, record) = (Arc::clone(&self.0), record.clone());
        let written = spawn_blocking(move || match kept.are_ours() {
            true => kept.records.write(&record),
            // The next look ends this gate.
            false => Ok(()),
        });
        match written.await {
            Ok(Err(error)) => {
                tracing::warn!(%error, "the record cannot be written");
                false
            }
            _ => true,
        }
    }
}

impl Kept {
    fn are_ours(&self) -> bool {
        // What cannot be read at the moment says nothing.
        Rendezvous::read(&self.folder).map_or(true, |meet| meet == self.meet)
    }
}
