//! The template environment, rule by rule; whole templates of real models are in `tests/`.

use super::*;

fn render_with<'a>(
    source: &str,
    messages: &'a [Value],
    change: impl FnOnce(&mut ChatInput<'a>),
) -> Result<String, TextError> {
    let template = ChatTemplate::compile(source)?;
    let mut input = ChatInput::new(
        messages,
        LocalTime {
            unix_secs: 1_795_278_245,
            utc_offset_secs: 0,
        },
    );
    change(&mut input);
    template.render(&input, [("bos_token", "<s>")], &["<x>".to_owned()])
}

fn render(source: &str) -> String {
    render_with(
        source,
        &[json!({"role": "user", "content": "hi <b>"})],
        |_| {},
    )
    .unwrap()
}

#[test]
fn white_space_as_transformers_sets_it() {
    assert_eq!(
        render("a\n  {% if true %}\nb\n  {% endif %}\nc\n"),
        "a\nb\nc"
    );
    assert_eq!(render("{{ 'x\n' }}"), "x\n");
    assert_eq!(
        render("{%- generation -%} a {%- endgeneration %}b{% generation %}c{% endgeneration %}"),
        "abc"
    );
}

#[test]
fn loop_controls_and_python_methods() {
    let source = "{% for c in [1,2,3,4] %}{% if c == 2 %}{% continue %}{% endif %}\
        {% if c == 4 %}{% break %}{% endif %}{{ c }}{% endfor %}";
    assert_eq!(render(source), "13");
    assert_eq!(
        render("{{ ' a,b '.strip().split(',')[1] }}{{ 'abc'.removeprefix('a') }}"),
        "bbc"
    );
    assert_eq!(
        render("{{ {'a': 1}.get('b', 2) }}{{ 'x'.startswith('x') }}{{ '-7'.zfill(4) }}"),
        "2True-007"
    );
    assert_eq!(
        render("{{ 'a=b'.partition('=')[2] }}{{ 'x.y'.removesuffix('.y') }}{{ 'abc'.index('c') }}"),
        "bx2"
    );
}

#[test]
fn values_print_as_in_python() {
    assert_eq!(
        render("{{ none }} {{ true }} {{ 1.0 }} {{ undefined_name }}|"),
        "None True 1.0 |"
    );
    assert_eq!(
        render("{{ {'a': [1, none], 'b': \"it's\"} }}"),
        "{'a': [1, None], 'b': \"it's\"}"
    );
    assert_eq!(render("{{ ({'a': 1}) | string }}"), "{'a': 1}");
    assert_eq!(
        render("{{ messages[0].content }}{{ '<&>' | safe }}"),
        "hi <b><&>"
    );
}

#[test]
fn tests_of_types_are_pythons() {
    let source =
        "{{ none is iterable }}{{ 'x' is iterable }}{{ [] is iterable }}{{ 1 is iterable }}";
    assert_eq!(render(source), "FalseTrueTrueFalse");
    let source =
        "{{ none is sequence }}{{ 'x' is sequence }}{{ {} is sequence }}{{ {} is mapping }}";
    assert_eq!(render(source), "FalseTrueTrueTrue");
}

