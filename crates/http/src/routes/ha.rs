//! `/ha/…`: what the pair says of itself, and what operators ask of it.
//!
//! Reading is open as `/ha/status` is; commands need the admin key, or a client on this machine.
//!
//! Invariant: a command is answered with how it ended, or that it still runs; the same operation id
//! again gets the same answer and does nothing.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hotspare_failover::{Command, Force, Obstacle, OperationId, Outcome};
use hotspare_front::Operation;
use hotspare_protocol::ApiError;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::app::App;
use crate::auth::PeerAddress;
use crate::{auth, reply};

/// Bytes of a body.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Characters of a reason.
const MAX_REASON_CHARS: usize = 512;

/// `/ha/primary`: 200 where this node serves, for load balancers that must reach the primary only.
pub(crate) async fn primary(State(app): State<App>) -> Response {
    let serves = app.front.role().serves() && app.front.readiness().ready;
    role_response(&app, serves)
}

/// `/ha/standby`: 200 where this node could take over.
pub(crate) async fn standby(State(app): State<App>) -> Response {
    let stands_by = app.front.role().stands_by();
    role_response(&app, stands_by)
}

fn role_response(app: &App, is_it: bool) -> Response {
    let body = json!({
        "node": app.front.node(),
        "role": app.front.role().name(),
        "epoch": app.front.epoch(),
    });
    let status = match is_it {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    reply::json(status, body.to_string())
}

/// `/ha/why-not`: could the pair fail over now, and if not, why not.
pub(crate) async fn why_not(State(app): State<App>) -> Response {
    let obstacles = match app.front.pairing() {
        Some(pairing) => pairing.why_not(),
        None => no_peer(),
    };
    let body = json!({"possible": obstacles.is_empty(), "obstacles": list(&obstacles)});
    reply::json(StatusCode::OK, body.to_string())
}

/// `/ha/history`: role changes, alerts and commands, oldest first.
pub(crate) async fn history(State(app): State<App>) -> Response {
    let history = match app.front.pairing() {
        Some(pairing) => serde_json::to_value(&*pairing.view().history).unwrap_or_default(),
        None => json!([]),
    };
    reply::json(StatusCode::OK, json!({"history": history}).to_string())
}

/// `POST /ha/{command}`.
pub(crate) async fn command(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    if let Some(refusal) = auth::refuse_admin(app.config.admin_key.as_deref(), &request) {
        return reply::error(&refusal);
    }
    let from = request.extensions().get::<PeerAddress>().copied();
    let patience = app.config.body_timeout();
    let asked = match read(request, patience).await {
        Ok(body) => asked(&name, &body),
        Err(error) => Err(error),
    };
    match asked {
        Ok(asked) => run(&app, asked, from).await,
        Err(error) => reply::error(&error),
    }
}

/// A command as it came.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    id: OperationId,
    command: Command,
    reason: String,
    requested_by: Option<String>,
    is_dry_run: bool,
}

async fn run(app: &App, asked: Asked, from: Option<PeerAddress>) -> Response {
    let operation_id = format!("{:032x}", asked.id.0);
    let Some(pairing) = app.front.pairing().cloned() else {
        return answer(&operation_id, &Outcome::Refused(no_peer()));
    };
    if asked.is_dry_run {
        let obstacles = pairing.dry_run(asked.command);
        let body = json!({
            "dry_run": true,
            "possible": obstacles.is_empty(),
            "obstacles": list(&obstacles),
        });
        return reply::json(StatusCode::OK, body.to_string());
    }
    let address = from.map_or_else(|| "unknown".to_owned(), |from| from.0.to_string());
    let operation = Operation {
        id: asked.id,
        command: asked.command,
        reason: asked.reason,
        requested_by: match asked.requested_by {
            Some(name) => format!("{name} ({address})"),
            None => address,
        },
    };
    tracing::info!(command = ?operation.command, operation_id, "An operator asks.");
    // On a task of its own: it goes on when who asked for it leaves.
    let running = tokio::spawn(async move { pairing.command(operation).await });
    match running.await {
        Ok(outcome) => answer(&operation_id, &outcome),
        Err(panic) => {
            tracing::error!(%panic, "a command failed");
            reply::error(&ApiError::internal("The command failed."))
        }
    }
}

