//! `hotspare ha …`: asks a node of a pair how it stands, or to do something.
//!
//! Invariant: the exit status says how it ended: 0 done (or possible), 1 not reached or not
//! understood, 3 refused (or not possible), 4 begun and given up, 5 still running.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::{AskArgs, HaAction, HaCommandArgs};
use crate::{fail, print_result};

const NOT_REACHED: u8 = 1;
const REFUSED: u8 = 3;
const FAILED: u8 = 4;
const RUNNING: u8 = 5;

/// What a server answered.
struct Answer {
    status: u16,
    body: Value,
}

/// Asks, waits, and says what came of it.
pub(crate) fn run(args: &HaCommandArgs) -> ExitCode {
    let (path, body) = request(&args.action);
    let answer = match ask(args, &path, body.as_ref()) {
        Ok(answer) => answer,
        Err(message) => {
            fail(&message);
            return ExitCode::from(NOT_REACHED);
        }
    };
    let text = match args.json {
        true => format!("{:#}", answer.body),
        false => say(&args.action, &answer),
    };
    let status = exit_status(&answer);
    match print_result(&text) {
        code if code == ExitCode::SUCCESS => ExitCode::from(status),
        code => code,
    }
}

fn exit_status(answer: &Answer) -> u8 {
    let is_impossible = answer.body["possible"] == false;
    match answer.status {
        200 if is_impossible => REFUSED,
        200 => 0,
        202 => RUNNING,
        409 => REFUSED,
        500 if answer.body["outcome"] == "failed" => FAILED,
        _ => NOT_REACHED,
    }
}

/// Path and body; no body where nothing is asked to be done.
fn request(action: &HaAction) -> (String, Option<Value>) {
    let get = |name: &str| (format!("/ha/{name}"), None);
    let post = |name: &str, ask: &AskArgs, more: Value| {
        let mut body = Map::new();
        if let Some(id) = &ask.operation_id {
            body.insert("operation_id".to_owned(), id.as_str().into());
        }
        if let Some(reason) = &ask.reason {
            body.insert("reason".to_owned(), reason.as_str().into());
        }
        if ask.dry_run {
            body.insert("dry_run".to_owned(), true.into());
        }
        if let Value::Object(more) = more {
            body.extend(more);
        }
        (format!("/ha/{name}"), Some(Value::Object(body)))
    };
    match action {
        HaAction::Status => get("status"),
        HaAction::WhyNot => get("why-not"),
        HaAction::History => get("history"),
        HaAction::Switchover { ask } => post("switchover", ask, json!({})),
        HaAction::Promote { ask, force } => post("promote", ask, json!({"force": force})),
        HaAction::Demote { ask, force } => post("demote", ask, json!({"force": force})),
        HaAction::Pause { ask, for_ms } => match for_ms {
            Some(for_ms) => post("pause", ask, json!({"for_ms": for_ms})),
            None => post("pause", ask, json!({})),
        },
        HaAction::Resume { ask } => post("resume", ask, json!({})),
        HaAction::Maintenance { ask, off } => post("maintenance", ask, json!({"on": !off})),
        HaAction::Confirm { ask, alert } => post("confirm", ask, json!({"alert": alert})),
        HaAction::Reject { ask, alert } => post("reject", ask, json!({"alert": alert})),
        HaAction::ClearQuarantine { ask } => post("clear-quarantine", ask, json!({})),
        HaAction::FenceSelf { ask } => post("fence-self", ask, json!({})),
    }
}

fn ask(args: &HaCommandArgs, path: &str, body: Option<&Value>) -> Result<Answer, String> {
    let url = format!("{}{path}", args.server.url.trim_end_matches('/'));
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(args.timeout)))
        .build();
    let agent: ureq::Agent = config.into();
    let unreachable = |error: ureq::Error| format!("{url}: {error}");
    let key = args
        .server
        .admin_key
        .as_ref()
        .map(|key| format!("Bearer {}", key.reveal()));
    let mut response = match body {
        None => agent.get(&url).call().map_err(unreachable)?,
        Some(body) => {
            let mut request = agent.post(&url).header("content-type", "application/json");
            if let Some(key) = &key {
                request = request.header("authorization", key);
            }
            request.send(body.to_string()).map_err(unreachable)?
        }
    };
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().map_err(unreachable)?;
    let body: Value =
        serde_json::from_str(&text).map_err(|_| format!("{url}: {status}: {}", text.trim()))?;
    match body["error"]["message"].as_str() {
        Some(message) => Err(format!("{url}: {status}: {message}")),
        None => Ok(Answer { status, body }),
    }
}

/// The answer in words.
fn say(action: &HaAction, answer: &Answer) -> String {
    let body = &answer.body;
    match action {
        HaAction::Status => say_status(body),
        HaAction::History => say_history(body),
        HaAction::WhyNot => match body["possible"] == true {
            true => "a failover is possible now".to_owned(),
            false => format!("no failover now:\n{}", obstacles(body)),
        },
        _ => say_outcome(body),
    }
}

