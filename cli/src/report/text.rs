//! Texts and numbers for the page.
//!
//! Invariant: no text is longer than its bound, what was cut is said, and no sign in it is invisible or changes the
//! order of others: completions are written by a policy, for a reward, and not for a reader.

/// Most characters of a completion or a request.
pub const MOST_TEXT: usize = 2000;
/// Most characters of a rendered prompt, a tool list or a ground truth.
pub const MOST_PROMPT: usize = 6000;
/// Most characters of a verdict's detail.
pub const MOST_DETAIL: usize = 400;
/// Most characters of a name: a tool's, a worker's, a verdict's.
pub const MOST_NAME: usize = 80;

/// A text as it is shown, at most `most` characters of it.
pub fn shown(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    let mut signs = text.chars();
    for sign in signs.by_ref().take(most) {
        match visible(sign) {
            Some(name) => shown.push_str(&name),
            None => shown.push(sign),
        }
    }
    let cut = signs.count();
    if cut > 0 {
        shown.push_str(&format!(" … {} characters cut", count(cut as u64)));
    }
    shown
}

/// What a sign is shown as that would not be seen, or would turn others around.
fn visible(sign: char) -> Option<String> {
    let at = u32::from(sign);
    match sign {
        '\n' | '\t' => None,
        // Control Pictures.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + at).map(String::from),
        '\u{7f}' => Some('\u{2421}'.into()),
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{e0000}'..='\u{e007f}' => Some(format!("⟨U+{at:04X}⟩")),
        _ => None,
    }
}

/// A whole number with its thousands apart.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A measurement with as many digits as a reader wants.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if size >= 1e6 {
        format!("{value:.2e}")
    } else if size >= 1000.0 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(size.round() as u64))
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.01 {
        format!("{value:.3}")
    } else {
        format!("{value:.1e}")
    }
}

/// A share in percent; its sign stays beside it.
pub fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * share)
}

/// A reward.
pub fn reward(value: f64) -> String {
    format!("{value:.3}")
}

/// Seconds, as people say them.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5400.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Which of five classes a reward belongs to, from none of it to the full one.
pub fn class(reward: f64) -> &'static str {
    match reward {
        r if r >= 1.0 => "r4",
        r if r > 0.5 => "r3",
        0.5 => "r2",
        r if r > 0.0 => "r1",
        _ => "r0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_said() {
        assert_eq!(shown("héllo", 5), "héllo");
        assert_eq!(shown(&"é".repeat(2001), 2000), "é".repeat(2000) + " … 1 characters cut");
        assert!(shown(&"x".repeat(5000), 10).ends_with(" … 4,990 characters cut"));
    }

    #[test]
    fn nothing_is_invisible_and_nothing_turns_the_line_around() {
        assert_eq!(shown("a\0b\u{1b}[2J\r\n\tc", 100), "a␀b␛[2J␍\n\tc");
        assert_eq!(shown("user\u{202e}txt.exe\u{200b}", 100), "user⟨U+202E⟩txt.exe⟨U+200B⟩");
    }

    #[test]
    fn numbers_keep_what_matters() {
        let texts = [0.0, 0.123_46, 12.34, 123.4, 12_345.6, -12_345.6, 2e-5, 3.2e9].map(number);
        assert_eq!(texts, ["0", "0.123", "12.3", "123", "12,346", "-12,346", "2.0e-5", "3.20e9"]);
        assert_eq!([999, 1000, 1_234_567].map(count), ["999", "1,000", "1,234,567"]);
    }
}
