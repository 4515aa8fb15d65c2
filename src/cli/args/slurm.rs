//! The flags of `start --slurm`: sbatch's own, by their own names, with values that only sbatch understands. Refuses those
//! that a session can't do with.

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::config::{JobOption, REFUSED};

/// Whether a session runs in a job, and what is asked for it.
#[derive(Args)]
pub(in crate::cli) struct SlurmArgs {
    /// Run the session in a Slurm job; its URL stays on this node
    #[arg(long)]
    pub(in crate::cli) slurm: bool,
    /// Print the URL as soon as the job is submitted, and leave it to itself; in an allocation, do not wait for the app
    #[arg(long, conflicts_with = "foreground")]
    pub(in crate::cli) no_wait: bool,
    #[command(flatten)]
    asked: SbatchArgs,
    #[command(flatten)]
    _refused: RefusedArgs,
}

#[derive(Args)]
#[group(id = "sbatch-options", multiple = true, requires = "slurm")]
struct SbatchArgs {
    /// Partition
    #[arg(short, long)]
    partition: Option<String>,
    /// Time limit, as in 4:00:00
    #[arg(short, long)]
    time: Option<String>,
    /// Least time limit that would do
    #[arg(long, value_name = "TIME")]
    time_min: Option<String>,
    /// Account that is charged
    #[arg(short = 'A', long)]
    account: Option<String>,
    /// Quality of service
    #[arg(short, long)]
    qos: Option<String>,
    /// CPUs for each task
    #[arg(short, long, value_name = "N")]
    cpus_per_task: Option<String>,
    /// Nodes; the session runs on the first
    #[arg(short = 'N', long, value_name = "N")]
    nodes: Option<String>,
    /// Tasks
    #[arg(long, value_name = "N")]
    ntasks: Option<String>,
    /// Tasks on each node
    #[arg(long, value_name = "N")]
    ntasks_per_node: Option<String>,
    /// Memory of a node, as in 16G
    #[arg(long, value_name = "SIZE")]
    mem: Option<String>,
    /// Memory for each CPU
    #[arg(long, value_name = "SIZE")]
    mem_per_cpu: Option<String>,
    /// Memory for each GPU
    #[arg(long, value_name = "SIZE")]
    mem_per_gpu: Option<String>,
    /// Generic resources, as in gpu:1
    #[arg(long, value_name = "LIST")]
    gres: Option<String>,
    /// GPUs
    #[arg(short = 'G', long, value_name = "[TYPE:]N")]
    gpus: Option<String>,
    /// GPUs on each node
    #[arg(long, value_name = "[TYPE:]N")]
    gpus_per_node: Option<String>,
    /// CPUs for each GPU
    #[arg(long, value_name = "N")]
    cpus_per_gpu: Option<String>,
    /// Features that a node must have
    #[arg(short = 'C', long, value_name = "FEATURES")]
    constraint: Option<String>,
    /// Nodes that must be among the job's
    #[arg(short = 'w', long, value_name = "NODES")]
    nodelist: Option<String>,
    /// Nodes that must not be
    #[arg(short = 'x', long, value_name = "NODES")]
    exclude: Option<String>,
    /// Reservation
    #[arg(long, value_name = "NAME")]
    reservation: Option<String>,
    /// Not before this time
    #[arg(short, long, value_name = "TIME")]
    begin: Option<String>,
    /// Not before these other jobs have begun or ended
    #[arg(short, long, value_name = "TYPE:JOB")]
    dependency: Option<String>,
    /// Licenses
    #[arg(short = 'L', long, value_name = "NAMES")]
    licenses: Option<String>,
    /// Share no node with other jobs, or not with those of others
    #[arg(long, value_name = "user|mcs", num_args = 0..=1, require_equals = true)]
    exclusive: Option<Option<String>>,
    /// Let others go first, by so much
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true)]
    nice: Option<Option<String>>,
    /// Queue the job again when its node fails
    #[arg(long, conflicts_with = "no_requeue")]
    requeue: bool,
    /// Never queue the job again
    #[arg(long)]
    no_requeue: bool,
    /// Queue the job, and do not start it before `scontrol release`
    #[arg(long)]
    hold: bool,
    /// A comment, which everybody can read
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Of which changes to tell by mail, as in END,FAIL
    #[arg(long, value_name = "TYPE")]
    mail_type: Option<String>,
    /// Whom
    #[arg(long, value_name = "USER")]
    mail_user: Option<String>,
    /// Any other option of sbatch, in one word: --sbatch=--switches=1 (repeatable)
    #[arg(long, value_name = "OPTION", action = ArgAction::Append, allow_hyphen_values = true)]
    sbatch: Vec<JobOption>,
}

