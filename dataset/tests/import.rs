//! Other people's rows: what each format gives, and what its faults say.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;

use octet_dataset::{
    Example, Format, GroundTruth, Imported, Role, import, import_bfcl, load, write_jsonl,
};
use serde_json::{Value, json};

fn read(format: Format, rows: &[Value], text_answers: bool) -> Imported {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for row in rows {
        writeln!(file, "{row}").unwrap();
    }
    import(format, file.path(), text_answers)
}

/// The rows of a source without faults; each is sound when it is read again.
fn sound(format: Format, rows: &[Value]) -> Vec<Example> {
    let imported = read(format, rows, false);
    assert_eq!(imported.faults, None);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write_jsonl(&imported.rows, &mut file).unwrap();
    assert_eq!(load(file.path()).unwrap(), imported.rows);
    imported.rows
}

fn faults(format: Format, row: Value) -> Vec<String> {
    let faults = read(format, &[row], false).faults.unwrap();
    faults.faults.iter().map(|fault| fault.fault.to_string()).collect()
}

fn calls(row: &Example) -> Value {
    let GroundTruth::Calls(calls) = &row.ground_truth else { panic!("{:?}", row.ground_truth) };
    calls.iter().map(|call| json!({(call.name.clone()): call.arguments})).collect()
}

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "weather", "description": "d", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"]}}})
}

#[test]
fn trl_messages_give_a_row_for_each_answer_that_calls() {
    let call = |arguments: Value| json!([{"type": "function", "function": {"name": "weather", "arguments": arguments}}]);
    let row = json!({
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Lyon?"},
            {"role": "assistant", "content": null, "tool_calls": call(json!({"city": "Lyon", "days": null}))},
            {"role": "tool", "name": "weather", "content": "rain"},
            {"role": "assistant", "content": "It rains.", "tool_calls": null},
            {"role": "user", "content": "And Nice, for two days?"},
            {"role": "assistant", "tool_calls": call(json!("{\"city\": \"Nice\", \"days\": 2}"))}],
        "tools": json!([weather()]).to_string()});
    let rows = sound(Format::Trl, std::slice::from_ref(&row));
    assert_eq!(rows.len(), 2);
    // A column of structs writes a null where the argument is not there.
    assert_eq!(calls(&rows[0]), json!([{"weather": {"city": "Lyon"}}]));
    assert_eq!(calls(&rows[1]), json!([{"weather": {"city": "Nice", "days": 2}}]));
    assert_eq!(rows[0].prompt.len(), 2);
    let roles: Vec<Role> = rows[1].prompt.iter().map(|message| message.role).collect();
    assert_eq!(roles[2..], [Role::Assistant, Role::Tool, Role::Assistant, Role::User]);
    let said = rows[1].prompt[2].json();
    assert_eq!(said["tool_calls"][0]["function"]["arguments"], json!({"city": "Lyon"}));
    let left_out = read(Format::Trl, std::slice::from_ref(&row), false).left_out;
    assert_eq!(
        left_out.into_iter().collect::<Vec<_>>(),
        [("answers that call nothing".to_owned(), 1)]
    );
    let with_text = read(Format::Trl, &[row], true).rows;
    assert_eq!(with_text[1].ground_truth, GroundTruth::Text("It rains.".into()));
}

#[test]
fn trl_prompts_with_completions_and_preferences() {
    let answer = json!([{"role": "assistant", "content": "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Lyon\"}}\n</tool_call>"}]);
    let prompt = json!([{"role": "user", "content": "Lyon?"}]);
    let rows = sound(
        Format::Trl,
        &[
            json!({"prompt": prompt, "completion": answer, "tools": [weather()]}),
            json!({"prompt": prompt, "chosen": answer, "rejected": [], "tools": [weather()]}),
            json!({"prompt": "Lyon?", "completion": answer[0]["content"], "tools": [weather()]}),
        ],
    );
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert_eq!(calls(row), json!([{"weather": {"city": "Lyon"}}]));
        assert_eq!(row.request(), "Lyon?");
    }
}

