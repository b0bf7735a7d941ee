//! Processes that behave in every way a renderer may: scripts of a shell stand in for it.

use hotspare_text::{ChatInput, LocalTime, TemplateLimits, TextModel};

use super::*;

fn config(script: &str) -> HttpConfig {
    HttpConfig {
        template_command: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        max_request_template_memory_bytes: 7,
        request_template_timeout_s: 3,
        ..HttpConfig::default()
    }
}

fn job() -> RenderJob {
    let tokenizer = r#"{"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;
    let model = TextModel::load(tokenizer.as_bytes(), None, None).expect("it loads");
    let messages = [serde_json::json!({"role": "user", "content": "hello ".repeat(100_000)})];
    let input = ChatInput::new(&messages, LocalTime::default());
    model.render_job(
        "{{ messages[0].content }}",
        TemplateLimits::default(),
        &input,
    )
}

fn limit(outcome: Result<Result<String, TextError>, ApiError>) -> String {
    let outcome = outcome.expect("the process was started");
    outcome.expect_err("it ended early").to_string()
}

#[test]
fn the_text_is_what_the_process_says() {
    // It reads all first, which is more than a pipe holds.
    let script = r#"cat >/dev/null; printf '{"Ok":"%s %s"}' "$0" "$1""#;
    let text = render(&job(), &config(script))
        .expect("started")
        .expect("rendered");
    assert_eq!(text, "7 3");
    let script = r#"cat >/dev/null; printf '{"Err":{"TemplateRaised":"no"}}'"#;
    let raised = render(&job(), &config(script)).expect("started");
    assert_eq!(raised, Err(TextError::TemplateRaised("no".into())));
}

#[test]
fn a_process_that_ends_early_is_a_limit() {
    for script in [
        "exit 1",
        "kill -9 $$",
        "cat >/dev/null; kill -6 $$",
        "printf '{\"Ok\"'; exit 3",
    ] {
        let message = limit(render(&job(), &config(script)));
        assert!(
            message.contains("limit of 7 bytes of memory or 3 s"),
            "{script}: {message}"
        );
    }
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let error = render(
        &job(),
        &HttpConfig {
            max_request_template_output_bytes: 1,
            ..config("printf '{\"Ok\":\"'; head -c 1000000 /dev/zero | tr '\\0' a; exit 0")
        },
    );
    // Cut, the process is told by its pipe, or ends well: neither is an answer.
    match error {
        Err(error) => assert_eq!(error.status, 500),
        Ok(outcome) => assert!(outcome.is_err()),
    }
    let error = render(&job(), &config("cat >/dev/null; echo nonsense"));
    assert_eq!(error.expect_err("no answer").status, 500);
}

#[test]
fn a_program_that_is_not_there_is_the_servers_error() {
    let config = HttpConfig {
        template_command: vec!["/nowhere/hotspare".into()],
        ..HttpConfig::default()
    };
    assert_eq!(render(&job(), &config).expect_err("no program").status, 500);
}
