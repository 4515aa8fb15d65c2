//! A session's GPUs: which it has, and how busy they are, as far as the vendors' tools and the kernel tell an ordinary user.
//!
//! Of a GPU that several people use at once, what the others do is not told apart: it counts as the session's.

use std::{ffi::OsString, fs, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, task::spawn_blocking, time::timeout};

use super::AppSpec;
use crate::{activity::Gpu, config::find_program_of_root_in};

/// How long a driver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the kernel has what AMD's driver tells.
const CARDS: &str = "/sys/class/drm";

/// Whose GPUs a session has.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Gpus {
    None,
    /// NVIDIA's: these, by number or name, or all that there are.
    Nvidia(Option<Vec<String>>),
    /// AMD's.
    Amd,
}

/// How busy the GPUs of this app are.
pub(super) async fn busy(app: &AppSpec) -> Gpu {
    match of(app) {
        Gpus::None => Gpu::None,
        Gpus::Nvidia(which) => {
            let said = timeout(PATIENCE, nvidia(app)).await.ok().flatten();
            said.and_then(|said| busiest(&said, which.as_deref())).map_or(Gpu::Unreadable, Gpu::Busy)
        }
        Gpus::Amd => {
            let read = timeout(PATIENCE, spawn_blocking(|| amd(Path::new(CARDS)))).await;
            read.ok().and_then(Result::ok).flatten().map_or(Gpu::Unreadable, Gpu::Busy)
        }
    }
}

/// What it was given: by its job, or by an option of the runtime.
fn of(app: &AppSpec) -> Gpus {
    let options = app.container.iter().flat_map(|container| &container.options);
    let has = |known: &[&str]| {
        options.clone().any(|option| known.iter().any(|its| option.to_string_lossy().starts_with(its)))
    };
    let nvidia = variable(app, "CUDA_VISIBLE_DEVICES");
    if nvidia.is_some() || has(&["--nv"]) {
        let which = nvidia.map(|which| which.split(',').map(|one| one.trim().to_owned()).collect());
        return Gpus::Nvidia(which);
    }
    let amd = ["ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"].iter().any(|name| variable(app, name).is_some());
    if amd || has(&["--rocm"]) { Gpus::Amd } else { Gpus::None }
}

/// A variable of the app's that lists devices, if there are any in it.
fn variable(app: &AppSpec, name: &str) -> Option<String> {
    let value = |(_, value): &(OsString, OsString)| value.to_string_lossy().into_owned();
    let found = app.env.iter().chain(&app.extra_env).rev().find(|(its, _)| its == name).map(value);
    found.filter(|value| !matches!(value.trim(), "" | "-1" | "none" | "NoDevFiles"))
}

/// A line for each GPU: number, name, percent.
async fn nvidia(app: &AppSpec) -> Option<String> {
    // The process that asks has no environment of its own, and what it runs is in no sandbox.
    let path = app.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
    let mut command = Command::new(find_program_of_root_in(path.unwrap_or_default(), "nvidia-smi")?);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.args(["--query-gpu=index,uuid,utilization.gpu", "--format=csv,noheader,nounits"]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The busiest of `which`; none where one of them is not told, as with a part of a GPU (MIG).
fn busiest(said: &str, which: Option<&[String]>) -> Option<u8> {
    let mut busiest = None;
    let mut found = 0;
    for line in said.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split(',').map(str::trim);
        let (number, name, percent) = (fields.next()?, fields.next()?, fields.next()?);
        let wanted =
            |one: &String| one == number || one.starts_with("GPU-") && name.starts_with(one.as_str());
        if which.is_none_or(|which| which.iter().any(wanted)) {
            found += 1;
            busiest = busiest.max(Some(percent.parse::<u8>().ok()?));
        }
    }
    busiest.filter(|_| which.is_none_or(|which| which.len() == found))
}

/// The busiest of all that tell.
fn amd(cards: &Path) -> Option<u8> {
    let busy = |entry: fs::DirEntry| {
        fs::read_to_string(entry.path().join("device/gpu_busy_percent")).ok()?.trim().parse().ok()
    };
    fs::read_dir(cards).ok()?.flatten().filter_map(busy).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(env: &[(&str, &str)]) -> AppSpec {
        AppSpec {
            container: None,
            args: Vec::new(),
            env: env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            extra_env: Vec::new(),
            cwd: "/".into(),
            umask: 0o077,
        }
    }

    #[test]
    fn a_session_has_the_gpus_that_its_job_names() {
        let which = |text: &str| Gpus::Nvidia(Some(text.split(',').map(str::to_owned).collect()));
        assert_eq!(of(&app(&[("CUDA_VISIBLE_DEVICES", "0,2")])), which("0,2"));
        assert_eq!(of(&app(&[("ROCR_VISIBLE_DEVICES", "0")])), Gpus::Amd);
        for none in [&[][..], &[("CUDA_VISIBLE_DEVICES", "")], &[("CUDA_VISIBLE_DEVICES", "NoDevFiles")]] {
            assert_eq!(of(&app(none)), Gpus::None);
        }
    }

    #[test]
    fn the_busiest_of_its_own_counts_and_what_is_not_told_is_not_guessed() {
        let said = "0, GPU-aaaa-1, 0\n1, GPU-bbbb-2, 97\n2, GPU-cccc-3, 12\n";
        let which =
            |these: &[&str]| busiest(said, Some(&these.iter().map(ToString::to_string).collect::<Vec<_>>()));
        assert_eq!(busiest(said, None), Some(97));
        assert_eq!((which(&["0"]), which(&["0", "2"]), which(&["GPU-bbbb"])), (Some(0), Some(12), Some(97)));
        assert_eq!((which(&["7"]), which(&["MIG-aaaa"])), (None, None));
        assert_eq!(busiest("0, GPU-aaaa-1, [N/A]\n", None), None);
        assert_eq!(busiest("No devices were found\n", None), None);
    }

    #[test]
    fn amd_s_driver_tells_by_files() {
        let folder = std::env::temp_dir().join(format!("shlogin-cards-{}", std::process::id()));
        for (card, percent) in [("card0", Some("7\n")), ("card1", None), ("card2", Some("63\n"))] {
            fs::create_dir_all(folder.join(card).join("device")).unwrap();
            if let Some(percent) = percent {
                fs::write(folder.join(card).join("device/gpu_busy_percent"), percent).unwrap();
            }
        }
        assert_eq!(amd(&folder), Some(63));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(amd(&folder), None);
    }
}