#[test]
fn none_is_no_sequence_and_generators_are_lazy() {
    let error = render_with("{% for t in tools %}{% endfor %}", &[], |_| {}).expect_err("none");
    assert!(error.to_string().contains("not iterable"), "{error}");
    assert_eq!(
        render("{% for t in nothing %}x{% else %}-{% endfor %}"),
        "-"
    );
    assert_eq!(
        render("{% for k, v in {'a': 1}.items() if v %}{{ k }}{{ v }}{% endfor %}"),
        "a1"
    );
    // As in Python: a generator is true even if it will yield nothing, and is no JSON.
    let select = "messages | selectattr('role', 'equalto', 'system')";
    assert_eq!(
        render(&format!("{{% if {select} %}}yes{{% endif %}}")),
        "yes"
    );
    assert_eq!(
        render(&format!("{{% if {select} | list %}}yes{{% endif %}}")),
        ""
    );
    assert_eq!(
        render("{{ messages | map(attribute='role') | join(',') }}"),
        "user"
    );
    assert_eq!(
        render("{{ messages | map(attribute='role') | list | tojson }}"),
        "[\"user\"]"
    );
    assert!(render_with("{{ [1] | map('string') | tojson }}", &[], |_| {}).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(3000))]

    /// A request may bring its own template: whatever it is, it renders or is an error.
    #[test]
    fn no_template_panics(parts in proptest::collection::vec(proptest::sample::select(vec![
        "{%", "%}", "{{", "}}", "{#", "#}", "-", " ", "\n", "for", "x", "in", "messages", "if",
        "endfor", "endif", "set", "=", "generation", "endgeneration", "macro", "f(x)", "endmacro",
        "'a'", "é", "|", "tojson", "(indent=2)", "int", "string", "[", "]", "0", "1.5", "-9", "*",
        "99999999999", "+", "~", "none", ".", "content", "split", "('')", "(1)", "[::0]", "[1:]",
        "strftime_now", "('%-')", "raise_exception", "range", "loop", "index", "namespace", "is",
        "sequence", "else", "recursive", "zfill", "format", "'%d'", "list", "length", "items",
    ]), 0..12)) {
        let wrapped = format!("{{{{ {} }}}}", parts.join(" "));
        let limits = TemplateLimits { max_fuel: 10_000, max_output_bytes: 1 << 16 };
        for source in [parts.concat(), parts.join(" "), wrapped] {
            if let Ok(template) = ChatTemplate::with_limits(&source, limits) {
                let messages = [json!({"role": "user", "content": "hé"})];
                let input = ChatInput::new(&messages, LocalTime::default());
                let _ = template.render(&input, [], &[]);
            }
        }
    }
}

#[test]
fn tojson_is_python() {
    assert_eq!(
        render("{{ {'b': ['é<', 1.0], 'a': none} | tojson }}"),
        r#"{"b": ["é<", 1.0], "a": null}"#
    );
    assert_eq!(
        render("{{ {'b': 1, 'a': 'é'} | tojson(ensure_ascii=True, sort_keys=True) }}"),
        r#"{"a": "\u00e9", "b": 1}"#
    );
    assert_eq!(
        render("{{ [1, {'a': 2}] | tojson(indent=2) }}"),
        "[\n  1,\n  {\n    \"a\": 2\n  }\n]"
    );
    assert_eq!(
        render("{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}"),
        r#"{"a":[1,2]}"#
    );
    let undefined = render_with("{{ nothing | tojson }}", &[], |_| {}).expect_err("undefined");
    assert!(
        undefined.to_string().contains("not JSON serializable"),
        "{undefined}"
    );
}

#[test]
fn int_and_float_have_defaults() {
    assert_eq!(
        render("{{ 'x'|int }} {{ '12'|int }} {{ ' 3.9 '|int }} {{ 'x'|int(7) }} {{ 2.5|int }}"),
        "0 12 3 7 2"
    );
    assert_eq!(
        render("{{ 'x' | float }} {{ '1.5' | float }} {{ none | float(2.0) }}"),
        "0.0 1.5 2.0"
    );
}

#[test]
fn the_time_is_an_argument() {
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}"), "21 Nov 2026");
}

#[test]
fn absent_tools_are_none_and_arguments_win() {
    assert_eq!(
        render(
            "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ bos_token }}"
        ),
        "TrueTrueTrue<s>"
    );
    assert_eq!(
        render("{{ eos_token is defined }}{{ additional_special_tokens[0] }}"),
        "False<x>"
    );
    let kwargs = json!({"enable_thinking": false, "bos_token": "B"});
    let text = render_with("{{ enable_thinking }}{{ bos_token }}", &[], |input| {
        input.kwargs = kwargs.as_object()
    });
    assert_eq!(text.unwrap(), "FalseB");
}

