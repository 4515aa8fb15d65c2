//! What `list` prints for people: a line for each session, and columns as wide as what stands in them.

use jiff::Timestamp;

use super::sessions::pod;
use crate::session::{JobRecord, Record, State, span};

/// The columns that are shown where any of the sessions is in a job.
const OF_JOBS: [&str; 3] = ["JOB", "NODE", "LEFT"];

/// A table of these sessions; nothing for none.
pub(super) fn table(records: &[Record], now: Timestamp) -> String {
    if records.is_empty() {
        return String::new();
    }
    let jobs = records.iter().any(|record| job_of(record).is_some());
    let heads = ["NAME", "POD", "STATE", "STARTED", "PORT"];
    let heads = heads.into_iter().chain(jobs.then_some(OF_JOBS).into_iter().flatten()).chain(["WHAT"]);
    let mut rows = vec![heads.map(str::to_owned).collect()];
    rows.extend(records.iter().map(|record| row(record, jobs, now)));
    laid_out(&rows)
}

fn row(record: &Record, jobs: bool, now: Timestamp) -> Vec<String> {
    let mut cells = vec![
        record.name.to_string(),
        pod(record),
        state(record),
        record.started_at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        dash(record.app_port.map(|port| port.to_string())),
    ];
    if jobs {
        let job = job_of(record);
        cells.push(dash(job.map(|job| job.id.to_string())));
        let node = job.filter(|job| !job.state.is_waiting()).and_then(|job| job.node.clone());
        cells.push(dash(node));
        cells.push(dash(job.and_then(|job| job.time_left(now)).map(span)));
    }
    let what = record.image.clone().unwrap_or_else(|| record.command.join(" "));
    cells.push(what.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect());
    cells
}

/// The job that its app is in.
fn job_of(record: &Record) -> Option<&JobRecord> {
    record.job.as_ref().or(record.within.as_ref())
}

fn state(record: &Record) -> String {
    let state = match (record.state, record.status) {
        _ if record.detached && record.state != State::Ended => "detached".to_owned(),
        (State::Waiting, _) => "waiting".to_owned(),
        (State::Starting, _) => "starting".to_owned(),
        (State::Running, _) => "running".to_owned(),
        (State::Interrupted, _) => "interrupted".to_owned(),
        (State::Ended, Some(status)) => format!("ended {status}"),
        (State::Ended, None) => "ended".to_owned(),
    };
    // Of what another node said last, nobody here knows whether it holds.
    match &record.node {
        Some(node) if !record.is_here() && record.state != State::Ended => format!("{state} on {node}"),
        _ => state,
    }
}

fn dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

/// Of each column but the last, the widest cell and two spaces.
fn laid_out(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(row.len(), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells_and_lines_end_where_they_do() {
        let rows = [["A", "B", "C"], ["long name", "-", "an image"], ["é", "12", ""]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            laid_out(&rows),
            "A          B   C\n\
             long name  -   an image\n\
             é          12\n"
        );
    }
}
