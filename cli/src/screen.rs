//! What a command has to say goes to standard output through here; progress and logs go to standard error.

use std::fmt::Display;
use std::io::Write;

/// Prints a line. A reader that went away (`octet … | head`) is no error.
pub fn say(text: impl Display) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}
