//! Requests as clients send them, right and wrong, and the exact answers to the wrong ones.
#![allow(clippy::unwrap_used)]

use hotspare_protocol::{
    ApiError, ChatRequest, CompletionRequest, DetokenizeRequest, GenerationDefaults, Prompt,
    RequestLimits, TokenizeInput, TokenizeRequest, TruncationSide,
};
use serde_json::{Value, json};

fn limits() -> RequestLimits {
    RequestLimits::new(128, 1000)
}

fn chat(fields: Value) -> Result<ChatRequest, ApiError> {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    ChatRequest::parse(body.to_string().as_bytes(), &limits())
}

fn completion(fields: Value) -> Result<CompletionRequest, ApiError> {
    let mut body = json!({"prompt": "hi"});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    CompletionRequest::parse(body.to_string().as_bytes(), &limits())
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>, status: u16, part: &str) -> ApiError {
    let error = result.unwrap_err();
    assert_eq!(error.status, status, "{error}");
    assert!(error.message.contains(part), "{}", error.message);
    error
}

#[test]
fn tools_are_rendered_only_where_no_call_has_to_be_parsed() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let with = |choice: Value| chat(json!({"tools": tools, "tool_choice": choice}));
    let auto = "\"auto\" tool choice requires --enable-auto-tool-choice";
    refused(chat(json!({"tools": tools})), 400, auto);
    refused(with(json!("auto")), 400, auto);
    refused(with(json!("required")), 501, "required");
    refused(with(json!("maybe")), 400, "Invalid value for `tool_choice`");
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    refused(with(named("g")), 400, "does not match any");
    refused(with(named("f")), 501, "forced");
    for choice in [json!("none"), json!(null)] {
        let request = with(choice).unwrap();
        assert_eq!(request.template.tools.unwrap()[0]["function"]["name"], "f");
    }
}

