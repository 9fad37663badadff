//! Time as the store keeps it: UTC microseconds. Only the composition root reads a clock;
//! everything else is told the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// UTC microseconds since 1970.
pub type Micros = i64;

pub const SECOND: Micros = 1_000_000;
pub const MINUTE: Micros = 60 * SECOND;
pub const HOUR: Micros = 60 * MINUTE;
pub const DAY: Micros = 24 * HOUR;

pub const SECONDS_A_DAY: i64 = DAY / SECOND;

pub trait Clock: Send + Sync {
    fn now(&self) -> Micros;
}

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
    }
}

/// `2026-11-23 12:39` in UTC.
#[must_use]
pub fn minute_text(at: Micros) -> String {
    chrono::DateTime::from_timestamp_micros(at).map_or_else(
        || "unknown".into(),
        |t| t.format("%Y-%m-%d %H:%M").to_string(),
    )
}

/// `2026-11-23` of a day counted from 1970-01-01.
#[must_use]
pub fn day_text(day: i64) -> String {
    day.checked_mul(DAY)
        .and_then(chrono::DateTime::from_timestamp_micros)
        .map_or_else(|| "unknown".into(), |t| t.format("%Y-%m-%d").to_string())
}

/// Parses `2026-11-23` into a day counted from 1970-01-01.
#[must_use]
pub fn parse_day(text: &str) -> Option<i64> {
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    date.and_hms_opt(0, 0, 0)
        .map(|midnight| midnight.and_utc().timestamp().div_euclid(SECONDS_A_DAY))
}

/// A calendar month in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    pub year: i32,
    pub month: u32,
}

impl Month {
    /// The month of a day counted from 1970-01-01.
    #[must_use]
    pub fn of_day(day: i64) -> Option<Self> {
        use chrono::Datelike;
        let date = chrono::DateTime::from_timestamp_micros(day.checked_mul(DAY)?)?.date_naive();
        Some(Self {
            year: date.year(),
            month: date.month(),
        })
    }

    /// The first day, and the day after the last one, counted from 1970-01-01.
    #[must_use]
    pub fn days(self) -> Option<(i64, i64)> {
        let start = |year, month| {
            let date = chrono::NaiveDate::from_ymd_opt(year, month, 1)?;
            Some(
                date.signed_duration_since(chrono::NaiveDate::default())
                    .num_days(),
            )
        };
        let (next_year, next_month) = if self.month == 12 {
            (self.year + 1, 1)
        } else {
            (self.year, self.month + 1)
        };
        Some((start(self.year, self.month)?, start(next_year, next_month)?))
    }

    /// `October 2026`.
    #[must_use]
    pub fn long_text(self) -> String {
        chrono::NaiveDate::from_ymd_opt(self.year, self.month, 1)
            .map_or_else(String::new, |d| d.format("%B %Y").to_string())
    }
}

/// `2026-10`.
impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl std::str::FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("{text:?} is not a month; write it like 2026-10");
        let (year, month) = text.split_once('-').ok_or_else(bad)?;
        let parsed = Self {
            year: year.parse().map_err(|_| bad())?,
            month: month.parse().map_err(|_| bad())?,
        };
        parsed.days().map(|_| parsed).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_converts_to_and_from_its_days() {
        for (text, length) in [("2026-10", 31), ("2024-02", 29), ("2026-12", 31)] {
            let month: Month = text.parse().unwrap();
            let (first, after) = month.days().unwrap();
            assert_eq!(after - first, length, "{text}");
            assert_eq!(Month::of_day(first), Some(month));
            assert_eq!(Month::of_day(after - 1), Some(month));
            assert_ne!(Month::of_day(after), Some(month));
            assert_eq!(month.to_string(), text);
        }
        for bad in ["2026-13", "x", "2026", ""] {
            assert!(bad.parse::<Month>().is_err(), "{bad}");
        }
    }
}
