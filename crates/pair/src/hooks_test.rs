//! Hooks as real programs and as a web server of a few lines.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const TIMEOUT_MS: u64 = 20_000;

fn event(role: Role, epoch: u64) -> HookEvent {
    HookEvent {
        event: "role-changed",
        role,
        prev_role: Role::Promoting,
        epoch: Epoch::new(epoch),
        node: "a".to_owned(),
        peer: "b".to_owned(),
        reason: "a drill; $(not run)".to_owned(),
        requested_by: "ops".to_owned(),
        op_id: "00".to_owned(),
        degraded: true,
        model_root: "hash".to_owned(),
        boot_ms: BootTime::from_ms(1),
    }
}

fn shell(script: &str, required: bool) -> Hook {
    Hook {
        name: "test".to_owned(),
        target: HookTarget::Exec {
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
        },
        required,
    }
}

fn quick() -> PairBounds {
    PairBounds {
        hook_retry_ms: 5,
        hook_max_retry_ms: 10,
        max_num_hook_attempts: 1_000,
        ..PairBounds::default()
    }
}

/// Waits for `what`, for a long time, as other work may hold the machine.
async fn wait_for(mut what: impl FnMut() -> bool) {
    for _ in 0..4_000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen within 20 s");
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn a_program_gets_the_documented_environment() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("env");
    let script = format!("env | grep ^HA_ | sort > {}", path.display());
    let result = shell(&script, false)
        .call(&event(Role::PrimarySolo, 4), TIMEOUT_MS)
        .await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        text(&path),
        "HA_DEGRADED=1\nHA_EPOCH=4\nHA_EVENT=role-changed\nHA_MODEL_ROOT=hash\nHA_NODE=a\n\
         HA_OP_ID=00\nHA_PEER=b\nHA_PREV_ROLE=promoting\nHA_REASON=a drill; $(not run)\n\
         HA_REQUESTED_BY=ops\nHA_ROLE=primary-solo\n"
    );
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_what_it_started() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", path.display());
    let error = shell(&script, false)
        .call(&event(Role::Standby, 4), 1_000)
        .await
        .expect_err("it hangs");
    assert!(error.contains("killed"), "{error}");
    let pid = text(&path).trim().to_owned();
    assert!(!pid.is_empty(), "it had started");
    // Gone, or a zombie that waits for whoever adopts orphans here.
    let stat = format!("/proc/{pid}/stat");
    wait_for(|| {
        let state = text(Path::new(&stat));
        state.is_empty() || state.contains(") Z ")
    })
    .await;
}

#[tokio::test]
async fn failures_say_why() {
    let standby = event(Role::Standby, 1);
    let error = shell("exit 3", true).call(&standby, TIMEOUT_MS).await;
    assert!(error.expect_err("exit 3").contains("exit status: 3"));
    let missing = Hook {
        name: "missing".to_owned(),
        target: HookTarget::Exec {
            program: "/nowhere/hook".into(),
            args: Vec::new(),
        },
        required: false,
    };
    let error = missing.call(&event(Role::Standby, 1), TIMEOUT_MS).await;
    assert!(error.expect_err("missing").contains("/nowhere/hook"));
}

#[tokio::test]
async fn a_hook_is_called_until_it_succeeds_and_hears_the_newest() {
    let dir = tempfile::tempdir().expect("a folder");
    let (log, gate) = (dir.path().join("log"), dir.path().join("gate"));
    let script = format!(
        "echo $HA_EPOCH >> {log}; test -e {gate}",
        log = log.display(),
        gate = gate.display()
    );
    let runner = HookRunner::start(&[shell(&script, false)], TIMEOUT_MS, quick());
    runner.tell(event(Role::Promoting, 1));
    wait_for(|| text(&log).matches('1').count() >= 2).await;
    runner.tell(event(Role::PrimarySolo, 2));
    wait_for(|| text(&log).matches('2').count() >= 2).await;
    assert!(
        text(&log).ends_with("2\n"),
        "what is over is not told any more"
    );
    std::fs::write(&gate, "").expect("open");
    // What succeeded is not told again.
    runner.tell(event(Role::Primary, 3));
    wait_for(|| text(&log).ends_with("3\n")).await;
    runner.tell(event(Role::Primary, 4));
    wait_for(|| text(&log).ends_with("4\n")).await;
    assert_eq!(text(&log).matches('3').count(), 1);
    assert!(runner.num_failures() >= 3);
}

#[tokio::test]
async fn required_hooks_are_all_asked() {
    let good = HookRunner::start(
        &[shell("true", true), shell("exit 1", false)],
        9_000,
        quick(),
    );
    assert!(good.required(event(Role::Promoting, 1)).await);
    let bad = HookRunner::start(
        &[shell("true", true), shell("exit 1", true)],
        9_000,
        quick(),
    );
    assert!(!bad.required(event(Role::Promoting, 1)).await);
    assert_eq!(bad.num_failures(), 1);
}

#[tokio::test]
async fn a_webhook_gets_json_and_counts_by_status() {
    for (status, expected) in [("200 OK", true), ("302 Found", false), ("500 Error", false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                let len = stream.read(&mut buffer).await.expect("read");
                assert!(len > 0, "the body ends with a brace");
                request.extend(&buffer[..len]);
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("written");
            String::from_utf8(request).expect("text")
        });
        let hook = Hook {
            name: "web".to_owned(),
            target: HookTarget::Webhook {
                url: format!("http://{address}/hook"),
            },
            required: false,
        };
        let result = hook.call(&event(Role::Primary, 6), TIMEOUT_MS).await;
        assert_eq!(result.is_ok(), expected, "{result:?}");
        let request = server.await.expect("served");
        let (head, body) = request.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["role"], "primary");
        assert_eq!(body["epoch"], 6);
        assert_eq!(body["requested_by"], "ops");
    }
}
