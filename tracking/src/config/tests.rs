//! What `[tracking]` and the environment mean together.
#![allow(clippy::unwrap_used)]

use super::*;

fn server(
    config: &Config,
    environment: &[(&str, &str)],
) -> Result<Option<Settings>, TrackingError> {
    config.server(|name| {
        let found = environment.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn at(url: &str) -> Config {
    Config { mlflow: Some(url.into()), ..Config::default() }
}

fn refusal(config: &Config, environment: &[(&str, &str)]) -> String {
    server(config, environment).unwrap_err().to_string()
}

#[test]
fn nothing_is_tracked_unless_the_recipe_says_so() {
    let environment = [(URI, "http://127.0.0.1:5000")];
    assert_eq!(server(&Config::default(), &environment).unwrap(), None);
    assert!(!Config::default().is_on());
    let settings = server(&at("env"), &environment).unwrap().unwrap();
    assert_eq!(settings.base, "http://127.0.0.1:5000");
    assert_eq!(
        refusal(&at("env"), &[]),
        "MLFLOW_TRACKING_URI: expected the address of the MLflow server, since tracking.mlflow is \"env\", \
         found nothing"
    );
}

#[test]
fn an_address_may_have_a_path_and_nothing_else() {
    let base = |url| server(&at(url), &[]).unwrap().unwrap().base;
    assert_eq!(base("http://host:5000/"), "http://host:5000");
    assert_eq!(base("https://host/mlflow/"), "https://host/mlflow");
    for bad in ["host:5000", "ftp://host", "http://", "", "http://host?x=1", "sqlite:///mlflow.db"]
    {
        assert!(refusal(&at(bad), &[]).contains("expected http://host:port"), "{bad}");
    }
    let told = refusal(&at("https://me:secret@host"), &[]);
    assert!(told.contains("MLFLOW_TRACKING_USERNAME") && !told.contains("secret"), "{told}");
}

#[test]
fn credentials_go_in_plain_text_only_where_that_is_asked_for() {
    let token = [(TOKEN, "secret")];
    assert!(server(&at("https://host"), &token).unwrap().unwrap().credentials.is_some());
    for here in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
        assert!(server(&at(here), &token).unwrap().unwrap().credentials.is_some(), "{here}");
    }
    let told = refusal(&at("http://host"), &token);
    assert!(told.contains("credentials_in_plain_text") && !told.contains("secret"), "{told}");
    let allowed = Config { credentials_in_plain_text: true, ..at("http://host") };
    assert!(server(&allowed, &token).unwrap().unwrap().credentials.is_some());
    assert!(server(&at("http://host"), &[(TOKEN, " ")]).unwrap().unwrap().credentials.is_none());
}

#[test]
fn event_files_go_where_they_are_wanted() {
    let run = Path::new("runs/first");
    assert_eq!(EventFiles::InRun(false).folder(run, "first"), None);
    assert_eq!(EventFiles::InRun(true).folder(run, "first").unwrap(), run.join("tensorboard"));
    let below = EventFiles::Below("logs".into());
    assert_eq!(below.folder(run, "first").unwrap(), Path::new("logs/first"));
    let read = |text: &str| serde_json::from_str::<EventFiles>(text);
    assert_eq!(read("true").unwrap(), EventFiles::InRun(true));
    assert_eq!(read("\"logs\"").unwrap(), below);
    let told = read("3").unwrap_err().to_string();
    assert!(told.contains("expected true, false, or a directory"), "{told}");
    assert!(read("\"\"").is_err());
}