#[test]
fn raised_messages_come_through_verbatim() {
    let error = render_with(
        "{{ raise_exception('Only user & assistant!') }}",
        &[],
        |_| {},
    );
    assert_eq!(
        error,
        Err(TextError::TemplateRaised("Only user & assistant!".into()))
    );
    let in_macro = "{% macro f(x) %}{{ raise_exception('no ' ~ x) }}{% endmacro %}{{ f('y') }}";
    assert_eq!(
        render_with(in_macro, &[], |_| {}),
        Err(TextError::TemplateRaised("no y".into()))
    );
}

#[test]
fn errors_name_the_line() {
    let failed = render_with("a\nb\n{{ messages[7].content }}", &[], |_| {}).expect_err("fails");
    assert!(matches!(failed, TextError::TemplateFailed(_)) && failed.is_request_error());
    assert!(failed.to_string().contains("line 3"), "{failed}");
    let syntax = ChatTemplate::compile("a\n{% for %}").expect_err("syntax");
    assert!(
        matches!(&syntax, TextError::TemplateSyntax(text) if text.contains("line 2")),
        "{syntax}"
    );
    assert!(
        ChatTemplate::compile("{% include 'x' %}").is_ok(),
        "compiles, and then finds no file"
    );
    assert!(render_with("{% include 'x' %}", &[], |_| {}).is_err());
}

#[test]
fn templates_that_do_not_end_are_ended() {
    let limits = TemplateLimits {
        max_fuel: 100_000,
        max_output_bytes: 1 << 20,
    };
    let run = |source: &str| {
        ChatTemplate::with_limits(source, limits).unwrap().render(
            &ChatInput::new(&[], LocalTime::default()),
            [],
            &[],
        )
    };
    let looping =
        run("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}");
    assert_eq!(
        looping,
        Err(TextError::TemplateLimit("100000 instructions".into()))
    );
    let in_macro = run(
        "{% macro f() %}{% for i in range(9999) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
    );
    assert!(in_macro.is_err());
    let wide = run("{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}");
    assert_eq!(
        wide,
        Err(TextError::TemplateLimit("1048576 bytes of output".into()))
    );
    for padding in ["{{ '%99999d' | format(1) }}", "{{ '{:>99999}'.format(1) }}"] {
        let refused = run(padding).expect_err(padding);
        assert!(refused.to_string().contains("too many digits"), "{refused}");
    }
    let padded = run("{{ '%3d' | format(1) }}{{ '{:>3}'.format(1) }}");
    assert_eq!(padded.unwrap(), "  1  1");
    assert_eq!(
        run("{% for i in range(99) %}{{ i }}{% endfor %}")
            .unwrap()
            .len(),
        188
    );
}

#[test]
fn parts_are_joined_for_templates_that_read_strings() {
    let messages = [json!({"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})];
    let reads_strings = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let reads_parts = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
        {% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}";
    assert_eq!(
        render_with(reads_strings, &messages, |_| {}).unwrap(),
        "a\nb"
    );
    assert_eq!(
        render_with(reads_parts, &messages, |_| {}).unwrap(),
        "[a][b]"
    );
    assert!(ChatTemplate::compile(reads_parts).unwrap().accepts_parts());
    let prints_json = "{% for m in messages %}{{ m | tojson }}{% endfor %}";
    assert!(!ChatTemplate::compile(prints_json).unwrap().accepts_parts());
}

#[test]
fn the_final_message_is_continued() {
    let source =
        "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>{% endfor %}";
    let messages = [
        json!({"role": "user", "content": "say it"}),
        json!({"role": "assistant", "content": " The answer is "}),
    ];
    let go = |source: &str| {
        render_with(source, &messages, |input| {
            input.add_generation_prompt = false;
            input.continue_final_message = true;
        })
    };
    assert_eq!(
        go(source).unwrap(),
        "<user>say it</user><assistant>The answer is"
    );
    let verbatim = source.replace(" | trim", "");
    assert_eq!(
        go(&verbatim).unwrap(),
        "<user>say it</user><assistant> The answer is "
    );
    assert!(matches!(go("nothing"), Err(TextError::CannotContinue(_))));
}
