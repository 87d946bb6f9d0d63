//! The grammar of the command line.

use clap::{Parser, Subcommand, ValueEnum};

/// Virtual machines on virtual networks, from one topology file.
#[derive(Debug, Parser)]
#[command(name = "vnet", version)]
pub(super) struct Args {
    /// Which lab; not needed while one runs.
    #[arg(long, global = true, env = "VNET_NAME", value_name = "LAB")]
    pub(super) name: Option<String>,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Take a lab down, or clean up what a killed one left.
    Down,
    /// List the labs: running, or orphaned by a killed controller.
    Ls {
        /// How to print it.
        #[arg(long, env = "VNET_FORMAT", value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Print the log of the controller, the switch or a node.
    Logs {
        /// `controller`, `switch` or a node.
        of: String,
    },
    /// Say what a name of ours means, and what to do about it.
    Explain {
        /// A drop reason.
        code: String,
    },
}

/// How to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs: snake_case JSON.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent_and_every_flag_has_an_environment_variable() {
        let mut command = Args::command();
        command.build();
        command.clone().debug_assert();
        let all = command.get_subcommands().chain([&command]).flat_map(clap::Command::get_arguments);
        for flag in all.filter(|arg| arg.get_long().is_some_and(|name| !matches!(name, "help" | "version"))) {
            let name = flag.get_env().and_then(|name| name.to_str());
            assert!(name.is_some_and(|name| name.starts_with("VNET_")), "{:?}", flag.get_long());
        }
    }
}
