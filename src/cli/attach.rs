//! `attach`: another gateway for a session whose own is gone, while its job goes on.

use std::{os::fd::AsFd, process::ExitCode};

use super::{
    Failure,
    args::OneArgs,
    in_allocation, in_job, launchable,
    output::Output,
    sessions::{records, settle_jobs},
    start::Follower,
};
use crate::{
    config::{Config, Overrides, node_name, paths::PrivateFolder},
    session::{
        Allocated, HostAt, LaunchError, Launched, LentHost, Listener, Lock, Record, SessionSpec, Sockets,
        State, Which, launch,
    },
};

pub(super) fn attach(args: &OneArgs, output: &Output) -> Result<ExitCode, Failure> {
    let config = Config::load(&Overrides::default())?.config;
    let mut found = vec![records()?.find(&args.name, Which::Live)?];
    settle_jobs(&mut found);
    let record = found.remove(0);
    let job = takeable(&record)?;
    let folder = record.log.parent().map(PrivateFolder::existing);
    let Some(Ok(Some(folder))) = folder else {
        return Err(Failure::Session(format!("{} has no folder of records any more", record.name)));
    };
    let mut spec = SessionSpec::saved_in(&folder)
        .map_err(Failure::io(format!("cannot read what {} was started with", record.name)))?;
    crate::config::paths::runtime_folder()?;
    let keys = crate::config::paths::state_folder()?.path().to_owned();
    let lock = Lock::take(&crate::config::paths::runtime_path(), &record.name)?;
    let footprint = launchable::footprint(&config, &record.name, record.id);
    let undo = |failure: Failure| {
        let _ = footprint.remove(lock.as_fd());
        failure
    };
    launch::make_folder(&footprint.session).map_err(|error| undo(error.into()))?;
    // The same pod, for the same URL, where it is free here.
    let taken = record.pod.and_then(|pod| config.pods.pod(pod.value())).map(|pod| {
        Allocated::take(pod, config.pods, &config.gateway.listen, &footprint.session, HostAt::Elsewhere)
    });
    let pod = match taken {
        Some(Ok(pod)) => Ok(pod),
        _ => {
            Allocated::first_free(config.pods, &config.gateway.listen, &footprint.session, HostAt::Elsewhere)
        }
    }
    .map_err(|error| undo(error.into()))?;
    let socket = matches!(pod.gateway, Listener::Unix(_)).then(|| footprint.session.join("gateway"));
    spec.record = Record { state: State::Waiting, detached: false, ..record };
    launchable::place(&mut spec, &config, pod.pod, pod.port, socket, footprint.clone(), keys);
    if let Some(batch) = &mut spec.batch {
        batch.link_hosts = in_job::link_hosts(&config.slurm.link_host);
        batch.resume = Some(job);
        if batch.lent.as_ref().is_some_and(|lent| lent.host == LentHost::ByStart) {
            // Its host has that of the shell in which `start` was typed.
            spec.work.app.env.clear();
        }
    }
    let interrupts = Follower::interrupts()?;
    let sockets = Sockets { ssh: pod.ssh, gateway: pod.gateway, link: pod.link };
    let launched =
        lock.share().map_err(LaunchError::Spawn).and_then(|lock| Launched::start(&spec, lock, sockets));
    let launched = launched.map_err(|error| undo(error.into()))?;
    drop(lock);
    Follower::joined(output, interrupts, launched, &spec.record, false).follow(&footprint)
}

/// The job of a session that can be taken over from here.
fn takeable(record: &Record) -> Result<crate::session::JobRecord, Failure> {
    let no = |why: String| Err(Failure::Session(format!("{} cannot be taken over: {why}", record.name)));
    let Some(job) = record.job.clone() else {
        return no("it runs in no job".to_owned());
    };
    if record.state == State::Ended {
        return no("it has ended".to_owned());
    }
    if record.state == State::Interrupted {
        let node = record.node.as_deref().unwrap_or("the node of its gateway");
        return no(format!("its job is over: on {node}, `shlogin restart {}` gives it another", record.name));
    }
    if job.lent && in_allocation::is_node_of(&job) {
        return no(format!("this is a node of its job {}: type it on a login node", job.id));
    }
    let here = record.node.as_deref() == Some(node_name().as_str());
    if here && !record.detached {
        return no(format!("its gateway is there (process {})", record.pid));
    }
    Ok(job)
}
