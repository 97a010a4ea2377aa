//! A fixed moment, formatted as Python's `strftime` does in the C locale.

/// Date and time of day, without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970-01-01 00:00.
    pub seconds: i64,
}

impl Default for Moment {
    /// 26 July 2024, the date that Llama 3's own templates fall back to.
    fn default() -> Self {
        Self { seconds: 1_721_952_000 }
    }
}

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Moment {
    /// The moment in a `strftime` format; the error names a directive that is not known.
    pub fn format(self, format: &str) -> Result<String, String> {
        let days = self.seconds.div_euclid(86_400);
        let second = self.seconds.rem_euclid(86_400);
        let (year, month, day) = civil(days);
        let month_name = MONTHS[(month - 1) as usize];
        let day_name = DAYS[(days + 4).rem_euclid(7) as usize];
        let hour = second / 3600;
        let hour12 = (hour + 11) % 12 + 1;
        let (minute, second) = (second / 60 % 60, second % 60);
        let mut result = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                result.push(c);
                continue;
            }
            let mut directive = chars.next();
            let bare = directive == Some('-');
            if bare {
                directive = chars.next();
            }
            let padded = |number: i64, width: usize| {
                if bare { number.to_string() } else { format!("{number:0width$}") }
            };
            result.push_str(&match directive {
                Some('Y') => padded(year, 4),
                Some('y') => padded(year.rem_euclid(100), 2),
                Some('m') => padded(month, 2),
                Some('d') => padded(day, 2),
                Some('H') => padded(hour, 2),
                Some('I') => padded(hour12, 2),
                Some('M') => padded(minute, 2),
                Some('S') => padded(second, 2),
                Some('B') => month_name.into(),
                Some('b') => month_name[..3].into(),
                Some('A') => day_name.into(),
                Some('a') => day_name[..3].into(),
                Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
                Some('F') => format!("{year:04}-{month:02}-{day:02}"),
                Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
                Some('%') => "%".into(),
                other => {
                    let other = other.map_or(String::new(), String::from);
                    return Err(format!("strftime_now does not know the directive `%{other}`"));
                }
            });
        }
        Ok(result)
    }
}

/// Year, month and day of a day number since 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Eras of 400 years that begin on 1 March, so that a leap day ends its year.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_python() {
        // datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %a %b %I:%M %p %-d")
        for (seconds, text) in [
            (0, "1970-01-01 Thu Jan 12:00 AM 1"),
            (951_827_696, "2000-02-29 Tue Feb 12:34 PM 29"),
            (-1, "1969-12-31 Wed Dec 11:59 PM 31"),
            (1_721_952_000, "2024-07-26 Fri Jul 12:00 AM 26"),
        ] {
            let formatted = Moment { seconds }.format("%Y-%m-%d %a %b %I:%M %p %-d");
            assert_eq!(formatted.as_deref(), Ok(text));
        }
        assert!(Moment::default().format("%Q").is_err_and(|e| e.contains("%Q")));
    }
}
