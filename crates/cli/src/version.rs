//! `weir version`.

use serde_json::json;

use crate::output::{self, Output};

/// Print the version, the commit that was built, and the version of the protocol between sidecars and
/// allocators.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// How it is printed.
    #[arg(long, env = "WEIR_OUTPUT", value_enum, default_value_t)]
    output: Output,
}

/// Prints it.
pub(crate) fn version(args: &Args) -> anyhow::Result<()> {
    let (version, commit) = (service::build::VERSION, service::build::COMMIT);
    let protocol = wire::PROTOCOL_VERSION;
    match args.output {
        Output::Json => output::print_json(
            &json!({"version": version, "commit": commit, "protocol": protocol}),
        )?,
        Output::Table => output::print(&format!(
            "weir      {version}\ncommit    {}\nprotocol  {protocol}",
            commit.unwrap_or("unknown")
        ))?,
    }
    Ok(())
}
