//! Where a role's flags come from: the command line, else the environment, else `--node-config FILE`.
//!
//! Invariant: every flag of a role can be given in each of the three ways, because all of them are made of
//! the flags themselves; a key of the file that is no flag is refused with the nearest one.

use anyhow::Result;
use clap::builder::{BoolishValueParser, OsStr, Resettable};
use clap::{Arg, ArgAction, Command};
use octet_runtime::config::{FlagGiven, flags};
use std::ffi::OsString;
use std::path::PathBuf;

/// The subcommands that are roles.
pub const ROLES: [&str; 4] = ["coordinator", "learner", "rollout-worker", "reward-service"];
/// The flag that names the file.
const NODE_CONFIG: &str = "node_config";

/// The command with the environment's and the file's values behind those of the command line.
///
/// # Errors
/// The file cannot be read, or gives what no flag takes.
pub fn layered(mut command: Command, arguments: &[OsString]) -> Result<Command> {
    for role in ROLES {
        command = command.mut_subcommand(role, |role| role.mut_args(with_environment));
    }
    // Only for the file's name: what is wrong with the rest is told once, when all is together.
    let Ok(first) = command.clone().ignore_errors(true).try_get_matches_from(arguments) else {
        return Ok(command);
    };
    let Some((role, given)) = first.subcommand().filter(|(name, _)| ROLES.contains(name)) else {
        return Ok(command);
    };
    match given.get_one::<PathBuf>(NODE_CONFIG) {
        Some(file) => with_file(command, role, file),
        None => Ok(command),
    }
}

/// `--metrics-listen` is also `OCTET_METRICS_LISTEN`.
fn with_environment(arg: Arg) -> Arg {
    let arg = match arg.get_action() {
        // "1" and "yes" are what people write into an environment.
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    };
    // The recipe has an environment of its own, key by key.
    if arg.get_id() == "set" {
        return arg;
    }
    let variable = format!("OCTET_{}", arg.get_id().as_str().to_uppercase());
    // Compose files and manifests pass on variables that nobody set as empty ones.
    let empty = std::env::var_os(&variable).is_some_and(|value| value.is_empty());
    if empty {
        arg.env(Resettable::<OsStr>::Reset)
    } else {
        arg.env(variable).hide_env_values(true)
    }
}

fn with_file(mut command: Command, role: &str, file: &PathBuf) -> Result<Command> {
    let known: Vec<Arg> = command
        .find_subcommand(role)
        .into_iter()
        .flat_map(Command::get_arguments)
        .filter(|arg| arg.get_id() != NODE_CONFIG)
        .cloned()
        .collect();
    let names: Vec<String> = known.iter().map(name).collect();
    for given in flags(file, names.iter().map(String::as_str))? {
        let Some(arg) = known.iter().find(|arg| name(arg) == given.flag) else { continue };
        check(arg, &given)?;
        let (id, values) = (arg.get_id().clone(), given.values);
        command = command.mut_subcommand(role, |role| {
            role.mut_arg(id.as_str(), |arg| arg.required(false).default_values(values))
        });
    }
    Ok(command)
}

/// A flag as the file calls it.
fn name(arg: &Arg) -> String {
    arg.get_long().map_or_else(|| arg.get_id().as_str().replace('_', "-"), str::to_owned)
}

/// Has the flag itself say whether it takes the value.
fn check(arg: &Arg, given: &FlagGiven) -> Result<()> {
    let many = matches!(arg.get_action(), ArgAction::Append);
    if !many && given.values.len() != 1 {
        Err(given.refusal(format!("expected one value, found {}", given.values.len())))?;
    }
    let alone = Arg::new("value")
        .long("value")
        .action(ArgAction::Append)
        .num_args(1)
        .value_parser(arg.get_value_parser().clone());
    let words = given.values.iter().flat_map(|value| ["--value".to_owned(), value.clone()]);
    let alone = Command::new("file").no_binary_name(true).arg(alone).try_get_matches_from(words);
    alone.map(drop).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        let problem = line.trim_start_matches("error: ").replace(" for '--value <value>'", "");
        anyhow::Error::from(given.refusal(problem))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;
    use clap::parser::ValueSource;

    fn parsed(file: &str, more: &[&str]) -> Result<clap::ArgMatches> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.toml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let arguments = ["octet", "learner", "--node-config", path].iter().chain(more);
        let arguments: Vec<OsString> = arguments.map(OsString::from).collect();
        let command = layered(crate::Cli::command(), &arguments)?;
        let matches = command.try_get_matches_from(&arguments)?;
        Ok(matches.subcommand_matches("learner").unwrap().clone())
    }

    const ENOUGH: &str = "run-dir = \"runs/a\"\ncoordinator = \"http://127.0.0.1:1\"\n\
        join-token = \"sesame\"\n";

    #[test]
    fn a_file_gives_what_the_command_line_does_not() {
        let file = format!("{ENOUGH}listen = \"127.0.0.1:7\"\ninsecure-network = true\n");
        let found = parsed(&file, &["--listen", "127.0.0.1:8"]).unwrap();
        let listen = found.get_one::<std::net::SocketAddr>("listen").unwrap();
        assert_eq!(listen.port(), 8, "the command line wins");
        assert_eq!(found.get_one::<String>("join_token").unwrap(), "sesame");
        assert!(found.get_flag("insecure_network"));
        assert_eq!(found.value_source("join_token"), Some(ValueSource::DefaultValue));
    }

    #[test]
    fn what_a_file_may_not_say_is_told_with_its_line() {
        let error = parsed(&format!("{ENOUGH}lisen = \"x\"\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("node.toml:4") && error.contains("`listen`"), "{error}");
        let error = parsed(&format!("{ENOUGH}listen = 5\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("node.toml:4") && error.contains("'5'"), "{error}");
        let error = parsed(&format!("{ENOUGH}listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n"), &[]);
        assert!(error.unwrap_err().to_string().contains("expected one value, found 2"));
        let error = parsed(&format!("{ENOUGH}node-config = \"x\"\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("unknown key `node-config`"), "{error}");
        assert!(parsed("", &[]).unwrap_err().to_string().contains("--coordinator"));
    }

    #[test]
    fn every_flag_of_a_role_has_its_variable() {
        let command = layered(crate::Cli::command(), &[]).unwrap();
        for role in ROLES {
            let role = command.find_subcommand(role).unwrap();
            for arg in role.get_arguments().filter(|arg| arg.get_id() != "set") {
                let variable = arg.get_env().unwrap().to_str().unwrap();
                assert_eq!(variable, format!("OCTET_{}", arg.get_id().as_str().to_uppercase()));
            }
        }
        command.debug_assert();
    }
}