impl SlurmArgs {
    /// What is asked for the job, those of `--sbatch` last.
    pub(in crate::cli) fn options(&self) -> Vec<JobOption> {
        let asked = &self.asked;
        let values = [
            ("partition", &asked.partition),
            ("time", &asked.time),
            ("time-min", &asked.time_min),
            ("account", &asked.account),
            ("qos", &asked.qos),
            ("cpus-per-task", &asked.cpus_per_task),
            ("nodes", &asked.nodes),
            ("ntasks", &asked.ntasks),
            ("ntasks-per-node", &asked.ntasks_per_node),
            ("mem", &asked.mem),
            ("mem-per-cpu", &asked.mem_per_cpu),
            ("mem-per-gpu", &asked.mem_per_gpu),
            ("gres", &asked.gres),
            ("gpus", &asked.gpus),
            ("gpus-per-node", &asked.gpus_per_node),
            ("cpus-per-gpu", &asked.cpus_per_gpu),
            ("constraint", &asked.constraint),
            ("nodelist", &asked.nodelist),
            ("exclude", &asked.exclude),
            ("reservation", &asked.reservation),
            ("begin", &asked.begin),
            ("dependency", &asked.dependency),
            ("licenses", &asked.licenses),
            ("comment", &asked.comment),
            ("mail-type", &asked.mail_type),
            ("mail-user", &asked.mail_user),
        ];
        let with_value = values
            .into_iter()
            .filter_map(|(name, value)| Some(JobOption::with_value(name, value.as_deref()?)));
        let maybe = [("exclusive", &asked.exclusive), ("nice", &asked.nice)];
        let with_or_without = maybe.into_iter().filter_map(|(name, value)| {
            let value = value.as_ref()?.as_deref();
            Some(value.map_or_else(|| JobOption::flag(name), |value| JobOption::with_value(name, value)))
        });
        let flags = [("requeue", asked.requeue), ("no-requeue", asked.no_requeue), ("hold", asked.hold)];
        let flags = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| JobOption::flag(name));
        with_value.chain(with_or_without).chain(flags).chain(asked.sbatch.iter().cloned()).collect()
    }
}

/// Options of sbatch's that are known so that it can be said why they are none here. No help shows them.
struct RefusedArgs;