#[test]
fn trl_faults_name_the_field_of_the_source() {
    let messages = |answer: Value| json!([{"role": "user", "content": "x"}, answer]);
    let call = |name: &str, arguments: Value| json!({"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]});
    for (row, fault) in [
        (
            json!({"messages": messages(call("rain", json!({}))), "tools": [weather()]}),
            "messages[1].tool_calls[0].function.name: expected one of the tools offered [\"weather\"], found \"rain\"",
        ),
        (
            json!({"messages": messages(call("weather", json!({"city": 3}))), "tools": [weather()]}),
            "messages[1].tool_calls[0].function.arguments.city: expected a value of type string, found the number 3",
        ),
        (
            json!({"messages": messages(json!({"role": "robot"}))}),
            "messages[1].role: expected \"system\", \"user\", \"assistant\" or \"tool\", found the text \"robot\"",
        ),
        (
            json!({"messages": messages(json!({"role": "assistant", "content": "<tool_call>{</tool_call>"}))}),
            "messages[1].content.<tool_call>[0]: expected a call as JSON, found JSON that does not parse: EOF while parsing an object at line 1 column 1",
        ),
        (
            json!({"prompt": [{"role": "user", "content": "x"}]}),
            "completion: expected a list of messages with role and content, or a text, found nothing",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}]}),
            "messages: expected an answer of the assistant, found none",
        ),
        (
            json!({"messages": messages(json!({"role": "user"})), "tools": "{"}),
            "tools: expected a list, or a list's JSON as a text, found JSON that does not parse: EOF while parsing an object at line 1 column 1",
        ),
    ] {
        assert_eq!(faults(Format::Trl, row), [fault]);
    }
}

#[test]
fn xlam_rows_have_pythons_types_and_lists_in_texts() {
    let tools = json!([{"name": "f", "description": "d", "parameters": {
        "n": {"type": "int", "description": "x"}, "l": {"type": "List[int], optional", "default": "[]"}}}]);
    let row = |answers: Value| json!({"id": 7, "query": "q", "tools": tools.to_string(), "answers": answers.to_string()});
    let rows = sound(
        Format::Xlam,
        &[
            row(
                json!([{"name": "f", "arguments": {"n": 1, "l": [2]}}, {"name": "f", "arguments": {"n": 3}}]),
            ),
            row(json!([])),
        ],
    );
    assert_eq!(calls(&rows[0]), json!([{"f": {"n": 1, "l": [2]}}, {"f": {"n": 3}}]));
    assert_eq!(rows[0].extra_info["id"], 7);
    let schema = &rows[0].tools[0]["function"]["parameters"];
    assert_eq!(schema["required"], json!(["n"]));
    assert_eq!(schema["properties"]["l"]["items"], json!({"type": "integer"}));
    assert_eq!(rows[1].ground_truth, GroundTruth::Refuse);
    assert_eq!(
        faults(Format::Xlam, row(json!([{"name": "f", "arguments": {"n": "1"}}]))),
        ["answers[0].arguments.n: expected a value of type integer, found the text \"1\""]
    );
    assert_eq!(
        faults(Format::Xlam, json!({"query": 1, "tools": [], "answers": "["})),
        [
            "query: expected a text, found the number 1",
            "answers: expected a list, or a list's JSON as a text, found JSON that does not parse: EOF while parsing a list at line 1 column 1"
        ]
    );
}

#[test]
fn toolace_calls_are_read_from_their_text() {
    let functions = json!([{"name": "Market Trends API", "description": "d", "parameters": {
        "type": "dict", "properties": {"kind": {"type": "string"}, "limit": {"type": "float"}}, "required": ["kind"]},
        "required": null}]);
    let row = |answer: &str| {
        json!({
        "system": format!("You are an expert [in functions].\n{functions}. \nFormat: [func1(a=b)]"),
        "conversations": [
            {"from": "user", "value": "Trends?"},
            {"from": "assistant", "value": answer},
            {"from": "tool", "value": "[]"},
            {"from": "assistant", "value": "There are none."}]})
    };
    let rows = sound(Format::ToolAce, &[row("[Market Trends API(kind=\"a, (b)\", limit=2)]")]);
    assert_eq!(calls(&rows[0]), json!([{"Market Trends API": {"kind": "a, (b)", "limit": 2}}]));
    assert_eq!(rows[0].prompt.len(), 1, "the system text taught the format");
    assert_eq!(
        faults(Format::ToolAce, row("[Market Trends API(kind=x)]")),
        [
            "conversations[1].value: expected calls like [f(a=1, b=\"x\")], found \"x)]\" where a literal was expected, at character 25"
        ]
    );
    assert_eq!(
        faults(Format::ToolAce, row("[Market Trends API(limit=1)]")),
        [
            "conversations[1].value[0].arguments.kind: expected a value, the schema requires it, found nothing"
        ]
    );
}

