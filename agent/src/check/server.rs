//! The way to the server, and this machine's clock against the server's.

use std::time::{Duration, SystemTime};

use reqwest::header;
use sealyard_filecoin::http;

use super::Finding;

/// Offsets in milliseconds. Heartbeats and passes for other machines' files carry times.
const NOTABLE: u64 = 2_000;
const TOO_FAR: u64 = 30_000;
const TIMEOUT: Duration = Duration::from_secs(10);

pub async fn findings(url: &str) -> Vec<Finding> {
    const SUBJECT: &str = "server";
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return vec![Finding::problem(
            SUBJECT,
            format!("{url} has no scheme"),
            format!("write --url https://{url}"),
        )];
    }
    let probe = format!("{}/healthz", url.trim_end_matches('/'));
    let client = match http::client(TIMEOUT) {
        Ok(client) => client,
        Err(error) => {
            let value = format!("no connection can be made: {error:#}");
            return vec![Finding::problem(
                SUBJECT,
                value,
                "install the system's root certificates",
            )];
        }
    };
    let sent = SystemTime::now();
    let answer = client.get(&probe).send().await;
    let received = SystemTime::now();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            return vec![Finding::problem(
                SUBJECT,
                format!("{probe} cannot be reached: {why}"),
                "check the address, its name, and the firewalls on the way",
            )];
        }
    };
    let date = answer
        .headers()
        .get(header::DATE)
        .and_then(|date| date.to_str().ok());
    vec![
        reached(&probe, answer.status().as_u16()),
        clock(date, sent, received),
    ]
}

fn reached(probe: &str, status: u16) -> Finding {
    match status {
        200..=299 => Finding::ok("server", format!("{probe} answers")),
        _ => Finding::problem(
            "server",
            format!("{probe} answers HTTP {status}"),
            "start `sealyard serve`, or correct the proxy in front of it or the address",
        ),
    }
}

/// Compares the clocks. `date` is the server's header, in whole seconds.
fn clock(date: Option<&str>, sent: SystemTime, received: SystemTime) -> Finding {
    const SUBJECT: &str = "clock";
    let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return Finding::warning(
            SUBJECT,
            "the server's answer has no date to compare with",
            "let the proxy in front of the server pass the Date header on",
        );
    };
    let ahead = ahead_ms(date, sent, received);
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let value = format!("{} s {side} the server's", seconds(ahead));
    let remedy = "let the clock follow a time server: timedatectl set-ntp true";
    let off = ahead.unsigned_abs();
    if off <= NOTABLE {
        Finding::ok(SUBJECT, value)
    } else if off <= TOO_FAR {
        Finding::warning(SUBJECT, value, remedy)
    } else {
        Finding::problem(SUBJECT, value, remedy)
    }
}

/// Milliseconds by which this machine is ahead: the middle of the exchange here against the middle
/// of the server's second.
fn ahead_ms(date: SystemTime, sent: SystemTime, received: SystemTime) -> i64 {
    let here = millis(sent).saturating_add(millis(received)) / 2;
    here.saturating_sub(millis(date).saturating_add(500))
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// Without a sign, with one decimal.
fn seconds(millis: i64) -> String {
    let millis = millis.unsigned_abs();
    format!("{}.{}", millis / 1000, millis % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    /// The second of the header in the tests.
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AT: u64 = 784_111_777;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn clocks_are_compared_in_the_middle_of_the_exchange() {
        let server = AT * 1000 + 500;
        for (sent, received, level, text) in [
            (server, server, Level::Ok, "0.0 s ahead of the server's"),
            (server - 100, server + 700, Level::Ok, "0.3 s ahead"),
            (server - 1900, server - 1900, Level::Ok, "1.9 s behind"),
            (server + 2001, server + 2001, Level::Warning, "2.0 s ahead"),
            (
                server - 30_000,
                server - 30_000,
                Level::Warning,
                "30.0 s behind",
            ),
            (
                server + 30_100,
                server + 30_100,
                Level::Problem,
                "30.1 s ahead",
            ),
        ] {
            let finding = clock(Some(DATE), at(sent), at(received));
            assert_eq!(finding.level, level, "{finding}");
            assert!(finding.value.contains(text), "{finding}");
        }
    }

    #[test]
    fn an_answer_without_a_readable_date_is_a_warning() {
        for date in [None, Some("yesterday")] {
            assert_eq!(clock(date, at(0), at(0)).level, Level::Warning);
        }
    }

    #[test]
    fn only_a_healthy_answer_is_well() {
        for (status, level) in [
            (200, Level::Ok),
            (301, Level::Problem),
            (502, Level::Problem),
        ] {
            assert_eq!(reached("https://x/healthz", status).level, level);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_problem() {
        for url in ["power.example.org", "http://127.0.0.1:1"] {
            let findings = findings(url).await;
            let levels: Vec<Level> = findings.iter().map(|finding| finding.level).collect();
            assert_eq!(levels, [Level::Problem], "{url}");
        }
    }
}