#[test]
fn a_fault_inside_messages_is_reported_once_and_for_what_it_is() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (messages, part) in [
        (r#"[{"role": "user", "content": "\ud800"}]"#, "hex escape"),
        (r#"[{"role": "user", "role": }]"#, "expected value"),
        (&deep, "recursion limit"),
    ] {
        let body = format!("{{\"messages\": {messages}}}");
        let parsed = ChatRequest::parse(body.as_bytes(), &limits());
        let error = refused(parsed, 400, "1 validation error(s):");
        assert!(error.message.contains(part), "{}", error.message);
        assert!(!error.message.contains("list_type"), "{}", error.message);
    }
    let null = ChatRequest::parse(br#"{"messages": null}"#, &limits());
    refused(null, 400, "list_type");
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let body = "\u{feff}{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}]}";
    let request = ChatRequest::parse(body.as_bytes(), &limits()).unwrap();
    assert_eq!(request.template.messages[0].role, "user");
    let twice = format!("\u{feff}{body}");
    refused(
        ChatRequest::parse(twice.as_bytes(), &limits()),
        400,
        "json_invalid",
    );
}

#[test]
fn of_equal_keys_the_last_one_counts() {
    let body = br#"{"temperature": 9, "messages": 1, "temperature": 0.5,
        "messages": [{"role": "system", "content": "a", "role": "user", "content": "b"}],
        "model": "x", "model": null}"#;
    let request = ChatRequest::parse(body, &limits()).unwrap();
    assert_eq!(request.sampling.temperature, Some(0.5));
    assert_eq!(request.model, None);
    let message = &request.template.messages[0];
    assert_eq!(message.role, "user");
    assert_eq!(message.content.text(), "b");
}

#[test]
fn type_errors_are_reported_as_pydantic_does() {
    let error = refused(
        chat(json!({"max_tokens": "ten", "stream": "maybe", "stop": [1], "seed": 1.5})),
        400,
        "4 validation error(s):\n  {'type': ",
    );
    assert_eq!(error.error_type, "Bad Request");
    assert!(error.message.contains(
        "{'type': 'int_parsing', 'loc': ('body', 'max_tokens'), 'msg': 'Input should be a valid \
         integer, unable to parse string as an integer', 'input': 'ten'}"
    ));
    let error = ChatRequest::parse(br#"{"model":"m"}"#, &limits()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("body.messages"));
    let error = refused(
        chat(json!({"messages": [{"role": "user", "content": 5}, "x", {"content": "y"}]})),
        400,
        "3 validation error(s)",
    );
    assert_eq!(error.param.as_deref(), Some("body.messages.0.content"));
    for fields in [
        json!({"messages": "hi"}),
        json!({"temperature": [1]}),
        json!({"max_tokens": true}),
        json!({"logit_bias": [1]}),
        json!({"seed": 1e30}),
        json!({"model": 3}),
        json!({"truncate_prompt_tokens": -2}),
        json!({"response_format": "json"}),
    ] {
        refused(chat(fields), 400, "1 validation error(s)");
    }
}

#[test]
fn bodies_that_are_not_json_are_400() {
    let deep = format!("{{\"messages\":{}", "[".repeat(1_000_000));
    let closed = format!(
        "{{\"messages\":{}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    for body in [
        "",
        "  ",
        "{",
        "[1]",
        "null",
        "\"x\"",
        "{\"messages\": NaN}",
        "{\"messages\": [], \"temperature\": NaN}",
        "{\"messages\": [], \"temperature\": -Infinity}",
        "{\"messages\": [], \"temperature\": 1e999}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\\udc00x\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\u{1}b\"}]}",
        &deep,
        &closed,
    ] {
        let error = ChatRequest::parse(body.as_bytes(), &limits()).unwrap_err();
        assert_eq!(error.status, 400, "{body:.60}");
        assert_eq!(error.error_type, "Bad Request", "{body:.60}");
        assert!(error.message.len() < 3000);
    }
    let error = ChatRequest::parse(b"{\"a\": \"\xff\"}", &limits()).unwrap_err();
    assert!(error.message.contains("not UTF-8"));
    let error = ChatRequest::parse(b"{\"a\":\n x}", &limits()).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("body.7"));
}

#[test]
fn null_and_unknown_fields_are_fine() {
    let request = chat(json!({
        "temperature": null, "stop": null, "n": null, "tools": null, "stream_options": null,
        "logit_bias": null, "max_tokens": null, "response_format": {"type": "text"},
        "store": true, "metadata": {"a": "b"}, "user": "me", "guided_json": {},
    }))
    .unwrap();
    assert_eq!(request.unknown_fields, ["store", "metadata", "guided_json"]);
    assert_eq!((request.sampling.n, request.sampling.max_tokens), (1, None));
}

#[test]
fn numbers_may_come_as_text() {
    let request = chat(json!({
        "temperature": "0.5", "max_tokens": "7", "stream": 1, "top_k": 3.0,
        "max_completion_tokens": 9,
    }))
    .unwrap();
    assert_eq!(request.sampling.temperature, Some(0.5));
    assert_eq!(request.sampling.max_tokens, Some(9));
    assert_eq!(request.sampling.top_k, Some(3));
    assert!(request.stream.stream);
}

#[test]
fn messages_become_template_values() {
    let request = chat(json!({"messages": [
        {"role": "system", "content":
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "42", "extra": 1},
    ]}))
    .unwrap();
    let messages = request.template.template_messages();
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    assert_eq!(messages[0], json!({"role": "system", "content": parts}));
    let arguments = &messages[1]["tool_calls"][0]["function"]["arguments"];
    assert_eq!(arguments, &json!({"x": 1}));
    assert_eq!(messages[1]["content"], "");
    assert_eq!(messages[1]["reasoning"], "hm");
    assert_eq!(
        messages[2],
        json!({"role": "tool", "content": "42", "tool_call_id": "1"})
    );
    let arguments = json!({"name": "f", "arguments": "{"});
    let message = json!({"role": "assistant", "tool_calls": [{"function": arguments}]});
    refused(
        chat(json!({"messages": [message]})),
        400,
        "must be a JSON text",
    );
}

#[test]
fn prompts_come_in_four_forms() {
    let prompts = |prompt: Value| completion(json!({"prompt": prompt})).map(|r| r.prompts);
    let text = |text: &str| Prompt::Text(text.into());
    assert_eq!(prompts(json!("a")).unwrap(), [text("a")]);
    assert_eq!(prompts(json!(["a", ""])).unwrap(), [text("a"), text("")]);
    assert_eq!(prompts(json!([1, 2])).unwrap(), [Prompt::Ids(vec![1, 2])]);
    assert_eq!(
        prompts(json!([[1], [2, 3]])).unwrap(),
        [Prompt::Ids(vec![1]), Prompt::Ids(vec![2, 3])]
    );
    let empty = "Either prompt or prompt_embeds must be provided and non-empty.";
    for prompt in [json!(null), json!(""), json!([])] {
        refused(prompts(prompt), 400, empty);
    }
    refused(prompts(json!([[]])), 400, "prompt cannot be empty");
    refused(prompts(json!([1000])), 400, "Token id 1000 is out of vocab");
    refused(prompts(json!([-1])), 400, "Token id -1 is out of vocab");
    for prompt in [
        json!([1, "a"]),
        json!(["a", 1]),
        json!([[1, "a"]]),
        json!(5),
        json!({}),
    ] {
        refused(prompts(prompt), 400, "validation error(s)");
    }
    refused(prompts(json!(vec!["a"; 1025])), 400, "at most 1024 prompts");
}

#[test]
fn completions_have_rules_of_their_own() {
    assert_eq!(completion(json!({})).unwrap().sampling.max_tokens, Some(16));
    let request = completion(json!({"echo": true, "max_tokens": 0, "logprobs": 1})).unwrap();
    assert!(request.echo_only);
    assert_eq!(request.sampling.max_tokens, Some(1));
    assert_eq!(request.num_logprobs, Some(1));
    assert_eq!(request.num_prompt_logprobs(&limits()), Some(1));
    refused(completion(json!({"max_tokens": 0})), 400, "at least 1");
    refused(completion(json!({"logprobs": -1})), 400, "positive value");
    refused(completion(json!({"logprobs": true})), 400, "valid integer");
    refused(
        completion(json!({"suffix": "x"})),
        400,
        "suffix is not currently supported",
    );
    refused(
        completion(json!({"prompt_embeds": "x"})),
        501,
        "prompt_embeds",
    );
}

#[test]
fn engine_parameters_follow_request_then_defaults() {
    let defaults = GenerationDefaults {
        temperature: 0.6,
        top_p: 0.9,
        top_k: 20,
        eos_token_ids: vec![2],
        max_tokens_limit: Some(50),
        ..GenerationDefaults::default()
    };
    let params = |fields: Value| {
        let request = chat(fields).unwrap();
        request
            .sampling
            .sampling_params(&defaults, &limits(), None, None)
    };
    let plain = params(json!({})).unwrap();
    assert_eq!(
        (plain.temperature, plain.top_p, plain.top_k),
        (0.6, 0.9, 20)
    );
    let own = params(json!({"temperature": 0.001, "top_k": -1, "seed": -2, "top_p": 1})).unwrap();
    assert_eq!((own.temperature, own.top_p, own.top_k), (0.01, 1.0, 0));
    assert_eq!(own.seed, u64::MAX - 1);
    let greedy = params(json!({"temperature": 1e-6, "top_k": 5})).unwrap();
    assert_eq!(
        (greedy.temperature, greedy.top_p, greedy.top_k),
        (0.0, 1.0, 0)
    );
    refused(
        params(json!({"temperature": 0, "n": 2})),
        400,
        "n must be 1 when using greedy sampling, got 2.",
    );
    let bias = params(json!({"logit_bias": {"7": 500, "3": -1}})).unwrap();
    assert_eq!(bias.logit_bias, [(3, -1.0), (7, 100.0)]);

    let stop = |fields: Value, len| {
        let request = chat(fields).unwrap();
        request
            .sampling
            .stop_params(&defaults, &limits(), None, len)
    };
    assert_eq!(stop(json!({}), 28).unwrap().max_tokens, 50);
    assert_eq!(stop(json!({"max_tokens": 40}), 28).unwrap().max_tokens, 40);
    assert_eq!(stop(json!({"max_tokens": 40}), 100).unwrap().max_tokens, 28);
    let stop_ids = stop(json!({"stop_token_ids": [9, -1, 5000, 9]}), 1).unwrap();
    assert_eq!(stop_ids.stop_token_ids, [9]);
    assert_eq!(stop_ids.eos_token_ids, [2]);
    refused(
        stop(json!({"min_tokens": 10, "max_tokens": 5}), 1),
        400,
        "min_tokens must be less than or equal to max_tokens=5, got 10.",
    );
}

#[test]
fn prompts_are_truncated_and_measured() {
    let cut = |fields: Value| {
        let request = completion(fields).unwrap();
        let mut ids: Vec<u32> = (0..200).collect();
        request.sampling.truncate_prompt(&mut ids, &limits());
        ids
    };
    assert_eq!(cut(json!({"truncate_prompt_tokens": 3})), [197, 198, 199]);
    let right = json!({"truncate_prompt_tokens": 3, "truncation_side": "right"});
    assert_eq!(cut(right), [0, 1, 2]);
    let fit = json!({"truncate_prompt_tokens": -1, "max_tokens": 28});
    assert_eq!(cut(fit).len(), 100);
    assert_eq!(cut(json!({})).len(), 200);
    let side = completion(json!({})).unwrap().sampling.truncation_side;
    assert_eq!(side, TruncationSide::Left);

    refused(limits().check_prompt_len(0), 400, "cannot be empty");
    limits().check_prompt_len(127).unwrap();
    refused(
        limits().check_prompt_len(128),
        400,
        "The decoder prompt (length 128) plus",
    );
    let error = refused(
        limits().check_prompt_len(129),
        400,
        "This model's maximum context length is 128 tokens. However, your prompt contains 129 \
         input tokens, which exceeds this limit even without any output tokens.",
    );
    assert_eq!(error.param.as_deref(), Some("input_tokens"));
    limits().check_prompt_chars(1280, 10).unwrap();
    refused(
        limits().check_prompt_chars(1281, 10),
        400,
        "more than 1280 characters",
    );
}

#[test]
fn a_server_without_a_tokenizer_takes_ids_only() {
    let limits = RequestLimits {
        has_tokenizer: false,
        ..limits()
    };
    let parse = |body: Value| CompletionRequest::parse(body.to_string().as_bytes(), &limits);
    parse(json!({"prompt": [1], "return_token_ids": true})).unwrap();
    refused(
        parse(json!({"prompt": [1]})),
        400,
        "set return_token_ids to true",
    );
    let text = parse(json!({"prompt": "a", "return_token_ids": true}));
    refused(text, 400, "prompt must be token ids");
    let stop = parse(json!({"prompt": [1], "return_token_ids": true, "stop": "x"}));
    refused(stop, 400, "stop strings need a tokenizer");
}

#[test]
fn tokenize_takes_text_or_messages() {
    let parse = |body: Value| TokenizeRequest::parse(body.to_string().as_bytes(), &limits());
    let request = parse(json!({"prompt": "", "return_token_strs": true})).unwrap();
    assert!(request.return_token_strs);
    assert!(matches!(
        request.input,
        TokenizeInput::Prompt {
            add_special_tokens: true,
            ..
        }
    ));
    let messages = json!([{"role": "user", "content": "x"}]);
    let request = parse(json!({"messages": messages, "return_prompt_text": true})).unwrap();
    assert!(request.return_prompt_text);
    assert!(matches!(
        request.input,
        TokenizeInput::Messages(template) if template.add_generation_prompt
            && !template.add_special_tokens
    ));
    let error = refused(parse(json!({})), 400, "1 validation error(s)");
    assert_eq!(error.param.as_deref(), Some("body.prompt"));

    let parse = |body: Value| DetokenizeRequest::parse(body.to_string().as_bytes(), &limits());
    assert_eq!(parse(json!({"tokens": [1, 2]})).unwrap().tokens, [1, 2]);
    refused(parse(json!({"tokens": [1000]})), 400, "out of vocabulary");
    refused(parse(json!({})), 400, "1 validation error(s)");
    refused(
        parse(json!({"tokens": ["x"]})),
        400,
        "1 validation error(s)",
    );
}

#[test]
fn errors_have_the_body_clients_know() {
    let names = ["a".to_owned(), "b".to_owned()];
    hotspare_protocol::check_model(None, &names).unwrap();
    hotspare_protocol::check_model(Some("b"), &names).unwrap();
    let error = hotspare_protocol::check_model(Some("x"), &names).unwrap_err();
    let body: Value = serde_json::from_slice(&error.to_json()).unwrap();
    assert_eq!(
        body,
        json!({"error": {"message": "The model `x` does not exist. Valid aliases: a, b",
            "type": "NotFoundError", "param": "model", "code": 404}})
    );
}