fn answer(operation_id: &str, outcome: &Outcome) -> Response {
    let (status, mut body) = match outcome {
        Outcome::Done { epoch } => (
            StatusCode::OK,
            json!({"outcome": "done", "epoch": epoch.number()}),
        ),
        Outcome::Running => (StatusCode::ACCEPTED, json!({"outcome": "running"})),
        Outcome::Refused(obstacles) => (
            StatusCode::CONFLICT,
            json!({"outcome": "refused", "obstacles": list(obstacles)}),
        ),
        Outcome::Failed { reason } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({"outcome": "failed", "reason": reason}),
        ),
    };
    body["operation_id"] = operation_id.into();
    reply::json(status, body.to_string())
}

fn no_peer() -> Vec<Obstacle> {
    vec![Obstacle {
        name: "peer".to_owned(),
        reason: "no peer is configured".to_owned(),
    }]
}

fn list(obstacles: &[Obstacle]) -> Vec<Value> {
    let named = |o: &Obstacle| json!({"name": o.name, "reason": o.reason});
    obstacles.iter().map(named).collect()
}

/// The body's object; an empty body is an empty one.
async fn read(request: Request, patience: Duration) -> Result<Map<String, Value>, ApiError> {
    let bad = |why: &str| Err(ApiError::bad_request(why.to_owned()));
    let body = match timeout(patience, to_bytes(request.into_body(), MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return bad("the body is too long, or was cut"),
        Err(_) => return bad("the body took too long"),
    };
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&body) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => bad("the body must be an object, such as {\"reason\": \"maintenance\"}"),
        Err(error) => bad(&format!("the body is not JSON: {error}")),
    }
}

/// What is asked; unknown keys are refused, so that a misspelt `dry_run` does not do it.
fn asked(name: &str, body: &Map<String, Value>) -> Result<Asked, ApiError> {
    const COMMON: [&str; 4] = ["operation_id", "reason", "dry_run", "requested_by"];
    let bad = |why: String| ApiError::bad_request(why);
    let own: &[&str] = match name {
        "promote" | "demote" => &["force"],
        "pause" => &["for_ms"],
        "maintenance" => &["on"],
        "confirm" | "reject" => &["alert"],
        _ => &[],
    };
    let is_known = |key: &&String| COMMON.contains(&key.as_str()) || own.contains(&key.as_str());
    if let Some(key) = body.keys().find(|key| !is_known(key)) {
        return Err(bad(format!("`{key}` means nothing to {name}")));
    }
    let text = |key: &str| match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= MAX_REASON_CHARS => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(bad(format!(
            "`{key}` must be a text of at most {MAX_REASON_CHARS} characters"
        ))),
    };
    let switch = |key: &str| match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(*on)),
        Some(_) => Err(bad(format!("`{key}` must be true or false"))),
    };
    let number = |key: &str| match body.get(key).map(Value::as_u64) {
        None => Ok(None),
        Some(Some(number)) => Ok(Some(number)),
        Some(None) => Err(bad(format!("`{key}` must be a whole number"))),
    };
    let alert = || number("alert")?.ok_or_else(|| bad("`alert` is missing".to_owned()));
    let command = match name {
        "switchover" => Command::Switchover,
        "demote" => Command::Demote {
            force: switch("force")?.unwrap_or(false),
        },
        "promote" => Command::Promote {
            force: force(body.get("force")).map_err(bad)?,
        },
        "pause" => Command::Pause {
            for_ms: number("for_ms")?,
        },
        "resume" => Command::Resume,
        "maintenance" => Command::Maintenance {
            on: switch("on")?.unwrap_or(true),
        },
        "confirm" => Command::Confirm { alert: alert()? },
        "reject" => Command::Reject { alert: alert()? },
        "clear-quarantine" => Command::ClearQuarantine,
        "fence-self" => Command::FenceSelf,
        _ => {
            return Err(ApiError::new(
                404,
                "NotFoundError",
                format!("no command `{name}`"),
            ));
        }
    };
    Ok(Asked {
        id: operation_id(text("operation_id")?.as_deref()).map_err(bad)?,
        command,
        reason: text("reason")?.unwrap_or_default(),
        requested_by: text("requested_by")?,
        is_dry_run: switch("dry_run")?.unwrap_or(false),
    })
}

