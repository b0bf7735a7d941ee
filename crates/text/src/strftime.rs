//! `strftime` for chat templates that print today's date.
//!
//! The time is an argument, so the same conversation at the same time is the same prompt on every
//! node. Civil dates from days: Howard Hinnant, "chrono-compatible low-level date algorithms".
//!
//! Invariant: any second of an `i64` and any format yield text; unknown directives are kept as
//! written.

use std::fmt::Write as _;

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
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const SECONDS_PER_DAY: i64 = 86_400;

/// A moment and the offset of the clock on the wall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalTime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub unix_secs: i64,
    /// Seconds that local time is ahead of UTC.
    pub utc_offset_secs: i32,
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl LocalTime {
    /// Formats as C's `strftime` in the C locale; `%-d` (no padding) as in glibc.
    pub fn strftime(&self, format: &str) -> String {
        let civil = self.civil();
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            let is_padded = directive != Some('-');
            if !is_padded {
                directive = chars.next();
            }
            match directive {
                Some(directive) => self.write(&civil, directive, is_padded, &mut out),
                None => out.push('%'),
            }
        }
        out
    }

    fn write(&self, civil: &Civil, directive: char, is_padded: bool, out: &mut String) {
        let mut number = |value: i64, width: usize, fill: char| {
            let _ = match (is_padded, fill) {
                (false, _) => write!(out, "{value}"),
                (true, ' ') => write!(out, "{value:width$}"),
                (true, _) => write!(out, "{value:0width$}"),
            };
        };
        let hour12 = (civil.hour + 11) % 12 + 1;
        match directive {
            'Y' => number(civil.year, 1, '0'),
            'y' => number(civil.year.rem_euclid(100), 2, '0'),
            'C' => number(civil.year.div_euclid(100), 2, '0'),
            'm' => number(civil.month, 2, '0'),
            'd' => number(civil.day, 2, '0'),
            'e' => number(civil.day, 2, ' '),
            'H' => number(civil.hour, 2, '0'),
            'I' => number(hour12, 2, '0'),
            'M' => number(civil.minute, 2, '0'),
            'S' => number(civil.second, 2, '0'),
            'f' => number(0, 6, '0'),
            'j' => number(civil.day_of_year, 3, '0'),
            'w' => number(civil.weekday, 1, '0'),
            'u' => number((civil.weekday + 6) % 7 + 1, 1, '0'),
            's' => number(self.unix_secs, 1, '0'),
            'B' => out.push_str(MONTHS[(civil.month - 1) as usize]),
            'b' | 'h' => out.push_str(&MONTHS[(civil.month - 1) as usize][..3]),
            'A' => out.push_str(DAYS[civil.weekday as usize]),
            'a' => out.push_str(&DAYS[civil.weekday as usize][..3]),
            'p' => out.push_str(if civil.hour < 12 { "AM" } else { "PM" }),
            'F' => out.push_str(&self.strftime("%Y-%m-%d")),
            'T' | 'X' => out.push_str(&self.strftime("%H:%M:%S")),
            'R' => out.push_str(&self.strftime("%H:%M")),
            'D' | 'x' => out.push_str(&self.strftime("%m/%d/%y")),
            'c' => out.push_str(&self.strftime("%a %b %e %H:%M:%S %Y")),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '%' => out.push('%'),
            // A naive Python datetime has no zone and prints nothing for it.
            'z' | 'Z' => {}
            other => {
                out.push('%');
                if !is_padded {
                    out.push('-');
                }
                out.push(other);
            }
        }
    }

    fn civil(&self) -> Civil {
        let local = self
            .unix_secs
            .saturating_add(i64::from(self.utc_offset_secs));
        let days = local.div_euclid(SECONDS_PER_DAY);
        let second_of_day = local.rem_euclid(SECONDS_PER_DAY);
        // Eras of 400 years that start on March 1st, so that the leap day comes last.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let month = (month_from_march + 2) % 12 + 1;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let day_of_year = if month <= 2 {
            day_from_march - 305
        } else {
            day_from_march + 60 + i64::from(is_leap)
        };
        Civil {
            year,
            month,
            day: day_from_march - (153 * month_from_march + 2) / 5 + 1,
            day_of_year,
            weekday: (days + 4).rem_euclid(7),
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix_secs: i64, format: &str) -> String {
        LocalTime {
            unix_secs,
            utc_offset_secs: 0,
        }
        .strftime(format)
    }

    #[test]
    fn formats_as_python_does() {
        let now = 1_795_278_245; // 2026-11-21T16:24:05Z
        assert_eq!(at(now, "%d %b %Y"), "21 Nov 2026");
        assert_eq!(
            at(now, "%Y-%m-%d %H:%M:%S %j %p %I"),
            "2026-11-21 16:24:05 325 PM 04"
        );
        assert_eq!(
            at(now, "%A, %B %-d; %a %y %w %u %%"),
            "Saturday, November 21; Sat 26 6 6 %"
        );
        assert_eq!(at(0, "%e|%-H|%Q|%"), " 1|0|%Q|%");
        let east = LocalTime {
            unix_secs: now,
            utc_offset_secs: 9 * 3_600,
        };
        assert_eq!(east.strftime("%F %T"), "2026-11-22 01:24:05");
    }

    #[test]
    fn leap_years_and_old_dates() {
        assert_eq!(at(951_782_400, "%F %j"), "2000-02-29 060");
        assert_eq!(at(978_220_800, "%F %j"), "2000-12-31 366");
        assert_eq!(at(-1, "%F %T %A"), "1969-12-31 23:59:59 Wednesday");
        assert_eq!(at(4_107_542_400, "%F %j"), "2100-03-01 060");
        // No overflow at the ends.
        assert!(!at(i64::MAX, "%F").is_empty() && !at(i64::MIN, "%c").is_empty());
    }
}