#[test]
fn hermes_takes_tools_from_the_system_turn() {
    let system = format!(
        "Signatures are within <tools></tools> tags. <tools> {} </tools> Answer with <tool_call></tool_call>.",
        weather()
    );
    let row = |answer: &str| {
        json!({"id": "a", "category": "c", "conversations": [
        {"from": "system", "value": system},
        {"from": "human", "value": "Lyon?"},
        {"from": "gpt", "value": answer},
        {"from": "tool", "value": "<tool_response>\n{\"sky\": \"grey\"}\n</tool_response>"},
        {"from": "gpt", "value": "<tool_call>\n{'arguments': {'city': 'Nice', 'days': 2}, 'name': 'weather'}\n</tool_call>"}]})
    };
    let rows = sound(
        Format::Hermes,
        &[row(
            "I look. <tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Lyon\"}}\n</tool_call>",
        )],
    );
    assert_eq!(rows.len(), 2);
    assert_eq!(calls(&rows[0]), json!([{"weather": {"city": "Lyon"}}]));
    assert_eq!(calls(&rows[1]), json!([{"weather": {"city": "Nice", "days": 2}}]));
    assert_eq!(rows[1].prompt[0].role, Role::User);
    assert_eq!(rows[1].prompt[1].content.as_deref(), Some("I look."));
    assert_eq!(rows[1].prompt[2].content.as_deref(), Some("{\"sky\": \"grey\"}"));
    assert_eq!(
        faults(
            Format::Hermes,
            row("<tool_call>{\"name\": \"weather\", \"arguments\": {}}</tool_call>")
        ),
        [
            "conversations[2].value.<tool_call>[0].arguments.city: expected a value, the schema requires it, found nothing"
        ]
    );
}

/// A folder in the leaderboard's layout, with questions and answers of our own.
fn leaderboard(questions: &[Value], answers: &[Value]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let lines = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let name = "BFCL_v4_simple_python.json";
    let data = directory.path().join("bfcl_eval/data");
    std::fs::create_dir_all(data.join("possible_answer")).unwrap();
    std::fs::write(data.join(name), lines(questions)).unwrap();
    std::fs::write(data.join("possible_answer").join(name), lines(answers)).unwrap();
    std::fs::write(data.join("BFCL_v4_simple_java.json"), "").unwrap();
    directory
}

fn question(id: &str) -> Value {
    json!({"id": id, "question": [[{"role": "user", "content": "x"}]], "function": [{
        "name": "geo.find", "description": "Finds.", "parameters": {"type": "dict", "properties": {
            "at": {"type": "tuple", "items": {"type": "float"}, "description": "Where."},
            "how": {"type": "any"}, "far": {"type": "float", "description": "km."}}, "required": ["at"]}}]})
}

#[test]
fn the_leaderboards_rows_become_possible_calls_and_json_schema() {
    let answers = [
        json!({"id": "a", "ground_truth": [{"geo.find": {"at": [[1.5, 2.0]], "how": ["car", ""]}}]}),
        json!({"id": "b", "ground_truth": [{"geo.find": {"at": []}}]}),
    ];
    let directory = leaderboard(&[question("a"), question("b")], &answers);
    let imported = import_bfcl(directory.path(), &[]);
    assert_eq!(imported.faults, None);
    let [row, unearned] = imported.rows.as_slice() else { panic!("{:?}", imported.rows) };
    assert_eq!(
        row.row()["reward_model"]["ground_truth"],
        json!({"possible_calls": [{"name": "geo.find", "parameters": {"at": [[1.5, 2.0]], "how": ["car", ""]}}]})
    );
    let function = &row.tools[0]["function"];
    assert_eq!(
        function["description"],
        "Finds. Note that the provided function is in Python 3 syntax."
    );
    assert_eq!(
        function["parameters"]["properties"],
        json!({
        "at": {"type": "array", "items": {"type": "number"}, "description": "Where."},
        "how": {"type": "string"},
        "far": {"type": "number", "description": "km. This is a float type value.", "format": "float"}})
    );
    assert_eq!(row.extra_info["category"], "simple_python");
    assert!(
        imported.notes[0].starts_with("BFCL_v4_simple_java.json is left out"),
        "{:?}",
        imported.notes
    );
    assert!(imported.notes[1].ends_with(": b"), "{:?}", imported.notes);
    assert_eq!(unearned.extra_info["id"], "b");
    let GroundTruth::Possible(calls) = &row.ground_truth else { panic!() };
    assert_eq!(json!(calls[0].reference().arguments), json!({"at": [1.5, 2.0], "how": "car"}));
}

#[test]
fn the_leaderboards_faults_name_the_file() {
    let directory =
        leaderboard(&[question("a")], &[json!({"id": "z", "ground_truth": [{"f": {"x": 1}}]})]);
    let faults = import_bfcl(directory.path(), &[]).faults.unwrap().to_string();
    assert!(
        faults.ends_with("possible_answer/BFCL_v4_simple_python.json:1: ground_truth[0].f.x: expected a list of accepted values, found the number 1"),
        "{faults}"
    );
    let directory =
        leaderboard(&[question("a")], &[json!({"id": "z", "ground_truth": [{"f": {"x": [1]}}]})]);
    let faults = import_bfcl(directory.path(), &[]).faults.unwrap().to_string();
    assert!(
        faults.ends_with("id: expected the id of a row in possible_answer, found \"a\""),
        "{faults}"
    );
    let faults = import_bfcl(Path::new("no/such/folder"), &[]).faults.unwrap().to_string();
    assert!(faults.contains("BFCL_v4_simple_python.json and others"), "{faults}");
}