/// Rules to override: a list of names, or `true` for all.
fn force(value: Option<&Value>) -> Result<Force, String> {
    let all = |on| Force {
        peer: on,
        gates: on,
        lease: on,
    };
    let names = match value {
        None | Some(Value::Null) => return Ok(all(false)),
        Some(Value::Bool(on)) => return Ok(all(*on)),
        Some(Value::Array(names)) => names,
        Some(_) => return Err("`force` must be a list of `peer`, `gates` and `lease`".to_owned()),
    };
    let mut force = all(false);
    for name in names {
        match name.as_str() {
            Some("peer") => force.peer = true,
            Some("gates") => force.gates = true,
            Some("lease") => force.lease = true,
            _ => {
                return Err(format!(
                    "`force` knows `peer`, `gates` and `lease`, not {name}"
                ));
            }
        }
    }
    Ok(force)
}

/// A UUID with or without hyphens; a new one where none is given.
fn operation_id(text: Option<&str>) -> Result<OperationId, String> {
    let Some(text) = text else {
        return Ok(OperationId(uuid::Uuid::new_v4().as_u128()));
    };
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) if digits.len() <= 32 => Ok(OperationId(id)),
        _ => Err("`operation_id` must be a UUID, or up to 32 hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, body: Value) -> Result<Asked, String> {
        let body = body.as_object().expect("an object").clone();
        asked(name, &body).map_err(|error| error.message)
    }

    #[test]
    fn commands_are_what_their_names_and_bodies_say() {
        let id = "00000000-0000-0000-0000-0000000000ff";
        let body = json!({"operation_id": id, "reason": "test", "dry_run": true});
        let expected = Asked {
            id: OperationId(255),
            command: Command::Switchover,
            reason: "test".to_owned(),
            requested_by: None,
            is_dry_run: true,
        };
        assert_eq!(ask("switchover", body), Ok(expected));
        let command = |name, body| ask(name, body).map(|asked| asked.command);
        let force = Force {
            gates: true,
            ..Force::default()
        };
        assert_eq!(
            command("promote", json!({"force": ["gates"]})),
            Ok(Command::Promote { force })
        );
        assert_eq!(
            command("demote", json!({"force": true})),
            Ok(Command::Demote { force: true })
        );
        assert_eq!(
            command("pause", json!({"for_ms": 5})),
            Ok(Command::Pause { for_ms: Some(5) })
        );
        assert_eq!(
            command("maintenance", json!({"on": false})),
            Ok(Command::Maintenance { on: false })
        );
        assert_eq!(
            command("confirm", json!({"alert": 3})),
            Ok(Command::Confirm { alert: 3 })
        );
    }

    #[test]
    fn what_is_misspelt_is_refused_and_does_nothing() {
        for (name, body, expected) in [
            (
                "switchover",
                json!({"dryrun": true}),
                "`dryrun` means nothing",
            ),
            ("switchover", json!({"dry_run": "yes"}), "true or false"),
            (
                "switchover",
                json!({"force": true}),
                "`force` means nothing",
            ),
            ("promote", json!({"force": ["all"]}), "not \"all\""),
            ("confirm", json!({}), "`alert` is missing"),
            ("pause", json!({"for_ms": -1}), "whole number"),
            ("resume", json!({"operation_id": "x"}), "UUID"),
            ("explode", json!({}), "no command `explode`"),
        ] {
            let error = ask(name, body).expect_err(expected);
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
}
