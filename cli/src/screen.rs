//! What a command has to say goes to standard output through here; progress and logs go to standard error.

use std::fmt::Display;
use std::io::Write;

/// Prints a line. A reader that went away (`octet … | head`) is no error.
pub fn say(text: impl Display) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Prints a line of what goes on beside the result to standard error.
pub fn note(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Prints an error and its causes on one line of standard error.
pub fn complain(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // A cause that its context already quotes is not said twice.
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    drop(writeln!(std::io::stderr().lock(), "error: {text}"));
}
