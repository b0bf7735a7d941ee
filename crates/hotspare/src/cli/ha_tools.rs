//! The arguments of `hotspare ha` and `hotspare demo`.
//!
//! Invariant: what changes nothing needs no key, and what does takes a reason, an operation id and
//! a dry run.

use clap::{Args, Subcommand, ValueEnum};

use super::tools::ServerArgs;

/// Below the options in `ha --help`.
pub(crate) const HA_AFTER_HELP: &str = "\
Exit status: 0 done, or possible; 1 the server was not reached, or did not understand; 2 wrong
arguments; 3 refused, or not possible now; 4 begun and given up; 5 still running (the same
--operation-id asks again how it ended).

Examples:
  hotspare ha status
  hotspare ha why-not                      could this pair fail over now, and if not, why not
  hotspare ha switchover --dry-run         asked of the node that serves
  hotspare ha switchover --reason 'kernel update on a'
  hotspare ha promote --force gates        asked of the other one, over a node that is dead";

/// Arguments of `hotspare ha`.
#[derive(Args, Clone, Debug)]
pub(crate) struct HaCommandArgs {
    #[command(subcommand)]
    pub(crate) action: HaAction,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print the server's answer as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds to wait for the answer.
    #[arg(long, global = true, default_value_t = 130, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AskArgs {
    /// Why; kept in the history and told to hooks.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Say whether it would be possible, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// A UUID: the same again does nothing and gets the same answer [default: a new one].
    #[arg(long, value_name = "UUID")]
    pub(crate) operation_id: Option<String>,
}

/// What to ask.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum HaAction {
    /// Role, epoch, peer, engines, and what is wrong.
    Status,
    /// Could this pair fail over now, and if not, why not.
    #[command(alias = "why")]
    WhyNot,
    /// Role changes, alerts and commands.
    History,
    /// Hand over to the other node without losing a request.
    Switchover {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take over from a node that is dead.
    Promote {
        #[command(flatten)]
        ask: AskArgs,
        /// Rules to override: peer (the operator knows that it does not serve), gates, lease.
        #[arg(long, value_name = "RULE", value_delimiter = ',')]
        force: Vec<String>,
    },
    /// Hand over; with --force stop serving even if nobody takes over.
    Demote {
        #[command(flatten)]
        ask: AskArgs,
        /// Stop serving even if nobody takes over.
        #[arg(long)]
        force: bool,
    },
    /// No automatic role changes for a while.
    Pause {
        #[command(flatten)]
        ask: AskArgs,
        /// For how long [default: as long as --ha-pause-ms allows].
        #[arg(long, value_name = "MS")]
        for_ms: Option<u64>,
    },
    /// Automatic role changes again.
    Resume {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take a standby out of the pair, or back in.
    Maintenance {
        #[command(flatten)]
        ask: AskArgs,
        /// Back in.
        #[arg(long)]
        off: bool,
    },
    /// The peer is dead: take over.
    Confirm {
        #[command(flatten)]
        ask: AskArgs,
        /// The alert's number, as the status says it.
        alert: u64,
    },
    /// The peer is not dead: do nothing.
    Reject {
        #[command(flatten)]
        ask: AskArgs,
        /// The alert's number, as the status says it.
        alert: u64,
    },
    /// Forget the role changes that led to a quarantine.
    ClearQuarantine {
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Stop serving at once, until this node knows that nobody else serves.
    FenceSelf {
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Arguments of `hotspare demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// What goes wrong.
    #[arg(long, value_name = "SCENARIO", default_value = "node")]
    pub(crate) scenario: DemoScenario,
    /// What is served, as for `serve`.
    #[arg(value_name = "MODEL", default_value = "spark")]
    pub(crate) model: String,
}

/// `--scenario`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoScenario {
    /// The engine of the node that the client is connected to is killed.
    Engine,
    /// The front of the node that serves is killed.
    Front,
    /// Every process of the node that serves is killed.
    Node,
    /// The network between the nodes is cut, and made whole again.
    Partition,
    /// The role is handed over on command.
    Switchover,
}
