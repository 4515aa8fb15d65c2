//! `config`, `doctor`, `completions`, `man`.

use std::{io, path::Path, process::ExitCode};

use serde_json::json;

use super::{
    Failure,
    args::{CompletionsArgs, ConfigArgs, ConfigCommand, ManArgs, command},
    code,
    output::Output,
};
use crate::{
    config::{Config, Overrides, SITE_FILE, paths::config_home},
    doctor::{self, Verdict},
};

pub(super) fn config(args: &ConfigArgs, output: &Output) -> Result<ExitCode, Failure> {
    match args.what {
        ConfigCommand::Path => {
            let user = config_home().map(|home| home.join("shlogin/config.toml"));
            let value = json!({ "site": SITE_FILE, "user": user });
            output.result(&value, || {
                let user = user.as_deref().map(Path::display).map(|path| path.to_string());
                format!("{SITE_FILE}\n{}", user.unwrap_or_default())
            });
        }
        ConfigCommand::Show => {
            let resolved = Config::load(&Overrides::default())?;
            output.result(&resolved.entries, || resolved.show());
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn doctor(output: &Output) -> Result<ExitCode, Failure> {
    let findings = doctor::examine(&Config::load(&Overrides::default())?.config);
    output.result(&findings, || doctor::render(&findings));
    Ok(match doctor::verdict(&findings) {
        Verdict::Blocked => code::NO.into(),
        _ => ExitCode::SUCCESS,
    })
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "shlogin", &mut script);
    // A reader that has gone (`| head`) wants no more.
    let _ = io::Write::write_all(&mut io::stdout(), &script);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    match &args.folder {
        Some(folder) => clap_mangen::generate_to(command(), folder)
            .map_err(Failure::io(format!("cannot write to {}", folder.display())))?,
        None => clap_mangen::Man::new(command())
            .render(&mut io::stdout())
            .map_err(Failure::io("cannot print the man page"))?,
    }
    Ok(ExitCode::SUCCESS)
}
