//! cuBLASLt's place under `--numerics fast`, taken by a library that computes on the emulated card.
//!
//! Invariant: where the library is, `numerics_id` says so; where it fails, requests do not.

use serde_json::{Value, json};

use hotspare_testkit::Server;

use crate::card::{CARD, assert_no_complaint_of, driver, run, serve};

/// Long enough for products that the library is given.
fn answer(server: &Server) -> Value {
    let prompt = "Once upon a time there was a pony. ".repeat(15);
    let body = json!({"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": true});
    let reply = server.client().post("/v1/completions", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert!(
        answer["usage"]["prompt_tokens"].as_u64() > Some(128),
        "{answer}"
    );
    answer["choices"][0]["text"].clone()
}

/// With the library and without it.
fn folders() -> Option<[String; 2]> {
    let folder = driver()?;
    Some([format!("{folder}:{folder}/products"), folder.to_owned()])
}

fn numerics(server: &Server) -> String {
    let engine = server.main_engine();
    engine["numerics_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn its_products_are_those_of_the_cpu() {
    let Some([with, without]) = folders() else {
        return;
    };
    let args = ["kernel-tests", "--seeds", "6", "--only", "dense_products"];
    let text = run(&with, CARD, &args);
    assert!(
        text.contains("dense_products cublaslt13.0.0 6 seeds"),
        "{text}"
    );
    let text = run(&without, CARD, &args);
    assert!(
        text.contains("libcublasLt.so.13 was not found; not run"),
        "{text}"
    );
}

#[test]
fn prompts_run_on_it_where_it_is_asked_for_and_there() {
    let Some([with, without]) = folders() else {
        return;
    };
    let fast = ["--numerics=fast"];
    let server = serve(&with, CARD, &fast);
    assert!(
        numerics(&server).ends_with("-fast-cublaslt13.0.0-r1"),
        "{}",
        numerics(&server)
    );
    let expected = answer(&server);
    assert_no_complaint_of(&server);
    for (folder, args) in [(&with, &["--numerics=invariant"]), (&without, &fast)] {
        let server = serve(folder, CARD, args);
        assert!(
            numerics(&server).ends_with("-invariant-r1"),
            "{}",
            numerics(&server)
        );
        // Eight clear tokens: another order of sums changes none of them.
        assert_eq!(answer(&server), expected);
        assert_no_complaint_of(&server);
    }
}

#[test]
fn a_product_without_memory_costs_the_library_and_no_request() {
    let Some([with, _]) = folders() else {
        return;
    };
    let expected = answer(&serve(&with, CARD, &["--numerics=fast"]));
    let card = format!("{CARD},fail=cublasLtMatmul@3:2");
    let server = serve(&with, &card, &["--numerics=fast"]);
    assert_eq!(answer(&server), expected);
    let lines = server.log_lines();
    let is_said = |line: &String| line.contains("ran out of memory in a step");
    assert!(lines.iter().any(is_said), "{lines:?}");
    assert_eq!(server.main_engine()["restarts"], 0);
    assert_eq!(answer(&server), expected);
}
