//! Checks everything that a machine reports: numbers must be plausible for a machine, and texts
//! become short, plain lines.

use super::protocol::{
    EnrolRequest, Hardware, HeartbeatRequest, Outcome, ReportRequest, Running, Usage,
};

/// Far beyond any machine, and small enough that sums over a fleet cannot overflow.
pub const MOST_CORES: i64 = 4096;
/// 64 TiB.
pub const MOST_MEMORY: i64 = 1 << 46;
/// 4 PiB.
pub const MOST_DISK: i64 = 1 << 52;
pub const MOST_GPUS: usize = 64;
/// 60 days. A step is killed long before.
pub const MOST_MS: i64 = 60 * 86_400_000;
/// Longest reason or note, in characters; longer ones are cut.
const LONGEST_TEXT: usize = 500;
/// Longest address, in bytes.
const LONGEST_URL: usize = 300;
/// Limits on the tasks that a machine runs at once, and on the stored sectors in one heartbeat.
const MOST_RUNNING: usize = 4096;
const MOST_STORED: usize = 10_000;

/// An impossible value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}; it must be {must}")]
pub struct Nonsense {
    pub what: &'static str,
    pub value: String,
    pub must: String,
}

fn within(what: &'static str, value: i64, (least, most): (i64, i64)) -> Result<(), Nonsense> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Nonsense {
        what,
        value: value.to_string(),
        must: format!("between {least} and {most}"),
    })
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), Nonsense> {
    if count <= most {
        Ok(())
    } else {
        Err(Nonsense {
            what,
            value: count.to_string(),
            must: format!("at most {most}"),
        })
    }
}

/// One line of at most 500 characters: control characters become spaces, and the rest is cut.
#[must_use]
pub fn plain(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_TEXT + 1)
        .collect();
    if line.chars().count() > LONGEST_TEXT {
        line.chars().take(LONGEST_TEXT - 1).chain(['…']).collect()
    } else {
        line
    }
}

pub fn hardware(hardware: &mut Hardware) -> Result<(), Nonsense> {
    within("cores", hardware.cores, (1, MOST_CORES))?;
    within("memory_bytes", hardware.memory_bytes, (0, MOST_MEMORY))?;
    within("disk_bytes", hardware.disk_bytes, (0, MOST_DISK))?;
    within("disk_free_bytes", hardware.disk_free_bytes, (0, MOST_DISK))?;
    at_most("gpus", hardware.gpus.len(), MOST_GPUS)?;
    hardware
        .gpus
        .iter_mut()
        .for_each(|name| *name = plain(name));
    hardware.description = plain(&hardware.description);
    Ok(())
}

pub fn enrol(request: &mut EnrolRequest) -> Result<(), Nonsense> {
    at_most("token", request.token.len(), 200)?;
    hardware(&mut request.hardware)
}

pub fn heartbeat(request: &mut HeartbeatRequest) -> Result<(), Nonsense> {
    hardware(&mut request.hardware)?;
    at_most("running", request.running.len(), MOST_RUNNING)?;
    at_most("stored", request.stored.len(), MOST_STORED)?;
    for Running { progress, .. } in &mut request.running {
        *progress = plain(progress);
    }
    if let Some(url) = &request.files_url {
        let good =
            url.len() <= LONGEST_URL && host_of(url).is_some() && !url.contains(char::is_control);
        if !good {
            let must =
                format!("http:// or https:// with a host, of at most {LONGEST_URL} characters");
            return Err(Nonsense {
                what: "files_url",
                value: plain(url),
                must,
            });
        }
    }
    Ok(())
}

/// The host in an address; `None`: files cannot be fetched from such an address.
#[must_use]
pub fn host_of(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    (!host.is_empty() && host.chars().all(plain)).then_some(host)
}

fn usage(usage: &Usage) -> Result<(), Nonsense> {
    within("wall_ms", usage.wall_ms, (0, MOST_MS))?;
    within("cpu_ms", usage.cpu_ms, (0, MOST_MS * MOST_CORES))?;
    within("peak_bytes", usage.peak_bytes, (0, MOST_MEMORY))
}

pub fn report(request: &mut ReportRequest) -> Result<(), Nonsense> {
    usage(&request.usage)?;
    if let Outcome::Failed { reason, .. } = &mut request.outcome {
        *reason = plain(reason);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_of_the_largest_machines_add_up() {
        for most in [MOST_CORES, MOST_MEMORY, MOST_DISK] {
            assert!(
                most.checked_mul(1000).is_some(),
                "{most} overflows over a fleet"
            );
        }
    }

    fn sound() -> Hardware {
        Hardware {
            cores: 4,
            memory_bytes: 16 << 30,
            disk_bytes: 1 << 40,
            disk_free_bytes: 1 << 39,
            gpus: vec!["card".into()],
            description: "test".into(),
        }
    }

    #[test]
    fn impossible_hardware_and_usage_are_refused() {
        assert_eq!(hardware(&mut sound()), Ok(()));
        for spoil in [
            |h: &mut Hardware| h.cores = 0,
            |h: &mut Hardware| h.cores = i64::MAX,
            |h: &mut Hardware| h.memory_bytes = -1,
            |h: &mut Hardware| h.memory_bytes = i64::MAX,
            |h: &mut Hardware| h.disk_bytes = i64::MAX,
            |h: &mut Hardware| h.disk_free_bytes = i64::MIN,
            |h: &mut Hardware| h.gpus = vec![String::new(); MOST_GPUS + 1],
        ] {
            let mut bad = sound();
            spoil(&mut bad);
            assert!(hardware(&mut bad).is_err(), "{bad:?}");
        }
        for (wall_ms, good) in [
            (0, true),
            (MOST_MS, true),
            (MOST_MS + 1, false),
            (-1, false),
            (i64::MAX, false),
        ] {
            assert_eq!(
                usage(&Usage {
                    wall_ms,
                    ..Usage::default()
                })
                .is_ok(),
                good,
                "{wall_ms}"
            );
        }
    }

    #[test]
    fn texts_are_cleaned_and_shortened() {
        assert_eq!(plain("a\0b\nc"), "a b c");
        let long = plain(&"ä".repeat(100_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (500, true));
        assert_eq!(plain(&"x".repeat(500)).len(), 500);
    }

    #[test]
    fn files_are_fetched_only_from_http_and_https_addresses() {
        for (url, host) in [
            ("http://10.0.0.7:7350", Some("10.0.0.7")),
            ("https://yard.example/files", Some("yard.example")),
            ("http://[::1]:80", Some("[::1]")),
            ("http://user@10.0.0.7", None),
            ("ftp://10.0.0.7", None),
            ("http://", None),
            ("http:///x", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }
}