fn say_outcome(body: &Value) -> String {
    let id = text(&body["operation_id"]);
    match body["outcome"].as_str() {
        Some("done") => format!("done, epoch {} (operation {id})", body["epoch"]),
        Some("running") => format!("it still runs (operation {id})"),
        Some("failed") => format!("failed: {} (operation {id})", text(&body["reason"])),
        Some("refused") => format!("refused:\n{}", obstacles(body)),
        _ if body["possible"] == true => "possible".to_owned(),
        _ => format!("not possible:\n{}", obstacles(body)),
    }
}

fn say_status(body: &Value) -> String {
    let mut lines = vec![format!(
        "{} is {} in epoch {} (mode {})",
        text(&body["node"]),
        text(&body["role"]),
        body["epoch"],
        text(&body["mode"])
    )];
    match body.get("peer") {
        Some(peer) => lines.push(format!(
            "  peer {}: {}, {}, heard {} ms ago",
            text(&peer["node"]),
            text(&peer["role"]),
            text(&peer["eligibility"]),
            peer["silent_ms"]
        )),
        None => lines.push("  no peer was heard".to_owned()),
    }
    let engines = body["engines"].as_array().cloned().unwrap_or_default();
    for engine in engines {
        lines.push(format!(
            "  engine {}: {}, {}, {} running, {} waiting",
            text(&engine["name"]),
            text(&engine["model"]),
            text(&engine["state"]),
            engine["running"],
            engine["waiting"]
        ));
    }
    for reason in body["reasons"].as_array().into_iter().flatten() {
        lines.push(format!("  ! {}", text(reason)));
    }
    for overlay in body["overlays"].as_array().into_iter().flatten() {
        lines.push(format!("  ! {}", text(overlay)));
    }
    if let Some(alert) = body["alert"].as_u64() {
        lines.push(format!(
            "  ! alert {alert} waits for `hotspare ha confirm {alert}` or `reject {alert}`"
        ));
    }
    lines.join("\n")
}

fn say_history(body: &Value) -> String {
    let entries = body["history"].as_array().cloned().unwrap_or_default();
    if entries.is_empty() {
        return "nothing has happened yet".to_owned();
    }
    let line = |entry: &Value| match entry["event"].as_str() {
        Some("role-changed") => format!(
            "{} {} -> {} in epoch {}: {}",
            entry["wall_ms"],
            text(&entry["from"]),
            text(&entry["to"]),
            entry["epoch"],
            text(&entry["cause"])
        ),
        Some("alert") => format!("{} alert: {}", entry["wall_ms"], text(&entry["text"])),
        _ => format!(
            "{} {}: {}",
            entry["wall_ms"],
            text(&entry["command"]),
            text(&entry["outcome"])
        ),
    };
    let lines: Vec<String> = entries.iter().map(line).collect();
    lines.join("\n")
}

fn obstacles(body: &Value) -> String {
    let all = body["obstacles"].as_array().cloned().unwrap_or_default();
    let line = |o: &Value| format!("  {}: {}", text(&o["name"]), text(&o["reason"]));
    let lines: Vec<String> = all.iter().map(line).collect();
    lines.join("\n")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(status: u16, body: Value) -> u8 {
        exit_status(&Answer { status, body })
    }

    #[test]
    fn the_exit_status_says_how_it_ended() {
        assert_eq!(status_of(200, json!({"outcome": "done"})), 0);
        assert_eq!(status_of(200, json!({"possible": true})), 0);
        assert_eq!(status_of(200, json!({"possible": false})), REFUSED);
        assert_eq!(status_of(409, json!({"outcome": "refused"})), REFUSED);
        assert_eq!(status_of(500, json!({"outcome": "failed"})), FAILED);
        assert_eq!(status_of(500, json!({})), NOT_REACHED);
        assert_eq!(status_of(202, json!({"outcome": "running"})), RUNNING);
    }

    #[test]
    fn a_command_carries_what_it_was_given() {
        let ask = AskArgs {
            reason: Some("kernel update".to_owned()),
            dry_run: true,
            operation_id: Some("ff".to_owned()),
        };
        let (path, body) = request(&HaAction::Promote {
            ask,
            force: vec!["gates".to_owned()],
        });
        assert_eq!(path, "/ha/promote");
        let expected = json!({
            "operation_id": "ff", "reason": "kernel update", "dry_run": true, "force": ["gates"],
        });
        assert_eq!(body, Some(expected));
        assert_eq!(request(&HaAction::Status), ("/ha/status".to_owned(), None));
    }

    #[test]
    fn refusals_are_said_with_their_reasons() {
        let body = json!({
            "outcome": "refused",
            "obstacles": [{"name": "peer", "reason": "it is silent"}],
        });
        assert_eq!(say_outcome(&body), "refused:\n  peer: it is silent");
    }
}