impl Args for RefusedArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        // These mean something else here, as they do everywhere.
        let is_taken = |name: &str| matches!(name, "help" | "version");
        let args = REFUSED.iter().filter(|refused| !is_taken(refused.name)).map(|refused| {
            let why = refused.why;
            Arg::new(refused.name)
                .long(refused.name)
                .short(refused.short.filter(|c| *c != 'e'))
                .num_args(0..=1)
                .allow_hyphen_values(true)
                .default_missing_value("")
                .value_parser(move |_: &str| Err::<String, _>(why))
                .hide(true)
        });
        command.args(args)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RefusedArgs {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parse(words: &[&str]) -> Result<Vec<String>, String> {
        let words = ["shlogin", "start", "image.sif"].iter().chain(words);
        match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Start(args) => {
                Ok(args.slurm.options().iter().map(|option| option.as_str().to_owned()).collect())
            }
            _ => Err("another command".to_owned()),
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_flag_is_sbatch_s_own_with_its_value_unchanged() {
        for (words, option) in [
            (&["-p", "gpu,cpu"][..], "--partition=gpu,cpu"),
            (&["--partition=gpu"], "--partition=gpu"),
            (&["-t", "1-12:00"], "--time=1-12:00"),
            (&["--time-min", "10"], "--time-min=10"),
            (&["-A", "a b"], "--account=a b"),
            (&["-q", "high"], "--qos=high"),
            (&["-c", "4"], "--cpus-per-task=4"),
            (&["-N1-2"], "--nodes=1-2"),
            (&["--ntasks=2"], "--ntasks=2"),
            (&["--ntasks-per-node", "2"], "--ntasks-per-node=2"),
            (&["--mem", "16G"], "--mem=16G"),
            (&["--mem-per-cpu", "2G"], "--mem-per-cpu=2G"),
            (&["--mem-per-gpu", "2G"], "--mem-per-gpu=2G"),
            (&["--gres=gpu:a100:1,tmp:10G"], "--gres=gpu:a100:1,tmp:10G"),
            (&["-G", "a100:2"], "--gpus=a100:2"),
            (&["--gpus-per-node", "1"], "--gpus-per-node=1"),
            (&["--cpus-per-gpu", "8"], "--cpus-per-gpu=8"),
            (&["-C", "ib&[a|b]"], "--constraint=ib&[a|b]"),
            (&["-w", "n[1-3]"], "--nodelist=n[1-3]"),
            (&["-x", "n4"], "--exclude=n4"),
            (&["--reservation", "r"], "--reservation=r"),
            (&["-b", "now+1hour"], "--begin=now+1hour"),
            (&["-d", "afterok:12?after:13"], "--dependency=afterok:12?after:13"),
            (&["-L", "matlab:1"], "--licenses=matlab:1"),
            (&["--exclusive"], "--exclusive"),
            (&["--exclusive=user"], "--exclusive=user"),
            (&["--nice"], "--nice"),
            (&["--nice=-5"], "--nice=-5"),
            (&["--requeue"], "--requeue"),
            (&["--no-requeue"], "--no-requeue"),
            (&["--hold"], "--hold"),
            (&["--comment", "$(id) 'x'"], "--comment=$(id) 'x'"),
            (&["--mail-type", "END"], "--mail-type=END"),
            (&["--mail-user", "ada"], "--mail-user=ada"),
            (&["--sbatch", "--switches=1@10"], "--switches=1@10"),
            (&["--sbatch=-B2"], "-B2"),
        ] {
            let with = [&["--slurm"], words].concat();
            assert_eq!(parse(&with), Ok(vec![option.to_owned()]), "{words:?}");
            let error = parse(words).unwrap_err();
            assert!(error.contains("not provided") && error.contains("--slurm"), "{words:?}: {error}");
        }
        let both = ["--slurm", "--sbatch=--time=1", "-t2", "--sbatch", "--reboot"];
        assert_eq!(parse(&both).unwrap(), ["--time=2", "--time=1", "--reboot"]);
        assert_eq!(parse(&["--slurm"]), Ok(vec![]));
        assert_eq!(parse(&["--port", "80"]), Ok(vec![]));
        assert!(parse(&["--slurm", "--requeue", "--no-requeue"]).is_err());
    }

    #[test]
    fn what_a_session_cannot_do_with_is_refused_with_its_reason_however_it_is_asked_for() {
        for refused in REFUSED {
            let long = format!("--{}", refused.name);
            let error = parse(&["--slurm", "--sbatch", &long]).unwrap_err();
            assert!(error.contains(refused.why), "{error}");
            if matches!(refused.name, "help" | "version") {
                continue;
            }
            let short = refused.short.filter(|c| *c != 'e').map(|c| format!("-{c}"));
            for word in [long].into_iter().chain(short) {
                for words in [&["--slurm", &word][..], &["--slurm", &word, "x"], &[&word, "--slurm"]] {
                    let error = parse(words).unwrap_err();
                    assert!(error.contains(refused.why), "{words:?}: {error}");
                }
            }
        }
        assert!(parse(&["--slurm", "--sbatch", ":"]).unwrap_err().contains("in one word"));
    }

    #[test]
    fn the_help_has_a_heading_of_its_own_and_nothing_of_what_is_refused() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("start").unwrap().render_long_help().to_string();
        let (before, slurm) = help.split_once("\nSlurm:\n").unwrap();
        assert!(slurm.contains("--partition") && slurm.contains("--sbatch") && !slurm.contains("--port"));
        assert!(before.contains("--port") && !before.contains("--partition"));
        assert!(!help.contains("--array") && !help.contains("--job-name"), "{help}");
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "shlogin", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("mem-per-cpu"), "{shell}");
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command.find_subcommand("start").unwrap().clone()).render(&mut page).unwrap();
        assert!(String::from_utf8(page).unwrap().contains("SLURM"));
    }
}
