//! The pages of the book that are made from the program itself, as snapshots: `cargo xtask docs` copies them to
//! `docs/src/reference`, so that it need not link the program.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};

use crate::args::Cli;

/// The page of the command line: one section a command.
fn flags() -> String {
    let mut page =
        "`capi-kamaji` without a command is `capi-kamaji run` with defaults and the variables of the \
                    environment. A flag wins over its variable.\n"
            .to_owned();
    let mut cli = <Cli as CommandFactory>::command();
    cli.build();
    for command in cli
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
    {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        write!(page, "\n## `capi-kamaji {}`\n\n{about}.\n", command.get_name()).unwrap();
        let flags: Vec<&Arg> = of(command).collect();
        if !flags.is_empty() {
            page.push_str("\n| flag | variable | default | meaning |\n|---|---|---|---|\n");
        }
        for flag in flags {
            page.push_str(&row(flag));
        }
    }
    page
}

fn of(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|flag| !["help", "version"].contains(&flag.get_id().as_str()))
}

fn row(flag: &Arg) -> String {
    let names = flag.get_value_names().into_iter().flatten();
    let values = names.map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let name = flag
        .get_long()
        .map_or_else(|| values.clone(), |long| format!("--{long}={values}"));
    let name = name.replace('|', "\\|");
    let code = |text: String| {
        if text.is_empty() {
            text
        } else {
            format!("`{text}`")
        }
    };
    let variable = code(
        flag.get_env()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
    );
    let defaults = flag
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy());
    let default = code(defaults.collect::<Vec<_>>().join(","));
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let allowed = flag.get_possible_values();
    let allowed = allowed.iter().map(|value| {
        let help = value
            .get_help()
            .map(|help| format!(" ({})", help.to_string().trim_end_matches('.')));
        format!("`{}`{}", value.get_name(), help.unwrap_or_default())
    });
    let allowed: Vec<String> = allowed.collect();
    // Booleans explain themselves.
    let allowed = if allowed.is_empty() || allowed.iter().any(|value| value == "`true`") {
        String::new()
    } else {
        format!(" One of {}.", allowed.join(", "))
    };
    format!("| `{name}` | {variable} | {default} | {help}.{allowed} |\n")
}

#[test]
fn the_page_of_the_command_line() {
    insta::assert_snapshot!("flags", flags());
}
